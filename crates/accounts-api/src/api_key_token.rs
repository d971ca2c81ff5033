use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use http_api::account::SentApiKey;
use http_api::body::EmptyBody;
use http_api::openapi::{Operation, Tag, count, reference, whole};
use http_api::problem::{Problem, ProblemCode};
use identity::Identity;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Value, json};

use crate::problem::problem;

/// As RFC 6749, 5.1 has it; there is no refresh token, since the key is good for another one.
#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i32,
    scope: String,
}

/// Gives an access token for an API key.
pub(crate) async fn exchange(
    State(identity): State<Identity>,
    SentApiKey(key): SentApiKey,
    _: EmptyBody,
) -> Result<Response, Problem> {
    let token = identity.exchange_api_key(&key).await.map_err(problem)?;
    let answer = Answer {
        access_token: token.access_token.expose_secret(),
        token_type: "Bearer",
        expires_in: token.expires_in_s,
        scope: token.scopes.to_string(),
    };
    let mut response = http_api::answer::json(StatusCode::OK, &answer);
    // nobody may keep tokens
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "exchangeApiKey", "Exchange an API key for an access token")
        .says(
            "For services, which have no session: an operator makes the key by `primetrade keys api create`. The access token is \
             good for what the key's scopes cover, `tasks:read` or `tasks:write`, and no longer than the key; ask for another one \
             when it ends, not before each request. Its requests count against the account's limits. A revoked key's tokens end \
             within 5 seconds, at every service.",
        )
        .api_key()
        .empty_body()
        .json(
            200,
            "An access token.",
            &["Cache-Control"],
            &reference("ServiceToken"),
            &json!({
                "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900,
                "scope": "tasks:read tasks:write",
            }),
        )
        .refuses(&[ProblemCode::AccountDisabled, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    whole(json!({
        "access_token": {"type": "string", "description": "A JWT signed with Ed25519."},
        "token_type": {"const": "Bearer"},
        "expires_in": count(),
        "scope": {"type": "string", "description": "The key's scopes, with spaces between."},
    }))
}
