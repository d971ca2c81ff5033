//! The live projection: follows the log, out of the store ([`store`]) or out of Kafka ([`kafka`]), and applies what
//! comes. Either way a fence ([`crate::fence`]) decides which process writes.

/// What both feeds need, and which of them the read models belong to.
mod follower;

/// Out of the store, shard by shard.
mod store;

/// Out of Kafka, by partition.
mod kafka;

/// Applies batches of either, and finds the event that a failure is due to.
mod applier;

/// Applies what the log has past a checkpoint.
mod catch_up;

/// How much is read and applied at once.
mod limits;

/// Pauses before something is tried again.
mod pauses;

use backends::database::Pool;
use event_store::TailReader;
use futures_util::future::BoxFuture;
use messaging::Subscription;
use process::health::{Health, Lag};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::follower::{Feed, Follower};
use crate::batch::Applied;
use crate::connection::in_time;
use crate::divergence::{self, Diverged};
use crate::lag;

pub use self::kafka::{Foreign, Partitions, forget_offsets};

pub(crate) use self::catch_up::catch_up;
pub(crate) use self::limits::{READ_BYTES, events_within};

/// The projector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database does not answer, or was not migrated.
    #[error("the projector cannot start: {0}")]
    Database(#[from] sqlx::Error),
}

/// The live projection of this process, in the background.
#[derive(Debug)]
pub struct Projector {
    applied: watch::Receiver<u64>,
    lag: watch::Receiver<Lag>,
    partitions: watch::Receiver<Partitions>,
    foreign: watch::Receiver<Foreign>,
    diverged: watch::Receiver<Diverged>,
    task: JoinHandle<()>,
}

impl Projector {
    /// Starts to follow the log in the store. `read_pool` says how the read models are reached; the projector makes
    /// connections of its own, one for each shard.
    ///
    /// # Errors
    /// The database does not answer, or was not migrated.
    pub fn start(
        read_pool: Pool,
        tail: TailReader,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async move {
            let (follower, starting) = prepare(read_pool, tail, Feed::Store).await?;
            Ok(starting.run(follower.clone(), shutdown, move |stop, _, _| store::run(follower, stop)))
        })
    }

    /// Starts to follow the log in Kafka, sharing the topic's partitions with other copies. `owner_versions` is sent the
    /// versions of owners after each transaction; where it is full they are not waited for.
    ///
    /// # Errors
    /// A database does not answer, or was not migrated. (Brokers are not waited for.)
    pub async fn start_from_kafka(
        read_pool: Pool,
        tail: TailReader,
        subscription: Subscription,
        owner_versions: Option<mpsc::Sender<Applied>>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let (follower, starting) = prepare(read_pool, tail, Feed::Kafka).await?;
        Ok(starting.run(follower.clone(), shutdown, move |stop, partitions, foreign| {
            kafka::Kafka::new(follower, subscription, owner_versions, partitions, foreign, stop).run()
        }))
    }

    /// Changes after each batch that became visible: a hint, the tables decide.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// How far the live projection is behind the log; looked at every second.
    #[must_use]
    pub fn lag(&self) -> watch::Receiver<Lag> {
        self.lag.clone()
    }

    /// Which share of the topic's partitions this copy has, and what is wrong with them. (Fed from the store it has none.)
    #[must_use]
    pub fn partitions(&self) -> watch::Receiver<Partitions> {
        self.partitions.clone()
    }

    /// Messages of other logs that this copy has passed over in the topic.
    #[must_use]
    pub fn foreign(&self) -> watch::Receiver<Foreign> {
        self.foreign.clone()
    }

    /// Shards of which nothing is applied any more, since the log is not the one that was applied.
    #[must_use]
    pub fn diverged(&self) -> watch::Receiver<Diverged> {
        self.diverged.clone()
    }

    /// Shows in `/readyz` how far it is, and whether the log is the one that was applied.
    pub fn show_in(&self, health: &Health) {
        let (lag, diverged) = (self.lag(), self.diverged());
        health.register("log", move || std::future::ready(diverged.borrow().check()));
        health.lag(move || std::future::ready(*lag.borrow()));
    }

    /// Returns when the projector has stopped: after `shutdown`, what was under way is written. Before it, something
    /// is wrong, and the process should end.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            error!(%error, "the projector has died");
        }
    }
}

/// What a projector that is being started reports.
struct Starting {
    applied: watch::Receiver<u64>,
    lag: watch::Receiver<Lag>,
    lag_sender: watch::Sender<Lag>,
}

async fn prepare(pool: Pool, tail: TailReader, feed: Feed) -> Result<(Follower, Starting), StartError> {
    let log_id = tail.log_id().await?;
    let (applied_sender, applied) = watch::channel(0);
    let follower = Follower::new(pool, tail, log_id, feed, applied_sender);
    follower.take_over().await?;
    in_time(lag::advance_checkpoints(&follower.pool, &follower.tail)).await?;
    in_time(divergence::look(&follower.pool, &follower.tail, log_id, &follower.alarm)).await?;
    let seen = in_time(lag::measure(&follower.pool, &follower.tail)).await?;
    let (lag_sender, lag) = watch::channel(lag::total(&seen));
    // shown from the start: an alert sees only what a counter has gained since it was there
    metrics::counter!("projector_parked_total").increment(0);
    Ok((follower, Starting { applied, lag, lag_sender }))
}

impl Starting {
    /// Runs a feed, and measures the lag, until the feed is to stop or has ended.
    fn run<F: Future<Output = ()> + Send + 'static>(
        self,
        follower: Follower,
        shutdown: CancellationToken,
        feed: impl FnOnce(CancellationToken, watch::Sender<Partitions>, watch::Sender<Foreign>) -> F,
    ) -> Projector {
        let stop = shutdown.child_token();
        let (partitions_sender, partitions) = watch::channel(Partitions::default());
        let (foreign_sender, foreign) = watch::channel(Foreign::default());
        let mut tasks = JoinSet::new();
        let (tail, log_id, stopping) = (follower.tail.clone(), follower.log_id, stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = tail.replaced(log_id) => {}
                () = stopping.cancelled() => {}
            }
        });
        let diverged = follower.alarm.receiver();
        tasks.spawn(divergence::watch(
            follower.pool.clone(),
            follower.tail.clone(),
            log_id,
            follower.alarm,
            stop.clone(),
        ));
        tasks.spawn(lag::watch(follower.pool, follower.tail, self.lag_sender, stop.clone()));
        tasks.spawn(feed(stop.clone(), partitions_sender, foreign_sender));
        let task = tokio::spawn(async move {
            let _stop_all = stop.clone().drop_guard();
            while let Some(ended) = tasks.join_next().await {
                if !stop.is_cancelled() {
                    error!(?ended, "a part of the projector has ended");
                    stop.cancel();
                }
            }
        });
        Projector { applied: self.applied, lag: self.lag, partitions, foreign, diverged, task }
    }
}
