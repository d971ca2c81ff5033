//! An event as a message, which partition it is in, and what comes out of a topic. Knows neither SQL nor a client of Kafka:
//! that is the crate `kafka`.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// An event as a message: CloudEvents 1.0 in Kafka binary mode.
pub mod message;

/// Which partition an owner's events are in.
pub mod partition;

/// What comes out of a topic, with offsets that somebody else keeps.
pub mod consumer;

pub use consumer::{Consumer, Received, Session, Subscription};
pub use message::{Message, Unreadable};
pub use partition::partition_of;
