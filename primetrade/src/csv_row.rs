//! Tasks as rows of a CSV file.
//!
//! Spreadsheets take a cell that starts with `=`, `+`, `-`, `@` or a tab for a formula. Such a cell gets a `'` in front
//! on export, as does one that starts with `'`, and is freed of it on import.

use std::borrow::Cow;

use command_api::line::Line;
use domain::{CommandId, format_time};
use projector::fold::TaskRow;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::lines::cells;

/// A task's fields, in the order of the API.
pub const FIELDS: [&str; 12] = [
    "id",
    "title",
    "description",
    "status",
    "priority",
    "due_at",
    "tags",
    "version",
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
];

/// Names of the ids of tasks whose row has none. Never to be changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x2b7f_60c4_1f0d_5a3e_8d5e_51c0_a9e4_77d2);

/// Which field each cell of a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<&'static str>);

impl Columns {
    /// From a file's first row: its header, in any order and with fields left out; or already a row, with all fields.
    ///
    /// # Errors
    /// A header with an unknown or repeated field.
    pub fn of_first(record: &[u8]) -> Result<(Self, bool), String> {
        let cells = cells(record);
        let names: Vec<String> = cells.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_lowercase()).collect();
        let fields: Vec<Option<&'static str>> =
            names.iter().map(|name| FIELDS.into_iter().find(|field| field == name)).collect();
        if fields.iter().all(Option::is_none) {
            return Ok((Self(FIELDS.to_vec()), false));
        }
        let mut columns = Vec::new();
        for (name, field) in names.iter().zip(fields) {
            let field = field.ok_or_else(|| format!("the header has a field {name:?}, which a task does not have"))?;
            if columns.contains(&field) {
                return Err(format!("the header has the field {name:?} twice"));
            }
            columns.push(field);
        }
        Ok((Self(columns), true))
    }

    /// The row as a `CreateTask`. A row without an id gets one made from its command id.
    ///
    /// # Errors
    /// In words.
    pub fn command(&self, record: &[u8], command_id: CommandId) -> Result<Line, String> {
        let cells = cells(record);
        if cells.len() != self.0.len() {
            return Err(format!("the row has {} cells, and the header {}", cells.len(), self.0.len()));
        }
        let mut members = Map::new();
        for (field, cell) in self.0.iter().zip(cells) {
            let text = String::from_utf8(cell).map_err(|_| format!("{field} is not valid UTF-8"))?;
            let text = freed(&text);
            if !text.is_empty()
                && let Some((name, value)) = member(field, text)
            {
                members.insert(name.to_owned(), value);
            }
        }
        members.insert("type".to_owned(), Value::from("CreateTask"));
        members
            .entry("task_id")
            .or_insert_with(|| Value::from(Uuid::new_v5(&NAMESPACE, command_id.0.as_bytes()).to_string()));
        let text = Value::Object(members).to_string();
        command_api::line::parse(text.as_bytes()).map_err(|problem| crate::import::reason(&problem))
    }
}

/// What a cell is in a `CreateTask`; nothing for what the command has no place for.
fn member(field: &str, text: &str) -> Option<(&'static str, Value)> {
    match field {
        "id" => Some(("task_id", Value::from(text))),
        "title" => Some(("title", Value::from(text))),
        "description" => Some(("description", Value::from(text))),
        "priority" => Some(("priority", Value::from(text))),
        "due_at" => Some(("due_at", Value::from(text))),
        "created_at" => Some(("occurred_at", Value::from(text))),
        "tags" => Some(("tags", text.split(',').filter(|tag| !tag.trim().is_empty()).map(Value::from).collect())),
        _ => None,
    }
}

/// The cells of a task.
#[must_use]
pub fn row(task: &TaskRow) -> [String; 12] {
    let time = |time: Option<domain::Time>| time.map(format_time).unwrap_or_default();
    [
        task.task_id.to_string(),
        task.title.clone(),
        task.description.clone().unwrap_or_default(),
        task.status.as_str().to_owned(),
        task.priority.as_str().to_owned(),
        time(task.due_at),
        task.tags.join(","),
        task.version.to_string(),
        format_time(task.created_at),
        format_time(task.updated_at),
        time(task.started_at),
        time(task.completed_at),
    ]
    .map(|cell| guarded(&cell).into_owned())
}

/// A cell that no spreadsheet takes for a formula.
fn guarded(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\'']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

/// The cell as it was before it was guarded.
fn freed(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use domain::{OwnerId, Priority, Status, TaskCommand, TaskId, Time};
    use proptest::prelude::*;

    use super::*;

    fn task(title: &str, description: Option<String>, tags: Vec<String>) -> TaskRow {
        TaskRow {
            owner_id: OwnerId(Uuid::nil()),
            task_id: TaskId(Uuid::from_u128(7)),
            position: 1,
            version: 1,
            deleted: false,
            status: Status::Pending,
            priority: Priority::Urgent,
            title: title.to_owned(),
            description,
            tags,
            due_at: domain::parse_time("2030-01-02T03:04:05.5Z").ok(),
            created_at: Time::UNIX_EPOCH,
            updated_at: Time::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
        }
    }

    fn written(task: &TaskRow) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(row(task)).unwrap();
        let mut text = writer.into_inner().unwrap();
        assert_eq!(text.pop(), Some(b'\n'));
        text
    }

    #[test]
    fn headers_name_the_columns() {
        assert_eq!(Columns::of_first(b"Title, tags"), Ok((Columns(vec!["title", "tags"]), true)));
        assert_eq!(Columns::of_first(b"x,y"), Ok((Columns(FIELDS.to_vec()), false)));
        assert!(Columns::of_first(b"title,owner").unwrap_err().contains("owner"));
        assert!(Columns::of_first(b"title,title").unwrap_err().contains("twice"));
    }

    #[test]
    fn formulas_are_guarded_and_freed() {
        for cell in ["=1+1", "+1", "-1", "@x", "\tx", "'x", "''"] {
            assert_eq!(guarded(cell), format!("'{cell}"));
        }
        assert_eq!(guarded("a=1"), "a=1");
    }

    proptest! {
        #[test]
        fn what_is_exported_is_imported(
            title in "[a-z=+@',\"é-][a-z=+@',\" é-]{0,10}[a-z=]",
            description in prop::option::of("[=+@'\t\r\n,\"x]{1,12}"),
            tags in prop::collection::btree_set("[a-z=@'\"-][a-z ]{0,5}[a-z]", 0..4),
        ) {
            let tags: Vec<String> = tags.into_iter().collect();
            let row = task(&title, description.clone(), tags.clone());
            let (columns, is_header) = Columns::of_first(FIELDS.join(",").as_bytes()).unwrap();
            prop_assert!(is_header);
            let line = columns.command(&written(&row), CommandId(Uuid::nil())).unwrap();
            prop_assert_eq!(line.task_id, row.task_id);
            prop_assert_eq!(line.occurred_at, Some(row.created_at));
            let TaskCommand::Create(new) = line.command else { panic!("not a CreateTask") };
            prop_assert_eq!(new.title.as_str(), title);
            prop_assert_eq!(new.description.map(|text| text.as_str().to_owned()), description);
            prop_assert_eq!(new.priority, row.priority);
            prop_assert_eq!(new.due_at, row.due_at);
            prop_assert_eq!(new.tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>(), tags);
        }
    }
}
