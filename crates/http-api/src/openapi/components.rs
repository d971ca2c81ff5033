//! Parameters and headers that descriptions refer to by name.

use serde_json::{Map, Value, json};

use super::schema::{EXAMPLE_ID, count};
use crate::headers::IDEMPOTENCY_KEY_LENGTH_MAX;
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};

/// By name: headers of requests, and what pages take.
pub(super) fn parameters() -> Value {
    let parameter = |place: &str, name: &str, description: &str, schema: Value| {
        // without examples: what a client has to take from an earlier answer cannot be made up
        (name.to_owned(), json!({"name": name, "in": place, "description": description, "schema": schema}))
    };
    let tags = json!({"type": "string", "pattern": TAGS});
    let text = json!({"type": "string"});
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX, "pattern": "^[!-~]+$",
    });
    let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT});
    Value::Object(Map::from_iter([
        parameter(
            "header",
            "Idempotency-Key",
            "Of the account's own choice, such as a UUID. The same key and request again give the same answer, with \
             `Idempotent-Replayed: true`, and have no further effect; with another request it is refused. Kept for 24 hours \
             or more.",
            key,
        ),
        parameter(
            "header",
            "If-Match",
            "The versions of which the task must have one, as `ETag`s (`\"3\"`), or `*`.",
            tags.clone(),
        ),
        parameter("header", "If-None-Match", "`ETag`s that the client has: 304 if one of them is still current.", tags),
        parameter(
            "header",
            "Consistency-Token",
            "Of an earlier answer. A read shows at least as much, and waits for that for at most 2 s; the token that a write \
             answers with stands for at least as much.",
            text.clone(),
        ),
        parameter(
            "header",
            "Last-Event-ID",
            "The `id` of the last message that was seen, or a list's `revision`: what came after it follows.",
            count(),
        ),
        parameter(
            "header",
            "X-Request-Id",
            "Taken, and returned, if it has 1 to 128 characters of `A-Za-z0-9._-`; else one is made.",
            text.clone(),
        ),
        parameter(
            "header",
            "traceparent",
            "W3C trace context, carried through to the read models. A bad one is replaced.",
            text.clone(),
        ),
        parameter("query", "limit", "How many items at most.", limit),
        parameter("query", "cursor", "The `next_cursor` of the page before, with the same filters and sort.", text),
    ]))
}

/// Entity tags, or a star.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;

/// By name: headers of answers.
pub(super) fn headers() -> Value {
    let header = |name: &str, description: &str, schema: Value, example: Value| {
        (name.to_owned(), json!({"description": description, "schema": schema, "example": example}))
    };
    let text = || json!({"type": "string"});
    let mut headers = Map::from_iter([
        header(
            "ETag",
            "Of a task: its version, strong. Else weak.",
            json!({"type": "string", "pattern": "^(W/)?\"[!#-~]*\"$"}),
            json!("\"3\""),
        ),
        header(
            "Consistency-Token",
            "Sent back with a read, it shows at least this.",
            text(),
            json!("EUVUpEm1Q7uiuYULn7xy6AAAAAAAAAAAAAFW44a0lI2I1D0HSzXYr7Bd"),
        ),
        header(
            "Change-Id",
            "The change that was made: all that this request did. Missing where nothing happened.",
            json!({"type": "string", "format": "uuid"}),
            json!(EXAMPLE_ID),
        ),
        header(
            "Location",
            "Where the task or job is.",
            json!({"type": "string", "format": "uri-reference"}),
            json!(format!("/api/v1/tasks/{EXAMPLE_ID}")),
        ),
        header(
            "Link",
            "The next page, where there is one: `rel=\"next\"`.",
            text(),
            json!("</api/v1/tasks?limit=50&cursor=AbC>; rel=\"next\""),
        ),
        header(
            "Idempotent-Replayed",
            "The answer of an earlier request with this key.",
            json!({"const": "true"}),
            json!("true"),
        ),
        header(
            "X-Request-Id",
            "The request's own, or a made one.",
            json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}),
            json!("checkout-4711"),
        ),
        header(
            "RateLimit-Policy",
            "The limits that apply: how many (`q`) in how many seconds (`w`).",
            text(),
            json!("\"account\";q=1200;w=60"),
        ),
        header(
            "RateLimit",
            "What is left of the nearest limit (`r`), and for how many seconds (`t`).",
            text(),
            json!("\"account\";r=1199;t=1"),
        ),
        header("Retry-After", "When to try again, in seconds.", json!({"type": "integer", "minimum": 0}), json!(1)),
        header(
            "WWW-Authenticate",
            "The challenge.",
            json!({"type": "string", "pattern": "^Bearer"}),
            json!("Bearer realm=\"primetrade\""),
        ),
        header(
            "Set-Cookie",
            "The session cookie, where the refresh token is kept in it.",
            text(),
            json!("__Host-session=Xm2lNn0JbO3yqk5v4vZ1fQ; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict; Secure"),
        ),
        header("Cache-Control", "For how long, and by whom, it may be kept.", text(), json!("public, max-age=5")),
    ]);
    headers["X-Request-Id"]["required"] = true.into();
    Value::Object(headers)
}
