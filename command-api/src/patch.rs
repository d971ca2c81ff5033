use axum::extract::State;
use axum::response::Response;
use domain::TaskId;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::PathId;
use serde_json::json;

use crate::answer;
use crate::api::CommandApi;
use crate::attempt::{Attempt, PatchText};
use crate::operation::change;

/// Changes fields of a task.
pub(crate) async fn patch(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    body: PatchText,
) -> Result<Response, Problem> {
    let json = body.json()?;
    let request = attempt.request(TaskId(id), commands::patch::parse(&json)?, Some(&json));
    api.execute(&attempt, request).await.map(|accepted| api.answer(&attempt).changed(&accepted))
}

pub(crate) fn described() -> Operation {
    change("patchTask", "Change fields of a task")
        .says("A merge patch (RFC 7396): what is not named stays, `null` empties description, due date and tags.")
        .body(
            &["application/merge-patch+json", "application/json"],
            &reference("TaskPatch"),
            &json!({"title": "Ring Zoë back", "due_at": null}),
        )
        .json(200, "Changed, or as it was.", &answer::HEADERS, &reference("Accepted"), &answer::example())
        .refuses(&[ProblemCode::TooManyTags])
}
