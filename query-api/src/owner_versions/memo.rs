//! What this process has shown of each owner: never taken back, and good for a few milliseconds without asking again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::token::Sealer;
use uuid::Uuid;

use crate::minimum_revision::MinimumRevision;
use crate::owner_version::{Owner, OwnerVersion, VersionRow};
use crate::redis_versions::REMEMBERED_MS_MIN;

/// How long a lookup's result is used without asking again.
const RECENT_MS_MAX: u64 = 5;
/// Owners remembered in one part before old ones are dropped.
const PART_OWNERS_MAX: usize = 2_048;
const PARTS: usize = 16;

#[derive(Debug)]
pub(super) struct Memo {
    parts: [Mutex<Part>; PARTS],
    sealer: Sealer,
    /// Redis may be behind what was shown.
    with_redis: bool,
}

#[derive(Debug, Default)]
struct Part {
    owners: HashMap<Uuid, Remembered>,
    /// When an owner was dropped of whom something newer may have been shown than Redis has.
    forgot_at: Option<Instant>,
}

#[derive(Debug)]
struct Remembered {
    /// The snapshot is no older than this.
    asked_at: Instant,
    version: Arc<OwnerVersion>,
}

impl Memo {
    pub fn new(sealer: Sealer, with_redis: bool) -> Self {
        Self { parts: Default::default(), sealer, with_redis }
    }

    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The owner's version less than [`RECENT_MS_MAX`] ago, if that shows what is asked for. What is remembered may say
    /// yes; only a fresh lookup may say no.
    pub fn recent(&self, owner: Uuid, minimum: Option<MinimumRevision>) -> Option<Arc<OwnerVersion>> {
        let part = self.part(owner);
        let known = part.owners.get(&owner)?;
        let is_recent = known.asked_at.elapsed() < Duration::from_millis(RECENT_MS_MAX);
        let is_enough = minimum.is_none_or(|minimum| minimum.is_met_by(&known.version.row) == Ok(true));
        (is_recent && is_enough).then(|| known.version.clone())
    }

    /// Whether what Redis says is nothing older than what this process has shown.
    pub fn is_believable(&self, owner: Uuid, row: &VersionRow) -> bool {
        let part = self.part(owner);
        match part.owners.get(&owner) {
            Some(known) => row.same_read_model(&known.version.row) && row.counter() >= known.version.row.counter(),
            None => {
                let remembered = Duration::from_millis(REMEMBERED_MS_MIN);
                part.forgot_at.is_none_or(|forgot_at| forgot_at.elapsed() > remembered)
            }
        }
    }

    /// Keeps what was seen, unless something newer is known; returns the newer of the two.
    pub fn remember(&self, owner: Owner, asked_at: Instant, row: VersionRow) -> Arc<OwnerVersion> {
        let mut part = self.part(owner.id);
        if part.owners.len() >= PART_OWNERS_MAX {
            part.make_room(self.with_redis);
        }
        let version = || Arc::new(OwnerVersion::new(row, owner, &self.sealer));
        match part.owners.entry(owner.id) {
            Entry::Vacant(vacant) => vacant.insert(Remembered { asked_at, version: version() }).version.clone(),
            Entry::Occupied(occupied) => {
                let known = occupied.into_mut();
                let known_row = known.version.row;
                if row == known_row {
                    known.asked_at = known.asked_at.max(asked_at);
                } else if is_newer(&row, asked_at, &known_row, known.asked_at) {
                    *known = Remembered { asked_at, version: version() };
                }
                known.version.clone()
            }
        }
    }

    fn part(&self, owner: Uuid) -> MutexGuard<'_, Part> {
        // The last byte of a v4 or v7 id is random.
        let part = &self.parts[usize::from(owner.as_bytes()[15]) % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Drops what is old. With a Redis that is only what Redis cannot be behind any more; if that makes no room, the
    /// rest as well, and then Redis is not believed for a while of owners who are not known here.
    fn make_room(&mut self, with_redis: bool) {
        if with_redis {
            self.owners.retain(|_, known| known.asked_at.elapsed() < Duration::from_millis(REMEMBERED_MS_MIN));
            if self.owners.len() < PART_OWNERS_MAX {
                return;
            }
            self.forgot_at = Some(Instant::now());
        }
        self.owners.retain(|_, known| known.asked_at.elapsed() < Duration::from_millis(RECENT_MS_MAX));
    }
}

fn is_newer(row: &VersionRow, asked_at: Instant, known: &VersionRow, known_asked_at: Instant) -> bool {
    if row.same_read_model(known) && row.counter() != known.counter() {
        row.counter() > known.counter()
    } else {
        asked_at >= known_asked_at
    }
}

#[cfg(test)]
mod tests {
    use access::token::RootSecret;

    use super::*;

    fn row(change_counter: i64) -> VersionRow {
        VersionRow {
            log_id: Some(Uuid::max()),
            generation: 1,
            shard: Some(0),
            revision: Some(change_counter),
            change_counter: Some(change_counter),
            parked_position: None,
        }
    }

    /// Redis may be behind what was shown of an owner of whom nothing is remembered any more.
    #[test]
    fn owners_forgotten_early_are_looked_up_at_the_primary() {
        let secret = RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).unwrap();
        let memo = Memo::new(Sealer::new(&secret), true);
        // All in one part of the memo.
        let owner = |n: usize| Uuid::from_u128((n as u128) << 8);
        let remember = |n: usize, asked_at| memo.remember(Owner { id: owner(n), shard: 0 }, asked_at, row(5));
        assert!(memo.is_believable(owner(0), &row(1)), "nothing was shown");
        remember(0, Instant::now());
        assert!(!memo.is_believable(owner(0), &row(4)));
        assert!(memo.is_believable(owner(0), &row(5)));
        for n in 1..=PART_OWNERS_MAX {
            // Not fresh any more, and not so old that Redis could not be behind.
            let Some(asked_at) = Instant::now().checked_sub(Duration::from_millis(100)) else { return };
            remember(n, asked_at);
        }
        let forgotten = (0..PART_OWNERS_MAX).find(|n| !memo.part(owner(*n)).owners.contains_key(&owner(*n)));
        let forgotten = owner(forgotten.expect("an owner had to be forgotten"));
        assert!(!memo.is_believable(forgotten, &row(9)), "what was shown of them is not known any more");
        assert!(memo.is_believable(Uuid::from_u128(1), &row(1)), "another part");
    }
}
