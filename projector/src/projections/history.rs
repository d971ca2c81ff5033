//! `read_model.history`: a row for each event, with what it changed. What the history of a task, its past (`as_of`) and
//! the live stream are made from.

use async_trait::async_trait;
use domain::Time;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{AppliedEvent, Effect, Projection};
use crate::columns::columns;
use crate::copy::{COPY_ROWS_MIN, CopyIn, Rows, copy_into};
use crate::differences::{Differences, differing};

pub(super) struct History;

#[async_trait]
impl Projection for History {
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
        // A purge that only one generation has applied has blanked what is before it in that one alone: such a task is not
        // compared. Nor are changes, where the live generation was made before there were any.
        let found = differing!(
            select "format('event %s %s', version,
                case when a.position is null then 'missing in the live generation'
                    when b.position is null then 'missing in the new generation'
                    else 'different: ' || array_to_string(array[
                        case when a.position <> b.position then 'position' end,
                        case when a.occurred_at <> b.occurred_at then 'occurred_at' end,
                        case when a.recorded_at <> b.recorded_at then 'recorded_at' end,
                        case when a.type <> b.type then 'type' end,
                        case when a.actor_type <> b.actor_type then 'actor type' end,
                        case when a.actor_id is distinct from b.actor_id then 'actor id' end,
                        case when a.changes <> b.changes then 'changes' end,
                        case when c.are_known and a.change_id is distinct from b.change_id then 'change id' end,
                        case when c.are_known and a.undoes is distinct from b.undoes then 'undoes' end], ', ')
                    end)",
            from "(select * from read_model.history where generation = $1) as a
                full join (select * from read_model.history where generation = $2) as b using (owner_id, task_id, version)
                cross join (
                    select complete_from <= least($1, $2) as are_known from read_model.projected_table where name = 'change'
                ) as c",
            where "not exists (
                    select from read_model.history p
                    where p.generation in ($1, $2) and p.owner_id = a.owner_id and p.task_id = a.task_id
                        and b.owner_id is not null and p.type = 'TaskPurged' and p.position > bound.position
                )
                and ((a.position, a.occurred_at, a.recorded_at, a.type, a.actor_type, a.actor_id, a.changes)
                        is distinct from
                        (b.position, b.occurred_at, b.recorded_at, b.type, b.actor_type, b.actor_id, b.changes)
                    or c.are_known and (a.change_id, a.undoes) is distinct from (b.change_id, b.undoes))",
            order by "1, 2, version",
            live, new, connection
        )
        .await?;
        Ok(Differences::found("history", found))
    }
}

fn copied(effect: &Effect<'_>, generation: i32) -> CopyIn {
    let mut rows = Rows::new();
    for applied in &effect.events {
        let event = applied.event;
        rows.row(13)
            .int(generation)
            .uuid(event.owner_id.0)
            .uuid(event.task_id.0)
            .bigint(event.version)
            .bigint(event.position)
            .time(event.occurred_at)
            .time(event.recorded_at)
            .text(&event.event_type)
            .text(&event.actor_type)
            .uuid_or_null(event.actor_id)
            .text(&applied.changes.to_json())
            .uuid(event.change())
            .uuid_or_null(event.undoes);
    }
    let statements = copy_into!(
        "history",
        "generation, owner_id, task_id, version, position, occurred_at, recorded_at, type, actor_type, actor_id, changes, \
         change_id, undoes"
    );
    CopyIn { statements, rows }
}

columns!(Columns<'a> of applied: &'a AppliedEvent<'a> {
    owner_id: Uuid = applied.event.owner_id.0,
    task_id: Uuid = applied.event.task_id.0,
    version: i64 = applied.event.version,
    position: i64 = applied.event.position,
    occurred_at: Time = applied.event.occurred_at,
    recorded_at: Time = applied.event.recorded_at,
    event_type: &'a str = &applied.event.event_type,
    actor_type: &'a str = &applied.event.actor_type,
    actor_id: Option<Uuid> = applied.event.actor_id,
    changes: String = applied.changes.to_json(),
    change_id: Uuid = applied.event.change(),
    undoes: Option<Uuid> = applied.event.undoes,
});

async fn insert(columns: &Columns<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.history (generation, owner_id, task_id, version, position, occurred_at, recorded_at,
            type, actor_type, actor_id, changes, change_id, undoes)
        select $1, h.*
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
            $8::text[], $9::text[], $10::uuid[], $11::text[], $12::uuid[], $13::uuid[]) as h
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.position,
        &columns.occurred_at,
        &columns.recorded_at,
        &columns.event_type as &[&str],
        &columns.actor_type as &[&str],
        &columns.actor_id as &[Option<Uuid>],
        &columns.changes,
        &columns.change_id,
        &columns.undoes as &[Option<Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// That something happened stays; what it was does not.
async fn blank(effect: &Effect<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (owners, tasks) = effect.purged();
    if tasks.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update read_model.history as h set changes = '{}'
         from unnest($2::uuid[], $3::uuid[]) as p (owner_id, task_id)
         where h.generation = $1 and h.owner_id = p.owner_id and h.task_id = p.task_id and h.changes <> '{}'",
        generation,
        &owners,
        &tasks,
    )
    .execute(connection)
    .await?;
    Ok(())
}
