//! Whether a process can do its work: the checks of its parts, and how far its read side is behind.
//!
//! ```
//! # use process::health::{Check, Health, Lag};
//! let health = Health::new();
//! health.register("database", || async { Check::ok("answers") });
//! health.lag(|| async { Lag { events: 0, seconds: 0.0 } });
//! ```
//!
//! Checks run side by side, each for at most 2 s, and what they say is kept for half a second, so that `/readyz`, which
//! needs no token, cannot be used to press the database.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

const CHECK_TIME_MAX: Duration = Duration::from_secs(2);
const KEPT_FOR: Duration = Duration::from_millis(500);

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

    /// For whoever answers requests.
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
        // the lock is held while the checks run: calls meanwhile get the same answer
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    async fn who_drains_is_not_ready_at_once() {
        let health = Health::new();
        assert!(health.readiness().await.is_ready());
        health.drain();
        let readiness = health.readiness().await;
        assert_eq!((readiness.is_ready(), readiness.status), (false, "draining"));
        assert!(health.draining().is_set());
    }
}
