//! Logs to standard error, metrics to `/metrics`. Called once, by `main`.
//!
//! Logs carry trace, request and owner ids; never content, addresses or tokens. Labels of metrics have a bounded set of
//! values: no ids.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Log;

/// Upper bounds of the buckets of everything that is measured in seconds.
const SECONDS_BUCKETS: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of everything that is counted (sizes of batches).
const COUNT_BUCKETS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16_384.0];
/// What was recorded is folded into its buckets this often, so that it takes no memory while nobody asks for metrics.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("PRIMETRADE_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody has set up logs already.
    #[error("logs are set up already: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// Somebody has set up metrics already, or a bucket is wrong.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sends logs to standard error, as text or one JSON object a line.
///
/// # Errors
/// When the filter cannot be read or logs are set up already.
pub fn init_logs(log: &Log) -> Result<(), TelemetryError> {
    let mut filter = EnvFilter::try_new(&log.filter)?;
    if !log.filter.contains("sqlx") {
        // "schema already exists, skipping", at every start
        filter = filter.add_directive("sqlx::postgres::notice=warn".parse()?);
    }
    let registry = tracing_subscriber::registry().with(filter);
    if log.json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()?;
    } else {
        registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()?;
    }
    Ok(())
}

/// The process's metrics. The first call installs the recorder; needs a Tokio runtime for its upkeep.
///
/// # Errors
/// When another recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets(&COUNT_BUCKETS)?
        .install_recorder()?;
    let upkeep = HANDLE.get_or_init(|| handle).clone();
    let kept = upkeep.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(kept)
}
