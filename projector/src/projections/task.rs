//! `read_model.task`: a row for each task, as it is; a tombstone for one that is deleted. Lists, counts and search read it,
//! and events are folded into it ([`crate::fold`]).

use std::collections::HashMap;

use domain::{OwnerId, Priority, Status, StoredEvent, TaskId, Time, composed};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Effect, Projection, Stream};
use crate::copy::{CopyIn, Rows};
use crate::differences::{Differences, EXAMPLES_MAX, Found};
use crate::fold::{TaskRow, touches_text};
use crate::words::Words;

/// Between tags in a parameter; no tag contains a control character.
const TAG_SEPARATOR: &str = "\u{1f}";

pub(super) struct Tasks;

impl Projection for Tasks {
    fn write<'a>(
        &'a self,
        effect: &'a Effect<'a>,
        generation: i32,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        write(effect, generation, connection).boxed()
    }

    fn copy(&self, effect: &Effect<'_>, generation: i32) -> Option<CopyIn> {
        let mut rows = Rows::new();
        for change in &effect.tasks {
            let row = &change.after;
            let words = Words::of(&row.title, row.description.as_deref());
            rows.row(17)
                .int(generation)
                .uuid(row.owner_id.0)
                .uuid(row.task_id.0)
                .bigint(row.position)
                .bigint(row.version)
                .boolean(row.deleted)
                .smallint(row.status.code())
                .smallint(row.priority.code())
                .text(&row.title)
                .text_or_null(row.description.as_deref())
                .texts(&row.tags)
                .time_or_null(row.due_at)
                .time(row.created_at)
                .time(row.updated_at)
                .time_or_null(row.started_at)
                .time_or_null(row.completed_at)
                .words(&words.distinct());
        }
        let statement = "copy read_model.task_building (generation, owner_id, task_id, position, version, deleted, \
             status, priority, title, description, tags, due_at, created_at, updated_at, started_at, completed_at, \
             search) from stdin (format binary)";
        Some(CopyIn { statement, rows })
    }

    fn compare<'a>(
        &'a self,
        live: i32,
        new: i32,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, Result<Differences, sqlx::Error>> {
        compare(live, new, connection).boxed()
    }
}

/// The rows of the tasks that events touch. A description is loaded only where an event of its task needs it.
pub(crate) async fn load(
    events: &[&StoredEvent],
    generation: i32,
    connection: &mut PgConnection,
) -> Result<HashMap<Stream, TaskRow>, sqlx::Error> {
    let mut streams: HashMap<Stream, bool> = HashMap::with_capacity(events.len());
    for event in events {
        *streams.entry((event.owner_id, event.task_id)).or_default() |= touches_text(&event.event_type);
    }
    let (mut owners, mut tasks, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for ((owner_id, task_id), text) in &streams {
        owners.push(owner_id.0);
        tasks.push(task_id.0);
        texts.push(*text);
    }
    let found = sqlx::query!(
        r#"
        select t.owner_id, t.task_id, t.position, t.version, t.deleted, t.status, t.priority, t.title,
            case when k.needs_text then t.description end as description, t.tags, t.due_at as "due_at: Time",
            t.created_at as "created_at: Time", t.updated_at as "updated_at: Time",
            t.started_at as "started_at: Time", t.completed_at as "completed_at: Time"
        from unnest($2::uuid[], $3::uuid[], $4::boolean[]) as k (owner_id, task_id, needs_text)
        join read_model.task as t on t.generation = $1 and t.owner_id = k.owner_id and t.task_id = k.task_id
        "#,
        generation,
        &owners,
        &tasks,
        &texts,
    )
    .fetch_all(connection)
    .await?;
    let mut rows = HashMap::with_capacity(found.len());
    for row in found {
        let stream = (OwnerId(row.owner_id), TaskId(row.task_id));
        let row = TaskRow {
            owner_id: stream.0,
            task_id: stream.1,
            position: row.position,
            version: row.version,
            deleted: row.deleted,
            status: by_code(Status::ALL, row.status)?,
            priority: by_code(Priority::ALL, row.priority)?,
            title: row.title,
            description: row.description,
            // Rows that an older program wrote hold tags as they were typed.
            tags: row.tags.iter().map(|tag| composed(tag).into_owned()).collect(),
            due_at: row.due_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
        };
        rows.insert(stream, row);
    }
    Ok(rows)
}

fn by_code<T: Copy>(all: &[T], code: i16) -> Result<T, sqlx::Error> {
    usize::try_from(code)
        .ok()
        .and_then(|code| all.get(code).copied())
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown code {code}").into()))
}

/// The columns: an array each, a row at the same place in all of them.
#[derive(Default)]
struct Columns<'a> {
    owner: Vec<Uuid>,
    task: Vec<Uuid>,
    position: Vec<i64>,
    version: Vec<i64>,
    deleted: Vec<bool>,
    status: Vec<i16>,
    priority: Vec<i16>,
    title: Vec<&'a str>,
    description: Vec<Option<&'a str>>,
    tags: Vec<String>,
    due: Vec<Option<Time>>,
    created: Vec<Time>,
    updated: Vec<Time>,
    started: Vec<Option<Time>>,
    completed: Vec<Option<Time>>,
    /// Null: the text is as it was and is not written (a long one need not be compressed again).
    words: Vec<Option<String>>,
    is_new: Vec<bool>,
}

async fn write(effect: &Effect<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if effect.tasks.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::default();
    for change in &effect.tasks {
        let row = &change.after;
        columns.owner.push(row.owner_id.0);
        columns.task.push(row.task_id.0);
        columns.position.push(row.position);
        columns.version.push(row.version);
        columns.deleted.push(row.deleted);
        columns.status.push(row.status.code());
        columns.priority.push(row.priority.code());
        columns.title.push(&row.title);
        columns.description.push(row.description.as_deref());
        columns.tags.push(row.tags.join(TAG_SEPARATOR));
        columns.due.push(row.due_at);
        columns.created.push(row.created_at);
        columns.updated.push(row.updated_at);
        columns.started.push(row.started_at);
        columns.completed.push(row.completed_at);
        let words = || Words::of(&row.title, row.description.as_deref()).joined();
        columns.words.push(change.text_changed.then(words));
        columns.is_new.push(change.before.is_none());
    }
    sqlx::query!(
        r#"
        with touched as (
            select t.owner_id, t.task_id, t.position, t.version, t.deleted, t.status, t.priority, t.title,
                t.description, string_to_array(t.tags, e'\x1f') as tags, t.due_at, t.created_at, t.updated_at,
                t.started_at, t.completed_at, array_to_tsvector(string_to_array(t.words, ' ')) as search, t.is_new
            from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::boolean[], $7::smallint[],
                $8::smallint[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[],
                $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::boolean[])
                as t (owner_id, task_id, position, version, deleted, status, priority, title, description, tags,
                    due_at, created_at, updated_at, started_at, completed_at, words, is_new)
        ),
        new_tasks as (
            insert into read_model.task (generation, owner_id, task_id, position, version, deleted, status, priority,
                title, description, tags, due_at, created_at, updated_at, started_at, completed_at, search)
            select $1, owner_id, task_id, position, version, deleted, status, priority, title, description, tags,
                due_at, created_at, updated_at, started_at, completed_at, search
            from touched
            where is_new
        )
        update read_model.task as t
        set position = n.position, version = n.version, deleted = n.deleted, status = n.status,
            priority = n.priority, title = n.title, tags = n.tags, due_at = n.due_at, updated_at = n.updated_at,
            started_at = n.started_at, completed_at = n.completed_at,
            description = case when n.search is null then t.description else n.description end,
            search = coalesce(n.search, t.search)
        from touched as n
        where t.generation = $1 and t.owner_id = n.owner_id and t.task_id = n.task_id and not n.is_new
        "#,
        generation,
        &columns.owner,
        &columns.task,
        &columns.position,
        &columns.version,
        &columns.deleted,
        &columns.status,
        &columns.priority,
        &columns.title as &[&str],
        &columns.description as &[Option<&str>],
        &columns.tags,
        &columns.due as &[Option<Time>],
        &columns.created,
        &columns.updated,
        &columns.started as &[Option<Time>],
        &columns.completed as &[Option<Time>],
        &columns.words as &[Option<String>],
        &columns.is_new,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn compare(live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
    let found = sqlx::query_as!(
        Found,
        r#"
        with bound as (
            select o.owner_id, min(c.position) as position
            from (select distinct owner_id, shard from read_model.owner where generation in ($1, $2)) as o
            join read_model.checkpoint as c on c.generation in ($1, $2) and c.shard = o.shard
            group by o.owner_id
        )
        select owner_id as "owner_id?", task_id as "task_id?",
            case when a.version is null then format('missing in the live generation (version %s)', b.version)
                when b.version is null then format('missing in the new generation (version %s)', a.version)
                else 'different: ' || array_to_string(array[
                    case when a.version <> b.version then format('version (%s, new %s)', a.version, b.version) end,
                    case when a.position <> b.position then 'position' end,
                    case when a.deleted <> b.deleted then 'deleted' end,
                    case when a.status <> b.status then format('status (%s, new %s)', a.status, b.status) end,
                    case when a.priority <> b.priority then format('priority (%s, new %s)', a.priority, b.priority) end,
                    case when a.title <> b.title then 'title' end,
                    case when a.description is distinct from b.description then 'description' end,
                    case when a.tags <> b.tags then 'tags' end,
                    case when a.due_at is distinct from b.due_at then 'due_at' end,
                    case when a.created_at <> b.created_at then 'created_at' end,
                    case when a.updated_at <> b.updated_at then 'updated_at' end,
                    case when a.started_at is distinct from b.started_at then 'started_at' end,
                    case when a.completed_at is distinct from b.completed_at then 'completed_at' end,
                    case when a.search <> b.search then 'search' end], ', ')
            end as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.task where generation = $1) as a
        full join (select * from read_model.task where generation = $2) as b using (owner_id, task_id)
        left join bound using (owner_id)
        where coalesce(a.position, 0) <= coalesce(bound.position, 0)
            and coalesce(b.position, 0) <= coalesce(bound.position, 0)
            and (a.version, a.position, a.deleted, a.status, a.priority, a.title, a.description, a.tags, a.due_at,
                a.created_at, a.updated_at, a.started_at, a.completed_at, a.search)
                is distinct from
                (b.version, b.position, b.deleted, b.status, b.priority, b.title, b.description, b.tags, b.due_at,
                b.created_at, b.updated_at, b.started_at, b.completed_at, b.search)
        order by 1, 2
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await?;
    Ok(Differences::found("task", found))
}
