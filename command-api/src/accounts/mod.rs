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

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_extractor;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use domain::{Invalid, OwnerId, format_time};
use identity::{Account, Identity, IdentityError};
use serde::Serialize;
use service_kit::auth::Role;
use service_kit::problem::{Problem, ProblemCode};
use service_kit::query::NoQuery;
use service_kit::redis::Redis;

use profile::Profiles;

/// The routes under "Accounts" of the HTTP contract. `server::edge` stands around them. In `redis` the copies of the
/// service share what accounts look like.
pub fn router(identity: Identity, redis: Option<Redis>) -> Router {
    let listed = Router::new().route("/api/v1/users", get(users::list)).route("/api/v1/users/audit", get(audit::list));
    let profiles = Profiles { identity: identity.clone(), redis };
    Router::new()
        .route("/api/v1/auth/me", get(me::show).patch(me::rename))
        .with_state(profiles)
        .route("/api/v1/auth/register", post(register::register))
        .route("/api/v1/auth/login", post(login::login))
        .route("/api/v1/auth/refresh", post(refresh::refresh))
        .route("/api/v1/auth/logout", post(logout::logout))
        .route("/api/v1/auth/password", post(password::change))
        .route("/api/v1/users/{id}", patch(users::change))
        .route("/.well-known/jwks.json", get(jwks::jwks))
        .route_layer(from_extractor::<NoQuery>())
        .merge(listed)
        .with_state(identity)
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

/// A JSON answer.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// An answer that nobody may keep: it carries tokens.
fn not_stored(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// All that is wrong with a body, told together.
#[derive(Default)]
struct Mistakes(Option<Problem>);

impl Mistakes {
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
