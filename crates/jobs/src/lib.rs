//! Jobs: what a request asks for and takes longer than an answer may. A job is a row; whichever copy is free takes it by a
//! lease and carries it out, and another one goes on where a dead one was. Files are in an object store.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

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

/// What is known of accounts beside their tasks.
mod account_records;

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

/// Archives: everything that an account has, written to a file.
mod archive;

/// A file of files, written as it comes.
mod tar;

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

/// Whether jobs get to their end.
pub mod checks;

use backends::database::{DatabaseError, Pool, Roles, Schema};

pub use account_records::{AccountError, AccountRecords};
pub use failure::Failure;
pub use files::{Files, FilesError};
pub use job::{Filters, Job, Kind, NewJob, Request, ResultFormat, State};
pub use progress::FAILURES_MAX;
pub use table::{Added, Jobs, LineFailure, QUEUED_EACH_MAX, RUNNING_EACH_MAX, SHOWN_DAYS};
pub use undo::UNDONE_TASKS_MAX;
pub use upload::{UPLOAD_BYTES_MAX, Upload, UploadError, Uploaded};
pub use worker::{Explain, Worker};

/// Creates or upgrades the schema `jobs`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program that this one cannot run beside.
pub async fn migrate(pool: &Pool) -> Result<(), DatabaseError> {
    let schema = schema();
    schema.migrate(&mut *schema.connection(pool).await?).await
}

/// The schema `jobs` as this program has it.
#[must_use]
pub fn schema() -> Schema {
    Schema::new("jobs", sqlx::migrate!("../../migrations/jobs")).with_roles(Roles {
        names: &["primetrade_jobs"],
        grants: include_str!("../../../migrations/roles/jobs.sql"),
        settings: None,
    })
}
