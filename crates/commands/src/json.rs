//! A JSON text as a small tree that borrows from it. Typed deserialisation stops at the first mistake and cannot
//! tell a malformed field from one that breaks a rule; from a tree every field's error is reported, and the fingerprint of
//! the request comes without a second parse.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How many members an object may have. No request has half as many; it bounds the search for duplicate keys.
pub const MEMBERS_MAX: usize = 32;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A string, without lone surrogates.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object, each key once, in the order of the text.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// The text is not JSON, or JSON that nobody may send: duplicate keys, lone surrogates, too deep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(pub String);

/// Parses a text. Nesting is at most 128 deep.
///
/// # Errors
/// Broken JSON, bad UTF-8, a duplicate key, a lone surrogate, a number beyond a double, over [`MEMBERS_MAX`] members.
pub fn parse(text: &[u8]) -> Result<Json<'_>, NotJson> {
    serde_json::from_slice(text).map_err(|error| NotJson(error.to_string()))
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "beyond an i64 it is no version or anything else that is compared")]
    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Number(value as f64), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::with_capacity(8);
        while let Some(Key(key)) = entries.next_key()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::custom("an object with too many members"));
            }
            if members.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("a key that occurs twice in one object"));
            }
            members.push((key, entries.next_value()?));
        }
        Ok(Json::Object(members))
    }
}

/// A key, borrowed where it has no escapes (a plain `Cow` is always copied).
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowing)
    }
}

/// Writes a value so that equal ones are equal bytes: each kind has its letter and each length stands before what it
/// measures, so that two values never look the same.
pub(crate) fn write_canonical(out: &mut Vec<u8>, json: &Json<'_>) {
    match json {
        Json::Null => out.push(b'n'),
        Json::Bool(false) => out.push(b'f'),
        Json::Bool(true) => out.push(b't'),
        Json::Integer(number) => {
            out.push(b'i');
            out.extend_from_slice(&number.to_be_bytes());
        }
        Json::Number(number) => match whole(*number) {
            Some(number) => write_canonical(out, &Json::Integer(number)),
            None => {
                out.push(b'd');
                out.extend_from_slice(&number.to_bits().to_be_bytes());
            }
        },
        Json::Text(value) => write_text(out, value),
        Json::List(items) => {
            out.push(b'l');
            length(out, items.len());
            for item in items {
                write_canonical(out, item);
            }
        }
        Json::Object(members) => {
            out.push(b'o');
            length(out, members.len());
            let mut order: Vec<&(Cow<'_, str>, Json<'_>)> = members.iter().collect();
            order.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (key, value) in order {
                write_text(out, key);
                write_canonical(out, value);
            }
        }
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, value: &str) {
    out.push(b's');
    length(out, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_be_bytes());
}

/// `3.0` and `3e0` are 3.
#[expect(clippy::cast_possible_truncation, reason = "only what is whole and fits comes that far")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_may_send_is_not_json() {
        for text in [
            &b"{\"a\":1,\"a\":2}"[..],
            b"{\"a\":{\"b\":1,\"\\u0062\":2}}",
            b"\"\\ud800\"",
            b"\"\\udc00\\ud800\"",
            b"\"\xff\"",
            b"\xef\xbb\xbf{}",
            b"1e999",
            b"NaN",
            b"{} {}",
            b"{/**/}",
            b"{\"a\":1,}",
            b"",
        ] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert!(parse("[".repeat(1000).as_bytes()).is_err());
        let wide = (0..=MEMBERS_MAX).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(",");
        assert!(parse(format!("{{{wide}}}").as_bytes()).is_err());
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let Json::Object(members) = parse(br#"{"title":"x","a\u0062":"\u00e4"}"#).unwrap() else { panic!() };
        assert!(matches!(&members[0], (Cow::Borrowed("title"), Json::Text(Cow::Borrowed("x")))));
        assert!(matches!(&members[1], (Cow::Owned(key), Json::Text(Cow::Owned(value))) if key == "ab" && value == "ä"));
    }
}
