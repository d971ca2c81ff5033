//! Waiting for a condition, with a deadline, instead of sleeping.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

const POLL_MS: u64 = 20;
const EVENTUALLY: Duration = Duration::from_secs(15);

/// Asks again and again until the answer is `Some`, and panics with `what` once `deadline` has passed.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    let mut tick = interval(Duration::from_millis(POLL_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
    }
}

/// The same for a condition.
pub async fn until_true(what: &str, deadline: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    let mut tick = interval(Duration::from_millis(POLL_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if holds().await {
            return;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
    }
}

/// The same for at most 15 s: for a condition that has no time limit of its own.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_true(what, EVENTUALLY, holds).await;
}

/// The same for what says what is not yet right; panics with the last of that.
pub async fn until_right<F, Fut>(deadline: Duration, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    let started = Instant::now();
    let mut tick = interval(Duration::from_millis(POLL_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Err(wrong) = ask().await else { return };
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {wrong}");
    }
}

/// The same on a thread that runs no async code: for what has to be ready before a runtime is.
pub fn until_blocking<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(POLL_MS));
    }
}

/// Lets load run: comes back when `work` is done or after `time`, whichever is first.
pub async fn at_most(time: Duration, work: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(time, work).await;
}
