//! The undo of a change of very many tasks, task by task.

use commands::{CommandIdentity, Touched};
use domain::CommandId;
use task_files::LineError;
use uuid::Uuid;

use crate::failure::Failure;
use crate::import::STEP_LINES_MAX;
use crate::progress::{Ended, Left, Progress};
use crate::worker::Worker;

/// How many tasks a change may have touched that is undone: 16 bytes each in memory.
pub const UNDONE_TASKS_MAX: usize = 1_000_000;

/// Undoes what is left of a change. A change that has been made stays what it is: whoever takes over finds the same tasks.
pub(crate) async fn undo(worker: &Worker, progress: &mut Progress, change_id: Uuid) -> Result<Ended, Left> {
    let (caller, job_id) = (progress.caller(), progress.lease.id);
    let store = worker.executor.store();
    let tasks = store.tasks_of_change(caller.owner, change_id, UNDONE_TASKS_MAX as i64 + 1).await?.task_ids;
    if tasks.len() > UNDONE_TASKS_MAX {
        return Ok(Ended::Failed(Failure::Tasks(format!("the change touched more than {UNDONE_TASKS_MAX} tasks"))));
    }
    if progress.lease.total.is_none() {
        progress.set_total(tasks.len() as i64).await?;
    }
    let mut number = progress.lease.line;
    for step in tasks.get(number as usize..).unwrap_or_default().chunks(STEP_LINES_MAX) {
        if progress.cancelled.is_cancelled() {
            return Ok(Ended::Cancelled);
        }
        let touched = step.iter().map(|task_id| {
            let command_id = CommandId(Uuid::new_v5(&job_id, task_id.0.as_bytes()));
            Touched { task_id: *task_id, identity: Some(CommandIdentity { command_id, fingerprint: change_id }) }
        });
        let outcomes = {
            let _permit = worker.permits.take(caller.owner, 1).await;
            worker.executor.undo(&caller, change_id, touched.collect()).await
        };
        for (task_id, outcome) in step.iter().zip(outcomes) {
            number += 1;
            match outcome {
                Ok(undone) => progress.succeeded(number, undone.accepted.events, Some(undone.accepted.revision)),
                // Whoever goes on replays what this step has done.
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => progress.failed(number, Some(task_id.0), LineError::from(error)),
            }
        }
        progress.write().await?;
    }
    Ok(Ended::Succeeded)
}
