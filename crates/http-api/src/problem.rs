//! Error answers: RFC 9457 `application/problem+json`.
//!
//! A handler returns `Result<_, Problem>`. Make one with [`Problem::new`], from the one table of codes:
//!
//! ```
//! use http_api::problem::{Problem, ProblemCode};
//! let problem = Problem::new(ProblemCode::InvalidFields).error("/title", "must not be blank");
//! # assert_eq!(problem.code().status().as_u16(), 422);
//! ```
//!
//! `trace_id` is filled in from the request in progress when the answer (or a batch's item: `Problem` is `Serialize`)
//! is written. What has no problem of its own (a router's 404 and 405, an extractor of the framework) is turned into
//! one by the edge. New refusals get a line in the table below; `/problems/{code}` shows its explanation.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use backends::database::is_disk_full;
use bytes::Bytes;
use domain::{FieldError, InvalidFields};
use process::context;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The media type of every error answer.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

macro_rules! problem_codes {
    ($($name:ident = $code:literal, $status:literal, $title:literal, $explanation:literal;)*) => {
        /// The one table of error codes. Stable: a client may depend on code and status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $(#[doc = concat!($status, ": ", $title)] $name,)*
        }

        impl ProblemCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$name,)*];

            /// The stable kebab-case code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ProblemCode::$name => $code,)* }
            }

            /// The stable reference `/problems/<code>`.
            #[must_use]
            pub const fn reference(self) -> &'static str {
                match self { $(ProblemCode::$name => concat!("/problems/", $code),)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let number: u16 = match self { $(ProblemCode::$name => $status,)* };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// One line, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(ProblemCode::$name => $title,)* }
            }

            /// What it means and what to do about it, for the page behind `type`.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(ProblemCode::$name => $explanation,)* }
            }

            /// The code of this name, if there is one.
            #[must_use]
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(ProblemCode::$name),)* _ => None }
            }
        }
    };
}

problem_codes! {
    // 400: not understood
    BadRequest = "bad-request", 400, "The request could not be understood",
        "Something about the request line or its framing is not as HTTP or this API has it. Send it again as the documentation shows.";
    MalformedBody = "malformed-body", 400, "The body is not the JSON it should be",
        "The body is not valid JSON, has a value of the wrong JSON type, an unknown or a repeated field, or text that is not Unicode. `errors` points to the place where it is known.";
    InvalidParameter = "invalid-parameter", 400, "A path, query or header value is not valid",
        "A part of the path, a query parameter or a header is unknown, repeated, or out of its range. `detail` names it.";
    InvalidCursor = "invalid-cursor", 400, "The cursor is not valid here",
        "A cursor belongs to the account, filters and sort that it was given out for. Start again from the first page.";
    InvalidConsistencyToken = "invalid-consistency-token", 400, "The consistency token is not valid",
        "A Consistency-Token belongs to the account that it was given to and is sent back unchanged. Leave it out to read what is there.";
    // 401
    Unauthenticated = "unauthenticated", 401, "A valid access token is needed",
        "Send `Authorization: Bearer <access token>`. Tokens live for minutes and end with logout, a changed password or a disabled account: refresh, or log in again.";
    InvalidCredentials = "invalid-credentials", 401, "E-mail address or password is wrong",
        "No account has this address and this password. Which of the two is wrong is not told.";
    InvalidRefreshToken = "invalid-refresh-token", 401, "The refresh token is not good any more",
        "It is unknown, has expired, its session has ended, or it was used before. A second use ends the session, since somebody else may hold the token: log in again.";
    InvalidApiKey = "invalid-api-key", 401, "The API key is not good",
        "It is unknown, has expired, or was revoked. An operator makes another one with `primetrade keys api create`.";
    // 403
    Forbidden = "forbidden", 403, "Not allowed to this role",
        "The account is known but may not do this; it takes an admin.";
    InsufficientScope = "insufficient-scope", 403, "The scopes of the API key do not cover this",
        "The access token is one of an API key, and none of the key's scopes covers this request: reads take `tasks:read`, all else `tasks:write`, and nothing of accounts or admins is covered by any. `WWW-Authenticate` names the scope that it takes, where there is one.";
    WrongPassword = "wrong-password", 403, "The current password is wrong",
        "To change a password the current one is needed, and the one that was sent is not it.";
    AccountDisabled = "account-disabled", 403, "The account is disabled",
        "An admin has disabled this account. Ask one to enable it again.";
    ForeignOrigin = "foreign-origin", 403, "The session cookie is not taken from this page",
        "The session cookie is taken only where `Origin` is the API's own or one of `PRIMETRADE_CORS_ORIGINS`. Behind a proxy that ends TLS, `PRIMETRADE_TRUSTED_PROXIES` has to name it.";
    // 404, 405, 408
    NotFound = "not-found", 404, "There is nothing here",
        "The address is unknown, the thing was deleted, or it is somebody else's: these look the same.";
    MethodNotAllowed = "method-not-allowed", 405, "This method is not offered here",
        "The `Allow` header lists what is.";
    RequestTooSlow = "request-too-slow", 408, "The request did not arrive in time",
        "The request line and the headers must arrive within 10 seconds.";
    BodyTooSlow = "body-too-slow", 408, "The body did not arrive in time",
        "A body must arrive within 30 seconds; the file of an import may take longer, as long as 64 KiB come each second. Send it again, or split a batch into smaller ones.";
    // 409
    EmailTaken = "email-taken", 409, "There is an account with this address already",
        "Log in with it, or register another address.";
    RefreshInFlight = "refresh-in-flight", 409, "Another refresh with this token was being answered",
        "Two refreshes with the same token overlapped. The other one's answer carries the new tokens; the session goes on.";
    TransitionRefused = "transition-refused", 409, "The task's status does not allow this",
        "`detail` names the status the task is in. Read it and decide again.";
    TooManyTags = "too-many-tags", 409, "A task has at most 20 tags",
        "Remove a tag first.";
    ChangedSince = "changed-since", 409, "The task was changed since",
        "A later change that stands has changed the same fields, or the task is deleted. Undo that one first, or change the task as it should be.";
    UndoneAlready = "undone-already", 409, "The change is undone already",
        "Nothing of it is left to undo. What undid it is a change itself: undo that one to have it again.";
    ChangeInProgress = "change-in-progress", 409, "The change is still being made",
        "The batch or job that makes it is not through. Wait until it has ended, or cancel it first.";
    TaskExists = "task-exists", 409, "A task with this id exists with other content",
        "The same id with the content it was created with would be the same task. Use another id, or patch the task.";
    RequestInFlight = "request-in-flight", 409, "A request with the same key is still being answered",
        "The first request with this Idempotency-Key or command_id has not been answered for 10 seconds. Send this one again later.";
    // 410
    ResultExpired = "result-expired", 410, "The result is not kept any more",
        "The file of an export is kept for 7 days. Ask for another export.";
    // 412, 413, 414, 415, 416
    StaleVersion = "stale-version", 412, "The task has another version than If-Match names",
        "Somebody changed it in between. Read it again, and repeat the change on what is there now.";
    BodyTooLarge = "body-too-large", 413, "The body is too large",
        "A body has at most 1 MiB, a batch 16 MiB, the file of an import 256 MiB, also unpacked.";
    BatchTooLarge = "batch-too-large", 413, "The batch has too many commands",
        "A batch has at most 10,000 commands. Split it.";
    UriTooLong = "uri-too-long", 414, "The request's address is too long",
        "Path and query together have at most 8 KiB.";
    UnsupportedMediaType = "unsupported-media-type", 415, "The body's Content-Type is not taken here",
        "Send `Content-Type: application/json`, or what the documentation names for this address.";
    UnsupportedContentEncoding = "unsupported-content-encoding", 415, "Compressed request bodies are not taken",
        "Send the body without Content-Encoding.";
    RangeNotSatisfiable = "range-not-satisfiable", 416, "The file has no such bytes",
        "`Content-Range` says how long it is. Ask for a range within it.";
    // 422: understood, but breaks a rule
    InvalidFields = "invalid-fields", 422, "The body breaks a rule",
        "`errors` lists the fields and what is wrong with each.";
    OccurredAtRefused = "occurred-at-refused", 422, "occurred_at cannot be taken",
        "It may not lie in the future nor before the task's previous event.";
    KeyReused = "key-reused", 422, "The Idempotency-Key was used for another request",
        "A key stands for one method, path and body. Use a new key for a new request.";
    CommandIdReused = "command-id-reused", 422, "The command_id was used for another command",
        "A command_id stands for one command's content. Use a new one for a new command.";
    // 429, 431
    RateLimited = "rate-limited", 429, "Too many requests",
        "Wait as long as `Retry-After` says.";
    TooManyStreams = "too-many-streams", 429, "Too many live streams are open for this account",
        "An account has at most 10 streams open at once. Close one.";
    TooManyJobs = "too-many-jobs", 429, "Too many jobs wait for this account",
        "An account has 2 jobs that are carried out, and 20 that wait. Wait as long as `Retry-After` says, or cancel one.";
    HeadersTooLarge = "headers-too-large", 431, "The request's headers are too large",
        "All headers together have at most 32 KiB.";
    // 5xx
    Internal = "internal", 500, "Something went wrong on our side",
        "The request may or may not have had its effect; with an Idempotency-Key it can be repeated safely. Tell the operator the `trace_id`.";
    Overloaded = "overloaded", 503, "Too much to do at the moment",
        "A queue is full. Nothing was done. Send it again after `Retry-After` seconds.";
    Unavailable = "unavailable", 503, "A part that is needed does not answer",
        "The database or another part is away. The request may or may not have had its effect; with an Idempotency-Key it can be repeated safely.";
    Contended = "contended", 503, "Too many others are changing the same task",
        "The command was decided again as often as is allowed, and each time somebody else was faster. Send it again.";
    DiskFull = "disk-full", 503, "The disk is full",
        "The disk that the events are kept on has too little room left, so nothing is written; reads go on. Nothing was done. An operator has to make room; then the same request succeeds without a restart.";
    NotCaughtUp = "not-caught-up", 503, "The read side has not caught up with the token yet",
        "What the Consistency-Token stands for could not be shown within 2 seconds. Send the request again, or leave the token out.";
    ProjectionParked = "projection-parked", 503, "An event of this account waits to be repaired",
        "An event could not be applied to the read side and is parked, so what the Consistency-Token stands for cannot be shown. An operator has to look at it; reads without the token go on.";
    SearchTooSlow = "search-too-slow", 503, "The search took too long",
        "The texts of a past time are in no index: they are read and compared, for 2 seconds at most. Ask with more filters, or for now.";
    StreamUnreadable = "stream-unreadable", 503, "The task's history cannot be read by this version",
        "An event of this task is unknown to the running program. An operator has to look at it.";
    NotConfigured = "not-configured", 503, "The server is not set up for this",
        "What it takes was not configured, such as the object store for the files of imports and exports. An operator has to do it.";
    ShuttingDown = "shutting-down", 503, "The server is being stopped",
        "Send the request again; another copy or the restarted one answers.";
}

impl ProblemCode {
    /// What a bare status from the framework is called.
    #[must_use]
    pub fn for_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::BodyTooSlow,
            413 => Self::BodyTooLarge,
            414 => Self::UriTooLong,
            415 => Self::UnsupportedMediaType,
            422 => Self::InvalidFields,
            429 => Self::RateLimited,
            431 => Self::HeadersTooLarge,
            503 => Self::Unavailable,
            400..=499 => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error answer. Small, so that `Result<_, Problem>` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    code: ProblemCode,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of the table, with nothing more to say yet.
    #[must_use]
    pub fn new(code: ProblemCode) -> Self {
        Self(Box::new(Parts { code, detail: None, errors: Vec::new(), headers: Vec::new() }))
    }

    /// A 500. The source is logged with the request's trace id here and never reaches the client.
    #[must_use]
    pub fn internal(source: &dyn fmt::Display) -> Self {
        tracing::error!(trace_id = %context::current_trace_id(), error = %source, "internal error");
        Self::new(ProblemCode::Internal)
    }

    /// A 503 with `Retry-After` because something that is needed is away; by its name where it is room on the disk of a
    /// database. The source is logged, not told.
    #[must_use]
    pub fn unavailable(source: &(dyn Error + 'static)) -> Self {
        tracing::warn!(trace_id = %context::current_trace_id(), error = %source, "unavailable");
        if is_disk_full(source) { Self::disk_full() } else { Self::new(ProblemCode::Unavailable) }
    }

    /// A 503 because a disk has no room for more.
    #[must_use]
    pub fn disk_full() -> Self {
        Self::new(ProblemCode::DiskFull).retry_after_s(5)
    }

    /// A 503 for a request that is refused because there is too much to do. It is counted.
    #[must_use]
    pub fn overloaded() -> Self {
        metrics::counter!("requests_shed_total").increment(1);
        Self::new(ProblemCode::Overloaded)
    }

    /// A 400 for a header that appears more than once.
    #[must_use]
    pub fn repeated_header(name: &HeaderName) -> Self {
        Self::parameter(format!("the header {name} appears more than once"))
    }

    /// A 400 that names the path segment, query parameter or header.
    #[must_use]
    pub fn parameter(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemCode::InvalidParameter).detail(detail)
    }

    /// A 422 for one field of the body.
    #[must_use]
    pub fn field(pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemCode::InvalidFields).error(pointer, detail)
    }

    /// What is particular to this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a field that is wrong: a JSON pointer into the body, and what is wrong.
    #[must_use]
    pub fn error(mut self, pointer: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// `Retry-After` in seconds. A 503 without one gets 1.
    #[must_use]
    pub fn retry_after_s(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// Its HTTP status, as the single request would get it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// What is particular to this occurrence, if anything was said.
    #[must_use]
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.code, self.0.detail.as_deref().unwrap_or(self.0.code.title()))?;
        self.0.errors.iter().try_for_each(|error| write!(f, "; {}: {}", error.pointer, error.detail))
    }
}

impl std::error::Error for Problem {}

/// A 400 where a field is malformed, else a 422; with all fields that are wrong.
impl From<InvalidFields> for Problem {
    fn from(invalid: InvalidFields) -> Self {
        let code = if invalid.is_malformed() { ProblemCode::MalformedBody } else { ProblemCode::InvalidFields };
        let errors = invalid.errors();
        let problem = Self::new(code).detail(match errors {
            [only] if only.pointer.is_empty() => format!("The body {}.", only.detail),
            [only] => format!("{} {}.", only.pointer, only.detail),
            all => format!("{} things are wrong with the body; see errors.", all.len()),
        });
        errors.iter().cloned().fold(problem, |problem, error| problem.error(error.pointer, error.detail))
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.0.code.reference())?;
        map.serialize_entry("title", self.0.code.title())?;
        map.serialize_entry("status", &self.0.code.status().as_u16())?;
        // what there is to say in every case, where nothing is particular to this one
        map.serialize_entry("detail", self.0.detail.as_deref().unwrap_or(self.0.code.explanation()))?;
        map.serialize_entry("code", self.0.code.as_str())?;
        map.serialize_entry("trace_id", &context::current_trace_id())?;
        if !self.0.errors.is_empty() {
            map.serialize_entry("errors", &self.0.errors)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        metrics::counter!("problems_total", "code" => self.0.code.as_str()).increment(1);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body).into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        for (name, value) in self.0.headers {
            headers.append(name, value);
        }
        if self.0.code.status() == StatusCode::SERVICE_UNAVAILABLE && !headers.contains_key(RETRY_AFTER) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_kebab_case_and_found_again() {
        let mut seen = HashSet::new();
        for &code in ProblemCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert_eq!(ProblemCode::parse(code.as_str()), Some(code));
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(code.reference(), format!("/problems/{code}"));
            assert!(!code.explanation().is_empty() && !code.title().is_empty());
        }
    }

    /// nginx has no table to take them from.
    #[test]
    fn the_gateway_s_own_answers_have_these_words() {
        let gateway = include_str!("../../../bin/lib/gateway.conf");
        let mut codes = Vec::new();
        for line in gateway.lines().filter_map(|line| line.trim().strip_prefix("return ")) {
            let Some((status, text)) = line.split_once(" '") else { continue };
            let text = text.strip_suffix("';").expect("one line").replace("\\'", "'");
            let problem: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let code = problem["code"].as_str().and_then(ProblemCode::parse).expect("a code of the table");
            assert_eq!(status, code.status().as_str(), "{code}");
            let mut expected = serde_json::to_value(Problem::new(code)).expect("JSON");
            expected["trace_id"] = "$gateway_trace_id".into();
            assert_eq!(problem, expected);
            codes.push(code.as_str());
        }
        assert_eq!(codes.len(), 8, "{codes:?}");
    }

    #[test]
    fn a_503_always_says_when_to_come_back() {
        let response = Problem::new(ProblemCode::Overloaded).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let response = Problem::new(ProblemCode::Overloaded).retry_after_s(7).into_response();
        assert_eq!(response.headers().get_all(RETRY_AFTER).iter().collect::<Vec<_>>(), ["7"]);
    }

    #[test]
    fn the_body_has_every_member_of_the_contract() {
        let problem = Problem::field("/title", "must not be blank").detail("one field");
        let value: serde_json::Value = serde_json::to_value(&problem).expect("serialises");
        assert_eq!(value["type"], "/problems/invalid-fields");
        assert_eq!(value["status"], 422);
        assert_eq!(value["code"], "invalid-fields");
        assert_eq!(value["detail"], "one field");
        assert_eq!(value["errors"][0]["pointer"], "/title");
        assert_eq!(value["trace_id"].as_str().map(str::len), Some(32));
    }
}
