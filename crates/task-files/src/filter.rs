//! The filter of an export or a change of many tasks.

use std::collections::BTreeMap;

use domain::{Invalid, InvalidFields};
use read_model::TaskFilters;

/// From members and values as they stand in a list's query.
///
/// # Errors
/// A member that a list does not have, or a value that it would refuse.
pub fn parse_filter(members: &BTreeMap<String, String>) -> Result<TaskFilters, InvalidFields> {
    let (mut filters, mut invalid) = (TaskFilters::default(), InvalidFields::default());
    for (name, value) in members {
        if let Err(Invalid(reason)) = filters.set(name, value) {
            invalid.breaks_rule(format!("/filter/{name}"), reason);
        }
    }
    invalid.or(Some(filters))
}
