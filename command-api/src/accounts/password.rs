//! `POST /api/v1/auth/password`

use axum::extract::State;
use axum::http::StatusCode;
use http_api::account::Account;
use http_api::body::JsonBody;
use http_api::limits::RateLimits;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Identity, IdentityError, Password};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{InvalidFields, described_as, problem, value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    current: String,
    new: String,
}

/// Changes the password and ends the account's other sessions.
pub(super) async fn change(
    State(identity): State<Identity>,
    Account(principal): Account,
    limits: RateLimits,
    JsonBody(body, _): JsonBody<Change>,
) -> Result<StatusCode, Problem> {
    let mut mistakes = InvalidFields::default();
    let current = mistakes.take("/current", Password::lenient(&body.current));
    let new = mistakes.take("/new", Password::parse(&body.new));
    let (current, new) = mistakes.or(current.zip(new))?;
    let attempt = limits.password_attempt(principal.owner.0.as_bytes())?;
    let outcome = identity.change_password(principal.owner, principal.session, current, new).await;
    if !matches!(outcome, Err(IdentityError::WrongPassword)) {
        attempt.was_not_wrong();
    }
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(problem)
}

pub(super) fn described() -> Operation {
    described_as("changePassword", "Changes the password")
        .says("The account's other sessions end.")
        .account()
        .body(
            &["application/json"],
            &reference("PasswordChange"),
            &json!({"current": "correct horse battery", "new": "staple the battery"}),
        )
        .empty(204, "Changed.", &[])
        .refuses(&[ProblemCode::WrongPassword, ProblemCode::NotFound])
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["current", "new"],
        "properties": {"current": value::password(), "new": value::new_password()},
    })
}
