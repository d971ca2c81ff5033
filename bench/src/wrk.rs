//! Runs of wrk.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Answers a second.
    pub per_second: f64,
    /// Latency, in milliseconds.
    pub p50_ms: f64,
    /// Latency, in milliseconds.
    pub p99_ms: f64,
    /// Answers.
    pub requests: u64,
    /// Answers of 400 and above.
    pub bad: u64,
}

/// A run to be.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// A script in bench/wrk.
    pub script: &'a str,
    /// Base URL.
    pub url: &'a str,
    /// Open connections, all kept busy.
    pub connections: u32,
    /// Length.
    pub seconds: u64,
    /// Variables of the script.
    pub variables: Vec<(&'a str, String)>,
}

impl Run<'_> {
    /// Runs it. Blocks this thread: nothing else is to happen meanwhile.
    pub fn measure(&self) -> Measured {
        let lua = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wrk");
        let threads = self.connections.min(2);
        let mut command = Command::new("wrk");
        command
            .args(["-t", &threads.to_string(), "-c", &self.connections.to_string()])
            .args(["-d", &format!("{}s", self.seconds), "--timeout", "10s", "-s"])
            .arg(lua.join(self.script))
            .arg(self.url)
            .env("BENCH_LUA", &lua)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.output().expect("wrk (Debian: wrk)");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.unwrap_or_else(|| panic!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let result: Value = serde_json::from_str(line).expect("JSON");
        let number = |field: &str| result[field].as_f64().unwrap_or_else(|| panic!("{field} in {result}"));
        assert_eq!(number("socket_errors"), 0.0, "{text}");
        Measured {
            per_second: number("requests") / number("seconds"),
            p50_ms: number("p50_us") / 1_000.0,
            p99_ms: number("p99_us") / 1_000.0,
            requests: number("requests") as u64,
            bad: number("bad_status") as u64,
        }
    }
}
