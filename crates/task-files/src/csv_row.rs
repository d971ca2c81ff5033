//! Tasks as rows of a CSV file.
//!
//! Spreadsheets take a cell for a formula that starts with `=`, `+`, `-` or `@`, some of them also where the sign is
//! full-width or stands behind white space. Such a cell gets a `'` in front on export, as does one that starts with a tab, a
//! line end or `'`, and is freed of it on import.

use std::borrow::Cow;
use std::collections::BTreeMap;

use commands::line::{self, Line};
use domain::{CommandId, format_time};
use read_model::Task;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::line_error::{LineError, RowError};
use crate::lines::{CutError, cells};

/// A task's fields, in the order of the API.
pub const FIELDS: [&str; 13] = [
    "id",
    "title",
    "description",
    "status",
    "priority",
    "due_at",
    "tags",
    "rank",
    "version",
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
];

/// Names of the ids of tasks whose row has none. Never to be changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x2b7f_60c4_1f0d_5a3e_8d5e_51c0_a9e4_77d2);

/// Why a file's first line is not the header that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a line.
    #[error("the file is empty: a CSV file begins with a line of names, title among them")]
    Empty,
    /// Hardly a header.
    #[error("the first line is not a header: {0}")]
    Cut(CutError),
    /// Text in another encoding.
    #[error("the first line is not valid UTF-8: save the file as UTF-8 (in Excel as \"CSV UTF-8\")")]
    NotUtf8,
    /// Perhaps misspelt, or the file has no header.
    #[error("the first line names {0:?}, which is no field of a task: a CSV file begins with a line of names, of {fields}", fields = FIELDS.join(", "))]
    Unknown(String),
    /// Whose cells would count?
    #[error("{0} appears more than once in the first line")]
    Repeated(&'static str),
    /// A task has one.
    #[error("the first line does not name title, which each task needs")]
    NoTitle,
}

/// Which field each cell of a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    fields: Vec<&'static str>,
    /// What stands between the cells.
    pub(crate) separator: u8,
}

impl Columns {
    /// From a file's first line: names in any order, title among them, with commas, semicolons or tabs between.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn of_header(record: &[u8]) -> Result<Self, HeaderError> {
        // No name has any of them.
        let separator = record.iter().find(|byte| b",;\t".contains(byte)).copied().unwrap_or(b',');
        let mut fields = Vec::new();
        for cell in cells(record, separator) {
            let name = str::from_utf8(&cell).map_err(|_| HeaderError::NotUtf8)?.trim().to_lowercase();
            let field = FIELDS.into_iter().find(|field| *field == name).ok_or(HeaderError::Unknown(name))?;
            if fields.contains(&field) {
                return Err(HeaderError::Repeated(field));
            }
            fields.push(field);
        }
        if fields.contains(&"title") { Ok(Self { fields, separator }) } else { Err(HeaderError::NoTitle) }
    }

    /// The row as a `CreateTask`, and the command id that `made` makes from what the row says, whatever the order of the
    /// columns. A row without an id gets one made from that.
    ///
    /// # Errors
    /// It is no row, or no command.
    pub fn command(
        &self,
        record: &[u8],
        made: impl FnOnce(&[u8]) -> CommandId,
    ) -> Result<(Line, CommandId), LineError> {
        let cells = cells(record, self.separator);
        if cells.len() != self.fields.len() {
            return Err(RowError::Cells { cells: cells.len(), columns: self.fields.len() }.into());
        }
        // Sorted by name, so that equal rows are equal.
        let mut members = BTreeMap::new();
        for (field, cell) in self.fields.iter().zip(cells) {
            let text = String::from_utf8(cell).map_err(|_| RowError::NotUtf8(field))?;
            let text = freed(&text);
            if !text.is_empty()
                && let Some((name, value)) = member(field, text)
            {
                members.insert(name, value);
            }
        }
        let json = |members: &BTreeMap<&str, Value>| json!(members).to_string();
        let command_id = made(json(&members).as_bytes());
        members.insert("type", Value::from("CreateTask"));
        members
            .entry("task_id")
            .or_insert_with(|| Value::from(Uuid::new_v5(&NAMESPACE, command_id.0.as_bytes()).to_string()));
        Ok((line::parse(json(&members).as_bytes())?, command_id))
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
        "rank" => Some(("rank", Value::from(text))),
        "created_at" => Some(("occurred_at", Value::from(text))),
        "tags" => Some(("tags", text.split(',').filter(|tag| !tag.trim().is_empty()).map(Value::from).collect())),
        _ => None,
    }
}

/// A record with its line end: LF, or CRLF where it is for Excel.
pub(crate) fn line<const N: usize>(cells: [impl AsRef<[u8]>; N], for_excel: bool) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let end = if for_excel { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
    let mut writer = csv::WriterBuilder::new().terminator(end).from_writer(&mut line);
    writer.write_record(cells).map_err(std::io::Error::from)?;
    drop(writer);
    Ok(line)
}

/// The cells of a task.
#[must_use]
pub fn row(task: &Task) -> [String; 13] {
    let time = |time: Option<domain::Time>| time.map(format_time).unwrap_or_default();
    [
        task.id.to_string(),
        task.title.clone(),
        task.description.clone().unwrap_or_default(),
        task.status.as_str().to_owned(),
        task.priority.as_str().to_owned(),
        time(task.due_at),
        task.tags.join(","),
        task.rank.clone().unwrap_or_default(),
        task.version.to_string(),
        format_time(task.created_at),
        format_time(task.updated_at),
        time(task.started_at),
        time(task.completed_at),
    ]
    .map(|cell| guarded(&cell).into_owned())
}

/// How formulas begin, full-width too.
const SIGNS: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Whether a spreadsheet may pass over a character before a formula: white space, or nothing to see.
fn is_passed_over(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A cell that no spreadsheet takes for a formula.
fn guarded(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['\t', '\r', '\n', '\'']) || cell.trim_start_matches(is_passed_over).starts_with(SIGNS) {
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
    use domain::{Priority, Status, TaskCommand, TaskId, Time};
    use proptest::prelude::*;

    use super::*;

    fn task(title: &str, description: Option<String>, tags: Vec<String>) -> Task {
        Task {
            id: Uuid::from_u128(7),
            version: 1,
            status: Status::Pending,
            priority: Priority::Urgent,
            title: title.to_owned(),
            description,
            tags,
            rank: Some("a1".to_owned()),
            due_at: domain::parse_time("2030-01-02T03:04:05.5Z").ok(),
            created_at: Time::UNIX_EPOCH,
            updated_at: Time::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
        }
    }

    fn written(task: &Task) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(row(task)).unwrap();
        let mut text = writer.into_inner().unwrap();
        assert_eq!(text.pop(), Some(b'\n'));
        text
    }

    #[test]
    fn headers_name_the_columns() {
        for separator in [',', ';', '\t'] {
            let header = format!("tags{separator} Title {separator}\"due_at\"");
            let columns = Columns { fields: vec!["tags", "title", "due_at"], separator: separator as u8 };
            assert_eq!(Columns::of_header(header.as_bytes()), Ok(columns));
        }
        let all = Columns { fields: FIELDS.to_vec(), separator: b',' };
        assert_eq!(Columns::of_header(FIELDS.join(",").as_bytes()), Ok(all));
        assert_eq!(Columns::of_header(b"title,\xe4"), Err(HeaderError::NotUtf8));
        // UTF-16 with its byte order mark
        assert_eq!(Columns::of_header(b"\xff\xfet\0i\0t\0l\0e\0"), Err(HeaderError::NotUtf8));
        for (header, error) in [
            ("titel,description", HeaderError::Unknown("titel".to_owned())),
            ("title,owner", HeaderError::Unknown("owner".to_owned())),
            ("title,", HeaderError::Unknown(String::new())),
            ("title;tags,due_at", HeaderError::Unknown("tags,due_at".to_owned())),
            ("title|tags", HeaderError::Unknown("title|tags".to_owned())),
            ("water the plants,,high", HeaderError::Unknown("water the plants".to_owned())),
            ("title,tags,Title", HeaderError::Repeated("title")),
            ("description,tags", HeaderError::NoTitle),
        ] {
            assert_eq!(Columns::of_header(header.as_bytes()), Err(error), "{header}");
        }
    }

    #[test]
    fn a_row_is_the_same_whatever_the_order_of_its_columns() {
        let read = |header: &str, row: &str| {
            let columns = Columns::of_header(header.as_bytes()).unwrap();
            let hashed = |content: &[u8]| CommandId(Uuid::new_v5(&Uuid::nil(), content));
            columns.command(row.as_bytes(), hashed).unwrap()
        };
        let one = read("title,tags,priority,version", "water,\"a,b\",high,3");
        assert_eq!(one, read("priority,title,tags", "high,water,\"a,b\""));
        assert_eq!(one, read("priority,description,tags,title,started_at", "high,,\"a,b\",'water,x"));
        assert_eq!(one, read("title;tags;priority", "water;a,b;high"));
        assert_eq!(one, read("title\ttags\tpriority", "\"water\"\ta,b\thigh"));
        assert_ne!(one.1, read("title,description", "water,high").1);
        assert_ne!(read("title,description", "a,b").1, read("title,description", "b,a").1);
        // It stands beside what was imported.
        assert_eq!(one.1.to_string(), "25386ade-da0b-5b7a-b29b-9f5a97f4c5c2");
    }

    #[test]
    fn formulas_are_guarded_and_freed() {
        for cell in [
            "=1+1",
            "+1",
            "-1",
            "@x",
            "\tx",
            "'x",
            "''",
            " =1",
            "\u{a0}-1",
            "\u{3000}@x",
            "\n=1",
            "\r\n +1",
            "\rx",
            "\nx",
            "\u{ff1d}1",
            "\u{ff0b}1",
            "\u{ff0d}1",
            "\u{ff20}x",
            " \u{ff1d}1",
            "\u{feff}=1",
            "\u{200b}=1",
            "\u{1}=1",
        ] {
            assert_eq!(guarded(cell), format!("'{cell}"));
            assert_eq!(freed(&guarded(cell)), cell);
        }
        for cell in ["a=1", "", " ", " a", "a\n=1", "1-1"] {
            assert_eq!(guarded(cell), cell);
        }
    }

    proptest! {
        #[test]
        fn what_is_exported_is_imported(
            title in "[a-z=+@',;\"é\u{ff1d}-][a-z=+@',\" é-]{0,10}[a-z=]",
            description in prop::option::of("[=+@'\t\r\n,; \"\u{3000}x]{1,12}"),
            tags in prop::collection::btree_set("[a-z=@'\"-][a-z ]{0,5}[a-z]", 0..4),
        ) {
            let tags: Vec<String> = tags.into_iter().collect();
            let row = task(&title, description.clone(), tags.clone());
            let columns = Columns::of_header(FIELDS.join(",").as_bytes()).unwrap();
            let (line, _) = columns.command(&written(&row), |_| CommandId(Uuid::nil())).unwrap();
            prop_assert_eq!(line.task_id, TaskId(row.id));
            prop_assert_eq!(line.occurred_at, Some(row.created_at));
            let TaskCommand::Create(new) = line.command else { panic!("not a CreateTask") };
            prop_assert_eq!(new.title.as_str(), title);
            prop_assert_eq!(new.description.map(|text| text.as_str().to_owned()), description);
            prop_assert_eq!(new.priority, row.priority);
            prop_assert_eq!(new.due_at, row.due_at);
            prop_assert_eq!(new.rank.map(|rank| rank.as_str().to_owned()), row.rank);
            prop_assert_eq!(new.tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>(), tags);
        }
    }
}
