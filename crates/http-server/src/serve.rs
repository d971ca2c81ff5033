//! Connections: accepted, and drained at the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answering::Refuse;
use crate::connection::{Stop, connection};
use crate::connection_limit::ConnectionLimit;
use crate::listener::Listener;
use crate::room::{Room, raise_open_files};
use crate::tls::Tls;

/// How long requests in progress may take to end, which is a part of a program's time to stop.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then drains for at most 5 s. `refuse` answers what does not come to the router. As many files
/// may be open from here on as the system lets this process have: a connection is one.
///
/// # Errors
/// When the listener has no address. An error of one connection ends that connection only; a failing `accept` is tried
/// again.
pub fn serve(
    mut listener: Listener,
    router: Router,
    refuse: Refuse,
    shutdown: CancellationToken,
) -> BoxFuture<'static, io::Result<()>> {
    Box::pin(async move {
        let room = Room::within(raise_open_files());
        let limit = ConnectionLimit::new(room.address_connections_max, std::mem::take(&mut listener.proxies));
        serve_within(room.connections_max, &limit, listener, router, refuse, shutdown).await
    })
}

async fn serve_within(
    connections_max: usize,
    limit: &Arc<ConnectionLimit>,
    Listener { socket, tls, .. }: Listener,
    router: Router,
    refuse: Refuse,
    shutdown: CancellationToken,
) -> io::Result<()> {
    socket.local_addr()?;
    // turned into its final form here rather than for each request
    let router = router.with_state(());
    let stop = Stop::default();
    let permits = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    let open = metrics::gauge!("http_connections");
    let refused = metrics::counter!("http_connections_refused_total");
    // shown from the start: an alert sees only what a counter has gained since it was there
    metrics::counter!("http_connections_abused_total").increment(0);
    let accepting = async {
        loop {
            // the semaphore is never closed
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, from)) => {
                    let Some(counted) = limit.admit(from.ip()) else {
                        refused.increment(1);
                        continue;
                    };
                    let (router, stop, open, tls) = (router.clone(), stop.clone(), open.clone(), tls.clone());
                    connections.spawn(async move {
                        open.increment(1.0);
                        connection(stream, from, tls, router, refuse, stop).await;
                        open.decrement(1.0);
                        drop((permit, counted));
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
    drop(socket);
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

async fn renewed(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.renewed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::client_address::TrustedProxies;
    use std::net::SocketAddr;

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

    async fn serving(connections_max: usize, limit: Arc<ConnectionLimit>) -> SocketAddr {
        serving_router(Router::new().route("/", get(|| async { "here" })), connections_max, limit).await
    }

    async fn serving_router(router: Router, connections_max: usize, limit: Arc<ConnectionLimit>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let refuse: Refuse = |_, _| axum::http::StatusCode::BAD_REQUEST.into_response();
            serve_within(connections_max, &limit, listener.into(), router, refuse, CancellationToken::new()).await
        });
        address
    }

    /// Tells when it begins and when it is dropped.
    struct Told(mpsc::UnboundedSender<&'static str>);

    impl Told {
        fn begin(told: mpsc::UnboundedSender<&'static str>) -> Self {
            told.send("began").expect("heard");
            Self(told)
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }

    #[tokio::test]
    async fn a_request_ends_with_its_client_whether_it_waits_or_is_answered() {
        let (told, mut hear) = mpsc::unbounded_channel();
        let (waits, streams) = (told.clone(), told);
        let waiting = move || {
            let told = Told::begin(waits.clone());
            async move {
                let _told = told;
                std::future::pending::<()>().await;
            }
        };
        let streaming = move || {
            let first = (Told::begin(streams.clone()), Some("first"));
            let body = futures_util::stream::unfold(first, |(told, part)| async move {
                match part {
                    Some(part) => Some((Ok::<_, std::convert::Infallible>(part), (told, None))),
                    None => std::future::pending().await,
                }
            });
            std::future::ready(axum::body::Body::from_stream(body))
        };
        let router = Router::new().route("/", get(waiting)).route("/stream", get(streaming));
        let address = serving_router(router, 10, ConnectionLimit::new(10, TrustedProxies::default())).await;
        let mut heard = async || timeout(CLIENT_TIME_MAX, hear.recv()).await.expect("in time").expect("a sender");

        let waiting = Client::ask(address).await;
        assert_eq!(heard().await, "began");
        drop(waiting);
        assert_eq!(heard().await, "dropped");

        let mut streaming = TcpStream::connect(address).await.expect("connects");
        streaming.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
        assert_eq!(heard().await, "began");
        let mut streaming = Client(streaming);
        assert!(streaming.is_answered().await);
        drop(streaming);
        assert_eq!(heard().await, "dropped");
    }

    #[tokio::test]
    async fn what_is_sent_while_a_request_is_answered_is_answered_after_it() {
        let (told, mut hear) = mpsc::unbounded_channel();
        let go_on = Arc::new(tokio::sync::Semaphore::new(0));
        let release = go_on.clone();
        let handler = move || {
            let (told, go_on) = (told.clone(), go_on.clone());
            async move {
                told.send(()).expect("heard");
                go_on.acquire().await.expect("open").forget();
                "here"
            }
        };
        let router = Router::new().route("/", get(handler));
        let address = serving_router(router, 10, ConnectionLimit::new(10, TrustedProxies::default())).await;
        let mut client = Client::ask(address).await;
        timeout(CLIENT_TIME_MAX, hear.recv()).await.expect("in time").expect("began");
        // before the first one's answer, and seen by the server: the socket is looked at once something comes
        client.0.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sends");
        release.add_permits(2);
        let mut answers = String::new();
        timeout(CLIENT_TIME_MAX, client.0.read_to_string(&mut answers)).await.expect("in time").expect("reads");
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    }

    #[tokio::test]
    async fn a_connection_too_many_is_answered_once_another_one_is_closed() {
        let address = serving(2, ConnectionLimit::new(1, TrustedProxies::default())).await;
        let (mut first, mut second) = (Client::ask(address).await, Client::ask(address).await);
        assert!(first.is_answered().await && second.is_answered().await);
        let mut third = Client::ask(address).await;
        assert_eq!(third.answer(Duration::from_millis(300)).await, None);
        drop(first);
        assert!(third.is_answered().await);
    }

    #[tokio::test]
    async fn one_too_many_of_an_address_is_closed() {
        let address = serving(10, ConnectionLimit::counting_all(2)).await;
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
