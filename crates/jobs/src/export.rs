//! Exports: the account's tasks as of one revision, into a file. Who takes one over writes the same file from the beginning.

use object_store::buffered::BufWriter;
use task_files::{Chosen, Export, ExportFormat};
use tokio::io::AsyncWriteExt;

use crate::chosen::{chosen, failure_of};
use crate::files::FileOf;
use crate::job::Filters;
use crate::progress::{Ended, Left, Progress};
use crate::worker::Worker;

/// After how many tasks it is written down how far it is.
const STEP_TASKS: i64 = 2_000;

/// Writes an export.
pub(crate) async fn export(
    worker: &Worker,
    progress: &mut Progress,
    format: ExportFormat,
    filters: &Filters,
    until: i64,
) -> Result<Ended, Left> {
    let selection = match chosen(worker, progress, filters, until).await? {
        Ok(selection) => selection,
        Err(failure) => return Ok(Ended::Failed(failure)),
    };
    progress.restart(selection.tasks.len() as i64, selection.revision).await?;
    let file = FileOf::Result(progress.lease.id);
    let mut out = worker.files.writer(file);
    let export = Export {
        tail: &worker.reads,
        owner: progress.lease.owner,
        until,
        format,
        for_excel: false,
        log_id: worker.executor.store().log_id(),
    };
    match write(worker, progress, &export, &selection.tasks, &mut out).await {
        Ok(true) => {
            out.shutdown().await?;
            Ok(Ended::Written(worker.files.length(file).await? as i64))
        }
        Ok(false) => abort(out, None).await,
        Err(left) => abort(out, Some(left)).await,
    }
}

/// Removes what was written of a file: its job was cancelled, or why it is not whole. A writer that was shut down panics here,
/// also where that failed.
pub(crate) async fn abort(mut out: BufWriter, left: Option<Left>) -> Result<Ended, Left> {
    let aborted = out.abort().await;
    match left {
        None => {
            aborted?;
            Ok(Ended::Cancelled)
        }
        // What was not removed is overwritten by whoever takes the job next.
        Some(Left::Export(error)) => failure_of(error).map(Ended::Failed),
        Some(other) => Err(other),
    }
}

/// False: the job was cancelled.
async fn write(
    worker: &Worker,
    progress: &mut Progress,
    export: &Export<'_>,
    tasks: &[Chosen],
    out: &mut BufWriter,
) -> Result<bool, Left> {
    export.begin(out).await?;
    let (mut rest, mut done, mut written_down) = (tasks, 0, 0);
    while !rest.is_empty() {
        if progress.cancelled.is_cancelled() {
            return Ok(false);
        }
        worker.files.check_room()?;
        let part = export.part(rest, out).await?.tasks;
        rest = &rest[part..];
        for _ in 0..part {
            done += 1;
            progress.succeeded(done, 0, None);
        }
        if done - written_down >= STEP_TASKS || rest.is_empty() {
            written_down = done;
            progress.write().await?;
        }
    }
    export.end(tasks.is_empty(), out).await?;
    Ok(true)
}
