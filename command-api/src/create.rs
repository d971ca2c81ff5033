//! `POST /api/v1/tasks`, and the content of a `CreateTask` in a batch.

use axum::extract::State;
use axum::response::Response;
use domain::{Description, NewTask, Priority, Tags, TaskCommand, TaskId, Time, Title, parse_time};
use http_api::openapi::{EXAMPLE_ID, Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use process::clock;
use serde_json::{Value, json};

use crate::attempt::{Attempt, JsonText};
use crate::fields::{self, Mistakes};
use crate::json::Json;
use crate::{CommandApi, answer, schema as field, write};

/// Makes a task: 201, or 200 where it was made before with the same content.
pub(crate) async fn create(
    State(api): State<CommandApi>,
    attempt: Attempt,
    body: JsonText,
) -> Result<Response, Problem> {
    let json = body.json()?;
    let (id, command) = parse(&json)?;
    let task_id = id.unwrap_or_else(|| TaskId(clock::new_id()));
    let item = attempt.item(task_id, command, Some(&json));
    api.execute(&attempt, item).await.map(|accepted| api.answer(&attempt).created(&accepted))
}

pub(crate) fn described() -> Operation {
    let example = json!({"title": "Ring Zoë", "priority": "high", "due_at": "2027-01-31T12:00:00Z", "tags": ["home"]});
    let headers = ["ETag", "Location", "Consistency-Token", "Idempotent-Replayed"];
    write("createTask", "Makes a task")
        .says(
            "An `id` may be chosen, so that a client can make tasks while it is offline: ids are the account's own. The same \
             id again with the same content is the same task.",
        )
        .header("If-Match")
        .body(&["application/json"], &reference("NewTask"), &example)
        .json(201, "Made.", &headers, &reference("Accepted"), &answer::example())
        .json(200, "It was made before, with the same content.", &headers, &reference("Accepted"), &answer::example())
        .refuses(&[ProblemCode::TooManyTags, ProblemCode::TaskExists, ProblemCode::StaleVersion])
}

pub(crate) fn schema() -> Value {
    let mut schema = members();
    schema["type"] = json!("object");
    schema["additionalProperties"] = json!(false);
    schema["examples"] = json!([{"title": "water", "id": EXAMPLE_ID}]);
    schema
}

/// What a new task has, as a body or as a command of a batch.
pub(crate) fn members() -> Value {
    let members = json!({
        "id": field::id(),
        "title": field::title(),
        "description": field::description(),
        "priority": field::priority_or_absent(),
        "due_at": field::due_at(),
        "tags": field::tags(),
    });
    json!({"properties": members, "required": ["title"]})
}

/// A new task as far as its fields have been read. `null` is absence.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Inner `None`: given, but wrong, which is reported already.
    title: Option<Option<Title>>,
    description: Option<Description>,
    priority: Option<Priority>,
    due_at: Option<Time>,
    tags: Option<Tags>,
}

impl Draft {
    /// Takes a field if it is one of a new task; says whether it was.
    pub(crate) fn take(&mut self, mistakes: &mut Mistakes, name: &str, json: &Json<'_>) -> bool {
        let absent = matches!(json, Json::Null);
        match name {
            "title" | "description" | "priority" | "due_at" | "tags" if absent => {}
            "title" => self.title = Some(fields::value(mistakes, "/title", json, Title::parse)),
            "description" => self.description = fields::value(mistakes, "/description", json, Description::parse),
            "priority" => self.priority = fields::value(mistakes, "/priority", json, Priority::parse),
            "due_at" => self.due_at = fields::value(mistakes, "/due_at", json, parse_time),
            "tags" => self.tags = fields::tags(mistakes, "/tags", json),
            _ => return false,
        }
        true
    }

    /// The command, if the title is there. Whether anything else was wrong stands in `mistakes`.
    pub(crate) fn finish(self, mistakes: &mut Mistakes) -> Option<TaskCommand> {
        let Self { title, description, priority, due_at, tags } = self;
        if title.is_none() {
            mistakes.missing("/title");
        }
        let title = title.flatten()?;
        let priority = priority.unwrap_or(Priority::Medium);
        Some(TaskCommand::Create(Box::new(NewTask {
            title,
            description,
            priority,
            due_at,
            tags: tags.unwrap_or_default(),
        })))
    }
}

/// The body of a POST: the id that the client chose, if it did, and the command.
fn parse(json: &Json<'_>) -> Result<(Option<TaskId>, TaskCommand), Problem> {
    let mut mistakes = Mistakes::default();
    let mut draft = Draft::default();
    let mut id = None;
    for (name, value) in fields::object(json)? {
        match (name.as_ref(), value) {
            ("id", Json::Null) => {}
            ("id", value) => id = fields::value(&mut mistakes, "/id", value, fields::uuid).map(TaskId),
            (name, value) => {
                if !draft.take(&mut mistakes, name, value) {
                    mistakes.unknown(name);
                }
            }
        }
    }
    let command = draft.finish(&mut mistakes);
    mistakes.or(command).map(|command| (id, command))
}
