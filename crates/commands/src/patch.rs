use domain::{Description, InvalidFields, Priority, Rank, Tags, TaskCommand, TaskPatch, Title, parse_time};

use crate::fields;
use crate::json::Json;

/// Reads one field of a patch into it; says whether it is one. `null` empties what may be empty.
pub(crate) fn take(patch: &mut TaskPatch, invalid: &mut InvalidFields, name: &str, json: &Json<'_>) -> bool {
    match (name, json) {
        ("title", json) => patch.title = fields::value(invalid, "/title", json, Title::parse),
        ("description", Json::Null) => patch.description = Some(None),
        ("description", json) => {
            patch.description = fields::value(invalid, "/description", json, Description::parse).map(Some);
        }
        ("priority", json) => patch.priority = fields::value(invalid, "/priority", json, Priority::parse),
        ("due_at", Json::Null) => patch.due_at = Some(None),
        ("due_at", json) => patch.due_at = fields::value(invalid, "/due_at", json, parse_time).map(Some),
        ("tags", Json::Null) => patch.tags = Some(Tags::new()),
        ("tags", json) => patch.tags = fields::tags(invalid, "/tags", json),
        ("rank", Json::Null) => patch.rank = Some(None),
        ("rank", json) => patch.rank = fields::value(invalid, "/rank", json, Rank::parse).map(Some),
        (_, _) => return false,
    }
    true
}

/// A merge patch (RFC 7396) of a task's fields.
///
/// # Errors
/// Every field that is wrong.
pub fn parse(json: &Json<'_>) -> Result<TaskCommand, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let mut patch = TaskPatch::default();
    for (name, value) in fields::object(json)? {
        if !take(&mut patch, &mut invalid, name, value) {
            invalid.unknown(name);
        }
    }
    invalid.or(Some(TaskCommand::Patch(Box::new(patch))))
}
