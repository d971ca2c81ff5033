//! `POST /api/v1/auth/login`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use identity::{Email, Identity, IdentityError, Password, Tokens};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use service_kit::body::JsonBody;
use service_kit::limits::RateLimits;
use service_kit::problem::Problem;

use super::{Mistakes, json, not_stored, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    email: String,
    password: String,
}

/// Begins a session.
pub(super) async fn login(
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
    outcome.map(answer).map_err(problem)
}

/// What cannot be looked up is refused; what could not have been registered is only wrong.
fn parse(body: &Credentials) -> Result<(Email, Password), Problem> {
    let mut mistakes = Mistakes::default();
    let email = mistakes.take("/email", Email::lenient(&body.email));
    let password = mistakes.take("/password", Password::lenient(&body.password));
    mistakes.or(email.zip(password))
}

/// The tokens of a session.
pub(super) fn answer(tokens: Tokens) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        access_token: &'a str,
        token_type: &'static str,
        expires_in: i32,
        refresh_token: &'a str,
        refresh_expires_in: i32,
    }
    not_stored(json(
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
