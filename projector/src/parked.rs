//! Events that could not be applied, and those of the same stream that wait behind them, in order.

use domain::{OwnerId, StoredEvent, TaskId};
use event_store::TailReader;
use sqlx::{Connection, PgConnection};
use tracing::{info, warn};

use crate::apply::{self, Batch, Stream, Written};
use crate::feed::is_due_to_content;

/// The most events of a stream that one transaction tries again.
const RETRY_EVENTS_MAX: i64 = 500;
/// The most streams that are tried again before new events are looked at.
const RETRY_STREAMS_MAX: i64 = 50;
const REASON_CHARACTERS_MAX: usize = 500;

/// What is said of an error of the database.
pub(crate) fn reason(error: &sqlx::Error) -> String {
    let text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX).collect()
}

/// Tries again what an administrator asked for: each stream from its first parked event, in order.
pub(crate) async fn retry(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    shard: i16,
) -> Result<(), sqlx::Error> {
    let streams = sqlx::query!(
        r#"
        select distinct owner_id as "owner_id!", task_id as "task_id!"
        from read_model.parked
        where generation = $1 and shard = $2 and retry_at is not null
        limit $3
        "#,
        generation,
        shard,
        RETRY_STREAMS_MAX,
    )
    .fetch_all(&mut *connection)
    .await?;
    for stream in streams {
        let stream = (OwnerId(stream.owner_id), TaskId(stream.task_id));
        let mut events_max = RETRY_EVENTS_MAX;
        loop {
            match retry_stream(connection, tail, generation, shard, stream, events_max).await {
                Ok(Retried::All | Retried::UpToAFailure) => break,
                Ok(Retried::Some) => {}
                Err(error) if is_due_to_content(&error) && events_max > 1 => events_max = 1,
                Err(error) if is_due_to_content(&error) => {
                    warn!(owner_id = %stream.0, task_id = %stream.1, %error, "a parked event still cannot be written");
                    keep_parked(connection, generation, stream, &reason(&error)).await?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

enum Retried {
    /// Nothing of the stream is parked any more.
    All,
    /// More of the stream is parked.
    Some,
    /// The first that is still parked failed again.
    UpToAFailure,
}

async fn retry_stream(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    shard: i16,
    stream: Stream,
    events_max: i64,
) -> Result<Retried, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    // Nobody else applies or retries from here on.
    sqlx::query!(
        "select position from read_model.checkpoint where generation = $1 and shard = $2 for update",
        generation,
        shard,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let rows = sqlx::query!(
        r#"
        select position, event
        from read_model.parked
        where generation = $1 and owner_id = $2 and task_id = $3
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
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        events.push(read_again(tail, shard, row.position, &row.event).await?);
    }
    let Some(loaded) = apply::load(&mut transaction, generation, shard, &events).await? else {
        return Ok(Retried::All);
    };
    let mut batch = Batch::new(loaded);
    let mut done = Vec::with_capacity(events.len());
    let mut failure = None;
    for event in events {
        let position = event.position;
        match batch.fold_parked(event) {
            Ok(()) => done.push(position),
            Err(failed) => {
                failure = Some((position, failed.1.to_string()));
                break;
            }
        }
    }
    if !done.is_empty() && apply::write(&mut transaction, batch).await? == Written::LostRace {
        return Err(sqlx::Error::Protocol("the checkpoint moved while it was locked".to_owned()));
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
    let left = sqlx::query!(
        r#"
        update read_model.parked as p
        set reason = case when p.position = f.position then $4 end,
            retry_at = case when p.position = f.position and $5 then now() end
        from (
            select min(position) as position from read_model.parked
            where generation = $1 and owner_id = $2 and task_id = $3
        ) as f
        where p.generation = $1 and p.owner_id = $2 and p.task_id = $3 and (p.position = f.position or p.retry_at is not null)
        "#,
        generation,
        stream.0.0,
        stream.1.0,
        reason,
        goes_on,
    )
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    sqlx::query!(
        r#"
        update read_model.owner as o
        set parked_position = (
            select min(p.position) from read_model.parked as p where p.generation = $1 and p.owner_id = $2
        )
        where o.generation = $1 and o.owner_id = $2
        "#,
        generation,
        stream.0.0,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    info!(
        owner_id = %stream.0, task_id = %stream.1, applied = done.len(), failed_position = position,
        "parked events were tried again"
    );
    Ok(match (left, goes_on) {
        (0, _) => Retried::All,
        (_, true) => Retried::Some,
        (_, false) => Retried::UpToAFailure,
    })
}

/// The event as it stands in the log now (it may have been mended), else as it was when it was parked.
async fn read_again(tail: &TailReader, shard: i16, position: i64, as_parked: &str) -> Result<StoredEvent, sqlx::Error> {
    let found = tail.read_after(shard, position - 1, 1).await?;
    if let Some(event) = found.into_iter().find(|event| event.position == position) {
        return Ok(event);
    }
    serde_json::from_str(as_parked).map_err(|error| sqlx::Error::Decode(error.into()))
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
        where generation = $1 and owner_id = $2 and task_id = $3
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
