//! OpenTelemetry traces: from the HTTP request through the event to the projection, sent by OTLP over HTTP.
//!
//! Off unless [`start`] was called: then a span costs one look at a flag. A span is exported when it is over, with the ids
//! that the request's context and the event's `traceparent` carry already; nothing is kept open, so nothing has to be
//! carried along. Spans wait in a bounded queue for a thread of their own; what does not fit is dropped. What a caller
//! asked not to be sampled is not.

use std::fmt;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use settings::{ConfigError, Source};
use tokio::runtime::Handle;

use crate::clock;

/// How long sending a batch of spans may take.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the last ones may take when the process ends.
pub const LAST_TIME_MAX: Duration = Duration::from_millis(500);

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

static EXPORT: OnceLock<Export> = OnceLock::new();

struct Export {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("{ENDPOINT}: {0}")]
pub struct TracesError(String);

/// Sends the spans that are left when it is dropped.
#[derive(Debug)]
#[must_use = "spans that are left are sent when it is dropped"]
pub struct Traces(());

/// A span in its trace, as a W3C `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Whether anybody wants to see it.
    pub sampled: bool,
}

/// What kind of span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that is answered.
    Server,
    /// A message that is sent.
    Producer,
    /// A message that is taken in.
    Consumer,
}

/// A span that is over.
#[derive(Debug)]
pub struct Finished {
    /// Low cardinality, as `GET /api/v1/tasks`.
    pub name: String,
    /// What kind.
    pub kind: Kind,
    /// Which.
    pub span: Traceparent,
    /// The span that it is a part of, if any.
    pub parent: Option<[u8; 8]>,
    /// How long it took, until now.
    pub took: Duration,
    /// Names and values; never content, addresses or tokens.
    pub attributes: Vec<(&'static str, String)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Begins to export where `OTEL_EXPORTER_OTLP_ENDPOINT` says, if it says anything.
///
/// # Errors
/// As [`start`].
pub fn from(source: &Source, service: &'static str) -> Result<Option<Traces>, TracesError> {
    let endpoint = endpoint(source).map_err(|error| TracesError(error.to_string()))?;
    endpoint.map(|endpoint| start(&endpoint, service)).transpose()
}

/// `OTEL_EXPORTER_OTLP_ENDPOINT`, if it is set.
///
/// # Errors
/// It is no URL.
pub fn endpoint(source: &Source) -> Result<Option<String>, ConfigError> {
    source.http_url(ENDPOINT)
}

/// Begins to export, to `endpoint` (its path is completed by `/v1/traces`). Once for a process; needs a Tokio runtime
/// of several threads.
///
/// # Errors
/// The endpoint is no URL, or there is no HTTP client to be had.
pub fn start(endpoint: &str, service: &'static str) -> Result<Traces, TracesError> {
    let failed = |error: &dyn fmt::Display| TracesError(error.to_string());
    // Somebody else in the process may have chosen one already: then that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(SEND_TIME_MAX).no_proxy().build().map_err(|error| failed(&error))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender { http, runtime: Handle::current() })
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(SEND_TIME_MAX)
        .build()
        .map_err(|error| failed(&error))?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    let attributes =
        [KeyValue::new("service.name", service), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    processor.set_resource(&Resource::builder().with_attributes(attributes).build());
    let scope = InstrumentationScope::builder("primetrade").build();
    EXPORT.set(Export { processor, scope }).map_err(|_| failed(&"traces are exported already"))?;
    Ok(Traces(()))
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(export) = EXPORT.get()
            && let Err(error) = export.processor.shutdown_with_timeout(LAST_TIME_MAX)
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Whether spans are exported: ask before making one.
#[must_use]
pub fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// Exports a span that is over.
pub fn export(span: Finished) {
    let Some(export) = EXPORT.get().filter(|_| span.span.sampled) else { return };
    let end_time = SystemTime::from(clock::now());
    let Traceparent { trace_id, span_id, .. } = span.span;
    export.processor.on_end(SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace_id),
            SpanId::from_bytes(span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name.into(),
        start_time: end_time.checked_sub(span.took).unwrap_or(end_time),
        end_time,
        attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if span.failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: export.scope.clone(),
    });
}

/// Exports a span that follows from the one of a stored event's `traceparent`, if spans are exported.
pub fn export_after(
    traceparent: &str,
    name: &'static str,
    kind: Kind,
    took: Duration,
    attributes: impl FnOnce() -> Vec<(&'static str, String)>,
) {
    if !is_on() {
        return;
    }
    let Some(before) = Traceparent::parse(traceparent.as_bytes()) else { return };
    let span = Traceparent { span_id: rand::random(), ..before };
    export(Finished {
        name: name.to_owned(),
        kind,
        span,
        parent: Some(before.span_id),
        took,
        attributes: attributes(),
        failed: false,
    });
}

impl Traceparent {
    /// Of a version 00 `traceparent`, or of a later version read as the recommendation asks.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let version = hex_byte(text.get(0..2)?)?;
        let longer_is_fine = version != 0 && text.get(55) == Some(&b'-');
        let dashes = text.get(2) == Some(&b'-') && text.get(35) == Some(&b'-') && text.get(52) == Some(&b'-');
        if version == 0xff || !dashes || !(text.len() == 55 || longer_is_fine) {
            return None;
        }
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        for (byte, digits) in trace_id.iter_mut().zip(text[3..35].chunks_exact(2)) {
            *byte = hex_byte(digits)?;
        }
        for (byte, digits) in span_id.iter_mut().zip(text[36..52].chunks_exact(2)) {
            *byte = hex_byte(digits)?;
        }
        let flags = hex_byte(&text[53..55])?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    Some(digit(*digits.first()?)? << 4 | digit(*digits.get(1)?)?)
}

/// Sends batches by the process's runtime: the exporter's thread has none.
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'async_trait>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request.try_into()?).await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            let mut response = Response::new(body);
            *response.status_mut() = status;
            Ok(response)
        });
        Box::pin(async move { sending.await? })
    }
}
