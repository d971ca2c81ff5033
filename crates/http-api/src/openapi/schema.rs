//! Schemas that descriptions have in common.

use serde_json::{Map, Value, json};

/// An id, wherever an example needs one.
pub const EXAMPLE_ID: &str = "01a20530-d423-75ae-8522-766cb71a70c2";
/// A time, wherever an example needs one.
pub const EXAMPLE_TIME: &str = "2026-11-22T21:36:55.715402Z";

/// `$ref` to a schema by its name.
#[must_use]
pub fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// An object of an answer: all of its members are always there.
#[must_use]
pub fn whole(properties: Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// A page of a list.
#[must_use]
pub fn page_of(schema: &str) -> Value {
    whole(json!({
        "items": {"type": "array", "items": reference(schema)},
        "next_cursor": {"type": ["string", "null"], "description": "For the next page; `null` at the end."},
    }))
}

/// One of these names, or several of them with commas between.
#[must_use]
pub fn one_of(names: &[&str]) -> Value {
    let name = names.join("|");
    json!({"type": "string", "pattern": format!("^({name})(,({name}))*$")})
}

/// A whole number, 0 or more.
#[must_use]
pub fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// A time as it is answered: RFC 3339 in `Z`.
#[must_use]
pub fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}
