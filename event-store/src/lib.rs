//! The log of events: the only code that writes it.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

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

/// An event's correlation id and traceparent, as they are stored.
mod trace_columns;

/// The statements of an append.
mod insert;

/// What a command that succeeded did, as it is remembered.
mod effect;

/// Streams and outcomes of commands, looked up for many commands in one round trip.
pub mod lookup;

/// The log in order, for who follows it or reads it from the beginning.
pub mod tail;

/// Who publishes the log, and until when.
pub mod lease;

/// How far the log is published.
pub mod publication;

/// Whole answers of batches that were sent under an Idempotency-Key.
pub mod batch_answer;

/// What a change touched, and whether it is still being made.
pub mod change;

/// How far the tasks are purged that were deleted long ago.
pub mod purge;

/// Why the store does not answer.
mod unavailable;

/// The log as a connection finds it, and what this process has seen of it.
mod log_state;

/// Whether the log is where it was last written.
pub mod lineage;

/// Events that only others still have, appended as they were.
pub mod salvage;

/// Whether what must always hold of a log does.
pub mod checks;

/// A connection that one queue has for itself.
mod dedicated_connection;

use backends::database::{DatabaseError, Pool, Roles, Schema};

pub use append::{AppendError, Appended, CommandOrigin, DecidedCommand, NewEvent, StreamAppend};
pub use batch_answer::BatchAnswer;
pub use dedicated_connection::is_about_values;
pub use effect::Effect;
pub use lineage::{Known, Lineage, Settled};
pub use log_state::Seen;
pub use lookup::{Looked, Outcome, is_same_request};
pub use publication::Publication;
pub use purge::{Deletion, DueDeletions};
pub use store::{EventStore, QUEUE_MAX};
pub use tail::{Published, TailReader};
pub use unavailable::Unavailable;

/// Creates or upgrades the schema `event_store`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program that this one cannot run beside.
pub async fn migrate(pool: &Pool) -> Result<(), DatabaseError> {
    let schema = schema();
    schema.migrate(&mut *schema.connection(pool).await?).await
}

/// The schema `event_store` as this program has it.
#[must_use]
pub fn schema() -> Schema {
    Schema::new("event_store", sqlx::migrate!("../migrations/event-store")).with_roles(Roles {
        names: &["primetrade_append", "primetrade_log_reader"],
        grants: include_str!("../../migrations/roles/event-store.sql"),
        settings: None,
    })
}
