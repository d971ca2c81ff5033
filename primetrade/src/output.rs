//! What a command says: messages and progress on standard error, its result at the end on standard output.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

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

    /// Prints it to standard output, in the form asked for.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn print(&self, json: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            if let Some(json) = &self.json {
                writeln!(out, "{json}")?;
            }
        } else if !self.text.is_empty() {
            writeln!(out, "{}", self.text)?;
        }
        out.flush()
    }
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
        Self { bar, unit, began, terminal: std::io::stderr().is_terminal(), state }
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
            self.bar.suspend(|| eprintln!("{line}"));
        } else {
            eprintln!("{line}");
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
            match self.bar.length().filter(|total| *total > 0) {
                Some(total) => eprintln!("{} % of {total} {what}  {message}", position.saturating_mul(100) / total),
                None => eprintln!("{position} {what}  {message}"),
            }
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
