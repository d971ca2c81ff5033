//! Pauses before something is tried again.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

/// The longest pause after another process has raised the fence.
const FENCED_PAUSE_MS_MAX: u64 = 200;
/// The longest pause after an error of the database.
const ERROR_PAUSE_MS_MAX: u64 = 5_000;

/// The pause after an error, longer while there are more of them.
#[derive(Default)]
pub(super) struct ErrorPause {
    errors: u32,
}

impl ErrorPause {
    /// Waits after an error, or until `stop`. What failed began at `started`: if it ran for longer than the longest pause,
    /// this is the first error again.
    pub(super) async fn after(&mut self, error: &(dyn Display + Sync), started: Instant, stop: &CancellationToken) {
        if started.elapsed() > Duration::from_millis(ERROR_PAUSE_MS_MAX) {
            self.errors = 0;
        }
        let pause = Duration::from_millis((50_u64 << self.errors.min(7)).min(ERROR_PAUSE_MS_MAX));
        self.errors = self.errors.saturating_add(1);
        warn!(%error, pause_ms = pause.as_millis(), "the projector cannot go on; trying again");
        metrics::counter!("projector_errors_total").increment(1);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The pause after another process has raised the fence, longer while that goes on.
#[derive(Default)]
pub(super) struct FencedPause {
    times: u32,
}

impl FencedPause {
    /// A batch was written.
    pub(super) fn reset(&mut self) {
        self.times = 0;
    }

    /// Waits: 4 ms at first, twice as long each time, less a random part.
    pub(super) async fn wait(&mut self) {
        let pause_ms = (4_u64 << self.times.min(6)).min(FENCED_PAUSE_MS_MAX);
        self.times = self.times.saturating_add(1);
        // The random part keeps two processes from trying at the same moments.
        let jitter_ms = u64::from(Uuid::new_v4().as_bytes()[0]) * pause_ms / 512;
        sleep(Duration::from_millis(pause_ms / 2 + jitter_ms)).await;
    }
}
