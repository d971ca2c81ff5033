//! What is wrong with what a client sent, in words for the client.

use std::borrow::Cow;

use serde::Serialize;

/// How many errors are collected; further ones are not told.
const ERRORS_MAX: usize = 32;
/// An unknown field's name is repeated up to this length, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub Cow<'static, str>);

impl Invalid {
    pub(crate) fn because(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into what was sent.
    pub pointer: Cow<'static, str>,
    /// What is wrong with it.
    pub detail: Cow<'static, str>,
}

/// All fields that are wrong, collected so that they are told at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvalidFields {
    is_malformed: bool,
    errors: Vec<FieldError>,
}

impl InvalidFields {
    /// The value, or an error noted for its field.
    pub fn take<T>(&mut self, pointer: &'static str, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|Invalid(detail)| self.breaks_rule(pointer, detail)).ok()
    }

    /// Notes a value that is not of the form asked for, such as another JSON type.
    pub fn malformed(&mut self, pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) {
        // The first of these decides what the whole is called: it must be listed, however many others there are.
        if !self.is_malformed && self.errors.len() == ERRORS_MAX {
            self.errors.pop();
        }
        self.is_malformed = true;
        self.push(pointer.into(), detail.into());
    }

    /// Notes a value of the right form that breaks a rule.
    pub fn breaks_rule(&mut self, pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) {
        self.push(pointer.into(), detail.into());
    }

    /// Notes a field that is not known here.
    pub fn unknown(&mut self, name: &str) {
        if name.len() > NAME_BYTES_MAX {
            self.malformed("", "has an unknown field with a very long name");
        } else {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            self.malformed(format!("/{escaped}"), "is not a field here");
        }
    }

    /// Notes a required field that is not there.
    pub fn missing(&mut self, pointer: &'static str) {
        self.breaks_rule(pointer, "is missing");
    }

    /// What was made of the fields, if nothing was wrong with them.
    ///
    /// # Errors
    /// All that was wrong.
    pub fn or<T>(self, made: Option<T>) -> Result<T, Self> {
        match made {
            Some(made) if self.errors.is_empty() => Ok(made),
            Some(_) | None => Err(self),
        }
    }

    /// Whether a field was not even of the form asked for.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// What is wrong, in the order in which it was noted.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    fn push(&mut self, pointer: Cow<'static, str>, detail: Cow<'static, str>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { pointer, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_malformed_field_decides_and_all_are_listed() {
        let mut invalid = InvalidFields::default();
        invalid.breaks_rule("/title", "must not be blank");
        assert!(!invalid.is_malformed());
        invalid.unknown("a/b~c");
        let invalid = invalid.or(Some(())).unwrap_err();
        assert!(invalid.is_malformed());
        let pointers: Vec<_> = invalid.errors().iter().map(|error| error.pointer.as_ref()).collect();
        assert_eq!(pointers, ["/title", "/a~1b~0c"]);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_error_that_decides() {
        let mut invalid = InvalidFields::default();
        for _ in 0..100 {
            invalid.breaks_rule("/tags", "must not be blank");
        }
        invalid.unknown(&"x".repeat(1000));
        assert!(invalid.is_malformed());
        assert_eq!(invalid.errors().len(), ERRORS_MAX);
        assert_eq!(invalid.errors()[ERRORS_MAX - 1].pointer, "");
    }
}
