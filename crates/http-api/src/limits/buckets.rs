//! What was spent of one policy, by key. Governor does the arithmetic (GCRA); what is here is where it keeps its numbers:
//! a cache of a fixed size, out of which those go first who ask least, and what other copies have to be told.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use super::key::Key;
use super::policy::Policy;

/// Clients of which one policy is remembered, about 150 bytes each. One that is forgotten begins anew.
const BUCKETS_MAX: usize = 50_000;
/// Clients of which other copies are told at a time; of those beyond it they are not.
const OWING_MAX: usize = 10_000;

/// Nanoseconds since the limits were made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks(Instant);

impl Default for Ticks {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        // governor takes 0 for "never"
        Nanos::from(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1))
    }
}

/// One client's share of a policy.
pub(super) struct Bucket {
    pub key: Key,
    state: InMemoryState,
    /// Admitted here and not told to the other copies yet; below 0 where more was given back.
    owed: AtomicI32,
    /// See [`Open`].
    open: AtomicU32,
}

impl Bucket {
    fn new(key: Key) -> Self {
        Self { key, state: InMemoryState::default(), owed: AtomicI32::new(0), open: AtomicU32::new(0) }
    }

    /// Moves the time at which all will be there again.
    fn replace(&self, next: impl Fn(u64) -> u64) {
        let replace =
            |before: Option<Nanos>| Ok::<_, Infallible>(((), Nanos::from(next(before.map_or(0, Nanos::as_u64)))));
        match self.state.measure_and_replace(&NotKeyed::NonKey, replace) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    fn until_ns(&self) -> u64 {
        // refuses, so that nothing is replaced: the way to look
        let look = |before: Option<Nanos>| Err::<((), Nanos), u64>(before.map_or(0, Nanos::as_u64));
        self.state.measure_and_replace(&NotKeyed::NonKey, look).err().unwrap_or(0)
    }

    /// What has to be told, which is none from here on.
    pub fn take_owed(&self) -> i32 {
        self.owed.swap(0, Ordering::Relaxed)
    }
}

/// Something spent that is perhaps given back in a moment.
pub(super) struct Open {
    bucket: Arc<Bucket>,
    /// Whether there were others when this one was made.
    pub beside_others: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.bucket.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where governor keeps its numbers. Clones share them.
#[derive(Clone)]
struct Store(Arc<Stored>);

struct Stored {
    buckets: Cache<Key, Arc<Bucket>>,
    /// Whether there are others to be told.
    shared: AtomicBool,
    owing: Mutex<Vec<Arc<Bucket>>>,
}

impl Store {
    fn bucket(&self, key: &Key) -> Arc<Bucket> {
        match self.0.buckets.get_or_insert_with::<_, Infallible>(key, || Ok(Arc::new(Bucket::new(*key)))) {
            Ok(bucket) => bucket,
            Err(never) => match never {},
        }
    }

    fn owe(&self, bucket: &Arc<Bucket>, count: i32) {
        if !self.0.shared.load(Ordering::Relaxed) || bucket.owed.fetch_add(count, Ordering::Relaxed) != 0 {
            return;
        }
        let mut owing = self.0.owing.lock().unwrap_or_else(PoisonError::into_inner);
        if owing.len() < OWING_MAX {
            owing.push(bucket.clone());
        } else {
            bucket.take_owed();
        }
    }
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let bucket = self.bucket(key);
        let admitted = bucket.state.measure_and_replace(&NotKeyed::NonKey, decide)?;
        self.owe(&bucket, 1);
        Ok(admitted)
    }
}

/// What all clients have spent of a policy.
pub(super) struct Buckets {
    limiter: RateLimiter<Key, Store, Ticks, StateInformationMiddleware>,
    store: Store,
    clock: Ticks,
    quota: u32,
    /// In which one unit comes back.
    interval_ns: u64,
}

impl Buckets {
    /// All of the quota is there for everybody.
    pub fn new(policy: Policy, clock: Ticks) -> Self {
        let burst = NonZeroU32::new(policy.quota).unwrap_or(NonZeroU32::MIN);
        let interval = policy.interval();
        let quota = Quota::with_period(interval).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        let store = Store(Arc::new(Stored {
            buckets: Cache::new(BUCKETS_MAX),
            shared: AtomicBool::new(false),
            owing: Mutex::default(),
        }));
        Self {
            limiter: RateLimiter::new(quota, store.clone(), clock),
            store,
            clock,
            quota: burst.get(),
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Takes one. Gives back how many are left, or how long to wait for the next one.
    pub fn spend(&self, key: &Key) -> Result<u32, Duration> {
        match self.limiter.check_key(key) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Before one is taken that may be given back.
    pub fn open(&self, key: &Key) -> Open {
        let bucket = self.store.bucket(key);
        let beside_others = bucket.open.fetch_add(1, Ordering::AcqRel) > 0;
        Open { bucket, beside_others }
    }

    /// As if one had not been taken. To be told while it is [`Open`] still.
    pub fn give_back(&self, key: &Key) {
        let bucket = self.store.bucket(key);
        bucket.replace(|until| until.saturating_sub(self.interval_ns).max(1));
        self.store.owe(&bucket, -1);
    }

    /// How many are left.
    pub fn remaining(&self, key: &Key) -> u32 {
        let spent_ns = self.store.bucket(key).until_ns().saturating_sub(self.clock.now().as_u64());
        let spent = u32::try_from(spent_ns.div_ceil(self.interval_ns)).unwrap_or(u32::MAX);
        self.quota.saturating_sub(spent)
    }

    /// From now on it is noted what other copies have to be told.
    pub fn shared(&self) {
        self.store.0.shared.store(true, Ordering::Relaxed);
    }

    /// Of whom they have to be told.
    pub fn take_owing(&self) -> Vec<Arc<Bucket>> {
        std::mem::take(&mut *self.store.0.owing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// In which one unit comes back, in microseconds.
    pub fn interval_us(&self) -> u64 {
        self.interval_ns / 1_000
    }

    /// What all copies together have admitted is paid back in so many microseconds: not sooner here either. What was
    /// admitted since they were told comes on top.
    pub fn catch_up(&self, bucket: &Bucket, paid_back_in_us: u64) {
        let since = u64::try_from(bucket.owed.load(Ordering::Relaxed)).unwrap_or(0);
        let until = self.clock.now().as_u64() + paid_back_in_us * 1_000 + since * self.interval_ns;
        bucket.replace(|before| before.max(until));
    }
}
