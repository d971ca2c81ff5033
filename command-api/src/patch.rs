//! `PATCH /api/v1/tasks/{id}`: an RFC 7396 merge patch of a task's fields.

use axum::extract::State;
use axum::response::Response;
use domain::{Description, Priority, Tags, TaskCommand, TaskId, TaskPatch, Title, parse_time};
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::PathId;
use serde_json::{Value, json};

use crate::attempt::{Attempt, PatchText};
use crate::fields::{self, Mistakes};
use crate::json::Json;
use crate::{CommandApi, answer, change, schema as field};

/// Changes fields of a task.
pub(crate) async fn patch(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    body: PatchText,
) -> Result<Response, Problem> {
    let json = body.json()?;
    let item = attempt.item(TaskId(id), parse(&json)?, Some(&json));
    api.execute(&attempt, item).await.map(|accepted| api.answer(&attempt).changed(&accepted))
}

pub(crate) fn described() -> Operation {
    change("patchTask", "Changes fields of a task")
        .says("A merge patch (RFC 7396): what is not named stays, `null` empties description, due date and tags.")
        .body(
            &["application/merge-patch+json", "application/json"],
            &reference("TaskPatch"),
            &json!({"title": "Ring Zoë back", "due_at": null}),
        )
        .json(200, "Changed, or as it was.", &answer::HEADERS, &reference("Accepted"), &answer::example())
        .refuses(&[ProblemCode::TooManyTags])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "title": field::title(),
            "description": field::description(),
            "priority": field::priority(),
            "due_at": field::due_at(),
            "tags": field::tags(),
        },
    })
}

/// Reads one field of a patch into it; says whether it is one. `null` empties what may be empty.
pub(crate) fn take(patch: &mut TaskPatch, mistakes: &mut Mistakes, name: &str, json: &Json<'_>) -> bool {
    match (name, json) {
        ("title", json) => patch.title = fields::value(mistakes, "/title", json, Title::parse),
        ("description", Json::Null) => patch.description = Some(None),
        ("description", json) => {
            patch.description = fields::value(mistakes, "/description", json, Description::parse).map(Some);
        }
        ("priority", json) => patch.priority = fields::value(mistakes, "/priority", json, Priority::parse),
        ("due_at", Json::Null) => patch.due_at = Some(None),
        ("due_at", json) => patch.due_at = fields::value(mistakes, "/due_at", json, parse_time).map(Some),
        ("tags", Json::Null) => patch.tags = Some(Tags::new()),
        ("tags", json) => patch.tags = fields::tags(mistakes, "/tags", json),
        (_, _) => return false,
    }
    true
}

fn parse(json: &Json<'_>) -> Result<TaskCommand, Problem> {
    let mut mistakes = Mistakes::default();
    let mut patch = TaskPatch::default();
    for (name, value) in fields::object(json)? {
        if !take(&mut patch, &mut mistakes, name, value) {
            mistakes.unknown(name);
        }
    }
    mistakes.or(Some(TaskCommand::Patch(Box::new(patch))))
}
