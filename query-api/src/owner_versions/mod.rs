//! Owner versions, looked up: the one lookup that makes cached answers right.
//!
//! Requests that wait at the same time share one query; its result is good for a few milliseconds. What this process has
//! shown of an owner it never takes back ([`memo`]).
//!
//! Where there is a Redis it is asked first, then the primary; else the replica, where there is one, then the primary.
//! The first source may say that there is enough for a token; only the primary may say that there is not, and
//! only the primary may say that another log or generation is live.

mod memo;
mod query;
mod queue;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::token::Sealer;
use metrics::{Counter, counter};
use process::clock;
use read_model::ReadModelId;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use self::memo::Memo;
use self::query::Found;
use self::queue::{Batch, Queue, Sender};
use crate::error::{ReadError, is_disconnect};
use crate::hint::hint_or_poll;
use crate::minimum_revision::MinimumRevision;
use crate::owner_version::{Owner, OwnerVersion, VersionRow};
use crate::redis_versions::RedisVersions;
use crate::sources::Sources;

pub(crate) use self::query::query;

/// How long a read waits for what its token names.
pub const TOKEN_WAIT_MS_MAX: u64 = 2_000;
/// How often it looks where no hint comes. All that wait look at the same moments, and so share one lookup.
const TOKEN_POLL_MS: u64 = 5;
/// How long one lookup may take.
const LOOKUP_MS_MAX: u64 = 2_000;
/// How often it is tried while the database is away.
const RECONNECT_EVERY_MS: u64 = 10;
/// How long a read waits for a replica to show what its token names, before it goes to the primary.
const REPLICA_WAIT_MS_MAX: u64 = 100;

/// Looks owner versions up. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OwnerVersions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Sources,
    redis: Option<RedisVersions>,
    applied: Option<watch::Receiver<u64>>,
    memo: Memo,
    /// By [`Source`].
    queues: [Queue; 3],
    /// What the primary said last.
    read_model: Mutex<Option<ReadModelId>>,
}

/// Where a version is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Redis,
    Replica,
    Primary,
}

impl OwnerVersions {
    pub fn new(sources: Sources, sealer: Sealer, applied: Option<watch::Receiver<u64>>) -> Self {
        let redis = sources.redis.clone().map(RedisVersions::new);
        Self(Arc::new(Inner {
            sources,
            memo: Memo::new(sealer, redis.is_some()),
            redis,
            applied,
            queues: Default::default(),
            read_model: Mutex::default(),
        }))
    }

    /// Which read models the primary named last.
    pub fn read_model(&self) -> Option<ReadModelId> {
        *self.0.read_model()
    }

    pub fn sealer(&self) -> &Sealer {
        self.0.memo.sealer()
    }

    /// A hint that something was applied, from now on; where there is none, polling has to do.
    pub fn applied(&self) -> Option<watch::Receiver<u64>> {
        self.0.applied.clone().map(|mut applied| {
            applied.mark_unchanged();
            applied
        })
    }

    /// The owner's version now, give or take a few milliseconds.
    pub async fn now(&self, owner: Owner) -> Result<Arc<OwnerVersion>, ReadError> {
        match self.recent(owner.id, None) {
            Some(version) => Ok(version),
            None => self.0.look_up(self.0.first(), owner).await,
        }
    }

    /// What was looked up a few milliseconds ago, if that shows what is asked for.
    pub fn recent(&self, owner: Uuid, minimum: Option<MinimumRevision>) -> Option<Arc<OwnerVersion>> {
        self.0.memo.recent(owner, minimum)
    }

    /// Looks the owner's version up, until that shows what is asked for.
    ///
    /// # Errors
    /// Not within [`TOKEN_WAIT_MS_MAX`], or never (parked, another log).
    pub async fn at_least(
        &self,
        owner: Owner,
        minimum: Option<MinimumRevision>,
    ) -> Result<Arc<OwnerVersion>, ReadError> {
        let began = Instant::now();
        let mut applied = self.applied();
        let mut source = self.0.first();
        loop {
            let version = self.0.look_up(source, owner).await;
            let met = match (&version, minimum) {
                (Ok(version), Some(minimum)) => minimum.is_met_by(&version.row),
                (Ok(_), None) => Ok(true),
                (Err(error), _) => Err(error.clone()),
            };
            if met == Ok(true) {
                return version;
            }
            match source {
                Source::Redis => {
                    // Most often it is not there yet, and then the primary need not say so too.
                    if met == Ok(false) {
                        hint_or_poll(&mut applied, until_next_look()).await;
                    }
                    source = Source::Primary;
                }
                Source::Replica
                    if met != Ok(false) || began.elapsed() >= Duration::from_millis(REPLICA_WAIT_MS_MAX) =>
                {
                    source = Source::Primary;
                }
                Source::Replica => hint_or_poll(&mut applied, until_next_look()).await,
                Source::Primary => {
                    met?;
                    if began.elapsed() >= Duration::from_millis(TOKEN_WAIT_MS_MAX) {
                        return Err(ReadError::NotYet);
                    }
                    hint_or_poll(&mut applied, until_next_look()).await;
                    source = if self.0.redis.is_some() { Source::Redis } else { Source::Primary };
                }
            }
        }
    }

    /// Asks a database, together with all that ask at the same time: the replica, where no Redis keeps everybody from
    /// asking the primary.
    pub async fn look_up(&self, owner: Owner) -> Result<Arc<OwnerVersion>, ReadError> {
        match self.0.first() {
            Source::Replica => self.0.look_up(Source::Replica, owner).await,
            Source::Redis | Source::Primary => self.look_up_at_primary(owner).await,
        }
    }

    /// Asks the primary, together with all that ask at the same time.
    pub async fn look_up_at_primary(&self, owner: Owner) -> Result<Arc<OwnerVersion>, ReadError> {
        self.0.look_up(Source::Primary, owner).await
    }

    /// Keeps what a statement saw that was not a lookup, so that no later read shows less. Returns what was seen, with
    /// its headers.
    pub fn seen(&self, owner: Owner, asked_at: Instant, row: VersionRow) -> Arc<OwnerVersion> {
        let newest = self.0.memo.remember(owner, asked_at, row);
        if newest.row == row { newest } else { Arc::new(OwnerVersion::new(row, owner, self.sealer())) }
    }
}

/// Until the next of the moments at which all look that wait for what a token names.
fn until_next_look() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let every = Duration::from_millis(TOKEN_POLL_MS);
    let since_last = FIRST.elapsed().as_nanos() % every.as_nanos();
    every.saturating_sub(Duration::from_nanos(u64::try_from(since_last).unwrap_or(0)))
}

impl Inner {
    /// Which source is asked first.
    fn first(&self) -> Source {
        match (&self.redis, &self.sources.replica) {
            (Some(_), _) => Source::Redis,
            (None, Some(replica)) if replica.is_there() => Source::Replica,
            (None, _) => Source::Primary,
        }
    }

    fn read_model(&self) -> MutexGuard<'_, Option<ReadModelId>> {
        self.read_model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(self: &Arc<Self>, source: Source, owner: Owner) -> Result<Arc<OwnerVersion>, ReadError> {
        let (sender, receiver) = oneshot::channel();
        self.wait(source, owner, vec![sender])?;
        receiver.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Puts requests into a source's queue, and sees to it that a task takes them.
    fn wait(self: &Arc<Self>, source: Source, owner: Owner, senders: Vec<Sender>) -> Result<(), ReadError> {
        if self.queues[source as usize].push(owner, senders)? {
            tokio::spawn(self.clone().ask(source));
        }
        Ok(())
    }

    /// Asks until nothing waits.
    async fn ask(self: Arc<Self>, source: Source) {
        while let Some(batch) = self.queues[source as usize].take() {
            match source {
                Source::Redis => self.ask_redis(batch).await,
                Source::Replica => self.ask_replica(batch).await,
                Source::Primary => self.ask_primary(batch).await,
            }
        }
    }

    async fn ask_redis(self: &Arc<Self>, mut batch: Batch) {
        let read_model = *self.read_model();
        if let (Some(redis), Some(read_model)) = (&self.redis, read_model) {
            let asked_at = Instant::now();
            let owners: Vec<Owner> = batch.iter().map(|(id, of)| Owner { id: *id, shard: of.shard }).collect();
            let mut found = redis.versions(&read_model, &owners).await;
            found.retain(|owner, row| self.memo.is_believable(*owner, row));
            count_redis(found.len(), owners.len());
            self.answer(&mut batch, found.into_iter().collect(), asked_at);
        }
        self.pass_on(batch);
    }

    async fn ask_replica(self: &Arc<Self>, mut batch: Batch) {
        let read_model = *self.read_model();
        if let (Some(replica), Some(read_model)) = (&self.sources.replica, read_model) {
            let asked_at = Instant::now();
            let owners: Vec<Uuid> = batch.keys().copied().collect();
            let found = replica.answer(async { Ok(query(replica.pool(), &owners).await?) }).await;
            // Of others where it is behind a switch of generations, or the primary was not asked since one.
            if let Some(found) = found.ok().filter(|found| found.read_model() == Some(read_model)) {
                self.answer(&mut batch, found.rows, asked_at);
            }
        }
        self.pass_on(batch);
    }

    async fn ask_primary(self: &Arc<Self>, mut batch: Batch) {
        let (asked_at, asked_at_time) = (Instant::now(), clock::now());
        let owners: Vec<Uuid> = batch.keys().copied().collect();
        let limit = Duration::from_millis(LOOKUP_MS_MAX);
        match tokio::time::timeout(limit, self.query_until_connected(&owners)).await {
            Ok(Ok(found)) => {
                let read_model = found.read_model();
                *self.read_model() = read_model;
                if let (Some(redis), Some(read_model)) = (&self.redis, read_model) {
                    redis.refill(&read_model, asked_at_time, &found.rows);
                }
                self.answer(&mut batch, found.rows, asked_at);
            }
            Ok(Err(error)) => tracing::error!(%error, "looking up owner versions"),
            Err(_) => tracing::error!(limit_ms = LOOKUP_MS_MAX, "looking up owner versions took too long"),
        }
        for sender in batch.into_values().flat_map(|requests| requests.senders) {
            let _ = sender.send(Err(ReadError::Unavailable));
        }
    }

    /// Has the primary asked for those who have no answer yet.
    fn pass_on(self: &Arc<Self>, batch: Batch) {
        for (id, requests) in batch {
            // Where too many wait they are told so.
            let _ = self.wait(Source::Primary, Owner { id, shard: requests.shard }, requests.senders);
        }
    }

    /// Answers the requests of those who were found.
    fn answer(&self, batch: &mut Batch, found: Vec<(Uuid, VersionRow)>, asked_at: Instant) {
        for (id, row) in found {
            let Some(requests) = batch.remove(&id) else { continue };
            let version = self.memo.remember(Owner { id, shard: requests.shard }, asked_at, row);
            for sender in requests.senders {
                // A request that is gone needs no answer.
                let _ = sender.send(Ok(version.clone()));
            }
        }
    }

    async fn query_until_connected(&self, owners: &[Uuid]) -> Result<Found, sqlx::Error> {
        loop {
            match query(&self.sources.primary, owners).await {
                Err(error) if is_disconnect(&error) => {
                    tracing::warn!(%error, "looking up owner versions");
                    tokio::time::sleep(Duration::from_millis(RECONNECT_EVERY_MS)).await;
                }
                found => return found,
            }
        }
    }
}

/// Versions that Redis had, of those that it was asked for.
fn count_redis(hits: usize, asked: usize) {
    static HITS: LazyLock<Counter> =
        LazyLock::new(|| counter!("cache_hits_total", "layer" => "redis", "kind" => "owner_version"));
    static MISSES: LazyLock<Counter> =
        LazyLock::new(|| counter!("cache_misses_total", "layer" => "redis", "kind" => "owner_version"));
    HITS.increment(hits as u64);
    MISSES.increment(asked.saturating_sub(hits) as u64);
}
