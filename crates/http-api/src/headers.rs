//! Request headers with a meaning of their own, as extractors, and entity tags.
//!
//! Each extractor comes as `Option<X>` where the header may be missing. A header that is malformed or repeated
//! is a 400 that names it.
//!
//! ```text
//! async fn patch(TaskCaller(principal): TaskCaller, expected: Option<IfMatch>, key: Option<IdempotencyKey>, ...)
//! ```

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;

/// `Idempotency-Key`
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// By which the gateway knows a second try of a request again that has no [`IDEMPOTENCY_KEY`]. It is a header of its own, so
/// that an empty or a repeated `Idempotency-Key` is refused behind the gateway as well.
const GATEWAY_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("gateway-idempotency-key");
/// `Idempotent-Replayed`
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// `Change-Id`
pub const CHANGE_ID: HeaderName = HeaderName::from_static("change-id");
/// `Consistency-Token`
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// `Last-Event-ID`
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Of an `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;

/// The one value of a header, if it is there; repeated it is a 400.
///
/// # Errors
/// A 400 that names the header when it appears more than once.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Problem::repeated_header(name)),
    }
}

/// `If-Match` on a task: `*`, or versions of which the task must have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: the task must exist.
    Any,
    /// The versions named. A tag that is not one of ours (weak ones too) matches nothing and is left out.
    Versions(Vec<i64>),
}

impl IfMatch {
    fn parse(value: &HeaderValue) -> Option<Self> {
        match parse_tags(value.to_str().ok()?)? {
            Tags::Any => Some(Self::Any),
            Tags::List(tags) => Some(Self::Versions(
                tags.into_iter()
                    .filter(|tag| !tag.weak)
                    .filter_map(|tag| {
                        // exactly as we write it: no sign, no leading zero
                        let version = tag.opaque.parse::<i64>().ok()?;
                        (version.to_string() == tag.opaque).then_some(version)
                    })
                    .collect(),
            )),
        }
    }
}

/// `If-None-Match`: the comparison is weak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfNoneMatch(HeaderValue);

impl IfNoneMatch {
    /// Whether the client has what this entity tag (as we send it, with quotes and `W/`) stands for: answer 304.
    #[must_use]
    pub fn matches(&self, etag: &str) -> bool {
        let ours = etag.strip_prefix("W/").unwrap_or(etag);
        // the usual case without taking the list apart
        let Ok(text) = self.0.to_str() else { return false };
        if text.strip_prefix("W/").unwrap_or(text) == ours {
            return true;
        }
        match parse_tags(text) {
            Some(Tags::Any) => true,
            Some(Tags::List(tags)) => {
                tags.iter().any(|tag| ours.trim_start_matches('"').trim_end_matches('"') == tag.opaque)
            }
            None => false,
        }
    }
}

/// `Idempotency-Key`: 1 to [`IDEMPOTENCY_KEY_LENGTH_MAX`] visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The client's, or else the gateway's.
    ///
    /// # Errors
    /// As [`IdempotencyKey::from_headers`].
    pub fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let of_client = Self::from_headers(headers)?;
        Ok(of_client.or_else(|| Self::parse(headers.get(&GATEWAY_IDEMPOTENCY_KEY)?)))
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fits = (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        fits.then(|| value.to_str().ok()).flatten().map(|key| Self(key.to_owned()))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `Consistency-Token` of a request, still closed: open it with `Sealer::open_consistency_token` and the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentToken(pub String);

impl SentToken {
    /// The token as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `Last-Event-ID` of a request for a live stream: the position that it is to go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEventId(pub i64);

/// The strong entity tag of a task: `"<version>"`.
#[must_use]
pub fn version_etag(version: i64) -> HeaderValue {
    // "-9223372036854775808" and two quotes
    let mut buffer = [0_u8; 22];
    let mut at = buffer.len() - 1;
    buffer[at] = b'"';
    let mut rest = version.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    at -= 1;
    buffer[at] = b'"';
    HeaderValue::from_bytes(&buffer[at..]).unwrap_or(HeaderValue::from_static("\"0\""))
}

macro_rules! header_extractor {
    ($type:ident, $name:expr, $parse:expr, $what:expr) => {
        impl $type {
            /// From a request's headers.
            ///
            /// # Errors
            /// A 400 that names the header when it is malformed or repeated.
            pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
                // most requests have none: one lookup
                if !headers.contains_key(&$name) {
                    return Ok(None);
                }
                let Some(value) = single(headers, &$name)? else { return Ok(None) };
                let parse: fn(&HeaderValue) -> Option<Self> = $parse;
                parse(value).map(Some).ok_or_else(|| Problem::parameter(format!("the header {}", $what)))
            }
        }

        impl<S: Sync> OptionalFromRequestParts<S> for $type {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Problem> {
                Self::from_headers(&parts.headers)
            }
        }

        impl<S: Sync> FromRequestParts<S> for $type {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
                Self::from_headers(&parts.headers)?
                    .ok_or_else(|| Problem::parameter(format!("missing: the header {}", $what)))
            }
        }
    };
}

header_extractor!(IfMatch, IF_MATCH, IfMatch::parse, "If-Match is `*` or a list of entity tags in double quotes");
header_extractor!(
    IfNoneMatch,
    IF_NONE_MATCH,
    |value| parse_tags(value.to_str().ok()?).map(|_| IfNoneMatch(value.clone())),
    "If-None-Match is `*` or a list of entity tags in double quotes"
);
header_extractor!(
    IdempotencyKey,
    IDEMPOTENCY_KEY,
    IdempotencyKey::parse,
    format_args!("Idempotency-Key has 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters")
);
header_extractor!(
    SentToken,
    CONSISTENCY_TOKEN,
    |value| value.to_str().ok().filter(|text| !text.is_empty()).map(|text| SentToken(text.to_owned())),
    "Consistency-Token is what an answer of this API gave"
);

header_extractor!(
    LastEventId,
    LAST_EVENT_ID,
    |value| {
        let digits = value.to_str().ok().filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok().map(LastEventId)
    },
    "Last-Event-ID is an id of the stream or a revision"
);

struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

enum Tags<'a> {
    Any,
    List(Vec<Tag<'a>>),
}

/// `*` or a list of entity tags (RFC 9110, 8.8.3); `None` when it is neither.
fn parse_tags(text: &str) -> Option<Tags<'_>> {
    let mut rest = text.trim_matches([' ', '\t']);
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::with_capacity(1);
    loop {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(strong) => (true, strong),
            None => (false, rest),
        };
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if !opaque.bytes().all(|b| b > 0x20 && b != 0x7f) {
            return None;
        }
        tags.push(Tag { weak, opaque });
        rest = after.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some(Tags::List(tags));
        }
        rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        headers
    }

    #[test]
    fn if_match_takes_versions_and_any() {
        let parse = |text| IfMatch::from_headers(&headers(&IF_MATCH, &[text])).map(Option::unwrap);
        assert_eq!(parse("\"3\""), Ok(IfMatch::Versions(vec![3])));
        assert_eq!(parse("\"3\" , \"4\""), Ok(IfMatch::Versions(vec![3, 4])));
        assert_eq!(parse("*"), Ok(IfMatch::Any));
        // understood, but can match no version: a 412, not a 400
        for other in ["W/\"3\"", "\"abc\"", "\"\"", "\"03\"", "\"+3\"", "\"99999999999999999999\""] {
            assert_eq!(parse(other), Ok(IfMatch::Versions(vec![])), "{other}");
        }
        for broken in ["3", "", "\"3", "\"3\"x", "\"3\",", "'3'", "*, \"3\"", "w/\"3\"", "\"a b\""] {
            assert_eq!(parse(broken).map_err(|p| p.status().as_u16()), Err(400), "{broken}");
        }
        assert!(IfMatch::from_headers(&headers(&IF_MATCH, &["\"3\"", "\"3\""])).is_err());
        assert_eq!(IfMatch::from_headers(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let matches = |sent: &str, etag| {
            IfNoneMatch::from_headers(&headers(&IF_NONE_MATCH, &[sent])).map(|h| h.is_some_and(|h| h.matches(etag)))
        };
        assert_eq!(matches("W/\"a.1\"", "W/\"a.1\""), Ok(true));
        assert_eq!(matches("\"a.1\"", "W/\"a.1\""), Ok(true));
        assert_eq!(matches("\"b\", W/\"a.1\"", "W/\"a.1\""), Ok(true));
        assert_eq!(matches("*", "\"1\""), Ok(true));
        assert_eq!(matches("\"2\"", "\"1\""), Ok(false));
        assert!(matches("nonsense", "\"1\"").is_err());
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        let parse = |text: &str| IdempotencyKey::from_headers(&headers(&IDEMPOTENCY_KEY, &[text]));
        assert_eq!(parse("a!~").map(|k| k.map(|k| k.0)), Ok(Some("a!~".into())));
        assert!(parse(&"k".repeat(255)).is_ok());
        for bad in ["", "a b", "é", &"k".repeat(256)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(IdempotencyKey::from_headers(&headers(&IDEMPOTENCY_KEY, &["a", "a"])).is_err());
    }

    #[test]
    fn the_gateway_s_key_is_for_requests_without_one() {
        let mut both = headers(&GATEWAY_IDEMPOTENCY_KEY, &["gateway"]);
        let key = |headers: &HeaderMap| IdempotencyKey::of_request(headers).map(|key| key.map(|key| key.0));
        assert_eq!(key(&both), Ok(Some("gateway".into())));
        both.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("client"));
        assert_eq!(key(&both), Ok(Some("client".into())));
        both.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(""));
        assert!(key(&both).is_err());
    }

    #[test]
    fn a_last_event_id_is_a_position() {
        let parse = |text: &str| LastEventId::from_headers(&headers(&LAST_EVENT_ID, &[text]));
        assert_eq!(parse("0"), Ok(Some(LastEventId(0))));
        assert_eq!(parse("9223372036854775807"), Ok(Some(LastEventId(i64::MAX))));
        for bad in ["", "-1", "+1", " 1", "1 2", "x", "9223372036854775808"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(LastEventId::from_headers(&headers(&LAST_EVENT_ID, &["1", "1"])).is_err());
        assert_eq!(LastEventId::from_headers(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_version_is_its_etag() {
        for version in [0, 1, 10, 4711, i64::MAX] {
            let etag = version_etag(version);
            assert_eq!(etag.to_str().expect("ascii"), format!("\"{version}\""));
            assert_eq!(IfMatch::parse(&etag), Some(IfMatch::Versions(vec![version])));
        }
    }
}
