use axum::extract::State;
use axum::http::StatusCode;
use domain::InvalidFields;
use http_api::account::Account;
use http_api::body::JsonBody;
use http_api::limits::RateLimits;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Identity, IdentityError, Password};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::problem;
use crate::value_schema;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    current: String,
    new: String,
}

/// Changes the password and ends the account's other sessions.
pub(crate) async fn change(
    State(identity): State<Identity>,
    Account(principal): Account,
    limits: RateLimits,
    JsonBody(body, _): JsonBody<Change>,
) -> Result<StatusCode, Problem> {
    let mut invalid = InvalidFields::default();
    let current = invalid.take("/current", Password::lenient(&body.current));
    let new = invalid.take("/new", Password::parse(&body.new));
    let (current, new) = invalid.or(current.zip(new))?;
    let attempt = limits.password_attempt(principal.owner.0.as_bytes())?;
    let outcome = identity.change_password(principal.owner, principal.session, current, new).await;
    if !matches!(outcome, Err(IdentityError::WrongPassword)) {
        attempt.was_not_wrong();
    }
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(problem)
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "changePassword", "Change the password")
        .says("The account's other sessions end.")
        .account()
        .body(
            &["application/json"],
            &reference("PasswordChange"),
            &json!({"current": "correct horse battery", "new": "staple the battery"}),
        )
        .empty(204, "Changed.", &[])
        .refuses(&[ProblemCode::WrongPassword, ProblemCode::NotFound, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["current", "new"],
        "properties": {"current": value_schema::password(), "new": value_schema::new_password()},
    })
}
