//! How far the live projection is behind the log.

use std::time::Duration;

use event_store::TailReader;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const LOOK_MS: u64 = 1_000;

/// How far the live projection is behind the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lag {
    /// Events in the log that are not applied yet, over all shards.
    pub events: i64,
    /// How long ago the first of them was stored, in seconds.
    pub seconds: f64,
}

/// Where one shard of the live generation stands.
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

/// Looks at every shard.
///
/// # Errors
/// The database does not answer.
pub async fn look(pool: &PgPool, tail: &TailReader) -> Result<Vec<ShardLag>, sqlx::Error> {
    // Checkpoints first: the heads are then at or past them.
    let live = sqlx::query_scalar!("select live_generation from read_model.projection").fetch_one(pool).await?;
    let checkpoints = sqlx::query!("select shard, position from read_model.checkpoint where generation = $1", live)
        .fetch_all(pool)
        .await?;
    let mut shards = Vec::new();
    for (shard, head) in tail.heads().await? {
        let position = checkpoints.iter().find(|row| row.shard == shard).map_or(0, |row| row.position);
        if position > head {
            warn!(
                shard,
                position,
                head,
                "the read models are ahead of the log: was it restored? `primetrade rebuild` makes them anew"
            );
        }
        let events = (head - position).max(0);
        let mut seconds = 0.0;
        if events > 0
            && let Some(first) = tail.read_after(shard, position, 1).await?.first()
        {
            let age = service_kit::clock::now() - first.recorded_at;
            seconds = age.as_seconds_f64().max(0.0);
        }
        shards.push(ShardLag { shard, generation: live, position, lag: Lag { events, seconds } });
    }
    Ok(shards)
}

/// All shards together: the events of all, the time of the slowest.
#[must_use]
pub fn total(shards: &[ShardLag]) -> Lag {
    shards.iter().fold(Lag::default(), |sum, shard| Lag {
        events: sum.events + shard.lag.events,
        seconds: sum.seconds.max(shard.lag.seconds),
    })
}

pub(crate) async fn watch(pool: PgPool, tail: TailReader, lag: watch::Sender<Lag>, stop: CancellationToken) {
    let mut failing = false;
    while !stop.is_cancelled() {
        match look(&pool, &tail).await {
            Ok(shards) => {
                failing = false;
                let now = total(&shards);
                #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                metrics::gauge!("projector_lag_events").set(now.events as f64);
                metrics::gauge!("projector_lag_seconds").set(now.seconds);
                lag.send_replace(now);
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "the lag of the projection cannot be read");
                }
                failing = true;
            }
        }
        tokio::select! {
            () = sleep(Duration::from_millis(LOOK_MS)) => {}
            () = stop.cancelled() => {}
        }
    }
}
