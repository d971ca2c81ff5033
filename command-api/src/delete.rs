//! `DELETE /api/v1/tasks/{id}`: for good. Again: 204 again.

use axum::extract::State;
use axum::response::Response;
use domain::{TaskCommand, TaskId};
use http_api::body::EmptyBody;
use http_api::openapi::Operation;
use http_api::problem::Problem;
use http_api::query::PathId;

use crate::attempt::Attempt;
use crate::{CommandApi, answer, change};

/// Deletes a task.
pub(crate) async fn delete(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    let item = attempt.item(TaskId(id), TaskCommand::Delete, None);
    api.execute(&attempt, item).await.map(|accepted| api.answer(&attempt).deleted(&accepted))
}

pub(crate) fn described() -> Operation {
    change("deleteTask", "Deletes a task")
        .says("For good: a deleted task is not found by any read, its past included. Again: 204 again.")
        .empty_body()
        .empty(204, "Deleted, now or before.", &answer::HEADERS)
}
