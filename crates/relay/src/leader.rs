use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_store::Publication;
use event_store::lease::Lease;
use kafka::producer::Producer;
use kafka::{KafkaError, KafkaSettings};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::lag::{self, RelayLag};
use crate::term::{LEASE_MS, Work};
use crate::trouble::Trouble;

/// How often who has no lease asks for it.
const FOLLOW_MS: u64 = 200;
/// The first pause after trouble, and the longest one.
const PAUSE_MS: u64 = 50;
const PAUSE_MS_MAX: u64 = 2_000;
/// In so long another copy has asked for the lease.
const TURN_MS: u64 = 2 * FOLLOW_MS;

/// The relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that Kafka's client refuses.
    #[error("the settings for Kafka cannot be used: {0}")]
    Settings(KafkaError),
}

/// The relay of this process, in the background.
#[derive(Debug)]
pub struct Relay {
    lag: watch::Receiver<RelayLag>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts it. Neither the database nor Kafka need be there: it waits for both.
    ///
    /// # Errors
    /// Settings that can never work.
    pub async fn start(
        publication: Publication,
        settings: KafkaSettings,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        // Tells now what every attempt would tell.
        end_producer(Producer::new(&settings).map_err(StartError::Settings)?).await;
        let (status, lag) = watch::channel(RelayLag::default());
        let lag_task = lag::watch(publication.clone(), status.clone(), stop.clone());
        let runner =
            Runner { publication, settings, holder: Uuid::new_v4(), status, stop, published: AtomicU64::new(0) };
        let task = tokio::spawn(async move {
            tokio::join!(runner.run(), lag_task);
        });
        Ok(Self { lag, task })
    }

    /// How far it is behind; looked at every second.
    #[must_use]
    pub fn lag(&self) -> watch::Receiver<RelayLag> {
        self.lag.clone()
    }

    /// Returns when it has stopped: after `stop`, within seconds, the cursor is where the brokers are. Before it,
    /// something is wrong, and the process should end.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            error!(%error, "the relay has died");
        }
    }
}

/// What an attempt to lead came to, without trouble.
enum Ended {
    /// Somebody else leads.
    Following,
    /// It was to stop.
    Stopped,
}

struct Runner {
    publication: Publication,
    settings: KafkaSettings,
    holder: Uuid,
    status: watch::Sender<RelayLag>,
    stop: CancellationToken,
    /// Messages acknowledged.
    published: AtomicU64,
}

impl Runner {
    async fn run(self) {
        let mut lease = self.publication.lease(self.holder);
        let mut troubles: u32 = 0;
        while !self.stop.is_cancelled() {
            let published = self.published.load(Ordering::Relaxed);
            let began = Instant::now();
            let ended = self.lead(&mut lease).await;
            if self.published.load(Ordering::Relaxed) > published {
                troubles = 0;
            }
            let pause_ms = match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Following) => {
                    lag::report(&self.status, false, None);
                    FOLLOW_MS
                }
                Err(trouble) => {
                    let pause_ms = pause_ms(troubles, began.elapsed());
                    troubles = troubles.saturating_add(1);
                    warn!(%trouble, pause_ms, "the relay cannot publish; it goes on at the stored cursor");
                    metrics::counter!("relay_troubles_total").increment(1);
                    lag::report(&self.status, false, Some(trouble.to_string()));
                    pause_ms
                }
            };
            tokio::select! {
                () = sleep(Duration::from_millis(pause_ms)) => {}
                () = self.stop.cancelled() => {}
            }
        }
        lag::report(&self.status, false, None);
    }

    /// One term: takes the lease, publishes until something ends it, drops what is on its way, returns the lease.
    async fn lead(&self, lease: &mut Lease) -> Result<Ended, Trouble> {
        let asked = Instant::now();
        let length = Duration::from_millis(LEASE_MS);
        let KafkaSettings { topic, partitions, .. } = &self.settings;
        let Some(taken) = lease.acquire(length, topic, *partitions).await? else { return Ok(Ended::Following) };
        info!(epoch = taken.epoch, publication = taken.publication, "leads the relay");
        let epoch = taken.epoch;
        let ended = match Producer::new(&self.settings) {
            Ok(producer) => {
                let work = Work {
                    publication: &self.publication,
                    settings: &self.settings,
                    status: &self.status,
                    stop: &self.stop,
                    published: &self.published,
                    producer: &producer,
                    term: taken,
                    expires: asked + length,
                };
                let ended = work.run(lease).await;
                end_producer(producer).await;
                ended
            }
            Err(error) => Err(error.into()),
        };
        // Only now: nothing of this term is sent any more.
        if let Err(error) = lease.release(epoch).await {
            warn!(%error, "the lease of the relay was not returned; it expires by itself");
        }
        ended.map(|()| Ended::Stopped)
    }
}

/// How long to wait after an attempt that ended in trouble, `troubles` others having done so before it. Attempts begin at
/// increasing intervals. One that has itself waited for Kafka for so long waits no more than it takes another copy to have
/// its turn: Kafka may be back by now.
fn pause_ms(troubles: u32, lasted: Duration) -> u64 {
    let interval_ms = (PAUSE_MS << troubles.min(6)).min(PAUSE_MS_MAX);
    let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    interval_ms.saturating_sub(lasted_ms).max(TURN_MS.min(interval_ms))
}

/// Ends a producer; it takes a moment, on a thread that may wait.
async fn end_producer(producer: Producer) {
    let ending = tokio::task::spawn_blocking(move || {
        producer.purge();
        drop(producer);
    });
    if let Err(error) = ending.await {
        error!(%error, "the producer could not be ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_begin_at_increasing_intervals_and_leave_others_their_turn() {
        for (troubles, lasted_ms, pause) in [
            (0, 0, 50),
            (0, 10_000, 50),
            (3, 0, 400),
            (3, 399, 400),
            (5, 0, 1_600),
            (5, 1_000, 600),
            (5, 1_500, TURN_MS),
            (9, 0, PAUSE_MS_MAX),
            (9, 5_000, TURN_MS),
            (u32::MAX, u64::MAX, TURN_MS),
        ] {
            assert_eq!(pause_ms(troubles, Duration::from_millis(lasted_ms)), pause, "{troubles} after {lasted_ms} ms");
        }
    }
}
