//! `GET /api/v1/tasks/deleted`: the tasks that can be restored, the latest deleted first, in pages.

use access::token::Sealer;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta};
use domain::{OwnerId, RESTORABLE_DAYS, Time};
use http_api::openapi::{EXAMPLE_TIME, Operation, count, page_of, reference, time};
use http_api::page::Limit;
use http_api::query::StrictQuery;
use process::clock;
use read_model::Task;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{Query, ReadSource, Reads};
use crate::task_columns::task_in;
use crate::task_json::{self, write_number, write_text, write_time};

/// What a cursor of this list is bound to.
const BINDING: &[u8] = b"t";

/// The query string of the trash.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

/// A page of the trash.
struct TrashRequest {
    limit: u16,
    /// Where the page before ended.
    after: Option<(Time, Uuid)>,
}

impl TrashRequest {
    fn parse(Parameters { limit, cursor }: &Parameters, owner: Uuid, sealer: &Sealer) -> Result<Self, ReadError> {
        let after = cursor.as_deref().map(|cursor| {
            let bytes = sealer.open_cursor(cursor, OwnerId(owner), BINDING).ok()?;
            let (at, id) = bytes.split_at_checked(8)?;
            let at = DateTime::from_timestamp_micros(i64::from_be_bytes(at.try_into().ok()?))?;
            Some((at, Uuid::from_slice(id).ok()?))
        });
        let after = after.map(|after| after.ok_or(ReadError::ForeignCursor)).transpose()?;
        Ok(Self { limit: limit.get(), after })
    }
}

/// The cursor's payload for what follows this task.
fn position(deleted_at: Time, id: Uuid) -> Vec<u8> {
    [&deleted_at.timestamp_micros().to_be_bytes()[..], id.as_bytes()].concat()
}

pub(crate) async fn trash(
    State(reads): State<Reads>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let request = TrashRequest::parse(&parameters, asked.owner.id, reads.owner_versions().sealer())?;
    let version = reads.owner_version(asked.owner, asked.minimum).await?;
    let answer = reads.answer(asked.owner, version, &request).await?;
    Ok(asked.respond(&answer))
}

pub(crate) fn described() -> Operation {
    let mut task = task_json::example();
    task["deleted_at"] = json!(EXAMPLE_TIME);
    read("listDeletedTasks", "List the tasks that can be restored, the latest deleted first")
        .says("Each as it was before its deletion, for 30 days.")
        .pages()
        .json(
            200,
            "A page of deleted tasks.",
            &ANSWERED_PAGE,
            &reference("TrashPage"),
            &json!({"items": [task], "next_cursor": null, "revision": 3}),
        )
}

pub(crate) fn schema() -> Value {
    let mut page = page_of("DeletedTask");
    page["properties"]["revision"] = count();
    page["properties"]["revision"]["description"] = "What the page shows at least; the stream resumes from it.".into();
    page["required"] = json!(["items", "next_cursor", "revision"]);
    page
}

pub(crate) fn item_schema() -> Value {
    let mut item = task_json::schema();
    item["properties"]["deleted_at"] = time();
    if let Some(required) = item["required"].as_array_mut() {
        required.push("deleted_at".into());
    }
    item
}

impl Query for TrashRequest {
    fn key(&self) -> Vec<u8> {
        let after = self.after.map(|(deleted_at, id)| position(deleted_at, id)).unwrap_or_default();
        [&b"T"[..], &self.limit.to_be_bytes(), &after].concat()
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

async fn load(
    reads: &Reads,
    source: ReadSource,
    generation: i32,
    owner: Uuid,
    request: &TrashRequest,
) -> Result<Loaded, ReadError> {
    // Nothing happens to a task after its deletion, so that is when it was updated. One that an older program has deleted
    // is blank until the next rebuild.
    let rows = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?", t.task_id as "task_id?",
               t.version as "version?", t.title as "title?", t.description as "description?", t.status as "status?",
               t.priority as "priority?", t.due_at as "due_at?", t.tags as "tags?", t.rank as "rank?",
               t.created_at as "created_at?", t.updated_at as "updated_at?", t.started_at as "started_at?",
               t.completed_at as "completed_at?"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join lateral (
               select * from read_model.task t
               where t.generation = $1 and t.owner_id = $2 and t.deleted and t.title <> '' and t.updated_at >= $3
                   and ($4::timestamptz is null or (t.updated_at, t.task_id) < ($4, $5))
               order by t.updated_at desc, t.task_id desc limit $6
           ) t on true
           order by t.updated_at desc, t.task_id desc"#,
        generation,
        owner,
        clock::now() - TimeDelta::days(RESTORABLE_DAYS),
        request.after.map(|(deleted_at, _)| deleted_at),
        request.after.map_or(Uuid::nil(), |(_, id)| id),
        i64::from(request.limit) + 1
    )
    .fetch_all(reads.pool(source))
    .await?;
    let first = rows.first().ok_or(ReadError::Unavailable)?;
    let row = version_row!(first, generation: generation);
    let live_generation = first.live_generation;
    let tasks = rows.into_iter().map(|row| task_in!(row, id: row.task_id, version: row.version));
    let tasks: Vec<Task> = tasks.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let content = content(tasks, owner, request, reads.owner_versions().sealer(), row.complete_until());
    Ok(Loaded { live_generation, row, content: Some(content) })
}

fn content(mut tasks: Vec<Task>, owner: Uuid, request: &TrashRequest, sealer: &Sealer, revision: i64) -> Content {
    // The page changes when the task that comes last of these can no longer be restored: what comes after it has gone.
    let last = tasks.last().map(|task| task.updated_at + TimeDelta::days(RESTORABLE_DAYS) + TimeDelta::microseconds(1));
    let etag = last.map_or(Etag::OwnerVersion, Etag::OwnerVersionUntil);
    let limit = usize::from(request.limit);
    let more = tasks.len() > limit;
    tasks.truncate(limit);
    let next = tasks
        .last()
        .filter(|_| more)
        .map(|last| sealer.seal_cursor(OwnerId(owner), BINDING, &position(last.updated_at, last.id)));
    let mut body = Vec::with_capacity(64 + 512 * tasks.len());
    body.extend_from_slice(b"{\"items\":[");
    for (n, task) in tasks.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        task_json::write(&mut body, task);
        body.pop();
        body.extend_from_slice(b",\"deleted_at\":");
        write_time(&mut body, Some(task.updated_at));
        body.push(b'}');
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    match &next {
        Some(cursor) => write_text(&mut body, cursor),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(b",\"revision\":");
    write_number(&mut body, revision);
    body.push(b'}');
    let link = |cursor| format!("/api/v1/tasks/deleted?limit={}&cursor={cursor}", request.limit);
    Content { body: body.into(), etag, link: next.map(link) }
}
