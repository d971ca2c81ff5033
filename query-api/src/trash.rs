//! `GET /api/v1/tasks/deleted`: the tasks that can be restored, the latest deleted first, in pages.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta};
use domain::{RESTORABLE_DAYS, Time};
use http_api::openapi::{EXAMPLE_TIME, Operation, reference, time};
use http_api::page::PageQuery;
use http_api::query::StrictQuery;
use process::clock;
use read_model::Task;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::owner_version::version_row;
use crate::page::{Pages, page_with_revision};
use crate::reads::{Query, ReadScope, Reads};
use crate::sources::planned;
use crate::task_columns::task_in;
use crate::task_json::{self, write_time};

/// What a cursor of this list is bound to.
const BINDING: &[u8] = b"t";

/// A page of the trash.
struct TrashRequest {
    limit: u16,
    /// Where the page before ended.
    after: Option<(Time, Uuid)>,
}

/// A task's key in the list.
fn key(deleted_at: Time, id: Uuid) -> Vec<u8> {
    [&deleted_at.timestamp_micros().to_be_bytes()[..], id.as_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Option<(Time, Uuid)> {
    let (deleted_at, id) = key.split_first_chunk()?;
    Some((DateTime::from_timestamp_micros(i64::from_be_bytes(*deleted_at))?, Uuid::from_slice(id).ok()?))
}

pub(crate) async fn trash(
    State(reads): State<Reads>,
    asked: Asked,
    StrictQuery(PageQuery { limit, cursor }): StrictQuery<PageQuery>,
) -> Result<Response, ReadError> {
    let pages = Pages { sealer: reads.owner_versions().sealer(), owner: asked.owner.id, binding: BINDING };
    let after = pages.begins_behind(cursor.as_deref(), parse_key)?;
    asked.answer(&reads, &TrashRequest { limit: limit.get(), after }).await
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
    page_with_revision("DeletedTask")
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
        let after = self.after.map(|(deleted_at, id)| key(deleted_at, id)).unwrap_or_default();
        [&b"T"[..], &self.limit.to_be_bytes(), &after].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        // Nothing happens to a task after its deletion, so that is when it was updated. One that an older program has deleted
        // is blank until the next rebuild.
        //
        // All that can be restored is in an index, and sorted here: an index in this order would cost every change of a task a
        // new entry in each of the table's indexes.
        let mut transaction = planned(scope.pool()).await?;
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
            scope.generation(),
            scope.owner,
            clock::now() - TimeDelta::days(RESTORABLE_DAYS),
            self.after.map(|(deleted_at, _)| deleted_at),
            self.after.map_or(Uuid::nil(), |(_, id)| id),
            i64::from(self.limit) + 1
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let first = rows.first().ok_or(ReadError::Unavailable)?;
        let row = version_row!(first, generation: scope.generation());
        let live_generation = first.live_generation;
        let tasks = rows.into_iter().map(|row| task_in!(row, id: row.task_id, version: row.version));
        let tasks: Vec<Task> = tasks.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let content = self.content(tasks, scope, row.complete_until());
        Ok(Loaded { live_generation, row, content: Some(content) })
    }
}

impl TrashRequest {
    fn content(&self, tasks: Vec<Task>, scope: ReadScope<'_>, revision: i64) -> Content {
        // The page changes when the task that comes last of these can no longer be restored: what comes after it has gone.
        let last =
            tasks.last().map(|task| task.updated_at + TimeDelta::days(RESTORABLE_DAYS) + TimeDelta::microseconds(1));
        let etag = last.map_or(Etag::OwnerVersion, Etag::OwnerVersionUntil);
        let pages = Pages { sealer: scope.sealer(), owner: scope.owner, binding: BINDING };
        let key = |last: &Task| key(last.updated_at, last.id);
        let (body, next) = pages.write(self.limit, tasks, key, write, Some(revision));
        let link = |cursor| format!("/api/v1/tasks/deleted?limit={}&cursor={cursor}", self.limit);
        Content { body, etag, link: next.map(link) }
    }
}

fn write(out: &mut Vec<u8>, task: &Task) {
    task_json::write(out, task);
    out.pop();
    out.extend_from_slice(b",\"deleted_at\":");
    write_time(out, Some(task.updated_at));
    out.push(b'}');
}
