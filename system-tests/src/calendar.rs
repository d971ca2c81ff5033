//! Calendars, as a reader takes them that others wrote: Python's `icalendar`.

use std::process::Stdio;

use serde_json::Value;

use crate::kafka::machine;
use crate::server::run_within;

/// Also on a machine where it is to be installed first.
const READ_MS_MAX: u64 = 120_000;

/// The components of a calendar, each with its name and properties. One that is not taken, in whole or in part, fails the
/// test.
pub async fn read(calendar: &str) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/lib/read_calendar.py");
    let mut command = machine(r#"need_icalendar </dev/null; exec "$ICALENDAR_PYTHON" "$1""#);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let read = run_within(READ_MS_MAX, command, calendar).await.expect(0);
    serde_json::from_str(&read.out).expect("a list of components")
}
