use axum::extract::State;
use axum::response::Response;
use domain::{TaskCommand, TaskId};
use http_api::body::EmptyBody;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::PathId;

use crate::answer;
use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::operation::change;

/// From pending.
pub(crate) async fn start(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    transition(&api, &attempt, TaskId(id), TaskCommand::Start).await
}

/// From pending or in_progress.
pub(crate) async fn complete(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    transition(&api, &attempt, TaskId(id), TaskCommand::Complete).await
}

/// From completed or cancelled.
pub(crate) async fn reopen(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    transition(&api, &attempt, TaskId(id), TaskCommand::Reopen).await
}

/// From pending or in_progress.
pub(crate) async fn cancel(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    transition(&api, &attempt, TaskId(id), TaskCommand::Cancel).await
}

/// Out of the trash.
pub(crate) async fn restore(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    transition(&api, &attempt, TaskId(id), TaskCommand::Restore).await
}

pub(crate) fn start_described() -> Operation {
    transition_described("startTask", "Start a task", "From pending.")
}

pub(crate) fn complete_described() -> Operation {
    transition_described("completeTask", "Complete a task", "From pending or in progress.")
}

pub(crate) fn reopen_described() -> Operation {
    transition_described("reopenTask", "Reopen a task", "From completed or cancelled, to pending.")
}

pub(crate) fn cancel_described() -> Operation {
    transition_described("cancelTask", "Cancel a task", "From pending or in progress.")
}

pub(crate) fn restore_described() -> Operation {
    change("restoreTask", "Restore a deleted task")
        .says(
            "As it was before its deletion. `If-Match` names the version that it was deleted at. A task that is not deleted \
             stays as it is; one that was deleted more than 30 days ago is not found.",
        )
        .empty_body()
        .json(200, "It is there, now or before.", &answer::HEADERS, &reference("Accepted"), &answer::example())
}

fn transition_described(id: &'static str, summary: &'static str, from: &'static str) -> Operation {
    change(id, summary)
        .says(from)
        .empty_body()
        .json(200, "It is so now, or was before.", &answer::HEADERS, &reference("Accepted"), &answer::example())
        .refuses(&[ProblemCode::TransitionRefused])
}

async fn transition(
    api: &CommandApi,
    attempt: &Attempt,
    task_id: TaskId,
    command: TaskCommand,
) -> Result<Response, Problem> {
    let request = attempt.request(task_id, command, None);
    api.execute(attempt, request).await.map(|accepted| api.answer(attempt).changed(&accepted))
}
