//! Reads a body, bounded in size, time and memory.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use process::budget::{Budget, Reservation};
use process::context;
use tokio::time::timeout;

use crate::limits::Key;
use crate::problem::{Problem, ProblemCode};

/// The largest body but a batch, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// The largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// A body must have arrived within this time.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A body takes memory of the budget from so many bytes on. Until then it is no more than what its connection takes anyway.
const FREE_BYTES_MAX: usize = 16 << 10;
/// Memory in the process for bodies, as they arrive and until they are dropped, in bytes.
const MEMORY_BYTES: u32 = 128 << 20;
/// How much of it all bodies from one address (IPv6: /64) get at most, in bytes: two batches of the largest size, or many
/// smaller ones. An account is free, an address is not.
const MEMORY_BYTES_EACH_MAX: u32 = 32 << 20;
/// Maximum wait for memory.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);

/// Of a body that is too large, as much is read and thrown away, so that the client sees the answer and not a reset.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// The whole body of a request.
///
/// # Errors
/// 413 beyond `bytes_max`, 408 after 30 s, 400 when it breaks off, 503 where there is no memory for it for 10 s.
pub async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || too_large(bytes_max as u64);
    let announced = content_length(request.headers());
    let waits_for_go = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    if announced.is_some_and(|length| length > bytes_max as u64) {
        if !waits_for_go {
            discard(body).await;
        }
        return Err(too_large());
    }
    let collected = {
        let mut collecting = pin!(collect(&mut body, bytes_max, announced));
        // most bodies have arrived with their headers: no timer for those
        match futures_util::poll!(&mut collecting) {
            Poll::Ready(collected) => collected,
            Poll::Pending => {
                let arriving = timeout(BODY_TIME_MAX, collecting);
                context::without_permit(arriving).await.unwrap_or(Err(Broken::TooSlow))
            }
        }
    };
    match collected {
        Ok(bytes) => Ok(bytes),
        Err(Broken::TooLarge) => {
            discard(body).await;
            Err(too_large())
        }
        Err(Broken::NoMemory) => {
            discard(body).await;
            Err(Problem::overloaded())
        }
        Err(Broken::TooSlow) => Err(Problem::new(ProblemCode::BodyTooSlow)),
        Err(Broken::Off) => Err(Problem::new(ProblemCode::BadRequest).detail("the body broke off or is badly framed")),
    }
}

pub(super) fn too_large(bytes_max: u64) -> Problem {
    let limit = if bytes_max >= 1 << 20 { format!("{} MiB", bytes_max >> 20) } else { format!("{bytes_max} bytes") };
    Problem::new(ProblemCode::BodyTooLarge).detail(format!("at most {limit}"))
}

enum Broken {
    TooLarge,
    NoMemory,
    TooSlow,
    Off,
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
}

async fn collect(body: &mut Body, bytes_max: usize, announced: Option<u64>) -> Result<Bytes, Broken> {
    // what was announced is no more than the limit here
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    let expected = announced.unwrap_or(bytes_max);
    let mut memory = match announced {
        Some(length) if length > FREE_BYTES_MAX => Some(Reserved::begin(length).await?),
        Some(_) | None => None,
    };
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Off)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > bytes_max {
            return Err(Broken::TooLarge);
        }
        if length > FREE_BYTES_MAX {
            let memory = match &mut memory {
                Some(memory) => memory,
                None => memory.insert(Reserved::begin(expected).await?),
            };
            if memory.bytes() < length {
                // as it comes, so that who announces much and sends little takes little from others
                memory.grow((2 * length).clamp(length, expected)).await?;
                rest.reserve(memory.bytes().saturating_sub(rest.len()));
            }
        }
        if first.is_empty() && rest.is_empty() {
            // a small body is one frame: taken as it is
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(length);
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(match memory {
        Some(mut memory) => {
            memory.0.shrink(bytes.len());
            Bytes::from_owner(BudgetedBody { bytes, _memory: memory })
        }
        None => bytes,
    })
}

/// What a process can spare is one number, however many listeners it has.
static MEMORY: LazyLock<Budget<Key>> = LazyLock::new(|| Budget::new(MEMORY_BYTES, MEMORY_BYTES_EACH_MAX));

/// Memory for a body of the request in progress.
struct Reserved(Reservation<Key>);

impl Reserved {
    /// Of its client's part as much as the body may come to; of the whole nothing yet.
    async fn begin(bytes: usize) -> Result<Self, Broken> {
        let client = Key::of_address(context::client_of_current().unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        timeout(MEMORY_WAIT_MAX, MEMORY.begin(client, bytes)).await.map(Self).map_err(|_| Broken::NoMemory)
    }

    async fn grow(&mut self, bytes: usize) -> Result<(), Broken> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        timeout(MEMORY_WAIT_MAX, self.0.grow(bytes)).await.map_err(|_| Broken::NoMemory)
    }

    fn bytes(&self) -> usize {
        self.0.amount()
    }
}

/// A body, and the memory reserved for it until the last part of it is dropped.
struct BudgetedBody {
    bytes: Bytes,
    _memory: Reserved,
}

impl AsRef<[u8]> for BudgetedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) async fn discard(mut body: Body) {
    let discarding = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARDED_BYTES_MAX {
                break;
            }
        }
    };
    // whether all of it came does not matter
    let _ = timeout(DISCARD_TIME_MAX, discarding).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::IpAddr;

    use axum::http::HeaderValue;
    use futures_util::StreamExt;
    use process::context::RequestContext;

    use super::*;

    #[tokio::test]
    async fn a_body_is_bounded_whether_announced_or_not() {
        let limit = 10;
        let chunks = |count: usize| {
            let parts = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"12345")));
            Body::from_stream(futures_util::stream::iter(parts))
        };
        let read = async |body: Body, length: Option<&'static str>| {
            let mut request = Request::new(body);
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            read_body(request, limit).await.map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(read(chunks(2), None).await, Ok(Bytes::from_static(b"1234512345")));
        assert_eq!(read(chunks(3), None).await, Err(413));
        assert_eq!(read(chunks(3), Some("15")).await, Err(413));
        assert_eq!(read(Body::empty(), None).await, Ok(Bytes::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_a_408_after_30_seconds() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let began = tokio::time::Instant::now();
        let problem = read_body(Request::new(body), 10).await.expect_err("never comes");
        assert_eq!(problem.status(), 408);
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_s_bodies_take_no_more_than_its_part_of_the_memory() {
        let arrives = async |from: u8, bytes: usize, is_announced: bool| {
            let parts = vec![b'1'; bytes];
            let parts: Vec<_> =
                parts.chunks(4_096).map(|part| Ok::<_, Infallible>(Bytes::copy_from_slice(part))).collect();
            let mut request = Request::new(Body::from_stream(futures_util::stream::iter(parts)));
            if is_announced {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
            }
            let context = RequestContext::fresh().from_client(IpAddr::from([198, 51, 100, from]));
            context.scope(read_body(request, BATCH_BYTES_MAX)).await.map_err(|problem| problem.status().as_u16())
        };
        let length = |arrived: &Result<Bytes, u16>| arrived.as_ref().map(Bytes::len).map_err(|status| *status);
        let (small, medium) = (FREE_BYTES_MAX, FREE_BYTES_MAX + 1);
        let (whole, other) = (arrives(1, BATCH_BYTES_MAX, true).await, arrives(1, BATCH_BYTES_MAX, true).await);
        let (whole, other) = (whole.expect("there is room"), other.expect("for two"));
        let began = tokio::time::Instant::now();
        for is_announced in [true, false] {
            assert_eq!(length(&arrives(1, medium, is_announced).await), Err(503));
            assert_eq!(length(&arrives(1, small, is_announced).await), Ok(small));
            assert_eq!(length(&arrives(2, BATCH_BYTES_MAX, is_announced).await), Ok(BATCH_BYTES_MAX), "another client");
        }
        assert_eq!(began.elapsed(), 2 * MEMORY_WAIT_MAX);
        // until nothing of it is kept any more
        let part = whole.slice(..1);
        drop(whole);
        assert_eq!(length(&arrives(1, medium, true).await), Err(503));
        drop(part);
        assert_eq!(length(&arrives(1, medium, true).await), Ok(medium));
        drop(other);
        // one that does not say how long it will be takes no more in the end than it is
        let held = [arrives(1, medium, false).await, arrives(1, medium, false).await];
        assert_eq!(held.each_ref().map(length), [Ok(medium), Ok(medium)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_announces_much_and_sends_little_takes_little_from_others() {
        let sends = async |from: u8, body: Body| {
            let mut request = Request::new(body);
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(BATCH_BYTES_MAX));
            let context = RequestContext::fresh().from_client(IpAddr::from([203, 0, 113, from]));
            context.scope(read_body(request, BATCH_BYTES_MAX)).await.map_err(|problem| problem.status().as_u16())
        };
        let little = || {
            let first = Bytes::from(vec![b'1'; 2 * FREE_BYTES_MAX]);
            let first = futures_util::stream::iter([Ok::<_, Infallible>(first)]);
            Body::from_stream(first.chain(futures_util::stream::pending()))
        };
        let clients = 2 * (MEMORY_BYTES / MEMORY_BYTES_EACH_MAX) as u8;
        // two each: all of its part
        let dripping = (0..2 * clients).map(|n| sends(n % clients, little()));
        let others = async {
            for n in clients..2 * clients {
                let whole = sends(n, Body::from(vec![b'1'; BATCH_BYTES_MAX])).await;
                assert_eq!(whole.map(|body| body.len()), Ok(BATCH_BYTES_MAX));
            }
            assert_eq!(sends(0, Body::from(vec![b'1'; BATCH_BYTES_MAX])).await, Err(503), "its part is taken");
        };
        let (dripped, ()) = tokio::join!(futures_util::future::join_all(dripping), others);
        assert!(dripped.iter().all(|body| *body == Err(408)), "too slow");
    }
}
