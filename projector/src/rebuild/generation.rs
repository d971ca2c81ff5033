//! The tables of a new generation: made or found, counted and indexed, attached, dropped.

use std::time::Duration;

use event_store::TailReader;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::error::RebuildError;
use super::fold_id::fold_id;
use super::progress::Phase;
use crate::connection::REBUILD;

/// DDL on tables that are in use waits for them this often, 200 ms each, so that nobody waits for it for long.
const DDL_ATTEMPTS_MAX: u32 = 50;

/// A generation that is being made.
pub(super) struct Building {
    pub(super) generation: i32,
    pub(super) attached: bool,
    pub(super) indexed: bool,
    pub(super) resumed: bool,
    /// Made by `verify`: not to be left behind.
    pub(super) throwaway: bool,
    pub(super) events_done: i64,
    pub(super) events_total: i64,
}

/// Finds what an earlier run left, if this one can go on with it; else makes the tables of a new generation.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    tail: &TailReader,
    log_id: Uuid,
    throwaway: bool,
) -> Result<Building, RebuildError> {
    let fold_id = fold_id();
    let left = sqlx::query!(
        r#"
        select generation, attached, log_id, fold_id, throwaway, phase, events_done, events_total
        from read_model.generation where state = 'building' order by generation
        "#,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut going_on = None;
    for row in left {
        if going_on.is_none() && row.log_id == Some(log_id) && row.fold_id == Some(fold_id) {
            info!(
                generation = row.generation,
                events_done = row.events_done,
                "goes on with the rebuild that was stopped"
            );
            going_on = Some(Building {
                generation: row.generation,
                attached: row.attached,
                indexed: row.phase == "attach",
                resumed: true,
                throwaway: row.throwaway && throwaway,
                events_done: row.events_done,
                events_total: row.events_total,
            });
        } else {
            drop_generation(connection, row.generation).await?;
        }
    }
    if let Some(building) = going_on {
        sqlx::query!(
            "update read_model.generation set throwaway = $2 where generation = $1",
            building.generation,
            building.throwaway,
        )
        .execute(connection)
        .await?;
        return Ok(building);
    }

    let heads = tail.heads().await?;
    let events_total: i64 = heads.iter().map(|(_, position)| position).sum();
    let mut transaction = connection.begin().await?;
    let generation = sqlx::query_scalar!(r#"select nextval('read_model.generation_number')::int as "number!""#)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query!(
        r#"
        insert into read_model.generation (generation, state, attached, log_id, fold_id, throwaway, phase, events_total)
        values ($1, 'building', false, $2, $3, $4, 'fill', $5)
        "#,
        generation,
        log_id,
        fold_id,
        throwaway,
        events_total,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!("select read_model.create_building($1)", generation).execute(&mut *transaction).await?;
    for (shard, position) in heads {
        sqlx::query!(
            "insert into read_model.checkpoint (generation, shard, position, bulk_until) values ($1, $2, $3, $3)",
            generation,
            shard,
            position,
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    info!(generation, events_total, "a new generation of the read models is made");
    Ok(Building {
        generation,
        attached: false,
        indexed: false,
        resumed: false,
        throwaway,
        events_done: 0,
        events_total,
    })
}

pub(super) async fn index(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    set_phase(connection, generation, Phase::Index).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local maintenance_work_mem = '128MB'").execute(&mut *transaction).await?;
    sqlx::query!("set local work_mem = '64MB'").execute(&mut *transaction).await?;
    sqlx::query!("select read_model.count_building($1)", generation).execute(&mut *transaction).await?;
    sqlx::query!("select read_model.index_tables('_building')").execute(&mut *transaction).await?;
    sqlx::query!("select read_model.analyze_building()").execute(&mut *transaction).await?;
    sqlx::query!("update read_model.generation set phase = 'attach' where generation = $1", generation)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Makes the tables of the generation partitions of the read models.
pub(super) async fn attach(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    for _ in 0..DDL_ATTEMPTS_MAX {
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local lock_timeout = '200ms'").execute(&mut *transaction).await?;
        match sqlx::query!("select read_model.attach_building($1)", generation).execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                return set_phase(connection, generation, Phase::CatchUp).await;
            }
            Err(error) if is_lock_timeout(&error) => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(RebuildError::Locked)
}

pub(super) async fn set_phase(
    connection: &mut PgConnection,
    generation: i32,
    phase: Phase,
) -> Result<(), RebuildError> {
    sqlx::query!("update read_model.generation set phase = $2 where generation = $1", generation, phase.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Drops all generations that are kept, but for one. Where they stay locked the next rebuild drops them.
pub(super) async fn drop_superfluous(connection: &mut PgConnection, keep: i32) -> Result<(), RebuildError> {
    let rows =
        sqlx::query!("select generation from read_model.generation where state = 'kept' and generation <> $1", keep)
            .fetch_all(&mut *connection)
            .await?;
    for row in rows {
        match drop_generation(connection, row.generation).await {
            Ok(()) => {}
            Err(RebuildError::Locked) => {
                warn!(generation = row.generation, "an old generation is in use; the next rebuild drops it");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) async fn drop_generation(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    for _ in 0..DDL_ATTEMPTS_MAX {
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local lock_timeout = '200ms'").execute(&mut *transaction).await?;
        match sqlx::query!("select read_model.drop_generation($1)", generation).execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                return Ok(());
            }
            Err(error) if is_lock_timeout(&error) => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(RebuildError::Locked)
}

/// Drops what is begun and not finished. What a run that was broken off may still be doing there is ended first: an index is
/// built to its end, whether anybody waits for it or not. Under the lock, so that no other run is under way.
pub(super) async fn drop_unfinished(connection: &mut PgConnection) -> Result<(), RebuildError> {
    sqlx::query_scalar!(
        r#"
        select pg_terminate_backend(pid) as "ended!"
        from pg_stat_activity
        where datname = current_database() and usename = current_user and application_name = $1
            and pid <> pg_backend_pid()
        "#,
        REBUILD,
    )
    .fetch_all(&mut *connection)
    .await?;
    let unfinished =
        sqlx::query!("select generation from read_model.generation where state = 'building' order by generation")
            .fetch_all(&mut *connection)
            .await?;
    for row in unfinished {
        drop_generation(connection, row.generation).await?;
    }
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    // lock_not_available, deadlock_detected
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03" || code == "40P01")
}
