use axum::extract::State;
use axum::response::Response;
use domain::InvalidFields;
use http_api::body::JsonBody;
use http_api::limits::RateLimits;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Email, Identity, IdentityError, Password};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::problem;
use crate::session_cookie::SessionCookie;
use crate::user_agent::UserAgent;
use crate::{tokens, value_schema};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    email: String,
    password: String,
    session: Option<Keeping>,
}

/// Where the client keeps the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Keeping {
    Token,
    Cookie,
}

impl TryFrom<String> for Keeping {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match &*text {
            "token" => Ok(Self::Token),
            "cookie" => Ok(Self::Cookie),
            _ => Err("expected `token` or `cookie`"),
        }
    }
}

/// Starts a session.
pub(crate) async fn login(
    State(identity): State<Identity>,
    limits: RateLimits,
    cookie: SessionCookie,
    UserAgent(user_agent): UserAgent,
    JsonBody(body, _): JsonBody<Credentials>,
) -> Result<Response, Problem> {
    let (email, password) = parse(&body)?;
    let attempt = limits.password_attempt(email.as_str().as_bytes())?;
    let outcome = identity.login(&email, password, user_agent).await;
    if !matches!(outcome, Err(IdentityError::InvalidCredentials)) {
        attempt.was_not_wrong();
    }
    let begun = outcome.map_err(problem)?;
    Ok(match body.session.unwrap_or(Keeping::Token) {
        Keeping::Token => tokens::in_body(&begun),
        Keeping::Cookie => tokens::in_cookie(&begun, &cookie),
    })
}

/// What cannot be looked up is refused; what could not have been registered is only wrong.
fn parse(body: &Credentials) -> Result<(Email, Password), InvalidFields> {
    let mut invalid = InvalidFields::default();
    let email = invalid.take("/email", Email::lenient(&body.email));
    let password = invalid.take("/password", Password::lenient(&body.password));
    invalid.or(email.zip(password))
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "login", "Log in")
        .says(
            "Starts a session. An unknown address and a wrong password are answered alike. A disabled account is told so after \
             the right password. With `\"session\": \"cookie\"` the refresh token comes as the session cookie and not in the body: \
             `__Host-session`, HttpOnly, Secure, SameSite=Strict, Path=/; over plain HTTP on loopback `session`, without Secure.",
        )
        .body(
            &["application/json"],
            &reference("Credentials"),
            &json!({"email": "zoe@example.com", "password": "correct horse battery"}),
        )
        .json(200, "The session's tokens.", &["Cache-Control", "Set-Cookie"], &reference("Tokens"), &tokens::example())
        .refuses(&[ProblemCode::InvalidCredentials, ProblemCode::AccountDisabled, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["email", "password"],
        "properties": {
            "email": {"type": "string"},
            "password": value_schema::password(),
            "session": {
                "type": ["string", "null"], "enum": ["token", "cookie", null],
                "description": "Where the refresh token goes: into the body (`token`, also without this member), or into the session cookie.",
            },
        },
    })
}
