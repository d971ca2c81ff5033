//! `GET` and `PATCH /api/v1/auth/me`

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_api::account::Account;
use http_api::answer;
use http_api::body::MergePatch;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::profile::Profiles;
use super::{InvalidFields, OwnAccount, account_example, described_as, problem, value};

/// The account of the access token.
pub(super) async fn show(
    State(profiles): State<Profiles>,
    Account(principal): Account,
) -> Result<impl IntoResponse, Problem> {
    let body = profiles.get(principal.owner).await.map_err(problem)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    name: String,
}

/// Gives the account another name.
pub(super) async fn rename(
    State(Profiles { identity, .. }): State<Profiles>,
    Account(principal): Account,
    MergePatch(body, _): MergePatch<Patch>,
) -> Result<Response, Problem> {
    let mut mistakes = InvalidFields::default();
    let name = mistakes.take("/name", Name::parse(&body.name));
    let name = mistakes.or(name)?;
    let account = identity.accounts().rename(principal.owner, &name).await.map_err(problem)?;
    Ok(answer::json(StatusCode::OK, &OwnAccount::from(account)))
}

pub(super) fn show_described() -> Operation {
    described_as("showAccount", "The account of the access token")
        .account()
        .json(200, "The account.", &[], &reference("Account"), &account_example())
        .refuses(&[ProblemCode::NotFound])
}

pub(super) fn rename_described() -> Operation {
    described_as("renameAccount", "Gives the account another name")
        .account()
        .body(
            &["application/merge-patch+json", "application/json"],
            &reference("AccountPatch"),
            &json!({"name": "Zoë"}),
        )
        .json(200, "The account.", &[], &reference("Account"), &account_example())
        .refuses(&[ProblemCode::NotFound])
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {"name": value::name()},
    })
}
