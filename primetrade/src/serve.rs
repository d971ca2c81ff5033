//! `primetrade serve`: everything in one process, built from top to bottom.

use std::io;
use std::time::Duration;

use access::token::{RootSecret, Sealer};
use backends::database::{Address, Pool};
use command_api::CommandApi;
use event_store::{DiskSpace, EventStore};
use futures_util::FutureExt;
use http_api::edge::EdgeSettings;
use http_api::{Api, documents};
use identity::Identity;
use process::background::{Background, all_of};
use process::health::Health;
use process::prometheus::{self, MetricsError};
use projector::{AdminApi, Projector};
use query_api::{QueryApi, Replica, Sources};
use service::{Answers, Listeners};
use tokio_util::sync::CancellationToken;

use crate::database::Databases;
use crate::postgres::{ManagedPostgres, PostgresError};

const QUERY_CONNECTIONS_MAX: u32 = 16;
/// How long background tasks may take to write what is under way, once nobody asks any more.
const BACKGROUND_STOP_MS_MAX: u64 = 2_500;

/// Why the server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
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
    Metrics(#[from] MetricsError),
    /// The managed PostgreSQL is beyond help.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Something that should run as long as the process has ended.
    #[error("the {0} ended, which it should not; see the log. The process ends, so that it can be started again")]
    Died(&'static str),
    /// The listener failed.
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
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
    let (stop, closing) = (background.stop.clone(), CancellationToken::new());
    let (store, appenders) = EventStore::start(databases.write.clone()).await.map_err(ServeError::EventStore)?;
    let (identity, identity_task) =
        Identity::start(databases.write.clone(), secret, store.log_id(), store.shards(), stop.clone()).await?;
    let projector = match projecting {
        Projecting::Live => Some(Projector::start(databases.read.clone(), store.tail(), stop.clone()).await?),
        Projecting::Held => None,
    };
    let queries = |address: &Address| query_api::connect(address.clone(), QUERY_CONNECTIONS_MAX);
    let sources = Sources {
        primary: queries(databases.read.address()),
        replica: databases.replica.as_ref().map(queries).map(Replica::new),
        redis: None,
    };

    let health = watched(databases, &sources.primary, projector.as_ref());
    let disk_space = store.disk_space();
    health.register("disk", {
        let disk_space = disk_space.clone();
        move || std::future::ready(command_api::disk(&disk_space))
    });
    let sessions = identity.clone();
    health.register("sessions", move || std::future::ready(sessions.check()));
    let edge = edge.edge(identity.verifier(), secret, health.draining());
    let collecting = identity.collect_admin_acts(databases.read.clone(), stop.clone());
    let applied = projector.as_ref().map(Projector::applied);
    let api = Api::default()
        .merge(command_api::router(CommandApi::new(store.clone(), sealer.clone())))
        .merge(accounts_api::router(identity, None))
        .merge(query_api::router(QueryApi::new(sources.clone(), sealer.clone(), applied, closing.clone())))
        .merge(projector::router(AdminApi::new(databases.read.clone(), store.tail(), sealer)))
        .merge(documents::router());
    let answers = Answers { api, edge, health, metrics: prometheus::recorder()?, closing };

    background.spawn("event store's appender", all_of(appenders, stop.clone()));
    background.spawn("watch over keys and sessions", identity_task.map(drop));
    background.spawn("collection of admins' acts", collecting);
    if let Some(projector) = projector {
        background.spawn("projector", projector.stopped());
    }
    let died = first_to_die(&mut background, databases.managed(), &disk_space);
    let outcome = listeners.answer(answers, &shutdown, Duration::ZERO, died).await;
    // Not before: the appenders end when nobody can ask them any more, and one of two listeners may be done first.
    drop(store);
    background.stop(Duration::from_millis(BACKGROUND_STOP_MS_MAX)).await;
    sources.close().await;
    outcome
}

/// Returns when a part has ended that should run as long as the process.
async fn first_to_die(
    background: &mut Background,
    managed: Option<&ManagedPostgres>,
    disk_space: &DiskSpace,
) -> ServeError {
    let postgres = async {
        match managed {
            Some(managed) => tokio::select! {
                error = managed.watch() => error,
                never = managed.watch_disk(disk_space) => match never {},
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        name = background.first_to_die() => ServeError::Died(name),
        error = postgres => ServeError::Postgres(error),
    }
}

fn watched(databases: &Databases, reads: &Pool, projector: Option<&Projector>) -> Health {
    let health = Health::new();
    for (name, pool) in [("event_store", &databases.write), ("read_models", reads)] {
        let pool = pool.clone();
        health.register(name, move || backends::database::check(pool.clone()));
    }
    if let Some(managed) = databases.managed() {
        let seen = managed.seen();
        health.register("postgres", move || std::future::ready(seen.borrow().clone()));
    }
    if let Some(lag) = projector.map(Projector::lag) {
        health.lag(move || std::future::ready(*lag.borrow()));
    }
    health
}
