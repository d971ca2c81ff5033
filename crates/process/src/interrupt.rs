//! Ctrl-C, SIGTERM and SIGHUP: the first asks for an orderly end, the second ends at once. What was ignored when the
//! program was started stays ignored: SIGHUP under `nohup`, Ctrl-C in what a script has started in the background.

use std::io;
use std::sync::mpsc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::stderr;

/// Tells of signals.
pub struct Interrupt {
    /// Cancelled by the first signal.
    pub soft: CancellationToken,
    /// Cancelled by the second.
    pub hard: CancellationToken,
}

impl Interrupt {
    /// Listens from here on, in a thread of its own: whatever the others wait for, a signal is heard.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn listen() -> io::Result<Self> {
        let this = Self { soft: CancellationToken::new(), hard: CancellationToken::new() };
        let (soft, hard) = (this.soft.clone(), this.hard.clone());
        let (listening, listens) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(listening.send(Err(error))),
            };
            runtime.block_on(async {
                let mut signals = match Signals::listen() {
                    Ok(signals) => signals,
                    Err(error) => return drop(listening.send(Err(error))),
                };
                let _ = listening.send(Ok(()));
                signals.next().await;
                stderr::wait_for_nobody();
                soft.cancel();
                signals.next().await;
                hard.cancel();
            });
        })?;
        listens.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that listens to signals has ended")))?;
        Ok(this)
    }
}

/// Those that are not ignored.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let of = |kind: SignalKind| (!is_ignored(kind.as_raw_value())).then(|| signal(kind)).transpose();
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            () = of(&mut self.interrupt) => {}
            () = of(&mut self.terminate) => {}
            () = of(&mut self.hang_up) => {}
        }
    }
}

async fn of(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process ignores the signal of this number; false where the system does not tell (Linux does).
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}
