//! What happens to each request before its handler is called, and to each answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use access::{Principal, Verifier};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_ENCODING, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use http_server::client_address::{Peer, TrustedProxies};
use process::context::{RequestContext, X_REQUEST_ID};
use process::health::Draining;
use process::load::{Load, Permit};
use process::traces::{self, Finished, Kind};

use super::bare_error::{as_problem, is_bare_error};
use super::cors::Cors;
use super::route::KnownRoute;
use super::security_headers;
use super::settings::Edge;
use crate::account::{is_read, known};
use crate::api::RouteKind;
use crate::compression::{compress, is_compressible};
use crate::headers::single;
use crate::limits::{RateLimitStatus, RateLimits, RequestClass};
use crate::problem::{Problem, ProblemCode};

/// Path and query together, in bytes.
pub const URI_BYTES_MAX: usize = 8 << 10;
/// Names and values of all headers together, in bytes.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// Room for the headers that are set below, and those that the framework adds.
const HEADERS_ADDED: usize = 11;

pub(super) struct Rules {
    verifier: Option<Verifier>,
    pub cors: Cors,
    limits: RateLimits,
    pub proxies: TrustedProxies,
    pub load: Load,
    draining: Draining,
    /// The kinds of routes that are not ordinary, by path.
    kinds: HashMap<&'static str, RouteKind>,
}

/// What is kept of a request until it is answered.
pub(super) struct Exchange {
    pub context: RequestContext,
    pub accept_encoding: Option<HeaderValue>,
    pub allowed_origin: Option<HeaderValue>,
    pub route: Arc<KnownRoute>,
    pub client: Peer,
    /// What is left of the client's limits, where any applies.
    pub rate_limit: Option<RateLimitStatus>,
    /// Held until the request is answered.
    pub permit: Option<Permit>,
}

impl Rules {
    pub fn new(edge: Edge, kinds: HashMap<&'static str, RouteKind>) -> Self {
        let Edge { verifier, cors_origins, limits, proxies, load, draining } = edge;
        Self { verifier, cors: Cors::new(&cors_origins), limits, proxies, load, draining, kinds }
    }

    pub fn kind(&self, path: &str) -> RouteKind {
        self.kinds.get(path).copied().unwrap_or_default()
    }

    /// Refuses a request, or prepares it for its handler. Limits come first: what is malformed counts too.
    pub fn admit(&self, request: &mut Request, exchange: &mut Exchange) -> Result<(), Problem> {
        let is_always = exchange.route.kind == RouteKind::Always;
        let principal = if is_always { None } else { self.limit(request, exchange)? };
        Self::check(request, exchange.route.kind)?;
        // `TaskCaller` and the others take the principal, or verify the token where it is not known yet
        if let Some(principal) = principal {
            request.extensions_mut().insert(principal);
        } else if let Some(verifier) = &self.verifier {
            request.extensions_mut().insert(verifier.clone());
        }
        Ok(())
    }

    /// Counts the request against its client's limits. Returns the principal, if it was needed for that.
    fn limit(&self, request: &mut Request, exchange: &mut Exchange) -> Result<Option<Principal>, Problem> {
        if !self.limits.are_on() {
            return Ok(None);
        }
        let address = exchange.client.address;
        let principal = match &self.verifier {
            Some(verifier) if exchange.route.kind != RouteKind::Authentication => known(verifier, request.headers()),
            Some(_) | None => None,
        };
        let class = match &principal {
            Some(principal) if is_read(request.method()) => RequestClass::Read(principal.owner),
            Some(principal) => RequestClass::Write(principal.owner),
            None if exchange.route.kind == RouteKind::Authentication => RequestClass::Authentication(address),
            None => RequestClass::Anonymous(address),
        };
        match self.limits.admit(class) {
            Ok(status) => exchange.rate_limit = status,
            Err(exceeded) => {
                exchange.rate_limit = Some(exceeded.status());
                return Err(exceeded.problem());
            }
        }
        if matches!(exchange.route.kind, RouteKind::Authentication | RouteKind::OwnPassword) {
            request.extensions_mut().insert(self.limits.clone());
        }
        Ok(principal)
    }

    /// Refuses what no client may send.
    fn check(request: &Request, kind: RouteKind) -> Result<(), Problem> {
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
            None => Ok(()),
            Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
            Some(encoding) if kind == RouteKind::Upload && encoding.as_bytes().eq_ignore_ascii_case(b"gzip") => Ok(()),
            Some(_) => Err(Problem::new(ProblemCode::UnsupportedContentEncoding)),
        }
    }

    /// Completes an answer, and records it: metrics, load, trace, log.
    pub fn finish(&self, mut response: Response, exchange: Exchange) -> Response {
        if is_bare_error(&response) {
            response = exchange.context.clone().sync_scope(|| as_problem(response));
        }
        let status = response.status();
        let headers = response.headers_mut();
        // one allocation instead of several
        headers.reserve(HEADERS_ADDED);
        headers.insert(X_REQUEST_ID, exchange.context.request_id_header());
        security_headers::complete(headers, exchange.client.tls);
        if self.draining.is_set() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(status) = exchange.rate_limit {
            status.append_to(headers);
        }
        self.cors.write_headers(exchange.allowed_origin, headers);
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
        // a refusal says nothing about how long the work takes
        if let Some(permit) = exchange.permit.filter(|_| !exchange.context.has_waited() && !status.is_client_error()) {
            permit.answered(elapsed);
        }
        if traces::is_on() {
            record_span(&exchange.context, &exchange.route, status, elapsed);
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

/// Records the span of a request that was answered.
fn record_span(context: &RequestContext, route: &KnownRoute, status: StatusCode, took: Duration) {
    let KnownRoute { method, path, .. } = route;
    traces::export(Finished {
        name: format!("{method} {path}"),
        kind: Kind::Server,
        span: context.span(),
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
