//! What a command says: messages and progress on standard error, its result at the end on standard output.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use process::stderr;
use serde_json::{Value, json};

/// A bar is shown for what takes longer than this.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Without a terminal, a line each.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How a command that could run ended.
#[derive(Debug)]
pub struct Report {
    /// False: done, but something is wrong (exit status 1).
    pub good: bool,
    /// For people; without a line end. Empty: nothing to say.
    pub text: String,
    /// For machines: one object. None: standard output holds something else.
    pub json: Option<Value>,
}

impl Report {
    /// All is well.
    #[must_use]
    pub fn good(text: impl Into<String>, json: Value) -> Self {
        Self { good: true, text: text.into(), json: Some(json) }
    }

    /// All is well: a list, with a line for each item.
    #[must_use]
    pub fn list<Item>(all: &[Item], line_of: impl Fn(&Item) -> String, object_of: impl Fn(&Item) -> Value) -> Self {
        let lines: Vec<String> = all.iter().map(line_of).collect();
        let items: Vec<Value> = all.iter().map(object_of).collect();
        Self::good(lines.join("\n"), json!({ "items": items }))
    }

    /// What standard output gets, in the form asked for.
    #[must_use]
    pub fn result(&self, json: bool) -> Option<String> {
        match (json, &self.json) {
            (true, json) => json.as_ref().map(Value::to_string),
            (false, _) => (!self.text.is_empty()).then(|| self.text.clone()),
        }
    }
}

/// Prints a command's result to standard output. A reader that has had enough (`| head`) is no error.
///
/// # Errors
/// It could not be written.
pub fn print(result: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{result}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The same for a server, which waits for no reader.
///
/// # Errors
/// It could not be written.
pub fn print_at_once(result: String) -> io::Result<()> {
    let (sender, printed) = mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(print(&result)));
    printed.recv_timeout(stderr::LAST_TIME_MAX).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of a file.
    Bytes,
    /// Anything else.
    Things(&'static str),
}

/// Progress of something long: a bar on a terminal, now and then a line elsewhere.
pub struct Progress {
    bar: ProgressBar,
    unit: Unit,
    began: Instant,
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    shown: bool,
    last_line: Instant,
}

impl Progress {
    /// Of so many, if that is known.
    #[must_use]
    pub fn new(total: Option<u64>, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match (total, unit) {
            (Some(_), Unit::Bytes) => "{bar:30} {percent:>3} % of {total_bytes}, {bytes_per_sec}, {eta} left  {msg}",
            (Some(_), Unit::Things(_)) => "{bar:30} {percent:>3} % of {human_len}, {per_sec}, {eta} left  {msg}",
            (None, Unit::Bytes) => "{spinner} {bytes}, {bytes_per_sec}  {msg}",
            (None, Unit::Things(_)) => "{spinner} {human_pos}, {per_sec}  {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let began = Instant::now();
        let state = Mutex::new(State { shown: false, last_line: began });
        Self { bar, unit, began, terminal: io::stderr().is_terminal(), state }
    }

    /// So far.
    pub fn set(&self, position: u64, message: &str) {
        self.bar.set_position(position);
        self.bar.set_message(message.to_owned());
        self.show(message);
    }

    /// The total became known, or another one.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// A line that stays, above the bar.
    pub fn say(&self, line: &str) {
        if self.lock().shown && self.terminal {
            self.bar.suspend(|| {
                stderr::say(line);
                stderr::flush();
            });
        } else {
            stderr::say(line);
        }
    }

    fn show(&self, message: &str) {
        if self.began.elapsed() < SHOWN_AFTER {
            return;
        }
        let mut state = self.lock();
        if self.terminal && !state.shown {
            state.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.reset_eta();
        }
        if !self.terminal && state.last_line.elapsed() > LINE_EVERY {
            state.last_line = Instant::now();
            let position = self.bar.position();
            let what = match self.unit {
                Unit::Bytes => "bytes",
                Unit::Things(things) => things,
            };
            stderr::say(&match self.bar.length().filter(|total| *total > 0) {
                Some(total) => format!("{} % of {total} {what}  {message}", position.saturating_mul(100) / total),
                None => format!("{position} {what}  {message}"),
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
