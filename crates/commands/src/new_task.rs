use domain::{
    Description, InvalidFields, NewTask, Priority, Rank, Tags, TaskCommand, TaskId, Time, Title, parse_time, parse_uuid,
};

use crate::fields;
use crate::json::Json;

/// A new task as far as its fields have been read. `null` is absence.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Inner `None`: given, but wrong, which is reported already.
    title: Option<Option<Title>>,
    description: Option<Description>,
    priority: Option<Priority>,
    due_at: Option<Time>,
    tags: Option<Tags>,
    rank: Option<Rank>,
}

impl Draft {
    /// Takes a field if it is one of a new task; says whether it was.
    pub(crate) fn take(&mut self, invalid: &mut InvalidFields, name: &str, json: &Json<'_>) -> bool {
        let absent = matches!(json, Json::Null);
        match name {
            "title" | "description" | "priority" | "due_at" | "tags" | "rank" if absent => {}
            "title" => self.title = Some(fields::value(invalid, "/title", json, Title::parse)),
            "description" => self.description = fields::value(invalid, "/description", json, Description::parse),
            "priority" => self.priority = fields::value(invalid, "/priority", json, Priority::parse),
            "due_at" => self.due_at = fields::value(invalid, "/due_at", json, parse_time),
            "tags" => self.tags = fields::tags(invalid, "/tags", json),
            "rank" => self.rank = fields::value(invalid, "/rank", json, Rank::parse),
            _ => return false,
        }
        true
    }

    /// The command, if the title is there. Whether anything else was wrong is in `invalid`.
    pub(crate) fn finish(self, invalid: &mut InvalidFields) -> Option<TaskCommand> {
        let Self { title, description, priority, due_at, tags, rank } = self;
        if title.is_none() {
            invalid.missing("/title");
        }
        let title = title.flatten()?;
        let priority = priority.unwrap_or(Priority::Medium);
        Some(TaskCommand::Create(Box::new(NewTask {
            title,
            description,
            priority,
            due_at,
            tags: tags.unwrap_or_default(),
            rank,
        })))
    }
}

/// A new task as an object of its own: the id that the client chose, if it did, and the command.
///
/// # Errors
/// Every field that is wrong.
pub fn parse(json: &Json<'_>) -> Result<(Option<TaskId>, TaskCommand), InvalidFields> {
    let mut invalid = InvalidFields::default();
    let mut draft = Draft::default();
    let mut id = None;
    for (name, value) in fields::object(json)? {
        match (name.as_ref(), value) {
            ("id", Json::Null) => {}
            ("id", value) => id = fields::value(&mut invalid, "/id", value, parse_uuid).map(TaskId),
            (name, value) => {
                if !draft.take(&mut invalid, name, value) {
                    invalid.unknown(name);
                }
            }
        }
    }
    let command = draft.finish(&mut invalid);
    invalid.or(command).map(|command| (id, command))
}
