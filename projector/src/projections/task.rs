//! `read_model.task`: a row for each task, as it is, those too that are deleted. Lists, counts and search read it,
//! and events are folded into it ([`read_model::fold`]).

use std::collections::HashMap;

use async_trait::async_trait;
use domain::{OwnerId, StoredEvent, TaskId, Time, composed};
use read_model::search::title_key;
use read_model::{Task, TaskRow, touches_text};
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{Effect, Projection, Stream, TaskChange};
use crate::columns::{columns, joined};
use crate::copy::{COPY_ROWS_MIN, CopyIn, Rows, copy_into};
use crate::differences::{Differences, differing};

pub(super) struct Tasks;

#[async_trait]
impl Projection for Tasks {
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let (new, old): (Vec<_>, Vec<_>) = effect.tasks.iter().partition(|change| change.before.is_none());
        if new.len() >= COPY_ROWS_MIN {
            copied(new, generation).add(connection).await?;
        } else if !new.is_empty() {
            insert(&Columns::of(new), generation, connection).await?;
        }
        if !old.is_empty() {
            update(&Columns::of(old), generation, connection).await?;
        }
        Ok(())
    }

    fn copy(&self, effect: &Effect<'_>, generation: i32) -> Option<CopyIn> {
        Some(copied(&effect.tasks, generation))
    }

    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
        // Where the live generation was made before there were title keys, they are not compared.
        let found = differing!(
            select "case when a.version is null then format('missing in the live generation (version %s)', b.version)
                when b.version is null then format('missing in the new generation (version %s)', a.version)
                else 'different: ' || array_to_string(array[
                    case when a.version <> b.version then format('version (%s, new %s)', a.version, b.version) end,
                    case when a.position <> b.position then 'position' end,
                    case when a.deleted <> b.deleted then 'deleted' end,
                    case when a.status <> b.status then format('status (%s, new %s)', a.status, b.status) end,
                    case when a.priority <> b.priority then format('priority (%s, new %s)', a.priority, b.priority) end,
                    case when a.title <> b.title then 'title' end,
                    case when a.compared_key <> b.title_key then 'title_key' end,
                    case when a.description is distinct from b.description then 'description' end,
                    case when a.tags <> b.tags then 'tags' end,
                    case when a.due_at is distinct from b.due_at then 'due_at' end,
                    case when a.rank is distinct from b.rank then 'rank' end,
                    case when a.created_at <> b.created_at then 'created_at' end,
                    case when a.updated_at <> b.updated_at then 'updated_at' end,
                    case when a.started_at is distinct from b.started_at then 'started_at' end,
                    case when a.completed_at is distinct from b.completed_at then 'completed_at' end], ', ')
                end",
            from "(
                    select t.*, case when t.generation >= p.complete_from then t.title_key end as compared_key
                    from read_model.task as t join read_model.projected_table as p on p.name = 'task'
                    where t.generation = $1
                ) as a
                full join (select * from read_model.task where generation = $2) as b using (owner_id, task_id)",
            where "(a.version, a.position, a.deleted, a.status, a.priority, a.title, coalesce(a.compared_key, b.title_key),
                a.description, a.tags, a.due_at, a.created_at, a.updated_at, a.started_at, a.completed_at, a.rank)
                is distinct from
                (b.version, b.position, b.deleted, b.status, b.priority, b.title, b.title_key,
                b.description, b.tags, b.due_at, b.created_at, b.updated_at, b.started_at, b.completed_at, b.rank)",
            order by "1, 2",
            live, new, connection
        )
        .await?;
        Ok(Differences::found("task", found))
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
            case when k.needs_text then t.description end as description, t.tags, t.rank, t.due_at as "due_at: Time",
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
        let (owner_id, task_id) = (OwnerId(row.owner_id), TaskId(row.task_id));
        let task = Task {
            id: row.task_id,
            version: row.version,
            title: row.title,
            description: row.description,
            status: read_model::status(row.status)?,
            priority: read_model::priority(row.priority)?,
            due_at: row.due_at,
            // Rows that an older program wrote hold tags as they were typed.
            tags: row.tags.iter().map(|tag| composed(tag).into_owned()).collect(),
            rank: row.rank,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
        };
        let row = TaskRow { owner_id, position: row.position, deleted: row.deleted, task };
        rows.insert((owner_id, task_id), row);
    }
    Ok(rows)
}

fn copied<'a>(changes: impl IntoIterator<Item = &'a TaskChange>, generation: i32) -> CopyIn {
    let mut rows = Rows::new();
    for change in changes {
        let TaskRow { owner_id, position, deleted, task } = &change.after;
        rows.row(18)
            .int(generation)
            .uuid(owner_id.0)
            .uuid(task.id)
            .bigint(*position)
            .bigint(task.version)
            .boolean(*deleted)
            .smallint(task.status.code())
            .smallint(task.priority.code())
            .text(&task.title)
            .text(&title_key(&task.title))
            .text_or_null(task.description.as_deref())
            .texts(&task.tags)
            .text_or_null(task.rank.as_deref())
            .time_or_null(task.due_at)
            .time(task.created_at)
            .time(task.updated_at)
            .time_or_null(task.started_at)
            .time_or_null(task.completed_at);
    }
    let statements = copy_into!(
        "task",
        "generation, owner_id, task_id, position, version, deleted, status, priority, title, title_key, description, tags, \
         rank, due_at, created_at, updated_at, started_at, completed_at"
    );
    CopyIn { statements, rows }
}

columns!(Columns<'a> of change: &'a TaskChange {
    owner_id: Uuid = change.after.owner_id.0,
    task_id: Uuid = change.after.task.id,
    position: i64 = change.after.position,
    version: i64 = change.after.task.version,
    deleted: bool = change.after.deleted,
    status: i16 = change.after.task.status.code(),
    priority: i16 = change.after.task.priority.code(),
    title: &'a str = &change.after.task.title,
    title_key: String = title_key(&change.after.task.title),
    description: Option<&'a str> = change.after.task.description.as_deref(),
    tags: String = joined(&change.after.task.tags),
    due_at: Option<Time> = change.after.task.due_at,
    created_at: Time = change.after.task.created_at,
    updated_at: Time = change.after.task.updated_at,
    started_at: Option<Time> = change.after.task.started_at,
    completed_at: Option<Time> = change.after.task.completed_at,
    rank: Option<&'a str> = change.after.task.rank.as_deref(),
    // A description that is as it was is not written: a long one need not be compressed again.
    text_changed: bool = change.text_changed,
});

async fn insert(columns: &Columns<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.task (generation, owner_id, task_id, position, version, deleted, status, priority,
            title, description, tags, due_at, created_at, updated_at, started_at, completed_at, rank, title_key)
        select $1, t.owner_id, t.task_id, t.position, t.version, t.deleted, t.status, t.priority, t.title,
            t.description, string_to_array(t.tags, e'\x1f'), t.due_at, t.created_at, t.updated_at, t.started_at,
            t.completed_at, t.rank, t.title_key
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::boolean[], $7::smallint[],
            $8::smallint[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[],
            $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::text[])
            as t (owner_id, task_id, position, version, deleted, status, priority, title, description, tags, due_at,
                created_at, updated_at, started_at, completed_at, rank, title_key)
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.position,
        &columns.version,
        &columns.deleted,
        &columns.status,
        &columns.priority,
        &columns.title as &[&str],
        &columns.description as &[Option<&str>],
        &columns.tags,
        &columns.due_at as &[Option<Time>],
        &columns.created_at,
        &columns.updated_at,
        &columns.started_at as &[Option<Time>],
        &columns.completed_at as &[Option<Time>],
        &columns.rank as &[Option<&str>],
        &columns.title_key,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update(columns: &Columns<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        update read_model.task as t
        set position = n.position, version = n.version, deleted = n.deleted, status = n.status,
            priority = n.priority, title = n.title, title_key = n.title_key, tags = string_to_array(n.tags, e'\x1f'), due_at = n.due_at,
            rank = n.rank, updated_at = n.updated_at, started_at = n.started_at, completed_at = n.completed_at,
            description = case when n.text_changed then n.description else t.description end
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::boolean[], $7::smallint[],
            $8::smallint[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[],
            $14::timestamptz[], $15::timestamptz[], $16::boolean[], $17::text[], $18::text[])
            as n (owner_id, task_id, position, version, deleted, status, priority, title, description, tags, due_at,
                updated_at, started_at, completed_at, text_changed, rank, title_key)
        where t.generation = $1 and t.owner_id = n.owner_id and t.task_id = n.task_id
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.position,
        &columns.version,
        &columns.deleted,
        &columns.status,
        &columns.priority,
        &columns.title as &[&str],
        &columns.description as &[Option<&str>],
        &columns.tags,
        &columns.due_at as &[Option<Time>],
        &columns.updated_at,
        &columns.started_at as &[Option<Time>],
        &columns.completed_at as &[Option<Time>],
        &columns.text_changed,
        &columns.rank as &[Option<&str>],
        &columns.title_key,
    )
    .execute(connection)
    .await?;
    Ok(())
}
