//! Where each owner's rows stand: the one look-up that makes cached answers right.
//!
//! Requests that wait at the same time share one query; its result is good for [`MEMO_MS_MAX`]. What this process has
//! shown of an owner it never takes back.
//!
//! Where there is a Redis it is asked first, then the primary; else the replica, where there is one, then the primary.
//! Whoever is asked first may say that there is enough for a token; only the primary may say that there is not, and
//! only the primary may say that another log or generation is live.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::token::Sealer;
use axum::http::HeaderValue;
use metrics::{Counter, counter};
use process::clock;
use process::context;
use sqlx::PgExecutor;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::Sources;
use crate::error::{ReadError, is_disconnect};
use crate::shared::{Line, REMEMBERED_MS_MIN, Shared};

/// How long a look-up's result is used without asking again.
const MEMO_MS_MAX: u64 = 5;
/// How long a read waits for what its token names.
const TOKEN_WAIT_MS_MAX: u64 = 2_000;
/// How often it looks where no hint comes. All who wait look at the same moments, and so share one look-up.
const TOKEN_POLL_MS: u64 = 5;
/// How long one look-up may take.
const LOOKUP_MS_MAX: u64 = 2_000;
/// How often it is tried while the database is away.
const RECONNECT_EVERY_MS: u64 = 10;
/// Owners in one query.
const LOOKUP_OWNERS_MAX: usize = 1_000;
/// Requests that may wait for look-ups; more are turned away.
const WAITING_MAX: usize = 20_000;
/// Owners remembered in one part of the memo before old ones are dropped.
const MEMO_PART_OWNERS_MAX: usize = 2_048;
/// How long a read waits for a replica to show what its token names, before it goes to the primary.
const REPLICA_WAIT_MS_MAX: u64 = 100;
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

/// The standing in a row of a statement that selects these columns beside its own, as all reads do.
macro_rules! standing_in {
    ($row:expr, generation: $generation:expr) => {
        $crate::owners::StandingRow {
            log_id: $row.log_id,
            generation: $generation,
            shard: $row.shard,
            revision: $row.revision,
            change_counter: $row.change_counter,
            parked_position: $row.parked_position,
        }
    };
}
pub(crate) use standing_in;

impl StandingRow {
    fn counter(&self) -> i64 {
        self.change_counter.unwrap_or(-1)
    }

    /// Whether their change counters can be compared.
    pub fn same_line(&self, other: &Self) -> bool {
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
    sources: Sources,
    shared: Option<Shared>,
    sealer: Sealer,
    applied: Option<watch::Receiver<u64>>,
    memo: [Mutex<MemoPart>; MEMO_PARTS],
    /// By [`Asking`].
    waiting: [Mutex<Waiting>; 3],
    /// What the primary said last.
    line: Mutex<Option<Line>>,
}

/// Who is asked where owners stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Redis,
    Replica,
    Primary,
}

#[derive(Debug, Default)]
struct MemoPart {
    owners: HashMap<Uuid, Memo>,
    /// When somebody was dropped of whom something newer may have been shown than Redis has.
    forgot_at: Option<Instant>,
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
    senders: Vec<Sender>,
}

type Sender = oneshot::Sender<Result<Arc<Standing>, ReadError>>;

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
    pub fn new(sources: Sources, sealer: Sealer, applied: Option<watch::Receiver<u64>>) -> Self {
        let secret_tag = sealer.seal_cursor(domain::OwnerId(Uuid::nil()), b"redis", b"");
        let shared = sources.redis.clone().map(|redis| Shared::new(redis, secret_tag));
        Self(Arc::new(Inner {
            sources,
            shared,
            sealer,
            applied,
            memo: Default::default(),
            waiting: Default::default(),
            line: Mutex::default(),
        }))
    }

    /// What is shared with other processes, and under which name.
    pub fn shared(&self) -> Option<(&Shared, Uuid)> {
        let cache_id = lock(&self.0.line).as_ref()?.cache_id;
        self.0.shared.as_ref().map(|shared| (shared, cache_id))
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
            None => self.0.ask_for(self.0.first(), owner).await,
        }
    }

    /// Where the owner stood less than [`MEMO_MS_MAX`] ago, if that shows what is asked for. What is remembered may
    /// say yes; only a fresh look may say no.
    pub fn remembered(&self, owner: Uuid, need: Option<Need>) -> Option<Arc<Standing>> {
        let memo = lock(self.0.part(owner));
        let known = memo.owners.get(&owner)?;
        let fresh = known.asked_at.elapsed() < Duration::from_millis(MEMO_MS_MAX);
        let enough = need.is_none_or(|need| need.is_met_by(&known.standing.row) == Ok(true));
        (fresh && enough).then(|| known.standing.clone())
    }

    /// Looks where the owner stands, until that shows what is asked for.
    ///
    /// # Errors
    /// Not within [`TOKEN_WAIT_MS_MAX`], or never (parked, another log).
    pub async fn standing_at_least(&self, owner: Owner, need: Option<Need>) -> Result<Arc<Standing>, ReadError> {
        let began = Instant::now();
        let mut applied = self.applied();
        let mut asking = self.0.first();
        loop {
            let standing = self.0.ask_for(asking, owner).await;
            let met = match (&standing, need) {
                (Ok(standing), Some(need)) => need.is_met_by(&standing.row),
                (Ok(_), None) => Ok(true),
                (Err(error), _) => Err(error.clone()),
            };
            if met == Ok(true) {
                return standing;
            }
            match asking {
                Asking::Redis => {
                    // Most often it is not there yet, and then the primary need not say so too.
                    if met == Ok(false) {
                        hint_or_poll(&mut applied, until_next_look()).await;
                    }
                    asking = Asking::Primary;
                }
                Asking::Replica
                    if met != Ok(false) || began.elapsed() >= Duration::from_millis(REPLICA_WAIT_MS_MAX) =>
                {
                    asking = Asking::Primary;
                }
                Asking::Replica => hint_or_poll(&mut applied, until_next_look()).await,
                Asking::Primary => {
                    met?;
                    if began.elapsed() >= Duration::from_millis(TOKEN_WAIT_MS_MAX) {
                        return Err(ReadError::NotYet);
                    }
                    hint_or_poll(&mut applied, until_next_look()).await;
                    asking = if self.0.shared.is_some() { Asking::Redis } else { Asking::Primary };
                }
            }
        }
    }

    /// Asks a database, together with all who ask at the same time: the replica, where nothing else is there to keep
    /// the primary from being asked by everybody.
    pub async fn look_up(&self, owner: Owner) -> Result<Arc<Standing>, ReadError> {
        match self.0.first() {
            Asking::Replica => self.0.ask_for(Asking::Replica, owner).await,
            Asking::Redis | Asking::Primary => self.look_up_at_primary(owner).await,
        }
    }

    /// Asks the primary, together with all who ask at the same time.
    pub async fn look_up_at_primary(&self, owner: Owner) -> Result<Arc<Standing>, ReadError> {
        self.0.ask_for(Asking::Primary, owner).await
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
        Some(hint) => match context::without_permit(tokio::time::timeout(poll, hint.changed())).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => *applied = None,
        },
        None => context::without_permit(tokio::time::sleep(poll)).await,
    }
}

/// Until the next of the moments at which all look who wait for what a token names.
fn until_next_look() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let every = Duration::from_millis(TOKEN_POLL_MS);
    let since_last = FIRST.elapsed().as_nanos() % every.as_nanos();
    every.saturating_sub(Duration::from_nanos(u64::try_from(since_last).unwrap_or(0)))
}

impl MemoPart {
    /// Drops what is old. With a Redis that is only what Redis cannot be behind any more; if that makes no room, the
    /// rest as well, and then Redis is not believed for a while of those who are not known here.
    fn make_room(&mut self, with_redis: bool) {
        if with_redis {
            self.owners.retain(|_, known| known.asked_at.elapsed() < Duration::from_millis(REMEMBERED_MS_MIN));
            if self.owners.len() < MEMO_PART_OWNERS_MAX {
                return;
            }
            self.forgot_at = Some(Instant::now());
        }
        self.owners.retain(|_, known| known.asked_at.elapsed() < Duration::from_millis(MEMO_MS_MAX));
    }
}

impl Inner {
    /// Who is asked first.
    fn first(&self) -> Asking {
        match (&self.shared, &self.sources.replica) {
            (Some(_), _) => Asking::Redis,
            (None, Some(replica)) if replica.is_there() => Asking::Replica,
            (None, _) => Asking::Primary,
        }
    }

    async fn ask_for(self: &Arc<Self>, asking: Asking, owner: Owner) -> Result<Arc<Standing>, ReadError> {
        let (sender, receiver) = oneshot::channel();
        self.wait(asking, owner, vec![sender])?;
        receiver.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Puts senders among those who wait, and has somebody ask for them. Where too many wait they are told so.
    fn wait(self: &Arc<Self>, asking: Asking, owner: Owner, senders: Vec<Sender>) -> Result<(), ReadError> {
        let first = {
            let mut waiting = lock(&self.waiting[asking as usize]);
            if waiting.requests + senders.len() > WAITING_MAX {
                for sender in senders {
                    let _ = sender.send(Err(ReadError::Overloaded));
                }
                return Err(ReadError::Overloaded);
            }
            waiting.requests += senders.len();
            let asked = waiting.owners.entry(owner.id);
            asked.or_insert_with(|| Asked { shard: owner.shard, senders: Vec::new() }).senders.extend(senders);
            !std::mem::replace(&mut waiting.asking, true)
        };
        if first {
            tokio::spawn(self.clone().ask(asking));
        }
        Ok(())
    }

    fn part(&self, owner: Uuid) -> &Mutex<MemoPart> {
        // The last byte of a v4 or v7 id is random.
        &self.memo[usize::from(owner.as_bytes()[15]) % MEMO_PARTS]
    }

    /// Asks until nobody waits.
    async fn ask(self: Arc<Self>, asking: Asking) {
        loop {
            let batch = {
                let mut waiting = lock(&self.waiting[asking as usize]);
                if waiting.owners.is_empty() {
                    waiting.asking = false;
                    return;
                }
                take_some(&mut waiting)
            };
            match asking {
                Asking::Redis => self.ask_redis(batch).await,
                Asking::Replica => self.ask_replica(batch).await,
                Asking::Primary => self.ask_primary(batch).await,
            }
        }
    }

    async fn ask_redis(self: &Arc<Self>, mut batch: HashMap<Uuid, Asked>) {
        let line = *lock(&self.line);
        if let (Some(shared), Some(line)) = (&self.shared, line) {
            let asked_at = Instant::now();
            let owners: Vec<Owner> = batch.iter().map(|(id, asked)| Owner { id: *id, shard: asked.shard }).collect();
            let mut found = shared.standings(&line, &owners).await;
            found.retain(|owner, row| self.is_believable(*owner, row));
            count_standings(found.len(), owners.len());
            self.tell_some(&mut batch, found.into_iter().collect(), asked_at);
        }
        self.pass_on(batch);
    }

    async fn ask_replica(self: &Arc<Self>, mut batch: HashMap<Uuid, Asked>) {
        let line = *lock(&self.line);
        if let (Some(replica), Some(line)) = (&self.sources.replica, line) {
            let asked_at = Instant::now();
            let owners: Vec<Uuid> = batch.keys().copied().collect();
            let found = replica.answer(async { Ok(query(replica.pool(), &owners).await?) }).await;
            // Of another line where it is behind a switch of generations, or the primary was not asked since one.
            if let Some(found) = found.ok().filter(|found| found.line() == Some(line)) {
                self.tell_some(&mut batch, found.rows, asked_at);
            }
        }
        self.pass_on(batch);
    }

    async fn ask_primary(self: &Arc<Self>, mut batch: HashMap<Uuid, Asked>) {
        let (asked_at, asked_at_time) = (Instant::now(), clock::now());
        let owners: Vec<Uuid> = batch.keys().copied().collect();
        let limit = Duration::from_millis(LOOKUP_MS_MAX);
        match tokio::time::timeout(limit, self.query_until_connected(&owners)).await {
            Ok(Ok(found)) => {
                let line = found.line();
                *lock(&self.line) = line;
                if let (Some(shared), Some(line)) = (&self.shared, line) {
                    shared.refill(&line, asked_at_time, &found.rows);
                }
                self.tell_some(&mut batch, found.rows, asked_at);
            }
            Ok(Err(error)) => tracing::error!(%error, "looking up where owners stand"),
            Err(_) => tracing::error!(limit_ms = LOOKUP_MS_MAX, "looking up where owners stand took too long"),
        }
        for sender in batch.into_values().flat_map(|asked| asked.senders) {
            let _ = sender.send(Err(ReadError::Unavailable));
        }
    }

    /// Has the primary asked for those who have no answer yet.
    fn pass_on(self: &Arc<Self>, batch: HashMap<Uuid, Asked>) {
        for (id, asked) in batch {
            // Where too many wait they are told so.
            let _ = self.wait(Asking::Primary, Owner { id, shard: asked.shard }, asked.senders);
        }
    }

    /// Whether what Redis says is nothing older than what this process has shown.
    fn is_believable(&self, owner: Uuid, row: &StandingRow) -> bool {
        let memo = lock(self.part(owner));
        match memo.owners.get(&owner) {
            Some(known) => row.same_line(&known.standing.row) && row.counter() >= known.standing.row.counter(),
            None => {
                let remembered = Duration::from_millis(REMEMBERED_MS_MIN);
                memo.forgot_at.is_none_or(|forgot_at| forgot_at.elapsed() > remembered)
            }
        }
    }

    fn tell_some(&self, batch: &mut HashMap<Uuid, Asked>, found: Vec<(Uuid, StandingRow)>, asked_at: Instant) {
        for (owner, row) in found {
            let Some(asked) = batch.remove(&owner) else { continue };
            let standing = self.remember(owner, asked.shard, asked_at, row);
            for sender in asked.senders {
                // Who has gone away needs no answer.
                let _ = sender.send(Ok(standing.clone()));
            }
        }
    }

    async fn query_until_connected(&self, owners: &[Uuid]) -> Result<Found, sqlx::Error> {
        loop {
            match query(&self.sources.primary, owners).await {
                Err(error) if is_disconnect(&error) => {
                    tracing::warn!(%error, "looking up where owners stand");
                    tokio::time::sleep(Duration::from_millis(RECONNECT_EVERY_MS)).await;
                }
                found => return found,
            }
        }
    }

    /// Keeps what was seen, unless something newer is known; returns the newer of the two.
    fn remember(&self, owner: Uuid, shard: i16, asked_at: Instant, row: StandingRow) -> Arc<Standing> {
        let mut memo = lock(self.part(owner));
        if memo.owners.len() >= MEMO_PART_OWNERS_MAX {
            memo.make_room(self.first() == Asking::Redis);
        }
        let fresh = || Arc::new(Standing::new(row, owner, shard, &self.sealer));
        match memo.owners.entry(owner) {
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

/// What one look-up found.
pub(crate) struct Found {
    cache_id: Option<Uuid>,
    rows: Vec<(Uuid, StandingRow)>,
}

impl Found {
    /// The read models' line; None while no log is known.
    fn line(&self) -> Option<Line> {
        let (_, row) = self.rows.first()?;
        Some(Line { cache_id: self.cache_id?, log_id: row.log_id?, generation: row.generation })
    }
}

pub(crate) async fn query(executor: impl PgExecutor<'_>, owners: &[Uuid]) -> Result<Found, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.cache_id, p.log_id, p.live_generation, w.owner_id as "owner_id!", o.shard as "shard?", o.revision as "revision?",
                  o.change_counter as "change_counter?", o.parked_position as "parked_position?"
           from read_model.projection p
           cross join unnest($1::uuid[]) as w (owner_id)
           left join lateral (
               select o.shard, o.revision, o.change_counter, o.parked_position from read_model.owner o
               where o.generation = p.live_generation and o.owner_id = w.owner_id limit 1
           ) o on true"#,
        owners
    )
    .fetch_all(executor)
    .await?;
    let cache_id = rows.first().map(|row| row.cache_id);
    let rows = rows.into_iter().map(|row| {
        let standing = standing_in!(row, generation: row.live_generation);
        (row.owner_id, standing)
    });
    Ok(Found { cache_id, rows: rows.collect() })
}

/// Standings that Redis had, of those that it was asked for.
fn count_standings(hits: usize, asked: usize) {
    static HITS: LazyLock<Counter> =
        LazyLock::new(|| counter!("cache_hits_total", "layer" => "redis", "kind" => "standing"));
    static MISSES: LazyLock<Counter> =
        LazyLock::new(|| counter!("cache_misses_total", "layer" => "redis", "kind" => "standing"));
    HITS.increment(hits as u64);
    MISSES.increment(asked.saturating_sub(hits) as u64);
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

#[cfg(test)]
mod tests {
    use access::token::RootSecret;
    use backends::redis::Redis;
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    fn row(change_counter: i64) -> StandingRow {
        StandingRow {
            log_id: Some(Uuid::max()),
            generation: 1,
            shard: Some(0),
            revision: Some(change_counter),
            change_counter: Some(change_counter),
            parked_position: None,
        }
    }

    /// Redis may be behind what was shown of somebody of whom nothing is remembered any more.
    #[tokio::test]
    async fn who_is_forgotten_early_is_asked_for_at_the_primary() {
        let secret = RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).unwrap();
        let primary = crate::connect(PgConnectOptions::new(), 1);
        let redis = Some(Redis::connect("redis://127.0.0.1:1").unwrap());
        let owners = Owners::new(Sources { primary, replica: None, redis }, Sealer::new(&secret), None);
        let inner = &owners.0;
        // All in one part of the memo.
        let owner = |n: usize| Uuid::from_u128((n as u128) << 8);
        assert!(inner.is_believable(owner(0), &row(1)), "nothing was shown");
        inner.remember(owner(0), 0, Instant::now(), row(5));
        assert!(!inner.is_believable(owner(0), &row(4)));
        assert!(inner.is_believable(owner(0), &row(5)));
        for n in 1..=MEMO_PART_OWNERS_MAX {
            // Not fresh any more, and not so old that Redis could not be behind.
            let Some(asked_at) = Instant::now().checked_sub(Duration::from_millis(100)) else { return };
            inner.remember(owner(n), 0, asked_at, row(5));
        }
        let forgotten =
            (0..MEMO_PART_OWNERS_MAX).find(|n| !lock(inner.part(owner(*n))).owners.contains_key(&owner(*n)));
        let forgotten = owner(forgotten.expect("somebody had to be forgotten"));
        assert!(!inner.is_believable(forgotten, &row(9)), "what was shown of them is not known any more");
        assert!(inner.is_believable(Uuid::from_u128(1), &row(1)), "another part");
    }
}
