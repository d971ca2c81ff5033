use task_files::{ExportError, Selection, choose, parse_filter};

use crate::failure::Failure;
use crate::job::Filters;
use crate::progress::{Left, Progress};
use crate::worker::Worker;

/// The tasks that a job is about: whoever takes it over finds the same ones.
pub(crate) async fn chosen(
    worker: &Worker,
    progress: &Progress,
    filters: &Filters,
    until: i64,
) -> Result<Result<Selection, Failure>, Left> {
    let Ok(filters) = parse_filter(filters) else { return Ok(Err(Failure::Outdated)) };
    let lease = &progress.lease;
    match choose(&worker.reads, lease.owner, until, &filters, lease.created_at).await {
        Ok(selection) => Ok(Ok(selection)),
        Err(error) => failure_of(error).map(Err),
    }
}

/// What is wrong with the tasks themselves is so for whoever tries again; everything else is left to them.
pub(crate) fn failure_of(error: ExportError) -> Result<Failure, Left> {
    match error {
        ExportError::Unreadable { .. } | ExportError::TooManyTasks => Ok(Failure::Tasks(error.to_string())),
        ExportError::Store(_) | ExportError::Write(_) => Err(error.into()),
    }
}
