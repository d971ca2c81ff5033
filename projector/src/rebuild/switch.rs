//! The switch to another generation, once it has caught up with the live one.

use backends::database::Pool;
use event_store::TailReader;
use sqlx::{Connection, PgConnection};
use tracing::info;
use uuid::Uuid;

use super::error::RebuildError;
use crate::checkpoint;
use crate::connection;
use crate::feed::catch_up;

/// So far behind the live generation, the switch catches up while it holds the live projector back.
const SWITCH_GAP_EVENTS_MAX: i64 = 4_000;
/// Rounds of catching up before a switch gives up.
const SWITCH_ROUNDS_MAX: u32 = 1_000;

/// Makes the generation before the live one live again.
pub(super) async fn switch_to_kept(read_pool: &Pool, tail: &TailReader) -> Result<i32, RebuildError> {
    let mut connection = connection::for_batches(read_pool).await?;
    let log_id = tail.log_id().await?;
    let kept = sqlx::query_scalar!(
        r#"
        select generation from read_model.generation
        where state = 'kept' and coalesce(log_id, $1) = $1
        order by finished_at desc limit 1
        "#,
        log_id,
    )
    .fetch_optional(&mut connection)
    .await?
    .ok_or(RebuildError::NothingKept)?;
    switch(&mut connection, tail, kept, log_id).await?;
    Ok(kept)
}

/// Applies what the log has, shard by shard, until all are at its head or within one switch of it.
pub(super) async fn catch_up_with_live(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
) -> Result<(), RebuildError> {
    for _ in 0..SWITCH_ROUNDS_MAX {
        let mut gap = 0;
        for (shard, head) in tail.heads().await? {
            gap = gap.max(head - checkpoint::load(connection, generation, shard).await?.position);
            catch_up(connection, tail, generation, shard, head).await?;
        }
        if gap <= SWITCH_GAP_EVENTS_MAX {
            return Ok(());
        }
    }
    Err(RebuildError::Behind)
}

/// Makes a generation the live one, in one transaction that holds the live projector back and in which the new one is
/// brought to where the old one is, or past it.
pub(super) async fn switch(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    log_id: Uuid,
) -> Result<(), RebuildError> {
    for _ in 0..SWITCH_ROUNDS_MAX {
        catch_up_with_live(connection, tail, generation).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
        let projection = sqlx::query!("select live_generation, log_id from read_model.projection for update")
            .fetch_one(&mut *transaction)
            .await?;
        let live = projection.live_generation;
        let held = hold(&mut transaction, live).await?;
        // A read model of another log has positions that mean nothing in this one.
        let same_log = projection.log_id.is_none_or(|live_log_id| live_log_id == log_id);
        let mut caught_up = true;
        for (shard, until) in held.into_iter().filter(|_| same_log) {
            let position = checkpoint::load(&mut transaction, generation, shard).await?.position;
            if until - position > SWITCH_GAP_EVENTS_MAX {
                caught_up = false;
                break;
            }
            catch_up(&mut transaction, tail, generation, shard, until).await?;
        }
        if !caught_up {
            transaction.rollback().await?;
            continue;
        }
        // A process that folds for the old one right now is fenced, and finds the new one.
        sqlx::query!("update read_model.checkpoint set turn = turn + 1 where generation = $1", live)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("update read_model.kafka_partition set turn = turn + 1").execute(&mut *transaction).await?;
        if !same_log {
            // The other log's publications have numbers of their own, and some of its messages were passed over.
            sqlx::query!("update read_model.kafka_partition set next_offset = null, publication = 0")
                .execute(&mut *transaction)
                .await?;
            sqlx::query!("delete from read_model.kafka_position").execute(&mut *transaction).await?;
        }
        sqlx::query!(
            "update read_model.generation set state = 'kept', finished_at = now() where generation = $1",
            live
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "update read_model.generation set state = 'live', phase = '', finished_at = now() where generation = $1",
            generation,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("update read_model.projection set live_generation = $1, log_id = $2", generation, log_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        info!(from = live, to = generation, "the read models were switched");
        return Ok(());
    }
    Err(RebuildError::Behind)
}

/// Locks out every process that folds for the live generation, until the transaction ends. Returns, for each shard, a position up
/// to which it may have events: the new one must not have fewer.
async fn hold(connection: &mut PgConnection, live: i32) -> Result<Vec<(i16, i64)>, sqlx::Error> {
    sqlx::query!("select shard from read_model.checkpoint where generation = $1 order by shard for update", live)
        .fetch_all(&mut *connection)
        .await?;
    sqlx::query!("select partition from read_model.kafka_partition order by topic, partition for update")
        .fetch_all(&mut *connection)
        .await?;
    let rows = sqlx::query!(
        r#"
        select shard as "shard!", max(position) as "position!"
        from (
            select shard, position from read_model.checkpoint where generation = $1
            union all
            select shard, position from read_model.kafka_position
        ) as p
        group by shard
        order by shard
        "#,
        live,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.shard, row.position)).collect())
}
