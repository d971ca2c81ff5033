//! The fields of a body, read one by one so that every mistake is reported, each with its place: a wrong JSON type
//! or an unknown field is not understood (400), a value that breaks a rule is (422).

use std::borrow::Cow;

use domain::{Invalid, Tag, Tags};
use http_api::problem::{FieldError, Problem, ProblemCode};
use http_api::query::parse_uuid;
use uuid::Uuid;

use crate::json::Json;

/// How many mistakes one answer lists; further ones are not told.
const MISTAKES_MAX: usize = 32;
/// An unknown field's name is repeated in the answer up to this length, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What is wrong with a body, so far.
#[derive(Debug, Default)]
pub struct Mistakes {
    not_understood: bool,
    errors: Vec<FieldError>,
}

impl Mistakes {
    /// Something that is not of the form asked for: a 400.
    pub fn not_understood(&mut self, pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) {
        // An error that decides the status must be seen, however many others there are.
        if !self.not_understood && self.errors.len() == MISTAKES_MAX {
            self.errors.pop();
        }
        self.not_understood = true;
        self.list(pointer.into(), detail.into());
    }

    /// A value that is of the right form but breaks a rule: a 422, unless something else is not even understood.
    pub fn breaks_rule(&mut self, pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) {
        self.list(pointer.into(), detail.into());
    }

    /// A field that nobody knows here.
    pub fn unknown(&mut self, name: &str) {
        if name.len() > NAME_BYTES_MAX {
            self.not_understood("", "has an unknown field with a very long name");
        } else {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            self.not_understood(format!("/{escaped}"), "is not a field here");
        }
    }

    /// A field that is needed.
    pub fn missing(&mut self, pointer: &'static str) {
        self.breaks_rule(pointer, "is missing");
    }

    /// What was read, if nothing was wrong with it.
    ///
    /// # Errors
    /// 400 if anything was not understood, else 422, with all that was wrong.
    pub fn or<T>(self, read: Option<T>) -> Result<T, Problem> {
        match read {
            Some(read) if self.errors.is_empty() => Ok(read),
            Some(_) | None => Err(self.into_problem()),
        }
    }

    fn into_problem(self) -> Problem {
        let code = if self.not_understood { ProblemCode::MalformedBody } else { ProblemCode::InvalidFields };
        let problem = match self.errors.as_slice() {
            [only] if only.pointer.is_empty() => Problem::new(code).detail(format!("The body {}.", only.detail)),
            [only] => Problem::new(code).detail(format!("{} {}.", only.pointer, only.detail)),
            all => Problem::new(code).detail(format!("{} things are wrong with the body; see errors.", all.len())),
        };
        self.errors.into_iter().fold(problem, |problem, error| problem.error(error.pointer, error.detail))
    }

    fn list(&mut self, pointer: Cow<'static, str>, detail: Cow<'static, str>) {
        if self.errors.len() < MISTAKES_MAX {
            self.errors.push(FieldError { pointer, detail });
        }
    }
}

/// A value of the domain, from a string.
pub fn value<T>(
    mistakes: &mut Mistakes,
    pointer: &'static str,
    json: &Json<'_>,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Option<T> {
    match json {
        Json::Text(text) => parse(text).map_err(|invalid| mistakes.breaks_rule(pointer, invalid.0)).ok(),
        Json::Null => {
            mistakes.breaks_rule(pointer, "must not be null");
            None
        }
        Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            mistakes.not_understood(pointer, "must be a string");
            None
        }
    }
}

/// A list of tags; equal ones collapse. How many a task may have is for the rules to say (409): they know those it has.
pub fn tags(mistakes: &mut Mistakes, pointer: &'static str, json: &Json<'_>) -> Option<Tags> {
    let items = match json {
        Json::List(items) => items,
        Json::Null => {
            mistakes.breaks_rule(pointer, "must not be null");
            return None;
        }
        Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
            mistakes.not_understood(pointer, "must be a list of strings");
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
                Err(invalid) => mistakes.breaks_rule(format!("{pointer}/{index}"), invalid.0),
            },
            Json::Null => mistakes.breaks_rule(format!("{pointer}/{index}"), "must not be null"),
            Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
                mistakes.not_understood(format!("{pointer}/{index}"), "must be a string");
            }
        }
        good = false;
    }
    good.then_some(tags)
}

/// A UUID in the usual form, 8-4-4-4-12 hexadecimal digits.
///
/// # Errors
/// Any other text, the other spellings of a UUID included: one id has one form here.
pub fn uuid(text: &str) -> Result<Uuid, Invalid> {
    parse_uuid(text).ok_or(Invalid(Cow::Borrowed("must be a UUID, such as 01932c6e-7d3b-7cc1-a5ad-0242ac120002")))
}

/// The members of an object.
///
/// # Errors
/// 400: something else.
pub fn object<'t, 'a>(json: &'t Json<'a>) -> Result<&'t [(Cow<'a, str>, Json<'a>)], Problem> {
    match json {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => {
            let mut mistakes = Mistakes::default();
            mistakes.not_understood("", "must be an object");
            mistakes.or(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_decides_the_status_and_all_is_listed() {
        let mut mistakes = Mistakes::default();
        mistakes.breaks_rule("/title", "must not be blank");
        mistakes.unknown("a/b~c");
        let problem = mistakes.or(Some(())).unwrap_err();
        assert_eq!(problem.code(), ProblemCode::MalformedBody);
        let pointers: Vec<_> = problem.errors().iter().map(|error| error.pointer.as_ref()).collect();
        assert_eq!(pointers, ["/title", "/a~1b~0c"]);
    }

    #[test]
    fn the_list_of_mistakes_is_bounded_and_keeps_the_decisive_one() {
        let mut mistakes = Mistakes::default();
        for _ in 0..100 {
            mistakes.breaks_rule("/tags", "must not be blank");
        }
        mistakes.unknown(&"x".repeat(1000));
        let problem = mistakes.or(Some(())).unwrap_err();
        assert_eq!(problem.status(), 400);
        assert_eq!(problem.errors().len(), MISTAKES_MAX);
        assert_eq!(problem.errors()[MISTAKES_MAX - 1].pointer, "");
    }

    #[test]
    fn uuids_have_one_form() {
        for text in [
            "01932c6e7d3b7cc1a5ad0242ac120002",
            "{01932c6e-7d3b-7cc1-a5ad-0242ac120002}",
            "urn:uuid:01932c6e-7d3b-7cc1-a5ad-0242ac120002",
            "01932c6e-7d3b-7cc1-a5ad-0242ac12000g",
            " 01932c6e-7d3b-7cc1-a5ad-0242ac12000",
            "01932c6e-7d3b-7cc1-a5ad-0242ac12000２",
            "",
        ] {
            assert!(uuid(text).is_err(), "{text}");
        }
        assert_eq!(uuid("01932C6E-7d3b-7cc1-a5ad-0242ac120002").unwrap().as_bytes()[0], 1);
    }
}
