//! The request in progress: its ids, its client, its span, and its permit to be worked on.
//!
//! The edge of the API makes a [`RequestContext`] for each request and keeps it task-local, so that problems, logs and
//! audit events find it: [`RequestContext::current`] is a copy of it. Outside of a request (tests, background work) a fresh
//! one is made.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use domain::OwnerId;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::clock;
use crate::load::Load;
use crate::traces::Traceparent;

/// `X-Request-Id`
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent` (W3C Trace Context)
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const REQUEST_ID_LENGTH_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// Ids of one request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext {
    request_id: HeaderValue,
    /// The request id, where it was made here.
    made_id: Option<Uuid>,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    /// The caller's span, if it has said so.
    parent: Option<[u8; 8]>,
    arrived: Instant,
    /// Where it came from, proxies that are trusted looked through; `None` outside of a request.
    client: Option<IpAddr>,
    /// Whether it came by TLS, proxies that are trusted looked through.
    tls: bool,
    /// What it has a permit of, while it is being worked on.
    load: Option<Load>,
    /// Set once it has waited for something that is no work: whether it does.
    waited: OnceLock<Arc<AtomicBool>>,
    /// Whose request it is, once that is known; for logs.
    owner: OnceLock<OwnerId>,
}

impl RequestContext {
    /// From a request's headers: what is good is taken, what is missing or bad is made.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        // one id for whatever has to be made: of an event of such a request nothing but its change needs to be stored
        let made = clock::new_id();
        let random = made.into_bytes();
        let before = headers.get(TRACEPARENT).and_then(|value| Traceparent::parse(value.as_bytes()));
        let (trace_id, flags) = before.map_or((random, 1), |before| (before.trace_id, u8::from(before.sampled)));
        let mut span_id = [0; 8];
        span_id.copy_from_slice(&random[8..]);
        // not the trace id's own tail, and never all zero
        span_id[0] ^= 0x5a;
        span_id[7] |= 1;
        let (request_id, made_id) = match headers.get(X_REQUEST_ID) {
            Some(id) if is_request_id(id.as_bytes()) => (id.clone(), None),
            Some(_) | None => (hex_header(made), Some(made)),
        };
        let parent = before.map(|before| before.span_id);
        Self {
            request_id,
            made_id,
            trace_id,
            span_id,
            flags,
            parent,
            arrived: Instant::now(),
            client: None,
            tls: false,
            load: None,
            waited: OnceLock::new(),
            owner: OnceLock::new(),
        }
    }

    /// The same, from this address.
    #[must_use]
    pub fn from_client(mut self, client: IpAddr) -> Self {
        self.client = Some(client);
        self
    }

    /// The same, by TLS or not.
    #[must_use]
    pub fn by_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// It has a permit of `load`.
    pub fn working(&mut self, load: Load) {
        self.load = Some(load);
    }

    /// Whether it has waited for something that is no work.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.waited.get().is_some()
    }

    /// A context of its own, for work that no request asked for.
    #[must_use]
    pub fn fresh() -> Self {
        Self::from_headers(&HeaderMap::new())
    }

    /// For work that an earlier request has asked for: its ids, and a span of its own.
    #[must_use]
    pub fn of_earlier(request_id: &str, traceparent: &str) -> Self {
        let header = |name, text| Some((name, HeaderValue::from_str(text).ok()?));
        let headers = [header(X_REQUEST_ID, request_id), header(TRACEPARENT, traceparent)];
        Self::from_headers(&headers.into_iter().flatten().collect())
    }

    /// The context of the request in progress, or a fresh one.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_else(|_| Self::fresh())
    }

    /// The client's `X-Request-Id`, or the one made: what events carry as correlation id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The request id as a UUID (version 7), if it was made here and not sent: no other request has it.
    #[must_use]
    pub fn made_id(&self) -> Option<Uuid> {
        self.made_id
    }

    /// The request id as the header that is returned.
    #[must_use]
    pub fn request_id_header(&self) -> HeaderValue {
        self.request_id.clone()
    }

    /// The context of the request in progress; none outside of one.
    #[must_use]
    pub fn in_progress() -> Option<Self> {
        with_current(Clone::clone)
    }

    /// The W3C trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        Hex(&self.trace_id).to_string()
    }

    /// W3C `traceparent` with this request's own span: what events carry on.
    #[must_use]
    pub fn traceparent(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(55);
        let mut hex = |bytes: &[u8]| {
            for byte in bytes {
                text.push(DIGITS[usize::from(byte >> 4)] as char);
                text.push(DIGITS[usize::from(byte & 15)] as char);
            }
            text.push('-');
        };
        hex(&[0]);
        hex(&self.trace_id);
        hex(&self.span_id);
        hex(&[self.flags]);
        text.pop();
        text
    }

    /// This request's own span.
    #[must_use]
    pub fn span(&self) -> Traceparent {
        Traceparent { trace_id: self.trace_id, span_id: self.span_id, sampled: self.flags & 1 == 1 }
    }

    /// The caller's span, if it has said so.
    #[must_use]
    pub fn parent(&self) -> Option<[u8; 8]> {
        self.parent
    }

    /// Whose request it is, once that is known.
    #[must_use]
    pub fn owner(&self) -> Option<OwnerId> {
        self.owner.get().copied()
    }

    /// The client's address, proxies that are trusted looked through; `None` where there is no request.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Whether the client uses TLS, proxies that are trusted looked through.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// When its headers had arrived.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Runs a future with this as the request in progress.
    pub fn scope<F: Future>(self, future: F) -> tokio::task::futures::TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }

    /// Runs a closure with this as the request in progress.
    pub fn sync_scope<R>(self, closure: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, closure)
    }
}

/// The client of the request in progress.
#[must_use]
pub fn client_of_current() -> Option<IpAddr> {
    CURRENT.try_with(RequestContext::client).ok().flatten()
}

/// Waits for something that is no work of this process: a body that comes slowly, or events that are not applied yet. The
/// request in progress releases its permit for as long.
pub async fn without_permit<F: Future>(awaited: F) -> F::Output {
    let released = CURRENT.try_with(|context| context.load.as_ref()?.release(context.waited.get_or_init(Arc::default)));
    let _released = released.ok().flatten();
    awaited.await
}

/// Remembers whose the request in progress is.
pub fn belongs_to(owner: OwnerId) {
    // Twice where a request is authenticated twice, and the same; nowhere where there is no request.
    let _ = CURRENT.try_with(|context| context.owner.set(owner));
}

/// What the request in progress is, for logs.
pub(crate) fn with_current<R>(look: impl FnOnce(&RequestContext) -> R) -> Option<R> {
    CURRENT.try_with(look).ok()
}

/// The trace id of the request in progress, 32 hexadecimal digits; zeros outside of one.
#[must_use]
pub fn current_trace_id() -> String {
    CURRENT.try_with(RequestContext::trace_id).unwrap_or_else(|_| "0".repeat(32))
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hex_header(id: Uuid) -> HeaderValue {
    let mut buffer = [0; uuid::fmt::Simple::LENGTH];
    let text = id.simple().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("0"))
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(name: HeaderName, value: &str) -> RequestContext {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
        RequestContext::from_headers(&headers)
    }

    #[test]
    fn a_good_traceparent_is_carried_on_with_a_span_of_its_own() {
        let context = of(TRACEPARENT, GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let carried = context.traceparent();
        assert!(carried.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && carried.ends_with("-01"), "{carried}");
        assert_ne!(carried, GOOD);
        assert!(Traceparent::parse(carried.as_bytes()).is_some());
    }

    #[test]
    fn a_bad_traceparent_is_replaced() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            let context = of(TRACEPARENT, bad);
            assert_ne!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{bad}");
            assert_ne!(context.trace_id(), "0".repeat(32), "{bad}");
        }
        assert!(Traceparent::parse(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }

    #[test]
    fn request_ids_are_taken_or_made() {
        assert_eq!(of(X_REQUEST_ID, "a.B_c-9").request_id(), "a.B_c-9");
        assert_eq!(of(X_REQUEST_ID, &"x".repeat(128)).request_id(), "x".repeat(128));
        for bad in ["", "a b", "a/b", "é", &"x".repeat(129)] {
            let id = of(X_REQUEST_ID, bad).request_id().to_owned();
            assert!(id != bad && id.len() == 32, "{bad:?} -> {id:?}");
        }
    }

    #[tokio::test]
    async fn the_request_in_progress_is_found() {
        let context = of(TRACEPARENT, GOOD);
        context.scope(async { assert_eq!(current_trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736") }).await;
        assert_eq!(current_trace_id(), "0".repeat(32));
    }
}
