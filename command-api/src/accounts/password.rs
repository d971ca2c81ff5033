//! `POST /api/v1/auth/password`

use axum::extract::State;
use axum::http::StatusCode;
use identity::{Identity, Password};
use serde::Deserialize;
use service_kit::auth::Principal;
use service_kit::body::JsonBody;
use service_kit::problem::Problem;

use super::{Mistakes, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    current: String,
    new: String,
}

/// Changes the password and ends the account's other sessions.
pub(super) async fn change(
    State(identity): State<Identity>,
    principal: Principal,
    JsonBody(body, _): JsonBody<Change>,
) -> Result<StatusCode, Problem> {
    let mut mistakes = Mistakes::default();
    let current = mistakes.take("/current", Password::lenient(&body.current));
    let new = mistakes.take("/new", Password::parse(&body.new));
    let (current, new) = mistakes.or(current.zip(new))?;
    identity.change_password(principal.owner, principal.session, current, new).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}
