//! The middleware around all routes.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONNECTION,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, CatchUnwind};
use http_body::Body as _;
use metrics::{Counter, Histogram};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tower_http::compression::Compression;

use crate::auth::{Principal, Verifier};
use crate::client_address::{Peer, TrustedProxies};
use crate::config::{self, ConfigError, Source};
use crate::context::{RequestContext, X_REQUEST_ID};
use crate::headers::single;
use crate::health::Draining;
use crate::limits::{Asking, RateLimits, Standing};
use crate::load::{Load, Place};
use crate::packed::Chosen;
use crate::problem::{Problem, ProblemCode};
use crate::token::RootSecret;
use crate::traces::{self, Finished, Kind};

/// Path and query together, in bytes.
pub const URI_BYTES_MAX: usize = 8 << 10;
/// Names and values of all headers together, in bytes.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// Smaller answers are not compressed, in bytes.
pub const COMPRESSED_FROM_BYTES: u64 = 1 << 10;

/// What goes around the merged router.
#[derive(Clone, Default)]
pub struct Edge {
    /// For [`crate::auth::Principal`]; none where no route needs one.
    pub verifier: Option<Verifier>,
    /// Origins that browsers may call from; `*` for any. None: no CORS.
    pub cors_origins: Vec<String>,
    /// How much a client may ask for.
    pub limits: RateLimits,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub proxies: TrustedProxies,
    /// How much is worked upon at once: one for all listeners of a process.
    pub load: Load,
    /// Once it is set, each answer closes its connection.
    pub draining: Draining,
}

/// What the configuration says about the edge.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// `PRIMETRADE_CORS_ORIGINS`
    pub cors_origins: Vec<String>,
    /// `PRIMETRADE_TRUSTED_PROXIES`
    pub proxies: TrustedProxies,
    /// `PRIMETRADE_RATE_LIMITS`, on unless it is off.
    pub rate_limits: bool,
}

impl EdgeSettings {
    /// Reads the variables named above.
    ///
    /// # Errors
    /// Names the one that cannot be taken.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            cors_origins: config::cors_origins(source)?,
            proxies: TrustedProxies::read(source)?,
            rate_limits: source.switch("PRIMETRADE_RATE_LIMITS", true)?,
        })
    }

    /// The edge of a process.
    #[must_use]
    pub fn edge(self, verifier: Verifier, secret: &RootSecret, draining: Draining) -> Edge {
        Edge {
            verifier: Some(verifier),
            cors_origins: self.cors_origins,
            limits: if self.rate_limits { RateLimits::on(secret) } else { RateLimits::off() },
            proxies: self.proxies,
            load: Load::default(),
            draining,
        }
    }
}

/// Puts the middleware around the whole router, once.
pub fn edge(router: Router, edge: Edge) -> Router {
    router.fallback(not_found).layer(EdgeLayer(Arc::new(Rules {
        verifier: edge.verifier,
        cors_any: edge.cors_origins.iter().any(|origin| origin == "*"),
        cors_origins: edge.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
        limits: edge.limits,
        proxies: edge.proxies,
        load: edge.load,
        draining: edge.draining,
    })))
}

/// For the map of headers: those below, and what the framework adds.
const HEADERS_ADDED: usize = 10;

async fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound)
}

struct Rules {
    verifier: Option<Verifier>,
    cors_any: bool,
    cors_origins: Vec<HeaderValue>,
    limits: RateLimits,
    proxies: TrustedProxies,
    load: Load,
    draining: Draining,
}

/// What the edge makes of a route, besides its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    /// Answered to anybody at any time, from memory: operations, and the keys that services fetch.
    Always,
    /// Where tokens are to be had: a limit of its own. Passwords have a bounded queue of their own too.
    ForTokens,
    /// The current password is looked at: the same queue.
    OwnPassword,
    Ordinary,
}

impl RouteKind {
    fn of(route: &str) -> Self {
        match route {
            "/livez" | "/readyz" | "/metrics" | "/.well-known/jwks.json" => Self::Always,
            "/api/v1/auth/register" | "/api/v1/auth/login" | "/api/v1/auth/refresh" => Self::ForTokens,
            "/api/v1/auth/password" => Self::OwnPassword,
            _ => Self::Ordinary,
        }
    }
}

impl Rules {
    /// Whether anything may be done for a request, before any handler is asked. What comes first costs least.
    fn admit(&self, request: &mut Request, exchange: &mut Exchange) -> Result<(), Problem> {
        let is_always = exchange.route.kind == RouteKind::Always;
        let principal = if is_always { None } else { self.limit(request, exchange)? };
        Self::check(request)?;
        // who is known already is found by whoever asks; else it is found out
        if let Some(principal) = principal {
            request.extensions_mut().insert(principal);
        } else if let Some(verifier) = &self.verifier {
            request.extensions_mut().insert(verifier.clone());
        }
        Ok(())
    }

    /// Counts it against what its client may ask for; who that is, if it had to be known.
    fn limit(&self, request: &mut Request, exchange: &mut Exchange) -> Result<Option<Principal>, Problem> {
        if !self.limits.are_on() {
            return Ok(None);
        }
        let address = exchange.client.address;
        let principal = match &self.verifier {
            Some(verifier) if exchange.route.kind != RouteKind::ForTokens => verifier.known(request.headers()),
            Some(_) | None => None,
        };
        let asking = match &principal {
            Some(principal) if is_read(request.method()) => Asking::Reading(principal.owner),
            Some(principal) => Asking::Writing(principal.owner),
            None if exchange.route.kind == RouteKind::ForTokens => Asking::ForTokens(address),
            None => Asking::Anonymous(address),
        };
        match self.limits.admit(asking) {
            Ok(standing) => exchange.standing = standing,
            Err(exceeded) => {
                exchange.standing = Some(exceeded.standing());
                return Err(exceeded.problem());
            }
        }
        if matches!(exchange.route.kind, RouteKind::ForTokens | RouteKind::OwnPassword) {
            request.extensions_mut().insert(self.limits.clone());
        }
        Ok(principal)
    }

    /// What is refused whoever asks.
    fn check(request: &Request) -> Result<(), Problem> {
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
        secure(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        if exchange.client.tls {
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
        if let Some(standing) = exchange.standing {
            standing.tell(headers);
        }
        if let Some(origin) = exchange.allowed_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_EXPOSED));
        }
        if !self.cors_any && !self.cors_origins.is_empty() {
            // also without an origin: another one gets another answer
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
        exchange.route.record(status, elapsed);
        // what was refused says nothing about how long work takes
        if let Some(place) = exchange.place.filter(|_| !exchange.context.has_waited() && !status.is_client_error()) {
            place.answered(elapsed);
        }
        if traces::is_on() {
            tell_span(&exchange.context, &exchange.route, status, elapsed);
        }
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            let log = || tracing::error!(route = &*exchange.route.path, status = status.as_u16(), "request failed");
            exchange.context.sync_scope(log);
        } else if tracing::enabled!(tracing::Level::DEBUG) {
            let micros = elapsed.as_micros();
            let log = || tracing::debug!(route = &*exchange.route.path, status = status.as_u16(), micros, "request");
            exchange.context.sync_scope(log);
        }
        response
    }
}

/// What every answer has, of whoever it is.
pub(super) fn secure(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// The span of a request that was answered.
fn tell_span(context: &RequestContext, route: &KnownRoute, status: StatusCode, took: Duration) {
    let KnownRoute { method, path, .. } = route;
    traces::tell(Finished {
        name: format!("{method} {path}"),
        kind: Kind::Server,
        place: context.place(),
        parent: context.parent(),
        took,
        attributes: vec![
            ("http.request.method", (*method).to_owned()),
            ("http.route", path.to_string()),
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
    route: Arc<KnownRoute>,
    client: Peer,
    /// What is left to the client, where a limit applies.
    standing: Option<Standing>,
    /// Held until it is answered.
    place: Option<Place>,
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

/// Text of a known size from 1 KiB on, that has no strong entity tag and whose encoding nobody has chosen yet.
fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= COMPRESSED_FROM_BYTES)
        && !headers.contains_key(CONTENT_ENCODING)
        && response.extensions().get::<Chosen>().is_none()
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

/// A method of a route: what kind it is; rate, errors and duration.
struct KnownRoute {
    method: &'static str,
    path: Arc<str>,
    kind: RouteKind,
    classes: [Counter; 5],
    duration: Histogram,
}

impl KnownRoute {
    fn new(method: &'static str, path: Arc<str>) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            metrics::counter!("http_requests_total", "method" => method, "route" => path.to_string(), "status" => class)
        });
        let duration =
            metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => path.to_string());
        Self { method, kind: RouteKind::of(&path), path, classes, duration }
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

/// Reads change nothing.
fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

#[derive(Clone)]
struct EdgeLayer(Arc<Rules>);

impl Layer<Route> for EdgeLayer {
    type Service = EdgeService;

    /// Called for each route and method, or for a route that takes all methods, so that each has its own metrics at hand.
    fn layer(&self, inner: Route) -> EdgeService {
        EdgeService { inner, rules: self.0.clone(), known: Arc::default() }
    }
}

#[derive(Clone)]
struct EdgeService {
    inner: Route,
    rules: Arc<Rules>,
    /// By method.
    known: Arc<[OnceLock<Arc<KnownRoute>>; METHOD_LABELS.len()]>,
}

impl EdgeService {
    fn route(&self, request: &Request) -> Arc<KnownRoute> {
        let method = method_number(request.method());
        let of_request = || {
            let path = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
            Arc::new(KnownRoute::new(METHOD_LABELS[method], path.into()))
        };
        self.known[method].get_or_init(of_request).clone()
    }
}

impl Service<Request> for EdgeService {
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> EdgeFuture {
        let headers = request.headers();
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let client = self.rules.proxies.client(peer, headers);
        let mut exchange = Exchange {
            context: RequestContext::from_headers(headers).from_client(client.address),
            accept_encoding: headers.get(ACCEPT_ENCODING).cloned(),
            allowed_origin: self.rules.allowed_origin(headers),
            route: self.route(&request),
            client,
            standing: None,
            place: None,
        };
        let is_preflight = exchange.allowed_origin.is_some()
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let load = &self.rules.load;
        let inner = if is_preflight {
            Inner::Early { response: Some(preflight()) }
        } else if exchange.route.kind != RouteKind::Ordinary {
            self.begin(request, &mut exchange)
        } else if let Some(place) = load.enter() {
            exchange.work_at(place);
            self.begin(request, &mut exchange)
        } else if load.is_calm() {
            let load = load.clone();
            let place = async move { load.enter_in_burst().await }.boxed();
            Inner::Waiting { place, asked: Some(Box::new((self.clone(), request))) }
        } else {
            exchange.early(load.turn_away())
        };
        EdgeFuture { inner, rest: Some((exchange, self.rules.clone())) }
    }
}

impl EdgeService {
    /// Hands it to its handler, if it may.
    fn begin(&mut self, mut request: Request, exchange: &mut Exchange) -> Inner {
        if let Err(problem) = self.rules.admit(&mut request, exchange) {
            return exchange.early(problem);
        }
        let future = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Inner::Handled { future: exchange.context.clone().scope(future) }
    }
}

impl Exchange {
    fn work_at(&mut self, place: Place) {
        self.context.working(place.load());
        self.place = Some(place);
    }

    fn early(&self, problem: Problem) -> Inner {
        Inner::Early { response: Some(self.context.clone().sync_scope(|| problem.into_response())) }
    }
}

type Handled = tokio::task::futures::TaskLocalFuture<
    RequestContext,
    CatchUnwind<AssertUnwindSafe<axum::routing::future::RouteFuture<Infallible>>>,
>;

pin_project! {
    #[project = InnerProjection]
    enum Inner {
        // in a burst, for a place
        Waiting { place: BoxFuture<'static, Option<Place>>, asked: Option<Box<(EdgeService, Request)>> },
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
        let mut this = self.project();
        if let InnerProjection::Waiting { place, asked } = this.inner.as_mut().project() {
            let place = ready!(place.as_mut().poll(cx));
            let (Some((exchange, rules)), Some(asked)) = (this.rest.as_mut(), asked.take()) else {
                // polled again after it was done: against the contract of Future
                return Poll::Pending;
            };
            let (mut service, request) = *asked;
            let next = match place {
                Some(place) => {
                    exchange.work_at(place);
                    service.begin(request, exchange)
                }
                None => exchange.early(rules.load.turn_away()),
            };
            this.inner.set(next);
        }
        let answered = match this.inner.project() {
            InnerProjection::Waiting { .. } => return Poll::Pending,
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
                Problem::internal(&format_args!("panic in {}: {}", exchange.route.path, panic_text(&*panic)))
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
