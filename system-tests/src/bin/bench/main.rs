//! `bin/bench`: every figure of docs/performance.md beside its baseline, in one run.

mod handler;
mod load;
mod machine;
mod report;
mod runs;
mod wrk;

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
    fn whole() -> Plan {
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

    fn quick(self) -> Plan {
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

const USAGE: &str = "bench [--quick] [--growth] [--json FILE] [--only PART,PART…]
parts: append bulk projector lists search visible snapshot overload streams services gateway";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "handler") {
        handler::main(&arguments[1..]);
        return;
    }
    let mut plan = Plan::whole();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), rest.as_slice().first()) {
            ("--quick", _) => plan = plan.quick(),
            ("--growth", _) => plan.growth = true,
            ("--json", Some(file)) => {
                plan.json = PathBuf::from(file);
                rest.next();
            }
            ("--only", Some(parts)) => {
                plan.only = parts.split(',').map(str::to_owned).collect();
                rest.next();
            }
            _ => {
                eprintln!("{USAGE}");
                std::process::exit(2);
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let all_met = runtime.block_on(runs::all(&plan));
    // a figure that falls short is a finding, not a failure of the run
    println!("{}", if all_met { "all targets met" } else { "some targets are not met" });
}
