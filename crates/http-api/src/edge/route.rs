//! What the edge knows of a route: its kind; rate, errors and duration by method.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram};

/// What the edge makes of a route, besides its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
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

/// A method of a route: what kind it is; rate, errors and duration.
pub(super) struct KnownRoute {
    pub method: &'static str,
    pub path: Arc<str>,
    pub kind: RouteKind,
    classes: [Counter; 5],
    duration: Histogram,
}

impl KnownRoute {
    pub fn new(method: &'static str, path: Arc<str>) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            metrics::counter!("http_requests_total", "method" => method, "route" => path.to_string(), "status" => class)
        });
        let duration =
            metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => path.to_string());
        Self { method, kind: RouteKind::of(&path), path, classes, duration }
    }

    pub fn record(&self, status: StatusCode, elapsed: Duration) {
        if let Some(class) = self.classes.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            class.increment(1);
        }
        self.duration.record(elapsed.as_secs_f64());
    }
}

/// Bounded: what is not a method of this API has one name.
pub(super) const METHOD_LABELS: [&str; 7] = ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "other"];

/// Which of [`METHOD_LABELS`].
pub(super) fn method_number(method: &Method) -> usize {
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
