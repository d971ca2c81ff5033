//! The versions ([`super::versions`]) of owners who looked back lately.
//!
//! They are loaded by the first read that looks back, brought up to date by what the history has beyond their revision, and
//! loaded anew where that does not do. What a read takes from them and what it reads beside them is one snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use backends::database::PoolTransaction;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use uuid::Uuid;

use super::held::Held;
use super::unkept::{self, HeldMax};
use super::versions::Versions;
use crate::as_of::AsOf;
use crate::error::ReadError;
use crate::list::columns::leads_to;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::ReadScope;

/// Bytes of all versions together, and so of each owner's.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// What an entry costs beside its rows.
const ENTRY_BYTES: usize = 1_000;
/// What is held of an owner's tasks for one read, where their versions are not kept in memory.
const HELD_MAX: HeldMax = HeldMax { tasks: 2_000_000, text_bytes: BYTES_MAX };
/// Tries while other reads bring the versions past this one's snapshot.
const TRIES_MAX: u32 = 10;

/// The versions of all owners who have some in memory. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Past(Arc<Mutex<HashMap<Uuid, Entry>>>);

struct Entry {
    versions: Arc<RwLock<Option<Versions>>>,
    bytes: usize,
    /// They took more than all may: they are not loaded again.
    too_large: bool,
    used_at: Instant,
}

/// The snapshot that a read is made from.
pub(crate) struct Snapshot {
    pub transaction: PoolTransaction,
    pub row: VersionRow,
    /// Other than the row's where a rebuild has just switched: then there is nothing in the snapshot.
    pub live_generation: i32,
}

/// An owner's versions, of a snapshot.
enum Opened {
    Versions(OwnedRwLockReadGuard<Option<Versions>, Versions>),
    /// They are not kept in memory.
    Unkept(VersionRow),
    /// There is no such owner, or another generation is live.
    Nothing,
}

impl Past {
    /// The owner's tasks as they were then, to be `sorted_by_text` or not, and the snapshot that they are from. Without any where
    /// another generation is live. While they are there, the owner's versions cannot be brought up to date.
    pub async fn tasks_at(
        &self,
        scope: ReadScope<'_>,
        as_of: AsOf,
        sorted_by_text: bool,
    ) -> Result<(Snapshot, Option<Held>), ReadError> {
        let owner = scope.owner;
        let (mut snapshot, opened) = self.open(scope).await?;
        let held = match opened {
            Opened::Versions(versions) => Some(Held::of(versions, as_of)),
            Opened::Unkept(version) => {
                let connection = &mut snapshot.transaction;
                let held = unkept::tasks_at(connection, owner, version, as_of, sorted_by_text, HELD_MAX).await?;
                Some(held.ok_or_else(|| {
                    let HeldMax { tasks: tasks_max, text_bytes: text_bytes_max } = HELD_MAX;
                    tracing::error!(%owner, tasks_max, text_bytes_max, "an owner has too many tasks for a list as of a time");
                    ReadError::Unavailable
                })?)
            }
            Opened::Nothing => None,
        };
        Ok((snapshot, held))
    }

    /// How many of the owner's tasks had which status at each of these moments, in microseconds, none earlier than the one before;
    /// with what is live, and the snapshot's version.
    pub async fn count(
        &self,
        scope: ReadScope<'_>,
        moments_us: Vec<i64>,
    ) -> Result<(i32, VersionRow, Vec<[i64; 4]>), ReadError> {
        let (mut snapshot, opened) = self.open(scope).await?;
        let counts = match opened {
            Opened::Versions(versions) => versions.count(&moments_us),
            Opened::Unkept(version) => {
                unkept::count(&mut snapshot.transaction, scope.owner, version, moments_us).await?
            }
            Opened::Nothing => vec![[0; 4]; moments_us.len()],
        };
        snapshot.transaction.commit().await?;
        Ok((snapshot.live_generation, snapshot.row, counts))
    }

    async fn open(&self, scope: ReadScope<'_>) -> Result<(Snapshot, Opened), ReadError> {
        let owner = scope.owner;
        let entry = self.entry(owner);
        for _ in 0..TRIES_MAX {
            // Whoever waits for the rows to be loaded holds no connection.
            drop(entry.read().await);
            let mut snapshot = Snapshot::take(scope).await?;
            let Some(version) = snapshot.version() else { return Ok((snapshot, Opened::Nothing)) };
            let too_large = Versions::bytes_of(events(&version)) > BYTES_MAX || self.were_too_large(owner);
            if !scope.is_nearest() || too_large {
                return Ok((snapshot, Opened::Unkept(version)));
            }
            if let Some(versions) = versions(entry.clone().read_owned().await)
                && versions.version == version
            {
                return Ok((snapshot, Opened::Versions(versions)));
            }
            let mut versions = entry.clone().write_owned().await;
            let caught_up = match versions.as_mut() {
                // Another read has found that out while this one waited.
                None if self.were_too_large(owner) => return Ok((snapshot, Opened::Unkept(version))),
                None => false,
                Some(versions) if versions.version == version => true,
                // Another read has brought them past this snapshot.
                Some(versions) if leads_to(&version, &versions.version) => continue,
                Some(versions) => versions.catch_up(&mut snapshot.transaction, owner, version).await?,
            };
            if !caught_up {
                *versions = None;
                *versions = Versions::load(&mut snapshot.transaction, owner, version, BYTES_MAX).await?;
            }
            // `None`: their texts alone take more than all may.
            self.set_bytes(owner, versions.as_ref().map_or(BYTES_MAX, Versions::bytes));
            let opened = self::versions(versions.downgrade()).map_or(Opened::Unkept(version), Opened::Versions);
            return Ok((snapshot, opened));
        }
        Err(ReadError::NotYet)
    }

    fn entry(&self, owner: Uuid) -> Arc<RwLock<Option<Versions>>> {
        let mut entries = self.entries();
        let new = || Entry { versions: Arc::default(), bytes: ENTRY_BYTES, too_large: false, used_at: Instant::now() };
        let entry = entries.entry(owner).or_insert_with(new);
        entry.used_at = Instant::now();
        entry.versions.clone()
    }

    fn were_too_large(&self, owner: Uuid) -> bool {
        self.entries().get(&owner).is_some_and(|entry| entry.too_large)
    }

    fn set_bytes(&self, owner: Uuid, bytes: usize) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&owner) {
            entry.too_large = bytes > BYTES_MAX - ENTRY_BYTES;
            entry.bytes = ENTRY_BYTES + if entry.too_large { 0 } else { bytes };
            if entry.too_large {
                // Whoever has them keeps them until they have answered.
                entry.versions = Arc::default();
            }
        }
        // What was not used for longest goes.
        while entries.values().map(|entry| entry.bytes).sum::<usize>() > BYTES_MAX {
            let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used_at).map(|(owner, _)| *owner) else {
                return;
            };
            entries.remove(&oldest);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's events that are applied: the counter's upper half counts parking.
fn events(version: &VersionRow) -> usize {
    version.change_counter.and_then(|counter| usize::try_from(counter & 0xffff_ffff).ok()).unwrap_or(0)
}

fn versions(guard: OwnedRwLockReadGuard<Option<Versions>>) -> Option<OwnedRwLockReadGuard<Option<Versions>, Versions>> {
    OwnedRwLockReadGuard::try_map(guard, Option::as_ref).ok()
}

impl Snapshot {
    async fn take(scope: ReadScope<'_>) -> Result<Self, ReadError> {
        let generation = scope.generation();
        let mut transaction = scope.pool().begin_snapshot().await?;
        let row = sqlx::query!(
            r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
                   o.change_counter as "change_counter?", o.parked_position as "parked_position?",
                   $1 >= t.complete_from as "is_complete!"
               from read_model.projection p
               join read_model.projected_table t on t.name = 'task_version'
               left join read_model.owner o on o.generation = $1 and o.owner_id = $2"#,
            generation,
            scope.owner
        )
        .fetch_one(&mut *transaction)
        .await?;
        if row.live_generation == generation && !row.is_complete {
            tracing::error!(generation, "lists as of a time need a rebuild of the read models: primetrade rebuild");
            return Err(ReadError::Unavailable);
        }
        let live_generation = row.live_generation;
        Ok(Self { transaction, row: version_row!(row, generation: generation), live_generation })
    }

    /// `None`: there is nothing in it.
    fn version(&self) -> Option<VersionRow> {
        let is_live = self.live_generation == self.row.generation;
        (is_live && self.row.change_counter.is_some()).then_some(self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_is_not_loaded_again_and_drives_nobody_out() {
        let (past, large, small) = (Past::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        let (versions, _) = (past.entry(large), past.entry(small));
        past.set_bytes(small, BYTES_MAX / 2);
        past.set_bytes(large, BYTES_MAX);
        assert!(past.were_too_large(large) && !past.were_too_large(small));
        assert_eq!(past.entries().len(), 2, "nobody was driven out");
        assert!(!Arc::ptr_eq(&versions, &past.entry(large)), "it does not keep them");
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let (past, old, new) = (Past::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        for owner in [old, new] {
            past.entry(owner);
            past.set_bytes(owner, BYTES_MAX / 2);
        }
        assert!(!past.entries().contains_key(&old) && past.entries().contains_key(&new));
    }
}
