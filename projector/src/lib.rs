//! Folds the log into the read models: while events come, and from the beginning into a new generation.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The live projection: follows the log, out of the store or out of Kafka.
pub mod feed;

/// One batch of events into one generation, in one transaction.
mod batch;

/// How far a feed has been read, stored with each batch.
mod feed_position;

/// Which process may write.
mod fence;

/// The position up to which a generation has everything of a shard.
mod checkpoint;

/// The version of each owner.
mod owners;

/// The read models, each in a file of its own.
mod projections;

/// Rows as columns.
mod columns;

/// Events that could not be applied.
mod parking;

/// Owner versions, written to Redis after each commit.
pub mod redis;

/// How far the live projection is behind the log.
pub mod lag;

/// Whether the read models are made from the log as it is now.
mod divergence;

/// A new generation beside the live one, compared and switched to.
pub mod rebuild;

/// The binary form of COPY.
mod copy;

/// How two generations differ.
pub mod differences;

/// What the tables say of the projection.
mod status;

/// `/api/v1/admin/projections`, `/api/v1/admin/parked`.
pub mod admin;

/// The projector's own connections.
mod connection;

pub use admin::{AdminApi, described, router};
pub use batch::Applied;
pub use divergence::{Diverged, Lost, known_positions, lost};
pub use feed::{Foreign, Partitions, Projector, StartError, forget_offsets};
pub use rebuild::{RebuildError, RebuildReport};
