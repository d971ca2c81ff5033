//! A task in JSON, as the API shows it and archives have it.

use std::io::Write;

use domain::{Time, format_time};
use uuid::Uuid;

use crate::task::Task;

/// Appends a task.
pub fn write(out: &mut Vec<u8>, task: &Task) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(task.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.extend_from_slice(b"\",\"title\":");
    write_text(out, &task.title);
    out.extend_from_slice(b",\"description\":");
    write_text_or_null(out, task.description.as_deref());
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(task.status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"priority\":\"");
    out.extend_from_slice(task.priority.as_str().as_bytes());
    out.extend_from_slice(b"\",\"due_at\":");
    write_time(out, task.due_at);
    out.extend_from_slice(b",\"tags\":");
    write_list(out, &task.tags, |out, tag| write_text(out, tag));
    out.extend_from_slice(b",\"rank\":");
    write_text_or_null(out, task.rank.as_deref());
    out.extend_from_slice(b",\"version\":");
    write_number(out, task.version);
    out.extend_from_slice(b",\"created_at\":");
    write_time(out, Some(task.created_at));
    out.extend_from_slice(b",\"updated_at\":");
    write_time(out, Some(task.updated_at));
    out.extend_from_slice(b",\"started_at\":");
    write_time(out, task.started_at);
    out.extend_from_slice(b",\"completed_at\":");
    write_time(out, task.completed_at);
    out.push(b'}');
}

/// The task alone.
#[must_use]
pub fn to_json(task: &Task) -> Vec<u8> {
    let mut out = Vec::with_capacity(400 + task.title.len() + task.description.as_ref().map_or(0, String::len));
    write(&mut out, task);
    out
}

/// Appends a string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        // Writing a string into a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// Appends a string, or null.
pub fn write_text_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a list, each item as `write` appends it.
pub fn write_list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Appends a time, or null.
pub fn write_time(out: &mut Vec<u8>, time: Option<Time>) {
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
pub fn write_number(out: &mut Vec<u8>, number: i64) {
    // Nor can this.
    let _ = write!(out, "{number}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn json_is_escaped() {
        let mut task = Task::blank(Uuid::nil(), Time::UNIX_EPOCH);
        task.title = "a \"b\" \\ ü".into();
        task.description = Some("line\nline\u{7f}".into());
        task.tags = vec!["x".into(), "y\"".into()];
        let value: Value = serde_json::from_slice(&to_json(&task)).unwrap();
        assert_eq!(value["title"], task.title);
        assert_eq!(value["description"], "line\nline\u{7f}");
        assert_eq!(value["tags"], json!(["x", "y\""]));
        assert_eq!(value["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(value["due_at"], Value::Null);
    }
}
