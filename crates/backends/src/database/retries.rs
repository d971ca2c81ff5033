//! Tries again for a limited time, at a start: until a database answers, until a schema is migrated.

use std::time::Duration;

use tokio::time::Instant;

/// The first and the longest pause between two attempts, in milliseconds.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;
/// While something is waited for, it is said this often, in milliseconds.
const SAID_EVERY_MS: u64 = 10_000;

/// For how long something is tried, when next, and when it was last logged.
pub(super) struct Retries {
    began: Instant,
    pause: Duration,
    wait: Duration,
    said: Option<Instant>,
}

impl Retries {
    pub fn new(wait: Duration) -> Self {
        Self { began: Instant::now(), pause: Duration::from_millis(PAUSE_MS_MIN), wait, said: None }
    }

    /// Waits until it is time to look again; `false` when it is too late for that.
    pub async fn again(&mut self, what: &str, reason: &str) -> bool {
        if self.began.elapsed() + self.pause > self.wait {
            return false;
        }
        if self.said.is_none_or(|said| said.elapsed() >= Duration::from_millis(SAID_EVERY_MS)) {
            self.said = Some(Instant::now());
            let left_s = (self.wait - self.began.elapsed()).as_secs();
            tracing::warn!(reason, "waiting for {what}; trying again for {left_s} s");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
        true
    }
}
