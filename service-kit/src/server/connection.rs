//! Connections: accepted, served, drained.

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
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answering::{RouterService, too_slow};
use super::guests::Guests;
use super::socket::{Deadline, HEADER_TIME_MAX, Socket, Stream, Waiting};
use super::tls::{Tls, speaks_http2};
use crate::client_address::{Peer, TrustedProxies};

/// Beyond this the parser itself refuses, without a body.
const PARSER_BUFFER_BYTES_MAX: usize = 128 << 10;
/// A part of a service's time to stop: see `service`.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 10_000;
/// Of one address, and at most a quarter of all.
const ADDRESS_CONNECTIONS_MAX: usize = 256;
/// Open files that are left to everything else.
const OTHER_FILES: u64 = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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

/// Where clients come in.
pub struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
    proxies: TrustedProxies,
}

impl Door {
    /// With TLS or without.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls, proxies: TrustedProxies::default() }
    }

    /// These may have more connections than another address: their clients come over them.
    #[must_use]
    pub fn behind(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Where it is.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl From<TcpListener> for Door {
    /// Without TLS.
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, None)
    }
}

/// Lets this process have as many open files as the system allows it, of which a connection is one; how many that is.
fn raise_open_files() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// Connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    /// What comes beyond is accepted once another one is closed.
    connections_max: usize,
    /// What comes beyond is closed.
    address_connections_max: u32,
}

impl Room {
    fn within(files: Option<u64>) -> Self {
        let left = files.and_then(|files| usize::try_from(files.saturating_sub(OTHER_FILES)).ok());
        let connections_max = left.unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX);
        let of_address = (connections_max / 4).clamp(1, ADDRESS_CONNECTIONS_MAX);
        Self { connections_max, address_connections_max: u32::try_from(of_address).unwrap_or(u32::MAX) }
    }
}

/// Serves until `shutdown`, then drains for at most 5 s. As many files may be open from here on as the system lets this
/// process have: a connection is one.
///
/// # Errors
/// When the listener has no address. An error of one connection ends that connection only; a failing `accept` is tried
/// again.
pub async fn serve(door: impl Into<Door>, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let (room, mut door) = (Room::within(raise_open_files()), door.into());
    let guests = Guests::new(room.address_connections_max, std::mem::take(&mut door.proxies));
    serve_guests(room.connections_max, &guests, door, router, shutdown).await
}

async fn serve_guests(
    connections_max: usize,
    guests: &Arc<Guests>,
    door: Door,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let Door { listener, tls, .. } = door;
    listener.local_addr()?;
    // turned into its final form here rather than for each request
    let router = router.with_state(());
    let stop = Stop { stopping: Arc::default(), drain: CancellationToken::new(), cut: CancellationToken::new() };
    let permits = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    let open = metrics::gauge!("http_connections");
    let refused = metrics::counter!("http_connections_refused_total");
    let accepting = async {
        loop {
            // the semaphore is never closed
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let Some(guest) = guests.enter(from.ip()) else {
                        refused.increment(1);
                        continue;
                    };
                    let (router, stop, open, tls) = (router.clone(), stop.clone(), open.clone(), tls.clone());
                    connections.spawn(async move {
                        open.increment(1.0);
                        connection(stream, from, tls, router, stop).await;
                        open.decrement(1.0);
                        drop((permit, guest));
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
        () = renewed(tls.as_ref()) => {}
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

async fn renewed(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.renewed().await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

async fn connection(stream: TcpStream, from: SocketAddr, tls: Option<Tls>, router: Router, stop: Stop) {
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
    let service = RouterService { router, peer, waiting };
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
    let waiting = service.waiting.clone();
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(PARSER_BUFFER_BYTES_MAX);
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
                let answering = async { stream.write_all(&too_slow()).await };
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
    use super::*;

    /// A thousand idle streams: what hyper keeps for each is enough.
    #[tokio::test]
    async fn a_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, from) = accepted.expect("accepts");
        let stop = Stop { stopping: Arc::default(), drain: CancellationToken::new(), cut: CancellationToken::new() };
        let size = size_of_val(&connection(stream, from, None, Router::new(), stop));
        assert!(size <= 2_048, "{size}");
    }

    #[test]
    fn there_is_room_for_as_many_connections_as_files_can_be_open() {
        let room = |connections_max, address_connections_max| Room { connections_max, address_connections_max };
        for (files, expected) in [
            (None, room(10_000, 256)),
            (Some(1 << 20), room(10_000, 256)),
            (Some(4_096), room(3_840, 256)),
            (Some(1_024), room(768, 192)),
            (Some(257), room(1, 1)),
            (Some(64), room(1, 1)),
        ] {
            assert_eq!(Room::within(files), expected, "{files:?}");
        }
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let fewer = Rlimit { current: Some(maximum.unwrap_or(1_000).min(1_000) - 1), maximum };
        setrlimit(Resource::Nofile, fewer).expect("fewer");
        assert_eq!(raise_open_files(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }

    const CLIENT_TIME_MAX: Duration = Duration::from_secs(30);

    struct Client(TcpStream);

    impl Client {
        /// Sends a request, and does not wait for its answer.
        async fn ask(address: SocketAddr) -> Self {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            // a connection that is refused may be closed by now
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            Self(stream)
        }

        /// The beginning of what comes within a time; nothing if the connection was closed.
        async fn answer(&mut self, time_max: Duration) -> Option<Vec<u8>> {
            let mut first = vec![0; 12];
            match timeout(time_max, self.0.read_exact(&mut first)).await {
                Ok(Ok(_)) => Some(first),
                Ok(Err(_)) => Some(Vec::new()),
                Err(_) => None,
            }
        }

        async fn is_answered(&mut self) -> bool {
            self.answer(CLIENT_TIME_MAX).await.is_some_and(|answer| answer == b"HTTP/1.1 200")
        }
    }

    async fn serving(connections_max: usize, guests: Arc<Guests>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        tokio::spawn(async move {
            serve_guests(connections_max, &guests, listener.into(), router, CancellationToken::new()).await
        });
        address
    }

    #[tokio::test]
    async fn a_connection_too_many_is_answered_once_another_one_is_closed() {
        let address = serving(2, Guests::new(1, TrustedProxies::default())).await;
        let (mut first, mut second) = (Client::ask(address).await, Client::ask(address).await);
        assert!(first.is_answered().await && second.is_answered().await);
        let mut third = Client::ask(address).await;
        assert_eq!(third.answer(Duration::from_millis(300)).await, None);
        drop(first);
        assert!(third.is_answered().await);
    }

    #[tokio::test]
    async fn one_too_many_of_an_address_is_closed() {
        let address = serving(10, Guests::counting_all(2)).await;
        let (mut first, mut second) = (Client::ask(address).await, Client::ask(address).await);
        assert!(first.is_answered().await && second.is_answered().await);
        assert_eq!(Client::ask(address).await.answer(CLIENT_TIME_MAX).await.expect("closed"), b"");
        drop(first);
        let until = Instant::now() + CLIENT_TIME_MAX;
        while !Client::ask(address).await.is_answered().await {
            assert!(Instant::now() < until, "there is room again");
        }
        drop(second);
    }
}
