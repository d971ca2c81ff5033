use axum::extract::State;
use axum::http::StatusCode;
use http_api::account::Account;
use http_api::body::EmptyBody;
use http_api::openapi::{Operation, Tag};
use http_api::problem::Problem;
use identity::Identity;

use crate::problem::problem;

/// Ends the session of the access token.
pub(crate) async fn logout(
    State(identity): State<Identity>,
    Account(principal): Account,
    _: EmptyBody,
) -> Result<StatusCode, Problem> {
    identity.logout(principal.session).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "logout", "Log out")
        .says("Ends the session. Its tokens end within 5 seconds, at every service.")
        .account()
        .empty_body()
        .empty(204, "Ended.", &[])
}
