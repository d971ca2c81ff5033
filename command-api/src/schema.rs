//! The fields of a task in a body, as the document has them: with the limits of the domain. What a schema cannot say (a
//! title that has something to see, a day that exists) is said by the answer.

use domain::{DESCRIPTION_CHARACTERS_MAX, Priority, TAG_CHARACTERS_MAX, TAGS_MAX, TITLE_CHARACTERS_MAX};
use http_api::openapi::EXAMPLE_ID;
use serde_json::{Value, json};

/// What is to be done.
pub(crate) fn title() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": TITLE_CHARACTERS_MAX,
        "description": "Trimmed; something to see must remain. No control characters.",
    })
}

/// More about it. `null` is none.
pub(crate) fn description() -> Value {
    json!({"type": ["string", "null"], "maxLength": DESCRIPTION_CHARACTERS_MAX, "description": "Kept as it comes. No NUL."})
}

/// How much it matters.
pub(crate) fn priority() -> Value {
    json!({"type": "string", "enum": names(), "description": "`medium` where nothing is said."})
}

/// The same, `null` being absence.
pub(crate) fn priority_or_absent() -> Value {
    let names = names().into_iter().map(Value::from).chain([Value::Null]);
    json!({"type": ["string", "null"], "enum": names.collect::<Vec<_>>(), "description": "`medium` where nothing is said."})
}

fn names() -> Vec<&'static str> {
    Priority::ALL.iter().map(|priority| priority.as_str()).collect()
}

/// By when. `null` is never.
pub(crate) fn due_at() -> Value {
    json!({
        "type": ["string", "null"], "format": "date-time",
        "description": "RFC 3339 with any offset, in the years 1 to 9999; kept to the microsecond.",
    })
}

/// Labels. `null` is none.
pub(crate) fn tags() -> Value {
    json!({
        "type": ["array", "null"], "items": tag(),
        "description": format!("At most {TAGS_MAX} different ones: with more it is `too-many-tags`."),
    })
}

/// A label.
pub(crate) fn tag() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": TAG_CHARACTERS_MAX, "pattern": "^[^,]*$",
        "description": "Trimmed and in lower case; no comma, no control characters.",
    })
}

/// An id that the client may choose.
pub(crate) fn id() -> Value {
    json!({"type": ["string", "null"], "format": "uuid", "examples": [EXAMPLE_ID]})
}
