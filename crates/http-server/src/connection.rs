//! One connection: its protocol, its time-outs, its end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::answering::{Refuse, RouterService, too_slow};
use crate::client_address::Peer;
use crate::socket::{Deadline, HEADER_TIME_MAX, Socket, Stream, Waiting};
use crate::tls::{Tls, speaks_http2};

/// Beyond this the parser itself refuses, without a body.
const PARSER_BUFFER_BYTES_MAX: usize = 128 << 10;
/// After an answer to a request whose body was not read, what still comes is read for so long, so that the client gets
/// to see the answer instead of a reset.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
const STOPPING_LINGER_TIME_MAX: Duration = Duration::from_millis(200);
const LINGER_BYTES_MAX: usize = 64 << 20;
/// When it is looked again whether a connection that began as HTTP/2 does goes on like that.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// HTTP/2: requests at once on a connection.
const STREAMS_MAX: u32 = 128;
/// Requests that were broken off before they were looked at, and those that we had to break off.
const RESETS_PENDING_MAX: usize = 16;
const RESETS_OF_OURS_MAX: usize = 64;
/// More than is taken, so that the edge can say so.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Not yet read of one body, and of all of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Whether a client is still there is asked every so often, and has to be answered in time.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_TIME_MAX: Duration = Duration::from_secs(10);

/// How a connection learns that it is to end.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// Looked at on every poll: cheaper than the token, which only wakes.
    pub stopping: Arc<AtomicBool>,
    pub drain: CancellationToken,
    pub cut: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// From its first byte to its end.
pub(crate) async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<Tls>,
    router: Router,
    refuse: Refuse,
    stop: Stop,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let waiting = Arc::new(Waiting::new());
    let peer = Peer { address: from.ip().to_canonical(), tls: tls.is_some() };
    // boxed: the connection is kept for long, this is not
    let opening = Box::pin(timeout(HEADER_TIME_MAX, open(stream, tls)));
    let opened = tokio::select! {
        opened = opening => opened,
        () = stop.drain.cancelled() => return,
    };
    let service = RouterService { router, refuse, peer, waiting };
    match opened {
        Ok(Ok((stream, Protocol::Http1))) => speak_http1(stream, service, stop).await,
        Ok(Ok((stream, Protocol::Http2))) => Box::pin(speak_http2(stream, service, stop)).await,
        Ok(Err(error)) => tracing::debug!(%error, "handshake"),
        // nothing has come, so there is nothing to answer
        Err(_) => {}
    }
}

/// Finds out what is spoken.
async fn open(stream: TcpStream, tls: Option<Tls>) -> io::Result<(Stream, Protocol)> {
    match tls {
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            let protocol = if speaks_http2(&stream) { Protocol::Http2 } else { Protocol::Http1 };
            Ok((Stream::Tls(Box::new(stream)), protocol))
        }
        None => {
            let protocol = by_first_bytes(&stream).await?;
            Ok((Stream::Plain(stream), protocol))
        }
    }
}

/// HTTP/2 without TLS begins with a request that no HTTP/1 client makes.
async fn by_first_bytes(stream: &TcpStream) -> io::Result<Protocol> {
    const PREFACE: &[u8] = b"PRI";
    let mut first = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        if count == 0 || first[..count] != PREFACE[..count] {
            return Ok(Protocol::Http1);
        }
        if count == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

async fn speak_http1(stream: Stream, service: RouterService, stop: Stop) {
    let (waiting, refuse) = (service.waiting.clone(), service.refuse);
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(PARSER_BUFFER_BYTES_MAX);
    // Whether the client is there still, hyper finds out by reading on: into another 8 KiB for each request, since its headers
    // hold the first. A plain socket looks for itself, and reads nothing.
    builder.half_close(matches!(stream, Stream::Plain(_)));
    let socket = TokioIo::new(Socket::new(stream, waiting.clone(), true));
    let mut connection = builder.serve_connection(socket, service);
    let ended = drive(Pin::new(&mut connection), &waiting, &stop).await;
    match ended {
        Ok(ended @ (Ended::Served | Ended::Late)) => {
            let mut stream = connection.into_parts().io.into_inner().into_stream();
            if ended == Ended::Late {
                if !waiting.has_begun() {
                    return;
                }
                let answering = async { stream.write_all(&too_slow(refuse).await).await };
                if !matches!(timeout(STOPPING_LINGER_TIME_MAX, answering).await, Ok(Ok(()))) {
                    return;
                }
            }
            let stopping = stop.stopping.load(Ordering::Acquire);
            linger(stream, if stopping { STOPPING_LINGER_TIME_MAX } else { LINGER_TIME_MAX }).await;
        }
        Ok(Ended::Cut) => {}
        // the client went away, or does not speak HTTP: its own affair
        Err(error) => tracing::debug!(%error, "connection"),
    }
}

async fn speak_http2(stream: Stream, service: RouterService, stop: Stop) {
    let waiting = service.waiting.clone();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OF_OURS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_TIME_MAX);
    let socket = TokioIo::new(Socket::new(stream, waiting.clone(), false));
    let connection = pin!(builder.serve_connection(socket, service));
    if let Err(error) = drive(connection, &waiting, &stop).await {
        tracing::debug!(%error, "connection");
    }
}

/// A connection of either protocol.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Whether the client can be told to go before the connection ends.
    const SAYS_GOODBYE: bool;

    /// What is being answered is the last.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl Connection for http1::Connection<TokioIo<Socket>, RouterService> {
    const SAYS_GOODBYE: bool = false;

    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Connection for http2::Connection<TokioIo<Socket>, RouterService, TokioExecutor> {
    const SAYS_GOODBYE: bool = true;

    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By the client, or after the last answer.
    Served,
    /// No request came in time.
    Late,
    /// The client abuses us or takes nothing of what it is given, or the process ends.
    Cut,
}

/// Until the end of a connection, or of what it may take.
async fn drive<C: Connection>(mut connection: Pin<&mut C>, waiting: &Waiting, stop: &Stop) -> hyper::Result<Ended> {
    let mut drained = pin!(stop.drain.cancelled());
    let mut cut = pin!(stop.cut.cancelled());
    let mut alarm = pin!(tokio::time::sleep_until(waiting.deadline().map_or_else(Instant::now, Deadline::at)));
    let (mut registered, mut draining, mut told_to_go) = (false, false, false);
    poll_fn(|cx| {
        // polled once so that they wake this task; from then on a flag tells, which is all that a request pays
        if !registered {
            registered = true;
            let _ = (drained.as_mut().poll(cx), cut.as_mut().poll(cx), alarm.as_mut().poll(cx));
        }
        if stop.stopping.load(Ordering::Acquire) {
            if !draining {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            if stop.cut.is_cancelled() {
                return Poll::Ready(Ok(Ended::Cut));
            }
        }
        // to the end of what is to be written; the socket's own end comes in `linger`
        let mut served = connection.as_mut().poll(cx).map_ok(|()| Ended::Served);
        if waiting.is_abused() {
            metrics::counter!("http_connections_abused_total").increment(1);
            return Poll::Ready(Ok(Ended::Cut));
        }
        while served.is_pending() && alarm.is_elapsed() {
            let now = Instant::now();
            let mut deadline = waiting.deadline();
            match deadline.filter(|deadline| deadline.at() <= now) {
                Some(Deadline::Reader(_)) => {
                    metrics::counter!("http_connections_unread_total").increment(1);
                    return Poll::Ready(Ok(Ended::Cut));
                }
                Some(Deadline::Headers(_)) if !C::SAYS_GOODBYE || told_to_go => {
                    return Poll::Ready(Ok(Ended::Late));
                }
                Some(Deadline::Headers(_)) => {
                    told_to_go = true;
                    waiting.headers_begin();
                    deadline = waiting.deadline();
                    connection.as_mut().graceful_shutdown();
                    served = connection.as_mut().poll(cx).map_ok(|()| Ended::Served);
                }
                None => {}
            }
            // what it waits for may be another thing by then, with an earlier deadline
            let look_again = now + HEADER_TIME_MAX;
            alarm.as_mut().reset(deadline.map_or(look_again, |deadline| deadline.at().min(look_again)));
            let _ = alarm.as_mut().poll(cx);
        }
        served
    })
    .await
}

/// Says that there is no more to come, and reads away what the client still sends, within bounds.
async fn linger(mut stream: Stream, time_max: Duration) {
    let lingering = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        // not of the connection's own size, which an idle one has too
        let mut buffer = vec![0; 8 << 10];
        let mut bytes = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            bytes += count;
            if bytes > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    // whether the client closed in time does not matter
    let _ = timeout(time_max, lingering).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A thousand idle streams: what hyper keeps for each is enough.
    #[tokio::test]
    async fn a_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, from) = accepted.expect("accepts");
        let refuse: Refuse = |_, _| axum::response::Response::default();
        let size = size_of_val(&connection(stream, from, None, Router::new(), refuse, Stop::default()));
        assert!(size <= 2_048, "{size}");
    }
}
