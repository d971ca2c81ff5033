use std::collections::HashMap;
use std::sync::Arc;

use backends::database::{DiskSpace, Pool};
use domain::{CommandId, OwnerId, TaskId};
use futures_util::future::BoxFuture;
use process::background::{Background, all_of};
use process::health::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::append::{AppendError, Appended, StreamAppend};
use crate::appender::{self, AppendQueue};
use crate::dedicated_connection::DedicatedConnection;
use crate::lineage::{Known, Lineage};
use crate::log_state::Seen;
use crate::lookup::{self, Looked, LookupQueue};
use crate::publication::Publication;
use crate::tail::TailReader;
use crate::unavailable::Unavailable;

/// How many appends of a shard, and how many lookups, wait at most; one more is [`Unavailable::Busy`].
pub const QUEUE_MAX: usize = 4_096;

/// The event store. Clones share the same queues.
#[derive(Clone)]
pub struct EventStore {
    pub(crate) pool: Pool,
    log_id: Uuid,
    appenders: Arc<HashMap<i16, AppendQueue>>,
    lookups: LookupQueue,
    disk_space: DiskSpace,
    seen: Seen,
    wake: watch::Receiver<u64>,
}

impl EventStore {
    /// Starts an appender for each shard, and the lookups. The tasks end when the last clone is dropped and what was
    /// queued is done; should one end before, the process is of no more use.
    ///
    /// # Errors
    /// The database does not answer or was not migrated.
    pub fn start(pool: Pool) -> BoxFuture<'static, Result<(Self, JoinSet<()>), sqlx::Error>> {
        Box::pin(async move {
            let reader = TailReader::new(pool.clone(), None);
            let log_id = reader.log_id().await?;
            let (wake_sender, wake) = watch::channel(0);
            let wake_sender = Arc::new(wake_sender);
            let mut tasks = JoinSet::new();
            let mut appenders = HashMap::new();
            let (disk_space, seen) = (DiskSpace::default(), Seen::of(log_id));
            for (shard, _) in reader.heads().await? {
                let (queue, units) = AppendQueue::new(QUEUE_MAX);
                tasks.spawn(appender::run(
                    shard,
                    pool.clone(),
                    units,
                    disk_space.clone(),
                    seen.clone(),
                    wake_sender.clone(),
                ));
                appenders.insert(shard, queue);
            }
            let (lookups, requests) = LookupQueue::new(QUEUE_MAX);
            // what it finds is seen too: it must not take the place of what is lost
            let connection = DedicatedConnection::new(&pool).with_seen(seen.clone());
            tasks.spawn(lookup::run(connection, requests, seen.clone()));
            Ok((Self { pool, log_id, appenders: Arc::new(appenders), lookups, disk_space, seen, wake }, tasks))
        })
    }

    /// The store of a server. Where the log is not where it was last written, it is settled first, by what others have seen as
    /// `known` tells. What belongs to it runs in `background`, and is shown in `/readyz`.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub async fn open<K: Future<Output = Known> + Send + 'static>(
        pool: Pool,
        known: impl Fn(Uuid) -> K + Send + Sync + 'static,
        background: &mut Background,
        health: &Health,
    ) -> Result<Self, sqlx::Error> {
        let lineage = Lineage::new(pool.clone());
        if let Err(error) = lineage.settle(&known).await {
            tracing::warn!(%error, "nothing is appended yet");
        }
        let (store, appenders) = Self::start(pool).await?;
        let (lineage, stop) = (lineage.with_seen(store.seen()), background.stop.clone());
        background.spawn("event store's appender", all_of(appenders, stop.clone()));
        background.spawn("watch over where the log is written", lineage.clone().keep(known, stop));
        health.register("lineage", move || std::future::ready(lineage.check()));
        let disk_space = store.disk_space();
        health.register("disk", move || std::future::ready(disk_space.check()));
        Ok(store)
    }

    /// Appends the events of one stream's commands and remembers the outcomes of those that have an id of their own.
    /// Returns when that is on disk.
    ///
    /// # Errors
    /// See [`AppendError`]. After [`Unavailable::NoAnswer`] the events may be there or not: the same append again
    /// (same event ids) tells, and does no harm.
    pub async fn append(&self, shard: i16, append: StreamAppend) -> Result<Appended, AppendError> {
        if self.disk_space.is_short() {
            return Err(Unavailable::DiskFull.into());
        }
        self.appenders.get(&shard).ok_or(Unavailable::NoAnswer)?.append(append).await
    }

    /// The events of a stream past `after_version`, and the outcomes of those of `command_ids` that are known. All of
    /// it was read after the call was made, the outcomes not before the events.
    ///
    /// # Errors
    /// The queue is full, or the database does not answer in time.
    pub async fn look_up(
        &self,
        owner_id: OwnerId,
        task_id: TaskId,
        after_version: i64,
        command_ids: Vec<CommandId>,
    ) -> Result<Looked, Unavailable> {
        self.lookups.look_up(owner_id, task_id, after_version, command_ids).await
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
    pub fn disk_space(&self) -> DiskSpace {
        self.disk_space.clone()
    }

    /// What was appended and looked up here, as [`crate::Lineage`] wants to know it. It keeps nothing running.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.clone()
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
