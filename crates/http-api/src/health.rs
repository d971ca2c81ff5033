//! `/livez`, `/readyz`, `/metrics`.
//!
//! `/metrics` costs no more the more it is asked for: it is written and compressed at most ten times a second, and all who
//! ask meanwhile share the bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use process::health::Health;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Api, RouteKind};
use crate::openapi::{Described, Operation, Routes, Tag, count, reference, whole};
use crate::packed::Packed;
use crate::problem::{Problem, ProblemCode};

const METRICS_KEPT_FOR: Duration = Duration::from_millis(100);

/// `/livez`, `/readyz` and `/metrics`, which shows nothing without a handle.
pub fn router(health: Health, metrics: Option<PrometheusHandle>) -> Api {
    routes().with_state(Ops { health, metrics: metrics.map(|handle| Arc::new(Metrics::new(handle))) })
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

#[derive(Clone)]
struct Ops {
    health: Health,
    metrics: Option<Arc<Metrics>>,
}

struct Metrics {
    handle: PrometheusHandle,
    last: Mutex<Option<(Instant, Arc<Packed>)>>,
}

impl Metrics {
    fn new(handle: PrometheusHandle) -> Self {
        Self { handle, last: Mutex::default() }
    }

    fn shown(&self) -> Arc<Packed> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shown)) = last.as_ref().filter(|(at, _)| at.elapsed() < METRICS_KEPT_FOR) {
            return shown.clone();
        }
        let shown = Arc::new(Packed::new(self.handle.render().into()));
        *last = Some((Instant::now(), shown.clone()));
        shown
    }
}

fn routes() -> Routes<Ops> {
    Routes::new()
        .kind(RouteKind::Always)
        .get("/livez", livez, || {
            described_as("livez", "Check whether the process is alive").answer(
                200,
                "It does. No dependency is asked.",
                &["Cache-Control"],
                "text/plain",
                &json!({"type": "string"}),
                &json!("ok\n"),
            )
        })
        .get("/readyz", readyz, readyz_described)
        .get("/metrics", show_metrics, || {
            described_as("metrics", "Get metrics in Prometheus' format").answer(
                200,
                "The figures.",
                &["Cache-Control"],
                "text/plain",
                &json!({"type": "string"}),
                &json!("http_connections 1\n"),
            )
        })
        .without_query()
        .schema("Readiness", readiness_schema)
}

/// Not found where there is an address of its own for these, and behind the gateway.
fn described_as(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Operations, id, summary).refuses(&[ProblemCode::NotFound])
}

fn readyz_described() -> Operation {
    let answer = |ready: bool| {
        json!({
            "status": if ready { "ready" } else { "not-ready" },
            "checks": {"event_store": {
                "status": if ready { "ok" } else { "failed" },
                "detail": if ready { "4 shards" } else { "the database does not answer" },
            }},
            "lag": {"events": 0, "seconds": 0.0},
        })
    };
    described_as("readyz", "Check whether requests should be sent here")
        .json(200, "They should.", &["Cache-Control"], &reference("Readiness"), &answer(true))
        .json(
            503,
            "They should not; the checks say why.",
            &["Cache-Control", "Retry-After"],
            &reference("Readiness"),
            &answer(false),
        )
}

fn readiness_schema() -> Value {
    let check = whole(
        json!({"status": {"type": "string", "enum": ["ok", "degraded", "failed"]}, "detail": {"type": "string"}}),
    );
    let mut readiness = whole(json!({
        "status": {"type": "string", "enum": ["ready", "not-ready", "draining"]},
        "checks": {"type": "object", "additionalProperties": check},
    }));
    // of a service that follows something
    readiness["properties"]["lag"] = whole(json!({"events": count(), "seconds": {"type": "number", "minimum": 0}}));
    readiness
}

async fn livez() -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], "ok\n").into_response()
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let readiness = ops.health.readiness().await;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_vec(&readiness) {
        Ok(body) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            let mut response = (status, headers, body).into_response();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

async fn show_metrics(State(ops): State<Ops>, request: HeaderMap) -> Result<Response, Problem> {
    let metrics = ops.metrics.ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    let mut response = metrics.shown().answer(&request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn who_is_not_ready_says_when_to_ask_again() {
        let health = Health::new();
        let ready = async || {
            let request = Request::get("/readyz").body(Body::empty()).expect("a request");
            router(health.clone(), None).router.oneshot(request).await.expect("never fails")
        };
        let answer = ready().await;
        assert_eq!((answer.status(), answer.headers().get(RETRY_AFTER)), (StatusCode::OK, None));
        health.drain();
        let answer = ready().await;
        let again = HeaderValue::from_static("1");
        assert_eq!(
            (answer.status(), answer.headers().get(RETRY_AFTER)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(&again))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_written_now_and_then_whoever_asks() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = Metrics::new(recorder.handle());
        let _recording = metrics::set_default_local_recorder(&recorder);
        let first = shown.shown();
        metrics::counter!("counted_total").increment(1);
        assert!(Arc::ptr_eq(&first, &shown.shown()));
        tokio::time::advance(METRICS_KEPT_FOR).await;
        let second = shown.shown().answer(&HeaderMap::new()).await.into_body();
        let text = second.collect().await.expect("a body").to_bytes();
        assert!(text.windows(15).any(|part| part == b"counted_total 1"), "{text:?}");
    }
}
