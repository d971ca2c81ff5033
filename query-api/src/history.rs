//! `GET /api/v1/tasks/{id}/history`: what happened to a task, oldest first, in pages.

use axum::extract::State;
use axum::response::Response;
use domain::{ActorType, Time};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, page_of, reference, time, whole};
use http_api::page::PageQuery;
use http_api::problem::ProblemCode;
use http_api::query::{PathId, StrictQuery};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::owner_version::version_row;
use crate::page::Pages;
use crate::reads::{Query, ReadScope, Reads};
use crate::task_json::{write_id, write_number, write_text, write_time};

/// A page of one task's history.
struct HistoryRequest {
    task_id: Uuid,
    limit: u16,
    /// Versions after this one.
    after: i64,
}

fn binding(task_id: Uuid) -> Vec<u8> {
    [&b"h"[..], task_id.as_bytes()].concat()
}

pub(crate) async fn history(
    State(reads): State<Reads>,
    asked: Asked,
    PathId(task_id): PathId,
    StrictQuery(PageQuery { limit, cursor }): StrictQuery<PageQuery>,
) -> Result<Response, ReadError> {
    let pages = Pages { sealer: reads.owner_versions().sealer(), owner: asked.owner.id, binding: &binding(task_id) };
    let after = pages.begins_behind(cursor.as_deref(), |key| Some(i64::from_be_bytes(key.try_into().ok()?)))?;
    let request = HistoryRequest { task_id, limit: limit.get(), after: after.unwrap_or(0) };
    asked.answer(&reads, &request).await
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
        "actor": actor_schema(),
        "changes": {
            "type": "object", "additionalProperties": change,
            "description": "By field: what it was and what it became. Only those that changed.",
        },
    }))
}

/// Who did something.
pub(crate) fn actor_schema() -> Value {
    whole(json!({
        "type": {"type": "string", "enum": [ActorType::User.as_str(), ActorType::System.as_str()]},
        "id": {"type": ["string", "null"], "format": "uuid"},
    }))
}

impl Query for HistoryRequest {
    fn key(&self) -> Vec<u8> {
        [&b"H"[..], self.task_id.as_bytes(), &self.limit.to_be_bytes(), &self.after.to_be_bytes()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
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
            scope.generation(),
            scope.owner,
            self.task_id,
            self.after,
            i64::from(self.limit) + 1
        )
        .fetch_all(scope.pool())
        .await?;
        let first = rows.first().ok_or(ReadError::Unavailable)?;
        let row = version_row!(first, generation: scope.generation());
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
        let content = exists.then(|| self.content(items.collect(), scope));
        Ok(Loaded { live_generation, row, content })
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

impl HistoryRequest {
    fn content(&self, items: Vec<Item>, scope: ReadScope<'_>) -> Content {
        let pages = Pages { sealer: scope.sealer(), owner: scope.owner, binding: &binding(self.task_id) };
        let key = |last: &Item| last.version.to_be_bytes();
        let (body, next) = pages.write(self.limit, items, key, |out, item| item.write(out), None);
        let link = |cursor| format!("/api/v1/tasks/{}/history?limit={}&cursor={cursor}", self.task_id, self.limit);
        Content { body, etag: Etag::OwnerVersion, link: next.map(link) }
    }
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
        out.extend_from_slice(b",\"actor\":");
        write_actor(out, &self.actor_type, self.actor_id);
        out.extend_from_slice(b",\"changes\":");
        // JSON already, made by the projector.
        out.extend_from_slice(self.changes.as_bytes());
        out.push(b'}');
    }
}

pub(crate) fn write_actor(out: &mut Vec<u8>, actor_type: &str, actor_id: Option<Uuid>) {
    out.extend_from_slice(b"{\"type\":");
    write_text(out, actor_type);
    out.extend_from_slice(b",\"id\":");
    write_id(out, actor_id);
    out.push(b'}');
}
