//! Tasks as of a time, with their texts.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use domain::Time;
use read_model::search::Query;
use read_model::{FieldChanges, Task};
use sqlx::PgConnection;
use uuid::Uuid;

use super::held::Held;
use crate::as_of::AsOf;
use crate::error::ReadError;
use crate::list::task_set::TaskSet;
use crate::reads::ReadScope;

/// Tasks whose texts of then are read at once.
pub(crate) const SEARCHED_TASKS: usize = 500;
/// How long texts of then may be searched.
pub(crate) const SEARCH_MS_MAX: u64 = 2_000;

/// What the statement returns.
struct Row {
    id: Uuid,
    version: i64,
    status: i16,
    priority: i16,
    due_at: Option<Time>,
    tags: Vec<String>,
    created_at: Time,
    updated_at: Time,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    /// What the event changed that gave the task its title, and that which changed its description.
    title: String,
    description: Option<String>,
    rank: Option<String>,
}

/// The tasks of these ids as they were then, in the order of the ids; without those that were not there.
pub(crate) async fn tasks(
    connection: &mut PgConnection,
    scope: ReadScope<'_>,
    ids: &[Uuid],
    as_of: AsOf,
) -> Result<Vec<Task>, ReadError> {
    // The fields of a change are in the order of the API, and quotes within a text are escaped: nothing else looks like
    // the name of a field.
    let rows = sqlx::query_as!(
        Row,
        r#"select v.task_id as id, v.version, v.status as "status!", v.priority as "priority!", v.due_at, v.tags, v.created_at,
               v.held_from as updated_at, v.started_at, v.completed_at, title.changes as "title!", description.changes as "description?",
               v.rank
           from unnest($3::uuid[]) with ordinality as w (task_id, n)
           cross join lateral (
               select * from read_model.task t where t.generation = $1 and t.owner_id = $2 and t.task_id = w.task_id limit 1
           ) t
           cross join lateral (
               select * from read_model.task_version v
               where v.generation = $1 and v.owner_id = $2 and v.task_id = w.task_id
                   and (v.held_from <= $4 or t.updated_at > $5)
               order by v.version desc limit 1
           ) v
           cross join lateral (
               select h.changes from read_model.history h
               where h.generation = $1 and h.owner_id = $2 and h.task_id = w.task_id and h.version <= v.version
                   and h.changes like '{"title":%'
               order by h.version desc limit 1
           ) title
           left join lateral (
               select h.changes from read_model.history h
               where h.generation = $1 and h.owner_id = $2 and h.task_id = w.task_id and h.version <= v.version
                   and h.changes like any (array['{"description":%', '%,"description":%'])
               order by h.version desc limit 1
           ) description on true
           where v.status is not null and v.priority is not null
           order by w.n"#,
        scope.generation(),
        scope.owner,
        ids,
        as_of.at,
        as_of.now
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::into_task).collect()
}

/// Those of the tasks in whose texts of then it is found.
pub(crate) async fn search(
    connection: &mut PgConnection,
    scope: ReadScope<'_>,
    held: Held,
    as_of: AsOf,
    query: &Query,
) -> Result<Held, ReadError> {
    let began = Instant::now();
    let mut held = held.apart();
    let places: Vec<usize> = held.tasks().places().collect();
    for places in places.chunks(SEARCHED_TASKS) {
        let ids: Vec<Uuid> = places.iter().map(|at| held.tasks().id(*at)).collect();
        let tasks = tasks(connection, scope, &ids, as_of).await?;
        let matching: HashSet<Uuid> =
            tasks.iter().filter(|task| query.relevance(&task.texts()).is_some()).map(|task| task.id).collect();
        for (at, _) in places.iter().zip(&ids).filter(|(_, id)| !matching.contains(*id)) {
            held.leave_out(*at);
        }
        if began.elapsed() > Duration::from_millis(SEARCH_MS_MAX) {
            return Err(ReadError::SearchTooSlow);
        }
    }
    Ok(held)
}

impl Row {
    fn into_task(self) -> Result<Task, ReadError> {
        let title = changes(self.id, &self.title)?.title;
        let description = self.description.as_deref().map(|text| changes(self.id, text)).transpose()?;
        Ok(Task {
            id: self.id,
            version: self.version,
            title: title.map(|title| title.to).unwrap_or_default(),
            description: description.and_then(|changes| changes.description?.to),
            status: read_model::status(self.status)?,
            priority: read_model::priority(self.priority)?,
            due_at: self.due_at,
            tags: self.tags,
            rank: self.rank,
            created_at: self.created_at,
            updated_at: self.updated_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
        })
    }
}

fn changes(task_id: Uuid, json: &str) -> Result<FieldChanges, ReadError> {
    FieldChanges::from_json(json).map_err(|error| {
        tracing::error!(%error, %task_id, "reading what an event changed");
        ReadError::Unavailable
    })
}
