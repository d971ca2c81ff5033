//! Work that is done again and again until the process stops.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::outage::Outage;

/// Copies that were started together do not work together: each pause is shorter by up to this part of the interval.
const JITTER_PARTS: u32 = 10;

/// When work is due, and whether it fails at present:
///
/// ```
/// # use process::periodic::Periodic;
/// # async fn fetch() -> Result<u32, std::io::Error> { Ok(1) }
/// # async fn keep(every: std::time::Duration, stop: tokio_util::sync::CancellationToken) {
/// let mut fetching = Periodic::every(every, "fetching the keys", stop);
/// while fetching.due().await {
///     if let Some(keys) = fetching.seen(fetch().await) {
///         println!("{keys}");
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Periodic {
    interval: Duration,
    next: Instant,
    outage: Outage,
    stop: CancellationToken,
}

impl Periodic {
    /// Due at once, and then after each `interval`, until `stop`. `what` is as [`Outage::of`] has it.
    #[must_use]
    pub fn every(interval: Duration, what: &'static str, stop: CancellationToken) -> Self {
        Self { interval, next: Instant::now(), outage: Outage::of(what), stop }
    }

    /// Waits until it is due; `false`: the process stops.
    pub async fn due(&mut self) -> bool {
        self.due_or(std::future::pending::<std::convert::Infallible>()).await.is_some()
    }

    /// The same, or until `sooner` has come, if that is before: `Some(None)` when it is due, `None` when the process stops.
    pub async fn due_or<T>(&mut self, sooner: impl Future<Output = T>) -> Option<Option<T>> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            () = sleep_until(self.next) => {
                self.next = Instant::now() + self.pause();
                Some(None)
            }
            came = sooner => Some(Some(came)),
        }
    }

    /// What came of it this time: see [`Outage::seen`].
    pub fn seen<T, E: Display>(&mut self, result: Result<T, E>) -> Option<T> {
        self.outage.seen(result)
    }

    fn pause(&self) -> Duration {
        self.interval - (self.interval / JITTER_PARTS).mul_f32(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_due_at_once_then_at_each_interval_and_not_after_the_stop() {
        let stop = CancellationToken::new();
        let began = Instant::now();
        let mut periodic = Periodic::every(SECOND, "counting", stop.clone());
        for count in 0..5_u32 {
            assert!(periodic.due().await);
            let elapsed = began.elapsed();
            assert!(elapsed <= count * SECOND + count * Duration::from_millis(1), "{count}: {elapsed:?}");
            assert!(elapsed >= count * SECOND * 9 / 10, "{count}: {elapsed:?}");
        }
        stop.cancel();
        assert!(!periodic.due().await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_sooner_does_not_put_it_off() {
        let mut periodic = Periodic::every(SECOND, "counting", CancellationToken::new());
        assert!(periodic.due().await);
        let began = Instant::now();
        let sooner = tokio::time::sleep(SECOND / 2);
        assert_eq!(periodic.due_or(sooner).await, Some(Some(())));
        assert_eq!(periodic.due_or(std::future::pending::<()>()).await, Some(None));
        assert!(began.elapsed() <= SECOND + Duration::from_millis(1));
    }
}
