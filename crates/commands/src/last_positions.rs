//! How far the log of each owner is known to go. An answer that stood for less than an earlier one would lead a client that
//! keeps the latest token back in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::OwnerId;
use quick_cache::sync::Cache;

/// Of how many owners it is kept: of those that were about last.
const OWNERS_MAX: usize = 65_536;

/// Of each owner the position of the last event that was appended or looked up here.
pub(crate) struct LastPositions(Cache<OwnerId, Arc<AtomicI64>>);

impl Default for LastPositions {
    fn default() -> Self {
        Self(Cache::new(OWNERS_MAX))
    }
}

impl LastPositions {
    /// 0: none is known.
    pub(crate) fn of(&self, owner: OwnerId) -> i64 {
        self.0.get(&owner).map_or(0, |last| last.load(Ordering::Relaxed))
    }

    /// An event of the owner is at this position; positions may come in any order.
    pub(crate) fn note(&self, owner: OwnerId, position: i64) {
        let Ok(last) = self.0.get_or_insert_with(&owner, || Ok::<_, Infallible>(Arc::default()));
        last.fetch_max(position, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_position_is_each_owner_s_own_and_never_goes_back() {
        let (me, you) = (OwnerId(Uuid::from_u128(1)), OwnerId(Uuid::from_u128(2)));
        let positions = LastPositions::default();
        assert_eq!(positions.of(me), 0);
        for position in [3, 7, 5] {
            positions.note(me, position);
        }
        positions.note(you, 9);
        assert_eq!((positions.of(me), positions.of(you)), (7, 9));
    }
}
