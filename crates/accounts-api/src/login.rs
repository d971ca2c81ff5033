use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use domain::InvalidFields;
use http_api::body::JsonBody;
use http_api::limits::RateLimits;
use http_api::openapi::{Operation, Tag, count, reference, whole};
use http_api::problem::{Problem, ProblemCode};
use identity::{Email, Identity, IdentityError, Password, Tokens};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::problem::problem;
use crate::value_schema;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    email: String,
    password: String,
}

/// Starts a session.
pub(crate) async fn login(
    State(identity): State<Identity>,
    limits: RateLimits,
    JsonBody(body, _): JsonBody<Credentials>,
) -> Result<Response, Problem> {
    let (email, password) = parse(&body)?;
    let attempt = limits.password_attempt(email.as_str().as_bytes())?;
    let outcome = identity.login(&email, password).await;
    if !matches!(outcome, Err(IdentityError::InvalidCredentials)) {
        attempt.was_not_wrong();
    }
    outcome.map(tokens).map_err(problem)
}

/// What cannot be looked up is refused; what could not have been registered is only wrong.
fn parse(body: &Credentials) -> Result<(Email, Password), InvalidFields> {
    let mut invalid = InvalidFields::default();
    let email = invalid.take("/email", Email::lenient(&body.email));
    let password = invalid.take("/password", Password::lenient(&body.password));
    invalid.or(email.zip(password))
}

/// An answer that nobody may keep: it carries tokens.
fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The tokens of a session.
pub(crate) fn tokens(tokens: Tokens) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        access_token: &'a str,
        token_type: &'static str,
        expires_in: i32,
        refresh_token: &'a str,
        refresh_expires_in: i32,
    }
    not_stored(http_api::answer::json(
        StatusCode::OK,
        &Answer {
            access_token: tokens.access_token.expose_secret(),
            token_type: "Bearer",
            expires_in: tokens.expires_in_s,
            refresh_token: tokens.refresh_token.expose_secret(),
            refresh_expires_in: tokens.refresh_expires_in_s,
        },
    ))
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "login", "Log in")
        .says("Starts a session. An unknown address and a wrong password are answered alike. A disabled account is told so after the right password.")
        .body(
            &["application/json"],
            &reference("Credentials"),
            &json!({"email": "zoe@example.com", "password": "correct horse battery"}),
        )
        .json(200, "The session's tokens.", &["Cache-Control"], &reference("Tokens"), &answer_example())
        .refuses(&[ProblemCode::InvalidCredentials, ProblemCode::AccountDisabled])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["email", "password"],
        "properties": {"email": {"type": "string"}, "password": value_schema::password()},
    })
}

pub(crate) fn answer_schema() -> Value {
    whole(json!({
        "access_token": {"type": "string", "description": "A JWT signed with Ed25519."},
        "token_type": {"const": "Bearer"},
        "expires_in": count(),
        "refresh_token": {"type": "string", "description": "For one use: refreshing gives a new one."},
        "refresh_expires_in": count(),
    }))
}

pub(crate) fn answer_example() -> Value {
    json!({
        "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900,
        "refresh_token": "Xm2lNn0JbO3yqk5v4vZ1fQ", "refresh_expires_in": 2_592_000,
    })
}
