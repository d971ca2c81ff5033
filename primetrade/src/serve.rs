//! `primetrade serve`: everything in one process, built from top to bottom.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use command_api::CommandApi;
use event_store::EventStore;
use futures_util::FutureExt;
use identity::Identity;
use projector::{AdminApi, Projector};
use query_api::{QueryApi, Replica, Sources};
use service_kit::documents;
use service_kit::health::{self, Check, Health, Lag};
use service_kit::server::{self, Door, EdgeSettings, Tls};
use service_kit::service::{Background, all_of};
use service_kit::telemetry::{self, TelemetryError};
use service_kit::token::{RootSecret, Sealer};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::database::Databases;
use crate::postgres::{PostgresError, Private};

const QUERY_CONNECTIONS_MAX: u32 = 16;
/// How long background tasks may take to write what is under way, once nobody asks any more.
const BACKGROUND_STOP_MS_MAX: u64 = 2_500;

/// Why the server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {0}: the port is in use. Stop the program that listens there, or choose another port ({1})"
    )]
    PortInUse(SocketAddr, &'static str),
    /// The address is not ours, or not allowed.
    #[error("cannot listen on {0}: {2}. Choose another address ({1})")]
    Listen(SocketAddr, &'static str, io::Error),
    /// Keys and accounts.
    #[error(transparent)]
    Identity(#[from] identity::StartError),
    /// The log.
    #[error("the event store cannot be read: {0}")]
    EventStore(sqlx::Error),
    /// The read models.
    #[error(transparent)]
    Projector(#[from] projector::StartError),
    /// Metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The private Postgres is beyond help.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Something that should run as long as the process has ended.
    #[error("the {0} ended, which it should not; see the log. The process ends, so that it can be started again")]
    Died(&'static str),
    /// The listener failed.
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}

/// Where it listens.
pub struct Listeners {
    /// The API.
    pub api: Door,
    /// livez, readyz and metrics, if they are apart.
    pub ops: Option<TcpListener>,
}

impl Listeners {
    /// Takes the ports, before anything costly is begun.
    ///
    /// # Errors
    /// They are taken already, or cannot be.
    pub async fn bind(listen: &service_kit::config::Listen, tls: Option<Tls>) -> Result<Self, ServeError> {
        let ops = match listen.ops_address {
            Some(address) => Some(bind(address, "PRIMETRADE_OPS_LISTEN").await?),
            None => None,
        };
        let api = bind(listen.address, "--listen or PRIMETRADE_LISTEN").await?;
        Ok(Self { api: Door::new(api, tls), ops })
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortInUse(address, setting),
        _ => ServeError::Listen(address, setting, error),
    })
}

/// Whether events are applied to the read models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projecting {
    /// As they come.
    Live,
    /// Not at all, for a measurement: they wait in the log.
    Held,
}

/// Runs until `shutdown`, then answers what was begun and stops.
///
/// # Errors
/// A part cannot start, or ends before it should.
pub async fn run(
    listeners: Listeners,
    databases: &Databases,
    secret: &RootSecret,
    edge: EdgeSettings,
    projecting: Projecting,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let sealer = Sealer::new(secret);
    let mut background = Background::default();
    let stop = background.stop.clone();
    let (store, appenders) = EventStore::start(databases.write.clone()).await.map_err(ServeError::EventStore)?;
    let (identity, identity_task) =
        Identity::start(databases.write.clone(), secret, store.shards(), stop.clone()).await?;
    let projector = match projecting {
        Projecting::Live => Some(Projector::start(databases.read.clone(), store.tail(), stop.clone()).await?),
        Projecting::Held => None,
    };
    let queries = |options: &PgConnectOptions| query_api::connect(options.clone(), QUERY_CONNECTIONS_MAX);
    let sources = Sources {
        primary: queries(&databases.read.connect_options()),
        replica: databases.replica.as_ref().map(queries).map(Replica::new),
        redis: None,
    };

    let health = watched(databases, projector.as_ref());
    let sessions = identity.clone();
    health.register("sessions", move || std::future::ready(sessions.check()));
    let proxies = edge.proxies.clone();
    let edge = edge.edge(identity.verifier(), secret, health.draining());
    let ops = health::router(health, Some(telemetry::metrics()?));
    let collecting = identity.collect_admin_acts(databases.read.clone(), stop.clone());
    let applied = projector.as_ref().map(Projector::applied);
    let api = axum::Router::new()
        .merge(command_api::router(CommandApi::new(store.clone(), sealer.clone())))
        .merge(command_api::accounts::router(identity, None))
        .merge(query_api::router(QueryApi::new(sources.clone(), sealer.clone(), applied, shutdown.clone())))
        .merge(projector::router(AdminApi::new(databases.read.clone(), store.tail(), sealer)))
        .merge(documents::router());
    let (api, ops) = match &listeners.ops {
        Some(_) => (server::edge(api, edge.clone()), Some(server::edge(ops, edge))),
        None => (server::edge(api.merge(ops), edge), None),
    };

    background.spawn("event store's appender", all_of(appenders, stop.clone()));
    background.spawn("watch over keys and sessions", identity_task.map(drop));
    background.spawn("collection of admins' acts", collecting);
    if let Some(projector) = projector {
        background.spawn("projector", projector.stopped());
    }
    tracing::info!(address = %listeners.api.address()?, "PrimeTrade answers");
    let serving = async {
        let api = server::serve(listeners.api.behind(proxies), api, shutdown.clone());
        match listeners.ops.zip(ops) {
            Some((listener, router)) => {
                tokio::try_join!(api, server::serve(listener, router, shutdown.clone())).map(drop)
            }
            None => api.await,
        }
    };
    let outcome = {
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => served.map_err(ServeError::Server),
            died = first_to_die(&mut background, databases.private()) => {
                tracing::error!(%died, "stopping");
                shutdown.cancel();
                let _ = serving.await;
                Err(died)
            }
        }
    };
    tracing::info!("stopping");
    // Not before: the appenders end when nobody can ask them any more, and one of two listeners may be done first.
    drop(store);
    background.stop(Duration::from_millis(BACKGROUND_STOP_MS_MAX)).await;
    sources.close().await;
    outcome
}

/// Returns when a part has ended that should run as long as the process.
async fn first_to_die(background: &mut Background, private: Option<&Private>) -> ServeError {
    let postgres = async {
        match private {
            Some(private) => private.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        name = background.first_to_die() => ServeError::Died(name),
        error = postgres => ServeError::Postgres(error),
    }
}

fn watched(databases: &Databases, projector: Option<&Projector>) -> Health {
    let health = Health::new();
    let write = databases.write.clone();
    health.register("event_store", move || check_event_store(write.clone()));
    let read = databases.read.clone();
    health.register("read_models", move || check_read_models(read.clone()));
    if let Some(lag) = projector.map(Projector::lag) {
        health.lag(move || {
            let lag = lag.borrow().map(|projector::Lag { events, seconds }| Lag { events, seconds });
            std::future::ready(lag)
        });
    }
    health
}

async fn check_event_store(pool: PgPool) -> Check {
    let looked = sqlx::query_scalar!(r#"select count(*) as "count!" from event_store.head"#).fetch_one(&pool).await;
    answered(looked, "shards")
}

async fn check_read_models(pool: PgPool) -> Check {
    let looked = sqlx::query_scalar!(r#"select live_generation::bigint as "generation!" from read_model.projection"#);
    answered(looked.fetch_one(&pool).await, "is the live generation")
}

/// Anybody may read it: the error itself goes to the log.
fn answered(looked: Result<i64, sqlx::Error>, what: &str) -> Check {
    match looked {
        Ok(number) => Check::ok(format!("{number} {what}")),
        Err(error) => {
            tracing::warn!(%error, "a check failed");
            Check::failed("the database does not answer")
        }
    }
}
