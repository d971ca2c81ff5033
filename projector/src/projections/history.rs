//! `read_model.history`: a row for each event, with what it changed. What the history of a task, its past (`as_of`) and
//! the live stream are made from.

use domain::Time;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{AppliedEvent, Effect, Projection};
use crate::columns::columns;
use crate::copy::{CopyIn, Rows};
use crate::differences::{Differences, EXAMPLES_MAX, Found};

pub(super) struct History;

impl Projection for History {
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
        for applied in &effect.events {
            let event = applied.event;
            rows.row(11)
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
                .text(&applied.changes.to_json());
        }
        let statement = "copy read_model.history_building (generation, owner_id, task_id, version, position, \
             occurred_at, recorded_at, type, actor_type, actor_id, changes) from stdin (format binary)";
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
});

async fn write(effect: &Effect<'_>, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if effect.events.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(&effect.events);
    sqlx::query!(
        r#"
        insert into read_model.history (generation, owner_id, task_id, version, position, occurred_at, recorded_at,
            type, actor_type, actor_id, changes)
        select $1, h.*
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
            $8::text[], $9::text[], $10::uuid[], $11::text[]) as h
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
            format('event %s %s', version,
                case when a.position is null then 'missing in the live generation'
                    when b.position is null then 'missing in the new generation'
                    else 'different: ' || array_to_string(array[
                        case when a.position <> b.position then 'position' end,
                        case when a.occurred_at <> b.occurred_at then 'occurred_at' end,
                        case when a.recorded_at <> b.recorded_at then 'recorded_at' end,
                        case when a.type <> b.type then 'type' end,
                        case when a.actor_type <> b.actor_type then 'actor type' end,
                        case when a.actor_id is distinct from b.actor_id then 'actor id' end,
                        case when a.changes <> b.changes then 'changes' end], ', ')
                end) as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.history where generation = $1) as a
        full join (select * from read_model.history where generation = $2) as b using (owner_id, task_id, version)
        left join bound using (owner_id)
        where coalesce(a.position, 0) <= coalesce(bound.position, 0)
            and coalesce(b.position, 0) <= coalesce(bound.position, 0)
            and (a.position, a.occurred_at, a.recorded_at, a.type, a.actor_type, a.actor_id, a.changes)
                is distinct from
                (b.position, b.occurred_at, b.recorded_at, b.type, b.actor_type, b.actor_id, b.changes)
        order by 1, 2, version
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await?;
    Ok(Differences::found("history", found))
}
