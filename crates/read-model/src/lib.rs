//! What projector and query-api share: the rows of `read_model` as types, the fold that makes a task of events, the text
//! rules of search, the filters of tasks, and how Redis keeps an owner's version. The projector writes it, query-api reads it.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// A task, its row, and the fold that makes it.
mod task;

/// What an event changes in a task, as the history keeps it.
mod field_changes;

/// A task in JSON.
pub mod task_json;

/// The text rules of search.
pub mod search;

/// Which tasks are asked for.
mod task_filters;

/// An owner's version, and how Redis keeps it.
mod owner;

use backends::database::{DatabaseError, Roles, Schema};
use sqlx::PgConnection;

pub use field_changes::{FieldChange, FieldChanges};
pub use owner::{CachedOwnerVersion, OWNER_VERSION_MS_MAX, OwnerRow, ReadModelId, WRITE_OWNER_VERSIONS};
pub use task::{FoldError, Task, TaskColumns, TaskRow, fold, priority, status, touches_text};
pub use task_filters::TaskFilters;

/// Creates or upgrades the schema `read_model`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program that this one cannot run beside.
pub async fn migrate(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    schema().migrate(connection).await
}

/// The schema `read_model` as this program has it.
#[must_use]
pub fn schema() -> Schema {
    Schema::new("read_model", sqlx::migrate!("../../migrations/read-model")).with_roles(Roles {
        names: &["primetrade_fold", "primetrade_query", "primetrade_announce"],
        grants: include_str!("../../../migrations/roles/read-model.sql"),
        settings: Some(include_str!("../../../migrations/roles/read-model-settings.sql")),
    })
}
