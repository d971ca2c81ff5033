//! `/livez`, `/readyz`, `/metrics`.
//!
//! ```
//! # use service_kit::health::{Check, Health, Lag};
//! let health = Health::new();
//! health.register("database", || async { Check::ok("answers") });
//! health.lag(|| async { Lag { events: 0, seconds: 0.0 } });
//! let router = service_kit::health::router(health, None);
//! # drop::<axum::Router>(router);
//! ```
//!
//! Checks run side by side, each for at most 2 s, and what they say is kept for half a second, so that `/readyz`, which
//! needs no token, cannot be used to press the database. Nor does `/metrics` cost more the more it is asked for: it is
//! written and compressed at most ten times a second, and all who ask meanwhile share the bytes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::openapi::{Described, Operation, Routes, Tag, count, reference, whole};
use crate::packed::Packed;
use crate::problem::{Problem, ProblemCode};

const CHECK_TIME_MAX: Duration = Duration::from_secs(2);
const KEPT_FOR: Duration = Duration::from_millis(500);
const METRICS_KEPT_FOR: Duration = Duration::from_millis(100);

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Whether the part can do its work, and if not, what that means for requests.
    pub state: CheckState,
    /// One line for the operator; no secrets, since anybody may read it.
    pub detail: String,
}

/// What a check says of its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    /// All well.
    Ok,
    /// Something is wrong that somebody has to see to; but this process answers as well as any other copy would.
    Degraded,
    /// Requests should be sent elsewhere.
    Failed,
}

impl CheckState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

impl Check {
    /// All well.
    #[must_use]
    pub fn ok(detail: impl Into<String>) -> Self {
        Self { state: CheckState::Ok, detail: detail.into() }
    }

    /// Ready all the same; see [`CheckState::Degraded`].
    #[must_use]
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { state: CheckState::Degraded, detail: detail.into() }
    }

    /// Whether all is well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.state == CheckState::Ok
    }

    /// Not ready.
    #[must_use]
    pub fn failed(detail: impl Into<String>) -> Self {
        Self { state: CheckState::Failed, detail: detail.into() }
    }
}

/// How far the read side is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Lag {
    /// Events not yet applied.
    pub events: i64,
    /// Age of the oldest of them, in seconds.
    pub seconds: f64,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type CheckFn = Arc<dyn Fn() -> BoxFuture<Check> + Send + Sync>;
type LagFn = Arc<dyn Fn() -> BoxFuture<Lag> + Send + Sync>;

/// The checks of a process. Cheap to clone; parts register themselves.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

/// Whether the process is about to end: it is not ready any more, and answers close their connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From then on, for good.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Inner {
    draining: Draining,
    checks: Mutex<BTreeMap<&'static str, CheckFn>>,
    lag: Mutex<Option<LagFn>>,
    last: tokio::sync::Mutex<Option<(Instant, Readiness)>>,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// `ready`, `not-ready` or `draining`
    pub status: &'static str,
    /// Each part by its name.
    pub checks: BTreeMap<&'static str, CheckAnswer>,
    /// How far it is behind; not there in a service that follows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
}

/// One part in the answer of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckAnswer {
    /// `ok`, `degraded` or `failed`: see [`CheckState`].
    pub status: &'static str,
    /// One line for the operator.
    pub detail: String,
}

impl Readiness {
    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status != "draining" && self.checks.values().all(|check| check.status != CheckState::Failed.as_str())
    }
}

impl Health {
    /// Without checks: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, or replaces the one of this name.
    pub fn register<F, Fut>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Check> + Send + 'static,
    {
        let check: CheckFn = Arc::new(move || Box::pin(check()));
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, check);
    }

    /// Sets how the lag is found: at once, as it was seen last.
    pub fn lag<F, Fut>(&self, lag: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Lag> + Send + 'static,
    {
        *self.0.lag.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(move || Box::pin(lag())));
    }

    /// For [`crate::server::Edge`].
    #[must_use]
    pub fn draining(&self) -> Draining {
        self.0.draining.clone()
    }

    /// Not ready from here on, whatever the checks say.
    pub fn drain(&self) {
        self.0.draining.0.store(true, Ordering::Relaxed);
    }

    /// Runs the checks, or gives what they said less than half a second ago.
    pub async fn readiness(&self) -> Readiness {
        let mut readiness = self.checked().await;
        if self.0.draining.is_set() {
            readiness.status = "draining";
        }
        readiness
    }

    async fn checked(&self) -> Readiness {
        // the lock is held while the checks run: who asks meanwhile gets the same answer
        let mut last = self.0.last.lock().await;
        if let Some((_, readiness)) = last.as_ref().filter(|(at, _)| at.elapsed() < KEPT_FOR) {
            return readiness.clone();
        }
        let checks: Vec<(&'static str, CheckFn)> = {
            let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
            checks.iter().map(|(name, check)| (*name, check.clone())).collect()
        };
        let lag = self.0.lag.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let run = futures_util::future::join_all(checks.into_iter().map(|(name, check)| async move {
            let found = tokio::time::timeout(CHECK_TIME_MAX, check())
                .await
                .unwrap_or_else(|_| Check::failed(format!("no answer within {} s", CHECK_TIME_MAX.as_secs())));
            (name, CheckAnswer { status: found.state.as_str(), detail: found.detail })
        }));
        let lag = async {
            match lag {
                Some(lag) => Some(lag().await),
                None => None,
            }
        };
        let (checks, lag) = tokio::join!(run, lag);
        let mut readiness = Readiness { status: "ready", checks: checks.into_iter().collect(), lag };
        if !readiness.is_ready() {
            readiness.status = "not-ready";
        }
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }
}

/// `/livez`, `/readyz` and `/metrics`, which shows nothing without a handle.
pub fn router(health: Health, metrics: Option<PrometheusHandle>) -> Router {
    routes().router.with_state(Ops { health, metrics: metrics.map(|handle| Arc::new(Metrics::new(handle))) })
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
        .get("/livez", livez, || {
            described_as("livez", "Whether the process lives").answer(
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
            described_as("metrics", "Figures, as Prometheus reads them").answer(
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
    described_as("readyz", "Whether requests should be sent here")
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

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_check_that_failed() {
        let health = Health::new();
        assert!(health.readiness().await.is_ready());
        health.register("good", || async { Check::ok("fine") });
        health.register("hangs", std::future::pending::<Check>);
        health.lag(|| async { Lag { events: 3, seconds: 0.5 } });
        tokio::time::advance(KEPT_FOR).await;
        let readiness = health.readiness().await;
        assert!(!readiness.is_ready());
        assert_eq!(readiness.status, "not-ready");
        assert_eq!(readiness.checks["good"].status, "ok");
        assert_eq!(readiness.checks["hangs"].status, "failed");
        assert_eq!(readiness.lag.map(|lag| lag.events), Some(3));
    }

    /// What is wrong everywhere is said, and sends nobody elsewhere; and a lag that nobody has is not `null`.
    #[tokio::test]
    async fn what_is_degraded_is_ready_and_says_so() {
        let health = Health::new();
        health.register("relay", || async { Check::degraded("nobody publishes") });
        let readiness = health.readiness().await;
        assert!(readiness.is_ready());
        let answer = serde_json::to_value(&readiness).expect("JSON");
        let relay = json!({"status": "degraded", "detail": "nobody publishes"});
        assert_eq!(answer, json!({"status": "ready", "checks": {"relay": relay}}));
    }

    #[tokio::test]
    async fn who_is_not_ready_says_when_to_ask_again() {
        let health = Health::new();
        let ready = async || {
            let request = Request::get("/readyz").body(Body::empty()).expect("a request");
            router(health.clone(), None).oneshot(request).await.expect("never fails")
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

    #[tokio::test]
    async fn who_drains_is_not_ready_at_once() {
        let health = Health::new();
        assert!(health.readiness().await.is_ready());
        health.drain();
        let readiness = health.readiness().await;
        assert_eq!((readiness.is_ready(), readiness.status), (false, "draining"));
        assert!(health.draining().is_set());
    }
}
