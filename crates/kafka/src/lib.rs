//! The client of Kafka: where the brokers are, the topic, how messages are sent and received. Knows no SQL.

/// Brokers, topic, TLS and SASL.
pub mod settings;

/// The topic, made where it is missing.
pub mod topic;

/// A message as a record of Kafka.
pub mod record;

/// Sends many messages at once and tells when they are on the brokers.
pub mod producer;

/// Receives messages, with offsets that somebody else keeps.
pub mod consumer;

mod log;

pub use rdkafka::error::KafkaError;

pub use consumer::subscription;
pub use settings::KafkaSettings;
