use event_store::lease::LeaseError;
use kafka::KafkaError;
use kafka::topic::TopicError;

/// How long no message at all may be acknowledged, while some wait for it.
pub(crate) const ACKNOWLEDGED_MS_MAX: u64 = 10_000;

/// Why a term ended before it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    EventStore(#[from] LeaseError),
    #[error("the lease was lost")]
    LeaseLost,
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("no message was acknowledged within {} s", ACKNOWLEDGED_MS_MAX / 1_000)]
    NotAcknowledged,
    #[error("the log has a hole: shard {shard} has no event at position {position}, but some after it")]
    Hole { shard: i16, position: i64 },
}
