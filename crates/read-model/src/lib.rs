//! What projector and query-api share: the rows of `read_model` as types, the fold that makes a task of events, the text
//! rules of search, and how Redis keeps an owner's version. The projector writes it, query-api reads it.

/// A task, its row, and the fold that makes it.
mod task;

/// What an event changes in a task, as the history keeps it.
mod changes;

/// The text rules of search.
pub mod search;

/// An owner's version, and how Redis keeps it.
mod owner;

use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

pub use changes::{Change, Changes};
pub use owner::{CachedOwnerVersion, OWNER_VERSION_MS_MAX, OwnerRow, ReadModelId, WRITE_OWNER_VERSIONS};
pub use task::{FoldError, Task, TaskColumns, TaskRow, fold, priority, status, touches_text};

/// Creates or upgrades the schema `read_model`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    migrator().run(connection).await
}

/// The migrations of the schema `read_model` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations/read-model");
    migrator.create_schema("read_model");
    migrator.dangerous_set_table_name("read_model._migrations");
    migrator
}
