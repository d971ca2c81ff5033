//! Pages: `limit`, `cursor`, and the `Link` to the next one.

use std::fmt;

use access::token::Sealer;
use axum::http::header::LINK;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use domain::OwnerId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::answer;
use crate::problem::{Problem, ProblemCode};

/// The largest page, in items.
pub const LIMIT_MAX: u16 = 200;
/// The page when the client names none, in items.
pub const LIMIT_DEFAULT: u16 = 50;

/// `limit` of a query: 1 to 200, 50 when missing. Use it in a query struct with `#[serde(default)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit(u16);

impl Limit {
    /// The number of items.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

impl From<Limit> for i64 {
    fn from(limit: Limit) -> Self {
        Self::from(limit.0)
    }
}

impl From<Limit> for usize {
    fn from(limit: Limit) -> Self {
        Self::from(limit.0)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from 1 to {LIMIT_MAX}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                let digits = !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
                let number = if digits { text.parse().unwrap_or(0) } else { 0 };
                if (1..=LIMIT_MAX).contains(&number) {
                    Ok(Limit(number))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// The query string of a list that has pages and no other parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// How many items a page has at most.
    #[serde(default)]
    pub limit: Limit,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page of a list that somebody asks for. Its cursor is the key of the last item of the page before.
pub struct PageOf<'a> {
    /// Makes cursors that nobody else can make.
    pub sealer: &'a Sealer,
    /// Whose cursors they are.
    pub reader: OwnerId,
    /// What cursors of the list are bound to besides their reader.
    pub binding: &'a [u8],
    /// Of the request.
    pub uri: &'a Uri,
    /// How many items it has at most.
    pub limit: Limit,
}

#[derive(Serialize)]
struct Body<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl PageOf<'_> {
    /// The key behind which it begins, as `key` reads it; none: the first page.
    ///
    /// # Errors
    /// 400 where the cursor is not of this list and reader.
    pub fn begins_behind<K>(
        &self,
        cursor: Option<&str>,
        key: impl FnOnce(&[u8]) -> Option<K>,
    ) -> Result<Option<K>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let payload = self.sealer.open_cursor(cursor, self.reader, self.binding).ok();
        let key = payload.and_then(|payload| key(&payload));
        key.map(Some).ok_or_else(|| Problem::new(ProblemCode::InvalidCursor))
    }

    /// The same where keys are UUIDs.
    ///
    /// # Errors
    /// As there.
    pub fn begins_behind_id(&self, cursor: Option<&str>) -> Result<Option<Uuid>, Problem> {
        self.begins_behind(cursor, |key| Uuid::from_slice(key).ok())
    }

    /// How many rows to look for: one more than is shown tells whether there is another page.
    #[must_use]
    pub fn rows_max(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The answer, from what was found in [`Self::rows_max`]: each row as `shown`, the next page behind the last one's
    /// `key`.
    pub fn answer<Row, Key: AsRef<[u8]>, Shown: Serialize>(
        &self,
        mut found: Vec<Row>,
        key: impl FnOnce(&Row) -> Key,
        shown: impl FnMut(Row) -> Shown,
    ) -> Response {
        let size = usize::from(self.limit);
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(key);
        let next_cursor = last.map(|key| self.sealer.seal_cursor(self.reader, self.binding, key.as_ref()));
        let link = next_cursor.as_ref().and_then(|cursor| next_link(self.uri.path(), self.uri.query(), cursor));
        let items: Vec<Shown> = found.into_iter().map(shown).collect();
        let mut response = answer::json(StatusCode::OK, &Body { items, next_cursor });
        if let Some(link) = link {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

/// All but what is unreserved (RFC 3986).
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Appends a text as it stands in a query string: what is not unreserved (RFC 3986) as percent escapes.
pub fn encode_onto(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, VALUE));
}

/// `Link: <path?query&cursor=…>; rel="next"`. `query` is the request's own; a `cursor` in it is replaced.
#[must_use]
pub fn next_link(path: &str, query: Option<&str>, cursor: &str) -> Option<HeaderValue> {
    let mut link = format!("<{path}?");
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        if pair.split('=').next() != Some("cursor") {
            link.push_str(pair);
            link.push('&');
        }
    }
    link.push_str("cursor=");
    encode_onto(&mut link, cursor);
    link.push_str(">; rel=\"next\"");
    // a request's path and query are visible ASCII but for `<` and `>`, which may not stand here as they are
    let inner = &link[1..link.len() - ">; rel=\"next\"".len()];
    if inner.contains(['<', '>']) {
        let escaped = inner.replace('<', "%3C").replace('>', "%3E");
        link = format!("<{escaped}>; rel=\"next\"");
    }
    HeaderValue::from_str(&link).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let mut link = String::from("q=");
        encode_onto(&mut link, "ü x,~/-");
        assert_eq!(link, "q=%C3%BC%20x%2C~%2F-");
    }

    #[test]
    fn the_link_keeps_the_query_and_replaces_the_cursor() {
        let link = |query| next_link("/api/v1/tasks", query, "a-b_c").map(|v| v.to_str().map(str::to_owned).ok());
        let expected = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(link(None), expected("</api/v1/tasks?cursor=a-b_c>; rel=\"next\""));
        assert_eq!(
            link(Some("status=pending&cursor=old&limit=2")),
            expected("</api/v1/tasks?status=pending&limit=2&cursor=a-b_c>; rel=\"next\"")
        );
        assert_eq!(link(Some("q=>x<")), expected("</api/v1/tasks?q=%3Ex%3C&cursor=a-b_c>; rel=\"next\""));
    }
}
