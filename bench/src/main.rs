//! `bin/bench`: every figure of docs/performance.md beside its baseline, in one run.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cost;
mod handler;
mod load;
mod machine;
mod plan;
mod report;
mod runs;
mod wrk;

use std::io::Write;
use std::path::PathBuf;

use crate::plan::Plan;

const USAGE: &str = "bench [--quick] [--growth] [--json FILE] [--only PART,PART…]
parts: append bulk projector lists search past visible snapshot overload streams services gateway";

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
                let _ = writeln!(std::io::stderr(), "{USAGE}");
                std::process::exit(2);
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let all_met = runtime.block_on(runs::all(&plan));
    // a figure that falls short is a finding, not a failure of the run
    report::say(if all_met { "all targets met" } else { "some targets are not met" });
}
