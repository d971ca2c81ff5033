use axum::extract::State;
use axum::response::Response;
use domain::{TaskCommand, TaskId};
use http_api::body::EmptyBody;
use http_api::openapi::Operation;
use http_api::problem::Problem;
use http_api::query::PathId;

use crate::answer;
use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::operation::change;

/// Puts a task into the trash. Again: 204 again.
pub(crate) async fn delete(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    let request = attempt.request(TaskId(id), TaskCommand::Delete, None);
    api.execute(&attempt, request).await.map(|accepted| api.answer(&attempt).deleted(&accepted))
}

pub(crate) fn described() -> Operation {
    change("deleteTask", "Delete a task")
        .says(
            "No read finds it any more but those `as_of` a time before. It can be restored for 30 days; \
             after that it is purged, and no read has it any more. Again: 204 again.",
        )
        .empty_body()
        .empty(204, "Deleted, now or before.", &answer::HEADERS)
}
