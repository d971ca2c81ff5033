//! The log of events: the only code that writes it.

/// The event store: its queues, and who works them off.
mod store;

/// What is appended, and what comes of it.
pub mod append;

/// Group commit: the commands that wait while one batch commits become the next batch.
mod appender;

/// The units that are committed together.
mod batch;

/// A batch as flat arrays, one for each column.
mod columns;

/// The statements of an append.
mod insert;

/// What a command that succeeded did, as it is remembered.
mod effect;

/// Streams and outcomes of commands, looked up for many commands in one round trip.
pub mod lookup;

/// The log in order, for who follows it or reads it from the beginning.
pub mod tail;

/// How far the log is published, under a lease.
pub mod publication;

/// Whole answers of batches that were sent under an Idempotency-Key.
pub mod batch_answer;

/// What a change touched, and whether it is still being made.
pub mod change;

/// Whether the disk has room for more events.
pub mod disk_space;

/// Why the store does not answer.
mod unavailable;

/// A connection that one queue has for itself.
mod dedicated_connection;

use backends::database::Pool;
use sqlx::migrate::{MigrateError, Migrator};

pub use append::{AppendError, Appended, CommandOrigin, DecidedCommand, NewEvent, StreamAppend};
pub use batch_answer::BatchAnswer;
pub use dedicated_connection::is_about_values;
pub use disk_space::DiskSpace;
pub use effect::Effect;
pub use lookup::{Looked, Outcome};
pub use publication::Publication;
pub use store::{EventStore, QUEUE_MAX};
pub use tail::{Published, TailReader};
pub use unavailable::Unavailable;

/// Creates or upgrades the schema `event_store`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    migrator().run(&mut *pool.acquire().await?).await
}

/// The migrations of the schema `event_store` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/event-store");
    migrator.create_schema("event_store");
    migrator.dangerous_set_table_name("event_store._migrations");
    migrator
}
