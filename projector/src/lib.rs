//! Folds the log into the read models: while events come, and from the beginning into a new generation.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// What an event makes of a task's row. Pure.
pub mod fold;

/// The words by which a task is found.
pub mod words;

/// What is made of the fold: each of the read models in a file of its own.
mod projections;

/// One batch of events into one generation, in one transaction.
mod batch;

/// How far a feed is read, and where owners stand: moved first, and only by whose turn it is.
mod fence;

/// Puts events aside that cannot be applied, and those that come after them in their stream.
mod park;

/// Tries parked events again.
mod parked;

/// The live projection: follows the log, out of the store or out of Kafka.
pub mod feed;

/// Where owners stand, written to Redis after each commit.
pub mod redis;

/// How far the live projection is behind the log.
pub mod lag;

/// Fills a generation in bulk: reads streams, folds, COPYs.
mod bulk;

/// The binary form of COPY.
mod copy;

/// A new generation beside the live one, compared and switched to.
pub mod rebuild;

/// How two generations differ.
pub mod differences;

/// Finds the differences, in one snapshot.
mod compare;

/// `/api/v1/admin/projections`, `/api/v1/admin/parked`.
pub mod admin;

mod connection;

use backends::database::Pool;
use sqlx::migrate::{MigrateError, Migrator};

pub use admin::{AdminApi, described, router};
pub use batch::Applied;
pub use feed::{Foreign, Partitions, Projector, StartError, forget_offsets};
pub use fence::OwnerStanding;
pub use rebuild::{RebuildError, RebuildReport};

/// Creates or upgrades the schema `read_model`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    migrator().run(&mut *pool.acquire().await?).await
}

/// The migrations of the schema `read_model` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/read-model");
    migrator.create_schema("read_model");
    migrator.dangerous_set_table_name("read_model._migrations");
    migrator
}
