//! The versions ([`super::versions`]) of owners who looked back lately.
//!
//! They are loaded by the first read that looks back, brought up to date by what the history has beyond their revision, and
//! loaded anew where that does not do. What a read takes from them and what it reads beside them is one snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use backends::database::{Pool, PoolTransaction};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use uuid::Uuid;

use super::moments::MomentCounts;
use super::versions::{Held, Versions, count_at, tasks_at};
use crate::as_of::AsOf;
use crate::error::ReadError;
use crate::list::columns::leads_to;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{ReadSource, Reads};
use crate::sources::snapshot;

/// Bytes of all versions together, and so of each owner's.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// What an entry costs beside its rows.
const ENTRY_BYTES: usize = 1_000;
/// Tasks of an owner at one time, where their versions are not kept in memory.
const TASKS_MAX: usize = 2_000_000;
/// Tries while other reads bring the versions past this one's snapshot.
const TRIES_MAX: u32 = 10;

/// The versions of all owners who have some in memory. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Past(Arc<Mutex<HashMap<Uuid, Entry>>>);

struct Entry {
    versions: Arc<RwLock<Option<Versions>>>,
    bytes: usize,
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
    /// The owner's tasks as they were then, and the snapshot that they are from. Without any where another generation is live.
    pub async fn tasks_at(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
        as_of: AsOf,
    ) -> Result<(Snapshot, Option<Held>), ReadError> {
        let (mut snapshot, opened) = self.open(reads, source, owner, shown).await?;
        let held = match opened {
            Opened::Versions(versions) => Some(versions.at(as_of)),
            Opened::Unkept(version) => {
                let held = tasks_at(&mut snapshot.transaction, owner, version, as_of, TASKS_MAX).await?;
                Some(held.ok_or_else(|| {
                    tracing::error!(%owner, tasks_max = TASKS_MAX, "an owner has too many tasks for a list as of a time");
                    ReadError::Unavailable
                })?)
            }
            Opened::Nothing => None,
        };
        Ok((snapshot, held))
    }

    /// Counts the owner's tasks at each moment. Returns what is live, and the snapshot's version.
    pub async fn count(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
        mut counts: MomentCounts,
    ) -> Result<(i32, VersionRow, MomentCounts), ReadError> {
        let (mut snapshot, opened) = self.open(reads, source, owner, shown).await?;
        match opened {
            Opened::Versions(versions) => versions.count(&mut counts),
            Opened::Unkept(version) => count_at(&mut snapshot.transaction, owner, version, &mut counts).await?,
            Opened::Nothing => {}
        }
        snapshot.transaction.commit().await?;
        Ok((snapshot.live_generation, snapshot.row, counts))
    }

    async fn open(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
    ) -> Result<(Snapshot, Opened), ReadError> {
        let entry = self.entry(owner);
        for _ in 0..TRIES_MAX {
            // Whoever waits for the rows to be loaded holds no connection.
            drop(entry.read().await);
            let mut snapshot = Snapshot::take(reads.pool(source), owner, shown.generation).await?;
            let Some(version) = snapshot.version() else { return Ok((snapshot, Opened::Nothing)) };
            if !reads.is_nearest(source) || Versions::bytes_of(events(&version)) > BYTES_MAX {
                return Ok((snapshot, Opened::Unkept(version)));
            }
            if let Some(versions) = versions(entry.clone().read_owned().await)
                && versions.version == version
            {
                return Ok((snapshot, Opened::Versions(versions)));
            }
            let mut versions = entry.clone().write_owned().await;
            let caught_up = match versions.as_mut() {
                None => false,
                Some(versions) if versions.version == version => true,
                // Another read has brought them past this snapshot.
                Some(versions) if leads_to(&version, &versions.version) => continue,
                Some(versions) => versions.catch_up(&mut snapshot.transaction, owner, version).await?,
            };
            if !caught_up {
                *versions = None;
                *versions = Some(Versions::load(&mut snapshot.transaction, owner, version).await?);
            }
            self.set_bytes(owner, versions.as_ref().map_or(0, Versions::bytes));
            if let Some(versions) = self::versions(versions.downgrade()) {
                return Ok((snapshot, Opened::Versions(versions)));
            }
        }
        Err(ReadError::NotYet)
    }

    fn entry(&self, owner: Uuid) -> Arc<RwLock<Option<Versions>>> {
        let mut entries = self.entries();
        let new = || Entry { versions: Arc::default(), bytes: ENTRY_BYTES, used_at: Instant::now() };
        let entry = entries.entry(owner).or_insert_with(new);
        entry.used_at = Instant::now();
        entry.versions.clone()
    }

    fn set_bytes(&self, owner: Uuid, bytes: usize) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&owner) {
            entry.bytes = ENTRY_BYTES + bytes;
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
    async fn take(pool: &Pool, owner: Uuid, generation: i32) -> Result<Self, ReadError> {
        let mut transaction = snapshot(pool).await?;
        let row = sqlx::query!(
            r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
                   o.change_counter as "change_counter?", o.parked_position as "parked_position?",
                   $1 >= t.complete_from as "is_complete!"
               from read_model.projection p
               join read_model.projected_table t on t.name = 'task_version'
               left join read_model.owner o on o.generation = $1 and o.owner_id = $2"#,
            generation,
            owner
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
