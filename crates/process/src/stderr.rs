//! Standard error, the one way there: a bounded queue, and a thread of its own that writes what stands in it.
//!
//! Whoever logs never waits for the reader of the log, who may have stopped reading: what does not fit is dropped and
//! counted. Nothing here panics or fails: what cannot be told (a closed pipe, a full disk) is dropped as well. A command
//! line, whose messages are its result, waits for a reader that is slow ([`say`]), until a signal asks it to end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How much waits to be written, in bytes: some two thousand lines.
const QUEUE_BYTES_MAX: usize = 512 << 10;
/// How long the last lines may take, where nobody is waited for.
pub const LAST_TIME_MAX: Duration = Duration::from_millis(400);
/// The same for the message of a panic.
const PANIC_TIME_MAX: Duration = Duration::from_millis(200);
/// Somebody else has made it non-blocking, and it is full.
const AGAIN_MS: u64 = 10;

/// Says a line. Waits where there is no room, unless [`wait_for_nobody`] was called.
pub fn say(line: &str) {
    let queue = queue();
    let mut state = queue.lock();
    while !state.has_room(line.len() + 1) && state.patient {
        state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.put(format!("{line}\n").into_bytes());
    queue.changed.notify_all();
}

/// From here on nothing waits for who reads: a server from its start, a command once it was asked to end.
pub fn wait_for_nobody() {
    let queue = queue();
    queue.lock().patient = false;
    queue.changed.notify_all();
}

/// Returns when all was written that was said; for a bounded time where nobody is waited for.
pub fn flush() {
    flush_within(LAST_TIME_MAX);
}

fn flush_within(time_max: Duration) {
    let queue = queue();
    let mut state = queue.lock();
    let mut impatient_since = None;
    while state.bytes > 0 {
        let left = if state.patient {
            // woken by what changes
            Duration::from_secs(3600)
        } else {
            time_max.saturating_sub(impatient_since.get_or_insert_with(Instant::now).elapsed())
        };
        if left.is_zero() {
            return;
        }
        state = queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// How many lines were dropped so far.
#[must_use]
pub fn dropped() -> u64 {
    queue().lock().dropped
}

/// Whether colours do any good: a person looks at a terminal, and has not said otherwise (`NO_COLOR`).
#[must_use]
pub fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !unwanted && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Panics go the way of all lines: what Rust does by itself would wait for a reader that has stopped reading.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("not a text");
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        tracing::error!("thread '{}' panicked at {place}: {text}{backtrace}", thread.name().unwrap_or("?"));
        // it may be the last thing that happens
        flush_within(PANIC_TIME_MAX);
    }));
}

/// Where logs go. One call of `write` is one line.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let queue = queue();
        queue.lock().put(line.to_vec());
        queue.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    /// Of what waits and of what is being written.
    bytes: usize,
    dropped: u64,
    /// Of the dropped ones, those that the log does not tell of yet.
    dropped_untold: u64,
    patient: bool,
}

impl State {
    /// A line that is longer than the whole queue has its turn when there is nothing else.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= QUEUE_BYTES_MAX
    }

    fn put(&mut self, line: Vec<u8>) {
        if self.has_room(line.len()) {
            self.bytes += line.len();
            self.lines.push_back(line);
        } else {
            self.drop_lines(1);
        }
    }

    fn drop_lines(&mut self, count: u64) {
        self.dropped += count;
        self.dropped_untold += count;
        metrics::counter!("log_lines_dropped_total").increment(count);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits; waits for it.
    fn take(&self) -> VecDeque<Vec<u8>> {
        let mut state = self.lock();
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.lines)
    }

    fn write(&self, to: &mut Option<File>) -> ! {
        loop {
            for line in self.take() {
                let written = to.as_mut().is_some_and(|to| write_all(to, &line).is_ok());
                let mut state = self.lock();
                state.bytes -= line.len();
                let untold = if written { std::mem::take(&mut state.dropped_untold) } else { 0 };
                if !written {
                    state.drop_lines(1);
                }
                drop(state);
                self.changed.notify_all();
                if untold > 0 {
                    tracing::warn!(lines = untold, "lines of this log were dropped, since nobody read it");
                }
            }
        }
    }
}

fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(AGAIN_MS));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    static STARTED: OnceLock<()> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| Queue {
        state: Mutex::new(State { lines: VecDeque::new(), bytes: 0, dropped: 0, dropped_untold: 0, patient: true }),
        changed: Condvar::new(),
    });
    STARTED.get_or_init(|| {
        // not std's own handle: who writes by that one holds a lock while he waits
        let mut to = io::stderr().as_fd().try_clone_to_owned().map(File::from).ok();
        let writer = std::thread::Builder::new().name("standard error".to_owned());
        if writer.spawn(move || queue.write(&mut to)).is_err() {
            // nothing can be told
            queue.lock().patient = false;
        }
    });
    queue
}
