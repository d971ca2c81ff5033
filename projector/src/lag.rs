//! How far the live projection is behind the log.
//!
//! Fed from Kafka, partitions of one shard are read each at its own pace. What the relay keeps (up to where the log is
//! published, and the last position of it in each partition) tells up to where *everything* is applied: up to the
//! cursor, if each partition has the last one that was put there; else up to the least that a partition which has not
//! has. That position is kept in the checkpoint, which the transactions of this feed do not touch. So the lag in events is
//! "at most so many", the relay's included: partitions that are ahead count as if they were not.

use std::collections::BTreeMap;
use std::time::Duration;

use backends::database::Pool;
use event_store::{Published, TailReader};
use process::health::Lag;
use process::periodic::Periodic;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::in_time;

const MEASURE_MS: u64 = 1_000;

/// How far one shard of the live generation is.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardLag {
    /// Which shard.
    pub shard: i16,
    /// The generation that queries read.
    pub generation: i32,
    /// The last event applied.
    pub position: i64,
    /// How far that is behind.
    pub lag: Lag,
}

/// Measures how far every shard is behind, by the checkpoints as they are ([`advance_checkpoints`]).
///
/// # Errors
/// The database does not answer.
pub async fn measure(pool: &Pool, tail: &TailReader) -> Result<Vec<ShardLag>, sqlx::Error> {
    // Checkpoints first: the heads are then at or past them.
    let live = sqlx::query_scalar!("select live_generation from read_model.projection").fetch_one(pool).await?;
    let checkpoints = sqlx::query!("select shard, position from read_model.checkpoint where generation = $1", live)
        .fetch_all(pool)
        .await?;
    let mut shards = Vec::new();
    for (shard, head) in tail.heads().await? {
        let position = checkpoints.iter().find(|row| row.shard == shard).map_or(0, |row| row.position);
        let lag = behind(tail, shard, position, head).await?;
        shards.push(ShardLag { shard, generation: live, position, lag });
    }
    Ok(shards)
}

/// How far the relay has published one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardRelay {
    /// What is on the brokers.
    pub published: Published,
    /// How far that is behind the log.
    pub lag: Lag,
}

/// Measures how far every shard that is published is behind the log, by the relay's cursors.
///
/// # Errors
/// The database does not answer.
pub async fn measure_relay(tail: &TailReader) -> Result<Vec<ShardRelay>, sqlx::Error> {
    // Cursors first: the heads are then at or past them.
    let cursors = tail.published().await?;
    let heads = tail.heads().await?;
    let mut shards = Vec::new();
    for published in cursors {
        let head =
            heads.iter().find(|(shard, _)| *shard == published.shard).map_or(published.cursor, |(_, head)| *head);
        let lag = behind(tail, published.shard, published.cursor, head).await?;
        shards.push(ShardRelay { published, lag });
    }
    Ok(shards)
}

/// How far a position of a shard is behind its head. One that is ahead of the log is no lag, but an alarm (see `divergence`).
async fn behind(tail: &TailReader, shard: i16, position: i64, head: i64) -> Result<Lag, sqlx::Error> {
    let events = (head - position).max(0);
    let mut seconds = 0.0;
    if events > 0
        && let Some(first) = tail.read_after(shard, position, 1).await?.first()
    {
        let age = process::clock::now() - first.recorded_at;
        seconds = age.as_seconds_f64().max(0.0);
    }
    Ok(Lag { events, seconds })
}

/// Moves the checkpoints of a live generation that is fed from Kafka to where it has everything.
///
/// # Errors
/// The database does not answer.
pub async fn advance_checkpoints(pool: &Pool, tail: &TailReader) -> Result<(), sqlx::Error> {
    let is_fed_from_kafka = sqlx::query_scalar!("select feed = 'kafka' from read_model.projection").fetch_one(pool);
    if is_fed_from_kafka.await? != Some(true) {
        return Ok(());
    }
    let log_id = tail.log_id().await?;
    // What is published first: what is applied can then only be more.
    for published in tail.published().await? {
        let applied = sqlx::query!(
            r#"
            select p.live_generation, coalesce(c.position, 0) as "checkpoint!",
                array(
                    select k.partition from read_model.kafka_position as k
                    where k.topic = $2 and k.shard = $1
                    order by k.partition
                ) as "partitions!: Vec<i32>",
                array(
                    select k.position from read_model.kafka_position as k
                    where k.topic = $2 and k.shard = $1
                    order by k.partition
                ) as "positions!: Vec<i64>"
            from read_model.projection as p
            left join read_model.checkpoint as c on c.generation = p.live_generation and c.shard = $1
            where p.feed = 'kafka' and p.log_id = $3
            "#,
            published.shard,
            published.topic,
            log_id,
        )
        .fetch_optional(pool)
        .await?;
        let Some(applied) = applied else { return Ok(()) };
        let positions: BTreeMap<i32, i64> = applied.partitions.into_iter().zip(applied.positions).collect();
        let at = |partition: &i32| positions.get(partition).copied().unwrap_or(0).max(applied.checkpoint);
        let behind = published.last_positions.iter().filter(|(partition, last)| at(partition) < *last);
        let complete = behind.map(|(partition, _)| at(partition)).fold(published.cursor, i64::min);
        if complete > applied.checkpoint {
            sqlx::query!(
                "insert into read_model.checkpoint as c (generation, shard, position) values ($1, $2, $3)
                on conflict (generation, shard) do update set position = greatest(c.position, excluded.position)",
                applied.live_generation,
                published.shard,
                complete,
            )
            .execute(pool)
            .await?;
        }
    }
    Ok(())
}

async fn advance_and_measure(pool: &Pool, tail: &TailReader) -> Result<Vec<ShardLag>, sqlx::Error> {
    advance_checkpoints(pool, tail).await?;
    measure(pool, tail).await
}

/// All shards together: the events of all, the time of the slowest.
#[must_use]
pub fn total(shards: &[ShardLag]) -> Lag {
    shards.iter().fold(Lag::default(), |sum, shard| Lag {
        events: sum.events + shard.lag.events,
        seconds: sum.seconds.max(shard.lag.seconds),
    })
}

/// A lag that was seen so long ago, and has got no shorter since as far as anybody knows.
fn aged(seen: Lag, ago: Duration) -> Lag {
    if seen.events == 0 || ago < Duration::from_millis(MEASURE_MS) {
        return seen;
    }
    Lag { seconds: seen.seconds + ago.as_secs_f64(), ..seen }
}

/// Moves the checkpoints and measures, every second. While that fails, what was measured last grows older.
pub(crate) async fn watch(pool: Pool, tail: TailReader, lag: watch::Sender<Lag>, stop: CancellationToken) {
    let mut measuring = Periodic::every(Duration::from_millis(MEASURE_MS), "reading the lag of the projection", stop);
    let (mut seen, mut seen_at) = (*lag.borrow(), Instant::now());
    while measuring.due().await {
        if let Some(shards) = measuring.seen(in_time(advance_and_measure(&pool, &tail)).await) {
            (seen, seen_at) = (total(&shards), Instant::now());
        }
        let now = aged(seen, seen_at.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("projector_lag_events").set(now.events as f64);
        metrics::gauge!("projector_lag_seconds").set(now.seconds);
        lag.send_replace(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_cannot_be_seen_grows_older_and_is_never_unknown() {
        let behind = Lag { events: 7, seconds: 1.5 };
        for (seen, ago_ms, expected) in [
            (Lag::default(), 60_000, Lag::default()),
            (behind, 10, behind),
            (behind, 60_000, Lag { events: 7, seconds: 61.5 }),
        ] {
            assert_eq!(aged(seen, Duration::from_millis(ago_ms)), expected, "{seen:?} {ago_ms} ms ago");
        }
    }
}
