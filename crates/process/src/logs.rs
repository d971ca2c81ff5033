//! Logs, to standard error. They carry trace, request and owner ids; never content, addresses or tokens.

use settings::{ConfigError, Source, invalid};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::context::{self, RequestContext};
use crate::stderr;

/// How logs are written.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// Which levels of which targets: `info`, or `warn,event_store=debug`.
    pub filter: Targets,
    /// One JSON object a line, instead of text.
    pub json: bool,
}

impl LogSettings {
    /// `PRIMETRADE_LOG` (info) and `PRIMETRADE_LOG_FORMAT` (text).
    ///
    /// # Errors
    /// When the filter cannot be read or the format is neither.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let filter = source.text("PRIMETRADE_LOG")?.unwrap_or_else(|| "info".into());
        let filter = filter.parse().map_err(|_| {
            invalid("PRIMETRADE_LOG", &"it is a level (error, warn, info, debug, trace, off), or as in RUST_LOG")
        })?;
        let json = match source.text("PRIMETRADE_LOG_FORMAT")?.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(_) => return Err(invalid("PRIMETRADE_LOG_FORMAT", &"it is either text or json")),
        };
        Ok(Self { filter, json })
    }
}

/// Logs are set up already.
#[derive(Debug, thiserror::Error)]
#[error("logs are set up already: {0}")]
pub struct LogsError(#[from] tracing_subscriber::util::TryInitError);

/// Sends logs to standard error, as text or one JSON object a line.
///
/// # Errors
/// When logs are set up already.
pub fn init(log: &LogSettings) -> Result<(), LogsError> {
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
    stderr::log_panics();
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use http::{HeaderMap, HeaderValue};
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
}
