//! `command-api`: commands and accounts over HTTP, events into the store. As many copies as there is need for.

use std::process::ExitCode;

use access::token::Sealer;
use backends::database::{self, Use, await_schema};
use command_api::{CommandApi, shown_text};
use event_store::{EventStore, TailReader};
use futures_util::FutureExt;
use http_api::documents;
use http_api::edge::cors;
use identity::Identity;
use jobs::{Files, Jobs};
use kafka::KafkaSettings;
use process::background::all_of;
use process::health::{Health, Lag};
use relay::{Relay, RelayLag};
use service::{Built, DEPENDENCY_WAIT, StartError, Starting};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// As for `primetrade serve`: a command makes and frees some forty small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8081;
const WRITE_CONNECTIONS_MAX: u32 = 12;
/// Exports read by them.
const JOB_CONNECTIONS_MAX: u32 = 4;
/// Only ended sessions and jobs are written there.
const READ_CONNECTIONS_MAX: u32 = 2;

fn main() -> ExitCode {
    service::run("command-api", PORT, async |starting| build(starting).await)
}

async fn build(starting: &mut Starting) -> Result<Built, StartError> {
    let urls = starting.databases.clone();
    let write =
        starting.connect("PRIMETRADE_DATABASE_URL", urls.write.as_ref(), Use::Write, WRITE_CONNECTIONS_MAX).await?;
    let read =
        starting.connect("PRIMETRADE_READ_DATABASE_URL", urls.read.as_ref(), Use::Write, READ_CONNECTIONS_MAX).await?;
    await_schema(&write, "event_store", &event_store::migrator(), DEPENDENCY_WAIT).await?;
    await_schema(&write, "identity", &identity::migrator(), DEPENDENCY_WAIT).await?;
    await_schema(&write, "jobs", &jobs::migrator(), DEPENDENCY_WAIT).await?;

    let (store, appenders) = EventStore::start(write.clone()).await?;
    let stop = starting.background.stop.clone();
    let (identity, watching) =
        Identity::start(write.clone(), &starting.secret, store.log_id(), store.shards(), stop.clone()).await?;
    starting.background.spawn("event store's appender", all_of(appenders, stop.clone()));
    starting.background.spawn("look-out for another log", same_log(store.clone(), stop.clone()));
    starting.background.spawn("watch over keys and sessions", watching.map(drop));
    let publishing = identity.publish_ended_sessions(read.clone(), stop.clone());
    starting.background.spawn("publication of ended sessions", publishing);
    starting.background.spawn("collection of admins' acts", identity.collect_admin_acts(read.clone(), stop.clone()));
    match KafkaSettings::read(&starting.source)? {
        Some(settings) => {
            let relay = Relay::start(store.publication(), settings, stop.clone()).await?;
            show(relay.lag(), &starting.health);
            starting.background.spawn("relay", relay.stopped());
        }
        None => tracing::warn!("without PRIMETRADE_KAFKA_BROKERS this copy publishes nothing"),
    }

    let disk_space = store.disk_space();
    starting.health.register("disk", move || std::future::ready(command_api::disk(&disk_space)));
    starting.health.register("event_store", {
        let write = write.clone();
        move || database::check(write.clone())
    });
    let sessions = identity.clone();
    starting.health.register("sessions", move || std::future::ready(sessions.check()));
    let verifier = identity.verifier();
    let files = Files::read(&starting.source)?;
    let in_index_order = write.address().clone().with(event_store::tail::IN_INDEX_ORDER);
    let jobs = Jobs::new(write);
    let commands = CommandApi::new(store, Sealer::new(&starting.secret), jobs.clone(), files);
    let reads = database::pool(JOB_CONNECTIONS_MAX, in_index_order);
    match commands.worker(TailReader::new(reads, None)) {
        Some(worker) => {
            starting.background.spawn("publication of jobs", jobs.publish(read, shown_text, stop.clone()));
            starting.background.spawn("worker on jobs", worker.run(stop));
        }
        None => tracing::warn!("without PRIMETRADE_OBJECT_STORE_URL there are no imports and exports"),
    }
    let api = command_api::router(commands)
        .merge(accounts_api::router(identity, starting.redis.clone(), &cors::origins(&starting.source)?))
        .merge(documents::router());
    Ok(Built { api, verifier })
}

/// Ends early where the log is another one now: tokens and messages would name the old one.
async fn same_log(store: EventStore, stop: CancellationToken) {
    let tail = store.tail();
    tokio::select! {
        () = tail.exchanged(store.log_id()) => {}
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
