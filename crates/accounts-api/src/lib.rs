//! Accounts over HTTP: `/api/v1/auth`, `/api/v1/users`, `/.well-known/jwks.json`. One file for each endpoint.

// messages go by process::stderr
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// `POST /api/v1/auth/register`
mod register;

/// `POST /api/v1/auth/login`
mod login;

/// `POST /api/v1/auth/refresh`
mod refresh;

/// `POST /api/v1/auth/token`
mod api_key_token;

/// `POST /api/v1/auth/logout`
mod logout;

/// `GET` and `PATCH /api/v1/auth/me`
mod me;

/// `POST /api/v1/auth/password`
mod password;

/// `GET /api/v1/auth/sessions` and `DELETE /api/v1/auth/sessions/{id}`
mod sessions;

/// `GET /api/v1/users` and `PATCH /api/v1/users/{id}`, for admins.
mod users;

/// `GET /api/v1/users/audit`, for admins.
mod audit;

/// What is known of an account, for an archive.
pub mod records;

/// `GET /.well-known/jwks.json`
mod jwks;

/// What login and refresh answer.
mod tokens;

/// The session cookie: in which requests it is taken, and how it is set.
mod session_cookie;

/// What clients call themselves.
mod user_agent;

/// The answers about one account, cached in Redis.
mod profile;

/// An account as it sees itself.
mod account;

/// The problem for each [`identity::IdentityError`].
mod problem;

/// Schemas of the values in bodies, with their limits.
mod value_schema;

use axum::extract::FromRef;
use backends::redis::Redis;
use http_api::openapi::{Described, Routes};
use http_api::{Api, RouteKind};
use identity::Identity;

use profile::Profiles;
use session_cookie::PageOrigins;

/// The routes under "Accounts" of the HTTP contract. `server::edge` wraps them. In `redis` the copies of the service share
/// what accounts look like; pages of `cors_origins` may use the session cookie.
pub fn router(identity: Identity, redis: Option<Redis>, cors_origins: &[String]) -> Api {
    routes().with_state(Shared { profiles: Profiles { identity, redis }, origins: PageOrigins::new(cors_origins) })
}

/// What the handlers have in common.
#[derive(Clone)]
struct Shared {
    profiles: Profiles,
    origins: PageOrigins,
}

impl FromRef<Shared> for Identity {
    fn from_ref(shared: &Shared) -> Self {
        shared.profiles.identity.clone()
    }
}

impl FromRef<Shared> for Profiles {
    fn from_ref(shared: &Shared) -> Self {
        shared.profiles.clone()
    }
}

impl FromRef<Shared> for PageOrigins {
    fn from_ref(shared: &Shared) -> Self {
        shared.origins.clone()
    }
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<Shared> {
    Routes::new()
        .kind(RouteKind::Authentication)
        .post("/api/v1/auth/register", register::register, register::described)
        .post("/api/v1/auth/login", login::login, login::described)
        .post("/api/v1/auth/refresh", refresh::refresh, refresh::described)
        .post("/api/v1/auth/token", api_key_token::exchange, api_key_token::described)
        .kind(RouteKind::OwnPassword)
        .post("/api/v1/auth/password", password::change, password::described)
        .kind(RouteKind::Always)
        .get("/.well-known/jwks.json", jwks::jwks, jwks::described)
        .kind(RouteKind::Ordinary)
        .post("/api/v1/auth/logout", logout::logout, logout::described)
        .get("/api/v1/auth/me", me::show, me::show_described)
        .patch("/api/v1/auth/me", me::rename, me::rename_described)
        .patch("/api/v1/users/{id}", users::change, users::change_described)
        .delete("/api/v1/auth/sessions/{id}", sessions::end, sessions::end_described)
        .without_query()
        .get("/api/v1/auth/sessions", sessions::list, sessions::list_described)
        .get("/api/v1/users", users::list, users::list_described)
        .get("/api/v1/users/audit", audit::list, audit::described)
        .schema("Registration", register::schema)
        .schema("Credentials", login::schema)
        .schema("Tokens", tokens::schema)
        .schema("Refresh", refresh::schema)
        .schema("ServiceToken", api_key_token::schema)
        .schema("AccountPatch", me::schema)
        .schema("PasswordChange", password::schema)
        .schema("Session", sessions::schema)
        .schema("SessionPage", sessions::page_schema)
        .schema("UserPatch", users::schema)
        .schema("Account", account::schema)
        .schema("User", users::user_schema)
        .schema("UserPage", users::page_schema)
        .schema("AuditEvent", audit::schema)
        .schema("AuditPage", audit::page_schema)
        .schema("Keys", jwks::schema)
}
