//! Request bodies, strictly.
//!
//! - [`JsonBody<T>`]`(value, bytes)`: `application/json` of at most 1 MiB. The last argument of a handler; an `Option` of it
//!   where there may be no body.
//! - [`MergePatch<T>`]: the same, `application/merge-patch+json` too.
//! - [`EmptyBody`]: no body or `{}`.
//! - [`read_body`]: any body up to a size, for the batch. Large ones wait until there is room for them in memory.
//! - [`FileBody`]: a file, as it comes.
//! - [`parse_json`]: what the extractors do, for a part of a body (a command, a line).
//!
//! `T` is a plain serde struct with `#[serde(deny_unknown_fields)]`; how a value fails decides between 400 and 422:
//! broken JSON, a wrong JSON type, an unknown or repeated field are 400 `malformed-body`; a missing field, `null` where
//! none may be, and whatever a `Deserialize` refuses by itself (`Error::custom`, an unknown variant, a number out of
//! range) are 422 `invalid-fields`. Both carry the pointer where it is known, and never the value.

mod file;
mod json;
mod read;

use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body::Body as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::file::{FILE_BYTES_EACH_SECOND_MIN, FileBody};
pub use self::json::parse_json;
pub use self::read::{BATCH_BYTES_MAX, BODY_BYTES_MAX, BODY_TIME_MAX, read_body};
use crate::headers::single;
use crate::problem::{Problem, ProblemCode};

/// A JSON body and the bytes it was read from.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T, pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_media_type(request.headers(), &["application/json"])?;
        let bytes = read_body(request, BODY_BYTES_MAX).await?;
        Ok(Self(parse_json(&bytes)?, bytes))
    }
}

/// None where there is no body.
impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// A JSON merge patch (RFC 7396) and the bytes it was read from: sent as that media type or as JSON.
#[derive(Debug, Clone)]
pub struct MergePatch<T>(pub T, pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MergePatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_media_type(request.headers(), &["application/json", "application/merge-patch+json"])?;
        let bytes = read_body(request, BODY_BYTES_MAX).await?;
        Ok(Self(parse_json(&bytes)?, bytes))
    }
}

/// No body, or `{}`.
#[derive(Debug, Clone)]
pub struct EmptyBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(Self(Bytes::new()));
        }
        let media_type = require_media_type(request.headers(), &["application/json"]);
        let bytes = read_body(request, BODY_BYTES_MAX).await?;
        if !bytes.is_empty() {
            media_type?;
            let Nothing {} = parse_json(&bytes)?;
        }
        Ok(Self(bytes))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Refuses a body whose `Content-Type` is none of these; parameters but a `charset` other than UTF-8 do not matter.
/// Gives back which one it is.
///
/// # Errors
/// 415 when it is another or missing, 400 when it appears more than once.
pub fn require_media_type(headers: &HeaderMap, taken: &[&'static str]) -> Result<&'static str, Problem> {
    let refused = || Problem::new(ProblemCode::UnsupportedMediaType).detail(format!("taken: {}", taken.join(", ")));
    let value = single(headers, &CONTENT_TYPE)?.and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    if let Some(exactly) = taken.iter().find(|taken| **taken == value) {
        return Ok(exactly);
    }
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let found = taken.iter().find(|taken| taken.eq_ignore_ascii_case(essence)).ok_or_else(refused)?;
    let other_charset = parts.filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if other_charset { Err(refused()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read by Debug only")]
    struct Sample {
        title: String,
    }

    fn request(content_type: Option<&str>, body: Body) -> Request {
        let mut request = Request::new(body);
        if let Some(value) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(value).expect("a header value"));
        }
        request
    }

    async fn status<T: FromRequest<(), Rejection = Problem>>(content_type: Option<&str>, body: impl Into<Body>) -> u16 {
        T::from_request(request(content_type, body.into()), &()).await.map_or_else(|p| p.status().as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn media_types() {
        type Json = JsonBody<Sample>;
        const GOOD: &str = "{\"title\":\"a\"}";
        assert_eq!(status::<Json>(Some("application/json"), GOOD).await, 200);
        assert_eq!(status::<Json>(Some("Application/JSON; charset=UTF-8"), GOOD).await, 200);
        for other in [
            Some("application/json; charset=latin1"),
            Some("text/json"),
            Some("application/merge-patch+json"),
            Some(""),
            None,
        ] {
            assert_eq!(status::<Json>(other, GOOD).await, 415, "{other:?}");
        }
        assert_eq!(status::<MergePatch<Sample>>(Some("application/merge-patch+json"), GOOD).await, 200);
        assert_eq!(status::<MergePatch<Sample>>(Some("application/json"), GOOD).await, 200);
        assert_eq!(status::<EmptyBody>(None, Body::empty()).await, 200);
        assert_eq!(status::<EmptyBody>(Some("text/plain"), Body::empty()).await, 200);
        assert_eq!(status::<EmptyBody>(Some("application/json"), " {} ").await, 200);
        assert_eq!(status::<EmptyBody>(Some("application/json"), "{\"a\":1}").await, 400);
        assert_eq!(status::<EmptyBody>(Some("application/json"), "[]").await, 400);
        assert_eq!(status::<EmptyBody>(None, "{}").await, 415);
    }
}
