//! `read_model.task_version`: a row for each event, with its task as it was then, but for its texts. What lists and counts as
//! of a time are made from. Rows are only ever added: each holds until the next one of its task.

use async_trait::async_trait;
use domain::Time;
use read_model::search::title_key;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{AppliedEvent, Effect, Projection};
use crate::columns::{columns, joined};
use crate::copy::{COPY_ROWS_MIN, CopyIn, Rows, copy_into};
use crate::differences::{Differences, EXAMPLES_MAX, Found, differing};

pub(super) struct TaskVersions;

#[async_trait]
impl Projection for TaskVersions {
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        if effect.events.is_empty() {
            return Ok(());
        }
        if effect.events.len() >= COPY_ROWS_MIN {
            copied(effect, generation).add(connection).await?;
        } else {
            insert(&Columns::of(&effect.events), generation, connection).await?;
        }
        blank(effect, generation, connection).await
    }

    fn copy(&self, effect: &Effect<'_>, generation: i32) -> Option<CopyIn> {
        Some(copied(effect, generation))
    }

    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
        // Where the live generation was made before there was this table, it is not compared, nor a task that only one
        // generation has purged yet.
        let found = differing!(
            select "format('version %s %s', version,
                case when a.position is null then 'missing in the live generation'
                    when b.position is null then 'missing in the new generation'
                    else 'different' end)",
            from "(select * from read_model.task_version where generation = $1) as a
                full join (select * from read_model.task_version where generation = $2) as b
                    using (owner_id, task_id, version)",
            where "not exists (
                    select from read_model.history p
                    where p.generation in ($1, $2) and p.owner_id = a.owner_id and p.task_id = a.task_id
                        and b.owner_id is not null and p.type = 'TaskPurged' and p.position > bound.position
                )
                and $1 >= (select complete_from from read_model.projected_table where name = 'task_version')
                and (a.position, a.status, a.priority, a.held_from, a.created_at, a.due_at, a.started_at, a.completed_at,
                    a.tags, a.title_key, a.rank)
                    is distinct from
                    (b.position, b.status, b.priority, b.held_from, b.created_at, b.due_at, b.started_at, b.completed_at,
                    b.tags, b.title_key, b.rank)",
            order by "1, 2, version",
            live, new, &mut *connection
        )
        .await?;
        let mut differences = Differences::found("task_version", found);
        for generation in [live, new] {
            differences.add("task_version", breaks(generation, connection).await?);
        }
        Ok(differences)
    }
}

/// `None`: it is deleted.
fn status(applied: &AppliedEvent<'_>) -> Option<i16> {
    (!applied.after.deleted).then(|| applied.after.task.status.code())
}

fn changed_title_key(applied: &AppliedEvent<'_>) -> Option<String> {
    applied.changes.title.as_ref().map(|title| title_key(&title.to))
}

fn copied(effect: &Effect<'_>, generation: i32) -> CopyIn {
    let mut rows = Rows::new();
    for applied in &effect.events {
        let task = &applied.after.task;
        rows.row(15)
            .int(generation)
            .smallint_or_null(status(applied))
            .smallint(task.priority.code())
            .uuid(applied.after.owner_id.0)
            .uuid(task.id)
            .bigint(task.version)
            .bigint(applied.after.position)
            .time(task.updated_at)
            .time(task.created_at)
            .time_or_null(task.due_at)
            .time_or_null(task.started_at)
            .time_or_null(task.completed_at)
            .texts(&task.tags)
            .text_or_null(changed_title_key(applied).as_deref())
            .text_or_null(task.rank.as_deref());
    }
    let statements = copy_into!(
        "task_version",
        "generation, status, priority, owner_id, task_id, version, position, held_from, created_at, due_at, started_at, \
         completed_at, tags, title_key, rank"
    );
    CopyIn { statements, rows }
}

columns!(Columns<'a> of applied: &'a AppliedEvent<'a> {
    owner_id: Uuid = applied.after.owner_id.0,
    task_id: Uuid = applied.after.task.id,
    version: i64 = applied.after.task.version,
    position: i64 = applied.after.position,
    status: Option<i16> = status(applied),
    priority: i16 = applied.after.task.priority.code(),
    held_from: Time = applied.after.task.updated_at,
    created_at: Time = applied.after.task.created_at,
    due_at: Option<Time> = applied.after.task.due_at,
    started_at: Option<Time> = applied.after.task.started_at,
    completed_at: Option<Time> = applied.after.task.completed_at,
    tags: String = joined(&applied.after.task.tags),
    title_key: Option<String> = changed_title_key(applied),
    rank: Option<&'a str> = applied.after.task.rank.as_deref(),
});

async fn insert(columns: &Columns<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.task_version (generation, owner_id, task_id, version, position, status, priority, held_from,
            created_at, due_at, started_at, completed_at, tags, title_key, rank)
        select $1, v.owner_id, v.task_id, v.version, v.position, v.status, v.priority, v.held_from, v.created_at, v.due_at,
            v.started_at, v.completed_at, string_to_array(v.tags, e'\x1f'), v.title_key, v.rank
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::smallint[], $7::smallint[],
            $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[],
            $14::text[], $15::text[])
            as v (owner_id, task_id, version, position, status, priority, held_from, created_at, due_at, started_at,
                completed_at, tags, title_key, rank)
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.position,
        &columns.status as &[Option<i16>],
        &columns.priority,
        &columns.held_from,
        &columns.created_at,
        &columns.due_at as &[Option<Time>],
        &columns.started_at as &[Option<Time>],
        &columns.completed_at as &[Option<Time>],
        &columns.tags,
        &columns.title_key as &[Option<String>],
        &columns.rank as &[Option<&str>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What is left is where the task stood, and when: it is counted, and in no list.
async fn blank(effect: &Effect<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (owners, tasks) = effect.purged();
    if tasks.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update read_model.task_version as v set priority = null, due_at = null, tags = '{}', title_key = null, rank = null
         from unnest($2::uuid[], $3::uuid[]) as p (owner_id, task_id)
         where v.generation = $1 and v.owner_id = p.owner_id and v.task_id = p.task_id",
        generation,
        &owners,
        &tasks,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Where a task's rows do not follow each other without a gap, or one holds before the one that it follows.
async fn breaks(generation: i32, connection: &mut PgConnection) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", task_id as "task_id?",
            format('generation %s has version %s, from %s, after version %s, from %s', $1::int, version, held_from,
                coalesce(before_version, 0), coalesce(before_from::text, 'nothing')) as "detail!",
            count(*) over () as "total!"
        from (
            select owner_id, task_id, version, held_from, lag(version) over task as before_version,
                lag(held_from) over task as before_from
            from read_model.task_version
            where generation = $1
            window task as (partition by owner_id, task_id order by version)
        ) as v
        where $1 >= (select complete_from from read_model.projected_table where name = 'task_version')
            and (version <> coalesce(before_version, 0) + 1 or held_from < before_from)
        order by owner_id, task_id, version
        limit $2
        "#,
        generation,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}
