//! Connections: accepted, served, drained.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use axum::http::header::HOST;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::client_address::Peer;
use crate::context::{RequestContext, X_REQUEST_ID};
use crate::headers::single;
use crate::problem::Problem;

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
                Ok((stream, from)) => {
                    let (router, stop, open) = (router.clone(), stop.clone(), open.clone());
                    connections.spawn(async move {
                        open.increment(1.0);
                        connection(stream, from, router, stop).await;
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

async fn connection(stream: TcpStream, from: SocketAddr, router: Router, stop: Stop) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let waiting = Arc::new(Waiting::new());
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(PARSER_BUFFER_BYTES_MAX);
    let peer = Peer { address: from.ip().to_canonical(), tls: false };
    let service = RouterService { router, peer, waiting: waiting.clone() };
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
    peer: Peer,
    waiting: Arc<Waiting>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for RouterService {
    type Response = hyper::Response<AnsweredBody>;
    type Error = Infallible;
    type Future = Routed;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Routed {
        self.waiting.end();
        request.extensions_mut().insert(self.peer);
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
