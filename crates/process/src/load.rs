//! How many requests are worked on at once. What comes beyond that is refused before it costs anything, so that what was
//! admitted stays fast.
//!
//! The right number is not known beforehand: it depends on the machine, on Postgres, on the requests. So it is looked for,
//! from [`AT_ONCE_REST`]: no more than can be done in a short time even if it is costly, so that the first moments of an
//! overload do little harm. When too many answers take longer than [`SLOW_MS`], or none come at all, the limit becomes half
//! of what was answered in that time of late (Little's law): a request that is admitted then is answered after about half
//! as long. While not too many are slow and there is need for more, it grows; without need it goes back to where it began.
//!
//! In a burst, a request that finds no permit waits for one in turn, up to [`BURST_WAIT_MS_MAX`]. Once a request was refused
//! it is overload: all others are refused at once, and those that wait have [`OVERLOAD_WAIT_MS_MAX`] left.
//!
//! A request that waits for something that is no work (a slow client's body, events that are not applied yet, its turn
//! behind an equal one) releases its permit meanwhile: [`crate::context::without_permit`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Gauge, counter};
use tokio::sync::Notify;
use tokio::time::sleep;

/// An answer that takes longer is a sign of too much to do.
const SLOW_MS: u64 = 100;
/// That many of a hundred may be slow all the same.
const SLOW_PERCENT_MAX: u32 = 5;
/// How often the limit is thought over.
const WINDOW_MS: u64 = 100;
const STALE_MS: u64 = 3 * WINDOW_MS;
/// So many of these in a row have to say that there is too much: a burst is not too much, nor is a disk that is slow for a moment.
const SLOW_WINDOWS: u32 = 3;
/// The limit is never below this, so that a few slow requests don't keep others out.
const AT_ONCE_MIN: u32 = 32;
/// The limit while there is nothing to learn from.
const AT_ONCE_REST: u32 = 128;
const AT_ONCE_MAX: u32 = 1_024;
/// Maximum wait for a permit during a burst: what can be done within this time is done.
const BURST_WAIT_MS_MAX: u64 = 1_000;
/// Maximum wait for a permit once a request was refused meanwhile.
const OVERLOAD_WAIT_MS_MAX: u64 = 100;
/// Requests that may wait for a permit.
const BURST_WAITING_MAX: u32 = 1_024;
/// No request waits for a permit so soon after one was refused.
const CALM_MS_MIN: u64 = 5_000;

const NEVER_MS: u64 = u64::MAX;

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
    released: Notify,
    /// When a request was refused last, milliseconds after `began`.
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
            released: Notify::new(),
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

/// A permit to be worked on; given back when it is dropped.
#[must_use = "it is given back when it is dropped"]
#[derive(Debug)]
pub struct Permit(Load);

/// A permit that was released for a while; taken again when it is dropped.
#[must_use = "the permit is taken again when it is dropped"]
pub(crate) struct ReleasedPermit {
    load: Load,
    is_released: Arc<AtomicBool>,
}

impl Load {
    /// A permit, unless there is too much to do, or others wait for one.
    pub fn enter(&self) -> Option<Permit> {
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.take_permit()
    }

    fn take_permit(&self) -> Option<Permit> {
        let Inner { at_once, at_once_max, peak, .. } = &*self.0;
        let now = at_once.fetch_add(1, Ordering::Relaxed) + 1;
        let max = at_once_max.load(Ordering::Relaxed);
        // looked at first: a write that changes nothing would still take the cache line from the other cores
        if now > peak.load(Ordering::Relaxed) {
            peak.store(now, Ordering::Relaxed);
        }
        if now <= max {
            return Some(Permit(self.clone()));
        }
        at_once.fetch_sub(1, Ordering::Relaxed);
        // also when nobody is answered any more
        self.adjust(self.now_ms());
        None
    }

    /// A permit that is given back soon, in a burst. None: too many wait, or none was given back in time.
    pub async fn enter_in_burst(&self) -> Option<Permit> {
        let waiting = Waiting::begin(&self.0)?;
        let mut released = pin!(self.0.released.notified());
        if waiting.is_first
            && let Some(permit) = self.take_permit()
        {
            return Some(permit);
        }
        // Its turn is kept while it looks up now and then: whether it is overload by now, whether a permit was overlooked.
        for _ in 0..BURST_WAIT_MS_MAX / OVERLOAD_WAIT_MS_MAX {
            let mut look_up = pin!(sleep(Duration::from_millis(OVERLOAD_WAIT_MS_MAX)));
            let mut is_time = false;
            while !is_time {
                tokio::select! {
                    () = released.as_mut() => released.set(self.0.released.notified()),
                    () = look_up.as_mut() => is_time = true,
                }
                if let Some(permit) = self.take_permit() {
                    return Some(permit);
                }
            }
            if !self.is_calm() {
                break;
            }
        }
        None
    }

    /// Whether a burst may wait: no request was refused of late.
    pub fn is_calm(&self) -> bool {
        let refused_ms = self.0.refused_ms.load(Ordering::Relaxed);
        refused_ms == NEVER_MS || self.now_ms().saturating_sub(refused_ms) >= CALM_MS_MIN
    }

    /// Notes that a request was refused, since there was no permit for it: from now on it is overload.
    pub fn refused(&self) {
        self.0.refused_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Releases a request's permit for a while. None where it is released already: a request that waits for several things
    /// at the same time has one permit.
    pub(crate) fn release(&self, is_released: &Arc<AtomicBool>) -> Option<ReleasedPermit> {
        if is_released.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.0.release();
        Some(ReleasedPermit { load: self.clone(), is_released: is_released.clone() })
    }

    /// An answer after so long.
    fn answered(&self, took: Duration) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
        if took > Duration::from_millis(SLOW_MS) {
            self.0.slow.fetch_add(1, Ordering::Relaxed);
        }
        self.adjust(self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn adjust(&self, now_ms: u64) {
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
            inner.released.notify_one();
        }
        inner.shown.set(inner.at_once.load(Ordering::Relaxed));
        inner.shown_max.set(next);
    }
}

impl Permit {
    /// It was answered after so long, all of it work.
    pub fn answered(&self, took: Duration) {
        self.0.answered(took);
    }

    /// What it is a permit of.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.release();
    }
}

impl Inner {
    fn release(&self) {
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.released.notify_one();
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

impl Drop for ReleasedPermit {
    fn drop(&mut self) {
        self.load.0.at_once.fetch_add(1, Ordering::Relaxed);
        self.is_released.store(false, Ordering::Relaxed);
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
    async fn a_request_in_a_burst_waits_for_a_permit_and_not_for_long() {
        let load = Load::default();
        let mut permits: Vec<Permit> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a permit")).collect();
        let waiting = tokio::spawn({
            let load = load.clone();
            async move { load.enter_in_burst().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        permits.pop();
        let permit = waiting.await.expect("a task").expect("the permit that was given back");
        assert!(load.enter_in_burst().await.is_none(), "none is released in time");
        drop(permit);
        drop(permits);
        assert_eq!((load.0.at_once.load(Ordering::Relaxed), load.0.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    /// A request, as the edge admits it.
    async fn come(load: Load, work_ms: u64) -> bool {
        let permit = match load.enter() {
            Some(permit) => Some(permit),
            None if load.is_calm() => load.enter_in_burst().await,
            None => None,
        };
        let Some(permit) = permit else {
            load.refused();
            return false;
        };
        sleep(Duration::from_millis(work_ms)).await;
        permit.answered(Duration::from_millis(work_ms));
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
    async fn under_overload_nobody_waits_for_long() {
        let load = Load::default();
        let began = tokio::time::Instant::now();
        let requests = AT_ONCE_REST + BURST_WAITING_MAX + 1;
        // no work of the first ones is done in time
        assert_eq!(served(&load, requests, 350).await, AT_ONCE_REST as usize, "one too many, and it is overload");
        assert_eq!(began.elapsed(), Duration::from_millis(350));
        assert_eq!(load.0.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_come_first() {
        let load = Load::default();
        let mut permits: Vec<Permit> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a permit")).collect();
        let waiting = tokio::spawn({
            let load = load.clone();
            async move { load.enter_in_burst().await }
        });
        tokio::task::yield_now().await;
        permits.pop();
        assert!(load.enter().is_none(), "that permit is taken");
        assert!(waiting.await.expect("a task").is_some());
    }

    #[test]
    fn nobody_waits_while_others_are_refused() {
        let load = Load::default();
        assert!(load.is_calm());
        load.refused();
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
        let mut permits: Vec<Permit> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a permit")).collect();
        assert!(load.enter().is_none());
        permits.pop();
        let last = load.enter().expect("one was released");
        assert!(load.enter().is_none());
        // a request that waits for something else is in nobody's way, and has its permit again afterwards
        let is_released = Arc::default();
        let released = last.load().release(&is_released);
        assert!(last.load().release(&is_released).is_none(), "it has one permit");
        permits.push(load.enter().expect("somebody waits"));
        drop(released);
        assert!(load.enter().is_none());
        drop((permits, last));
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
        let permits: Vec<Permit> = (0..AT_ONCE_REST).map(|_| load.enter().expect("a permit")).collect();
        let max = || load.0.at_once_max.load(Ordering::Relaxed);
        let mut now_ms = 1_000;
        let mut windows = |count: u32, answered: u32, slow: u32, peak: u32| {
            for _ in 0..count {
                now_ms += WINDOW_MS;
                load.0.answered.store(answered, Ordering::Relaxed);
                load.0.slow.store(slow, Ordering::Relaxed);
                load.0.peak.store(peak, Ordering::Relaxed);
                load.adjust(now_ms);
            }
            max()
        };
        assert_eq!(windows(30, 100, 0, 20), AT_ONCE_REST);
        assert_eq!(windows(SLOW_WINDOWS - 1, 100, 100, 256), AT_ONCE_REST, "a burst");
        let next = windows(1, 100, 100, 256);
        assert!((45..=50).contains(&next), "as many as are answered in time: {next}");
        assert!(load.enter().is_none());
        assert_eq!(windows(30, 0, 0, 256), AT_ONCE_MIN, "none is answered");
        drop(permits);
        drop(load.enter().expect("all is done"));
        // a pause, and all is forgotten
        load.adjust(60_000);
        assert_eq!(max(), AT_ONCE_REST);
    }
}
