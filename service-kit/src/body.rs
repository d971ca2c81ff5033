//! Request bodies, strictly.
//!
//! - [`JsonBody<T>`]`(value, bytes)`: `application/json` of at most 1 MiB. The last argument of a handler.
//! - [`MergePatch<T>`]: the same, `application/merge-patch+json` too.
//! - [`EmptyBody`]: no body or `{}`.
//! - [`read_body`]: any body up to a size, for the batch. Large ones wait until there is room for them in memory.
//! - [`parse_json`]: what the extractors do, for a part of a body (a command, a line).
//!
//! `T` is a plain serde struct with `#[serde(deny_unknown_fields)]`; how a value fails decides between 400 and 422:
//! broken JSON, a wrong JSON type, an unknown or repeated field are 400 `malformed-body`; a missing field, `null` where
//! none may be, and whatever a `Deserialize` refuses by itself (`Error::custom`, an unknown variant, a number out of
//! range) are 422 `invalid-fields`. Both carry the pointer where it is known, and never the value.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::context;
use crate::headers::single;
use crate::limits::Key;
use crate::load;
use crate::problem::{Problem, ProblemCode};
use crate::shares::{Share, Shares};

/// The largest body but a batch, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// The largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// A body must have arrived within this time.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A body takes room from so many bytes on. Until then it is no more than what its connection takes anyway.
const FREE_BYTES_MAX: usize = 16 << 10;
/// Room in the process for bodies, as they arrive and until they are dropped, in bytes.
const ROOM_BYTES: u32 = 128 << 20;
/// How much of it all bodies from one address (IPv6: /64) get at most, in bytes: two batches of the largest size, or many
/// smaller ones. An account is free, an address is not.
const ROOM_BYTES_EACH_MAX: u32 = 32 << 20;
/// How long one waits for room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);

/// Of a body that is too large, as much is read and thrown away, so that the client sees the answer and not a reset.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

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
        use http_body::Body as _;
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
/// 415 when it is another or missing, 400 when it stands there twice.
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

/// The whole body of a request.
///
/// # Errors
/// 413 beyond `bytes_max`, 408 after 30 s, 400 when it breaks off, 503 where there is no room for it for 10 s.
pub async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let limit =
            if bytes_max >= 1 << 20 { format!("{} MiB", bytes_max >> 20) } else { format!("{bytes_max} bytes") };
        Problem::new(ProblemCode::BodyTooLarge).detail(format!("at most {limit}"))
    };
    let announced = content_length(request.headers());
    let waits_for_go = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    if announced.is_some_and(|length| length > bytes_max as u64) {
        if !waits_for_go {
            discard(body).await;
        }
        return Err(too_large());
    }
    let collected = {
        let mut collecting = pin!(collect(&mut body, bytes_max, announced));
        // most bodies have arrived with their headers: no timer for those
        match futures_util::poll!(&mut collecting) {
            Poll::Ready(collected) => collected,
            Poll::Pending => {
                let arriving = timeout(BODY_TIME_MAX, collecting);
                context::waiting(arriving).await.unwrap_or(Err(Broken::TooSlow))
            }
        }
    };
    match collected {
        Ok(bytes) => Ok(bytes),
        Err(Broken::TooLarge) => {
            discard(body).await;
            Err(too_large())
        }
        Err(Broken::NoRoom) => {
            discard(body).await;
            Err(load::turned_away())
        }
        Err(Broken::TooSlow) => Err(Problem::new(ProblemCode::BodyTooSlow)),
        Err(Broken::Off) => Err(Problem::new(ProblemCode::BadRequest).detail("the body broke off or is badly framed")),
    }
}

enum Broken {
    TooLarge,
    NoRoom,
    TooSlow,
    Off,
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
}

async fn collect(body: &mut Body, bytes_max: usize, announced: Option<u64>) -> Result<Bytes, Broken> {
    // what was announced is no more than the limit here
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    let expected = announced.unwrap_or(bytes_max);
    let mut room = match announced {
        Some(length) if length > FREE_BYTES_MAX => Some(Room::begin(length).await?),
        Some(_) | None => None,
    };
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Off)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > bytes_max {
            return Err(Broken::TooLarge);
        }
        if length > FREE_BYTES_MAX {
            let room = match &mut room {
                Some(room) => room,
                None => room.insert(Room::begin(expected).await?),
            };
            if room.bytes() < length {
                // as it comes, so that who announces much and sends little takes little from others
                room.grow((2 * length).clamp(length, expected)).await?;
                rest.reserve(room.bytes().saturating_sub(rest.len()));
            }
        }
        if first.is_empty() && rest.is_empty() {
            // a small body is one frame: taken as it is
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(length);
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(match room {
        Some(mut room) => {
            room.0.shrink(bytes.len());
            Bytes::from_owner(Roomy { bytes, _room: room })
        }
        None => bytes,
    })
}

/// What a process can spare is one number, however many listeners it has.
static ROOM: LazyLock<Shares<Key>> = LazyLock::new(|| Shares::new(ROOM_BYTES, ROOM_BYTES_EACH_MAX));

/// Room for a body of the request in progress.
struct Room(Share<Key>);

impl Room {
    /// Of its client's part as much as the body may come to; of the whole nothing yet.
    async fn begin(bytes: usize) -> Result<Self, Broken> {
        let client = Key::of_address(context::client_of_current().unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        timeout(ROOM_WAIT_MAX, ROOM.begin(client, bytes)).await.map(Self).map_err(|_| Broken::NoRoom)
    }

    async fn grow(&mut self, bytes: usize) -> Result<(), Broken> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        timeout(ROOM_WAIT_MAX, self.0.grow(bytes)).await.map_err(|_| Broken::NoRoom)
    }

    fn bytes(&self) -> usize {
        self.0.amount()
    }
}

/// A body, and the room that it takes until the last part of it is dropped.
struct Roomy {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn discard(mut body: Body) {
    let discarding = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARDED_BYTES_MAX {
                break;
            }
        }
    };
    // whether all of it came does not matter
    let _ = timeout(DISCARD_TIME_MAX, discarding).await;
}

/// One JSON object, strictly; see the top of the module for what fails how.
///
/// # Errors
/// 400 `malformed-body` or 422 `invalid-fields`, with the pointer where it is known.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde takes a list of the fields' values for a struct as well
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
        return Err(Problem::new(ProblemCode::MalformedBody).detail("a JSON object is needed"));
    }
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// Parses once more, slowly, to learn where it failed.
#[cold]
fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    if !error.is_data() {
        let what = if bytes.iter().all(u8::is_ascii_whitespace) {
            "a JSON body is needed".to_owned()
        } else if error.is_eof() {
            "the JSON breaks off".to_owned()
        } else {
            // names what is expected, never what is there
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("{text} at {place}")
        };
        return Problem::new(ProblemCode::MalformedBody).detail(what);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let (path, message) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => (pointer(error.path()), error.inner().to_string()),
        Ok(_) => (String::new(), error.to_string()),
    };
    let message = message.split(" at line ").next().unwrap_or_default();
    let (code, field, detail) = classify(message);
    let pointer = match field {
        // the path ends at the object, the message names its member
        Some(field) if !path.ends_with(&format!("/{}", escape(field))) => format!("{path}/{}", escape(field)),
        Some(_) | None => path,
    };
    Problem::new(code).error(pointer, detail)
}

/// What serde's own messages mean. (A test pins those of the version in use.)
fn classify(message: &str) -> (ProblemCode, Option<&str>, String) {
    let named = |rest: &'static str| message.strip_prefix(rest).and_then(|rest| rest.split('`').next());
    let expected = || message.rsplit_once("expected ").map_or("another value", |(_, expected)| expected);
    if let Some(field) = named("unknown field `") {
        (ProblemCode::MalformedBody, Some(field), "there is no such field".into())
    } else if let Some(field) = named("duplicate field `") {
        (ProblemCode::MalformedBody, Some(field), "stands there twice".into())
    } else if let Some(field) = named("missing field `") {
        (ProblemCode::InvalidFields, Some(field), "is missing".into())
    } else if message.starts_with("invalid type: null") {
        (ProblemCode::InvalidFields, None, format!("must not be null, expected {}", expected()))
    } else if message.starts_with("invalid type") || message.starts_with("invalid length") {
        (ProblemCode::MalformedBody, None, format!("has the wrong JSON type, expected {}", expected()))
    } else if message.starts_with("invalid value") || message.starts_with("unknown variant") {
        (ProblemCode::InvalidFields, None, format!("expected {}", expected()))
    } else {
        // what a Deserialize of ours said; bounded all the same
        (ProblemCode::InvalidFields, None, message.chars().take(200).collect())
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&escape(key));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

/// A member's name in a JSON pointer, bounded.
fn escape(name: &str) -> String {
    name.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::IpAddr;

    use axum::http::HeaderValue;
    use futures_util::StreamExt;
    use uuid::Uuid;

    use super::*;
    use crate::context::RequestContext;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read by Debug only")]
    struct Sample {
        title: String,
        #[serde(default)]
        tags: Option<Vec<String>>,
        #[serde(default)]
        count: u8,
        #[serde(default)]
        id: Option<Uuid>,
        #[serde(default)]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
    }

    fn failure(json: &[u8]) -> (u16, String) {
        let problem = parse_json::<Sample>(json).map(|_| ()).expect_err("refused");
        let pointer = problem.errors().first().map(|e| e.pointer.to_string()).unwrap_or_default();
        (problem.status().as_u16(), pointer)
    }

    #[test]
    fn what_is_not_understood_is_400_and_what_breaks_a_rule_is_422() {
        let case = |json: &str| failure(json.as_bytes());
        for broken in [
            "",
            " ",
            "{",
            "{\"title\":\"a\"",
            "{\"title\":\"a\"}x",
            "{'title':1}",
            "\u{feff}{\"title\":\"a\"}",
            "{\"title\":1e999}",
            "{\"title\":NaN}",
            "{\"title\":\"a\",}",
            "{/*c*/}",
            "{\"title\":\"\\ud800\"}",
            "{\"title\":\"\\udc00x\"}",
        ] {
            assert_eq!(case(broken), (400, String::new()), "{broken}");
        }
        assert_eq!(failure(b"{\"title\":\"\xff\"}").0, 400);
        assert_eq!(failure(format!("{{\"title\":{}", "[".repeat(100_000)).as_bytes()).0, 400);
        for no_object in ["[]", "[\"a\"]", "[\"a\",null,0,null,null]", "null", "\"a\"", "1"] {
            assert_eq!(case(no_object), (400, String::new()), "{no_object}");
        }
        assert_eq!(case("null").0, 400);
        assert_eq!(case("{\"title\":1}"), (400, "/title".into()));
        assert_eq!(case("{\"title\":\"a\",\"tags\":[\"x\",2]}"), (400, "/tags/1".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":1.5}"), (400, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"no/such~\":1}"), (400, "/no~1such~0".into()));
        assert_eq!(case("{\"title\":\"a\",\"title\":\"b\"}"), (400, "/title".into()));
        assert_eq!(case("{}"), (422, "/title".into()));
        assert_eq!(case("{\"title\":null}"), (422, "/title".into()));
        assert_eq!(case("{\"title\":\"a\",\"tags\":[null]}"), (422, "/tags/0".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":-1}"), (422, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":300}"), (422, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"id\":\"x\"}"), (422, "/id".into()));
        assert_eq!(case("{\"title\":\"a\",\"kind\":\"two\"}"), (422, "/kind".into()));
    }

    #[test]
    fn no_value_of_the_body_comes_back() {
        for json in [
            "{\"title\":12345678}",
            "{\"title\":\"a\",\"count\":\"12345678\"}",
            "{\"title\":\"a\",\"count\":12345678}",
            "{\"title\":\"a\",\"kind\":\"12345678\"}",
            "{\"title\":[\"12345678\"]}",
            "{\"title\":\"12345678",
        ] {
            let problem = parse_json::<Sample>(json.as_bytes()).map(|_| ()).expect_err("refused");
            assert!(!serde_json::to_string(&problem).expect("serialises").contains("12345678"), "{json}: {problem}");
        }
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

    #[tokio::test]
    async fn a_body_is_bounded_whether_announced_or_not() {
        let limit = 10;
        let chunks = |count: usize| {
            let parts = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"12345")));
            Body::from_stream(futures_util::stream::iter(parts))
        };
        let read = async |body: Body, length: Option<&'static str>| {
            let mut request = Request::new(body);
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            read_body(request, limit).await.map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(read(chunks(2), None).await, Ok(Bytes::from_static(b"1234512345")));
        assert_eq!(read(chunks(3), None).await, Err(413));
        assert_eq!(read(chunks(3), Some("15")).await, Err(413));
        assert_eq!(read(Body::empty(), None).await, Ok(Bytes::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_a_408_after_30_seconds() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let began = tokio::time::Instant::now();
        let problem = read_body(Request::new(body), 10).await.expect_err("never comes");
        assert_eq!(problem.status(), 408);
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_s_bodies_take_no_more_than_its_part_of_the_room() {
        let arrives = async |from: u8, bytes: usize, is_announced: bool| {
            let parts = vec![b'1'; bytes];
            let parts: Vec<_> =
                parts.chunks(4_096).map(|part| Ok::<_, Infallible>(Bytes::copy_from_slice(part))).collect();
            let mut request = Request::new(Body::from_stream(futures_util::stream::iter(parts)));
            if is_announced {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
            }
            let context = RequestContext::fresh().from_client(IpAddr::from([198, 51, 100, from]));
            context.scope(read_body(request, BATCH_BYTES_MAX)).await.map_err(|problem| problem.status().as_u16())
        };
        let length = |arrived: &Result<Bytes, u16>| arrived.as_ref().map(Bytes::len).map_err(|status| *status);
        let (small, medium) = (FREE_BYTES_MAX, FREE_BYTES_MAX + 1);
        let (whole, other) = (arrives(1, BATCH_BYTES_MAX, true).await, arrives(1, BATCH_BYTES_MAX, true).await);
        let (whole, other) = (whole.expect("there is room"), other.expect("for two"));
        let began = tokio::time::Instant::now();
        for is_announced in [true, false] {
            assert_eq!(length(&arrives(1, medium, is_announced).await), Err(503));
            assert_eq!(length(&arrives(1, small, is_announced).await), Ok(small));
            assert_eq!(length(&arrives(2, BATCH_BYTES_MAX, is_announced).await), Ok(BATCH_BYTES_MAX), "another client");
        }
        assert_eq!(began.elapsed(), 2 * ROOM_WAIT_MAX);
        // until nothing of it is kept any more
        let part = whole.slice(..1);
        drop(whole);
        assert_eq!(length(&arrives(1, medium, true).await), Err(503));
        drop(part);
        assert_eq!(length(&arrives(1, medium, true).await), Ok(medium));
        drop(other);
        // one that does not say how long it will be takes no more in the end than it is
        let held = [arrives(1, medium, false).await, arrives(1, medium, false).await];
        assert_eq!(held.each_ref().map(length), [Ok(medium), Ok(medium)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_announces_much_and_sends_little_takes_little_from_others() {
        let sends = async |from: u8, body: Body| {
            let mut request = Request::new(body);
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(BATCH_BYTES_MAX));
            let context = RequestContext::fresh().from_client(IpAddr::from([203, 0, 113, from]));
            context.scope(read_body(request, BATCH_BYTES_MAX)).await.map_err(|problem| problem.status().as_u16())
        };
        let little = || {
            let first = Bytes::from(vec![b'1'; 2 * FREE_BYTES_MAX]);
            let first = futures_util::stream::iter([Ok::<_, Infallible>(first)]);
            Body::from_stream(first.chain(futures_util::stream::pending()))
        };
        let clients = 2 * (ROOM_BYTES / ROOM_BYTES_EACH_MAX) as u8;
        // two each: all of its part
        let dripping = (0..2 * clients).map(|n| sends(n % clients, little()));
        let others = async {
            for n in clients..2 * clients {
                let whole = sends(n, Body::from(vec![b'1'; BATCH_BYTES_MAX])).await;
                assert_eq!(whole.map(|body| body.len()), Ok(BATCH_BYTES_MAX));
            }
            assert_eq!(sends(0, Body::from(vec![b'1'; BATCH_BYTES_MAX])).await, Err(503), "its part is taken");
        };
        let (dripped, ()) = tokio::join!(futures_util::future::join_all(dripping), others);
        assert!(dripped.iter().all(|body| *body == Err(408)), "too slow");
    }
}
