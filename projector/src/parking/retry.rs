//! Tries parked events again, where an administrator has asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{OwnerId, StoredEvent, TaskId};
use event_store::{TailReader, is_about_values};
use read_model::OwnerRow;
use sqlx::{Connection, PgConnection};
use tracing::{info, warn};

use super::park::{reason, short};
use crate::batch::{self, Batch};
use crate::feed_position::FeedPosition;
use crate::fence::Fence;
use crate::projections::Stream;

/// The most events of a stream that one transaction tries again.
const RETRY_EVENTS_MAX: i64 = 500;
/// The most streams that are tried again before new events are looked at.
const RETRY_STREAMS_MAX: i64 = 50;
/// After this time the streams that are left wait for the next round.
pub(crate) const RETRY_TIME_MAX: Duration = Duration::from_millis(100);

/// The streams of which an administrator asked for a retry: a few of them, each with its shard.
pub(crate) async fn due(
    connection: &mut PgConnection,
    generation: i32,
    of_shard: Option<i16>,
) -> Result<Vec<(i16, Stream)>, sqlx::Error> {
    let streams = sqlx::query!(
        r#"
        select distinct shard as "shard!", owner_id as "owner_id!", task_id as "task_id!"
        from read_model.parked
        where generation = $1 and shard = coalesce($2, shard) and retry_at is not null
        limit $3
        "#,
        generation,
        of_shard,
        RETRY_STREAMS_MAX,
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(streams.into_iter().map(|row| (row.shard, (OwnerId(row.owner_id), TaskId(row.task_id)))).collect())
}

/// Tries the first parked events of a stream again, in order, in one transaction; those behind them are due then. Returns
/// its owner's row, if anything of it has changed.
pub(crate) async fn retry(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    fence: &mut Fence,
    shard: i16,
    stream: Stream,
) -> Result<Option<OwnerRow>, sqlx::Error> {
    let mut events_max = RETRY_EVENTS_MAX;
    loop {
        match retry_some(connection, tail, generation, fence, shard, stream, events_max).await {
            Err(error) if is_about_values(&error) && events_max > 1 => events_max /= 2,
            Err(error) if is_about_values(&error) => {
                warn!(owner_id = %stream.0, task_id = %stream.1, %error, "a parked event still cannot be written");
                keep_parked(connection, generation, stream, &reason(&error)).await?;
                return Ok(None);
            }
            retried => return retried,
        }
    }
}

/// `None`: another process has raised the fence, or the owner has no row.
async fn retry_some(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    fence: &mut Fence,
    shard: i16,
    stream: Stream,
    events_max: i64,
) -> Result<Option<OwnerRow>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    // From here on no other process applies or retries. `fence` is set only after the commit.
    let Some(raised) = fence.raise(generation, &mut transaction).await? else { return Ok(None) };
    let rows = sqlx::query!(
        r#"
        select position as "position!", event
        from read_model.parked
        where generation = $1 and owner_id = $2 and task_id = $3 and position is not null
        order by position
        limit $4
        "#,
        generation,
        stream.0.0,
        stream.1.0,
        events_max,
    )
    .fetch_all(&mut *transaction)
    .await?;
    // As they are in the log now (they may have been repaired), else as they were when they were parked.
    let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
    let in_log = tail.read_at(shard, &positions).await?;
    let mut in_log: BTreeMap<i64, StoredEvent> = in_log.into_iter().map(|event| (event.position, event)).collect();
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        events.push(match in_log.remove(&row.position) {
            Some(event) => event,
            None => serde_json::from_str(&row.event).map_err(|error| sqlx::Error::Decode(error.into()))?,
        });
    }
    let mut batch = Batch::load(&mut transaction, generation, &events.iter().collect::<Vec<_>>(), false).await?;
    let mut done = Vec::with_capacity(events.len());
    let mut failure = None;
    for event in &events {
        match batch.fold_parked(event) {
            Ok(()) => done.push(event.position),
            Err(error) => {
                failure = Some((event.position, short(&error.to_string())));
                break;
            }
        }
    }
    if !done.is_empty() {
        batch::write(&mut transaction, generation, batch, &FeedPosition::Unmoved).await?;
    }
    sqlx::query!(
        "delete from read_model.parked where generation = $1 and shard = $2 and position = any ($3)",
        generation,
        shard,
        &done,
    )
    .execute(&mut *transaction)
    .await?;
    let (position, reason) =
        failure.as_ref().map_or((0, "more events of its stream are tried again"), |(p, r)| (*p, r));
    let goes_on = failure.is_none();
    // Whatever is parked now first of its stream is what the rest waits for.
    sqlx::query!(
        r#"
        update read_model.parked as p
        set reason = case when p.position = f.position then $4 end,
            retry_at = case when p.position = f.position and $5 then now() end
        from (
            select min(position) as position from read_model.parked
            where generation = $1 and owner_id = $2 and task_id = $3
        ) as f
        where p.generation = $1 and p.owner_id = $2 and p.task_id = $3 and p.position is not null
            and (p.position = f.position or p.retry_at is not null)
        "#,
        generation,
        stream.0.0,
        stream.1.0,
        reason,
        goes_on,
    )
    .execute(&mut *transaction)
    .await?;
    let owner = sqlx::query!(
        r#"
        update read_model.owner as o
        set parked_position = (
            select min(p.position) from read_model.parked as p where p.generation = $1 and p.owner_id = $2
        )
        where o.generation = $1 and o.owner_id = $2
        returning o.revision, o.change_counter, o.parked_position
        "#,
        generation,
        stream.0.0,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    *fence = raised;
    info!(
        owner_id = %stream.0, task_id = %stream.1, applied = done.len(), failed_position = position,
        "parked events were tried again"
    );
    Ok(owner.map(|row| OwnerRow {
        owner_id: stream.0,
        revision: row.revision,
        change_counter: row.change_counter,
        parked_position: row.parked_position,
    }))
}

async fn keep_parked(
    connection: &mut PgConnection,
    generation: i32,
    stream: Stream,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        update read_model.parked
        set retry_at = null, reason = case when reason is null then null else $4 end
        where generation = $1 and owner_id = $2 and task_id = $3 and position is not null
        "#,
        generation,
        stream.0.0,
        stream.1.0,
        reason,
    )
    .execute(connection)
    .await?;
    Ok(())
}
