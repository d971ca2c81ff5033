//! `primetrade serve`: everything in one process, built from top to bottom.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use access::token::{RootSecret, Sealer};
use backends::database::{DiskSpace, Pool};
use command_api::CommandApi;
use event_store::lineage::SettleError;
use event_store::{EventStore, Known, Lineage, TailReader};
use http_api::edge::EdgeSettings;
use http_api::{Api, documents};
use identity::{Identity, Ledger, LogBeside};
use jobs::{AccountRecords, Files, Jobs};
use process::background::{Background, Died};
use process::health::Health;
use process::prometheus::{self, MetricsError};
use projector::{AdminApi, Projector};
use query_api::{QueryApi, Sources};
use service::{Built, Ending, Listeners, Serving};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::Databases;
use crate::postgres::{ManagedPostgres, PostgresError};

const ENDING: Ending = Ending { drain_time: Duration::ZERO, background_time_max: Duration::from_millis(2_500) };

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

/// What is kept outside of the databases.
pub struct Kept {
    /// Of jobs.
    pub files: Files,
    /// What is done to accounts.
    pub ledger: Option<Ledger>,
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
    Kept { files, ledger }: Kept,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let sealer = Sealer::new(secret);
    let metrics = prometheus::recorder()?;
    let (health, mut background) = (Health::new(), Background::default());
    let (stop, closing) = (background.stop.clone(), CancellationToken::new());
    let known = {
        let (write, read) = (databases.write.clone(), databases.read.clone());
        move |log_id| known_positions(write.clone(), read.clone(), log_id)
    };
    let store = EventStore::open(databases.write.clone(), known, &mut background, &health).await;
    let store = store.map_err(ServeError::EventStore)?;
    let identity = Identity::open(
        databases.write.clone(),
        databases.read.clone(),
        secret,
        LogBeside { id: store.log_id(), shards: store.shards(), disk_space: store.disk_space() },
        &mut background,
        &health,
    )
    .await?;
    let projector = match projecting {
        Projecting::Live => Some(Projector::start(databases.read.clone(), store.tail(), stop.clone()).await?),
        Projecting::Held => None,
    };
    databases.write.show_as("write");
    databases.read.show_as("read");
    let sources = Sources::connect(databases.read.address().clone(), databases.replica.clone(), None);

    register(&health, databases, &sources.primary);
    let disk_space = store.disk_space();
    let verifier = identity.verifier();
    let applied = projector.as_ref().map(Projector::applied);
    let jobs = Jobs::new(databases.write.clone());
    let commands = CommandApi::new(store.clone(), sealer.clone(), jobs, Some(files));
    let account = AccountRecords {
        profile: Arc::new(accounts_api::records::profile(&identity)),
        audit: Arc::new(accounts_api::records::audit(&identity)),
    };
    commands.work_in(&mut background, databases.in_index_order(), databases.read.clone(), account);
    let api = Api::default()
        .merge(command_api::router(commands))
        .merge(accounts_api::router(identity, None, &edge.cors_origins))
        .merge(query_api::router(QueryApi::new(sources.clone(), sealer.clone(), applied, closing.clone())))
        .merge(query_api::dashboard::router())
        .merge(projector::router(AdminApi::new(databases.read.clone(), store.tail(), sealer)))
        .merge(documents::router());
    let built = Built { api, verifier };

    if let Some(ledger) = ledger {
        background.spawn("ledger", ledger.keep(databases.write.clone(), stop));
    }
    if let Some(projector) = projector {
        projector.show_in(&health);
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

/// Which events others have seen: the read models. Where the log was published, only `command-api` can ask Kafka.
async fn known_positions(write: Pool, read: Pool, log_id: Uuid) -> Known {
    let published = TailReader::new(write, None).published().await.map_err(|error| error.to_string())?;
    if let Some(published) = published.first() {
        return Err(format!("it was published to {} of Kafka, which command-api asks", published.topic));
    }
    projector::known_positions(&read, log_id).await.map_err(|error| format!("the read models: {error}"))
}

/// For a command that appends by itself: the log has to be where it was last written, or to lack nothing that others have
/// seen.
///
/// # Errors
/// It is not known whether it does.
pub async fn settle(databases: &Databases) -> Result<(), SettleError> {
    let known = |log_id| known_positions(databases.write.clone(), databases.read.clone(), log_id);
    Lineage::new(databases.write.clone()).settle(known).await?;
    Ok(())
}

/// Shows the databases in `/readyz`.
fn register(health: &Health, databases: &Databases, reads: &Pool) {
    for (name, pool) in [("event_store", &databases.write), ("read_models", reads)] {
        let pool = pool.clone();
        health.register(name, move || backends::database::check(pool.clone()));
    }
    if let Some(managed) = databases.managed() {
        let seen = managed.seen();
        health.register("postgres", move || std::future::ready(seen.borrow().clone()));
    }
}
