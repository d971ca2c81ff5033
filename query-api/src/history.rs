//! `GET /api/v1/tasks/{id}/history`: what happened to a task, oldest first, in pages.

use access::token::Sealer;
use axum::extract::State;
use axum::response::Response;
use domain::{ActorType, OwnerId, Time};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, page_of, reference, time, whole};
use http_api::page::Limit;
use http_api::problem::ProblemCode;
use http_api::query::{PathId, StrictQuery};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{Query, ReadSource, Reads};
use crate::task_json::{write_number, write_text, write_time};

/// The query string of a history.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

/// A page of one task's history.
struct HistoryRequest {
    task_id: Uuid,
    limit: u16,
    /// Versions after this one.
    after: i64,
}

impl HistoryRequest {
    fn parse(task_id: Uuid, parameters: &Parameters, owner: Uuid, sealer: &Sealer) -> Result<Self, ReadError> {
        let after = match &parameters.cursor {
            None => 0,
            Some(cursor) => {
                let bytes = sealer.open_cursor(cursor, OwnerId(owner), &binding(task_id)).ok();
                let version = bytes.and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
                version.ok_or(ReadError::ForeignCursor)?
            }
        };
        Ok(Self { task_id, limit: parameters.limit.get(), after })
    }
}

fn binding(task_id: Uuid) -> Vec<u8> {
    [&b"h"[..], task_id.as_bytes()].concat()
}

pub(crate) async fn history(
    State(reads): State<Reads>,
    asked: Asked,
    PathId(id): PathId,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let request = HistoryRequest::parse(id, &parameters, asked.owner.id, reads.owner_versions().sealer())?;
    let version = reads.owner_version(asked.owner, asked.minimum).await?;
    let answer = reads.answer(asked.owner, version, &request).await?;
    Ok(asked.respond(&answer))
}

pub(crate) fn described() -> Operation {
    let created = json!({
        "version": 1, "type": "TaskCreated", "occurred_at": EXAMPLE_TIME, "recorded_at": EXAMPLE_TIME,
        "actor": {"type": "user", "id": EXAMPLE_ID},
        "changes": {"title": {"from": null, "to": "Ring Zoë"}, "status": {"from": null, "to": "pending"}},
    });
    read("showHistory", "Show what happened to a task, oldest first")
        .path_id("The task's id.")
        .pages()
        .json(
            200,
            "A page of events.",
            &ANSWERED_PAGE,
            &reference("HistoryPage"),
            &json!({"items": [created], "next_cursor": null}),
        )
        .refuses(&[ProblemCode::NotFound])
}

pub(crate) fn schema() -> Value {
    page_of("HistoryItem")
}

pub(crate) fn item_schema() -> Value {
    let change = whole(json!({"from": {}, "to": {}}));
    whole(json!({
        "version": {"type": "integer", "minimum": 1},
        "type": {"type": "string", "pattern": "^Task([A-Z][a-z]+)+$", "description": "`TaskCreated`, `TaskRenamed`, …"},
        "occurred_at": time(),
        "recorded_at": time(),
        "actor": whole(json!({
            "type": {"type": "string", "enum": [ActorType::User.as_str(), ActorType::System.as_str()]},
            "id": {"type": ["string", "null"], "format": "uuid"},
        })),
        "changes": {
            "type": "object", "additionalProperties": change,
            "description": "By field: what it was and what it became. Only those that changed.",
        },
    }))
}

impl Query for HistoryRequest {
    fn key(&self) -> Vec<u8> {
        [&b"H"[..], self.task_id.as_bytes(), &self.limit.to_be_bytes(), &self.after.to_be_bytes()].concat()
    }

    async fn load(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
    ) -> Result<Loaded, ReadError> {
        load(reads, source, shown.generation, owner, self).await
    }
}

/// An event, as it is shown.
struct Item {
    version: i64,
    event_type: String,
    occurred_at: Time,
    recorded_at: Time,
    actor_type: String,
    actor_id: Option<Uuid>,
    /// JSON
    changes: String,
}

async fn load(
    reads: &Reads,
    source: ReadSource,
    generation: i32,
    owner: Uuid,
    request: &HistoryRequest,
) -> Result<Loaded, ReadError> {
    let rows = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?", t.version as "task_version?",
               h.version as "version?", h.type as "event_type?", h.occurred_at as "occurred_at?",
               h.recorded_at as "recorded_at?", h.actor_type as "actor_type?", h.actor_id as "actor_id?", h.changes as "changes?"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join read_model.task t on t.generation = $1 and t.owner_id = $2 and t.task_id = $3 and not t.deleted
           left join lateral (
               select * from read_model.history h
               where h.generation = $1 and h.owner_id = $2 and h.task_id = t.task_id and h.version > $4
               order by h.version limit $5
           ) h on true
           order by h.version"#,
        generation,
        owner,
        request.task_id,
        request.after,
        i64::from(request.limit) + 1
    )
    .fetch_all(reads.pool(source))
    .await?;
    let first = rows.first().ok_or(ReadError::Unavailable)?;
    let row = version_row!(first, generation: generation);
    let (live_generation, exists) = (first.live_generation, first.task_version.is_some());
    let items = rows.into_iter().filter_map(|row| {
        Some(Item {
            version: row.version?,
            event_type: row.event_type?,
            occurred_at: row.occurred_at?,
            recorded_at: row.recorded_at?,
            actor_type: row.actor_type?,
            actor_id: row.actor_id,
            changes: row.changes?,
        })
    });
    let content = exists.then(|| content(items.collect(), owner, request, reads.owner_versions().sealer()));
    Ok(Loaded { live_generation, row, content })
}

fn content(mut items: Vec<Item>, owner: Uuid, request: &HistoryRequest, sealer: &Sealer) -> Content {
    let limit = usize::from(request.limit);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| sealer.seal_cursor(OwnerId(owner), &binding(request.task_id), &last.version.to_be_bytes()));
    let mut body = Vec::with_capacity(64 + items.iter().map(|item| 250 + item.changes.len()).sum::<usize>());
    body.extend_from_slice(b"{\"items\":[");
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        item.write(&mut body);
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    match &next {
        Some(cursor) => write_text(&mut body, cursor),
        None => body.extend_from_slice(b"null"),
    }
    body.push(b'}');
    let link = |cursor| format!("/api/v1/tasks/{}/history?limit={}&cursor={cursor}", request.task_id, request.limit);
    Content { body: body.into(), etag: Etag::OwnerVersion, link: next.map(link) }
}

impl Item {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"version\":");
        write_number(out, self.version);
        out.extend_from_slice(b",\"type\":");
        write_text(out, &self.event_type);
        out.extend_from_slice(b",\"occurred_at\":");
        write_time(out, Some(self.occurred_at));
        out.extend_from_slice(b",\"recorded_at\":");
        write_time(out, Some(self.recorded_at));
        out.extend_from_slice(b",\"actor\":{\"type\":");
        write_text(out, &self.actor_type);
        out.extend_from_slice(b",\"id\":");
        match &self.actor_id {
            Some(id) => write_text(out, id.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"},\"changes\":");
        // JSON already, made by the projector.
        out.extend_from_slice(self.changes.as_bytes());
        out.push(b'}');
    }
}
