//! The log of events: the only code that writes it.

/// Group commit: the commands that wait while one batch commits become the next batch.
pub mod append;

/// Streams and outcomes of commands, looked up for many commands in one round trip.
pub mod lookup;

/// The log in order, for who follows it or reads it from the beginning.
pub mod tail;

/// How far the log is published, under a lease.
pub mod publication;

/// Whole answers of batches that were sent under an Idempotency-Key.
pub mod batch_answer;

/// Whether the disk has room for more events.
pub mod room;

mod connection;

use std::collections::HashMap;
use std::sync::Arc;

use backends::database::Pool;
use sqlx::migrate::{MigrateError, Migrator};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

pub use append::{AppendError, Appended, CommandOrigin, DecidedCommand, NewEvent, StreamAppend};
pub use batch_answer::BatchAnswer;
pub use connection::is_about_values;
pub use lookup::{Looked, Outcome};
pub use publication::Publication;
pub use room::Room;
pub use tail::{Published, TailReader};

/// How many appends of a shard, and how many lookups, wait at most; one more is [`Unavailable::Busy`].
pub const QUEUE_MAX: usize = 4_096;

/// The database does not answer, or the queue is full. Whether a command that was under way took effect is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// More commands wait than the queue holds; nothing was done.
    #[error("the queue of the event store is full")]
    Busy,
    /// The disk has no room for more; nothing was done.
    #[error("the event store's disk is full")]
    DiskFull,
    /// No answer from the database within the time that a command waits.
    #[error("the event store does not answer")]
    NoAnswer,
}

/// Creates or upgrades the schema `event_store`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    migrator().run(&mut *pool.acquire().await?).await
}

/// The migrations of the schema `event_store` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/event-store");
    migrator.create_schema("event_store");
    migrator.dangerous_set_table_name("event_store._migrations");
    migrator
}

/// The event store. Clones share the same queues.
#[derive(Clone)]
pub struct EventStore {
    pool: Pool,
    log_id: Uuid,
    appenders: Arc<HashMap<i16, mpsc::Sender<append::Unit>>>,
    lookups: mpsc::Sender<lookup::Request>,
    room: Room,
    wake: watch::Receiver<u64>,
}

impl EventStore {
    /// Starts an appender for each shard, and the lookups. The tasks end when the last clone is dropped and what was
    /// queued is done; should one end before, the process is of no more use.
    ///
    /// # Errors
    /// The database does not answer or was not migrated.
    pub async fn start(pool: Pool) -> Result<(Self, JoinSet<()>), sqlx::Error> {
        let reader = TailReader::new(pool.clone(), None);
        let log_id = reader.log_id().await?;
        let (wake_sender, wake) = watch::channel(0);
        let wake_sender = Arc::new(wake_sender);
        let mut tasks = JoinSet::new();
        let mut appenders = HashMap::new();
        let room = Room::default();
        for (shard, _) in reader.heads().await? {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            tasks.spawn(append::run(shard, append::lane(&pool), receiver, room.clone(), wake_sender.clone()));
            appenders.insert(shard, sender);
        }
        let (lookups, receiver) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(lookup::run(connection::Lane::new(&pool), receiver));
        Ok((Self { pool, log_id, appenders: Arc::new(appenders), lookups, room, wake }, tasks))
    }

    /// Identity of this log.
    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// The shards of this log.
    #[must_use]
    pub fn shards(&self) -> Vec<i16> {
        let mut shards: Vec<i16> = self.appenders.keys().copied().collect();
        shards.sort_unstable();
        shards
    }

    /// Whether there is room for more events.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Reads the log in order; woken by the appends of this process.
    #[must_use]
    pub fn tail(&self) -> TailReader {
        TailReader::new(self.pool.clone(), Some(self.wake.clone()))
    }

    /// How far the log is published; its tail is woken by the appends of this process.
    #[must_use]
    pub fn publication(&self) -> Publication {
        Publication::with_tail(self.pool.clone(), self.tail())
    }
}
