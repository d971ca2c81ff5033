//! One command for many tasks. Which ones is fixed by the position of the log at the request; each is decided as it stands at
//! its turn.

use commands::{CommandIdentity, CommandRequest, ExpectedVersion, Simulation, line};
use domain::{CommandId, TaskId};
use task_files::{LineError, ParsedLine, carry_out};
use uuid::Uuid;

use crate::chosen::chosen;
use crate::failure::Failure;
use crate::import::STEP_LINES_MAX;
use crate::job::Filters;
use crate::progress::{Ended, Left, Progress};
use crate::worker::Worker;

/// Gives what is left of the tasks the command.
pub(crate) async fn bulk(
    worker: &Worker,
    progress: &mut Progress,
    filters: &Filters,
    command: &str,
    until: i64,
) -> Result<Ended, Left> {
    let Ok(command) = line::parse(command.as_bytes()) else { return Ok(Ended::Failed(Failure::Outdated)) };
    let tasks = match chosen(worker, progress, filters, until).await? {
        Ok(selection) => selection.tasks,
        Err(failure) => return Ok(Ended::Failed(failure)),
    };
    if progress.lease.total.is_none() {
        progress.set_total(tasks.len() as i64).await?;
    }
    let (job_id, caller) = (progress.lease.id, progress.caller());
    let request = |task_id: TaskId| CommandRequest {
        task_id,
        command: command.command.clone(),
        identity: Some(CommandIdentity {
            command_id: CommandId(Uuid::new_v5(&job_id, task_id.0.as_bytes())),
            fingerprint: command.fingerprint,
        }),
        expected: ExpectedVersion::Any,
        occurred_at: None,
    };
    let mut number = progress.lease.line;
    for step in tasks.get(number as usize..).unwrap_or_default().chunks(STEP_LINES_MAX) {
        if progress.cancelled.is_cancelled() {
            return Ok(Ended::Cancelled);
        }
        let requests: Vec<CommandRequest> = step.iter().map(|chosen| request(chosen.task_id)).collect();
        // Given back before it is written down, which takes long while the database is away.
        let permit = worker.permits.take(caller.owner, 1).await;
        let outcomes: Vec<Result<(u32, Option<i64>), LineError>> = if progress.lease.dry_run {
            let decided = Simulation::default().decide(&worker.executor, &caller, &requests).await?;
            decided.into_iter().map(|outcome| outcome.map(|()| (0, None)).map_err(LineError::from)).collect()
        } else {
            let lines = (0..).zip(requests).map(|(number, request)| ParsedLine::made(number, request)).collect();
            let carried = carry_out(&worker.executor, &caller, lines).await?;
            let outcomes = carried.into_iter().map(|carried| carried.outcome);
            outcomes.map(|outcome| outcome.map(|(events, revision)| (events, Some(revision)))).collect()
        };
        drop(permit);
        for (chosen, outcome) in step.iter().zip(outcomes) {
            number += 1;
            match outcome {
                Ok((events, revision)) => progress.succeeded(number, events, revision),
                Err(error) => progress.failed(number, Some(chosen.task_id.0), error),
            }
        }
        progress.write().await?;
    }
    Ok(Ended::Succeeded)
}
