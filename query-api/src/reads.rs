//! What all reads go through: the version of the owner's rows first, then the cache under that version, then what
//! other processes have cached under it, then one statement for all who ask for the same.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use backends::database::Pool;
use bytes::Bytes;
use domain::Time;
use metrics::{Counter, counter};
use process::clock;
use process::context;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::Sources;
use crate::error::ReadError;
use crate::list::Shelf;
use crate::owners::{Need, Owner, Owners, Standing, StandingRow, header};
use crate::replica::Replica;

/// Bytes of answers kept.
const CACHE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What an entry costs beside its body and key.
const ENTRY_BYTES: usize = 400;
/// How long to wait for the database to come back, and for rows as new as those this process has shown already (a
/// replica is behind, a crashed database folds again).
const RETRY_FOR_MS_MAX: u64 = 2_000;
const RETRY_EVERY_MS: u64 = 10;
/// How long a replica that is behind is waited for before the primary is asked.
const REPLICA_WAIT_MS_MAX: u64 = 50;
/// How long a read at the primary may take. A statement is ended by the database before that, if it lives.
const READ_MS_MAX: u64 = 11_000;

/// The read models, and what is kept of them in this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Inner>);

struct Inner {
    sources: Sources,
    owners: Owners,
    shelf: Shelf,
    cache: Cache<Key, Arc<Answer>, Weight>,
    flights: Mutex<HashMap<FlightKey, Flight>>,
}

type Flight = Arc<OnceCell<Result<Arc<Answer>, ReadError>>>;

/// What is asked for, by whom; the same for requests that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub owner: Uuid,
    pub request: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FlightKey {
    key: Key,
    row: StandingRow,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Answer>> for Weight {
    fn weight(&self, key: &Key, answer: &Arc<Answer>) -> u64 {
        (ENTRY_BYTES + key.request.len() + answer.body.len()) as u64
    }
}

/// An answer, as it is sent every time, and the standing that it is true for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub standing: Arc<Standing>,
    pub body: Bytes,
    pub etag: HeaderValue,
    /// `Link` to the next page.
    pub link: Option<HeaderValue>,
    /// Until then, where the clock changes it as well.
    pub valid_until: Option<Time>,
}

impl Answer {
    fn is_current(&self, standing: &Arc<Standing>) -> bool {
        (Arc::ptr_eq(&self.standing, standing) || self.standing.row == standing.row)
            && self.valid_until.is_none_or(|until| clock::now() < until)
    }
}

/// What one statement found.
pub(crate) struct Loaded {
    /// What is live now: the asked generation, unless a rebuild has just switched.
    pub live_generation: i32,
    /// The snapshot's standing.
    pub row: StandingRow,
    /// None: there is no such thing.
    pub content: Option<Content>,
}

/// The content of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub body: Bytes,
    pub etag: Etag,
    /// Of the next page.
    pub link: Option<String>,
}

/// What an answer's ETag is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Etag {
    /// Generation and change counter.
    Standing,
    /// Those, and the next moment at which the clock changes the answer.
    StandingUntil(Time),
    /// A task's version: strong.
    Version(i64),
}

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// First, while there is one.
    Replica,
    /// Where that is behind, or does not answer.
    Primary,
}

/// A kind of read.
pub(crate) trait Query: Sync {
    /// How long other processes may find its answers, milliseconds.
    const SHARED_MS_MAX: u64 = 5 * 60_000;

    /// What is asked for in bytes, the same for requests that mean the same.
    fn key(&self) -> Vec<u8>;

    /// Reads it from one snapshot of the generation of `shown`, which is the newest standing that is known.
    fn load(
        &self,
        reads: &Reads,
        from: From,
        owner: Uuid,
        shown: &StandingRow,
    ) -> impl Future<Output = Result<Loaded, ReadError>> + Send;
}

impl Reads {
    pub fn new(sources: Sources, owners: Owners) -> Self {
        let cache = Cache::with_weighter(16_384, CACHE_BYTES_MAX, Weight);
        let nearest = sources.replica.as_ref().map_or(&sources.primary, Replica::pool);
        let shelf = Shelf::new(nearest.clone());
        Self(Arc::new(Inner { sources, owners, shelf, cache, flights: Mutex::default() }))
    }

    /// Where to read from first.
    pub fn nearest(&self) -> From {
        match &self.0.sources.replica {
            Some(replica) if replica.is_there() => From::Replica,
            _ => From::Primary,
        }
    }

    pub fn pool(&self, from: From) -> &Pool {
        match (from, &self.0.sources.replica) {
            (From::Replica, Some(replica)) => replica.pool(),
            _ => &self.0.sources.primary,
        }
    }

    /// Awaits a read from there, as long as one may wait for it.
    pub async fn in_time<T>(
        &self,
        from: From,
        read: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        if let (From::Replica, Some(replica)) = (from, &self.0.sources.replica) {
            return replica.answer(read).await;
        }
        tokio::time::timeout(Duration::from_millis(READ_MS_MAX), read).await.unwrap_or_else(|_| {
            tracing::error!(limit_ms = READ_MS_MAX, "the read models do not answer");
            Err(ReadError::Unavailable)
        })
    }

    pub fn owners(&self) -> &Owners {
        &self.0.owners
    }

    /// The columns of owners with many tasks, which are read from the nearest.
    pub fn shelf(&self, from: From) -> Option<&Shelf> {
        (from == From::Replica || self.0.sources.replica.is_none()).then_some(&self.0.shelf)
    }

    /// Where the owner stands: now, or once that shows what the token asks for.
    pub async fn standing(&self, owner: Owner, need: Option<Need>) -> Result<Arc<Standing>, ReadError> {
        match self.0.owners.remembered(owner.id, need) {
            Some(standing) => Ok(standing),
            // What most requests do without is boxed, so that their futures are small: they are moved about a lot.
            None => Box::pin(self.0.owners.standing_at_least(owner, need)).await,
        }
    }

    /// The answer at this standing or a newer one: from the cache, from somebody who is asking already, or from the
    /// database.
    pub async fn answer(
        &self,
        owner: Owner,
        standing: Arc<Standing>,
        query: &impl Query,
    ) -> Result<Arc<Answer>, ReadError> {
        let key = Key { owner: owner.id, request: query.key() };
        let found = self.0.cache.get(&key).filter(|answer| answer.is_current(&standing));
        count_answer("process", found.is_some());
        match found {
            Some(answer) => Ok(answer),
            None => Box::pin(self.share(owner, standing, key, query)).await,
        }
    }

    async fn share(
        &self,
        owner: Owner,
        standing: Arc<Standing>,
        key: Key,
        query: &impl Query,
    ) -> Result<Arc<Answer>, ReadError> {
        let boarded = self.board(FlightKey { key, row: standing.row });
        boarded.flight.get_or_init(|| self.fetch(owner, standing, boarded.key.key.clone(), query)).await.clone()
    }

    /// From another process, or from the database.
    async fn fetch<Q: Query>(
        &self,
        owner: Owner,
        standing: Arc<Standing>,
        key: Key,
        query: &Q,
    ) -> Result<Arc<Answer>, ReadError> {
        let Some((shared, cache_id)) = self.0.owners.shared() else {
            return self.load(owner, standing, key, query).await.map(|loaded| loaded.0);
        };
        if let Some(name) = shared.answer_key(cache_id, &standing.row, &key) {
            let found = shared.answer(&name).await;
            count_answer("redis", found.is_some());
            if let Some(content) = found {
                let answer = Arc::new(Answer::new(standing, content));
                self.0.cache.insert(key, answer.clone());
                return Ok(answer);
            }
        }
        let (answer, content) = self.load(owner, standing, key.clone(), query).await?;
        if let Some(name) = shared.answer_key(cache_id, &answer.standing.row, &key) {
            shared.keep(&name, &content, Q::SHARED_MS_MAX);
        }
        Ok(answer)
    }

    async fn load(
        &self,
        owner: Owner,
        mut standing: Arc<Standing>,
        key: Key,
        query: &impl Query,
    ) -> Result<(Arc<Answer>, Content), ReadError> {
        let began = Instant::now();
        let deadline = began + Duration::from_millis(RETRY_FOR_MS_MAX);
        let mut from = self.nearest();
        loop {
            let asked_at = Instant::now();
            let read = query.load(self, from, owner.id, &standing.row);
            let loaded = match (self.in_time(from, read).await, from) {
                // The pool finds out by trying; the next connection may be a good one.
                (Err(ReadError::Disconnected), From::Primary) if asked_at < deadline => {
                    pause().await;
                    continue;
                }
                (Err(ReadError::Disconnected | ReadError::Unavailable), From::Replica) => {
                    from = From::Primary;
                    continue;
                }
                (loaded, _) => loaded?,
            };
            let switched = loaded.live_generation != loaded.row.generation;
            // A replica may not say that another log is live.
            let comparable = from == From::Primary || loaded.row.same_line(&standing.row);
            if !switched && comparable && loaded.row.is_at_least(&standing.row) {
                let standing = self.0.owners.seen(owner, asked_at, loaded.row);
                let content = loaded.content.ok_or(ReadError::NotFound)?;
                let answer = Arc::new(Answer::new(standing, content.clone()));
                self.0.cache.insert(key, answer.clone());
                return Ok((answer, content));
            }
            if Instant::now() >= deadline {
                return Err(ReadError::NotYet);
            }
            if from == From::Replica {
                if began.elapsed() >= Duration::from_millis(REPLICA_WAIT_MS_MAX) {
                    from = From::Primary;
                } else {
                    pause().await;
                }
                continue;
            }
            if !switched {
                pause().await;
            }
            standing = self.0.owners.look_up_at_primary(owner).await?;
        }
    }

    fn board(&self, key: FlightKey) -> Boarded<'_> {
        let flight = self.flights().entry(key.clone()).or_default().clone();
        Boarded { reads: self, key, flight }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place on a flight. The last one off takes it from the board.
struct Boarded<'a> {
    reads: &'a Reads,
    key: FlightKey,
    flight: Flight,
}

impl Drop for Boarded<'_> {
    fn drop(&mut self) {
        let mut flights = self.reads.flights();
        let ours = flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // What has landed is in the cache; nobody boards it any more.
        if ours && (self.flight.initialized() || Arc::strong_count(&self.flight) == 2) {
            flights.remove(&self.key);
        }
    }
}

/// Before a read is tried again. Nothing is worked upon meanwhile.
async fn pause() {
    context::without_permit(tokio::time::sleep(Duration::from_millis(RETRY_EVERY_MS))).await;
}

/// Answers that a cache had, or had not.
fn count_answer(layer: &'static str, hit: bool) {
    static COUNTERS: LazyLock<[[Counter; 2]; 2]> = LazyLock::new(|| {
        ["process", "redis"].map(|layer| {
            [
                counter!("cache_misses_total", "layer" => layer, "kind" => "answer"),
                counter!("cache_hits_total", "layer" => layer, "kind" => "answer"),
            ]
        })
    });
    COUNTERS[usize::from(layer == "redis")][usize::from(hit)].increment(1);
}

impl Answer {
    fn new(standing: Arc<Standing>, content: Content) -> Self {
        let (etag, valid_until) = match content.etag {
            Etag::Standing => (standing.etag.clone(), None),
            Etag::StandingUntil(until) => {
                let until_us = until.timestamp_micros();
                (header(format!("W/\"{}-{until_us:x}\"", standing.tag)), Some(until))
            }
            Etag::Version(version) => (http_api::headers::version_etag(version), None),
        };
        let link = content.link.map(|link| header(format!("<{link}>; rel=\"next\"")));
        Self { standing, body: content.body, etag, link, valid_until }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use access::token::{RootSecret, Sealer};
    use futures_util::future::join_all;
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    const ROW: StandingRow = StandingRow {
        log_id: Some(Uuid::max()),
        generation: 1,
        shard: Some(0),
        revision: Some(5),
        change_counter: Some(5),
        parked_position: None,
    };
    const OWNER: Owner = Owner { id: Uuid::nil(), shard: 0 };

    /// Takes a moment, and counts.
    #[derive(Default)]
    struct Slow(AtomicU32);

    impl Query for Slow {
        fn key(&self) -> Vec<u8> {
            b"slow".to_vec()
        }

        async fn load(&self, _: &Reads, _: From, _: Uuid, shown: &StandingRow) -> Result<Loaded, ReadError> {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let body = Bytes::from(format!("{count}"));
            Ok(Loaded {
                live_generation: 1,
                row: *shown,
                content: Some(Content { body, etag: Etag::Standing, link: None }),
            })
        }
    }

    fn reads() -> Reads {
        let secret = RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).unwrap();
        let sources = Sources::of(crate::connect(PgConnectOptions::new(), 1));
        Reads::new(sources.clone(), Owners::new(sources, Sealer::new(&secret), None))
    }

    #[tokio::test]
    async fn who_asks_the_same_at_the_same_time_waits_for_one_answer() {
        let (reads, query) = (reads(), Slow::default());
        let standing = reads.owners().seen(OWNER, Instant::now(), ROW);
        let answers = join_all((0..200).map(|_| reads.answer(OWNER, standing.clone(), &query))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().body == "1"));
        assert_eq!(reads.answer(OWNER, standing, &query).await.unwrap().body, "1", "from the cache");
        let later = reads.owners().seen(OWNER, Instant::now(), StandingRow { change_counter: Some(6), ..ROW });
        assert_eq!(reads.answer(OWNER, later, &query).await.unwrap().body, "2", "another version");
        assert!(reads.flights().is_empty());
    }

    #[tokio::test]
    async fn somebody_else_goes_on_when_who_asked_first_goes_away() {
        let (reads, query) = (reads(), Slow::default());
        let standing = reads.owners().seen(OWNER, Instant::now(), ROW);
        let first = tokio::time::timeout(Duration::from_millis(5), reads.answer(OWNER, standing.clone(), &query));
        let (first, second) = tokio::join!(first, reads.answer(OWNER, standing, &query));
        assert!(first.is_err());
        assert_eq!(second.unwrap().body, "2");
        assert!(reads.flights().is_empty());
    }
}
