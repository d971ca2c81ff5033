//! `primetrade serve`: everything in one process, built from top to bottom.

use std::io;
use std::time::Duration;

use access::token::{RootSecret, Sealer};
use backends::database::{Address, Pool};
use command_api::{CommandApi, shown_text};
use event_store::{DiskSpace, EventStore, TailReader};
use futures_util::FutureExt;
use http_api::edge::EdgeSettings;
use http_api::{Api, documents};
use identity::Identity;
use jobs::{Files, Jobs};
use process::background::{Background, Died, all_of};
use process::health::Health;
use process::prometheus::{self, MetricsError};
use projector::{AdminApi, Projector};
use query_api::{QueryApi, Replica, Sources};
use service::{Built, Ending, Listeners, Serving};
use tokio_util::sync::CancellationToken;

use crate::database::Databases;
use crate::postgres::{ManagedPostgres, PostgresError};

const QUERY_CONNECTIONS_MAX: u32 = 16;
const ENDING: Ending = Ending { lame_duck: Duration::ZERO, background_time_max: Duration::from_millis(2_500) };

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
    /// A background task.
    #[error(transparent)]
    Died(#[from] Died),
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
    files: Files,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let sealer = Sealer::new(secret);
    let metrics = prometheus::recorder()?;
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
    let verifier = identity.verifier();
    let collecting = identity.collect_admin_acts(databases.read.clone(), stop.clone());
    let applied = projector.as_ref().map(Projector::applied);
    let jobs = Jobs::new(databases.write.clone());
    let commands = CommandApi::new(store.clone(), sealer.clone(), jobs.clone(), Some(files));
    if let Some(worker) = commands.worker(TailReader::new(databases.in_index_order(), None)) {
        background.spawn("publication of jobs", jobs.publish(databases.read.clone(), shown_text, stop.clone()));
        background.spawn("worker on jobs", worker.run(stop.clone()));
    }
    let api = Api::default()
        .merge(command_api::router(commands))
        .merge(accounts_api::router(identity, None, &edge.cors_origins))
        .merge(query_api::router(QueryApi::new(sources.clone(), sealer.clone(), applied, closing.clone())))
        .merge(projector::router(AdminApi::new(databases.read.clone(), store.tail(), sealer)))
        .merge(documents::router());
    let built = Built { api, verifier };

    background.spawn("event store's appender", all_of(appenders, stop.clone()));
    background.spawn("watch over keys and sessions", identity_task.map(drop));
    background.spawn("collection of admins' acts", collecting);
    if let Some(projector) = projector {
        background.spawn("projector", projector.stopped());
    }
    let serving = Serving { edge, secret: secret.clone(), redis: None, health, metrics, background, closing };
    // the appenders end when nobody can ask them any more
    drop(store);
    let outcome =
        serving.answer(listeners, built, &shutdown, ENDING, postgres_failed(databases.managed(), &disk_space)).await;
    sources.close().await;
    outcome
}

/// Returns when the managed Postgres, if there is one, is beyond help.
async fn postgres_failed(managed: Option<&ManagedPostgres>, disk_space: &DiskSpace) -> ServeError {
    match managed {
        Some(managed) => tokio::select! {
            error = managed.watch() => error.into(),
            never = managed.watch_disk(disk_space) => match never {},
        },
        None => std::future::pending().await,
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
