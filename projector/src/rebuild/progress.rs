//! How far a rebuild is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the log, folding, writing rows.
    Fill,
    /// Counting, building indexes.
    Index,
    /// Applying what came meanwhile.
    CatchUp,
    /// Comparing with the live generation.
    Compare,
    /// Switching to it.
    Switch,
}

impl Phase {
    /// In a word or two.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Index => "index",
            Self::CatchUp => "catch up",
            Self::Compare => "compare",
            Self::Switch => "switch",
        }
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The generation that is being made.
    pub generation: i32,
    /// What is being done.
    pub phase: Phase,
    /// Events in it, of those that the log had when it began.
    pub events_done: i64,
    /// Events that the log had when it began.
    pub events_total: i64,
    /// Of the filling, since this run began.
    pub events_per_second: i64,
}

/// Counts events, and reports them.
pub(super) struct Meter<'a> {
    generation: i32,
    total: i64,
    done: AtomicI64,
    /// Done in this run.
    run: AtomicI64,
    started: Instant,
    phase: Mutex<Phase>,
    report: &'a (dyn Fn(&Progress) + Send + Sync),
}

impl<'a> Meter<'a> {
    pub(super) fn new(generation: i32, done: i64, total: i64, report: &'a (dyn Fn(&Progress) + Send + Sync)) -> Self {
        let meter = Self {
            generation,
            total,
            done: AtomicI64::new(done),
            run: AtomicI64::new(0),
            started: Instant::now(),
            phase: Mutex::new(Phase::Fill),
            report,
        };
        meter.report();
        meter
    }

    /// Events that this run has filled.
    pub(super) fn filled(&self) -> i64 {
        self.run.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, events: i64) {
        self.done.fetch_add(events, Ordering::Relaxed);
        self.run.fetch_add(events, Ordering::Relaxed);
        self.report();
    }

    /// Events a second of this run, with these.
    pub(super) fn rate_with(&self, events: i64) -> i64 {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX).max(1);
        (self.run.load(Ordering::Relaxed) + events).saturating_mul(1_000) / ms
    }

    pub(super) fn enter(&self, phase: Phase) {
        if let Ok(mut current) = self.phase.lock() {
            *current = phase;
        }
        self.report();
    }

    fn report(&self) {
        (self.report)(&Progress {
            generation: self.generation,
            phase: self.phase.lock().map_or(Phase::Fill, |phase| *phase),
            events_done: self.done.load(Ordering::Relaxed),
            events_total: self.total,
            events_per_second: self.rate_with(0),
        });
    }
}
