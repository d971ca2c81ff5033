//! Accounts over HTTP: `/api/v1/auth`, `/api/v1/users`, `/.well-known/jwks.json`. One file for each endpoint.

mod audit;
mod jwks;
mod login;
mod logout;
mod me;
mod password;
mod profile;
mod refresh;
mod register;
mod users;

use std::borrow::Cow;

use access::Role;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use backends::redis::Redis;
use domain::{Invalid, OwnerId, format_time};
use http_api::openapi::{Described, EXAMPLE_ID, EXAMPLE_TIME, Operation, Routes, Tag, time, whole};
use http_api::problem::{Problem, ProblemCode};
use http_api::{Api, RouteKind};
use identity::{Account, Identity, IdentityError};
use serde::Serialize;
use serde_json::{Value, json};

use profile::Profiles;

/// The routes under "Accounts" of the HTTP contract. `server::edge` stands around them. In `redis` the copies of the
/// service share what accounts look like.
pub fn router(identity: Identity, redis: Option<Redis>) -> Api {
    routes().with_state(Profiles { identity, redis })
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<Profiles> {
    Routes::new()
        .kind(RouteKind::ForTokens)
        .post("/api/v1/auth/register", register::register, register::described)
        .post("/api/v1/auth/login", login::login, login::described)
        .post("/api/v1/auth/refresh", refresh::refresh, refresh::described)
        .kind(RouteKind::OwnPassword)
        .post("/api/v1/auth/password", password::change, password::described)
        .kind(RouteKind::Always)
        .get("/.well-known/jwks.json", jwks::jwks, jwks::described)
        .kind(RouteKind::Ordinary)
        .post("/api/v1/auth/logout", logout::logout, logout::described)
        .get("/api/v1/auth/me", me::show, me::show_described)
        .patch("/api/v1/auth/me", me::rename, me::rename_described)
        .patch("/api/v1/users/{id}", users::change, users::change_described)
        .without_query()
        .get("/api/v1/users", users::list, users::list_described)
        .get("/api/v1/users/audit", audit::list, audit::described)
        .schema("Registration", register::schema)
        .schema("Credentials", login::schema)
        .schema("Tokens", login::answer_schema)
        .schema("Refresh", refresh::schema)
        .schema("AccountPatch", me::schema)
        .schema("PasswordChange", password::schema)
        .schema("UserPatch", users::schema)
        .schema("Account", account_schema)
        .schema("User", users::user_schema)
        .schema("UserPage", users::page_schema)
        .schema("AuditEvent", audit::schema)
        .schema("AuditPage", audit::page_schema)
        .schema("Keys", jwks::schema)
}

/// What takes no token, or one of any role.
fn described_as(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Accounts, id, summary)
}

/// An account as it sees itself.
#[derive(Serialize)]
struct OwnAccount {
    id: OwnerId,
    email: String,
    name: String,
    role: Role,
    created_at: String,
}

impl From<Account> for OwnAccount {
    fn from(account: Account) -> Self {
        let created_at = format_time(account.created_at);
        Self { id: account.id, email: account.email, name: account.name, role: account.role, created_at }
    }
}

fn account_schema() -> Value {
    whole(account_members())
}

fn account_members() -> Value {
    json!({
        "id": {"type": "string", "format": "uuid"},
        "email": {"type": "string"},
        "name": {"type": "string"},
        "role": {"type": "string", "enum": [Role::User.as_str(), Role::Admin.as_str()]},
        "created_at": time(),
    })
}

fn account_example() -> Value {
    json!({"id": EXAMPLE_ID, "email": "zoe@example.com", "name": "Zoë", "role": "user", "created_at": EXAMPLE_TIME})
}

/// The values of bodies, with their limits.
mod value {
    use identity::values::{EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN};
    use serde_json::{Value, json};

    /// The HTML standard's own, which `Email::parse` follows.
    const EMAIL_PATTERN: &str = "^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$";

    pub(super) fn email() -> Value {
        json!({
            "type": "string", "minLength": 3, "maxLength": EMAIL_LENGTH_MAX, "pattern": EMAIL_PATTERN,
            "description": "As `input type=email` takes it (HTML standard). Compared in lower case.",
        })
    }

    pub(super) fn name() -> Value {
        json!({
            "type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX,
            "description": "Trimmed; no control characters.",
        })
    }

    pub(super) fn new_password() -> Value {
        json!({
            "type": "string", "format": "password", "minLength": PASSWORD_LENGTH_MIN, "maxLength": PASSWORD_LENGTH_MAX,
            "description": "Any characters but NUL.",
        })
    }

    /// As typed to prove who one is: one that is too short is only wrong.
    pub(super) fn password() -> Value {
        json!({"type": "string", "format": "password", "maxLength": PASSWORD_LENGTH_MAX})
    }
}

/// Each refusal's problem.
fn problem(error: IdentityError) -> Problem {
    let code = match error {
        IdentityError::EmailTaken => ProblemCode::EmailTaken,
        IdentityError::InvalidCredentials => ProblemCode::InvalidCredentials,
        IdentityError::Disabled => ProblemCode::AccountDisabled,
        IdentityError::WrongPassword => ProblemCode::WrongPassword,
        IdentityError::InvalidRefreshToken => ProblemCode::InvalidRefreshToken,
        IdentityError::RefreshInFlight => ProblemCode::RefreshInFlight,
        IdentityError::NotFound => ProblemCode::NotFound,
        IdentityError::Overloaded => ProblemCode::Overloaded,
        IdentityError::Unavailable(source) => return Problem::unavailable(&source),
        IdentityError::Internal(source) => return Problem::internal(&source),
    };
    let problem = Problem::new(code);
    match code.status() {
        // every 401 has a challenge (RFC 9110, 11.6.1)
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::from_static("Bearer realm=\"primetrade\"");
            problem.header(axum::http::header::WWW_AUTHENTICATE, challenge)
        }
        _ => problem,
    }
}

/// An answer that nobody may keep: it carries tokens.
fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// All that is wrong with a body, told together.
#[derive(Default)]
struct InvalidFields(Option<Problem>);

impl InvalidFields {
    /// The value, or a mistake noted for its field.
    fn take<T>(&mut self, pointer: &'static str, value: Result<T, Invalid>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(Invalid(detail)) => {
                let problem = self.0.take().unwrap_or_else(|| Problem::new(ProblemCode::InvalidFields));
                self.0 = Some(problem.error(Cow::Borrowed(pointer), detail));
                None
            }
        }
    }

    /// What was put together from the values, unless there was a mistake.
    fn or<T>(self, whole: Option<T>) -> Result<T, Problem> {
        match (self.0, whole) {
            (None, Some(whole)) => Ok(whole),
            (Some(problem), _) => Err(problem),
            (None, None) => Err(Problem::internal(&"a value is missing and nobody said why")),
        }
    }
}
