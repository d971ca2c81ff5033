use axum::extract::State;
use axum::response::Response;
use commands::identity::{CommandIdentity, command_id_of_key_and_index};
use commands::keyed_batch::KeyedBatch;
use commands::{Caller, ExecuteError, Touched, Undone};
use domain::TaskId;
use event_store::change::TasksOfChange;
use http_api::body::EmptyBody;
use http_api::openapi::{EXAMPLE_ID, Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::PathId;
use jobs::{Request, UNDONE_TASKS_MAX};
use process::clock::new_id;
use serde_json::json;
use uuid::Uuid;

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::batch_answer::{Results, Writer};
use crate::job::{self, Asked, unavailable};
use crate::keyed;
use crate::operation::write;

/// How many tasks a change may have touched that is undone within a request.
pub const UNDONE_AT_ONCE_MAX: usize = 10_000;

/// Leads the tasks of a change back, each on its own.
pub(crate) async fn undo(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(change_id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    attempt.refuse_condition("If-Match is for one task")?;
    let undo = Undo { api: &api, change_id };
    let caller = attempt.caller();
    let Some((key, identity)) = attempt.key.as_ref().zip(attempt.identity(None)) else {
        if undo.is_large(&caller).await? {
            return undo.submit(&attempt, None).await;
        }
        let _permit = api.batch_permit(caller.owner).await?;
        let tasks = undo.tasks(&caller).await?;
        let is_one_append = tasks.len() == 1;
        let touched = tasks.into_iter().map(|task_id| Touched { task_id, identity: None }).collect();
        let work = undo.carry_out(&caller, touched);
        let results = if is_one_append {
            work.await
        } else {
            api.executor().make_change(&caller, work).await.map_err(keyed::problem)?
        };
        return Ok(keyed::answer(&api, &attempt, results?));
    };
    let keyed = KeyedBatch::new(api.executor().store(), &caller, identity);
    if let Some(kept) = keyed.answer().await.map_err(keyed::problem)? {
        return keyed::replay(&api, &attempt, kept);
    }
    if undo.is_large(&caller).await? {
        return undo.submit(&attempt, Some(identity)).await;
    }
    // A refused request leaves its key free; one that was begun is carried on.
    if !keyed.is_bound().await.map_err(keyed::problem)? {
        undo.check(&caller).await?;
    }
    let work = async |caller: &Caller| {
        let _permit = api.batch_permit(caller.owner).await?;
        let identity = |index| {
            let command_id = command_id_of_key_and_index(key.as_str(), index);
            Some(CommandIdentity { command_id, fingerprint: identity.fingerprint })
        };
        let tasks = undo.tasks(caller).await?.into_iter().enumerate();
        let touched = tasks.map(|(index, task_id)| Touched { task_id, identity: identity(index) }).collect();
        undo.carry_out(caller, touched).await
    };
    keyed::carry_out(&api, &attempt, keyed, work).await
}

struct Undo<'a> {
    api: &'a CommandApi,
    change_id: Uuid,
}

impl Undo<'_> {
    async fn first_tasks(&self, caller: &Caller, tasks_max: usize) -> Result<TasksOfChange, Problem> {
        let tasks = self.api.executor().store().tasks_of_change(caller.owner, self.change_id, tasks_max as i64).await;
        tasks.map_err(|error| Problem::unavailable(&error))
    }

    /// Whether it takes a job.
    async fn is_large(&self, caller: &Caller) -> Result<bool, Problem> {
        Ok(self.first_tasks(caller, UNDONE_AT_ONCE_MAX + 1).await?.task_ids.len() > UNDONE_AT_ONCE_MAX)
    }

    /// Adds the job that undoes the change. An equal request gets the job of the first one, though by now nothing is left.
    async fn submit(&self, attempt: &Attempt, identity: Option<CommandIdentity>) -> Result<Response, Problem> {
        let caller = attempt.caller();
        let known = match identity {
            Some(identity) => self.api.jobs().known(caller.owner, identity).await.map_err(unavailable)?.is_some(),
            None => false,
        };
        if !known {
            self.api.files()?;
            self.check(&caller).await?;
        }
        let request = Request::Undo { change_id: self.change_id };
        self.api.submit(attempt, Asked { id: new_id(), request, dry_run: false, identity }).await.0
    }

    /// The tasks that the change touched, in its order: all of them, or it is refused.
    async fn tasks(&self, caller: &Caller) -> Result<Vec<TaskId>, Problem> {
        // Before the tasks: what a job has appended by its end is among them.
        let job = self.api.jobs().find_any(caller.owner, self.change_id).await.map_err(unavailable)?;
        let TasksOfChange { task_ids, is_being_made } = self.first_tasks(caller, UNDONE_TASKS_MAX + 1).await?;
        if is_being_made || !task_ids.is_empty() && job.is_some_and(|job| !job.state.has_ended()) {
            return Err(Problem::new(ProblemCode::ChangeInProgress));
        }
        if task_ids.is_empty() {
            return Err(Problem::new(ProblemCode::NotFound).detail("There is no such change."));
        }
        if task_ids.len() > UNDONE_TASKS_MAX {
            return Err(Problem::new(ProblemCode::BatchTooLarge)
                .detail(format!("The change touched more than {UNDONE_TASKS_MAX} tasks.")));
        }
        Ok(task_ids)
    }

    /// Whether there is anything to undo.
    async fn check(&self, caller: &Caller) -> Result<(), Problem> {
        let tasks = self.tasks(caller).await?;
        match self.api.executor().is_undone(caller, self.change_id, &tasks).await.map_err(keyed::problem)? {
            true => Err(Problem::new(ProblemCode::UndoneAlready)),
            false => Ok(()),
        }
    }

    async fn carry_out(&self, caller: &Caller, touched: Vec<Touched>) -> Result<Results, Problem> {
        let task_ids: Vec<TaskId> = touched.iter().map(|touched| touched.task_id).collect();
        let outcomes = self.api.executor().undo(caller, self.change_id, touched).await;
        let known = self.api.executor().last_position(caller.owner);
        answer(caller, known, &task_ids.into_iter().zip(outcomes).collect::<Vec<_>>())
    }
}

/// Where nothing was left to undo, that is the answer.
fn answer(
    caller: &Caller,
    known: i64,
    outcomes: &[(TaskId, Result<Undone, ExecuteError>)],
) -> Result<Results, Problem> {
    let done = || outcomes.iter().map(|(_, outcome)| outcome.as_ref().ok());
    let nothing_left = done().all(|undone| undone.is_some_and(|undone| undone.accepted.change_id.is_none()));
    if nothing_left && done().flatten().any(|undone| undone.already) {
        return Err(Problem::new(ProblemCode::UndoneAlready));
    }
    let mut writer = Writer::new(outcomes.len(), caller.change_id);
    for (task_id, outcome) in outcomes {
        match outcome {
            Ok(undone) => writer.succeeded(&undone.accepted),
            Err(error) => writer.failed_for(*task_id, &keyed::problem(error.clone())),
        }
    }
    Ok(writer.finish(known))
}

pub(crate) fn described() -> Operation {
    let answer = json!({
        "results": [{"index": 0, "status": 200, "id": EXAMPLE_ID, "version": 3, "revision": 7}],
        "succeeded": 1, "failed": 0, "change_id": EXAMPLE_ID, "revision": 7,
    });
    write("undoChange", "Undo a change")
        .path_id("The change's id: the `Change-Id` of the answer to what made it.")
        .says(
            "Reverts each task that the change touched to what it was before, by events of its own: its fields (tags one by \
             one) and its stage, a creation by a deletion, a deletion by restoring the task, for 30 days. \
             A task of which a later change that stands has changed the same is refused (`changed-since`), and the others \
             are reverted; a change that is undone and not redone counts as never made. An undo is a change itself: undone, \
             it is redo. After an undo that not all tasks took, the rest may be tried again: a task that was reverted before \
             succeeds without an event. A change of more than 10,000 tasks is undone by a job.",
        )
        .empty_body()
        .json(
            200,
            "What came of each task, in the order in which the change touched them.",
            &["Consistency-Token", "Change-Id", "Idempotent-Replayed"],
            &reference("BatchAnswer"),
            &answer,
        )
        .json(
            202,
            "The job, where there are more than 10,000 tasks.",
            &["Location", "Consistency-Token", "Idempotent-Replayed"],
            &reference("Job"),
            &job::example(),
        )
        .refuses(&[
            ProblemCode::NotFound,
            ProblemCode::TooManyJobs,
            ProblemCode::NotConfigured,
            ProblemCode::UndoneAlready,
            ProblemCode::ChangeInProgress,
            ProblemCode::BatchTooLarge,
        ])
}
