//! Exports: the account's tasks as of one revision, into a file. Who takes one over writes the same file from the beginning.

use object_store::buffered::BufWriter;
use task_files::{Chosen, ExportFormat, OrderedExport};
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
    let export = OrderedExport {
        tail: &worker.reads,
        owner: progress.lease.owner,
        until,
        format,
        log_id: worker.executor.store().log_id(),
    };
    match write(progress, &export, &selection.tasks, &mut out).await {
        Ok(true) => {
            out.shutdown().await?;
            Ok(Ended::Written(worker.files.length(file).await? as i64))
        }
        Ok(false) => {
            out.abort().await?;
            Ok(Ended::Cancelled)
        }
        Err(left) => {
            // It would be written anew all the same.
            let _ = out.abort().await;
            match left {
                Left::Export(error) => failure_of(error).map(Ended::Failed),
                other => Err(other),
            }
        }
    }
}

/// False: the job was cancelled.
async fn write(
    progress: &mut Progress,
    export: &OrderedExport<'_>,
    tasks: &[Chosen],
    out: &mut BufWriter,
) -> Result<bool, Left> {
    export.begin(out).await?;
    let (mut rest, mut done, mut written_down) = (tasks, 0, 0);
    while !rest.is_empty() {
        if progress.cancelled.is_cancelled() {
            return Ok(false);
        }
        let part = export.part(rest, out).await?;
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
