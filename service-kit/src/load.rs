//! How much is worked upon at once. What comes beyond that is turned away before it costs anything, so that what was let
//! in stays fast.
//!
//! The right number is not known beforehand: it hangs on the machine, on Postgres, on what is asked for. So it is looked
//! for. While requests are answered within [`SLOW_MS`] and there is need for more of them at once, the limit grows. When
//! too many are slow, it becomes what is answered in that time at the present rate (Little's law): whoever is let in
//! then is through after about so long. As long as less than half of the limit is used nothing is learned from it.
//!
//! A request that waits for something that is no work (a slow client's body, events that are not applied yet) gives up
//! its place meanwhile: [`crate::context::waiting`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};

/// An answer that takes longer is a sign of too much to do.
const SLOW_MS: u64 = 100;
/// That many of a hundred may be slow all the same.
const SLOW_PERCENT_MAX: u32 = 5;
/// How often the limit is thought over.
const WINDOW_MS: u64 = 100;
const STALE_MS: u64 = 3 * WINDOW_MS;
/// The limit is never below this, so that a few slow requests don't keep others out.
const AT_ONCE_MIN: u32 = 64;
const AT_ONCE_FIRST: u32 = 256;
const AT_ONCE_MAX: u32 = 2_048;

/// What a process has to do. Clones share it.
#[derive(Clone)]
pub struct Load(Arc<Inner>);

struct Inner {
    at_once: AtomicU32,
    at_once_max: AtomicU32,
    began: Instant,
    /// Of the window: when it began (milliseconds after `began`), answers, slow ones, whether half of the limit was used.
    window_ms: AtomicU64,
    answered: AtomicU32,
    slow: AtomicU32,
    pressed: AtomicBool,
    shed: Counter,
    shown: Gauge,
    shown_max: Gauge,
}

impl Default for Load {
    fn default() -> Self {
        Self(Arc::new(Inner {
            at_once: AtomicU32::new(0),
            at_once_max: AtomicU32::new(AT_ONCE_FIRST),
            began: Instant::now(),
            window_ms: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            pressed: AtomicBool::new(false),
            shed: metrics::counter!("requests_shed_total"),
            shown: metrics::gauge!("requests_at_once"),
            shown_max: metrics::gauge!("requests_at_once_max"),
        }))
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at_once, at_once_max) = (&self.0.at_once, &self.0.at_once_max);
        f.debug_struct("Load").field("at_once", at_once).field("at_once_max", at_once_max).finish()
    }
}

/// A place among what is being worked upon; free again when it is dropped.
#[must_use = "it is given up when it is dropped"]
#[derive(Debug)]
pub struct Place(Load);

/// A place that somebody has stepped out of; taken again when it is dropped.
#[must_use = "the place is taken again when it is dropped"]
pub(crate) struct Aside(Load);

impl Load {
    /// A place, unless there is too much to do.
    pub fn enter(&self) -> Option<Place> {
        let Inner { at_once, at_once_max, pressed, shed, .. } = &*self.0;
        let now = at_once.fetch_add(1, Ordering::Relaxed) + 1;
        let max = at_once_max.load(Ordering::Relaxed);
        // looked at first: a write that changes nothing would still take the cache line from the other cores
        if now * 2 > max && !pressed.load(Ordering::Relaxed) {
            pressed.store(true, Ordering::Relaxed);
        }
        if now <= max {
            return Some(Place(self.clone()));
        }
        at_once.fetch_sub(1, Ordering::Relaxed);
        shed.increment(1);
        // also when nobody is answered any more
        self.think_over();
        None
    }

    pub(crate) fn step_aside(self) -> Aside {
        self.0.at_once.fetch_sub(1, Ordering::Relaxed);
        Aside(self)
    }

    /// An answer after so long.
    fn answered(&self, took: Duration) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
        if took > Duration::from_millis(SLOW_MS) {
            self.0.slow.fetch_add(1, Ordering::Relaxed);
        }
        self.think_over();
    }

    fn think_over(&self) {
        let inner = &*self.0;
        let now_ms = u64::try_from(inner.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let window_ms = inner.window_ms.load(Ordering::Relaxed);
        let since_ms = now_ms.saturating_sub(window_ms);
        if since_ms < WINDOW_MS
            || inner.window_ms.compare_exchange(window_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let answered = inner.answered.swap(0, Ordering::Relaxed);
        let slow = inner.slow.swap(0, Ordering::Relaxed);
        let pressed = inner.pressed.swap(false, Ordering::Relaxed);
        let max = inner.at_once_max.load(Ordering::Relaxed);
        // after a pause it says nothing about the rate
        let next = if since_ms > STALE_MS { max } else { next_max(max, Window { since_ms, answered, slow, pressed }) };
        inner.at_once_max.store(next, Ordering::Relaxed);
        inner.shown.set(inner.at_once.load(Ordering::Relaxed));
        inner.shown_max.set(next);
    }
}

impl Place {
    /// It was answered after so long, all of it work.
    pub fn answered(&self, took: Duration) {
        self.0.answered(took);
    }

    /// What it is a place of.
    pub(crate) fn load(&self) -> Load {
        self.0.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.0.at_once.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was seen since the limit was last thought over.
#[derive(Debug, Clone, Copy)]
struct Window {
    since_ms: u64,
    answered: u32,
    slow: u32,
    /// Whether at least half of the limit was used.
    pressed: bool,
}

fn next_max(max: u32, window: Window) -> u32 {
    let Window { since_ms, answered, slow, pressed } = window;
    if !pressed {
        return max;
    }
    if u64::from(slow) * 100 > u64::from(answered) * u64::from(SLOW_PERCENT_MAX) {
        let answered_in_time = u64::from(answered) * SLOW_MS / since_ms.max(1);
        u32::try_from(answered_in_time).unwrap_or(max).min(max).max(AT_ONCE_MIN)
    } else if answered > 0 {
        (max + max / 8).min(AT_ONCE_MAX)
    } else {
        max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Window = Window { since_ms: WINDOW_MS, answered: 50, slow: 50, pressed: false };

    #[test]
    fn so_many_at_once_and_no_more() {
        let load = Load::default();
        let mut places: Vec<Place> = (0..AT_ONCE_FIRST).map(|_| load.enter().expect("a place")).collect();
        assert!(load.enter().is_none());
        places.pop();
        let last = load.enter().expect("one was given up");
        assert!(load.enter().is_none());
        // who waits for something else is in nobody's way, and has its place again afterwards
        let aside = last.load().step_aside();
        places.push(load.enter().expect("somebody waits"));
        drop(aside);
        assert!(load.enter().is_none());
        drop((places, last));
        assert_eq!(load.0.at_once.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_limit_becomes_what_is_answered_in_time() {
        let overloaded = |answered, slow| next_max(1_000, Window { answered, slow, pressed: true, ..QUIET });
        assert_eq!(overloaded(300, 100), 300);
        assert_eq!(overloaded(300, 16), 300);
        // never so low that a few slow ones keep all others out, never higher than before
        assert_eq!(overloaded(10, 10), AT_ONCE_MIN);
        assert_eq!(overloaded(5_000, 4_000), 1_000);
        // one in twenty may be slow
        assert_eq!(overloaded(300, 15), 1_125);
        // over a longer time, by the rate
        let window = Window { since_ms: 10 * WINDOW_MS, answered: 3_000, slow: 3_000, pressed: true };
        assert_eq!(next_max(1_000, window), 300);
    }

    #[test]
    fn it_grows_with_the_need_and_only_then() {
        let mut max = AT_ONCE_MIN;
        for _ in 0..100 {
            max = next_max(max, Window { answered: 100, slow: 0, pressed: true, ..QUIET });
        }
        assert_eq!(max, AT_ONCE_MAX);
        assert_eq!(next_max(300, QUIET), 300, "slow requests that are few don't matter");
        assert_eq!(next_max(300, Window { answered: 0, slow: 0, pressed: true, ..QUIET }), 300);
    }
}
