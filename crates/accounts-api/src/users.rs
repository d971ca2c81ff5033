use access::Role;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::OwnerId;
use http_api::account::Admin;
use http_api::answer;
use http_api::body::MergePatch;
use http_api::openapi::{Operation, Tag, page_of, reference, whole};
use http_api::page::{PageOf, PageQuery};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{PathId, StrictQuery};
use identity::audit::Act;
use identity::{Account, AccountChange, Identity};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::account::{self, OwnAccount};
use crate::problem::problem;

/// What cursors of this list are bound to besides the admin.
const BINDING: &[u8] = b"users";

/// An account as an admin sees it.
#[derive(Serialize)]
struct ListedAccount {
    #[serde(flatten)]
    account: OwnAccount,
    disabled: bool,
}

impl From<Account> for ListedAccount {
    fn from(account: Account) -> Self {
        Self { disabled: account.disabled, account: account.into() }
    }
}

/// All accounts, oldest first.
pub(crate) async fn list(
    State(identity): State<Identity>,
    Admin(principal): Admin,
    OriginalUri(uri): OriginalUri,
    StrictQuery(params): StrictQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (sealer, reader) = (identity.sealer(), principal.owner);
    let page = PageOf { sealer, reader, binding: BINDING, uri: &uri, limit: params.limit };
    let after = page.begins_behind_id(params.cursor.as_deref())?.map(OwnerId);
    identity.accounts().record_read(Act::AccountsRead, principal.session).await.map_err(problem)?;
    let accounts = identity.accounts().list(after, page.rows_max()).await.map_err(problem)?;
    Ok(page.answer(accounts, |account| account.id.0, ListedAccount::from))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default, deserialize_with = "not_null")]
    role: Option<Role>,
    #[serde(default, deserialize_with = "not_null")]
    disabled: Option<bool>,
}

/// A field that may be missing but not `null`.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Changes an account's role, or disables or enables it.
pub(crate) async fn change(
    State(identity): State<Identity>,
    _: Admin,
    PathId(id): PathId,
    MergePatch(body, _): MergePatch<Patch>,
) -> Result<Response, Problem> {
    let change = AccountChange { role: body.role, disabled: body.disabled };
    let account = identity.change(OwnerId(id), change).await.map_err(problem)?;
    Ok(answer::json(StatusCode::OK, &ListedAccount::from(account)))
}

pub(crate) fn list_described() -> Operation {
    let page = json!({"items": [user_example()], "next_cursor": null});
    Operation::new(Tag::Accounts, "listUsers", "List accounts")
        .says("Oldest first.")
        .admin()
        .pages()
        .json(200, "A page of accounts.", &["Link"], &reference("UserPage"), &page)
        // that they were read is written down
        .refuses(&[ProblemCode::DiskFull])
}

pub(crate) fn change_described() -> Operation {
    Operation::new(Tag::Accounts, "changeUser", "Change an account's role, or disable or enable it")
        .says("Disabling ends the account's sessions within 5 seconds.")
        .admin()
        .path_id("The account's id.")
        .body(
            &["application/merge-patch+json", "application/json"],
            &reference("UserPatch"),
            &json!({"role": "admin", "disabled": false}),
        )
        .json(200, "The account.", &[], &reference("User"), &user_example())
        .refuses(&[ProblemCode::NotFound, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "role": {"type": "string", "enum": [Role::User.as_str(), Role::Admin.as_str()]},
            "disabled": {"type": "boolean"},
        },
    })
}

pub(crate) fn user_schema() -> Value {
    let mut members = account::members();
    members["disabled"] = json!({"type": "boolean"});
    whole(members)
}

pub(crate) fn page_schema() -> Value {
    page_of("User")
}

fn user_example() -> Value {
    let mut user = account::example();
    user["disabled"] = false.into();
    user
}
