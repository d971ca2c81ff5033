use access::Role;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::InvalidFields;
use http_api::answer;
use http_api::body::JsonBody;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Email, Identity, Name, NewAccount, Password};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{self, OwnAccount};
use crate::problem::problem;
use crate::value_schema;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    email: String,
    password: String,
    name: String,
}

/// Creates an account.
pub(crate) async fn register(
    State(identity): State<Identity>,
    JsonBody(body, _): JsonBody<Registration>,
) -> Result<Response, Problem> {
    let account = identity.accounts().create(parse(&body)?).await.map_err(problem)?;
    Ok(answer::json(StatusCode::CREATED, &OwnAccount::from(account)))
}

fn parse(body: &Registration) -> Result<NewAccount, InvalidFields> {
    let mut invalid = InvalidFields::default();
    let email = invalid.take("/email", Email::parse(&body.email));
    let password = invalid.take("/password", Password::parse(&body.password));
    let name = invalid.take("/name", Name::parse(&body.name));
    let whole = email.zip(password).zip(name);
    invalid.or(whole.map(|((email, password), name)| NewAccount { email, name, password, role: Role::User }))
}

pub(crate) fn described() -> Operation {
    let example = json!({"email": "zoe@example.com", "password": "correct horse battery", "name": "Zoë"});
    Operation::new(Tag::Accounts, "register", "Create an account")
        .body(&["application/json"], &reference("Registration"), &example)
        .json(201, "Created.", &[], &reference("Account"), &account::example())
        .refuses(&[ProblemCode::EmailTaken, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["email", "password", "name"],
        "properties": {"email": value_schema::email(), "password": value_schema::new_password(), "name": value_schema::name()},
    })
}
