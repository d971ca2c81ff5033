//! With the limits of the domain. What a schema cannot say (a title that has something to see, a day that exists) is said
//! by the answer.

use commands::line::CommandType;
use domain::{
    DESCRIPTION_CHARACTERS_MAX, Priority, RANK_CHARACTERS_MAX, Status, TAG_CHARACTERS_MAX, TAGS_MAX,
    TITLE_CHARACTERS_MAX,
};
use http_api::openapi::EXAMPLE_ID;
use serde_json::{Value, json};

/// The body of a POST.
pub(crate) fn new_task() -> Value {
    let mut schema = new_task_members();
    schema["type"] = json!("object");
    schema["additionalProperties"] = json!(false);
    schema["examples"] = json!([{"title": "water", "id": EXAMPLE_ID}]);
    schema
}

/// What a new task has, as a body or as a command of a batch.
fn new_task_members() -> Value {
    let members = json!({
        "id": id(),
        "title": title(),
        "description": description(),
        "priority": priority_or_absent(),
        "due_at": due_at(),
        "tags": tags(),
        "rank": rank(),
    });
    json!({"properties": members, "required": ["title"]})
}

/// The body of a PATCH.
pub(crate) fn task_patch() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "title": title(),
            "description": description(),
            "priority": priority(),
            "due_at": due_at(),
            "tags": tags(),
            "rank": rank(),
        },
    })
}

/// Of each type, by which they are told apart.
pub(crate) fn command() -> Value {
    let types = CommandType::ALL.map(|kind| {
        let name = kind.as_str();
        let mut schema = own(kind);
        let mut required = vec![json!("type"), json!("task_id")];
        required.extend(schema["required"].as_array().into_iter().flatten().cloned());
        let mut properties = common();
        properties["type"] = json!({"const": name});
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            properties[name] = field.clone();
        }
        schema["title"] = json!(name);
        schema["type"] = json!("object");
        schema["additionalProperties"] = json!(false);
        schema["required"] = json!(required);
        schema["properties"] = properties;
        schema
    });
    json!({"description": "One command of a batch.", "oneOf": types})
}

/// What only commands of this type have.
fn own(kind: CommandType) -> Value {
    match kind {
        CommandType::Create => new_task_members(),
        CommandType::Rename => one("title", title()),
        CommandType::Describe => one("description", description()),
        CommandType::Reprioritize => one("priority", priority()),
        CommandType::Schedule => one("due_at", due_at()),
        CommandType::Rank => one("rank", rank()),
        CommandType::Tag | CommandType::Untag => tag_or_tags(),
        CommandType::RevertStage => reverted_stage(),
        CommandType::Start
        | CommandType::Complete
        | CommandType::Reopen
        | CommandType::Cancel
        | CommandType::Delete
        | CommandType::Restore => json!({}),
    }
}

fn reverted_stage() -> Value {
    let status =
        json!({"type": "string", "enum": Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>()});
    let time = |says: &str| json!({"type": ["string", "null"], "format": "date-time", "description": says});
    json!({
        "properties": {
            "from": status,
            "to": status,
            "started_at": time("There where `to` is `in_progress`, null where it is `pending`."),
            "completed_at": time("There exactly where `to` is `completed`."),
        },
        "required": ["from", "to"],
        "description": "What an undo of a stage is exported as: back to it, with the times that it had.",
    })
}

/// The members that a command of any type has.
fn common() -> Value {
    let own = "The command's own idempotency key: again with the same content it is replayed.";
    let imports = "For imports: not in the future, not before the task's previous event.";
    json!({
        "task_id": {"type": "string", "format": "uuid", "examples": [EXAMPLE_ID]},
        "command_id": {"type": ["string", "null"], "format": "uuid", "description": own},
        "occurred_at": {"type": ["string", "null"], "format": "date-time", "description": imports},
        "expected_version": {"type": ["integer", "null"], "minimum": 0, "description": "The version that the task must have."},
    })
}

fn one(name: &str, schema: Value) -> Value {
    json!({"properties": {name: schema}, "required": [name]})
}

fn tag_or_tags() -> Value {
    let members = json!({"tag": tag(), "tags": {"type": "array", "items": tag()}});
    json!({"properties": members, "oneOf": [{"required": ["tag"]}, {"required": ["tags"]}]})
}

/// What is to be done.
fn title() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": TITLE_CHARACTERS_MAX,
        "description": "Trimmed; something to see must remain. No control characters.",
    })
}

/// More about it. `null` is none.
fn description() -> Value {
    json!({"type": ["string", "null"], "maxLength": DESCRIPTION_CHARACTERS_MAX, "description": "Kept as it comes. No NUL."})
}

/// How much it matters.
fn priority() -> Value {
    json!({"type": "string", "enum": names(), "description": "`medium` where nothing is said."})
}

/// The same, `null` being absence.
fn priority_or_absent() -> Value {
    let names = names().into_iter().map(Value::from).chain([Value::Null]);
    json!({"type": ["string", "null"], "enum": names.collect::<Vec<_>>(), "description": "`medium` where nothing is said."})
}

fn names() -> Vec<&'static str> {
    Priority::ALL.iter().map(|priority| priority.as_str()).collect()
}

/// By when. `null` is never.
fn due_at() -> Value {
    json!({
        "type": ["string", "null"], "format": "date-time",
        "description": "RFC 3339 with any offset, in the years 1 to 9999; kept to the microsecond.",
    })
}

/// A place in the order that people give by hand. `null` is none.
fn rank() -> Value {
    json!({
        "type": ["string", "null"], "minLength": 1, "maxLength": RANK_CHARACTERS_MAX, "pattern": "^[0-9A-Za-z]*[1-9A-Za-z]$",
        "description": "Compared as bytes: between two ranks there is always another, a longer one.",
    })
}

/// Labels. `null` is none.
fn tags() -> Value {
    json!({
        "type": ["array", "null"], "items": tag(),
        "description": format!("At most {TAGS_MAX} different ones: with more it is `too-many-tags`."),
    })
}

/// A label.
fn tag() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": TAG_CHARACTERS_MAX, "pattern": "^[^,]*$",
        "description": "Trimmed and in lower case; no comma, no control characters.",
    })
}

/// An id that the client may choose.
fn id() -> Value {
    json!({"type": ["string", "null"], "format": "uuid", "examples": [EXAMPLE_ID]})
}
