//! The columns ([`super::columns`]) of owners with many tasks.
//!
//! They are loaded when a list was not found by walking, or statistics were counted, with the tasks' texts when one was searched
//! for, brought up to date by what the history has beyond their revision, and dropped when that does not do (another generation,
//! a mended event, a database that was set back).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backends::database::Pool;
use process::context;
use read_model::search::Query;
use tokio::sync::{Mutex as AsyncMutex, watch};
use uuid::Uuid;

use super::columns::{BYTES_MAX, Columns, Outcome, TASKS_MAX};
use super::query::{self, Page};
use crate::error::ReadError;
use crate::owner_version::VersionRow;
use crate::reads::ReadScope;
use crate::search;
use crate::sources::planned;

/// Owners with fewer tasks do without: whatever Postgres does is quick enough.
const TASKS_MIN: i64 = 2_000;
/// What an entry costs beside its tasks.
const ENTRY_BYTES: usize = 4_000;
/// How long no columns are loaded for an owner for whom they took too much, seconds.
const TOO_LARGE_S: u64 = 600;
/// How long loading them may take. The database ends a statement before that, if it lives.
const LOADING_MS_MAX: u64 = 20_000;
/// Tries while the owner's tasks change under way.
const TRIES_MAX: u32 = 4;

/// The columns of all owners that have them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ColumnCache(Arc<Inner>);

struct Inner {
    pool: Pool,
    entries: Mutex<HashMap<Key, Entry>>,
}

/// Whose columns, and whether with texts: those do for whatever the others do for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    owner: Uuid,
    with_texts: bool,
}

enum Entry {
    /// Being loaded, until the sender is dropped.
    Loading {
        tasks: i64,
        loaded: watch::Receiver<()>,
    },
    /// They take too many bytes.
    TooLarge {
        since: Instant,
    },
    Loaded {
        columns: Arc<AsyncMutex<Columns>>,
        bytes: usize,
        used_at: Instant,
    },
}

impl ColumnCache {
    pub fn new(pool: Pool) -> Self {
        Self(Arc::new(Inner { pool, entries: Mutex::default() }))
    }

    /// The tasks whose ids `look` finds in the owner's columns, in that order, and what else it finds. `None`: they have none, or
    /// none that can be brought up to date.
    pub(crate) async fn page<T>(
        &self,
        shown: &VersionRow,
        owner: Uuid,
        with_texts: bool,
        look: impl Fn(&Columns) -> (Vec<Uuid>, T),
    ) -> Result<Option<(Page, T)>, ReadError> {
        let generation = shown.generation;
        let mut newest = *shown;
        for _ in 0..TRIES_MAX {
            let look = |columns: &Columns| (columns.version, look(columns));
            let Some((version, (ids, found))) = self.with_columns(&newest, owner, with_texts, look).await? else {
                return Ok(None);
            };
            let page = query::by_ids(&self.0.pool, generation, owner, &ids).await?;
            newest = page.row;
            if newest == version {
                return Ok(Some((page, found)));
            }
        }
        Ok(None)
    }

    /// What `look` makes of the owner's columns at the newest version, or a later one. `None`: they have none, or none that
    /// can be brought up to date.
    async fn with_columns<T>(
        &self,
        newest: &VersionRow,
        owner: Uuid,
        with_texts: bool,
        look: impl FnOnce(&Columns) -> T,
    ) -> Result<Option<T>, ReadError> {
        let Some((key, columns)) = self.get(owner, with_texts) else { return Ok(None) };
        let mut columns = columns.lock().await;
        if *newest != columns.version && !columns.catch_up(&self.0.pool, newest.generation, owner).await? {
            drop(columns);
            self.entries().remove(&key);
            return Ok(None);
        }
        self.set_bytes(key, ENTRY_BYTES + columns.bytes());
        Ok(Some(look(&columns)))
    }

    /// Shows all tasks of the owner to `count`, at once or in parts, or those that match `q`; columns with texts show all, for
    /// these to be told by a [matcher](Columns::matcher). From their columns, or where they have none from the database, which takes a
    /// millisecond for 500 tasks. Returns what is live, and the snapshot's version.
    pub(crate) async fn count(
        &self,
        scope: ReadScope<'_>,
        q: Option<&Query>,
        mut count: impl FnMut(&Columns) + Send,
    ) -> Result<(i32, VersionRow), ReadError> {
        let (generation, owner) = (scope.generation(), scope.owner);
        if scope.is_nearest() {
            let version = self.with_columns(scope.shown, owner, q.is_some(), |columns| {
                count(columns);
                columns.version
            });
            if let Some(version) = version.await? {
                return Ok((generation, version));
            }
        }
        let mut tasks = 0;
        let mut transaction = planned(scope.pool()).await?;
        let matches = match q {
            Some(query) => Some(search::matches(&mut transaction, generation, owner, query).await?),
            None => None,
        };
        let found = matches.as_ref().map(|matches| matches.ids.as_slice());
        let read = Columns::read_in_parts(&mut transaction, generation, owner, found, |part| {
            tasks += part.len();
            count(part);
        });
        let (live_generation, version) = read.await?;
        transaction.commit().await?;
        if scope.is_nearest() {
            let tasks = matches.map_or_else(|| i64::try_from(tasks).unwrap_or(i64::MAX), |matches| matches.of_tasks);
            self.request(generation, owner, tasks, q.is_some());
        }
        Ok((live_generation, version))
    }

    /// Whether the owner's columns are there: then [`Self::count`] takes less than a pass over the rows.
    pub(crate) fn has(&self, owner: Uuid) -> bool {
        self.get(owner, false).is_some()
    }

    /// Has columns loaded for an owner with this many tasks, in the background, if these are many.
    pub(crate) fn request(&self, generation: i32, owner: Uuid, tasks: i64, with_texts: bool) {
        if tasks >= TASKS_MIN {
            self.load(generation, Key { owner, with_texts }, tasks);
        }
    }

    /// Has columns with texts loaded for an owner with this many tasks, and waits for them. False: they are not there yet.
    pub(crate) async fn texts(&self, generation: i32, owner: Uuid, tasks: i64, wait_ms_max: u64) -> bool {
        let key = Key { owner, with_texts: true };
        self.request_texts(generation, owner, tasks);
        let loading = match self.entries().get(&key) {
            Some(Entry::Loading { loaded, .. }) => Some(loaded.clone()),
            _ => None,
        };
        if let Some(mut loaded) = loading {
            let limit = Duration::from_millis(wait_ms_max);
            // Nothing is sent: it ends with an error.
            let _loaded = context::without_permit(tokio::time::timeout(limit, loaded.changed())).await;
        }
        tasks > TASKS_MAX || matches!(self.entries().get(&key), Some(Entry::Loaded { .. } | Entry::TooLarge { .. }))
    }

    /// Has columns with texts loaded for an owner with this many tasks, in the background.
    pub(crate) fn request_texts(&self, generation: i32, owner: Uuid, tasks: i64) {
        self.load(generation, Key { owner, with_texts: true }, tasks);
    }

    fn load(&self, generation: i32, key: Key, tasks: i64) {
        if tasks > TASKS_MAX {
            return;
        }
        let (done, loaded) = watch::channel(());
        {
            let mut entries = self.entries();
            entries.retain(|_, entry| !entry.may_be_forgotten());
            // One at a time of those that take long.
            let is_long = |tasks: i64| tasks >= TASKS_MIN;
            let loads_long = |entry: &Entry| matches!(entry, Entry::Loading { tasks, .. } if is_long(*tasks));
            if entries.contains_key(&key) || is_long(tasks) && entries.values().any(loads_long) {
                return;
            }
            let has_texts = Key { with_texts: true, ..key };
            if matches!(entries.get(&has_texts), Some(Entry::Loaded { .. })) {
                return;
            }
            entries.insert(key, Entry::Loading { tasks, loaded });
        }
        let cache = self.clone();
        tokio::spawn(async move {
            let loading = Columns::load(&cache.0.pool, generation, key.owner, key.with_texts);
            let loaded = tokio::time::timeout(Duration::from_millis(LOADING_MS_MAX), loading).await;
            cache.insert(key, loaded.unwrap_or(Err(sqlx::Error::PoolTimedOut)));
            drop(done);
        });
    }

    fn insert(&self, key: Key, loaded: Result<Outcome, sqlx::Error>) {
        let mut entries = self.entries();
        entries.remove(&key);
        match loaded {
            Ok(Outcome::Columns(columns)) => {
                let bytes = ENTRY_BYTES + columns.bytes();
                let columns = Arc::new(AsyncMutex::new(columns));
                entries.insert(key, Entry::Loaded { columns, bytes, used_at: Instant::now() });
                if key.with_texts {
                    entries.remove(&Key { with_texts: false, ..key });
                }
                make_room(&mut entries);
            }
            Ok(Outcome::TooLarge) => {
                entries.insert(key, Entry::TooLarge { since: Instant::now() });
            }
            Ok(Outcome::Nothing) => {}
            Err(error) => tracing::error!(%error, "loading the columns of an owner's tasks"),
        }
    }

    fn set_bytes(&self, key: Key, bytes_now: usize) {
        let mut entries = self.entries();
        let Some(Entry::Loaded { bytes, .. }) = entries.get_mut(&key) else { return };
        if *bytes != bytes_now {
            *bytes = bytes_now;
            make_room(&mut entries);
        }
    }

    fn get(&self, owner: Uuid, with_texts: bool) -> Option<(Key, Arc<AsyncMutex<Columns>>)> {
        let keys = [true, false].into_iter().filter(|has_texts| *has_texts || !with_texts);
        let mut entries = self.entries();
        keys.map(|with_texts| Key { owner, with_texts }).find_map(|key| match entries.get_mut(&key)? {
            Entry::Loading { .. } | Entry::TooLarge { .. } => None,
            Entry::Loaded { columns, used_at, .. } => {
                *used_at = Instant::now();
                Some((key, columns.clone()))
            }
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn may_be_forgotten(&self) -> bool {
        matches!(self, Self::TooLarge { since } if since.elapsed() >= Duration::from_secs(TOO_LARGE_S))
    }
}

/// Drops what was not used for longest.
fn make_room(entries: &mut HashMap<Key, Entry>) {
    loop {
        let loaded = || {
            entries.iter().filter_map(|(key, entry)| match entry {
                Entry::Loading { .. } | Entry::TooLarge { .. } => None,
                Entry::Loaded { bytes, used_at, .. } => Some((*used_at, *key, *bytes)),
            })
        };
        if loaded().map(|(_, _, bytes)| bytes).sum::<usize>() <= BYTES_MAX {
            return;
        }
        let Some((_, oldest, _)) = loaded().min() else { return };
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::super::columns::TASK_BYTES;
    use super::super::columns::tests::{add, columns};
    use super::*;

    fn key(owner: u128) -> Key {
        Key { owner: Uuid::from_u128(owner), with_texts: false }
    }

    fn get(cache: &ColumnCache, Key { owner, with_texts }: Key) -> Option<Arc<AsyncMutex<Columns>>> {
        cache.get(owner, with_texts).map(|(_, columns)| columns)
    }

    #[tokio::test]
    async fn columns_that_grow_make_room_for_themselves() {
        let cache = ColumnCache::new(crate::connect::connect(PgConnectOptions::new(), 1));
        let (old, growing, gone) = (key(1), key(2), key(3));
        let third = BYTES_MAX / TASK_BYTES / 3;
        for key in [old, growing] {
            cache.insert(key, Ok(Outcome::Columns(columns(third))));
        }
        assert!(get(&cache, old).is_some(), "both fit");
        let taken = get(&cache, growing).unwrap();
        let mut grown = taken.lock().await;
        add(&mut grown, third / 2);
        cache.set_bytes(growing, grown.bytes());
        assert!(get(&cache, old).is_none(), "not used for longest");
        assert!(get(&cache, growing).is_some());
        cache.set_bytes(gone, BYTES_MAX);
        cache.set_bytes(growing, BYTES_MAX + 1);
        assert!(cache.entries().is_empty(), "more than all may take");
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_made_again_and_again() {
        let cache = ColumnCache::new(crate::connect::connect(PgConnectOptions::new(), 1));
        let key = key(1);
        cache.insert(key, Ok(Outcome::TooLarge));
        assert!(get(&cache, key).is_none());
        cache.request(1, key.owner, TASKS_MIN, false);
        assert!(matches!(cache.entries().get(&key), Some(Entry::TooLarge { .. })), "it is not being made");
    }
}
