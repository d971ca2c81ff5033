//! `POST /api/v1/auth/logout`

use axum::extract::State;
use axum::http::StatusCode;
use http_api::account::Account;
use http_api::body::EmptyBody;
use http_api::openapi::Operation;
use http_api::problem::Problem;
use identity::Identity;

use super::{described_as, problem};

/// Ends the session of the access token.
pub(super) async fn logout(
    State(identity): State<Identity>,
    Account(principal): Account,
    _: EmptyBody,
) -> Result<StatusCode, Problem> {
    identity.logout(principal.session).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn described() -> Operation {
    described_as("logout", "Ends the session")
        .says("Its tokens end within 5 seconds, at every service.")
        .account()
        .empty_body()
        .empty(204, "Ended.", &[])
}
