//! The middleware around everything, and the HTTP/1 server under it.
//!
//! ```text
//! let router = command_api::router(..).merge(query_api::router(..)).merge(health::router(..));
//! let router = server::edge(router, Edge { verifier, ..Edge::default() });      // once
//! server::serve(listener, router, shutdown).await?;
//! ```
//!
//! What [`edge`] does for each request: request id and trace context ([`crate::context`]), the limits on address and
//! headers, no encoded bodies, the [`Verifier`] for [`crate::auth`], a panic turned into a 500, bare error answers of the
//! framework turned into problems, security headers, CORS, compression, metrics by route.
//!
//! What [`serve`] does: headers within 10 s, an answer for as long as the client takes some of it every 30 s, a bounded
//! number of connections, no Nagle delay, and a drain on shutdown: idle connections close at once, requests in progress
//! get 5 s. A live stream has to end by itself (it knows the
//! shutdown token), else it holds the drain up to its end.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONNECTION,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::{Counter, Histogram};
use pin_project_lite::pin_project;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Layer, Service};
use tower_http::compression::Compression;

use crate::auth::Verifier;
use crate::context::{RequestContext, X_REQUEST_ID};
use crate::headers::single;
use crate::health::Draining;
use crate::problem::{Problem, ProblemCode};
use crate::traces::{self, Finished, Kind};

/// Path and query together, in bytes.
pub const URI_BYTES_MAX: usize = 8 << 10;
/// Names and values of all headers together, in bytes.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// Smaller answers are not compressed, in bytes.
pub const COMPRESSED_FROM_BYTES: u64 = 1 << 10;

/// Beyond this the parser itself refuses, without a body.
const PARSER_BUFFER_BYTES_MAX: usize = 128 << 10;
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer that waits for it. Each step of a client that does read is a good part
/// of the socket's buffer, so that it cannot hold a connection with a byte now and then.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// With what a service waits before and after it: 10 s from SIGTERM to the end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 10_000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After an answer to a request whose body was not read, what still comes is read for so long, so that the client gets
/// to see the answer instead of a reset.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
const STOPPING_LINGER_TIME_MAX: Duration = Duration::from_millis(200);
const LINGER_BYTES_MAX: usize = 64 << 20;

/// What goes around the merged router.
#[derive(Clone, Default)]
pub struct Edge {
    /// For [`crate::auth::Principal`]; none where no route needs one.
    pub verifier: Option<Verifier>,
    /// Origins that browsers may call from; `*` for any. None: no CORS.
    pub cors_origins: Vec<String>,
    /// Whether clients come by TLS, so that HSTS may be said.
    pub behind_tls: bool,
    /// Once it is set, each answer closes its connection.
    pub draining: Draining,
}

/// Puts the middleware around the whole router, once.
pub fn edge(router: Router, edge: Edge) -> Router {
    router.fallback(not_found).layer(EdgeLayer(Arc::new(Rules {
        verifier: edge.verifier,
        cors_any: edge.cors_origins.iter().any(|origin| origin == "*"),
        cors_origins: edge.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
        behind_tls: edge.behind_tls,
        draining: edge.draining,
    })))
}

/// For the map of headers: those below, and what the framework adds.
const HEADERS_ADDED: usize = 8;

async fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound)
}

struct Rules {
    verifier: Option<Verifier>,
    cors_any: bool,
    cors_origins: Vec<HeaderValue>,
    behind_tls: bool,
    draining: Draining,
}

impl Rules {
    /// What can be refused before any handler is asked.
    fn check(&self, request: &Request) -> Result<(), Problem> {
        let uri_bytes = request.uri().path().len() + request.uri().query().map_or(0, |query| query.len() + 1);
        if uri_bytes > URI_BYTES_MAX {
            return Err(Problem::new(ProblemCode::UriTooLong));
        }
        let headers = request.headers();
        let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > HEADER_BYTES_MAX {
            return Err(Problem::new(ProblemCode::HeadersTooLarge));
        }
        match single(headers, &CONTENT_ENCODING)? {
            Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
                Err(Problem::new(ProblemCode::UnsupportedContentEncoding))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The origin to allow, where CORS is configured and the request comes from a page of such an origin.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.cors_any && self.cors_origins.is_empty() {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        if self.cors_any {
            return Some(HeaderValue::from_static("*"));
        }
        self.cors_origins.contains(origin).then(|| origin.clone())
    }

    fn finish(&self, mut response: Response, exchange: Exchange) -> Response {
        if is_bare_error(&response) {
            response = exchange.context.clone().sync_scope(|| as_problem(response));
        }
        let status = response.status();
        let headers = response.headers_mut();
        // at once, rather than in steps
        headers.reserve(HEADERS_ADDED);
        headers.insert(X_REQUEST_ID, exchange.context.request_id_header());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        if self.behind_tls {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
        let is_page = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
        if is_page && !headers.contains_key(CONTENT_SECURITY_POLICY) {
            headers.insert(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
            );
        }
        if self.draining.is_set() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(origin) = exchange.allowed_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_EXPOSED));
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if is_compressible(&response) {
            response = match exchange.accept_encoding {
                Some(accept_encoding) => compress(response, accept_encoding),
                None => {
                    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
                    response
                }
            };
        }
        let elapsed = exchange.context.arrived().elapsed();
        exchange.metrics.record(status, elapsed);
        if traces::is_on() {
            tell_span(&exchange.context, &exchange.metrics, status, elapsed);
        }
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            let log = || tracing::error!(route = &*exchange.metrics.route, status = status.as_u16(), "request failed");
            exchange.context.sync_scope(log);
        } else if tracing::enabled!(tracing::Level::DEBUG) {
            let micros = elapsed.as_micros();
            let log = || tracing::debug!(route = &*exchange.metrics.route, status = status.as_u16(), micros, "request");
            exchange.context.sync_scope(log);
        }
        response
    }
}

/// The span of a request that was answered.
fn tell_span(context: &RequestContext, metrics: &RouteMetrics, status: StatusCode, took: Duration) {
    let RouteMetrics { method, route, .. } = metrics;
    traces::tell(Finished {
        name: format!("{method} {route}"),
        kind: Kind::Server,
        place: context.place(),
        parent: context.parent(),
        took,
        attributes: vec![
            ("http.request.method", (*method).to_owned()),
            ("http.route", route.to_string()),
            ("http.response.status_code", status.as_u16().to_string()),
            ("primetrade.request_id", context.request_id().to_owned()),
        ],
        failed: status.is_server_error(),
    });
}

const CORS_METHODS: &str = "GET, POST, PATCH, DELETE";
const CORS_HEADERS: &str = "authorization, content-type, if-match, if-none-match, idempotency-key, consistency-token, \
                            x-request-id, traceparent, last-event-id";
const CORS_EXPOSED: &str = "etag, location, link, consistency-token, idempotent-replayed, retry-after, x-request-id, \
                            ratelimit, ratelimit-policy";

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(CORS_METHODS)),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(CORS_HEADERS)),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// What is kept of a request until its answer is there.
struct Exchange {
    context: RequestContext,
    accept_encoding: Option<HeaderValue>,
    allowed_origin: Option<HeaderValue>,
    metrics: Arc<RouteMetrics>,
}

/// An error answer that nobody of ours wrote: no body, or the framework's plain text.
fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && response.headers().get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// The same status and headers, with a problem for a body.
fn as_problem(response: Response) -> Response {
    let problem = Problem::new(ProblemCode::for_status(response.status())).into_response();
    let (parts, _) = response.into_parts();
    let (mut problem, body) = problem.into_parts();
    problem.status = parts.status;
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            problem.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(problem, body)
}

/// Text of a known size from 1 KiB on, that has no strong entity tag and is not encoded yet.
fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= COMPRESSED_FROM_BYTES)
        && !headers.contains_key(CONTENT_ENCODING)
        && headers.get(ETAG).is_none_or(|etag| etag.as_bytes().starts_with(b"W/"))
        && headers.get(CONTENT_TYPE).is_some_and(|value| {
            let value = value.as_bytes();
            (value.starts_with(b"text/") && !value.starts_with(b"text/event-stream"))
                || value.starts_with(b"application/json")
                || value.starts_with(b"application/problem+json")
                || value.starts_with(b"application/x-ndjson")
                || value.starts_with(b"application/javascript")
        })
}

fn compress(response: Response, accept_encoding: HeaderValue) -> Response {
    let status = response.status();
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(ACCEPT_ENCODING, accept_encoding);
    let mut response = Some(response);
    let answered = tower::service_fn(move |_: Request| {
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    });
    let mut compression = Compression::new(answered)
        .compress_when(|_: StatusCode, _: Version, _: &HeaderMap, _: &axum::http::Extensions| true);
    match compression.call(request).now_or_never() {
        Some(Ok(compressed)) => {
            let mut response = compressed.map(Body::new);
            // an encoding that nobody can satisfy is no reason to call what was done undone
            *response.status_mut() = status;
            response
        }
        Some(Err(never)) => match never {},
        None => Problem::internal(&"compression did not answer at once").into_response(),
    }
}

/// Rate, errors and duration of one route.
struct RouteMetrics {
    method: &'static str,
    route: Arc<str>,
    classes: [Counter; 5],
    duration: Histogram,
}

impl RouteMetrics {
    fn new(method: &'static str, route: Arc<str>) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            metrics::counter!("http_requests_total", "method" => method, "route" => route.to_string(), "status" => class)
        });
        let duration =
            metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => route.to_string());
        Self { method, route, classes, duration }
    }

    fn record(&self, status: StatusCode, elapsed: Duration) {
        if let Some(class) = self.classes.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            class.increment(1);
        }
        self.duration.record(elapsed.as_secs_f64());
    }
}

/// Bounded: what is not a method of this API has one name.
const METHOD_LABELS: [&str; 7] = ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "other"];

/// Which of [`METHOD_LABELS`].
fn method_number(method: &Method) -> usize {
    match *method {
        Method::GET | Method::HEAD => 0,
        Method::POST => 1,
        Method::PATCH => 2,
        Method::DELETE => 3,
        Method::PUT => 4,
        Method::OPTIONS => 5,
        _ => 6,
    }
}

#[derive(Clone)]
struct EdgeLayer(Arc<Rules>);

impl Layer<Route> for EdgeLayer {
    type Service = EdgeService;

    /// Called for each route and method, or for a route that takes all methods, so that each has its own metrics at hand.
    fn layer(&self, inner: Route) -> EdgeService {
        EdgeService { inner, rules: self.0.clone(), metrics: Arc::default() }
    }
}

#[derive(Clone)]
struct EdgeService {
    inner: Route,
    rules: Arc<Rules>,
    /// By method.
    metrics: Arc<[OnceLock<Arc<RouteMetrics>>; METHOD_LABELS.len()]>,
}

impl EdgeService {
    fn metrics(&self, request: &Request) -> Arc<RouteMetrics> {
        let method = method_number(request.method());
        let of_request = || {
            let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
            Arc::new(RouteMetrics::new(METHOD_LABELS[method], route.into()))
        };
        self.metrics[method].get_or_init(of_request).clone()
    }
}

impl Service<Request> for EdgeService {
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> EdgeFuture {
        let headers = request.headers();
        let exchange = Exchange {
            context: RequestContext::from_headers(headers),
            accept_encoding: headers.get(ACCEPT_ENCODING).cloned(),
            allowed_origin: self.rules.allowed_origin(headers),
            metrics: self.metrics(&request),
        };
        let early = if let Err(problem) = self.rules.check(&request) {
            Some(exchange.context.clone().sync_scope(|| problem.into_response()))
        } else if exchange.allowed_origin.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            Some(preflight())
        } else {
            None
        };
        let inner = match early {
            Some(response) => Inner::Early { response: Some(response) },
            None => {
                if let Some(verifier) = &self.rules.verifier {
                    request.extensions_mut().insert(verifier.clone());
                }
                let future = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
                Inner::Handled { future: exchange.context.clone().scope(future) }
            }
        };
        EdgeFuture { inner, rest: Some((exchange, self.rules.clone())) }
    }
}

type Handled = tokio::task::futures::TaskLocalFuture<
    RequestContext,
    CatchUnwind<AssertUnwindSafe<axum::routing::future::RouteFuture<Infallible>>>,
>;

pin_project! {
    #[project = InnerProjection]
    enum Inner {
        Early { response: Option<Response> },
        Handled { #[pin] future: Handled },
    }
}

pin_project! {
    struct EdgeFuture {
        #[pin]
        inner: Inner,
        rest: Option<(Exchange, Arc<Rules>)>,
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = match this.inner.project() {
            InnerProjection::Early { response } => Ok(response.take().unwrap_or_default()),
            InnerProjection::Handled { mut future } => {
                let answered = match ready!(future.as_mut().poll(cx)) {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(never)) => match never {},
                    Err(panic) => Err(panic),
                };
                // The one that knows whose request it was.
                if let Some((exchange, _)) = this.rest
                    && let Some(context) = future.take_value()
                {
                    exchange.context = context;
                }
                answered
            }
        };
        let Some((exchange, rules)) = this.rest.take() else {
            // polled again after it was done: against the contract of Future
            return Poll::Pending;
        };
        let response = answered.unwrap_or_else(|panic| {
            exchange.context.clone().sync_scope(|| {
                Problem::internal(&format_args!("panic in {}: {}", exchange.metrics.route, panic_text(&*panic)))
                    .into_response()
            })
        });
        Poll::Ready(Ok(rules.finish(response, exchange)))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Serves until `shutdown`, then drains for at most 5 s.
///
/// # Errors
/// When the listener has no address. An error of one connection ends that connection only; a failing `accept` is tried
/// again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    listener.local_addr()?;
    // turned into its final form here rather than for each request
    let router = router.with_state(());
    let stop = Stop { stopping: Arc::default(), drain: CancellationToken::new(), cut: CancellationToken::new() };
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let open = metrics::gauge!("http_connections");
    let accepting = async {
        loop {
            // the semaphore is never closed
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (router, stop, open) = (router.clone(), stop.clone(), open.clone());
                    connections.spawn(async move {
                        open.increment(1.0);
                        connection(stream, router, stop).await;
                        open.decrement(1.0);
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accepting => {}
    }
    drop(listener);
    stop.stopping.store(true, Ordering::Release);
    stop.drain.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_TIME_MAX, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests still in progress are cut off");
        stop.cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// How a connection learns that it is to end.
#[derive(Clone)]
struct Stop {
    /// Looked at on every poll: cheaper than the token, which only wakes.
    stopping: Arc<AtomicBool>,
    drain: CancellationToken,
    cut: CancellationToken,
}

async fn connection(stream: TcpStream, router: Router, stop: Stop) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let waiting = Arc::new(Waiting::new());
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(PARSER_BUFFER_BYTES_MAX);
    let service = RouterService { router, waiting: waiting.clone() };
    let socket = Socket { stream: TokioIo::new(stream), waiting: waiting.clone(), blocked: false };
    let mut connection = builder.serve_connection(socket, service);
    let served = {
        let mut drained = pin!(stop.drain.cancelled());
        let mut cut = pin!(stop.cut.cancelled());
        let mut alarm = pin!(tokio::time::sleep_until(waiting.deadline().unwrap_or_else(Instant::now)));
        let (mut registered, mut draining) = (false, false);
        poll_fn(|cx| {
            // polled once so that they wake this task; from then on a flag tells, which is all that a request pays
            if !registered {
                registered = true;
                let _ = (drained.as_mut().poll(cx), cut.as_mut().poll(cx), alarm.as_mut().poll(cx));
            }
            if stop.stopping.load(Ordering::Acquire) {
                if !draining {
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                if stop.cut.is_cancelled() {
                    return Poll::Ready(Ok(false));
                }
            }
            // to the end of what is to be written; the socket's own end comes in `linger`
            let served = Pin::new(&mut connection).poll(cx).map_ok(|()| true);
            while served.is_pending() && alarm.is_elapsed() {
                let now = Instant::now();
                let deadline = waiting.deadline();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return Poll::Ready(Ok(false));
                }
                // what it waits for may be another thing by then, with an earlier deadline
                let look_again = now + HEADER_TIME_MAX;
                alarm.as_mut().reset(deadline.map_or(look_again, |deadline| deadline.min(look_again)));
                let _ = alarm.as_mut().poll(cx);
            }
            served
        })
        .await
    };
    match served {
        Ok(true) => {
            let time_max =
                if stop.stopping.load(Ordering::Acquire) { STOPPING_LINGER_TIME_MAX } else { LINGER_TIME_MAX };
            linger(connection.into_parts().io.stream.into_inner(), time_max).await;
        }
        Ok(false) => {}
        // the client went away, was too slow, or does not speak HTTP: its own affair
        Err(error) => tracing::debug!(%error, "connection"),
    }
}

/// What a connection waits for, the headers of a request or a client that reads, and since when. The time-outs are these
/// two numbers for each connection, looked at by one timer that is seldom set: hyper's own sets and clears a timer for
/// each request, which costs a tenth of an empty request.
struct Waiting {
    opened: Instant,
    /// For headers. Milliseconds after `opened`, plus one; 0 while a request is being answered.
    since_ms: AtomicU64,
    /// For the client to read: since it last took something, in the same way; 0 while nothing waits to be written.
    unread_since_ms: AtomicU64,
}

impl Waiting {
    fn new() -> Self {
        Self { opened: Instant::now(), since_ms: AtomicU64::new(1), unread_since_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn begin(&self) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn end(&self) {
        self.since_ms.store(0, Ordering::Relaxed);
    }

    /// The client has taken something, or begins to be waited for.
    fn unread(&self) {
        self.unread_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// All that waited is written: only now does the wait for the next request begin.
    fn all_written(&self) {
        self.unread_since_ms.store(0, Ordering::Relaxed);
        if self.since_ms.load(Ordering::Relaxed) != 0 {
            self.begin();
        }
    }

    /// When it has waited for too long; `None` while a request is being answered.
    fn deadline(&self) -> Option<Instant> {
        let after = |ms: &AtomicU64, time_max| {
            let since_ms = ms.load(Ordering::Relaxed).checked_sub(1)?;
            Some(self.opened + Duration::from_millis(since_ms) + time_max)
        };
        after(&self.unread_since_ms, WRITE_TIME_MAX).or_else(|| after(&self.since_ms, HEADER_TIME_MAX))
    }
}

/// The client's socket, which knows whether something waits for the client to read.
struct Socket {
    stream: TokioIo<TcpStream>,
    waiting: Arc<Waiting>,
    blocked: bool,
}

impl Socket {
    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.blocked != written.is_pending() {
            // blocked, or gone on since: what comes after the last byte is the flush
            self.blocked = true;
            self.waiting.unread();
        }
        written
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once hyper has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.blocked {
            self.blocked = false;
            self.waiting.all_written();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Left to [`linger`]; hyper calls it after the flush.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Says that there is no more to come, and reads away what the client still sends, within bounds.
async fn linger(mut stream: TcpStream, time_max: Duration) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let reading = async {
        let mut buffer = [0; 8 << 10];
        let mut bytes = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            bytes += count;
            if bytes > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    // whether the client closed in time does not matter
    let _ = tokio::time::timeout(time_max, reading).await;
}

/// hyper calls the router directly.
struct RouterService {
    router: Router,
    waiting: Arc<Waiting>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for RouterService {
    type Response = hyper::Response<AnsweredBody>;
    type Error = Infallible;
    type Future = Routed;

    fn call(&self, request: hyper::Request<Incoming>) -> Routed {
        self.waiting.end();
        // RFC 9112, 3.2; said here and not in the edge, since only what comes over a wire has a host
        let answer = match single(request.headers(), &HOST) {
            Ok(None) if request.version() == Version::HTTP_11 => refuse_host(&request, "the header Host is missing"),
            Err(_) => refuse_host(&request, "the header Host stands there twice"),
            Ok(_) => Answer::Called(self.router.clone().call(request)),
        };
        Routed { answer, waiting: Some(self.waiting.clone()) }
    }
}

fn refuse_host(request: &hyper::Request<Incoming>, detail: &'static str) -> Answer {
    let context = RequestContext::from_headers(request.headers());
    let request_id = context.request_id_header();
    let mut response = context.sync_scope(|| Problem::parameter(detail).into_response());
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    Answer::Refused(Some(response))
}

enum Answer {
    Called(axum::routing::future::RouteFuture<Infallible>),
    Refused(Option<Response>),
}

struct Routed {
    answer: Answer,
    waiting: Option<Arc<Waiting>>,
}

impl Future for Routed {
    type Output = Result<hyper::Response<AnsweredBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.answer {
            Answer::Called(future) => ready!(Pin::new(future).poll(cx)?),
            Answer::Refused(response) => response.take().unwrap_or_default(),
        };
        let waiting = self.waiting.take();
        Poll::Ready(Ok(response.map(|body| AnsweredBody { body, waiting })))
    }
}

/// An answer's body, which knows when hyper has it whole: once that is written, the connection waits for the next request.
struct AnsweredBody {
    body: Body,
    waiting: Option<Arc<Waiting>>,
}

impl Drop for AnsweredBody {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            waiting.begin();
        }
    }
}

impl http_body::Body for AnsweredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
