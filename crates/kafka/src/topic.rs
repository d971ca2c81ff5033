//! The topic, made where it is missing.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::info;

use crate::KafkaSettings;
use crate::log::Thinned;

/// How long the brokers have for one answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;

/// The topic is not there, or not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No answer, or a refusal.
    #[error("the topic {topic} cannot be looked at or made: {source}")]
    Kafka {
        /// The topic.
        topic: String,
        /// What the client said.
        source: KafkaError,
    },
    /// The brokers did not make it.
    #[error("the brokers did not make the topic {topic}: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// Their answer.
        code: RDKafkaErrorCode,
    },
    /// It was made with another number of partitions: owners would change theirs, and lose the order of their events.
    #[error(
        "the topic {topic} has {found} partitions, not {expected}: set PRIMETRADE_KAFKA_PARTITIONS={found}, or name \
         another topic (PRIMETRADE_KAFKA_TOPIC) and fill it with `primetrade republish --from 1`"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it was to have.
        expected: i32,
    },
}

/// Makes the topic where it is missing; looks at the partitions of one that is there.
///
/// # Errors
/// No answer within seconds, a refusal, or another number of partitions.
pub async fn ensure(settings: &KafkaSettings) -> Result<(), TopicError> {
    let topic = settings.topic.clone();
    let failed = |source| TopicError::Kafka { topic: topic.clone(), source };
    let admin: AdminClient<Thinned> = settings.client_config().create_with_context(Thinned).map_err(failed)?;
    let wait = Duration::from_millis(ANSWER_MS_MAX);
    // All topics are asked for: a broker may make the one that it is asked for, in its own way.
    let metadata = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, wait);
        (admin, metadata)
    });
    let (admin, metadata) = metadata.await.map_err(|_| failed(KafkaError::Canceled))?;
    let metadata = metadata.map_err(failed)?;
    if let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) {
        let found = found.partitions().len();
        if usize::try_from(settings.partitions) != Ok(found) {
            return Err(TopicError::Partitions { topic, found, expected: settings.partitions });
        }
        return Ok(());
    }
    let in_sync = settings.min_insync_replicas.to_string();
    let new = NewTopic::new(&topic, settings.partitions, TopicReplication::Fixed(settings.replication))
        .set("min.insync.replicas", &in_sync)
        .set("cleanup.policy", "delete");
    let options = AdminOptions::new().operation_timeout(Some(wait)).request_timeout(Some(wait));
    let made = admin.create_topics([&new], &options).await.map_err(failed)?;
    for result in made {
        match result {
            Ok(_) => info!(topic, partitions = settings.partitions, "made the topic"),
            // another copy was quicker
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicError::Refused { topic, code }),
        }
    }
    Ok(())
}
