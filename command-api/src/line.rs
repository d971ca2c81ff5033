//! One command of a batch or one line of an import: `{"type", "task_id", "command_id"?, "occurred_at"?,
//! "expected_version"?, …}`.

use domain::{CommandId, Invalid, TaskCommand, TaskId, TaskPatch, Time, parse_time};
use service_kit::problem::{Problem, ProblemCode};
use uuid::Uuid;

use crate::create::Draft;
use crate::fields::{self, Mistakes};
use crate::json::{self, Json};
use crate::patch;

/// How long one command may be, in bytes: as long as the body of a single request.
pub const BYTES_MAX: usize = 1024 * 1024;

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
        Ok(match text {
            "CreateTask" => Self::Create,
            "RenameTask" => Self::Change("title"),
            "DescribeTask" => Self::Change("description"),
            "ReprioritizeTask" => Self::Change("priority"),
            "ScheduleTask" => Self::Change("due_at"),
            "TagTask" => Self::Tag,
            "UntagTask" => Self::Untag,
            "StartTask" => Self::Start,
            "CompleteTask" => Self::Complete,
            "ReopenTask" => Self::Reopen,
            "CancelTask" => Self::Cancel,
            "DeleteTask" => Self::Delete,
            _ => return Err(Invalid("is not the type of a command".into())),
        })
    }
}

/// Parses a line.
///
/// # Errors
/// 400 what is not understood, 413 what is too long, 422 what breaks a rule; with everything that is wrong.
pub fn parse(text: &[u8]) -> Result<Line, Problem> {
    if text.len() > BYTES_MAX {
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
                // How many a task may have is for the rules to say (409), which know those it has.
                self.tags = Some(fields::tags(mistakes, "/tags", json, usize::MAX));
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
