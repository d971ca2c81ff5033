//! Jobs: what a request asks for and takes longer than an answer may. A job is a row; whichever copy is free takes it by a
//! lease and carries it out, and another one goes on where a dead one was. Files are in an object store.

/// A job, as it is shown.
mod job;

/// The rows: added, shown, cancelled, forgotten.
mod table;

/// Who carries a job out: taken, kept and ended under an epoch.
mod lease;

/// Files of jobs in an object store.
mod files;

/// A file on its way into the store: unpacked, counted, within its limit.
mod upload;

/// Why a job could not be carried out.
mod failure;

/// What carries out jobs.
mod worker;

/// Lines that are done together.
mod step;

/// A job under way, and how far it is.
mod progress;

/// Imports: a file's lines, carried out.
mod import;

/// The tasks that a job is about.
mod chosen;

/// Exports: an account's tasks, written to a file.
mod export;

/// One command for many tasks.
mod bulk;

/// A change of very many tasks, undone.
mod undo;

/// Imports that change nothing.
mod dry_run;

/// Jobs that change, written to the read database for live streams.
mod publish;

/// Carries out jobs, a few at a time, as long as the process runs.
mod run;

use backends::database::Pool;
use sqlx::migrate::{MigrateError, Migrator};

pub use failure::Failure;
pub use files::{Files, FilesError};
pub use job::{Filters, Job, Kind, NewJob, Request, State};
pub use table::{Added, Jobs, LineFailure, QUEUED_EACH_MAX, RUNNING_EACH_MAX};
pub use undo::UNDONE_TASKS_MAX;
pub use upload::{UPLOAD_BYTES_MAX, Upload, UploadError, Uploaded};
pub use worker::{Explain, Worker};

/// Creates or upgrades the schema `jobs`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    migrator().run(&mut *pool.acquire().await?).await
}

/// The migrations of the schema `jobs` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations/jobs");
    migrator.create_schema("jobs");
    migrator.dangerous_set_table_name("jobs._migrations");
    migrator
}
