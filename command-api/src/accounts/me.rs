//! `GET` and `PATCH /api/v1/auth/me`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use identity::{Identity, Name};
use serde::Deserialize;
use service_kit::auth::Principal;
use service_kit::body::MergePatch;
use service_kit::problem::Problem;

use super::{Mistakes, OwnAccount, json, problem};

/// The account of the access token.
pub(super) async fn show(State(identity): State<Identity>, principal: Principal) -> Result<Response, Problem> {
    let account = identity.accounts().get(principal.owner).await.map_err(problem)?;
    Ok(json(StatusCode::OK, &OwnAccount::from(account)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    name: String,
}

/// Gives the account another name.
pub(super) async fn rename(
    State(identity): State<Identity>,
    principal: Principal,
    MergePatch(body, _): MergePatch<Patch>,
) -> Result<Response, Problem> {
    let mut mistakes = Mistakes::default();
    let name = mistakes.take("/name", Name::parse(&body.name));
    let name = mistakes.or(name)?;
    let account = identity.accounts().rename(principal.owner, &name).await.map_err(problem)?;
    Ok(json(StatusCode::OK, &OwnAccount::from(account)))
}
