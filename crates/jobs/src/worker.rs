use commands::Executor;
use domain::OwnerId;
use event_store::TailReader;
use process::budget::Budget;
use task_files::LineError;

use crate::account_records::AccountRecords;
use crate::failure::Failure;
use crate::files::Files;
use crate::table::Jobs;

/// Makes problems in JSON of what went wrong.
#[derive(Debug, Clone, Copy)]
pub struct Explain {
    /// With a line.
    pub line: fn(LineError) -> String,
    /// With a whole job.
    pub failure: fn(&Failure) -> String,
}

/// Carries out jobs. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    /// The jobs.
    pub jobs: Jobs,
    /// Their files.
    pub files: Files,
    /// What carries out their commands.
    pub executor: Executor,
    /// What they read tasks by.
    pub reads: TailReader,
    /// What is known of accounts.
    pub account: AccountRecords,
    /// As batches need them, so that both together leave the store's queues to single commands.
    pub permits: Budget<OwnerId>,
    /// For what goes wrong.
    pub explain: Explain,
}
