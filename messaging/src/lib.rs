//! Kafka: what a message looks like, how it is sent and how it is received. Knows no SQL.

/// Brokers, topic, TLS and SASL.
pub mod settings;

/// An event as a message: CloudEvents 1.0 in Kafka binary mode.
pub mod message;

/// Which partition an owner's events are in.
pub mod partition;

/// The topic, made where it is missing.
pub mod topic;

/// Sends many messages at once and tells when they are on the brokers.
pub mod producer;

/// Receives messages, with offsets that somebody else keeps.
pub mod consumer;

mod log;

pub use rdkafka::error::KafkaError;

pub use crate::settings::KafkaSettings;
pub use message::{Message, Unreadable};
pub use partition::partition_of;
