//! The client of Kafka: where the brokers are, the topic, how messages are sent and received. Knows no SQL.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

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

/// Up to which position the brokers have a log.
pub mod known;

/// What the brokers have of a log beyond its head.
pub mod tail;

/// Records of a range of a partition.
mod scan;

mod log;

pub use rdkafka::error::KafkaError;

pub use consumer::subscription;
pub use scan::ScanError;
pub use settings::KafkaSettings;
