//! The statements that columns ([`super::columns`]) are made from.

use std::collections::HashSet;
use std::ops::ControlFlow;

use backends::database::Pool;
use domain::Time;
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::owner_version::{VersionRow, version_row};

/// Events to catch up with; beyond that, columns are loaded anew.
const CATCH_UP_EVENTS_MAX: i64 = 5_000;

/// A task as far as lists and counts ask.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub id: Uuid,
    pub status: i16,
    pub priority: i16,
    pub created_at: Time,
    pub updated_at: Time,
    pub completed_at: Option<Time>,
    pub due_at: Option<Time>,
    pub tags: Vec<String>,
}

/// A task, and its texts if they were asked for.
pub(super) struct TaskWithTexts {
    pub task: Task,
    pub title: Option<String>,
    pub description: Option<String>,
}

/// The task of a row that has one.
macro_rules! task_with_texts {
    ($row:expr) => {{
        let task = || {
            Some(Task {
                id: $row.task_id?,
                status: $row.status?,
                priority: $row.priority?,
                created_at: $row.created_at?,
                updated_at: $row.updated_at?,
                completed_at: $row.completed_at,
                due_at: $row.due_at,
                tags: $row.tags?,
            })
        };
        task().map(|task| TaskWithTexts { task, title: $row.title, description: $row.description })
    }};
}

/// Shows the tasks of the owner, or those that were found, to `each`, one after the other, from one snapshot; no task where
/// there is none. Returns what is live.
pub(super) async fn read(
    connection: &mut PgConnection,
    generation: i32,
    owner: Uuid,
    found: Option<&[Uuid]>,
    with_texts: bool,
    mut each: impl FnMut(VersionRow, Option<TaskWithTexts>) -> ControlFlow<()>,
) -> Result<i32, sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               t.task_id as "task_id?", t.status as "status?", t.priority as "priority?", t.created_at as "created_at?",
               t.updated_at as "updated_at?", t.completed_at, t.due_at, t.tags as "tags?",
               case when $4 then t.title end as title, case when $4 then t.description end as description
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join read_model.task t on t.generation = $1 and t.owner_id = $2 and not t.deleted
               and ($3::uuid[] is null or t.task_id = any($3))"#,
        generation,
        owner,
        found,
        with_texts
    )
    .fetch(connection);
    let mut live_generation = generation;
    while let Some(row) = rows.try_next().await? {
        live_generation = row.live_generation;
        let version = version_row!(row, generation: generation);
        if each(version, task_with_texts!(row)).is_break() {
            break;
        }
    }
    Ok(live_generation)
}

/// What has happened to an owner's tasks.
pub(super) struct Changes {
    /// Until then.
    pub version: VersionRow,
    /// The tasks that it happened to.
    pub touched: HashSet<Uuid>,
    /// Those that are there, as they are now.
    pub tasks: Vec<TaskWithTexts>,
}

/// What has happened since. `None`: too much, or another generation is live, or there is no such owner.
pub(super) async fn changes_since(
    pool: &Pool,
    generation: i32,
    owner: Uuid,
    since: &VersionRow,
    with_texts: bool,
) -> Result<Option<Changes>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with events as materialized (
               select distinct task_id from (
                   select h.task_id from read_model.history h
                   where h.generation = $1 and h.owner_id = $2 and h.position > $3 order by h.position limit $4) h
           )
           select p.log_id, p.live_generation, o.shard, o.revision, o.change_counter, o.parked_position,
               t.task_id as "task_id?", t.deleted as "deleted?", t.status as "status?", t.priority as "priority?",
               t.created_at as "created_at?", t.updated_at as "updated_at?", t.completed_at, t.due_at, t.tags as "tags?",
               case when $5 then t.title end as title, case when $5 then t.description end as description,
               (select count(*) from (select 1 from read_model.history h
                   where h.generation = $1 and h.owner_id = $2 and h.position > $3 limit $4) n) as "events!"
           from read_model.projection p
           join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join events e on true
           left join lateral (
               select * from read_model.task t where t.generation = $1 and t.owner_id = $2 and t.task_id = e.task_id limit 1
           ) t on true"#,
        generation,
        owner,
        since.revision.unwrap_or(0),
        CATCH_UP_EVENTS_MAX,
        with_texts
    )
    .fetch_all(pool)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    if first.live_generation != generation || first.events >= CATCH_UP_EVENTS_MAX {
        return Ok(None);
    }
    let version = VersionRow {
        log_id: first.log_id,
        generation,
        shard: Some(first.shard),
        revision: Some(first.revision),
        change_counter: Some(first.change_counter),
        parked_position: first.parked_position,
    };
    let touched = rows.iter().filter_map(|row| row.task_id).collect();
    let there = rows.into_iter().filter(|row| row.deleted == Some(false));
    let tasks = there.filter_map(|row| task_with_texts!(row)).collect();
    Ok(Some(Changes { version, touched, tasks }))
}
