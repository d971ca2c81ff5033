//! The live projection: follows the log, out of the store ([`store`]) or out of Kafka ([`kafka`]), and applies what
//! comes. Either way the turn of what says how far the feed is read decides whose batch is written.

mod applier;
mod chain;
mod foreign;
mod kafka;
mod plan;
mod store;

use std::fmt::Display;
use std::time::Duration;

use backends::database::Pool;
use domain::StoredEvent;
use event_store::TailReader;
use messaging::KafkaSettings;
use process::health::Lag;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::batch::Applied;
use crate::lag;

pub use foreign::Foreign;
pub use kafka::{Partitions, forget_offsets};

pub(crate) use store::{catch_up, create_checkpoint};

/// The most events that one transaction applies.
pub(crate) const BATCH_EVENTS_MAX: i64 = 2_000;
/// About as many bytes of events are read at once, once it is known how long they are.
pub(crate) const READ_BYTES: usize = 4 << 20;
/// How often it is looked whether another generation is live, or a retry is asked for.
const STATUS_MS: u64 = 200;
/// The longest pause after a lost race.
const LOST_PAUSE_MS_MAX: u64 = 200;
/// The longest pause after an error of the database.
const ERROR_PAUSE_MS_MAX: u64 = 5_000;
/// A database that has not answered for so long is asked again by another connection; longer than its own time-out.
const ANSWER_MS_MAX: u64 = 20_000;

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
    task: JoinHandle<()>,
}

impl Projector {
    /// Starts to follow the log in the store. `read_pool` says how the read models are reached; the projector makes
    /// connections of its own, one for each shard.
    ///
    /// # Errors
    /// The database does not answer, or was not migrated.
    pub async fn start(read_pool: Pool, tail: TailReader, shutdown: CancellationToken) -> Result<Self, StartError> {
        let (follower, starting) = prepare(read_pool, tail, Feed::Store).await?;
        Ok(starting.run(follower.clone(), shutdown, move |stop, _, _| store::run(follower, stop)))
    }

    /// Starts to follow the log in Kafka, sharing the topic's partitions with other copies. `standings` is told where
    /// owners stand after each transaction; where it is full they are not waited for.
    ///
    /// # Errors
    /// A database does not answer, or was not migrated. (Brokers are not waited for.)
    pub async fn start_from_kafka(
        read_pool: Pool,
        tail: TailReader,
        settings: KafkaSettings,
        standings: Option<mpsc::Sender<Applied>>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let (follower, starting) = prepare(read_pool, tail, Feed::Kafka).await?;
        Ok(starting.run(follower.clone(), shutdown, move |stop, told, foreign| {
            kafka::Kafka::new(follower, settings, standings, told, foreign, stop).run()
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

    /// Returns when the projector has stopped: after `shutdown`, what was under way is written. Before it, something
    /// is wrong, and the process should end.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            error!(%error, "the projector has died");
        }
    }
}

/// What the live generation is fed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Store,
    Kafka,
}

impl Feed {
    /// As it is stored.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Kafka => "kafka",
        }
    }
}

/// What every part of the live projection needs.
#[derive(Clone)]
struct Follower {
    pool: Pool,
    tail: TailReader,
    log_id: Uuid,
    feed: Feed,
    applied: watch::Sender<u64>,
}

impl Follower {
    /// Binds the read models to the log, if they are of none yet, and takes them over from the other feed.
    async fn take_over(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let feed = sqlx::query_scalar!("select feed from read_model.projection for update")
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query!(
            "update read_model.projection set log_id = coalesce(log_id, $1), feed = $2",
            self.log_id,
            self.feed.as_str(),
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "update read_model.generation set log_id = $1 where log_id is null and state = 'live' and not exists (
                select from read_model.projection where log_id <> $1)",
            self.log_id,
        )
        .execute(&mut *transaction)
        .await?;
        if feed != self.feed.as_str() {
            warn!(from = feed, to = self.feed.as_str(), "the read models have another feed now");
            sqlx::query!(
                "update read_model.checkpoint set turn = turn + 1
                where generation = (select live_generation from read_model.projection)",
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!("update read_model.kafka_partition set turn = turn + 1").execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Whether the read models are (still) of this log and this feed.
    fn check(&self, log_id: Option<Uuid>, feed: &str) -> Result<(), sqlx::Error> {
        if log_id.is_some_and(|log_id| log_id != self.log_id) {
            return Err(sqlx::Error::Protocol(
                "the read models were made from another log: run `primetrade rebuild`".to_owned(),
            ));
        }
        if feed != self.feed.as_str() {
            return Err(sqlx::Error::Protocol(format!(
                "another process feeds these read models (from: {feed}); stop it and start this one again"
            )));
        }
        Ok(())
    }

    fn hint(&self) {
        self.applied.send_modify(|count| *count += 1);
    }
}

/// What a projector that is being started tells.
struct Starting {
    applied: watch::Receiver<u64>,
    lag: watch::Receiver<Lag>,
    lag_sender: watch::Sender<Lag>,
}

async fn prepare(pool: Pool, tail: TailReader, feed: Feed) -> Result<(Follower, Starting), StartError> {
    let log_id = tail.log_id().await?;
    let (applied_sender, applied) = watch::channel(0);
    let follower = Follower { pool, tail, log_id, feed, applied: applied_sender };
    follower.take_over().await?;
    let seen = in_time(lag::look(&follower.pool, &follower.tail)).await?;
    let (lag_sender, lag) = watch::channel(lag::total(&seen));
    Ok((follower, Starting { applied, lag, lag_sender }))
}

impl Starting {
    /// Runs a feed, and the look-out for lag, until the one is to stop or has ended.
    fn run<F: Future<Output = ()> + Send + 'static>(
        self,
        follower: Follower,
        shutdown: CancellationToken,
        feed: impl FnOnce(CancellationToken, watch::Sender<Partitions>, watch::Sender<Foreign>) -> F,
    ) -> Projector {
        let stop = shutdown.child_token();
        let (told, partitions) = watch::channel(Partitions::default());
        let (foreign_sender, foreign) = watch::channel(Foreign::default());
        let mut tasks = JoinSet::new();
        let (tail, log_id, stopping) = (follower.tail.clone(), follower.log_id, stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = tail.exchanged(log_id) => {}
                () = stopping.cancelled() => {}
            }
        });
        tasks.spawn(lag::watch(follower.pool, follower.tail, self.lag_sender, stop.clone()));
        tasks.spawn(feed(stop.clone(), told, foreign_sender));
        let task = tokio::spawn(async move {
            let _stop_all = stop.clone().drop_guard();
            while let Some(ended) = tasks.join_next().await {
                if !stop.is_cancelled() {
                    error!(?ended, "a part of the projector has ended");
                    stop.cancel();
                }
            }
        });
        Projector { applied: self.applied, lag: self.lag, partitions, foreign, task }
    }
}

/// The pause after an error, longer while there are more of them.
#[derive(Default)]
struct ErrorPause {
    errors: u32,
}

impl ErrorPause {
    /// After an error of what was `started` then.
    async fn after(&mut self, error: &(dyn Display + Sync), started: Instant, stop: &CancellationToken) {
        if started.elapsed() > Duration::from_millis(ERROR_PAUSE_MS_MAX) {
            self.errors = 0;
        }
        let pause = Duration::from_millis((50_u64 << self.errors.min(7)).min(ERROR_PAUSE_MS_MAX));
        self.errors = self.errors.saturating_add(1);
        warn!(%error, pause_ms = pause.as_millis(), "the projector cannot go on; trying again");
        metrics::counter!("projector_errors_total").increment(1);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The pause after a lost race, longer while there are more of them.
#[derive(Default)]
struct LostRaces {
    count: u32,
}

impl LostRaces {
    fn won(&mut self) {
        self.count = 0;
    }

    async fn pause(&mut self) {
        let pause_ms = (4_u64 << self.count.min(6)).min(LOST_PAUSE_MS_MAX);
        self.count = self.count.saturating_add(1);
        // Two processes that keep step must fall out of it.
        let jitter_ms = u64::from(Uuid::new_v4().as_bytes()[0]) * pause_ms / 512;
        sleep(Duration::from_millis(pause_ms / 2 + jitter_ms)).await;
    }
}

/// How many events like these make so many bytes.
pub(crate) fn events_within(bytes_max: usize, events: &[StoredEvent]) -> i64 {
    const EVENTS_MIN: usize = 50;
    // data, correlation id, trace and the like
    let bytes: usize = events.iter().map(|event| event.data.len() + 300).sum();
    let each = (bytes / events.len().max(1)).max(1);
    i64::try_from((bytes_max / each).max(EVENTS_MIN)).unwrap_or(i64::MAX)
}

/// An answer of a database that does not hang.
pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer);
    answer.await.unwrap_or_else(|_| Err(sqlx::Error::Protocol("the database does not answer".to_owned())))
}
