//! `POST /api/v1/tasks/{id}/start`, `complete`, `reopen`, `cancel`: no body, or `{}`.

use axum::extract::State;
use axum::response::Response;
use domain::{TaskCommand, TaskId};
use service_kit::body::EmptyBody;
use service_kit::problem::Problem;
use service_kit::query::PathId;

use crate::CommandApi;
use crate::attempt::Attempt;

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

async fn transition(
    api: &CommandApi,
    attempt: &Attempt,
    task_id: TaskId,
    command: TaskCommand,
) -> Result<Response, Problem> {
    let item = attempt.item(task_id, command, None);
    api.execute(attempt, item).await.map(|accepted| api.answer(attempt).changed(&accepted))
}
