use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::InvalidFields;
use http_api::account::Account;
use http_api::answer;
use http_api::body::MergePatch;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Identity, Name};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{self, OwnAccount};
use crate::problem::problem;
use crate::profile::Profiles;
use crate::value_schema;

/// The account of the access token.
pub(crate) async fn show(
    State(profiles): State<Profiles>,
    Account(principal): Account,
) -> Result<impl IntoResponse, Problem> {
    let body = profiles.get(principal.owner).await.map_err(problem)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    name: String,
}

/// Renames the account.
pub(crate) async fn rename(
    State(identity): State<Identity>,
    Account(principal): Account,
    MergePatch(body, _): MergePatch<Patch>,
) -> Result<Response, Problem> {
    let mut invalid = InvalidFields::default();
    let name = invalid.take("/name", Name::parse(&body.name));
    let name = invalid.or(name)?;
    let account = identity.accounts().rename(principal.owner, &name).await.map_err(problem)?;
    Ok(answer::json(StatusCode::OK, &OwnAccount::from(account)))
}

pub(crate) fn show_described() -> Operation {
    Operation::new(Tag::Accounts, "showAccount", "Get your account")
        .account()
        .json(200, "The account.", &[], &reference("Account"), &account::example())
        .refuses(&[ProblemCode::NotFound])
}

pub(crate) fn rename_described() -> Operation {
    Operation::new(Tag::Accounts, "renameAccount", "Rename your account")
        .account()
        .body(
            &["application/merge-patch+json", "application/json"],
            &reference("AccountPatch"),
            &json!({"name": "Zoë"}),
        )
        .json(200, "The account.", &[], &reference("Account"), &account::example())
        .refuses(&[ProblemCode::NotFound, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {"name": value_schema::name()},
    })
}
