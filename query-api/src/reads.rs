//! What all reads go through: the version of the owner's rows first, then the cache under that version, then what
//! other processes have cached under it, then one statement for all who ask for the same.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::token::Sealer;
use backends::database::Pool;
use metrics::{Counter, counter};
use process::context;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::answer::{Answer, Content, Key, Loaded};
use crate::error::ReadError;
use crate::minimum_revision::MinimumRevision;
use crate::owner_version::{Owner, OwnerVersion, VersionRow};
use crate::owner_versions::OwnerVersions;
use crate::redis_answers::RedisAnswers;
use crate::sources::Sources;

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
    owner_versions: OwnerVersions,
    redis: Option<RedisAnswers>,
    cache: Cache<Key, Arc<Answer>, Weight>,
    /// Loads under way.
    loads: Mutex<HashMap<LoadKey, Load>>,
}

/// One for all requests that mean the same.
type Load = Arc<OnceCell<Result<Arc<Answer>, ReadError>>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LoadKey {
    key: Key,
    row: VersionRow,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Answer>> for Weight {
    fn weight(&self, key: &Key, answer: &Arc<Answer>) -> u64 {
        (ENTRY_BYTES + key.request.len() + answer.body.len()) as u64
    }
}

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSource {
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

    /// Reads it from one snapshot.
    fn load(&self, scope: ReadScope<'_>) -> impl Future<Output = Result<Loaded, ReadError>> + Send;
}

/// From where, for whom and at which generation a query is read.
#[derive(Clone, Copy)]
pub(crate) struct ReadScope<'a> {
    pub reads: &'a Reads,
    pub source: ReadSource,
    pub owner: Uuid,
    /// The newest version that is known; what is read is of its generation.
    pub shown: &'a VersionRow,
}

impl<'a> ReadScope<'a> {
    pub fn pool(self) -> &'a Pool {
        self.reads.pool(self.source)
    }

    pub fn generation(self) -> i32 {
        self.shown.generation
    }

    /// Whether it is from the source that is asked first, while there is nothing wrong.
    pub fn is_nearest(self) -> bool {
        self.source == ReadSource::Replica || self.reads.0.sources.replica.is_none()
    }

    /// Makes the cursors of pages.
    pub fn sealer(self) -> &'a Sealer {
        self.reads.owner_versions().sealer()
    }
}

impl Reads {
    pub fn new(sources: Sources, owner_versions: OwnerVersions) -> Self {
        let cache = Cache::with_weighter(16_384, CACHE_BYTES_MAX, Weight);
        let redis = sources.redis.clone().map(|redis| RedisAnswers::new(redis, owner_versions.sealer()));
        Self(Arc::new(Inner { sources, owner_versions, redis, cache, loads: Mutex::default() }))
    }

    /// Where to read from first.
    pub fn nearest(&self) -> ReadSource {
        match &self.0.sources.replica {
            Some(replica) if replica.is_there() => ReadSource::Replica,
            _ => ReadSource::Primary,
        }
    }

    pub fn pool(&self, source: ReadSource) -> &Pool {
        match (source, &self.0.sources.replica) {
            (ReadSource::Replica, Some(replica)) => replica.pool(),
            _ => &self.0.sources.primary,
        }
    }

    /// Awaits a read from there, as long as one may wait for it.
    pub async fn in_time<T>(
        &self,
        source: ReadSource,
        read: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        if let (ReadSource::Replica, Some(replica)) = (source, &self.0.sources.replica) {
            return replica.answer(read).await;
        }
        tokio::time::timeout(Duration::from_millis(READ_MS_MAX), read).await.unwrap_or_else(|_| {
            tracing::error!(limit_ms = READ_MS_MAX, "the read models do not answer");
            Err(ReadError::Unavailable)
        })
    }

    pub fn owner_versions(&self) -> &OwnerVersions {
        &self.0.owner_versions
    }

    /// The owner's version: now, or once that shows what the token asks for.
    pub async fn owner_version(
        &self,
        owner: Owner,
        minimum: Option<MinimumRevision>,
    ) -> Result<Arc<OwnerVersion>, ReadError> {
        match self.0.owner_versions.recent(owner.id, minimum) {
            Some(version) => Ok(version),
            // What most requests do without is boxed, so that their futures are small: they are moved about a lot.
            None => Box::pin(self.0.owner_versions.at_least(owner, minimum)).await,
        }
    }

    /// The answer at this version or a newer one: from the cache, from a load that is under way, or from the
    /// database.
    pub async fn answer(
        &self,
        owner: Owner,
        version: Arc<OwnerVersion>,
        query: &impl Query,
    ) -> Result<Arc<Answer>, ReadError> {
        let key = Key { owner: owner.id, request: query.key() };
        let found = self.0.cache.get(&key).filter(|answer| answer.is_current(&version));
        count_answer("process", found.is_some());
        match found {
            Some(answer) => Ok(answer),
            None => Box::pin(self.share(owner, version, key, query)).await,
        }
    }

    async fn share(
        &self,
        owner: Owner,
        version: Arc<OwnerVersion>,
        key: Key,
        query: &impl Query,
    ) -> Result<Arc<Answer>, ReadError> {
        let joined = self.join(LoadKey { key, row: version.row });
        joined.load.get_or_init(|| self.fetch(owner, version, joined.key.key.clone(), query)).await.clone()
    }

    /// From another process, or from the database.
    async fn fetch<Q: Query>(
        &self,
        owner: Owner,
        version: Arc<OwnerVersion>,
        key: Key,
        query: &Q,
    ) -> Result<Arc<Answer>, ReadError> {
        let read_model = self.0.owner_versions.read_model();
        let (Some(redis), Some(read_model)) = (&self.0.redis, read_model) else {
            return self.load(owner, version, key, query).await.map(|loaded| loaded.0);
        };
        if let Some(name) = redis.key(read_model.cache_id, &version.row, &key) {
            let found = redis.get(&name).await;
            count_answer("redis", found.is_some());
            if let Some(content) = found {
                let answer = Arc::new(Answer::new(version, content));
                self.0.cache.insert(key, answer.clone());
                return Ok(answer);
            }
        }
        let (answer, content) = self.load(owner, version, key.clone(), query).await?;
        if let Some(name) = redis.key(read_model.cache_id, &answer.owner_version.row, &key) {
            redis.keep(&name, &content, Q::SHARED_MS_MAX);
        }
        Ok(answer)
    }

    async fn load(
        &self,
        owner: Owner,
        mut version: Arc<OwnerVersion>,
        key: Key,
        query: &impl Query,
    ) -> Result<(Arc<Answer>, Content), ReadError> {
        let began = Instant::now();
        let deadline = began + Duration::from_millis(RETRY_FOR_MS_MAX);
        let mut source = self.nearest();
        loop {
            let asked_at = Instant::now();
            let scope = ReadScope { reads: self, source, owner: owner.id, shown: &version.row };
            let loaded = match (self.in_time(source, query.load(scope)).await, source) {
                // The pool finds out by trying; the next connection may be a good one.
                (Err(ReadError::Disconnected), ReadSource::Primary) if asked_at < deadline => {
                    pause().await;
                    continue;
                }
                (Err(ReadError::Disconnected | ReadError::Unavailable), ReadSource::Replica) => {
                    source = ReadSource::Primary;
                    continue;
                }
                (loaded, _) => loaded?,
            };
            let switched = loaded.live_generation != loaded.row.generation;
            // A replica may not say that another log is live.
            let comparable = source == ReadSource::Primary || loaded.row.same_read_model(&version.row);
            if !switched && comparable && loaded.row.is_at_least(&version.row) {
                let version = self.0.owner_versions.seen(owner, asked_at, loaded.row);
                let content = loaded.content.ok_or(ReadError::NotFound)?;
                let answer = Arc::new(Answer::new(version, content.clone()));
                self.0.cache.insert(key, answer.clone());
                return Ok((answer, content));
            }
            if Instant::now() >= deadline {
                return Err(ReadError::NotYet);
            }
            if source == ReadSource::Replica {
                if began.elapsed() >= Duration::from_millis(REPLICA_WAIT_MS_MAX) {
                    source = ReadSource::Primary;
                } else {
                    pause().await;
                }
                continue;
            }
            if !switched {
                pause().await;
            }
            version = self.0.owner_versions.look_up_at_primary(owner).await?;
        }
    }

    fn join(&self, key: LoadKey) -> Joined<'_> {
        let load = self.loads().entry(key.clone()).or_default().clone();
        Joined { reads: self, key, load }
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<LoadKey, Load>> {
        self.0.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a load. The last one that is dropped removes it.
struct Joined<'a> {
    reads: &'a Reads,
    key: LoadKey,
    load: Load,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut loads = self.reads.loads();
        let ours = loads.get(&self.key).is_some_and(|load| Arc::ptr_eq(load, &self.load));
        // What is loaded is in the cache; nothing joins it any more.
        if ours && (self.load.initialized() || Arc::strong_count(&self.load) == 2) {
            loads.remove(&self.key);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use access::token::RootSecret;
    use futures_util::future::join_all;
    use sqlx::postgres::PgConnectOptions;

    use super::*;
    use crate::answer::Etag;

    const ROW: VersionRow = VersionRow {
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

        async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let body = bytes::Bytes::from(format!("{count}"));
            Ok(Loaded {
                live_generation: 1,
                row: *scope.shown,
                content: Some(Content { body, etag: Etag::OwnerVersion, link: None }),
            })
        }
    }

    fn reads() -> Reads {
        let secret = RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).unwrap();
        let sources = Sources::of(crate::connect::connect(PgConnectOptions::new(), 1));
        Reads::new(sources.clone(), OwnerVersions::new(sources, Sealer::new(&secret), None))
    }

    #[tokio::test]
    async fn equal_requests_at_the_same_time_wait_for_one_answer() {
        let (reads, query) = (reads(), Slow::default());
        let version = reads.owner_versions().seen(OWNER, Instant::now(), ROW);
        let answers = join_all((0..200).map(|_| reads.answer(OWNER, version.clone(), &query))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().body == "1"));
        assert_eq!(reads.answer(OWNER, version, &query).await.unwrap().body, "1", "from the cache");
        let later = reads.owner_versions().seen(OWNER, Instant::now(), VersionRow { change_counter: Some(6), ..ROW });
        assert_eq!(reads.answer(OWNER, later, &query).await.unwrap().body, "2", "another version");
        assert!(reads.loads().is_empty());
    }

    #[tokio::test]
    async fn another_request_goes_on_when_the_first_one_goes_away() {
        let (reads, query) = (reads(), Slow::default());
        let version = reads.owner_versions().seen(OWNER, Instant::now(), ROW);
        let first = tokio::time::timeout(Duration::from_millis(5), reads.answer(OWNER, version.clone(), &query));
        let (first, second) = tokio::join!(first, reads.answer(OWNER, version, &query));
        assert!(first.is_err());
        assert_eq!(second.unwrap().body, "2");
        assert!(reads.loads().is_empty());
    }
}
