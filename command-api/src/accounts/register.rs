//! `POST /api/v1/auth/register`

use access::Role;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_api::answer;
use http_api::body::JsonBody;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Email, Identity, Name, NewAccount, Password};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{InvalidFields, OwnAccount, account_example, described_as, problem, value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    email: String,
    password: String,
    name: String,
}

/// Makes an account.
pub(super) async fn register(
    State(identity): State<Identity>,
    JsonBody(body, _): JsonBody<Registration>,
) -> Result<Response, Problem> {
    let account = identity.accounts().create(parse(&body)?).await.map_err(problem)?;
    Ok(answer::json(StatusCode::CREATED, &OwnAccount::from(account)))
}

fn parse(body: &Registration) -> Result<NewAccount, Problem> {
    let mut mistakes = InvalidFields::default();
    let email = mistakes.take("/email", Email::parse(&body.email));
    let password = mistakes.take("/password", Password::parse(&body.password));
    let name = mistakes.take("/name", Name::parse(&body.name));
    let whole = email.zip(password).zip(name);
    mistakes.or(whole.map(|((email, password), name)| NewAccount { email, name, password, role: Role::User }))
}

pub(super) fn described() -> Operation {
    let example = json!({"email": "zoe@example.com", "password": "correct horse battery", "name": "Zoë"});
    described_as("register", "Makes an account")
        .body(&["application/json"], &reference("Registration"), &example)
        .json(201, "Made.", &[], &reference("Account"), &account_example())
        .refuses(&[ProblemCode::EmailTaken])
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["email", "password", "name"],
        "properties": {"email": value::email(), "password": value::new_password(), "name": value::name()},
    })
}
