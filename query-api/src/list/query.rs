//! The statements of a list: one snapshot of the owner's row and the page's tasks.
//!
//! A list by creation walks the index of that, from where the page before ended, and keeps what matches: quick wherever
//! matches are not rare. The walk is bounded. Where it ends before the page is full, and for all other sorts, all tasks of the
//! owner are looked at, the matches picked out and sorted: a microsecond or so a task, until the columns of an owner with many
//! are loaded ([`super::column_cache`]).

use backends::database::Pool;
use chrono::{DateTime, Utc};
use domain::Time;
use read_model::Task;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::request::{ListRequest, SortBy, SortKey, SortPosition};
use crate::error::ReadError;
use crate::owner_version::{VersionRow, version_row};
use crate::search::{self, Matches};
use crate::task_columns::task_in;

/// How many tasks a walk looks at for a page.
pub(super) const WALK_TASKS_MAX: i64 = 1_000;

/// What a statement returns: a row for each task, or one without a task; the owner's columns on each.
struct Row {
    log_id: Option<Uuid>,
    live_generation: i32,
    shard: Option<i16>,
    revision: Option<i64>,
    change_counter: Option<i64>,
    parked_position: Option<i64>,
    total: Option<i64>,
    task_id: Option<Uuid>,
    version: Option<i64>,
    title: Option<String>,
    description: Option<String>,
    status: Option<i16>,
    priority: Option<i16>,
    due_at: Option<Time>,
    tags: Option<Vec<String>>,
    rank: Option<String>,
    created_at: Option<Time>,
    updated_at: Option<Time>,
    started_at: Option<Time>,
    completed_at: Option<Time>,
}

impl Row {
    fn into_task(self) -> Result<Option<Task>, sqlx::Error> {
        task_in!(self, id: self.task_id, version: self.version)
    }
}

/// Tasks of a page, and the snapshot that they are from.
pub(crate) struct Page {
    pub live_generation: i32,
    pub row: VersionRow,
    /// Tasks of the owner, not deleted.
    pub total: i64,
    /// In order; up to one more than the page takes, if there are more.
    pub tasks: Vec<Task>,
}

impl Page {
    fn of(rows: Vec<Row>, generation: i32) -> Result<Self, ReadError> {
        // The statements begin with the one row of `projection`.
        let first = rows.first().ok_or(ReadError::Unavailable)?;
        let row = version_row!(first, generation: generation);
        let (live_generation, total) = (first.live_generation, first.total.unwrap_or(0));
        let tasks = rows.into_iter().filter_map(|row| row.into_task().transpose()).collect::<Result<_, _>>()?;
        Ok(Self { live_generation, row, total, tasks })
    }
}

/// Where a page begins: beyond these.
struct Bounds<'a> {
    time: Time,
    priority: i16,
    relevance: i64,
    /// `None`: at the beginning.
    title: Option<&'a str>,
    rank: &'a str,
    id: Uuid,
    /// Whether tasks with a key still come.
    keyed: bool,
    /// Tasks without one: from this id on.
    keyless_from: Option<Uuid>,
}

impl<'a> Bounds<'a> {
    fn of(request: &'a ListRequest) -> Self {
        let descending = request.sort.descending;
        let (first_id, last_id) = if descending { (Uuid::max(), Uuid::nil()) } else { (Uuid::nil(), Uuid::max()) };
        // Years 0 and 10000: times of the API lie between.
        let first_time = if descending { 253_402_300_800 } else { -62_167_219_200 };
        let first_time = DateTime::<Utc>::from_timestamp(first_time, 0).unwrap_or_default();
        let first = Self {
            time: first_time,
            priority: if descending { 4 } else { -1 },
            relevance: i64::MIN,
            title: None,
            // A rank has letters and digits.
            rank: if descending { "~" } else { "" },
            id: first_id,
            keyed: true,
            keyless_from: Some(first_id),
        };
        let Some(SortPosition { key, id }) = &request.after else { return first };
        let id = *id;
        match key {
            Some(SortKey::Number(key)) => Self {
                time: DateTime::from_timestamp_micros(*key).unwrap_or(first_time),
                priority: i16::try_from(*key).unwrap_or(first.priority),
                relevance: *key,
                id,
                ..first
            },
            Some(SortKey::Text(text)) => Self { title: Some(text), rank: text, id, ..first },
            None => {
                let next = if descending { id.as_u128().wrapping_sub(1) } else { id.as_u128().wrapping_add(1) };
                Self { keyed: false, keyless_from: (id != last_id).then_some(Uuid::from_u128(next)), id, ..first }
            }
        }
    }
}

/// A statement: what comes before and after the filters in the subquery that finds the page's tasks (columns of
/// `read_model.task`, filters ask them of `w`), and the order.
///
/// Arguments: `$1` generation, `$2` owner, `$3` and `$4` key and id to go on from, `$5` tasks to look at, `$6` tasks to
/// return, `$7` to `$12` the filters, null where nothing is asked (`$12`: the tasks that match `q`).
macro_rules! page_of {
    ([$($before:literal)+] [$($after:literal)+] [$($order:literal)+] $key:ident $executor:expr, $arguments:ident $(, $argument:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
                   o.change_counter as "change_counter?", o.parked_position as "parked_position?",
                   (select sum(c.count)::bigint from read_model.task_count c where c.generation = $1 and c.owner_id = $2) as total,
                   t.task_id as "task_id?", t.version as "version?", t.title as "title?", t.description as "description?",
                   t.status as "status?", t.priority as "priority?", t.due_at as "due_at?", t.tags as "tags?", t.rank as "rank?",
                   t.created_at as "created_at?", t.updated_at as "updated_at?", t.started_at as "started_at?",
                   t.completed_at as "completed_at?"
               from read_model.projection p
               left join read_model.owner o on o.generation = $1 and o.owner_id = $2
               left join lateral ("# + $($before +)+
            "($7::smallint[] is null or w.status = any($7)) and ($8::smallint[] is null or w.priority = any($8))
             and ($9::text[] is null or w.tags && $9) and ($10::timestamptz is null or w.due_at >= $10)
             and ($11::timestamptz is null or w.due_at < $11) and ($12::uuid[] is null or w.task_id = any($12))"
            + $($after +)+ ") t on true " $(+ $order)+,
            $arguments.generation,
            $arguments.owner,
            $arguments.bounds.$key,
            $arguments.bounds.id,
            $arguments.walk_tasks_max,
            $arguments.return_tasks_max,
            $arguments.statuses,
            $arguments.priorities,
            $arguments.tags,
            $arguments.due_after,
            $arguments.due_before,
            $arguments.found
            $(, $argument)*
        )
        .fetch_all($executor)
    };
}

/// Walks the index of a sort key, in one direction.
macro_rules! walk {
    ($executor:expr, $arguments:ident, $column:literal, $key:ident, $beyond:literal, $direction:literal) => {
        page_of!(
            ["select w.* from (select * from read_model.task where generation = $1 and owner_id = $2 and not deleted
              and (" $column ", task_id)" $beyond "($3, $4) order by " $column $direction ", task_id " $direction " limit $5) w where "]
            [" order by w." $column $direction ", w.task_id " $direction " limit $6"]
            ["order by t." $column $direction ", t.task_id " $direction]
            $key $executor, $arguments
        )
    };
}

/// Picks out the matches and sorts them by a key that no task is without.
macro_rules! pick {
    ($executor:expr, $arguments:ident, $column:literal, $key:ident, $beyond:literal, $direction:literal) => {
        page_of!(
            ["with m as materialized (select w." $column " as key, w.task_id from read_model.task w
              where w.generation = $1 and w.owner_id = $2 and not w.deleted and $5::bigint is not null
              and (w." $column ", w.task_id)" $beyond "($3, $4) and "]
            [") select f.* from (select * from m order by key " $direction ", task_id " $direction " limit $6) m
              cross join lateral (select * from read_model.task f where f.generation = $1 and f.owner_id = $2 and f.task_id = m.task_id limit 1) f"]
            ["order by t." $column $direction ", t.task_id " $direction]
            $key $executor, $arguments
        )
    };
}

/// Picks out the matches and sorts them by a key that tasks may be without.
macro_rules! pick_keyed {
    ($executor:expr, $arguments:ident, $column:literal, $key:ident, $beyond:literal, $from:literal, $direction:literal) => {
        page_of!(
            ["with m as materialized (select w." $column " as key, w.task_id from read_model.task w
              where w.generation = $1 and w.owner_id = $2 and not w.deleted and $5::bigint is not null
              and (($13 and (w." $column ", w.task_id)" $beyond "($3, $4)) or (w." $column " is null and w.task_id" $from "$14)) and "]
            [") select f.* from (select * from m order by key " $direction " nulls last, task_id " $direction " limit $6) m
              cross join lateral (select * from read_model.task f where f.generation = $1 and f.owner_id = $2 and f.task_id = m.task_id limit 1) f"]
            ["order by t." $column $direction " nulls last, t.task_id " $direction]
            $key $executor, $arguments, $arguments.bounds.keyed, $arguments.bounds.keyless_from
        )
    };
}

/// Picks out the matches and sorts them by title.
macro_rules! pick_title {
    ($executor:expr, $arguments:ident, $beyond:literal, $direction:literal) => {
        page_of!(
            ["with m as materialized (select w.title_key as key, w.task_id from read_model.task w
              where w.generation = $1 and w.owner_id = $2 and not w.deleted and $5::bigint is not null
              and ($3::text is null or (w.title_key, w.task_id)" $beyond "($3, $4)) and "]
            [") select f.* from (select * from m order by key " $direction ", task_id " $direction " limit $6) m
              cross join lateral (select * from read_model.task f where f.generation = $1 and f.owner_id = $2 and f.task_id = m.task_id limit 1) f"]
            ["order by t.title_key " $direction ", t.task_id " $direction]
            title $executor, $arguments
        )
    };
}

/// Picks out the tasks that match `q` and sorts them by how well ([`super::request::relevance_key`]).
macro_rules! pick_relevant {
    ($executor:expr, $arguments:ident) => {
        page_of!(
            ["with m as materialized (select w.key, w.task_id from (
                select t.*, f.relevance * 1000000000000000000::bigint
                    + (300000000000000000 - (extract(epoch from t.created_at) * 1000000)::bigint) as key
                from unnest($12::uuid[], $13::smallint[]) as f (task_id, relevance)
                join read_model.task t on t.generation = $1 and t.owner_id = $2 and t.task_id = f.task_id
              ) w where not w.deleted and $5::bigint is not null and (w.key, w.task_id) > ($3, $4) and "]
            [") select m.key, f.* from (select * from m order by key, task_id limit $6) m
              cross join lateral (select * from read_model.task f where f.generation = $1 and f.owner_id = $2 and f.task_id = m.task_id limit 1) f"]
            ["order by t.key, t.task_id"]
            relevance $executor, $arguments, $arguments.relevances
        )
    };
}

struct Arguments<'a> {
    generation: i32,
    owner: Uuid,
    bounds: Bounds<'a>,
    walk_tasks_max: i64,
    return_tasks_max: i64,
    statuses: Option<&'a [i16]>,
    priorities: Option<&'a [i16]>,
    tags: Option<&'a [String]>,
    due_after: Option<Time>,
    due_before: Option<Time>,
    /// The tasks that match `q`, and how well.
    found: Option<&'a [Uuid]>,
    relevances: &'a [i16],
}

fn asked<T>(values: &[T]) -> Option<&[T]> {
    (!values.is_empty()).then_some(values)
}

impl<'a> Arguments<'a> {
    fn of(generation: i32, owner: Uuid, request: &'a ListRequest, matches: Option<&'a Matches>) -> Self {
        let return_tasks_max = i64::from(request.limit) + 1;
        let filters = &request.filters;
        Self {
            generation,
            owner,
            bounds: Bounds::of(request),
            walk_tasks_max: if filters.is_empty() { return_tasks_max } else { WALK_TASKS_MAX },
            return_tasks_max,
            statuses: asked(&filters.statuses),
            priorities: asked(&filters.priorities),
            tags: asked(&filters.tags),
            due_after: filters.due_after,
            due_before: filters.due_before,
            found: matches.map(|matches| matches.ids.as_slice()),
            relevances: matches.map(|matches| matches.relevances.as_slice()).unwrap_or_default(),
        }
    }
}

/// Walks the index of creation ([`SortBy::is_indexed`]) from where the page before ended, as far as the bound allows.
pub(super) async fn walk(
    executor: impl PgExecutor<'_>,
    generation: i32,
    owner: Uuid,
    request: &ListRequest,
) -> Result<Page, ReadError> {
    let arguments = Arguments::of(generation, owner, request, None);
    let rows = if request.sort.descending {
        walk!(executor, arguments, " created_at ", time, " < ", " desc ").await
    } else {
        walk!(executor, arguments, " created_at ", time, " > ", " asc ").await
    };
    Page::of(rows?, generation)
}

/// Finds all matches first, then sorts them: among all tasks of the owner, or among those that `q` finds. Then the transaction
/// must let the planner choose ([`planned`](crate::sources::planned)).
pub(crate) async fn pick(
    connection: &mut PgConnection,
    generation: i32,
    owner: Uuid,
    request: &ListRequest,
) -> Result<Page, ReadError> {
    let matches = match &request.filters.q {
        Some(query) => Some(search::matches(connection, generation, owner, query).await?),
        None => None,
    };
    if request.sort.by == SortBy::Title && !has_title_keys(connection, generation).await? {
        tracing::error!(generation, "lists by title need a rebuild of the read models: primetrade rebuild");
        return Err(ReadError::Unavailable);
    }
    let arguments = Arguments::of(generation, owner, request, matches.as_ref());
    let rows = match (request.sort.by, request.sort.descending) {
        (SortBy::CreatedAt, false) => pick!(&mut *connection, arguments, " created_at ", time, " > ", " asc ").await,
        (SortBy::CreatedAt, true) => pick!(&mut *connection, arguments, " created_at ", time, " < ", " desc ").await,
        (SortBy::UpdatedAt, false) => pick!(&mut *connection, arguments, " updated_at ", time, " > ", " asc ").await,
        (SortBy::UpdatedAt, true) => pick!(&mut *connection, arguments, " updated_at ", time, " < ", " desc ").await,
        (SortBy::Priority, false) => pick!(&mut *connection, arguments, " priority ", priority, " > ", " asc ").await,
        (SortBy::Priority, true) => pick!(&mut *connection, arguments, " priority ", priority, " < ", " desc ").await,
        (SortBy::DueAt, false) => {
            pick_keyed!(&mut *connection, arguments, " due_at ", time, " > ", " >= ", " asc ").await
        }
        (SortBy::DueAt, true) => {
            pick_keyed!(&mut *connection, arguments, " due_at ", time, " < ", " <= ", " desc ").await
        }
        (SortBy::Rank, false) => pick_keyed!(&mut *connection, arguments, " rank ", rank, " > ", " >= ", " asc ").await,
        (SortBy::Rank, true) => pick_keyed!(&mut *connection, arguments, " rank ", rank, " < ", " <= ", " desc ").await,
        (SortBy::Title, false) => pick_title!(&mut *connection, arguments, " > ", " asc ").await,
        (SortBy::Title, true) => pick_title!(&mut *connection, arguments, " < ", " desc ").await,
        (SortBy::Relevance, _) => pick_relevant!(&mut *connection, arguments).await,
    };
    Page::of(rows?, generation)
}

/// Whether the generation was made since titles are kept as they are compared.
async fn has_title_keys(connection: &mut PgConnection, generation: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select complete_from <= $1 as "complete!" from read_model.projected_table where name = 'task'"#,
        generation
    )
    .fetch_one(connection)
    .await
}

/// Reads the tasks that were found elsewhere, in that order; whether they are still the page is for the caller to see
/// by the version.
pub(super) async fn by_ids(
    executor: impl PgExecutor<'_>,
    generation: i32,
    owner: Uuid,
    ids: &[Uuid],
) -> Result<Page, ReadError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?", null::bigint as total,
               t.task_id as "task_id?", t.version as "version?", t.title as "title?", t.description as "description?",
               t.status as "status?", t.priority as "priority?", t.due_at as "due_at?", t.tags as "tags?", t.rank as "rank?",
               t.created_at as "created_at?", t.updated_at as "updated_at?", t.started_at as "started_at?",
               t.completed_at as "completed_at?"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join unnest($3::uuid[]) with ordinality as w (task_id, n) on true
           left join lateral (
               select * from read_model.task t where t.generation = $1 and t.owner_id = $2 and t.task_id = w.task_id limit 1
           ) t on not t.deleted
           order by w.n"#,
        generation,
        owner,
        ids
    )
    .fetch_all(executor)
    .await?;
    Page::of(rows, generation)
}

/// When the next task that is pending or in progress is due, from now on: just after that, it is overdue.
pub(super) async fn next_due(
    pool: &Pool,
    generation: i32,
    owner: Uuid,
    now: Time,
) -> Result<(VersionRow, Option<Time>), ReadError> {
    let row = sqlx::query!(
        r#"select p.log_id, o.shard as "shard?", o.revision as "revision?", o.change_counter as "change_counter?",
               o.parked_position as "parked_position?",
               (select min(due_at) from read_model.task where generation = $1 and owner_id = $2 and not deleted
                     and status in (0, 1) and due_at >= $3) as next_due_at
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2"#,
        generation,
        owner,
        now
    )
    .fetch_one(pool)
    .await?;
    Ok((version_row!(row, generation: generation), row.next_due_at))
}
