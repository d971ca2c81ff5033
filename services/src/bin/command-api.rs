//! `command-api`: commands and accounts over HTTP, events into the store. As many copies as there is need for.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use access::installation::Log;
use access::token::Sealer;
use backends::database::{self, Pool, Use};
use command_api::CommandApi;
use event_store::{EventStore, Known, TailReader};
use http_api::documents;
use http_api::edge::cors;
use identity::{Identity, Ledger, LogBeside};
use jobs::{AccountRecords, Files, Jobs};
use kafka::KafkaSettings;
use kafka::known::Sought;
use process::health::{Check, Health, Lag};
use relay::{Relay, RelayLag};
use service::{Built, DEPENDENCY_WAIT, StartError, Starting};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// As for `primetrade serve`: a command makes and frees some forty small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8081;
const WRITE_CONNECTIONS_MAX: u32 = 12;
/// Exports read by them.
const JOB_CONNECTIONS_MAX: u32 = 4;
/// Only ended sessions and jobs are written there.
const READ_CONNECTIONS_MAX: u32 = 2;
/// For the read models to say which log they are of.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    service::run("command-api", PORT, async |starting| build(starting).await)
}

async fn build(starting: &mut Starting) -> Result<Built, StartError> {
    let urls = starting.databases.clone();
    let write =
        starting.connect("PRIMETRADE_DATABASE_URL", urls.write.as_ref(), Use::Write, WRITE_CONNECTIONS_MAX).await?;
    let read =
        starting.connect("PRIMETRADE_READ_DATABASE_URL", urls.read.as_ref(), Use::Write, READ_CONNECTIONS_MAX).await?;
    event_store::schema().wait(&write, DEPENDENCY_WAIT).await?;
    identity::schema().wait(&write, DEPENDENCY_WAIT).await?;
    jobs::schema().wait(&write, DEPENDENCY_WAIT).await?;

    let kafka = KafkaSettings::read(&starting.source)?;
    let known = {
        let (write, read, kafka) = (write.clone(), read.clone(), kafka.clone());
        move |log_id| known_positions(write.clone(), read.clone(), kafka.clone(), log_id)
    };
    let store = EventStore::open(write.clone(), known, &mut starting.background, &starting.health).await?;
    let identity = Identity::open(
        write.clone(),
        read.clone(),
        &starting.secret,
        LogBeside { id: store.log_id(), shards: store.shards(), disk_space: store.disk_space() },
        &mut starting.background,
        &starting.health,
    )
    .await?;
    let stop = starting.background.stop.clone();
    starting.background.spawn("look-out for another log", same_log(store.clone(), stop.clone()));
    if let Some(path) = starting.source.text("PRIMETRADE_SECURITY_LEDGER")? {
        starting.background.spawn("ledger", Ledger::new(path.into()).keep(write.clone(), stop.clone()));
    }
    let publishing = identity.publish_ended_sessions(read.clone(), stop.clone());
    starting.background.spawn("publication of ended sessions", publishing);
    match kafka {
        Some(settings) => {
            let relay = Relay::start(store.publication(), settings, stop).await?;
            show(relay.lag(), &starting.health);
            starting.background.spawn("relay", relay.stopped());
        }
        None => tracing::warn!("without PRIMETRADE_KAFKA_BROKERS this copy publishes nothing"),
    }

    starting.health.register("event_store", {
        let write = write.clone();
        move || database::check(write.clone())
    });
    starting.health.register("read_models", {
        let (read, ours) = (read.clone(), store.log_id());
        move || of_this_log(read.clone(), ours)
    });
    let verifier = identity.verifier();
    let files = Files::read(&starting.source)?;
    let in_index_order = write.address().clone().with(event_store::tail::IN_INDEX_ORDER);
    let commands = CommandApi::new(store, Sealer::new(&starting.secret), Jobs::new(write), files);
    let account = AccountRecords {
        profile: Arc::new(accounts_api::records::profile(&identity)),
        audit: Arc::new(accounts_api::records::audit(&identity)),
    };
    commands.work_in(&mut starting.background, database::pool(JOB_CONNECTIONS_MAX, in_index_order), read, account);
    let api = command_api::router(commands)
        .merge(accounts_api::router(identity, starting.redis.clone(), &cors::origins(&starting.source)?))
        .merge(documents::router());
    Ok(Built { api, verifier })
}

/// Whether the read models are of this log. Commands do without them, but sessions that have ended are told there.
async fn of_this_log(read: Pool, ours: Uuid) -> Check {
    match database::in_time(LOG_TIME_MAX, Log::OfReadModels(read).id()).await {
        Ok(Some(theirs)) if theirs != ours => Check::degraded(format!(
            "they are of another log ({theirs}), that of this service is {ours}. Correct PRIMETRADE_READ_DATABASE_URL; \
             after a restore, primetrade restore-finish makes them anew"
        )),
        Ok(_) => Check::ok("of this log, or of none yet"),
        Err(_) => Check::degraded("their database does not answer: sessions that end are told there once it does"),
    }
}

/// Which events others have seen: the read models, and whoever reads the topic.
async fn known_positions(write: Pool, read: Pool, kafka: Option<KafkaSettings>, log_id: Uuid) -> Known {
    let tail = TailReader::new(write, None);
    let read_models = projector::known_positions(&read, log_id).await;
    let mut known = read_models.map_err(|error| format!("the read models: {error}"))?;
    let published = tail.published().await.map_err(|error| error.to_string())?;
    let heads = tail.heads().await.map_err(|error| error.to_string())?;
    match (kafka, published.first()) {
        (Some(settings), published) => {
            let sought = Sought {
                log_id,
                shards: heads.into_iter().map(|(shard, _)| shard).collect(),
                publication: published.map_or(1, |published| published.publication),
            };
            let in_kafka = kafka::known::known_positions(settings, sought).await;
            known.extend(in_kafka.map_err(|error| error.to_string())?);
        }
        (None, Some(published)) => {
            return Err(format!("it was published to {}, and PRIMETRADE_KAFKA_BROKERS is not set", published.topic));
        }
        (None, None) => {}
    }
    Ok(known)
}

/// Ends early where the log is another one now: tokens and messages would name the old one.
async fn same_log(store: EventStore, stop: CancellationToken) {
    let tail = store.tail();
    tokio::select! {
        () = tail.replaced(store.log_id()) => {}
        () = stop.cancelled() => {}
    }
}

fn show(relay: watch::Receiver<RelayLag>, health: &Health) {
    let lag = relay.clone();
    health.register("relay", move || std::future::ready(relay.borrow().check()));
    health.lag(move || {
        let RelayLag { events, seconds, .. } = *lag.borrow();
        std::future::ready(Lag { events, seconds })
    });
}
