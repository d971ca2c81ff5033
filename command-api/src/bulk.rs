//! `POST /api/v1/tasks/bulk`

use axum::extract::State;
use axum::response::Response;
use commands::ParseError;
use commands::json::Json;
use commands::line::{self, CommandType};
use domain::InvalidFields;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use jobs::{Filters, Request};
use process::clock::new_id;
use serde_json::{Map, Value, json};

use crate::api::CommandApi;
use crate::attempt::{Attempt, JsonText};
use crate::exports::{REFUSALS, filters_of, identity, members};
use crate::job::{self, Asked};
use crate::operation::job_write;
use crate::refusal;

/// What a command of a batch may have, and one for many tasks may not.
const OF_ONE_TASK: [&str; 5] = ["task_id", "id", "command_id", "occurred_at", "expected_version"];

/// Adds the job that gives the command to each task.
pub(crate) async fn bulk(State(api): State<CommandApi>, attempt: Attempt, body: JsonText) -> Result<Response, Problem> {
    attempt.refuse_condition("If-Match is for one task")?;
    api.files()?;
    let json = body.json()?;
    let mut invalid = InvalidFields::default();
    let (mut filters, mut command, mut dry_run) = (None, None, false);
    for (name, value) in members(&json)? {
        match (name.as_ref(), value) {
            ("filter" | "command" | "dry_run", Json::Null) => {}
            ("filter", value) => {
                filters = filters_of(value, &mut invalid);
                if filters.as_ref().is_some_and(Filters::is_empty) {
                    invalid.breaks_rule("/filter", "must have at least one member");
                }
            }
            ("command", value) => command = Some(value),
            ("dry_run", Json::Bool(value)) => dry_run = *value,
            ("dry_run", _) => invalid.malformed("/dry_run", "must be true or false"),
            (unknown, _) => invalid.unknown(unknown),
        }
    }
    if filters.is_none() && !invalid.errors().iter().any(|error| error.pointer.starts_with("/filter")) {
        invalid.missing("/filter");
    }
    let command = match command {
        Some(command) => command_of(command, &mut invalid),
        None => {
            invalid.missing("/command");
            None
        }
    };
    let (filters, command) = invalid.or(filters.zip(command))?;
    let until = api.position_now(attempt.principal.shard).await?;
    let identity = identity(&attempt, "/api/v1/tasks/bulk", &json);
    let request = Request::Bulk { filters, command, until };
    api.submit(&attempt, Asked { id: new_id(), request, dry_run, identity }).await.0
}

/// The command as it stands in a batch, for the task whose id is nil.
fn command_of(command: &Json<'_>, invalid: &mut InvalidFields) -> Option<String> {
    let Json::Object(members) = command else {
        invalid.malformed("/command", "must be an object");
        return None;
    };
    let mut of_no_task = Map::new();
    for (name, value) in members {
        if OF_ONE_TASK.contains(&name.as_ref()) {
            invalid.malformed(format!("/command/{name}"), "there is no such field in a command for many tasks");
            return None;
        }
        if name == "type" && matches!(value, Json::Text(text) if text == CommandType::Create.as_str()) {
            invalid.breaks_rule("/command/type", "must be of tasks that are there");
            return None;
        }
        of_no_task.insert(name.to_string(), value_of(value));
    }
    of_no_task.insert("task_id".to_owned(), json!(uuid::Uuid::nil()));
    let text = Value::Object(of_no_task).to_string();
    match line::parse(text.as_bytes()) {
        Ok(_) => Some(text),
        Err(ParseError::Fields(wrong)) => {
            let is_malformed = wrong.is_malformed();
            for error in wrong.errors() {
                let pointer = format!("/command{}", error.pointer);
                if is_malformed {
                    invalid.malformed(pointer, error.detail.clone());
                } else {
                    invalid.breaks_rule(pointer, error.detail.clone());
                }
            }
            None
        }
        Err(error) => {
            invalid.breaks_rule("/command", refusal::parse_problem(error).to_string());
            None
        }
    }
}

fn value_of(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => json!(value),
        Json::Integer(value) => json!(value),
        Json::Number(value) => json!(value),
        Json::Text(value) => json!(value),
        Json::List(items) => items.iter().map(value_of).collect(),
        Json::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.to_string(), value_of(value))).collect())
        }
    }
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["filter", "command"],
        "properties": {
            "filter": {"allOf": [reference("Filter"), {"minProperties": 1}]},
            "command": {
                "type": "object",
                "required": ["type"],
                "description": "As in a batch, without `task_id`, `command_id`, `occurred_at` and `expected_version`, and \
                                not `CreateTask`.",
                "properties": {"type": {"type": "string"}},
            },
            "dry_run": {"type": ["boolean", "null"], "default": false},
        },
    })
}

pub(crate) fn described() -> Operation {
    let example = json!({"filter": {"status": "pending", "overdue": "true"}, "command": {"type": "CancelTask"}});
    job_write("changeTasks", "Give one command to many tasks")
        .says(
            "The tasks are those that match at the account's last event before the request; each is decided as it stands at \
             its turn. One that refuses is an error of the job, and the others go on. With `dry_run` nothing changes.",
        )
        .body(&["application/json"], &reference("BulkChange"), &example)
        .json(
            202,
            "The job.",
            &["Location", "Consistency-Token", "Idempotent-Replayed"],
            &reference("Job"),
            &job::example(),
        )
        .refuses(&REFUSALS)
        .refuses(&[ProblemCode::StreamUnreadable])
}
