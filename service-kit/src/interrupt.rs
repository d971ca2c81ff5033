//! Ctrl-C, SIGTERM and SIGHUP: the first asks for an orderly end, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells of signals.
pub struct Interrupt {
    /// Cancelled by the first signal.
    pub soft: CancellationToken,
    /// Cancelled by the second.
    pub hard: CancellationToken,
}

impl Interrupt {
    /// Listens from here on.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn listen() -> std::io::Result<Self> {
        let mut signals = Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        let this = Self { soft: CancellationToken::new(), hard: CancellationToken::new() };
        let (soft, hard) = (this.soft.clone(), this.hard.clone());
        tokio::spawn(async move {
            signals.next().await;
            soft.cancel();
            signals.next().await;
            hard.cancel();
        });
        Ok(this)
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
