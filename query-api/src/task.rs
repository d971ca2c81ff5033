//! `GET /api/v1/tasks/{id}`: a task as it is, or as of a time.

use axum::extract::State;
use axum::response::Response;
use futures_util::TryStreamExt;
use http_api::openapi::{Operation, reference, time as a_time};
use http_api::problem::ProblemCode;
use http_api::query::{PathId, StrictQuery};
use process::clock;
use read_model::Task;
use serde::Deserialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::as_of::AsOf;
use crate::asked::Asked;
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::fold::Fold;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{Query, ReadScope, Reads};
use crate::task_columns::task_in;
use crate::task_json;

/// The query string of a task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    as_of: Option<String>,
}

pub(crate) async fn task(
    State(reads): State<Reads>,
    asked: Asked,
    PathId(id): PathId,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let as_of = parameters.as_of.map(|value| AsOf::parse(&value, clock::now())).transpose()?;
    asked.answer(&reads, &TaskRequest { id, as_of }).await
}

pub(crate) fn described() -> Operation {
    read("showTask", "Get a task")
        .path_id("The task's id.")
        .query("as_of", "As it was then, that instant included; not in the future by more than a minute.", a_time())
        .json(200, "The task.", &ANSWERED, &reference("Task"), &task_json::example())
        .refuses(&[ProblemCode::NotFound])
}

struct TaskRequest {
    id: Uuid,
    as_of: Option<AsOf>,
}

impl Query for TaskRequest {
    fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(25);
        key.push(b'T');
        key.extend_from_slice(self.id.as_bytes());
        if let Some(as_of) = self.as_of {
            as_of.push_key(&mut key);
        }
        key
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        match self.as_of {
            None => load(scope.pool(), scope.generation(), scope.owner, self.id).await,
            Some(as_of) => load_as_of(scope, self.id, as_of).await,
        }
    }
}

fn loaded(live_generation: i32, row: VersionRow, task: Option<Task>) -> Loaded {
    let content = task.map(|task| Content {
        body: task_json::to_json(&task).into(),
        etag: Etag::TaskVersion(task.version),
        link: None,
    });
    Loaded { live_generation, row, content }
}

pub(crate) async fn load(
    executor: impl PgExecutor<'_>,
    generation: i32,
    owner: Uuid,
    id: Uuid,
) -> Result<Loaded, ReadError> {
    let row = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               t.version as "version?", t.title as "title?", t.description, t.status as "status?", t.priority as "priority?",
               t.due_at, t.tags as "tags?", t.rank, t.created_at as "created_at?", t.updated_at as "updated_at?", t.started_at, t.completed_at
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join read_model.task t on t.generation = $1 and t.owner_id = $2 and t.task_id = $3 and not t.deleted"#,
        generation,
        owner,
        id
    )
    .fetch_one(executor)
    .await?;
    let version = version_row!(row, generation: generation);
    let task = task_in!(row, id: Some(id), version: row.version)?;
    Ok(loaded(row.live_generation, version, task))
}

/// What had happened by then is a prefix of the history, since `occurred_at` never decreases in a stream. It is folded as
/// it comes: a long one is never in memory. Where its end lies in the future, all of it has happened by now.
async fn load_as_of(scope: ReadScope<'_>, id: Uuid, AsOf { at, now }: AsOf) -> Result<Loaded, ReadError> {
    let generation = scope.generation();
    let mut connection = scope.pool().acquire().await?;
    let mut rows = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               h.version as "version?", h.occurred_at as "occurred_at?", h.changes as "changes?",
               h.type = 'TaskDeleted' as is_deletion
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           -- a deleted task without a title is purged: it never was
           left join read_model.task t on t.generation = $1 and t.owner_id = $2 and t.task_id = $3 and not (t.deleted and t.title = '')
           left join read_model.history h
               on h.generation = $1 and h.owner_id = $2 and h.task_id = t.task_id
                   and (h.occurred_at <= $4 or t.updated_at > $5)
           order by h.version"#,
        generation,
        scope.owner,
        id,
        at,
        now
    )
    .fetch(&mut *connection);
    let mut seen = None;
    let mut fold = Fold::of(id);
    let mut deleted = false;
    while let Some(row) = rows.try_next().await? {
        seen.get_or_insert_with(|| {
            let version = version_row!(row, generation: generation);
            (row.live_generation, version)
        });
        if let (Some(version), Some(occurred_at), Some(changes)) = (row.version, row.occurred_at, row.changes) {
            fold.apply(version, occurred_at, &changes)?;
            deleted = row.is_deletion.unwrap_or(false);
        }
    }
    let (live_generation, version) = seen.ok_or(ReadError::Unavailable)?;
    Ok(loaded(live_generation, version, fold.into_task().filter(|_| !deleted)))
}
