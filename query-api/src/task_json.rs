//! A task in JSON, as the API shows it.

use std::io::Write;

use domain::{
    DESCRIPTION_CHARACTERS_MAX, Priority, RANK_CHARACTERS_MAX, Status, TAG_CHARACTERS_MAX, TAGS_MAX,
    TITLE_CHARACTERS_MAX, Time, format_time,
};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, time, whole};
use read_model::Task;
use serde_json::{Value, json};
use uuid::Uuid;

/// As [`write`] writes it.
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
        "rank": {"type": ["string", "null"], "minLength": 1, "maxLength": RANK_CHARACTERS_MAX},
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
        "due_at": "2027-01-31T12:00:00Z", "tags": ["home"], "rank": "m", "version": 1, "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME, "started_at": null, "completed_at": null,
    })
}

/// Appends the task in JSON.
pub(crate) fn write(out: &mut Vec<u8>, task: &Task) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(task.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.extend_from_slice(b"\",\"title\":");
    write_text(out, &task.title);
    out.extend_from_slice(b",\"description\":");
    match &task.description {
        Some(description) => write_text(out, description),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(task.status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"priority\":\"");
    out.extend_from_slice(task.priority.as_str().as_bytes());
    out.extend_from_slice(b"\",\"due_at\":");
    write_time(out, task.due_at);
    out.extend_from_slice(b",\"tags\":[");
    for (n, tag) in task.tags.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_text(out, tag);
    }
    out.extend_from_slice(b"],\"rank\":");
    match &task.rank {
        Some(rank) => write_text(out, rank),
        None => out.extend_from_slice(b"null"),
    }
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

/// The task in JSON.
pub(crate) fn to_json(task: &Task) -> Vec<u8> {
    let mut out = Vec::with_capacity(400 + task.title.len() + task.description.as_ref().map_or(0, String::len));
    write(&mut out, task);
    out
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

/// Counts by name.
pub(crate) fn write_counts(out: &mut Vec<u8>, counts: impl Iterator<Item = (&'static str, i64)>) {
    for (n, (name, count)) in counts.enumerate() {
        let _ = write!(out, "{}\"{name}\":{count}", if n > 0 { "," } else { "{" });
    }
    out.push(b'}');
}

/// Appends a tag and how many tasks have it, in JSON.
pub(crate) fn write_tag_count(out: &mut Vec<u8>, tag: &str, count: i64) {
    out.extend_from_slice(b"{\"tag\":");
    write_text(out, tag);
    let _ = write!(out, ",\"count\":{count}}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped() {
        let mut task = Task::blank(Uuid::nil(), Time::UNIX_EPOCH);
        task.title = "a \"b\" \\ ü".into();
        task.description = Some("line\nline\u{7f}".into());
        task.tags = vec!["x".into(), "y\"".into()];
        let value: serde_json::Value = serde_json::from_slice(&to_json(&task)).unwrap();
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
            "rank",
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
