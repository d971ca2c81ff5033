//! What is measured, and for how long.

use std::path::PathBuf;

/// How long and how much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of one run of the load generator.
    pub seconds: u64,
    /// Commands sent by the batch endpoint and by an import, each.
    pub bulk_commands: usize,
    /// Tasks of the owner with many.
    pub many_tasks: usize,
    /// Length of the open loop.
    pub visible_seconds: u64,
    /// Also from an empty store to 5 million events.
    pub growth: bool,
    /// Events of the grown store.
    pub grown_events: i64,
    /// Length of the overload.
    pub overload_seconds: u64,
    /// How long a snapshot is held open.
    pub snapshot_seconds: u64,
    /// Events that the relay publishes and the projector reads.
    pub published_events: usize,
    /// Only these parts; all where empty.
    pub only: Vec<String>,
    /// Where the JSON goes.
    pub json: PathBuf,
}

impl Plan {
    /// What is measured where nothing else is asked for.
    pub fn whole() -> Plan {
        Plan {
            seconds: 10,
            bulk_commands: 500_000,
            many_tasks: 100_000,
            visible_seconds: 30,
            growth: false,
            grown_events: 5_000_000,
            overload_seconds: 30,
            snapshot_seconds: 60,
            published_events: 300_000,
            only: Vec::new(),
            json: PathBuf::from("target/bench.json"),
        }
    }

    /// The same in less time.
    pub fn quick(self) -> Plan {
        Plan {
            seconds: 3,
            bulk_commands: 100_000,
            many_tasks: 20_000,
            visible_seconds: 8,
            grown_events: 500_000,
            overload_seconds: 8,
            snapshot_seconds: 10,
            published_events: 96_000,
            ..self
        }
    }

    /// Whether this part is asked for.
    pub fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}
