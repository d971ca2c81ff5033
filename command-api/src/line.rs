//! One command of a batch or one line of an import: `{"type", "task_id", "command_id"?, "occurred_at"?,
//! "expected_version"?, …}`.

use domain::{CommandId, Invalid, TaskCommand, TaskId, TaskPatch, Time, parse_time};
use http_api::body::BODY_BYTES_MAX;
use http_api::openapi::EXAMPLE_ID;
use http_api::problem::{Problem, ProblemCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::create::{self, Draft};
use crate::fields::{self, Mistakes};
use crate::json::{self, Json};
use crate::{patch, schema as field};

/// A command that is right in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The task it is for.
    pub task_id: TaskId,
    /// What is asked.
    pub command: TaskCommand,
    /// The command's own id, under which it has one effect at most.
    pub command_id: Option<CommandId>,
    /// When it happened. Whether that is in the future is for the domain to say.
    pub occurred_at: Option<Time>,
    /// The version that the task must have; 0 or more.
    pub expected_version: Option<i64>,
    /// Of the command's content as JSON, without its `command_id`.
    pub fingerprint: Uuid,
}

/// What the `type` of a line may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    /// Rename, describe, reprioritize, schedule: a patch of this one field.
    Change(&'static str),
    Tag,
    Untag,
    Start,
    Complete,
    Reopen,
    Cancel,
    Delete,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let found = TYPES.iter().find(|(name, ..)| *name == text);
        found.map(|(_, kind, _)| *kind).ok_or_else(|| Invalid("is not the type of a command".into()))
    }
}

/// The schema of what only lines of a type have.
type Own = fn() -> Value;

const TYPES: [(&str, Kind, Own); 12] = [
    ("CreateTask", Kind::Create, create::members),
    ("RenameTask", Kind::Change("title"), || one("title", field::title())),
    ("DescribeTask", Kind::Change("description"), || one("description", field::description())),
    ("ReprioritizeTask", Kind::Change("priority"), || one("priority", field::priority())),
    ("ScheduleTask", Kind::Change("due_at"), || one("due_at", field::due_at())),
    ("TagTask", Kind::Tag, tag_or_tags),
    ("UntagTask", Kind::Untag, tag_or_tags),
    ("StartTask", Kind::Start, nothing),
    ("CompleteTask", Kind::Complete, nothing),
    ("ReopenTask", Kind::Reopen, nothing),
    ("CancelTask", Kind::Cancel, nothing),
    ("DeleteTask", Kind::Delete, nothing),
];

/// Parses a line.
///
/// # Errors
/// 400 what is not understood, 413 what is too long, 422 what breaks a rule; with everything that is wrong.
pub fn parse(text: &[u8]) -> Result<Line, Problem> {
    // as long as the body of a single request
    if text.len() > BODY_BYTES_MAX {
        return Err(Problem::new(ProblemCode::BodyTooLarge).detail("A command has at most 1 MiB."));
    }
    let json = json::parse(text).map_err(|error| {
        Problem::new(ProblemCode::MalformedBody).detail(format!("Not JSON as it should be: {error}."))
    })?;
    let members = fields::object(&json)?;
    let mut mistakes = Mistakes::default();
    let kind = match members.iter().find(|(name, _)| name == "type") {
        Some((_, json)) => fields::value(&mut mistakes, "/type", json, Kind::parse),
        None => {
            mistakes.missing("/type");
            None
        }
    };
    let mut common = Common::default();
    let mut content = Content::default();
    for (name, json) in members {
        let known = common.take(&mut mistakes, name, json)
            // Without a type nobody can say what belongs to it.
            || kind.is_none_or(|kind| content.take(kind, &mut mistakes, name, json));
        if !known {
            mistakes.unknown(name);
        }
    }
    let Common { task_id, command_id, occurred_at, expected_version } = common;
    let task_id = content.own_id(task_id, &mut mistakes);
    let command = kind.and_then(|kind| content.finish(kind, &mut mistakes));
    let (task_id, command) = mistakes.or(task_id.zip(command))?;
    let fingerprint = json::fingerprint("COMMAND", "", Some(&without_command_id(json)));
    Ok(Line { task_id, command, command_id, occurred_at, expected_version, fingerprint })
}

/// The fields that every command has. `null` is absence.
#[derive(Debug, Default)]
struct Common {
    /// Inner `None`: given, but wrong.
    task_id: Option<Option<TaskId>>,
    command_id: Option<CommandId>,
    occurred_at: Option<Time>,
    expected_version: Option<i64>,
}

impl Common {
    fn take(&mut self, mistakes: &mut Mistakes, name: &str, json: &Json<'_>) -> bool {
        match (name, json) {
            ("type", _) | ("task_id" | "command_id" | "occurred_at" | "expected_version", Json::Null) => {}
            ("task_id", json) => {
                self.task_id = Some(fields::value(mistakes, "/task_id", json, fields::uuid).map(TaskId));
            }
            ("command_id", json) => {
                self.command_id = fields::value(mistakes, "/command_id", json, fields::uuid).map(CommandId);
            }
            ("occurred_at", json) => {
                self.occurred_at = fields::value(mistakes, "/occurred_at", json, parse_time);
            }
            ("expected_version", Json::Integer(version)) if *version >= 0 => self.expected_version = Some(*version),
            ("expected_version", Json::Integer(_)) => {
                mistakes.breaks_rule("/expected_version", "must not be negative");
            }
            ("expected_version", _) => {
                mistakes.not_understood("/expected_version", "must be a whole number");
            }
            (_, _) => return false,
        }
        true
    }
}

/// The fields that belong to a command's type.
#[derive(Debug, Default)]
struct Content {
    draft: Draft,
    /// `CreateTask` is as the body of a POST, which may name the id as well.
    id: Option<Option<TaskId>>,
    patch: TaskPatch,
    /// Inner `None`: given, but wrong.
    tag: Option<Option<domain::Tags>>,
    tags: Option<Option<domain::Tags>>,
    changed: bool,
}

impl Content {
    fn take(&mut self, kind: Kind, mistakes: &mut Mistakes, name: &str, json: &Json<'_>) -> bool {
        match (kind, name) {
            (Kind::Create, "id") => {
                if !matches!(json, Json::Null) {
                    self.id = Some(fields::value(mistakes, "/id", json, fields::uuid).map(TaskId));
                }
                true
            }
            (Kind::Create, name) => self.draft.take(mistakes, name, json),
            (Kind::Change(field), name) if field == name => {
                self.changed = true;
                patch::take(&mut self.patch, mistakes, name, json)
            }
            (Kind::Tag | Kind::Untag, "tag") => {
                let tag = fields::value(mistakes, "/tag", json, domain::Tag::parse);
                self.tag = Some(tag.map(|tag| domain::Tags::from([tag])));
                true
            }
            (Kind::Tag | Kind::Untag, "tags") => {
                self.tags = Some(fields::tags(mistakes, "/tags", json));
                true
            }
            (
                Kind::Change(_)
                | Kind::Tag
                | Kind::Untag
                | Kind::Start
                | Kind::Complete
                | Kind::Reopen
                | Kind::Cancel
                | Kind::Delete,
                _,
            ) => false,
        }
    }

    /// `task_id`, or `id` where only that was given; if both were, they must agree.
    fn own_id(&self, task_id: Option<Option<TaskId>>, mistakes: &mut Mistakes) -> Option<TaskId> {
        match (task_id, self.id) {
            (None, None) => {
                mistakes.missing("/task_id");
                None
            }
            (Some(task_id), None) => task_id,
            (None, Some(id)) => id,
            (Some(task_id), Some(id)) => {
                if task_id.zip(id).is_some_and(|(task_id, id)| task_id != id) {
                    mistakes.breaks_rule("/id", "must be the task_id, if it is given at all");
                }
                task_id
            }
        }
    }

    fn finish(self, kind: Kind, mistakes: &mut Mistakes) -> Option<TaskCommand> {
        Some(match kind {
            Kind::Create => return self.draft.finish(mistakes),
            Kind::Change(field) => {
                if !self.changed {
                    mistakes.breaks_rule(format!("/{field}"), "is missing");
                }
                TaskCommand::Patch(Box::new(self.patch))
            }
            Kind::Tag => TaskCommand::Tag(self.tag_or_tags(mistakes)?),
            Kind::Untag => TaskCommand::Untag(self.tag_or_tags(mistakes)?),
            Kind::Start => TaskCommand::Start,
            Kind::Complete => TaskCommand::Complete,
            Kind::Reopen => TaskCommand::Reopen,
            Kind::Cancel => TaskCommand::Cancel,
            Kind::Delete => TaskCommand::Delete,
        })
    }

    fn tag_or_tags(self, mistakes: &mut Mistakes) -> Option<domain::Tags> {
        match (self.tag, self.tags) {
            (Some(tags), None) | (None, Some(tags)) => tags,
            (None, None) => {
                mistakes.missing("/tag");
                None
            }
            (Some(_), Some(_)) => {
                mistakes.breaks_rule("/tag", "and /tags exclude each other");
                None
            }
        }
    }
}

/// Of each type, by which they are told apart.
pub(crate) fn schema() -> Value {
    let types = TYPES.iter().map(|(name, _, own)| {
        let mut schema = own();
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
    json!({"description": "One command of a batch.", "oneOf": types.collect::<Vec<_>>()})
}

/// The members that a line of any type has.
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
    let members = json!({"tag": field::tag(), "tags": {"type": "array", "items": field::tag()}});
    json!({"properties": members, "oneOf": [{"required": ["tag"]}, {"required": ["tags"]}]})
}

fn nothing() -> Value {
    json!({})
}

fn without_command_id(json: Json<'_>) -> Json<'_> {
    match json {
        Json::Object(mut members) => {
            members.retain(|(name, _)| name != "command_id");
            Json::Object(members)
        }
        other @ (Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::List(_)) => {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "01932c6e-7d3b-7cc1-a5ad-0242ac120002";
    const OTHER: &str = "01932c6e-7d3b-7cc1-a5ad-0242ac120003";

    /// A line of this type with these further members, for [`TASK`].
    fn line(kind: &str, members: &str) -> String {
        let comma = if members.is_empty() { "" } else { "," };
        format!(r#"{{"type":"{kind}","task_id":"{TASK}"{comma}{members}}}"#)
    }

    fn read(text: &str) -> Line {
        parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    /// Status and pointers of what is refused.
    fn refused(text: &str) -> (u16, Vec<String>) {
        let problem = parse(text.as_bytes()).expect_err(text);
        (problem.status().as_u16(), problem.errors().iter().map(|error| error.pointer.to_string()).collect())
    }

    fn patch_of(line: &Line) -> &TaskPatch {
        match &line.command {
            TaskCommand::Patch(patch) => patch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_type_becomes_its_command() {
        let created =
            read(&line("CreateTask", r#""title":" A ","tags":["X","x "],"priority":"high","description":null"#));
        let TaskCommand::Create(new) = &created.command else { panic!("{created:?}") };
        assert_eq!((new.title.as_str(), new.tags.len(), new.priority), ("A", 1, domain::Priority::High));
        assert_eq!(created.task_id.to_string(), TASK);
        assert_eq!(patch_of(&read(&line("RenameTask", r#""title":"B""#))).title.as_ref().unwrap().as_str(), "B");
        assert_eq!(patch_of(&read(&line("DescribeTask", r#""description":null"#))).description, Some(None));
        assert_eq!(
            patch_of(&read(&line("ReprioritizeTask", r#""priority":"low""#))).priority,
            Some(domain::Priority::Low)
        );
        assert_eq!(patch_of(&read(&line("ScheduleTask", r#""due_at":null"#))).due_at, Some(None));
        for (kind, command) in [
            ("StartTask", TaskCommand::Start),
            ("CompleteTask", TaskCommand::Complete),
            ("ReopenTask", TaskCommand::Reopen),
            ("CancelTask", TaskCommand::Cancel),
            ("DeleteTask", TaskCommand::Delete),
        ] {
            assert_eq!(read(&line(kind, "")).command, command);
        }
        let one = read(&line("TagTask", r#""tag":"a""#)).command;
        assert_eq!(one, read(&line("TagTask", r#""tags":["A"," a"]"#)).command);
        assert!(matches!(one, TaskCommand::Tag(tags) if tags.len() == 1));
        assert!(
            matches!(read(&line("UntagTask", r#""tags":[]"#)).command, TaskCommand::Untag(tags) if tags.is_empty())
        );
    }

    #[test]
    fn the_common_fields_are_read_and_null_is_absence() {
        let read_one = read(&line(
            "StartTask",
            &format!(r#""command_id":"{OTHER}","occurred_at":"2013-01-02T03:04:05+01:00","expected_version":7"#),
        ));
        assert_eq!(read_one.command_id.unwrap().to_string(), OTHER);
        assert_eq!(domain::format_time(read_one.occurred_at.unwrap()), "2013-01-02T02:04:05Z");
        assert_eq!(read_one.expected_version, Some(7));
        let nulls = read(&line("StartTask", r#""command_id":null,"occurred_at":null,"expected_version":null"#));
        assert_eq!((nulls.command_id, nulls.occurred_at, nulls.expected_version), (None, None, None));
    }

    #[test]
    fn create_may_name_the_id_as_the_body_of_a_post_does() {
        let only_id = format!(r#"{{"type":"CreateTask","id":"{TASK}","title":"a"}}"#);
        assert_eq!(read(&only_id).task_id.to_string(), TASK);
        assert_eq!(read(&line("CreateTask", &format!(r#""title":"a","id":"{TASK}""#))).task_id.to_string(), TASK);
        assert_eq!(
            refused(&line("CreateTask", &format!(r#""title":"a","id":"{OTHER}""#))),
            (422, vec!["/id".to_owned()])
        );
        assert_eq!(refused(&line("StartTask", &format!(r#""id":"{TASK}""#))), (400, vec!["/id".to_owned()]));
    }

    #[test]
    fn what_is_not_understood_is_400() {
        let none: [&str; 0] = [];
        for (text, pointers) in [
            ("", &none[..]),
            ("{", &none),
            ("nonsense", &none),
            ("{\"type\":\"StartTask\",\"type\":\"StartTask\"}", &none),
            ("[]", &[""]),
            ("null", &[""]),
            (r#"{"type":1}"#, &["/type", "/task_id"]),
            (&line("StartTask", r#""title":"a""#), &["/title"]),
            (&line("RenameTask", r#""title":"a","priority":"low""#), &["/priority"]),
            (
                &line("CreateTask", r#""title":1,"tags":"a","due_at":[],"priority":{},"description":true"#),
                &["/title", "/tags", "/due_at", "/priority", "/description"],
            ),
            (&line("CreateTask", r#""title":"a","tags":["x",1,["y"]]"#), &["/tags/1", "/tags/2"]),
            (&line("StartTask", r#""expected_version":1.5"#), &["/expected_version"]),
            (&line("StartTask", r#""expected_version":"1""#), &["/expected_version"]),
            (&line("StartTask", r#""expected_version":18446744073709551616"#), &["/expected_version"]),
            (&line("StartTask", r#""command_id":7"#), &["/command_id"]),
            (&line("TagTask", r#""tag":["a"]"#), &["/tag"]),
        ] {
            assert_eq!(refused(text), (400, pointers.iter().map(ToString::to_string).collect()), "{text}");
        }
        assert_eq!(parse(b"{\"type\":\"\xff\"}").unwrap_err().status(), 400);
    }

    #[test]
    fn what_breaks_a_rule_is_422() {
        let long_title = line("CreateTask", &format!(r#""title":"{}""#, "x".repeat(201)));
        let long_description = line("CreateTask", &format!(r#""title":"a","description":"{}""#, "ä".repeat(10_001)));
        let tags = |count: usize| (0..count).map(|i| format!("\"t{i}\"")).collect::<Vec<_>>().join(",");
        for (text, pointers) in [
            ("{}", &["/type", "/task_id"][..]),
            (&format!(r#"{{"task_id":"{TASK}","title":"a"}}"#), &["/type"]),
            (&format!(r#"{{"type":"MakeTask","task_id":"{TASK}"}}"#), &["/type"]),
            (&format!(r#"{{"type":null,"task_id":"{TASK}"}}"#), &["/type"]),
            (r#"{"type":"StartTask"}"#, &["/task_id"]),
            (r#"{"type":"StartTask","task_id":null}"#, &["/task_id"]),
            (r#"{"type":"StartTask","task_id":"7"}"#, &["/task_id"]),
            (&line("CreateTask", ""), &["/title"]),
            (&line("CreateTask", r#""title":null"#), &["/title"]),
            (
                &line("CreateTask", r#""title":" ","priority":"huge","due_at":"2026-02-30T00:00:00Z""#),
                &["/title", "/priority", "/due_at"],
            ),
            (&line("CreateTask", r#""title":"a\u0000b""#), &["/title"]),
            (&line("CreateTask", r#""title":"a","description":"\u0000""#), &["/description"]),
            (&line("CreateTask", r#""title":"a","tags":["a,b",null,""]"#), &["/tags/0", "/tags/1", "/tags/2"]),
            (&long_title, &["/title"]),
            (&long_description, &["/description"]),
            (&line("RenameTask", ""), &["/title"]),
            (&line("RenameTask", r#""title":null"#), &["/title"]),
            (&line("ReprioritizeTask", r#""priority":null"#), &["/priority"]),
            (&line("ScheduleTask", ""), &["/due_at"]),
            (&line("DescribeTask", ""), &["/description"]),
            (&line("TagTask", ""), &["/tag"]),
            (&line("TagTask", r#""tag":"a","tags":["b"]"#), &["/tag"]),
            (&line("TagTask", r#""tag":null"#), &["/tag"]),
            (&line("UntagTask", r#""tags":null"#), &["/tags"]),
            (&line("StartTask", r#""expected_version":-1"#), &["/expected_version"]),
            (&line("StartTask", r#""command_id":"x","occurred_at":"yesterday""#), &["/command_id", "/occurred_at"]),
        ] {
            assert_eq!(refused(text), (422, pointers.iter().map(ToString::to_string).collect()), "{text}");
        }
        // How many tags a task may get by TagTask is for the rules to say.
        read(&line("TagTask", &format!(r#""tags":[{}]"#, tags(21))));
        read(&line("CreateTask", &format!(r#""title":"a","tags":[{},"T0"]"#, tags(20))));
    }

    #[test]
    fn a_line_longer_than_a_single_body_fails_alone() {
        let long = line("RenameTask", &format!(r#""title":"{}""#, "x".repeat(BODY_BYTES_MAX)));
        assert_eq!(parse(long.as_bytes()).unwrap_err().status(), 413);
    }

    #[test]
    fn the_fingerprint_is_of_the_content_without_the_command_id() {
        let print = |text: &str| read(text).fingerprint;
        let plain = print(&line("RenameTask", r#""title":"a""#));
        assert_eq!(plain, print(&line("RenameTask", &format!(r#""command_id":"{OTHER}" , "title":"\u0061""#))));
        assert_ne!(plain, print(&line("RenameTask", r#""title":"b""#)));
        assert_ne!(plain, print(&line("RenameTask", r#""title":"a","expected_version":1"#)));
        assert_ne!(plain, print(&line("RenameTask", r#""title":"a","occurred_at":"2013-01-02T03:04:05Z""#)));
        assert_ne!(plain, print(&line("RenameTask", r#""title":"a""#).replace(TASK, OTHER)));
        // Stored beside command ids as long as the events: a change here makes replays look like misuse.
        assert_eq!(plain.to_string(), "18da27bf-f028-33c1-4f25-feec85099c07");
    }
}
