//! The recorder of metrics, as Prometheus reads them. Labels have a bounded set of values: no ids.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::periodic::Periodic;
use crate::stderr;

/// Upper bounds of the buckets of everything that is measured in seconds.
const SECONDS_BUCKETS: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of everything that is counted (sizes of batches).
const COUNT_BUCKETS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16_384.0];
/// Upper bounds of the buckets of what takes people minutes to months, in seconds.
const LONG_SECONDS_BUCKETS: [f64; 12] =
    [1.0, 10.0, 60.0, 600.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0, 31_536_000.0];
/// What was recorded is folded into its buckets this often, so that it takes no memory while nobody asks for metrics.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Another recorder is installed already, or a bucket is wrong.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] metrics_exporter_prometheus::BuildError);

/// The process's metrics. The first call installs the recorder; needs a Tokio runtime for its upkeep.
///
/// # Errors
/// When another recorder is installed already.
pub fn recorder() -> Result<PrometheusHandle, MetricsError> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("task_completion_duration_seconds".into()), &LONG_SECONDS_BUCKETS)?
        .set_buckets(&COUNT_BUCKETS)?
        .install_recorder()?;
    // shown from the start, with what was dropped before there were metrics
    metrics::counter!("log_lines_dropped_total").absolute(stderr::dropped());
    let upkept = installed.insert(handle.clone()).clone();
    tokio::spawn(async move {
        let mut upkeep = Periodic::every(UPKEEP_INTERVAL, "upkeep of metrics", CancellationToken::new());
        while upkeep.due().await {
            upkept.run_upkeep();
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests {
    /// The names in a source file that are said where something is counted.
    fn named(source: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for kind in ["counter", "gauge", "histogram"] {
            let called = format!("{kind}!(");
            let said = source.split(called.as_str()).skip(1);
            names.extend(said.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()));
        }
        names
    }

    #[test]
    fn every_metric_is_in_the_document_once() {
        // the names in the first column of its table
        let cells = include_str!("../../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: Vec<&str> =
            cells.filter_map(|row| row.split(" |").next()).flat_map(|cell| cell.split('`').step_by(2)).collect();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folders_of = |folder: &std::path::Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        // each crate's sources, not its tests
        let crates = [folders_of(&root), folders_of(&root.join("crates"))].concat();
        let mut folders: Vec<_> = crates.iter().map(|folder| folder.join("src")).filter(|path| path.is_dir()).collect();
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            folders.extend(folders_of(&folder));
            for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.extension().is_some_and(|extension| extension == "rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    for metric in named(source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()) {
                        count += 1;
                        let times = documented.iter().filter(|name| **name == metric).count();
                        assert_eq!(times, 1, "{metric} of {} in docs/metrics.md", path.display());
                    }
                }
            }
        }
        assert!(count > 50, "{count} metrics found");
    }
}
