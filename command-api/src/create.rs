use axum::extract::State;
use axum::response::Response;
use commands::new_task;
use domain::TaskId;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use process::clock;
use serde_json::json;

use crate::answer;
use crate::api::CommandApi;
use crate::attempt::{Attempt, JsonText};
use crate::operation::write;

/// Creates a task: 201, or 200 where it was created before with the same content.
pub(crate) async fn create(
    State(api): State<CommandApi>,
    attempt: Attempt,
    body: JsonText,
) -> Result<Response, Problem> {
    let json = body.json()?;
    let (id, command) = new_task::parse(&json)?;
    let accepted = match id {
        Some(task_id) => api.execute(&attempt, attempt.request(task_id, command, Some(&json))).await?,
        None => api.execute_new(&attempt, attempt.request(TaskId(clock::new_id()), command, Some(&json))).await?,
    };
    Ok(api.answer(&attempt).created(&accepted))
}

pub(crate) fn described() -> Operation {
    let example = json!({"title": "Ring Zoë", "priority": "high", "due_at": "2027-01-31T12:00:00Z", "tags": ["home"]});
    let headers = ["ETag", "Location", "Consistency-Token", "Change-Id", "Idempotent-Replayed"];
    write("createTask", "Create a task")
        .says(
            "An `id` may be chosen, so that a client can create tasks while it is offline: ids are the account's own. The same \
             id again with the same content is the same task.",
        )
        .header("If-Match")
        .body(&["application/json"], &reference("NewTask"), &example)
        .json(201, "Created.", &headers, &reference("Accepted"), &answer::example())
        .json(200, "It was created before, with the same content.", &headers, &reference("Accepted"), &answer::example())
        .refuses(&[ProblemCode::TooManyTags, ProblemCode::TaskExists, ProblemCode::StaleVersion])
}
