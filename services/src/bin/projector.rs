//! `projector`: the log into the read models, and the admin endpoints. As many copies as there is need for.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use access::installation::Log;
use access::token::Sealer;
use backends::database::{self, Use};
use event_store::TailReader;
use kafka::KafkaSettings;
use process::health::Check;
use projector::{AdminApi, Partitions, Projector};
use service::{Built, DEPENDENCY_WAIT, StartError, Starting};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8083;
/// How long it is not ready for want of partitions.
const SHARE_WAIT_MS_MAX: u64 = 10_000;
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
    event_store::schema().wait(&log, DEPENDENCY_WAIT).await?;
    read_model::schema().wait(&read, DEPENDENCY_WAIT).await?;

    let tail = TailReader::new(log.clone(), None);
    let stop = starting.background.stop.clone();
    let kafka = KafkaSettings::read(&starting.source)?;
    let topic = kafka.as_ref().map(|settings| settings.topic.clone());
    let projector = match kafka {
        Some(settings) => {
            let owner_versions = starting.redis.clone().map(|redis| {
                let (owner_versions, writing) = projector::redis::start(redis, stop.clone());
                starting.background.spawn("owner versions to Redis", async {
                    if let Err(error) = writing.await {
                        tracing::error!(%error, "the writer of owner versions has died");
                    }
                });
                owner_versions
            });
            Projector::start_from_kafka(read.clone(), tail.clone(), kafka::subscription(settings), owner_versions, stop)
                .await?
        }
        None => {
            tracing::warn!(
                "without PRIMETRADE_KAFKA_BROKERS the log is read from the event store, and Redis is not written"
            );
            Projector::start(read.clone(), tail.clone(), stop).await?
        }
    };
    let (partitions, foreign) = (projector.partitions(), projector.foreign());
    projector.show_in(&starting.health);
    starting.background.spawn("projector", projector.stopped());

    let verifier = starting.remote_verifier(&read, Log::Known(tail.log_id().await?)).await?;
    let admin = AdminApi::new(read.clone(), tail, Sealer::new(&starting.secret));
    starting.health.register("event_store", move || database::check(log.clone()));
    starting.health.register("read_models", move || database::check(read.clone()));
    if let Some(topic) = topic {
        let started = Instant::now();
        starting.health.register("partitions", move || {
            std::future::ready(partitions_check(&partitions.borrow(), started.elapsed()))
        });
        starting.health.register("topic", move || std::future::ready(foreign.borrow().check(&topic)));
    }
    Ok(Built { api: projector::router(admin).into(), verifier })
}

/// Not ready before the group has given it its share: a rolling start would leave partitions without a copy. Kafka may be
/// away for longer than a start may take.
fn partitions_check(partitions: &Partitions, since_start: Duration) -> Check {
    let Partitions { share, troubles } = partitions;
    match share {
        _ if !troubles.is_empty() => Check::failed(troubles.values().cloned().collect::<Vec<_>>().join("; ")),
        Some(share) => Check::ok(format!("{share} of the topic's partitions are this copy's; none stopped")),
        None if since_start < Duration::from_millis(SHARE_WAIT_MS_MAX) => {
            Check::failed("waits for its share of the topic's partitions")
        }
        None => Check::degraded(
            "has no share of the topic's partitions and applies nothing: Kafka does not answer, or the topic is not there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use process::health::CheckState::{Degraded, Failed, Ok};

    use super::*;

    #[test]
    fn a_copy_is_ready_once_it_has_its_share() {
        let stopped = BTreeMap::from([(3, "partition 3 lacks messages".to_owned())]);
        for (share, troubles, since_ms, state, said) in [
            (None, BTreeMap::new(), 100, Failed, "waits for its share"),
            (None, BTreeMap::new(), SHARE_WAIT_MS_MAX, Degraded, "Kafka does not answer"),
            (Some(0), BTreeMap::new(), 100, Ok, "0 of the topic's"),
            (Some(6), BTreeMap::new(), 100, Ok, "6 of the topic's"),
            (Some(6), stopped, 100, Failed, "partition 3 lacks"),
        ] {
            let check = partitions_check(&Partitions { share, troubles }, Duration::from_millis(since_ms));
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.detail.contains(said), "{check:?}");
        }
    }
}
