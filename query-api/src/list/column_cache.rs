//! The columns ([`super::columns`]) of owners with many tasks.
//!
//! They are loaded when a list was not found by walking, brought up to date by what the history has beyond their revision,
//! and dropped when that does not do (another generation, a mended event, a database that was set back).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backends::database::Pool;
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::columns::{BYTES_MAX, Columns, Outcome, TASKS_MAX};
use super::query::{self, Page};
use super::request::ListRequest;
use crate::error::ReadError;
use crate::owner_version::VersionRow;
use crate::reads::{ReadSource, Reads};

/// Owners with fewer tasks do without: whatever Postgres does is quick enough.
const TASKS_MIN: i64 = 2_000;
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
    entries: Mutex<HashMap<Uuid, Entry>>,
}

enum Entry {
    /// Being loaded.
    Loading,
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

    /// The page, if the owner has columns that can be brought up to date.
    pub(super) async fn page(
        &self,
        shown: &VersionRow,
        owner: Uuid,
        request: &ListRequest,
    ) -> Result<Option<Page>, ReadError> {
        let generation = shown.generation;
        let mut newest = *shown;
        for _ in 0..TRIES_MAX {
            let found = self.with_columns(&newest, owner, |columns| (columns.version, columns.find(request))).await?;
            let Some((version, ids)) = found else { return Ok(None) };
            let page = query::by_ids(&self.0.pool, generation, owner, &ids).await?;
            newest = page.row;
            if newest == version {
                return Ok(Some(page));
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
        look: impl FnOnce(&Columns) -> T,
    ) -> Result<Option<T>, ReadError> {
        let Some(columns) = self.get(owner) else { return Ok(None) };
        let mut columns = columns.lock().await;
        if *newest != columns.version && !columns.catch_up(&self.0.pool, newest.generation, owner).await? {
            drop(columns);
            self.entries().remove(&owner);
            return Ok(None);
        }
        self.set_bytes(owner, columns.bytes());
        Ok(Some(look(&columns)))
    }

    /// Shows all tasks of the owner to `count`, at once or in parts: from their columns, or where they have none from the
    /// database, which takes a millisecond for 500 tasks. Returns what is live, and the snapshot's version.
    pub(crate) async fn count(
        &self,
        reads: &Reads,
        source: ReadSource,
        shown: &VersionRow,
        owner: Uuid,
        mut count: impl FnMut(&Columns) + Send,
    ) -> Result<(i32, VersionRow), ReadError> {
        let generation = shown.generation;
        if reads.is_nearest(source) {
            let version = self.with_columns(shown, owner, |columns| {
                count(columns);
                columns.version
            });
            if let Some(version) = version.await? {
                return Ok((generation, version));
            }
        }
        let mut tasks = 0;
        let read = Columns::read_in_parts(reads.pool(source), generation, owner, |part| {
            tasks += part.len();
            count(part);
        });
        let (live_generation, version) = read.await?;
        if reads.is_nearest(source) {
            self.request(generation, owner, i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        Ok((live_generation, version))
    }

    /// Has columns loaded for an owner with this many tasks, in the background.
    pub(super) fn request(&self, generation: i32, owner: Uuid, tasks: i64) {
        if !(TASKS_MIN..=TASKS_MAX).contains(&tasks) {
            return;
        }
        {
            let mut entries = self.entries();
            entries.retain(|_, entry| !entry.may_be_forgotten());
            // One at a time: it is a long statement.
            if entries.contains_key(&owner) || entries.values().any(|entry| matches!(entry, Entry::Loading)) {
                return;
            }
            entries.insert(owner, Entry::Loading);
        }
        let cache = self.clone();
        tokio::spawn(async move {
            let loading = Columns::load(&cache.0.pool, generation, owner);
            let loaded = tokio::time::timeout(Duration::from_millis(LOADING_MS_MAX), loading).await;
            cache.insert(owner, loaded.unwrap_or(Err(sqlx::Error::PoolTimedOut)));
        });
    }

    fn insert(&self, owner: Uuid, loaded: Result<Outcome, sqlx::Error>) {
        let mut entries = self.entries();
        entries.remove(&owner);
        match loaded {
            Ok(Outcome::Columns(columns)) => {
                let bytes = columns.bytes();
                let columns = Arc::new(AsyncMutex::new(columns));
                entries.insert(owner, Entry::Loaded { columns, bytes, used_at: Instant::now() });
                make_room(&mut entries);
            }
            Ok(Outcome::TooLarge) => {
                entries.insert(owner, Entry::TooLarge { since: Instant::now() });
            }
            Ok(Outcome::Nothing) => {}
            Err(error) => tracing::error!(%error, "loading the columns of an owner's tasks"),
        }
    }

    fn set_bytes(&self, owner: Uuid, bytes_now: usize) {
        let mut entries = self.entries();
        let Some(Entry::Loaded { bytes, .. }) = entries.get_mut(&owner) else { return };
        if *bytes != bytes_now {
            *bytes = bytes_now;
            make_room(&mut entries);
        }
    }

    fn get(&self, owner: Uuid) -> Option<Arc<AsyncMutex<Columns>>> {
        match self.entries().get_mut(&owner)? {
            Entry::Loading | Entry::TooLarge { .. } => None,
            Entry::Loaded { columns, used_at, .. } => {
                *used_at = Instant::now();
                Some(columns.clone())
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn may_be_forgotten(&self) -> bool {
        matches!(self, Self::TooLarge { since } if since.elapsed() >= Duration::from_secs(TOO_LARGE_S))
    }
}

/// Drops what was not used for longest.
fn make_room(entries: &mut HashMap<Uuid, Entry>) {
    loop {
        let loaded = || {
            entries.iter().filter_map(|(owner, entry)| match entry {
                Entry::Loading | Entry::TooLarge { .. } => None,
                Entry::Loaded { bytes, used_at, .. } => Some((*used_at, *owner, *bytes)),
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

    #[tokio::test]
    async fn columns_that_grow_make_room_for_themselves() {
        let cache = ColumnCache::new(crate::connect::connect(PgConnectOptions::new(), 1));
        let (old, growing, gone) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let third = BYTES_MAX / TASK_BYTES / 3;
        for owner in [old, growing] {
            cache.insert(owner, Ok(Outcome::Columns(columns(third))));
        }
        assert!(cache.get(old).is_some(), "both fit");
        let taken = cache.get(growing).unwrap();
        let mut grown = taken.lock().await;
        add(&mut grown, third / 2);
        cache.set_bytes(growing, grown.bytes());
        assert!(cache.get(old).is_none(), "not used for longest");
        assert!(cache.get(growing).is_some());
        cache.set_bytes(gone, BYTES_MAX);
        cache.set_bytes(growing, BYTES_MAX + 1);
        assert!(cache.entries().is_empty(), "more than all may take");
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_made_again_and_again() {
        let cache = ColumnCache::new(crate::connect::connect(PgConnectOptions::new(), 1));
        let owner = Uuid::from_u128(1);
        cache.insert(owner, Ok(Outcome::TooLarge));
        assert!(cache.get(owner).is_none());
        cache.request(1, owner, TASKS_MIN);
        assert!(matches!(cache.entries().get(&owner), Some(Entry::TooLarge { .. })), "it is not being made");
    }
}
