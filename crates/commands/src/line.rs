//! `{"type", "task_id", "command_id"?, "occurred_at"?, "expected_version"?, …}`: one command of a batch, or one line of an
//! import.

use domain::{
    CommandId, Invalid, InvalidFields, Tag, Tags, TaskCommand, TaskId, TaskPatch, Time, parse_time, parse_uuid,
};
use uuid::Uuid;

use crate::identity::{CommandIdentity, fingerprint};
use crate::json::{self, Json};
use crate::new_task::Draft;
use crate::parse_error::{COMMAND_BYTES_MAX, ParseError};
use crate::request::CommandRequest;
use crate::{fields, patch, stage_reversion};

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
pub enum CommandType {
    /// A new task.
    Create,
    /// Another title.
    Rename,
    /// Another description, or none.
    Describe,
    /// Another priority.
    Reprioritize,
    /// Another due date, or none.
    Schedule,
    /// Another rank, or none.
    Rank,
    /// More tags.
    Tag,
    /// Fewer tags.
    Untag,
    /// From pending.
    Start,
    /// From pending or in progress.
    Complete,
    /// From completed or cancelled.
    Reopen,
    /// From pending or in progress.
    Cancel,
    /// Back to an earlier stage, with its times.
    RevertStage,
    /// Into the trash.
    Delete,
    /// Out of it.
    Restore,
}

impl CommandType {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Create,
        Self::Rename,
        Self::Describe,
        Self::Reprioritize,
        Self::Schedule,
        Self::Rank,
        Self::Tag,
        Self::Untag,
        Self::Start,
        Self::Complete,
        Self::Reopen,
        Self::Cancel,
        Self::RevertStage,
        Self::Delete,
        Self::Restore,
    ];

    /// As it stands in a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CreateTask",
            Self::Rename => "RenameTask",
            Self::Describe => "DescribeTask",
            Self::Reprioritize => "ReprioritizeTask",
            Self::Schedule => "ScheduleTask",
            Self::Rank => "RankTask",
            Self::Tag => "TagTask",
            Self::Untag => "UntagTask",
            Self::Start => "StartTask",
            Self::Complete => "CompleteTask",
            Self::Reopen => "ReopenTask",
            Self::Cancel => "CancelTask",
            Self::RevertStage => "RevertStage",
            Self::Delete => "DeleteTask",
            Self::Restore => "RestoreTask",
        }
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == text);
        found.ok_or_else(|| Invalid("is not the type of a command".into()))
    }

    /// The one field that a command of this type patches.
    const fn patched(self) -> Option<&'static str> {
        match self {
            Self::Rename => Some("title"),
            Self::Describe => Some("description"),
            Self::Reprioritize => Some("priority"),
            Self::Schedule => Some("due_at"),
            Self::Rank => Some("rank"),
            Self::Create
            | Self::Tag
            | Self::Untag
            | Self::Start
            | Self::Complete
            | Self::Reopen
            | Self::Cancel
            | Self::RevertStage
            | Self::Delete
            | Self::Restore => None,
        }
    }
}

/// Parses a line.
///
/// # Errors
/// See [`ParseError`]; with every field that is wrong.
pub fn parse(text: &[u8]) -> Result<Line, ParseError> {
    if text.len() > COMMAND_BYTES_MAX {
        return Err(ParseError::TooLong);
    }
    let json = json::parse(text)?;
    let members = fields::object(&json)?;
    let mut invalid = InvalidFields::default();
    let kind = match members.iter().find(|(name, _)| name == "type") {
        Some((_, json)) => fields::value(&mut invalid, "/type", json, CommandType::parse),
        None => {
            invalid.missing("/type");
            None
        }
    };
    let mut common = Common::default();
    let mut content = Content::default();
    for (name, json) in members {
        let known = common.take(&mut invalid, name, json)
            // Without a type nobody can say what belongs to it.
            || kind.is_none_or(|kind| content.take(kind, &mut invalid, name, json));
        if !known {
            invalid.unknown(name);
        }
    }
    let Common { task_id, command_id, occurred_at, expected_version } = common;
    let task_id = content.own_id(task_id, &mut invalid);
    let command = kind.and_then(|kind| content.finish(kind, &mut invalid));
    let (task_id, command) = invalid.or(task_id.zip(command))?;
    let fingerprint = fingerprint("COMMAND", "", Some(&without_command_id(json)));
    Ok(Line { task_id, command, command_id, occurred_at, expected_version, fingerprint })
}

impl Line {
    /// The request for it. `made`: the command's id where the line has none.
    #[must_use]
    pub fn request(self, made: Option<CommandId>) -> CommandRequest {
        let Self { task_id, command, command_id, occurred_at, expected_version, fingerprint } = self;
        let identity = command_id.or(made).map(|command_id| CommandIdentity { command_id, fingerprint });
        CommandRequest { task_id, command, identity, expected: expected_version.into(), occurred_at }
    }
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
    fn take(&mut self, invalid: &mut InvalidFields, name: &str, json: &Json<'_>) -> bool {
        match (name, json) {
            ("type", _) | ("task_id" | "command_id" | "occurred_at" | "expected_version", Json::Null) => {}
            ("task_id", json) => {
                self.task_id = Some(fields::value(invalid, "/task_id", json, parse_uuid).map(TaskId));
            }
            ("command_id", json) => {
                self.command_id = fields::value(invalid, "/command_id", json, parse_uuid).map(CommandId);
            }
            ("occurred_at", json) => {
                self.occurred_at = fields::value(invalid, "/occurred_at", json, parse_time);
            }
            ("expected_version", Json::Integer(version)) if *version >= 0 => self.expected_version = Some(*version),
            ("expected_version", Json::Integer(_)) => {
                invalid.breaks_rule("/expected_version", "must not be negative");
            }
            ("expected_version", _) => {
                invalid.malformed("/expected_version", "must be a whole number");
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
    tag: Option<Option<Tags>>,
    tags: Option<Option<Tags>>,
    reversion: stage_reversion::Draft,
    changed: bool,
}

impl Content {
    fn take(&mut self, kind: CommandType, invalid: &mut InvalidFields, name: &str, json: &Json<'_>) -> bool {
        match (kind, name) {
            (CommandType::Create, "id") => {
                if !matches!(json, Json::Null) {
                    self.id = Some(fields::value(invalid, "/id", json, parse_uuid).map(TaskId));
                }
                true
            }
            (CommandType::Create, name) => self.draft.take(invalid, name, json),
            (kind, name) if kind.patched() == Some(name) => {
                self.changed = true;
                patch::take(&mut self.patch, invalid, name, json)
            }
            (CommandType::Tag | CommandType::Untag, "tag") => {
                let tag = fields::value(invalid, "/tag", json, Tag::parse);
                self.tag = Some(tag.map(|tag| Tags::from([tag])));
                true
            }
            (CommandType::Tag | CommandType::Untag, "tags") => {
                self.tags = Some(fields::tags(invalid, "/tags", json));
                true
            }
            (CommandType::RevertStage, name) => self.reversion.take(invalid, name, json),
            (_, _) => false,
        }
    }

    /// `task_id`, or `id` where only that was given; if both were, they must agree.
    fn own_id(&self, task_id: Option<Option<TaskId>>, invalid: &mut InvalidFields) -> Option<TaskId> {
        match (task_id, self.id) {
            (None, None) => {
                invalid.missing("/task_id");
                None
            }
            (Some(task_id), None) => task_id,
            (None, Some(id)) => id,
            (Some(task_id), Some(id)) => {
                if task_id.zip(id).is_some_and(|(task_id, id)| task_id != id) {
                    invalid.breaks_rule("/id", "must be the task_id, if it is given at all");
                }
                task_id
            }
        }
    }

    fn finish(self, kind: CommandType, invalid: &mut InvalidFields) -> Option<TaskCommand> {
        if let Some(field) = kind.patched()
            && !self.changed
        {
            invalid.breaks_rule(format!("/{field}"), "is missing");
        }
        Some(match kind {
            CommandType::Create => return self.draft.finish(invalid),
            CommandType::Rename
            | CommandType::Describe
            | CommandType::Reprioritize
            | CommandType::Schedule
            | CommandType::Rank => TaskCommand::Patch(Box::new(self.patch)),
            CommandType::Tag => TaskCommand::Tag(self.tag_or_tags(invalid)?),
            CommandType::Untag => TaskCommand::Untag(self.tag_or_tags(invalid)?),
            CommandType::Start => TaskCommand::Start,
            CommandType::Complete => TaskCommand::Complete,
            CommandType::Reopen => TaskCommand::Reopen,
            CommandType::Cancel => TaskCommand::Cancel,
            CommandType::RevertStage => return self.reversion.finish(invalid),
            CommandType::Delete => TaskCommand::Delete,
            CommandType::Restore => TaskCommand::Restore,
        })
    }

    fn tag_or_tags(self, invalid: &mut InvalidFields) -> Option<Tags> {
        match (self.tag, self.tags) {
            (Some(tags), None) | (None, Some(tags)) => tags,
            (None, None) => {
                invalid.missing("/tag");
                None
            }
            (Some(_), Some(_)) => {
                invalid.breaks_rule("/tag", "and /tags exclude each other");
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
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Of what is refused: whether it is malformed, and the pointers.
    fn refused(text: &str) -> (bool, Vec<String>) {
        match parse(text.as_bytes()).expect_err(text) {
            ParseError::Fields(invalid) => {
                (invalid.is_malformed(), invalid.errors().iter().map(|error| error.pointer.to_string()).collect())
            }
            ParseError::NotJson(_) => (true, Vec::new()),
            other => panic!("{text}: {other}"),
        }
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
            ("RestoreTask", TaskCommand::Restore),
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
    fn a_stage_is_reverted_with_the_times_that_it_had() {
        let reverted =
            r#""from":"completed","to":"in_progress","started_at":"2026-01-01T00:00:00Z","completed_at":null"#;
        let command = read(&line("RevertStage", reverted)).command;
        let TaskCommand::RevertStage { from, to, started_at, completed_at } = command else { panic!("{command:?}") };
        assert_eq!((from, to), (domain::Status::Completed, domain::Status::InProgress));
        assert!(started_at.is_some() && completed_at.is_none());
        for (members, pointers) in [
            ("", &["/from", "/to"][..]),
            (r#""from":"pending","to":"completed""#, &["/completed_at"]),
            (r#""from":"pending","to":"in_progress""#, &["/started_at"]),
            (r#""from":"completed","to":"pending","started_at":"2026-01-01T00:00:00Z""#, &["/started_at"]),
            (r#""from":"completed","to":"gone""#, &["/to"]),
        ] {
            assert_eq!(refused(&line("RevertStage", members)).1, pointers, "{members}");
        }
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
            (false, vec!["/id".to_owned()])
        );
        assert_eq!(refused(&line("StartTask", &format!(r#""id":"{TASK}""#))), (true, vec!["/id".to_owned()]));
    }

    #[test]
    fn what_is_malformed_is_told_apart() {
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
            assert_eq!(refused(text), (true, pointers.iter().map(ToString::to_string).collect()), "{text}");
        }
        assert!(matches!(parse(b"{\"type\":\"\xff\"}"), Err(ParseError::NotJson(_))));
    }

    #[test]
    fn what_breaks_a_rule_is_not_malformed() {
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
            assert_eq!(refused(text), (false, pointers.iter().map(ToString::to_string).collect()), "{text}");
        }
        // How many tags a task may get by TagTask is for the rules to say.
        read(&line("TagTask", &format!(r#""tags":[{}]"#, tags(21))));
        read(&line("CreateTask", &format!(r#""title":"a","tags":[{},"T0"]"#, tags(20))));
    }

    #[test]
    fn a_line_that_is_too_long_fails_alone() {
        let long = line("RenameTask", &format!(r#""title":"{}""#, "x".repeat(COMMAND_BYTES_MAX)));
        assert_eq!(parse(long.as_bytes()), Err(ParseError::TooLong));
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
