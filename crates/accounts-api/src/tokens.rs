//! What login and refresh answer: the session's tokens, the refresh token in the body or in the session cookie.

use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use http_api::openapi::{count, whole};
use identity::Tokens;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Value, json};

use crate::session_cookie::SessionCookie;

#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    refresh_expires_in: i32,
}

impl Answer<'_> {
    fn of(tokens: &Tokens) -> Answer<'_> {
        Answer {
            access_token: tokens.access_token.expose_secret(),
            token_type: "Bearer",
            expires_in: tokens.expires_in_s,
            refresh_token: None,
            refresh_expires_in: tokens.refresh_expires_in_s,
        }
    }

    fn response(&self) -> Response {
        let mut response = http_api::answer::json(StatusCode::OK, self);
        // nobody may keep tokens
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// All of them in the body.
pub(crate) fn in_body(tokens: &Tokens) -> Response {
    Answer { refresh_token: Some(tokens.refresh_token.expose_secret()), ..Answer::of(tokens) }.response()
}

/// The refresh token in the cookie.
pub(crate) fn in_cookie(tokens: &Tokens, cookie: &SessionCookie) -> Response {
    let mut response = Answer::of(tokens).response();
    let kept = cookie.keep(&tokens.refresh_token, tokens.refresh_expires_in_s);
    response.headers_mut().insert(SET_COOKIE, kept);
    response
}

pub(crate) fn schema() -> Value {
    let mut schema = whole(json!({
        "access_token": {"type": "string", "description": "A JWT signed with Ed25519."},
        "token_type": {"const": "Bearer"},
        "expires_in": count(),
        "refresh_expires_in": count(),
    }));
    schema["properties"]["refresh_token"] = json!({
        "type": "string",
        "description": "For one use: refreshing gives a new one. Not here where it is in the session cookie.",
    });
    schema
}

pub(crate) fn example() -> Value {
    json!({
        "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900,
        "refresh_token": "Xm2lNn0JbO3yqk5v4vZ1fQ", "refresh_expires_in": 2_592_000,
    })
}
