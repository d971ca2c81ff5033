//! `projector`: the log into the read models, and the admin endpoints. As many copies as there is need for.

use std::process::ExitCode;

use event_store::TailReader;
use messaging::KafkaSettings;
use projector::{AdminApi, Projector};
use service_kit::database::{self, Use, await_schema};
use service_kit::health::Check;
use service_kit::service::{self, Built, DEPENDENCY_WAIT, StartError, Starting};
use service_kit::token::Sealer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8083;
const LOG_CONNECTIONS_MAX: u32 = 8;
const READ_CONNECTIONS_MAX: u32 = 16;

fn main() -> ExitCode {
    service::run("projector", PORT, async |starting| build(starting).await)
}

async fn build(starting: &mut Starting) -> Result<Built, StartError> {
    let urls = starting.databases.clone();
    let log = starting.connect("PRIMETRADE_DATABASE_URL", urls.write.as_ref(), Use::Write, LOG_CONNECTIONS_MAX).await?;
    let read =
        starting.connect("PRIMETRADE_READ_DATABASE_URL", urls.read.as_ref(), Use::Write, READ_CONNECTIONS_MAX).await?;
    await_schema(&log, "event_store", &event_store::migrator(), DEPENDENCY_WAIT).await?;
    await_schema(&read, "read_model", &projector::migrator(), DEPENDENCY_WAIT).await?;

    let tail = TailReader::new(log.clone(), None);
    let stop = starting.background.stop.clone();
    let projector = match KafkaSettings::read(&starting.source)? {
        Some(settings) => {
            let standings = starting.redis.clone().map(|redis| {
                let (standings, writing) = projector::redis::start(redis, stop.clone());
                starting.background.spawn("standings to Redis", async {
                    if let Err(error) = writing.await {
                        tracing::error!(%error, "the writer of standings has died");
                    }
                });
                standings
            });
            Projector::start_from_kafka(read.clone(), tail.clone(), settings, standings, stop).await?
        }
        None => {
            tracing::warn!(
                "without PRIMETRADE_KAFKA_BROKERS the log is read from the event store, and Redis is not written"
            );
            Projector::start(read.clone(), tail.clone(), stop).await?
        }
    };
    let (lag, troubles) = (projector.lag(), projector.troubles());
    starting.background.spawn("projector", projector.stopped());

    let verifier = starting.remote_verifier(&read).await?;
    let admin = AdminApi::new(read.clone(), tail, Sealer::new(&starting.secret));
    starting.health.register("event_store", move || database::check(log.clone()));
    starting.health.register("read_models", move || database::check(read.clone()));
    starting.health.register("partitions", move || {
        let troubles: Vec<String> = troubles.borrow().values().cloned().collect();
        std::future::ready(if troubles.is_empty() {
            Check::ok("none stopped")
        } else {
            Check::failed(troubles.join("; "))
        })
    });
    starting.health.lag(move || std::future::ready(*lag.borrow()));
    Ok(Built { api: projector::router(admin), verifier })
}
