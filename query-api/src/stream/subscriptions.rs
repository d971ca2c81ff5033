//! The subscriptions of this process by account, and the poller that tells them how far there is to read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Mutex as AsyncMutex, watch};
use uuid::Uuid;

use super::events::{Folds, Page};
use super::jobs::{self, JobMessages};
use crate::error::ReadError;
use crate::hint::hint_or_poll;
use crate::owner_version::{Owner, VersionRow};
use crate::owner_versions::OwnerVersions;
use crate::reads::{ReadSource, Reads};

/// Streams of one account at once.
pub const STREAMS_EACH_MAX: usize = 10;
/// How often to look for events where no hint comes.
const POLL_MS: u64 = 100;
/// How often to look for jobs that have changed.
const JOBS_POLL_MS: u64 = 1_000;
/// Between two looks, however many hints come.
const POLL_PAUSE_MS_MIN: u64 = 5;
/// The poller rests for this many times as long as a look took, up to [`POLL_MS`].
const REST_FACTOR: u32 = 9;

/// The accounts that have streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Subscriptions(Arc<Inner>);

struct Inner {
    reads: Reads,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    /// Each with the number of its streams.
    by_id: HashMap<Uuid, (Arc<AccountEvents>, usize)>,
    polling: bool,
}

/// What the streams of one account share.
pub(super) struct AccountEvents {
    owner: Owner,
    until: watch::Sender<Until>,
    /// The page read last: streams that are level read it once.
    last: AsyncMutex<(Arc<Page>, Folds)>,
    jobs: Mutex<JobMessages>,
}

/// How far there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Until {
    log_id: Option<Uuid>,
    position: i64,
    /// How many messages about jobs there were.
    jobs: u64,
    /// The log was replaced: positions mean something else now.
    over: bool,
}

/// What a stream of an account holds; it ends when dropped.
pub(super) struct Subscription {
    pub events: Arc<AccountEvents>,
    until: watch::Receiver<Until>,
    accounts: Weak<Inner>,
}

impl Subscriptions {
    pub fn new(reads: Reads) -> Self {
        Self(Arc::new(Inner { reads, accounts: Mutex::default() }))
    }

    /// For one more stream of the account.
    pub(super) fn subscribe(&self, owner: Owner) -> Result<Subscription, ReadError> {
        let mut accounts = self.0.accounts();
        let events = match accounts.by_id.entry(owner.id) {
            Entry::Occupied(mut taken) => {
                let (events, streams) = taken.get_mut();
                if *streams >= STREAMS_EACH_MAX {
                    return Err(ReadError::TooManyStreams);
                }
                *streams += 1;
                events.clone()
            }
            Entry::Vacant(vacant) => vacant.insert((Arc::new(AccountEvents::new(owner)), 1)).0.clone(),
        };
        if !std::mem::replace(&mut accounts.polling, true) {
            tokio::spawn(poll(self.0.clone()));
        }
        drop(accounts);
        metrics::gauge!("streams_open").increment(1.0);
        Ok(Subscription { until: events.until.subscribe(), events, accounts: Arc::downgrade(&self.0) })
    }
}

impl Inner {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// How far there is to read.
    pub fn until(&mut self) -> i64 {
        self.until.borrow_and_update().position
    }

    /// How many messages about jobs there were.
    pub fn jobs(&self) -> u64 {
        self.until.borrow().jobs
    }

    /// Waits until that has changed; false: it never will.
    pub async fn moved(&mut self) -> bool {
        self.until.changed().await.is_ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        metrics::gauge!("streams_open").decrement(1.0);
        let Some(inner) = self.accounts.upgrade() else { return };
        let mut accounts = inner.accounts();
        if let Entry::Occupied(mut taken) = accounts.by_id.entry(self.events.owner.id) {
            taken.get_mut().1 -= 1;
            if taken.get().1 == 0 {
                taken.remove();
            }
        }
    }
}

impl AccountEvents {
    fn new(owner: Owner) -> Self {
        let until = Until { log_id: None, position: 0, jobs: 0, over: false };
        Self { owner, until: watch::Sender::new(until), last: AsyncMutex::default(), jobs: Mutex::default() }
    }

    /// Tells the streams how far there is to read.
    pub fn advance(&self, row: &VersionRow) {
        self.until.send_if_modified(|until| {
            let before = *until;
            until.over |= until.log_id.is_some_and(|log_id| row.log_id.is_some_and(|now| now != log_id));
            until.log_id = until.log_id.or(row.log_id);
            // A crashed database that folds again, or a mended event, is no reason to go back.
            until.position = until.position.max(row.complete_until());
            *until != before
        });
    }

    /// The messages about jobs.
    fn job_messages(&self) -> MutexGuard<'_, JobMessages> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages about jobs after this number, and the number of the last one.
    pub fn jobs_after(&self, number: u64) -> (Bytes, u64) {
        self.job_messages().after(number)
    }

    /// Whether positions mean something else now.
    pub fn is_over(&self) -> bool {
        self.until.borrow().over
    }

    /// The events after a position. Streams that ask for the same at the same time wait for one statement.
    pub async fn page_after(&self, reads: &Reads, position: i64) -> Result<Arc<Page>, ReadError> {
        let (page, folds) = &mut *self.last.lock().await;
        if !page.has_after(position) {
            *page = Arc::new(Page::read(reads, self.owner, position, folds).await?);
        }
        Ok(page.clone())
    }
}

/// Looks for events until no account has a stream.
async fn poll(inner: Arc<Inner>) {
    let versions = inner.reads.owner_versions().clone();
    let mut applied = versions.applied();
    let mut seen = None;
    let mut jobs_looked: Option<Instant> = None;
    loop {
        let asked: Vec<Arc<AccountEvents>> = {
            let mut accounts = inner.accounts();
            if accounts.by_id.is_empty() {
                accounts.polling = false;
                return;
            }
            accounts.by_id.values().map(|(events, _)| events.clone()).collect()
        };
        let began = Instant::now();
        look(&inner.reads, &versions, &asked, &mut seen).await;
        if jobs_looked.is_none_or(|at| at.elapsed() >= Duration::from_millis(JOBS_POLL_MS)) {
            jobs_looked = Some(Instant::now());
            look_for_jobs(&inner.reads, &asked).await;
        }
        drop(asked);
        let longest = Duration::from_millis(POLL_MS);
        let rest = (began.elapsed() * REST_FACTOR).clamp(Duration::from_millis(POLL_PAUSE_MS_MIN), longest);
        tokio::time::sleep(rest).await;
        hint_or_poll(&mut applied, longest.saturating_sub(rest)).await;
    }
}

/// What the fences (of shards, and of Kafka's partitions) were when the owners were looked up last: while they are the
/// same, so are the owners.
type Checkpoints = (i32, i64, i64);

async fn look(
    reads: &Reads,
    versions: &OwnerVersions,
    accounts: &[Arc<AccountEvents>],
    seen: &mut Option<Checkpoints>,
) {
    let nearest = reads.nearest();
    let mut now = checkpoints(reads, nearest).await;
    if now.is_err() && nearest == ReadSource::Replica {
        now = checkpoints(reads, ReadSource::Primary).await;
    }
    match now {
        Ok(now) if *seen == Some(now) => return,
        Ok(now) => *seen = Some(now),
        // Logged where it happened; the lookups below would fail as well.
        Err(_) => {
            *seen = None;
            return;
        }
    }
    let versions = join_all(accounts.iter().map(|events| versions.look_up(events.owner))).await;
    for (events, version) in accounts.iter().zip(versions) {
        match version {
            Ok(version) => events.advance(&version.row),
            Err(_) => *seen = None,
        }
    }
}

/// What cannot be read now (logged where it happened) is there at the next look.
async fn look_for_jobs(reads: &Reads, accounts: &[Arc<AccountEvents>]) {
    let owners: Vec<Uuid> = accounts.iter().map(|events| events.owner.id).collect();
    let by_owner: HashMap<Uuid, &AccountEvents> =
        accounts.iter().map(|events| (events.owner.id, events.as_ref())).collect();
    for job in jobs::changed(reads, &owners).await.unwrap_or_default() {
        let Some(events) = by_owner.get(&job.owner) else { continue };
        let number = events.job_messages().take(&job);
        events.until.send_if_modified(|until| std::mem::replace(&mut until.jobs, number) != number);
    }
}

async fn checkpoints(reads: &Reads, source: ReadSource) -> Result<Checkpoints, ReadError> {
    let read = sqlx::query!(
        r#"select p.live_generation, coalesce(sum(c.turn), 0)::bigint
                      + (select coalesce(sum(k.turn), 0) from read_model.kafka_partition k)::bigint as "fences!", coalesce(sum(c.position), 0)::bigint as "positions!"
           from read_model.projection p left join read_model.checkpoint c on c.generation = p.live_generation
           group by p.live_generation"#
    )
    .fetch_one(reads.pool(source));
    let row = reads.in_time(source, async { Ok(read.await?) }).await?;
    Ok((row.live_generation, row.fences, row.positions))
}
