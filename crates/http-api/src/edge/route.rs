//! What the edge knows of a method of a route: its kind; rate, errors and duration.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram};

use crate::api::RouteKind;

/// A method of a route: what kind it is; rate, errors and duration.
pub(super) struct KnownRoute {
    pub method: &'static str,
    pub path: Arc<str>,
    pub kind: RouteKind,
    classes: [Counter; 5],
    duration: Histogram,
}

impl KnownRoute {
    pub fn new(method: &'static str, path: Arc<str>, kind: RouteKind) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| {
            metrics::counter!("http_requests_total", "method" => method, "route" => path.to_string(), "status" => class)
        });
        let duration =
            metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => path.to_string());
        Self { method, kind, path, classes, duration }
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
