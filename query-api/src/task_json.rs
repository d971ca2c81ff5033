//! A task in JSON, as the OpenAPI document describes it, and what answers are written with.

use std::io::Write;

use domain::{
    DESCRIPTION_CHARACTERS_MAX, Priority, RANK_CHARACTERS_MAX, Status, TAG_CHARACTERS_MAX, TAGS_MAX,
    TITLE_CHARACTERS_MAX,
};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, time, whole};
pub(crate) use read_model::task_json::{
    to_json, write, write_list, write_number, write_text, write_text_or_null, write_time,
};
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

pub(crate) fn write_id(out: &mut Vec<u8>, id: Option<Uuid>) {
    match id {
        Some(id) => write_text(out, id.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        None => out.extend_from_slice(b"null"),
    }
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
    use domain::Time;
    use read_model::Task;

    use super::*;

    #[test]
    fn the_schema_and_the_example_have_the_members_that_are_written() {
        let written = to_json(&Task::blank(Uuid::nil(), Time::UNIX_EPOCH));
        let written: Value = serde_json::from_slice(&written).unwrap();
        let names = |task: &Value| task.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&schema()["properties"]), names(&written));
        assert_eq!(names(&example()), names(&written));
    }
}
