//! Logs to standard error, metrics to `/metrics`. Called once, by `main`.
//!
//! Logs carry trace, request and owner ids; never content, addresses or tokens. Labels of metrics have a bounded set of
//! values: no ids.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::database::Pool;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Log;
use crate::context::{self, RequestContext};
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

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Somebody has set up logs already.
    #[error("logs are set up already: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// Somebody has set up metrics already, or a bucket is wrong.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] crate::traces::TracesError),
}

/// Sends logs to standard error, as text or one JSON object a line.
///
/// # Errors
/// When logs are set up already.
pub fn init_logs(log: &Log) -> Result<(), TelemetryError> {
    let mut filter = log.filter.clone();
    if filter.iter().all(|(target, _)| !target.starts_with("sqlx")) {
        // "schema already exists, skipping", at every start
        filter = filter.with_target("sqlx::postgres::notice", LevelFilter::WARN);
    }
    let registry = tracing_subscriber::registry().with(filter);
    if log.json {
        let format = OfRequest { format: fmt::format().json().flatten_event(true), json: true };
        let layer = fmt::layer().fmt_fields(fmt::format::JsonFields::new()).event_format(format);
        registry.with(layer.with_writer(stderr::Log).log_internal_errors(false)).try_init()?;
    } else {
        let format = OfRequest { format: fmt::format(), json: false };
        let layer = fmt::layer().event_format(format).with_ansi(stderr::has_colours());
        registry.with(layer.with_writer(stderr::Log).log_internal_errors(false)).try_init()?;
    }
    stderr::tell_panics();
    Ok(())
}

/// Adds the ids of the request in progress to a line, whoever writes it: trace, request, what its events carry as
/// correlation id (which is the request's), and the owner once they are known.
struct OfRequest<F> {
    format: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for OfRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let Some(ids) = context::with_current(|request| self.ids(request)) else {
            return self.format.format_event(context, to, event);
        };
        let mut line = String::with_capacity(512);
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let end = if self.json { line.rfind('}') } else { Some(line.trim_end().len()) };
        line.insert_str(end.unwrap_or(line.len()), &ids);
        to.write_str(&line)
    }
}

impl<F> OfRequest<F> {
    /// None of them has a character that JSON would escape.
    fn ids(&self, request: &RequestContext) -> String {
        let mut ids = String::with_capacity(200);
        let mut add = |name: &str, value: &str| {
            ids.push_str(if self.json { ",\"" } else { " " });
            ids.push_str(name);
            ids.push_str(if self.json { "\":\"" } else { "=" });
            ids.push_str(value);
            ids.push_str(if self.json { "\"" } else { "" });
        };
        add("trace_id", &request.trace_id());
        add("request_id", request.request_id());
        if self.json {
            add("correlation_id", request.request_id());
        }
        if let Some(owner) = request.owner() {
            add("owner_id", &owner.to_string());
        }
        ids
    }
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
        .set_buckets_for_metric(Matcher::Full("task_completion_duration_seconds".into()), &LONG_SECONDS_BUCKETS)?
        .set_buckets(&COUNT_BUCKETS)?
        .install_recorder()?;
    // it stands there from the start, with what was dropped before there were metrics
    metrics::counter!("log_lines_dropped_total").absolute(stderr::dropped());
    let upkeep = HANDLE.get_or_init(|| handle).clone();
    let kept = upkeep.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
            look_at_pools();
        }
    });
    Ok(kept)
}

/// Shows how a pool of connections is used, under a name that is none of an address.
pub fn watch_pool(name: &'static str, pool: &Pool) {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner).push((name, pool.clone()));
}

static POOLS: Mutex<Vec<(&'static str, Pool)>> = Mutex::new(Vec::new());

fn look_at_pools() {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|(_, pool)| !pool.is_closed());
    for (name, pool) in pools.iter() {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        let used = pool.size().saturating_sub(idle);
        for (state, count) in [("idle", idle), ("used", used)] {
            metrics::gauge!("database_connections", "pool" => *name, "state" => state).set(f64::from(count));
        }
        let most = pool.connections_max();
        metrics::gauge!("database_connections_max", "pool" => *name).set(f64::from(most));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use axum::http::{HeaderMap, HeaderValue};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_says_whose_request_it_is_of() {
        let lines = Lines::default();
        let format = OfRequest { format: fmt::format().json().flatten_event(true), json: true };
        let layer = fmt::layer().fmt_fields(fmt::format::JsonFields::new()).event_format(format);
        let logs = tracing_subscriber::registry().with(layer.with_writer(lines.clone()));
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("r-1"));
        let context = RequestContext::from_headers(&headers);
        let trace_id = context.trace_id();
        let owner = domain::OwnerId(uuid::Uuid::from_u128(7));
        tracing::subscriber::with_default(logs, || {
            tracing::info!("outside");
            context.sync_scope(|| {
                context::belongs_to(owner);
                tracing::info!(count = 3, "inside {{}}");
            });
        });
        let text = String::from_utf8(lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0].get("trace_id"), None);
        let of = |name: &str| lines[1][name].clone();
        assert_eq!((of("trace_id"), of("request_id")), (trace_id.into(), "r-1".into()));
        assert_eq!((of("correlation_id"), of("owner_id")), ("r-1".into(), owner.to_string().into()));
        assert_eq!((of("count"), of("message")), (3.into(), "inside {}".into()));
    }

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
        let cells = include_str!("../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: Vec<&str> =
            cells.filter_map(|row| row.split(" |").next()).flat_map(|cell| cell.split('`').step_by(2)).collect();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (mut folders, mut count) = (vec![root.clone()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let (path, name) = (entry.path(), entry.file_name());
                // each crate's sources, not its tests
                if path.is_dir() {
                    if folder != root || path.join("src").is_dir() {
                        folders.push(if folder == root { path.join("src") } else { path });
                    }
                } else if name.to_string_lossy().ends_with(".rs") {
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
