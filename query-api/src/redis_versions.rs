//! Owner versions that processes share through Redis, for a few seconds.
//!
//! A version says when it was so. It is believed for [`OWNER_VERSION_MS_MAX`], by this process's clock, and only from a Redis
//! that has been there for longer than that; and only by a process that has shown nothing newer ([`crate::owner_versions`]).
//! So nothing here can make an answer wrong, whatever the Redis does (docs/redis.md has the cases).

use std::collections::HashMap;
use std::sync::Arc;

use backends::redis::Redis;
use domain::{OwnerId, Time};
use process::clock;
use read_model::{CachedOwnerVersion, OWNER_VERSION_MS_MAX, OwnerRow, ReadModelId, WRITE_OWNER_VERSIONS};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::owner_version::{Owner, VersionRow};

/// How far the clocks of two machines may be apart; where they are further, versions are not believed.
const CLOCKS_APART_MS_MAX: i64 = 1_000;
/// A Redis must have been there for so long: then it holds no believable version from before.
const SETTLED_MS: u64 = (OWNER_VERSION_MS_MAX + CLOCKS_APART_MS_MAX) as u64;
// a connection that takes the place of an older one has settled by then
const _: () = assert!(SETTLED_MS < backends::redis::OVERLAP_MS);
/// For so long a process must remember what it has shown.
pub(crate) const REMEMBERED_MS_MIN: u64 = SETTLED_MS + 1_000;
/// Scripts under way.
const REFILLS_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct RedisVersions {
    redis: Redis,
    refills: Arc<Semaphore>,
}

impl RedisVersions {
    pub fn new(redis: Redis) -> Self {
        Self { redis, refills: Arc::new(Semaphore::new(REFILLS_MAX)) }
    }

    /// The versions of these owners, as far as Redis has them and is to be believed.
    pub async fn versions(&self, read_model: &ReadModelId, owners: &[Owner]) -> HashMap<Uuid, VersionRow> {
        let keys: Vec<String> = owners.iter().map(|owner| read_model.owner_key(OwnerId(owner.id))).collect();
        let Ok(values) = self.redis.settled_values(&keys, SETTLED_MS).await else { return HashMap::new() };
        let now_ms = clock::now().timestamp_millis();
        let known = owners.iter().zip(values).filter_map(|(owner, value)| {
            let row = believed(&value?, read_model, *owner, now_ms)?;
            Some((owner.id, row))
        });
        known.collect()
    }

    /// Writes the versions that the primary had at `asked_at`, in the background, unless too much of that is under way:
    /// then they are missed again.
    pub fn refill(&self, read_model: &ReadModelId, asked_at: Time, rows: &[(Uuid, VersionRow)]) {
        if !self.redis.is_up() {
            return;
        }
        let Ok(permit) = self.refills.clone().try_acquire_owned() else { return };
        let as_of_ms = asked_at.timestamp_millis();
        let mut keys = Vec::with_capacity(rows.len());
        let mut arguments = Vec::with_capacity(rows.len() + 1);
        arguments.push((as_of_ms + OWNER_VERSION_MS_MAX).to_string());
        for (owner, row) in rows {
            keys.push(read_model.owner_key(OwnerId(*owner)));
            arguments.push(cached(row, *owner, as_of_ms).to_value());
        }
        let redis = self.redis.clone();
        tokio::spawn(async move {
            // Counted and logged there; it is only missed again.
            let _ = redis.run_script(WRITE_OWNER_VERSIONS, &keys, &arguments).await;
            drop(permit);
        });
    }
}

fn cached(row: &VersionRow, owner: Uuid, as_of_ms: i64) -> CachedOwnerVersion {
    let owner_id = OwnerId(owner);
    let row = row.change_counter.map(|change_counter| OwnerRow {
        owner_id,
        revision: row.revision.unwrap_or(0),
        change_counter,
        parked_position: row.parked_position,
    });
    CachedOwnerVersion { owner_id, as_of_ms, row }
}

/// None: it is not what it should be, of another owner, or too old to be believed.
fn believed(value: &[u8], read_model: &ReadModelId, owner: Owner, now_ms: i64) -> Option<VersionRow> {
    let CachedOwnerVersion { owner_id, as_of_ms, row } = CachedOwnerVersion::from_value(value)?;
    if owner_id.0 != owner.id {
        return None;
    }
    let age_ms = now_ms.checked_sub(as_of_ms)?;
    if !(-CLOCKS_APART_MS_MAX..=OWNER_VERSION_MS_MAX).contains(&age_ms) {
        return None;
    }
    Some(VersionRow {
        log_id: Some(read_model.log_id),
        generation: read_model.generation,
        shard: row.map(|_| owner.shard),
        revision: row.map(|row| row.revision),
        change_counter: row.map(|row| row.change_counter),
        parked_position: row.and_then(|row| row.parked_position),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_MODEL: ReadModelId = ReadModelId { cache_id: Uuid::nil(), log_id: Uuid::max(), generation: 3 };
    const OWNER: Owner = Owner { id: Uuid::from_u128(9), shard: 4 };
    const NOW_MS: i64 = 1_790_000_000_000;

    fn row() -> VersionRow {
        VersionRow {
            log_id: Some(Uuid::max()),
            generation: 3,
            shard: Some(4),
            revision: Some(70),
            change_counter: Some((5 << 32) + 7),
            parked_position: Some(60),
        }
    }

    #[test]
    fn a_version_is_read_as_it_was_written() {
        let nobody = VersionRow { shard: None, revision: None, change_counter: None, parked_position: None, ..row() };
        let nothing_yet = VersionRow { change_counter: Some(0), revision: Some(0), parked_position: None, ..row() };
        for row in [row(), nobody, nothing_yet] {
            let value = cached(&row, OWNER.id, NOW_MS).to_value();
            assert_eq!(believed(value.as_bytes(), &READ_MODEL, OWNER, NOW_MS), Some(row));
        }
    }

    #[test]
    fn a_version_of_another_owner_or_time_is_not_believed() {
        let value = cached(&row(), OWNER.id, NOW_MS).to_value();
        let other = Owner { id: Uuid::from_u128(8), shard: 4 };
        assert_eq!(believed(value.as_bytes(), &READ_MODEL, other, NOW_MS), None);
        let at = |now_ms| believed(value.as_bytes(), &READ_MODEL, OWNER, now_ms).is_some();
        assert!(at(NOW_MS + OWNER_VERSION_MS_MAX) && at(NOW_MS - CLOCKS_APART_MS_MAX));
        assert!(!at(NOW_MS + OWNER_VERSION_MS_MAX + 1) && !at(NOW_MS - CLOCKS_APART_MS_MAX - 1));
    }
}
