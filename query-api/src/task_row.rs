//! A task as the API shows it: from its row, or folded from its history.

use chrono::{DateTime, Utc};
use domain::{
    DESCRIPTION_CHARACTERS_MAX, Priority, Status, TAG_CHARACTERS_MAX, TAGS_MAX, TITLE_CHARACTERS_MAX, Time, format_time,
};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, time, whole};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// A task at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskRow {
    pub id: Uuid,
    pub version: i64,
    pub title: String,
    pub description: Option<String>,
    /// Code, as in the table.
    pub status: i16,
    /// Code, as in the table.
    pub priority: i16,
    pub due_at: Option<Time>,
    pub tags: Vec<String>,
    pub created_at: Time,
    pub updated_at: Time,
    pub started_at: Option<Time>,
    pub completed_at: Option<Time>,
}

/// As [`TaskRow::write`] writes it.
pub(crate) fn schema() -> Value {
    let time_or_none = || json!({"type": ["string", "null"], "format": "date-time"});
    let names = |names: Vec<&str>| json!({"type": "string", "enum": names});
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "title": {"type": "string", "minLength": 1, "maxLength": TITLE_CHARACTERS_MAX},
        "description": {"type": ["string", "null"], "maxLength": DESCRIPTION_CHARACTERS_MAX},
        "status": names(Status::ALL.iter().map(|status| status.as_str()).collect()),
        "priority": names(Priority::ALL.iter().map(|priority| priority.as_str()).collect()),
        "due_at": time_or_none(),
        "tags": {
            "type": "array", "maxItems": TAGS_MAX, "uniqueItems": true,
            "items": {"type": "string", "minLength": 1, "maxLength": TAG_CHARACTERS_MAX},
        },
        "version": {"type": "integer", "minimum": 1},
        "created_at": time(),
        "updated_at": time(),
        "started_at": time_or_none(),
        "completed_at": time_or_none(),
    }))
}

pub(crate) fn example() -> Value {
    json!({
        "id": EXAMPLE_ID, "title": "Ring Zoë", "description": null, "status": "pending", "priority": "high",
        "due_at": "2027-01-31T12:00:00Z", "tags": ["home"], "version": 1, "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME, "started_at": null, "completed_at": null,
    })
}

/// The name of a status by its code.
pub(crate) fn status_name(code: i16) -> &'static str {
    name(Status::ALL, code, Status::as_str)
}

/// The name of a priority by its code.
pub(crate) fn priority_name(code: i16) -> &'static str {
    name(Priority::ALL, code, Priority::as_str)
}

fn name<T: Copy>(all: &[T], code: i16, name: impl Fn(T) -> &'static str) -> &'static str {
    usize::try_from(code).ok().and_then(|at| all.get(at)).map_or("unknown", |value| name(*value))
}

impl TaskRow {
    /// Appends the task in JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(self.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        out.extend_from_slice(b"\",\"title\":");
        write_text(out, &self.title);
        out.extend_from_slice(b",\"description\":");
        match &self.description {
            Some(description) => write_text(out, description),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"status\":\"");
        out.extend_from_slice(status_name(self.status).as_bytes());
        out.extend_from_slice(b"\",\"priority\":\"");
        out.extend_from_slice(priority_name(self.priority).as_bytes());
        out.extend_from_slice(b"\",\"due_at\":");
        write_time(out, self.due_at);
        out.extend_from_slice(b",\"tags\":[");
        for (n, tag) in self.tags.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            write_text(out, tag);
        }
        out.extend_from_slice(b"],\"version\":");
        write_number(out, self.version);
        out.extend_from_slice(b",\"created_at\":");
        write_time(out, Some(self.created_at));
        out.extend_from_slice(b",\"updated_at\":");
        write_time(out, Some(self.updated_at));
        out.extend_from_slice(b",\"started_at\":");
        write_time(out, self.started_at);
        out.extend_from_slice(b",\"completed_at\":");
        write_time(out, self.completed_at);
        out.push(b'}');
    }

    /// In JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(400 + self.title.len() + self.description.as_ref().map_or(0, String::len));
        self.write(&mut out);
        out
    }
}

/// Appends a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        // Writing a string into a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// Appends a time, or null.
pub(crate) fn write_time(out: &mut Vec<u8>, time: Option<Time>) {
    match time {
        Some(time) => {
            out.push(b'"');
            out.extend_from_slice(format_time(time).as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a number.
pub(crate) fn write_number(out: &mut Vec<u8>, number: i64) {
    use std::io::Write;
    // Nor can this.
    let _ = write!(out, "{number}");
}

/// One row of a task's history, as far as the fold needs it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub version: i64,
    pub occurred_at: Time,
    /// JSON object {field: {from, to}}.
    pub changes: String,
}

/// Why a history cannot be folded: the table is not as its writer promised.
#[derive(Debug, thiserror::Error)]
#[error("history of task {task_id} at version {version}: {reason}")]
pub(crate) struct Unfoldable {
    task_id: Uuid,
    version: i64,
    reason: String,
}

/// Folds the history of one task, oldest first from version 1: each call of [`Fold::apply`] gives the task after that
/// change. Both `as_of` and the stream are made by it.
#[derive(Debug)]
pub(crate) struct Fold {
    task_id: Uuid,
    task: Option<TaskRow>,
}

impl Fold {
    pub fn of(task_id: Uuid) -> Self {
        Self { task_id, task: None }
    }

    /// The task after this change.
    pub fn apply(&mut self, change: &Change) -> Result<&TaskRow, Unfoldable> {
        let unfoldable = |reason: String| Unfoldable { task_id: self.task_id, version: change.version, reason };
        let to: Changes = serde_json::from_str(&change.changes).map_err(|error| unfoldable(error.to_string()))?;
        let expected = self.version() + 1;
        if change.version != expected {
            return Err(unfoldable(format!("version {expected} was to come")));
        }
        let code = |found: Result<i16, domain::Invalid>| found.map_err(|invalid| unfoldable(invalid.to_string()));
        let status = to.status.map(|status| code(Status::parse(&status.to).map(Status::code))).transpose()?;
        let priority =
            to.priority.map(|priority| code(Priority::parse(&priority.to).map(Priority::code))).transpose()?;
        let task = self.task.get_or_insert_with(|| TaskRow::blank(self.task_id, change.occurred_at));
        task.version = change.version;
        task.updated_at = change.occurred_at;
        set(&mut task.title, to.title);
        set(&mut task.description, to.description);
        task.status = status.unwrap_or(task.status);
        task.priority = priority.unwrap_or(task.priority);
        set(&mut task.due_at, to.due_at);
        set(&mut task.tags, to.tags);
        set(&mut task.started_at, to.started_at);
        set(&mut task.completed_at, to.completed_at);
        Ok(task)
    }

    /// The version that it has come to.
    pub fn version(&self) -> i64 {
        self.task.as_ref().map_or(0, |task| task.version)
    }

    /// In memory, roughly.
    pub fn bytes(&self) -> usize {
        let texts = |task: &TaskRow| {
            let tags = task.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum::<usize>();
            task.title.len() + task.description.as_ref().map_or(0, String::len) + tags
        };
        size_of::<Self>() + self.task.as_ref().map_or(0, texts)
    }

    pub fn into_task(self) -> Option<TaskRow> {
        self.task
    }
}

impl TaskRow {
    fn blank(id: Uuid, created_at: Time) -> Self {
        Self {
            id,
            version: 0,
            title: String::new(),
            description: None,
            status: Status::Pending.code(),
            priority: Priority::Medium.code(),
            due_at: None,
            tags: Vec::new(),
            created_at,
            updated_at: created_at,
            started_at: None,
            completed_at: None,
        }
    }
}

fn set<T>(field: &mut T, to: Option<To<T>>) {
    if let Some(to) = to {
        *field = to.to;
    }
}

/// What a field became; what it was does not matter to the fold.
#[derive(Deserialize)]
struct To<T> {
    to: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Changes {
    title: Option<To<String>>,
    description: Option<To<Option<String>>>,
    status: Option<To<String>>,
    priority: Option<To<String>>,
    due_at: Option<To<Option<DateTime<Utc>>>>,
    tags: Option<To<Vec<String>>>,
    started_at: Option<To<Option<DateTime<Utc>>>>,
    completed_at: Option<To<Option<DateTime<Utc>>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn change(version: i64, changes: &str) -> Change {
        Change { version, occurred_at: at(version), changes: changes.to_owned() }
    }

    #[test]
    fn a_history_folds_to_the_task_at_each_version() {
        let mut fold = Fold::of(Uuid::nil());
        let created = r#"{"title":{"from":null,"to":"a"},"status":{"from":null,"to":"pending"},
            "priority":{"from":null,"to":"high"},"tags":{"from":[],"to":["x"]},"due_at":{"from":null,"to":"2026-01-01T00:00:00.5Z"}}"#;
        let task = fold.apply(&change(1, created)).unwrap().clone();
        assert_eq!((task.title.as_str(), task.priority, task.tags.as_slice()), ("a", 2, &["x".to_owned()][..]));
        let started = r#"{"status":{"from":"pending","to":"in_progress"},"started_at":{"from":null,"to":"1970-01-01T00:00:02Z"}}"#;
        let task = fold.apply(&change(2, started)).unwrap().clone();
        assert_eq!((task.status, task.started_at, task.created_at, task.updated_at), (1, Some(at(2)), at(1), at(2)));
        let task = fold.apply(&change(3, r#"{"due_at":{"from":"2026-01-01T00:00:00.5Z","to":null}}"#)).unwrap();
        assert_eq!((task.due_at, task.version), (None, 3));
    }

    #[test]
    fn a_hole_or_an_unknown_value_is_told() {
        let mut fold = Fold::of(Uuid::nil());
        assert!(fold.apply(&change(2, "{}")).is_err());
        assert!(fold.apply(&change(1, r#"{"status":{"from":null,"to":"asleep"}}"#)).is_err());
        assert!(fold.apply(&change(1, r#"{"title":{"from":null,"to":7}}"#)).is_err());
    }

    #[test]
    fn json_is_escaped() {
        let mut task = TaskRow::blank(Uuid::nil(), at(0));
        task.title = "a \"b\" \\ ü".into();
        task.description = Some("line\nline\u{7f}".into());
        task.tags = vec!["x".into(), "y\"".into()];
        let value: serde_json::Value = serde_json::from_slice(&task.to_json()).unwrap();
        assert_eq!(value["title"], task.title);
        assert_eq!(value["description"], "line\nline\u{7f}");
        assert_eq!(value["tags"], serde_json::json!(["x", "y\""]));
        assert_eq!(value["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(value["due_at"], serde_json::Value::Null);
        let keys = [
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
        assert_eq!(value.as_object().unwrap().len(), keys.len());
        assert!(keys.iter().all(|key| value.get(key).is_some()));
    }
}
