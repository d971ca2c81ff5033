use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use process::context;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

/// How long locks are waited for, in milliseconds.
const WAIT_MS_MAX: u64 = 10_000;

/// A lock for each key. Keys share a fixed number of locks, so that nothing grows; two keys that share one wait for each
/// other needlessly, and the one that waits for too long is told that it was another key.
pub(crate) struct KeyedLocks {
    locks: Box<[Lock]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Lock {
    mutex: Mutex<()>,
    /// Hash of a key that holds it, or held it last.
    held_for: AtomicU64,
}

/// Who held the lock for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// A holder with the same key.
    Equal,
    /// A holder whose key shares the lock.
    Other,
}

impl KeyedLocks {
    const LOCKS: u64 = 1 << 15;

    pub(crate) fn new() -> Self {
        Self { locks: (0..Self::LOCKS).map(|_| Lock::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the locks of all keys, for [`WAIT_MS_MAX`] in all. Taken in the order of the locks, so that there is no
    /// deadlock.
    pub(crate) async fn lock<K: Hash>(&self, keys: impl Iterator<Item = K>) -> Result<Vec<MutexGuard<'_, ()>>, Busy> {
        let mut hashes: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        hashes.sort_unstable_by_key(|hash| hash % Self::LOCKS);
        let mut guards = Vec::with_capacity(hashes.len());
        let mut deadline = None;
        for same_lock in hashes.chunk_by(|a, b| a % Self::LOCKS == b % Self::LOCKS) {
            let lock = &self.locks[(same_lock[0] % Self::LOCKS) as usize];
            let guard = match lock.mutex.try_lock() {
                Ok(guard) => guard,
                Err(_) => {
                    let wait_max = Duration::from_millis(WAIT_MS_MAX);
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + wait_max);
                    let locked = timeout_at(deadline, lock.mutex.lock());
                    context::without_permit(locked).await.map_err(|_| {
                        let held_for = lock.held_for.load(Ordering::Relaxed);
                        if same_lock.contains(&held_for) { Busy::Equal } else { Busy::Other }
                    })?
                }
            };
            lock.held_for.store(same_lock[0], Ordering::Relaxed);
            guards.push(guard);
        }
        Ok(guards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_locks_together_are_waited_for_no_longer_than_one() {
        let locks = KeyedLocks::new();
        let began = Instant::now();
        let hold = async |key: u32, time_ms| {
            let _held = locks.lock([key].into_iter()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(time_ms)).await;
        };
        let wait = async {
            tokio::task::yield_now().await;
            (locks.lock([1, 2].into_iter()).await.map(drop), began.elapsed())
        };
        let (_, _, (locked, elapsed)) = tokio::join!(hold(1, 6_000), hold(2, 12_000), wait);
        assert_eq!((locked, elapsed.as_secs()), (Err(Busy::Equal), 10));
        assert_eq!(locks.lock([1, 2, 1].into_iter()).await.map(|held| held.len()), Ok(2), "given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_only_shares_a_lock_is_no_equal_one() {
        let locks = KeyedLocks::new();
        let lock_of = |key: u64| locks.hasher.hash_one(key) % KeyedLocks::LOCKS;
        let other = (1..).find(|key| lock_of(*key) == lock_of(0)).unwrap();
        let _held = locks.lock([0_u64].into_iter()).await.unwrap();
        assert_eq!(locks.lock([other].into_iter()).await.map(drop), Err(Busy::Other));
        assert_eq!(locks.lock([0_u64].into_iter()).await.map(drop), Err(Busy::Equal));
    }
}
