//! The ports of a process: taken at the start, answered at until it ends.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_api::edge::{Edge, edge};
use http_api::{Api, health, refuse};
use http_server::{Listener, Tls, serve};
use metrics_exporter_prometheus::PrometheusHandle;
use process::health::Health;
use settings::{ConfigError, Source, invalid};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What says where.
const SETTING: &str = "--listen or PRIMETRADE_LISTEN";
const OPS_SETTING: &str = "PRIMETRADE_OPS_LISTEN";

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// For everything, or for all but operations.
    pub address: SocketAddr,
    /// For livez, readyz and metrics, where they are apart.
    pub ops_address: Option<SocketAddr>,
}

impl Listen {
    /// `PRIMETRADE_LISTEN` (127.0.0.1:8080) and `PRIMETRADE_OPS_LISTEN`. An IP address and a port; `localhost` is taken.
    ///
    /// # Errors
    /// When one is no such thing.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Self::read_or(source, 8080)
    }

    /// The same with another port for the default.
    ///
    /// # Errors
    /// As there.
    pub fn read_or(source: &Source, port: u16) -> Result<Self, ConfigError> {
        let address = |name: &str| {
            source
                .text(name)?
                .map(|text| {
                    let text = text.trim().replace("localhost:", "127.0.0.1:");
                    text.parse::<SocketAddr>()
                        .map_err(|_| invalid(name, &"it is an address and a port, as 127.0.0.1:8080"))
                })
                .transpose()
        };
        Ok(Self {
            address: address("PRIMETRADE_LISTEN")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port))),
            ops_address: address(OPS_SETTING)?,
        })
    }

    /// Whether the ports are to be had: for whoever has much to do before they are taken. Nobody can connect there yet.
    ///
    /// # Errors
    /// They are taken already, or cannot be.
    pub fn try_ports(&self) -> Result<(), ListenError> {
        if let Some(address) = self.ops_address {
            try_port(address, OPS_SETTING)?;
        }
        try_port(self.address, SETTING)
    }
}

/// Why a port cannot be had. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {0}: the port is in use. Stop the program that listens there, or choose another port ({1})"
    )]
    PortInUse(SocketAddr, &'static str),
    /// The address is not ours, or not allowed.
    #[error("cannot listen on {0}: {2}. Choose another address ({1})")]
    Other(SocketAddr, &'static str, io::Error),
}

/// Where a process listens.
pub struct Listeners {
    api: Listener,
    /// livez, readyz and metrics, if they are apart.
    ops: Option<TcpListener>,
}

/// What is answered there.
pub struct Answers {
    /// The routes, without those of operations.
    pub api: Api,
    /// The middleware around all of them.
    pub edge: Edge,
    /// For livez and readyz.
    pub health: Health,
    /// For metrics.
    pub metrics: PrometheusHandle,
    /// Cancelled when no connection is accepted any more.
    pub closing: CancellationToken,
}

impl Listeners {
    /// Takes the ports.
    ///
    /// # Errors
    /// They are taken already, or cannot be.
    pub async fn bind(listen: &Listen, tls: Option<Tls>) -> Result<Self, ListenError> {
        let ops = match listen.ops_address {
            Some(address) => Some(bind(address, OPS_SETTING).await?),
            None => None,
        };
        let api = bind(listen.address, SETTING).await?;
        Ok(Self { api: Listener::new(api, tls), ops })
    }

    /// Answers until `stop`, and then for `drain_time` longer, not ready any more; or until something has `died` that
    /// should not have. What is being answered then is waited for.
    ///
    /// # Errors
    /// What died, or the listener.
    pub async fn answer<E: Display + From<io::Error>>(
        self,
        Answers { api, edge: settings, health, metrics, closing }: Answers,
        stop: &CancellationToken,
        drain_time: Duration,
        died: impl Future<Output = E>,
    ) -> Result<(), E> {
        tracing::info!(address = %self.api.address()?, "answering");
        let listener = self.api.behind(settings.proxies.clone());
        let ops = health::router(health.clone(), Some(metrics));
        let serving = async {
            let Some(ops_listener) = self.ops else {
                return serve(listener, edge(api.merge(ops), settings), refuse, closing.clone()).await;
            };
            let api = serve(listener, edge(api, settings.clone()), refuse, closing.clone());
            let ops = serve(ops_listener.into(), edge(ops, settings), refuse, closing.clone());
            tokio::try_join!(api, ops).map(drop)
        };
        tokio::pin!(serving);
        let outcome = tokio::select! {
            served = &mut serving => return Ok(served?),
            error = died => {
                tracing::error!(%error, "stopping");
                health.drain();
                Err(error)
            }
            () = stop.cancelled() => {
                tracing::info!("stopping");
                health.drain();
                tokio::select! {
                    served = &mut serving => return Ok(served?),
                    () = sleep(drain_time) => Ok(()),
                }
            }
        };
        closing.cancel();
        let served = serving.await;
        outcome.and(Ok(served?))
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(error, address, setting))
}

/// Binds as [`bind`] does, and does not listen.
fn try_port(address: SocketAddr, setting: &'static str) -> Result<(), ListenError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    });
    bound.map_err(|error| cannot_listen(error, address, setting))
}

fn cannot_listen(error: io::Error, address: SocketAddr, setting: &'static str) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse(address, setting),
        _ => ListenError::Other(address, setting, error),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::{Instant, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn bound() -> (SocketAddr, Listeners, Answers) {
        let listen = Listen { address: SocketAddr::from(([127, 0, 0, 1], 0)), ops_address: None };
        let listeners = Listeners::bind(&listen, None).await.expect("a port");
        let (health, closing) = (Health::new(), CancellationToken::new());
        let edge = Edge { draining: health.draining(), ..Edge::default() };
        let metrics = process::prometheus::recorder().expect("metrics");
        let answers = Answers { api: Api::default(), edge, health, metrics, closing };
        (listeners.api.address().expect("an address"), listeners, answers)
    }

    async fn is_ready(address: SocketAddr) -> io::Result<bool> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    }

    #[tokio::test]
    async fn who_is_told_to_stop_still_answers_that_it_is_not_ready() {
        let (address, listeners, answers) = bound().await;
        let stop = CancellationToken::new();
        let asking = async {
            assert!(is_ready(address).await.expect("an answer"));
            stop.cancel();
            let began = Instant::now();
            while is_ready(address).await.expect("an answer") {
                assert!(began.elapsed() < LONG, "still ready");
            }
        };
        tokio::select! {
            ended = listeners.answer::<io::Error>(answers, &stop, 10 * LONG, pending()) => panic!("{ended:?}"),
            () = asking => {}
        }
    }

    #[tokio::test]
    async fn it_ends_when_it_is_told_to_and_when_something_dies() {
        let stopped = CancellationToken::new();
        stopped.cancel();
        let (address, listeners, answers) = bound().await;
        let answering = listeners.answer::<io::Error>(answers, &stopped, Duration::ZERO, pending());
        timeout(LONG, answering).await.expect("it ends").expect("in good order");
        assert!(is_ready(address).await.is_err(), "nobody listens any more");

        let stop = CancellationToken::new();
        let (_, listeners, answers) = bound().await;
        let closing = answers.closing.clone();
        let died = async { io::Error::other("the projector") };
        let answering = listeners.answer(answers, &stop, 10 * LONG, died);
        let error = timeout(LONG, answering).await.expect("it ends").expect_err("it died");
        assert_eq!((error.to_string().as_str(), closing.is_cancelled()), ("the projector", true));
    }

    #[test]
    fn flags_win_over_variables() {
        let mut source = Source::from_pairs([("PRIMETRADE_LISTEN", "0.0.0.0:1")]);
        assert_eq!(Listen::read(&source).expect("good").address.port(), 1);
        source.set("PRIMETRADE_LISTEN", "localhost:2");
        assert_eq!(Listen::read(&source).expect("good").address.to_string(), "127.0.0.1:2");
    }
}
