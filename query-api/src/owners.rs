//! Where each owner's rows stand: the one look-up that makes cached answers right.
//!
//! Requests that wait at the same time share one query; its result is good for [`MEMO_MS_MAX`]. What this process has
//! shown of an owner it never takes back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use service_kit::token::Sealer;
use sqlx::PgPool;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::{ReadError, is_disconnect};

/// How long a look-up's result is used without asking again.
const MEMO_MS_MAX: u64 = 5;
/// How long a read waits for what its token names.
const TOKEN_WAIT_MS_MAX: u64 = 2_000;
/// How often it looks where no hint comes.
const TOKEN_POLL_MS: u64 = 10;
/// How long one look-up may take.
const LOOKUP_MS_MAX: u64 = 2_000;
/// How often it is tried while the database is away.
const RECONNECT_EVERY_MS: u64 = 10;
/// Owners in one query.
const LOOKUP_OWNERS_MAX: usize = 1_000;
/// Requests that may wait for look-ups; more are turned away.
const WAITING_MAX: usize = 20_000;
/// Owners remembered in one part of the memo before old ones are dropped.
const MEMO_PART_OWNERS_MAX: usize = 1_024;
const MEMO_PARTS: usize = 16;

/// What names a snapshot of one owner's rows, as one statement saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StandingRow {
    /// None until the log's first event is applied.
    pub log_id: Option<Uuid>,
    pub generation: i32,
    /// None, like all that follows, while the owner has no row.
    pub shard: Option<i16>,
    pub revision: Option<i64>,
    pub change_counter: Option<i64>,
    pub parked_position: Option<i64>,
}

impl StandingRow {
    fn counter(&self) -> i64 {
        self.change_counter.unwrap_or(-1)
    }

    fn same_line(&self, other: &Self) -> bool {
        self.log_id == other.log_id && self.generation == other.generation
    }

    /// Whether rows seen at this standing may be shown to somebody who may have seen `shown`.
    pub fn is_at_least(&self, shown: &Self) -> bool {
        !self.same_line(shown) || self.counter() >= shown.counter()
    }

    /// The position up to which everything is there: parked events leave a hole.
    pub fn complete_until(&self) -> i64 {
        let revision = self.revision.unwrap_or(0);
        self.parked_position.map_or(revision, |parked| revision.min(parked - 1))
    }
}

/// Where one owner's rows stand, with the headers that say so.
#[derive(Debug)]
pub(crate) struct Standing {
    pub row: StandingRow,
    /// The ETag's inside, for lists, history and counts.
    pub tag: String,
    /// That as a weak ETag.
    pub etag: HeaderValue,
    /// Consistency-Token of whatever is read here.
    pub token: HeaderValue,
}

impl Standing {
    fn new(row: StandingRow, owner: Uuid, shard: i16, sealer: &Sealer) -> Self {
        let log_id = row.log_id.unwrap_or(Uuid::nil());
        let tag = format!("{:x}-{:x}-{:x}", log_id.as_u128() >> 64, row.generation, row.counter() + 1);
        let token = sealer.consistency_token(
            log_id,
            domain::OwnerId(owner),
            row.shard.unwrap_or(shard),
            Need::seen(&row).as_position(),
        );
        Self { etag: header(format!("W/\"{tag}\"")), token: header(token), tag, row }
    }
}

/// A header from what is visible ASCII by construction.
pub(crate) fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// What a Consistency-Token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Nil: from a read before the log was known; any log will do.
    pub log_id: Uuid,
    pub revision: i64,
    /// Given out by a read while an event at or before `revision` was parked: its holder has seen that state, hole and
    /// all, and is not to be turned away for it. A command's token is.
    pub seen_with_hole: bool,
}

impl Need {
    /// The position inside a token. Positions start at 1, so the sign is free for `seen_with_hole`.
    pub fn from_position(log_id: Uuid, position: i64) -> Self {
        Self { log_id, revision: position.saturating_abs(), seen_with_hole: position < 0 }
    }

    fn seen(row: &StandingRow) -> Self {
        let revision = row.revision.unwrap_or(0);
        Self {
            log_id: row.log_id.unwrap_or(Uuid::nil()),
            revision,
            seen_with_hole: row.parked_position.is_some_and(|parked| parked <= revision),
        }
    }

    fn as_position(self) -> i64 {
        if self.seen_with_hole { -self.revision } else { self.revision }
    }

    /// Whether a read at this standing shows what is asked for.
    fn is_met_by(&self, row: &StandingRow) -> Result<bool, ReadError> {
        if !self.log_id.is_nil() && row.log_id.is_some_and(|log_id| log_id != self.log_id) {
            return Err(ReadError::ForeignToken);
        }
        let parked = row.parked_position.is_some_and(|parked| parked <= self.revision);
        if parked && !self.seen_with_hole {
            return Err(ReadError::Parked);
        }
        let log_known = self.log_id.is_nil() || row.log_id.is_some();
        Ok(self.revision == 0 || (log_known && row.revision.is_some_and(|revision| revision >= self.revision)))
    }
}

/// Looks up where owners stand.
#[derive(Debug, Clone)]
pub(crate) struct Owners(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    sealer: Sealer,
    applied: Option<watch::Receiver<u64>>,
    memo: [Mutex<HashMap<Uuid, Memo>>; MEMO_PARTS],
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Memo {
    /// The snapshot is no older than this.
    asked_at: Instant,
    standing: Arc<Standing>,
}

#[derive(Debug, Default)]
struct Waiting {
    owners: HashMap<Uuid, Asked>,
    requests: usize,
    /// A task is asking; it takes what has gathered when it is done.
    asking: bool,
}

#[derive(Debug)]
struct Asked {
    shard: i16,
    senders: Vec<oneshot::Sender<Result<Arc<Standing>, ReadError>>>,
}

/// An owner, and the shard to name in a token while there is no row of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub id: Uuid,
    pub shard: i16,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Owners {
    pub fn new(pool: PgPool, sealer: Sealer, applied: Option<watch::Receiver<u64>>) -> Self {
        Self(Arc::new(Inner { pool, sealer, applied, memo: Default::default(), waiting: Mutex::default() }))
    }

    pub fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    /// A hint that something was applied, from now on; where there is none, polling has to do.
    pub fn applied(&self) -> Option<watch::Receiver<u64>> {
        self.0.applied.clone().map(|mut applied| {
            applied.mark_unchanged();
            applied
        })
    }

    /// Where the owner stands now, give or take [`MEMO_MS_MAX`].
    pub async fn standing(&self, owner: Owner) -> Result<Arc<Standing>, ReadError> {
        match self.remembered(owner.id, None) {
            Some(standing) => Ok(standing),
            None => self.look_up(owner).await,
        }
    }

    /// Where the owner stood less than [`MEMO_MS_MAX`] ago, if that shows what is asked for. What is remembered may
    /// say yes; only a fresh look may say no.
    pub fn remembered(&self, owner: Uuid, need: Option<Need>) -> Option<Arc<Standing>> {
        let memo = lock(self.0.part(owner));
        let known = memo.get(&owner)?;
        let fresh = known.asked_at.elapsed() < Duration::from_millis(MEMO_MS_MAX);
        let enough = need.is_none_or(|need| need.is_met_by(&known.standing.row) == Ok(true));
        (fresh && enough).then(|| known.standing.clone())
    }

    /// Looks where the owner stands, until that shows what is asked for.
    ///
    /// # Errors
    /// Not within [`TOKEN_WAIT_MS_MAX`], or never (parked, another log).
    pub async fn standing_at_least(&self, owner: Owner, need: Option<Need>) -> Result<Arc<Standing>, ReadError> {
        let deadline = Instant::now() + Duration::from_millis(TOKEN_WAIT_MS_MAX);
        let mut applied = self.applied();
        loop {
            let standing = self.look_up(owner).await?;
            match need {
                Some(need) if !need.is_met_by(&standing.row)? => {}
                Some(_) | None => return Ok(standing),
            }
            if Instant::now() >= deadline {
                return Err(ReadError::NotYet);
            }
            hint_or_poll(&mut applied, Duration::from_millis(TOKEN_POLL_MS)).await;
        }
    }

    /// Asks the database, together with all who ask at the same time.
    pub async fn look_up(&self, owner: Owner) -> Result<Arc<Standing>, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut waiting = lock(&self.0.waiting);
            if waiting.requests >= WAITING_MAX {
                return Err(ReadError::Overloaded);
            }
            waiting.requests += 1;
            let asked = waiting.owners.entry(owner.id);
            asked.or_insert_with(|| Asked { shard: owner.shard, senders: Vec::new() }).senders.push(sender);
            !std::mem::replace(&mut waiting.asking, true)
        };
        if first {
            tokio::spawn(self.0.clone().ask());
        }
        receiver.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Tells what a statement saw that was not a look-up, so that no later read shows less. Returns what was seen, with
    /// its headers.
    pub fn seen(&self, owner: Owner, asked_at: Instant, row: StandingRow) -> Arc<Standing> {
        let newest = self.0.remember(owner.id, owner.shard, asked_at, row);
        if newest.row == row { newest } else { Arc::new(Standing::new(row, owner.id, owner.shard, &self.0.sealer)) }
    }
}

/// Waits for the hint, or for `poll` where it does not come.
pub(crate) async fn hint_or_poll(applied: &mut Option<watch::Receiver<u64>>, poll: Duration) {
    match applied {
        // A sender that is gone gives no hints: then the time counts.
        Some(hint) => match tokio::time::timeout(poll, hint.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => *applied = None,
        },
        None => tokio::time::sleep(poll).await,
    }
}

impl Inner {
    fn part(&self, owner: Uuid) -> &Mutex<HashMap<Uuid, Memo>> {
        // The last byte of a v4 or v7 id is random.
        &self.memo[usize::from(owner.as_bytes()[15]) % MEMO_PARTS]
    }

    /// Asks until nobody waits.
    async fn ask(self: Arc<Self>) {
        loop {
            let batch = {
                let mut waiting = lock(&self.waiting);
                if waiting.owners.is_empty() {
                    waiting.asking = false;
                    return;
                }
                take_some(&mut waiting)
            };
            let asked_at = Instant::now();
            let owners: Vec<Uuid> = batch.keys().copied().collect();
            let limit = Duration::from_millis(LOOKUP_MS_MAX);
            let found = match tokio::time::timeout(limit, self.query_until_connected(&owners)).await {
                Ok(Ok(found)) => Some(found),
                Ok(Err(error)) => {
                    tracing::error!(%error, "looking up where owners stand");
                    None
                }
                Err(_) => {
                    tracing::error!(limit_ms = LOOKUP_MS_MAX, "looking up where owners stand took too long");
                    None
                }
            };
            self.tell(batch, found, asked_at);
        }
    }

    fn tell(&self, mut batch: HashMap<Uuid, Asked>, found: Option<Vec<(Uuid, StandingRow)>>, asked_at: Instant) {
        for (owner, row) in found.into_iter().flatten() {
            let Some(asked) = batch.remove(&owner) else { continue };
            let standing = self.remember(owner, asked.shard, asked_at, row);
            for sender in asked.senders {
                // Who has gone away needs no answer.
                let _ = sender.send(Ok(standing.clone()));
            }
        }
        for sender in batch.into_values().flat_map(|asked| asked.senders) {
            let _ = sender.send(Err(ReadError::Unavailable));
        }
    }

    async fn query_until_connected(&self, owners: &[Uuid]) -> Result<Vec<(Uuid, StandingRow)>, sqlx::Error> {
        loop {
            match self.query(owners).await {
                Err(error) if is_disconnect(&error) => {
                    tracing::warn!(%error, "looking up where owners stand");
                    tokio::time::sleep(Duration::from_millis(RECONNECT_EVERY_MS)).await;
                }
                found => return found,
            }
        }
    }

    async fn query(&self, owners: &[Uuid]) -> Result<Vec<(Uuid, StandingRow)>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"select p.log_id, p.live_generation, w.owner_id as "owner_id!", o.shard as "shard?", o.revision as "revision?",
                      o.change_counter as "change_counter?", o.parked_position as "parked_position?"
               from read_model.projection p
               cross join unnest($1::uuid[]) as w (owner_id)
               left join lateral (
                   select o.shard, o.revision, o.change_counter, o.parked_position from read_model.owner o
                   where o.generation = p.live_generation and o.owner_id = w.owner_id limit 1
               ) o on true"#,
            owners
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| {
            let standing = StandingRow {
                log_id: row.log_id,
                generation: row.live_generation,
                shard: row.shard,
                revision: row.revision,
                change_counter: row.change_counter,
                parked_position: row.parked_position,
            };
            (row.owner_id, standing)
        });
        Ok(rows.collect())
    }

    /// Keeps what was seen, unless something newer is known; returns the newer of the two.
    fn remember(&self, owner: Uuid, shard: i16, asked_at: Instant, row: StandingRow) -> Arc<Standing> {
        let mut memo = lock(self.part(owner));
        if memo.len() >= MEMO_PART_OWNERS_MAX {
            memo.retain(|_, known| known.asked_at.elapsed() < Duration::from_millis(MEMO_MS_MAX));
        }
        let fresh = || Arc::new(Standing::new(row, owner, shard, &self.sealer));
        match memo.entry(owner) {
            Entry::Vacant(vacant) => vacant.insert(Memo { asked_at, standing: fresh() }).standing.clone(),
            Entry::Occupied(occupied) => {
                let known = occupied.into_mut();
                let known_row = known.standing.row;
                if row == known_row {
                    known.asked_at = known.asked_at.max(asked_at);
                } else if is_newer(&row, asked_at, &known_row, known.asked_at) {
                    *known = Memo { asked_at, standing: fresh() };
                }
                known.standing.clone()
            }
        }
    }
}

fn is_newer(row: &StandingRow, asked_at: Instant, known: &StandingRow, known_asked_at: Instant) -> bool {
    if row.same_line(known) && row.counter() != known.counter() {
        row.counter() > known.counter()
    } else {
        asked_at >= known_asked_at
    }
}

fn take_some(waiting: &mut Waiting) -> HashMap<Uuid, Asked> {
    if waiting.owners.len() <= LOOKUP_OWNERS_MAX {
        waiting.requests = 0;
        return std::mem::take(&mut waiting.owners);
    }
    let some: Vec<Uuid> = waiting.owners.keys().take(LOOKUP_OWNERS_MAX).copied().collect();
    let batch: HashMap<_, _> = some.into_iter().filter_map(|owner| waiting.owners.remove_entry(&owner)).collect();
    waiting.requests -= batch.values().map(|asked| asked.senders.len()).sum::<usize>();
    batch
}
