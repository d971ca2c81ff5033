//! How much is worked upon at once. What comes beyond that is turned away before it costs anything, so that what was let
//! in stays fast.
//!
//! The right number is not known beforehand: it hangs on the machine, on Postgres, on what is asked for. So it is looked
//! for, from [`AT_ONCE_REST`]: no more than can be done in a short time even if it is costly, so that the first moments of
//! a flood do little harm. When too many answers take longer than [`SLOW_MS`], or none come at all, the limit becomes half
//! of what was answered in that time of late (Little's law): whoever is let in then is through after about half as long.
//! While not too many are slow and there is need for more, it grows; without need it goes back to where it began.
//!
//! A burst is no flood: who finds no place waits for one in turn, for as long as a burst may take. Once somebody is turned
//! away it is a flood: all others are turned away at once, and those who wait already have but a moment left.
//!
//! A request that waits for something that is no work (a slow client's body, events that are not applied yet, its turn
//! behind an equal one) gives up its place meanwhile: [`crate::context::waiting`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Gauge, counter};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::problem::{Problem, ProblemCode};

/// An answer that takes longer is a sign of too much to do.
const SLOW_MS: u64 = 100;
/// That many of a hundred may be slow all the same.
const SLOW_PERCENT_MAX: u32 = 5;
/// How often the limit is thought over.
const WINDOW_MS: u64 = 100;
const STALE_MS: u64 = 3 * WINDOW_MS;
/// So many of these in a row have to say that there is too much: a burst is none, nor is a disk that stumbles.
const SLOW_WINDOWS: u32 = 3;
/// The limit is never below this, so that a few slow requests don't keep others out.
const AT_ONCE_MIN: u32 = 32;
/// The limit while there is nothing to learn from.
const AT_ONCE_REST: u32 = 128;
const AT_ONCE_MAX: u32 = 1_024;
/// How long who comes in a burst waits for a place: what can be done within this time is done.
const BURST_WAIT_MS_MAX: u64 = 1_000;
/// How long it waits where somebody was turned away meanwhile.
const FLOOD_WAIT_MS_MAX: u64 = 100;
/// So many may wait.
const BURST_WAITING_MAX: u32 = 1_024;
/// Nobody waits when somebody was turned away so lately.
const CALM_MS_MIN: u64 = 5_000;

const NEVER_MS: u64 = u64::MAX;

/// The answer to who is turned away.
#[must_use]
pub fn turned_away() -> Problem {
    counter!("requests_shed_total").increment(1);
    Problem::new(ProblemCode::Overloaded)
}

/// What a process has to do. Clones share it.
#[derive(Clone)]
pub struct Load(Arc<Inner>);

struct Inner {
    at_once: AtomicU32,
    at_once_max: AtomicU32,
    began: Instant,
    /// Of the window: when it began (milliseconds after `began`), answers, slow ones, the most at once.
    window_ms: AtomicU64,
    answered: AtomicU32,
    slow: AtomicU32,
    peak: AtomicU32,
    /// Windows in a row that were too slow.
    slow_windows: AtomicU32,
    /// Answers in a window, of late: each window counts for a quarter.
    rate: AtomicU32,
    /// Of a burst: how many wait, and what wakes them.
    waiting: AtomicU32,
    given_up: Notify,
    /// When somebody was turned away last, milliseconds after `began`.
    refused_ms: AtomicU64,
    shown: Gauge,
    shown_max: Gauge,
}

impl Default for Load {
    fn default() -> Self {
        // shown from the beginning
        counter!("requests_shed_total").increment(0);
        Self(Arc::new(Inner {
            at_once: AtomicU32::new(0),
            at_once_max: AtomicU32::new(AT_ONCE_REST),
            began: Instant::now(),
            window_ms: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            slow_windows: AtomicU32::new(0),
            rate: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            given_up: Notify::new(),
            refused_ms: AtomicU64::new(NEVER_MS),
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
pub(crate) struct Aside {
    load: Load,
    is_aside: Arc<AtomicBool>,
}

impl Load {
    /// A place, unless there is too much to do, or others wait for one.
    pub fn enter(&self) -> Option<Place> {
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.take_place()
    }

    fn take_place(&self) -> Option<Place> {
        let Inner { at_once, at_once_max, peak, .. } = &*self.0;
        let now = at_once.fetch_add(1, Ordering::Relaxed) + 1;
        let max = at_once_max.load(Ordering::Relaxed);
        // looked at first: a write that changes nothing would still take the cache line from the other cores
        if now > peak.load(Ordering::Relaxed) {
            peak.store(now, Ordering::Relaxed);
        }
        if now <= max {
            return Some(Place(self.clone()));
        }
        at_once.fetch_sub(1, Ordering::Relaxed);
        // also when nobody is answered any more
        self.think_over(self.now_ms());
        None
    }

    /// A place of those that are given up soon, in a burst. None: there are too many, or none was given up in time.
    pub async fn enter_in_burst(&self) -> Option<Place> {
        let waiting = Waiting::begin(&self.0)?;
        let mut given_up = pin!(self.0.given_up.notified());
        if waiting.is_first
            && let Some(place) = self.take_place()
        {
            return Some(place);
        }
        // Its turn is kept while it looks up now and then: whether it is a flood by now, whether a place was overlooked.
        for _ in 0..BURST_WAIT_MS_MAX / FLOOD_WAIT_MS_MAX {
            let mut look_up = pin!(sleep(Duration::from_millis(FLOOD_WAIT_MS_MAX)));
            let mut is_time = false;
            while !is_time {
                tokio::select! {
                    () = given_up.as_mut() => given_up.set(self.0.given_up.notified()),
                    () = look_up.as_mut() => is_time = true,
                }
                if let Some(place) = self.take_place() {
                    return Some(place);
                }
            }
            if !self.is_calm() {
                break;
            }
        }
        None
    }

    /// Whether a burst may wait: nobody was turned away of late.
    pub fn is_calm(&self) -> bool {
        let refused_ms = self.0.refused_ms.load(Ordering::Relaxed);
        refused_ms == NEVER_MS || self.now_ms().saturating_sub(refused_ms) >= CALM_MS_MIN
    }

    /// The answer to who is turned away.
    #[must_use]
    pub fn turn_away(&self) -> Problem {
        self.0.refused_ms.store(self.now_ms(), Ordering::Relaxed);
        turned_away()
    }

    /// Gives up a request's place for a while. None where it is given up already: a request that waits for many things at
    /// the same time has one place to give.
    pub(crate) fn step_aside(&self, is_aside: &Arc<AtomicBool>) -> Option<Aside> {
        if is_aside.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.0.give_up();
        Some(Aside { load: self.clone(), is_aside: is_aside.clone() })
    }

    /// An answer after so long.
    fn answered(&self, took: Duration) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
        if took > Duration::from_millis(SLOW_MS) {
            self.0.slow.fetch_add(1, Ordering::Relaxed);
        }
        self.think_over(self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn think_over(&self, now_ms: u64) {
        let inner = &*self.0;
        let window_ms = inner.window_ms.load(Ordering::Relaxed);
        let since_ms = now_ms.saturating_sub(window_ms);
        if since_ms < WINDOW_MS
            || inner.window_ms.compare_exchange(window_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let answered = inner.answered.swap(0, Ordering::Relaxed);
        let slow = inner.slow.swap(0, Ordering::Relaxed);
        let peak = inner.peak.swap(0, Ordering::Relaxed);
        let max = inner.at_once_max.load(Ordering::Relaxed);
        let window = Window { since_ms, answered, slow, peak };
        let is_stale = since_ms > STALE_MS;
        let rate = if is_stale { 0 } else { window.rate(inner.rate.load(Ordering::Relaxed)) };
        inner.rate.store(rate, Ordering::Relaxed);
        let is_slow = !is_stale && window.is_slow();
        let slow_windows = if is_slow { inner.slow_windows.load(Ordering::Relaxed) + 1 } else { 0 };
        inner.slow_windows.store(slow_windows, Ordering::Relaxed);
        let next = match slow_windows {
            // a pause: nothing is known any more
            _ if is_stale => max.max(AT_ONCE_REST),
            0 => window.grown(max),
            1..SLOW_WINDOWS => max,
            SLOW_WINDOWS.. => (rate / 2).min(max).max(AT_ONCE_MIN),
        };
        inner.at_once_max.store(next, Ordering::Relaxed);
        for _ in max..next.min(max.saturating_add(inner.waiting.load(Ordering::Relaxed))) {
            inner.given_up.notify_one();
        }
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
        self.0.0.give_up();
    }
}

impl Inner {
    fn give_up(&self) {
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.given_up.notify_one();
        }
    }
}

/// One of those who wait in a burst.
struct Waiting<'a> {
    inner: &'a Inner,
    /// Nobody waited before.
    is_first: bool,
}

impl<'a> Waiting<'a> {
    fn begin(inner: &'a Inner) -> Option<Self> {
        let before = inner.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self { inner, is_first: before == 0 };
        (before < BURST_WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.load.0.at_once.fetch_add(1, Ordering::Relaxed);
        self.is_aside.store(false, Ordering::Relaxed);
    }
}

/// What was seen since the limit was last thought over.
#[derive(Debug, Clone, Copy)]
struct Window {
    since_ms: u64,
    answered: u32,
    slow: u32,
    /// The most at once.
    peak: u32,
}

impl Window {
    /// Whether too many were slow, and not for another reason than that there were many.
    fn is_slow(self) -> bool {
        let too_many = u64::from(self.slow) * 100 > u64::from(self.answered) * u64::from(SLOW_PERCENT_MAX);
        self.peak > AT_ONCE_MIN && (too_many || self.answered == 0)
    }

    /// How many are answered in [`SLOW_MS`], by this window and those before it.
    fn rate(self, before: u32) -> u32 {
        let now = u64::from(self.answered) * SLOW_MS / self.since_ms.max(1);
        u32::try_from((3 * u64::from(before) + now) / 4).unwrap_or(u32::MAX)
    }

    /// More where there is need for it; else back to where it began.
    fn grown(self, max: u32) -> u32 {
        if self.peak > max - max / 4 {
            (max + max / 8).min(AT_ONCE_MAX)
        } else if max < AT_ONCE_REST {
            (max + max / 4).min(AT_ONCE_REST)
        } else {
            max - (max - AT_ONCE_REST).div_ceil(8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_in_a_burst_waits_for_a_place_and_not_for_long() {
        let load = Load::default();
        let mut places: Vec<Place> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a place")).collect();
        let waiting = tokio::spawn({
            let load = load.clone();
            async move { load.enter_in_burst().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        places.pop();
        let place = waiting.await.expect("a task").expect("the place that was given up");
        assert!(load.enter_in_burst().await.is_none(), "none is given up in time");
        drop(place);
        drop(places);
        assert_eq!((load.0.at_once.load(Ordering::Relaxed), load.0.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    /// Who comes, as the edge lets it in.
    async fn come(load: Load, work_ms: u64) -> bool {
        let place = match load.enter() {
            Some(place) => Some(place),
            None if load.is_calm() => load.enter_in_burst().await,
            None => None,
        };
        let Some(place) = place else {
            let _ = load.turn_away();
            return false;
        };
        sleep(Duration::from_millis(work_ms)).await;
        place.answered(Duration::from_millis(work_ms));
        true
    }

    async fn served(load: &Load, count: u32, work_ms: u64) -> usize {
        let all = (0..count).map(|_| tokio::spawn(come(load.clone(), work_ms)));
        futures_util::future::join_all(all).await.into_iter().filter(|served| *served.as_ref().expect("a task")).count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_be_done_within_a_second_is_done() {
        // two turns, three, and as many as fit into a second
        for (count, work_ms) in [(2, 400), (3, 400), (9, 100)] {
            let load = Load::default();
            assert_eq!(served(&load, count * AT_ONCE_REST, work_ms).await, (count * AT_ONCE_REST) as usize);
            assert!(load.is_calm());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_flood_nobody_waits_for_long() {
        let load = Load::default();
        let began = tokio::time::Instant::now();
        let flood = AT_ONCE_REST + BURST_WAITING_MAX + 1;
        // no work of the first ones is done in time
        assert_eq!(served(&load, flood, 350).await, AT_ONCE_REST as usize, "one too many, and it is a flood");
        assert_eq!(began.elapsed(), Duration::from_millis(350));
        assert_eq!(load.0.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_come_first() {
        let load = Load::default();
        let mut places: Vec<Place> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a place")).collect();
        let waiting = tokio::spawn({
            let load = load.clone();
            async move { load.enter_in_burst().await }
        });
        tokio::task::yield_now().await;
        places.pop();
        assert!(load.enter().is_none(), "that place is somebody's");
        assert!(waiting.await.expect("a task").is_some());
    }

    #[test]
    fn nobody_waits_while_others_are_turned_away() {
        let load = Load::default();
        assert!(load.is_calm());
        let _ = load.turn_away();
        assert!(!load.is_calm());
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let load = Load::default();
        let waiting: Vec<_> = (0..BURST_WAITING_MAX).map(|_| Waiting::begin(&load.0).expect("room")).collect();
        assert!(load.enter_in_burst().await.is_none());
        drop(waiting);
        assert!(load.enter_in_burst().await.is_some());
    }

    #[test]
    fn so_many_at_once_and_no_more() {
        let load = Load::default();
        let mut places: Vec<Place> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a place")).collect();
        assert!(load.enter().is_none());
        places.pop();
        let last = load.enter().expect("one was given up");
        assert!(load.enter().is_none());
        // who waits for something else is in nobody's way, and has its place again afterwards
        let is_aside = Arc::default();
        let aside = last.load().step_aside(&is_aside);
        assert!(last.load().step_aside(&is_aside).is_none(), "it has but one place to give");
        places.push(load.enter().expect("somebody waits"));
        drop(aside);
        assert!(load.enter().is_none());
        drop((places, last));
        assert_eq!(load.0.at_once.load(Ordering::Relaxed), 0);
    }

    const BUSY: Window = Window { since_ms: WINDOW_MS, answered: 300, slow: 0, peak: 1_000 };

    #[test]
    fn the_rate_is_of_late_and_not_of_a_moment() {
        assert_eq!(BUSY.rate(300), 300);
        // over a longer time
        assert_eq!(Window { since_ms: 2 * WINDOW_MS, ..BUSY }.rate(150), 150);
        // all that was let in together is done together, and then nothing for a while
        let mut rate = 100;
        for n in 0..30 {
            rate = Window { answered: if n % 3 == 0 { 300 } else { 0 }, ..BUSY }.rate(rate);
            assert!((60..=160).contains(&rate), "{rate}");
        }
    }

    #[test]
    fn one_in_twenty_may_be_slow_and_so_may_a_few() {
        assert!(!Window { slow: 15, ..BUSY }.is_slow());
        assert!(Window { slow: 16, ..BUSY }.is_slow());
        assert!(Window { answered: 0, ..BUSY }.is_slow(), "none is answered");
        for answered in [0, 300] {
            assert!(!Window { answered, slow: answered, peak: AT_ONCE_MIN, ..BUSY }.is_slow());
        }
    }

    #[test]
    fn it_grows_with_the_need_and_goes_back_without() {
        let mut max = AT_ONCE_MIN;
        for _ in 0..100 {
            max = Window { peak: max, ..BUSY }.grown(max);
        }
        assert_eq!(max, AT_ONCE_MAX);
        for start in [AT_ONCE_MIN, AT_ONCE_MAX] {
            let mut max = start;
            for _ in 0..100 {
                max = Window { peak: 1, ..BUSY }.grown(max);
            }
            assert_eq!(max, AT_ONCE_REST, "from {start}");
        }
    }

    #[test]
    fn a_burst_is_let_in_and_what_lasts_is_not() {
        let load = Load::default();
        let places: Vec<Place> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a place")).collect();
        let max = || load.0.at_once_max.load(Ordering::Relaxed);
        let mut now_ms = 1_000;
        let mut windows = |count: u32, answered: u32, slow: u32, peak: u32| {
            for _ in 0..count {
                now_ms += WINDOW_MS;
                load.0.answered.store(answered, Ordering::Relaxed);
                load.0.slow.store(slow, Ordering::Relaxed);
                load.0.peak.store(peak, Ordering::Relaxed);
                load.think_over(now_ms);
            }
            max()
        };
        assert_eq!(windows(30, 100, 0, 20), AT_ONCE_REST);
        assert_eq!(windows(SLOW_WINDOWS - 1, 100, 100, 256), AT_ONCE_REST, "a burst");
        let next = windows(1, 100, 100, 256);
        assert!((45..=50).contains(&next), "as many as are answered in time: {next}");
        assert!(load.enter().is_none());
        assert_eq!(windows(30, 0, 0, 256), AT_ONCE_MIN, "none is answered");
        drop(places);
        drop(load.enter().expect("all is done"));
        // a pause, and all is forgotten
        load.think_over(60_000);
        assert_eq!(max(), AT_ONCE_REST);
    }
}
