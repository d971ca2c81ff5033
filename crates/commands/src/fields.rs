//! The fields of a body, read one by one so that every error is reported, each with its place: a wrong JSON type or an
//! unknown field is malformed, else a value may break a rule.

use std::borrow::Cow;

use domain::{Invalid, InvalidFields, Tag, Tags};

use crate::json::Json;

/// A value of the domain, from a string.
pub(crate) fn value<T>(
    invalid: &mut InvalidFields,
    pointer: &'static str,
    json: &Json<'_>,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Option<T> {
    match json {
        Json::Text(text) => invalid.take(pointer, parse(text)),
        Json::Null => {
            invalid.breaks_rule(pointer, "must not be null");
            None
        }
        Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            invalid.malformed(pointer, "must be a string");
            None
        }
    }
}

/// A list of tags; equal ones collapse. How many a task may have is for the rules to say: they know those it has.
pub(crate) fn tags(invalid: &mut InvalidFields, pointer: &'static str, json: &Json<'_>) -> Option<Tags> {
    let items = match json {
        Json::List(items) => items,
        Json::Null => {
            invalid.breaks_rule(pointer, "must not be null");
            return None;
        }
        Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
            invalid.malformed(pointer, "must be a list of strings");
            return None;
        }
    };
    let mut tags = Tags::new();
    let mut good = true;
    for (index, item) in items.iter().enumerate() {
        match item {
            Json::Text(text) => match Tag::parse(text) {
                Ok(tag) => {
                    tags.insert(tag);
                    continue;
                }
                Err(Invalid(detail)) => invalid.breaks_rule(format!("{pointer}/{index}"), detail),
            },
            Json::Null => invalid.breaks_rule(format!("{pointer}/{index}"), "must not be null"),
            Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
                invalid.malformed(format!("{pointer}/{index}"), "must be a string");
            }
        }
        good = false;
    }
    good.then_some(tags)
}

/// The members of an object.
///
/// # Errors
/// Something else.
pub(crate) fn object<'t, 'a>(json: &'t Json<'a>) -> Result<&'t [(Cow<'a, str>, Json<'a>)], InvalidFields> {
    match json {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => {
            let mut invalid = InvalidFields::default();
            invalid.malformed("", "must be an object");
            invalid.or(None)
        }
    }
}
