//! Query strings and path segments, strictly: what is unknown, repeated or unreadable is a 400 that names it.
//!
//! ```text
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]           // unknown parameters are refused
//! struct Params { status: Option<String>, #[serde(default)] limit: Limit, cursor: Option<String> }
//!
//! async fn list(TaskCaller(principal): TaskCaller, StrictQuery(params): StrictQuery<Params>) -> ...
//! async fn get(TaskCaller(principal): TaskCaller, PathId(id): PathId) -> ...        // "/api/v1/tasks/{id}"
//! ```
//!
//! Fields may be strings, numbers, booleans, unit enums, options of these, or anything that deserialises from a string.

use std::borrow::Cow;
use std::fmt;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use domain::parse_uuid;
use percent_encoding::percent_decode;
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use uuid::Uuid;

use crate::problem::Problem;

/// The query string as `T`.
#[derive(Debug, Clone)]
pub struct StrictQuery<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// No query string at all: what takes no parameters refuses them. Around a whole router:
/// `route_layer(axum::middleware::from_extractor::<NoQuery>())`.
#[derive(Debug, Clone, Copy)]
pub struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(Problem::parameter("there are no query parameters here")),
        }
    }
}

/// A query string (without `?`) as `T`.
///
/// # Errors
/// A 400 that names the parameter.
pub fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut pairs: Vec<(Cow<'_, str>, Value<'_>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(|| {
            Problem::parameter("a query parameter's name has a broken escape or a NUL, or is not UTF-8")
        })?;
        let text = decode(value).ok_or_else(|| {
            Problem::parameter(format!(
                "the query parameter {} has a broken escape or a NUL, or is not UTF-8",
                shown(&name)
            ))
        })?;
        if pairs.iter().any(|(seen, _)| *seen == name) {
            return Err(Problem::parameter(format!("the query parameter {} appears more than once", shown(&name))));
        }
        pairs.push((name.clone(), Value { name, text }));
    }
    T::deserialize(MapDeserializer::new(pairs.into_iter())).map_err(|Wrong(detail)| Problem::parameter(detail))
}

/// Percent-decoded text with `+` as space; `None` when an escape is broken, or it is not UTF-8 or has a NUL.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+' | 0)) {
        return Some(Cow::Borrowed(text));
    }
    // The decoder would take a broken escape for text.
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| Cow::Owned(decoded.into_owned()))
}

/// A parameter's name in an answer, bounded.
fn shown(name: &str) -> String {
    name.chars().take(50).collect()
}

/// A parameter's value, which knows its name for the error.
struct Value<'a> {
    name: Cow<'a, str>,
    text: Cow<'a, str>,
}

#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string().chars().take(300).collect())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("there is no query parameter {}; taken: {}", shown(field), expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("the query parameter {field} is missing"))
    }

    fn invalid_value(_unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}"))
    }

    fn invalid_type(_unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}"))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("expected one of {}", expected.join(", ")))
    }
}

impl<'de> IntoDeserializer<'de, Wrong> for Value<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident => $visit:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.text.parse() {
                Ok(value) => visitor.$visit(value).map_err(|error: Wrong| self.wrong(&error)),
                Err(error) => Err(self.wrong(&error)),
            }
        }
    )*};
}

impl Value<'_> {
    fn wrong(&self, what: &dyn fmt::Display) -> Wrong {
        Wrong(format!("the query parameter {}: {what}", shown(&self.name)))
    }
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Wrong;

    parsed! {
        deserialize_bool => visit_bool,
        deserialize_i8 => visit_i8,
        deserialize_i16 => visit_i16,
        deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(&self.text).map_err(|error: Wrong| self.wrong(&error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        StrDeserializer::<Wrong>::new(&self.text)
            .deserialize_enum(name, variants, visitor)
            .map_err(|error| self.wrong(&error))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// The path's one `{…}` segment as a UUID in its usual form (8-4-4-4-12, either case); else 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::parameter("a segment of the path is not UTF-8"))?;
        let (_, segment) =
            params.iter().next().ok_or_else(|| Problem::internal(&"PathId on a route without a path parameter"))?;
        parse_uuid(segment).map(Self).map_err(|_| Problem::parameter("the id in the path is not a UUID"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::page::Limit;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        q: Option<String>,
        #[serde(default)]
        limit: Limit,
        sort: Option<Sort>,
        deep: Option<bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Sort {
        #[serde(rename = "-created_at")]
        Newest,
    }

    fn parse(query: &str) -> Result<Params, Problem> {
        parse_query(query)
    }

    #[test]
    fn good_queries_are_read() {
        let params = parse("q=a+b%20c%2B&limit=200&sort=-created_at&deep=true").expect("good");
        assert_eq!(params.q.as_deref(), Some("a b c+"));
        assert_eq!(params.limit.get(), 200);
        assert_eq!(params.sort, Some(Sort::Newest));
        assert_eq!(params.deep, Some(true));
        assert_eq!(parse("").expect("good").limit.get(), 50);
        assert_eq!(parse("q=").expect("good").q.as_deref(), Some(""));
    }

    #[test]
    fn everything_else_is_a_400_that_names_the_parameter() {
        for (query, named) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=-1", "limit"),
            ("limit=+5", "limit"),
            ("limit=1e2", "limit"),
            ("limit=", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=1&limit=1", "limit"),
            ("Limit=1", "Limit"),
            ("unknown=1", "unknown"),
            ("sort=created", "sort"),
            ("deep=yes", "deep"),
            ("q=%ff", "q"),
            ("q=%00", "q"),
            ("q=%zz", "q"),
            ("q=%f", "q"),
            ("q=a%", "q"),
            ("q=%+5", "q"),
            ("%zz=a", "name"),
            ("q=a&%71=b", "q"),
        ] {
            let problem = parse(query).expect_err(query);
            assert_eq!(problem.status(), 400, "{query}");
            assert!(problem.detail_text().is_some_and(|text| text.contains(named)), "{query}: {problem}");
        }
    }
}
