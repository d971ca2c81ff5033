//! The ports of a process: taken at the start, answered at until it ends.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::Listen;
use crate::health::{self, Health};
use crate::server::{self, Door, Edge, Tls};

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
    api: Door,
    /// livez, readyz and metrics, if they are apart.
    ops: Option<TcpListener>,
}

/// What is answered there.
pub struct Answers {
    /// The routes, without those of operations.
    pub api: Router,
    /// What stands around all of them.
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
            Some(address) => Some(bind(address, "PRIMETRADE_OPS_LISTEN").await?),
            None => None,
        };
        let api = bind(listen.address, "--listen or PRIMETRADE_LISTEN").await?;
        Ok(Self { api: Door::new(api, tls), ops })
    }

    /// Answers until `stop`, and then for `lame_duck` longer, not ready any more; or until something has `died` that
    /// should not have. What is being answered then is waited for.
    ///
    /// # Errors
    /// What died, or the listener.
    pub async fn answer<E: Display + From<io::Error>>(
        self,
        Answers { api, edge, health, metrics, closing }: Answers,
        stop: &CancellationToken,
        lame_duck: Duration,
        died: impl Future<Output = E>,
    ) -> Result<(), E> {
        tracing::info!(address = %self.api.address()?, "answering");
        let door = self.api.behind(edge.proxies.clone());
        let ops = health::router(health.clone(), Some(metrics));
        let serving = async {
            let Some(listener) = self.ops else {
                return server::serve(door, server::edge(api.merge(ops), edge), closing.clone()).await;
            };
            let api = server::serve(door, server::edge(api, edge.clone()), closing.clone());
            let ops = server::serve(listener, server::edge(ops, edge), closing.clone());
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
                    () = sleep(lame_duck) => Ok(()),
                }
            }
        };
        closing.cancel();
        let served = serving.await;
        outcome.and(Ok(served?))
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse(address, setting),
        _ => ListenError::Other(address, setting, error),
    })
}
