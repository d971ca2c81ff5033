use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_api::openapi::{Operation, Tag, reference, whole};
use identity::Identity;
use identity::keys::JWKS_MAX_AGE_S;
use serde_json::{Value, json};

/// The keys that access tokens are verified by.
pub(crate) async fn jwks(State(identity): State<Identity>) -> impl IntoResponse {
    let max_age = format!("public, max-age={JWKS_MAX_AGE_S}");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_str(&max_age).unwrap_or(HeaderValue::from_static("no-cache"))),
    ];
    (headers, Bytes::copy_from_slice(&identity.jwks()))
}

pub(crate) fn described() -> Operation {
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "2026-11", "use": "sig",
        "alg": "EdDSA",
    });
    Operation::new(Tag::Accounts, "keys", "Get the keys that access tokens are verified by")
        .says(
            "A JWK set (RFC 7517). Keys are rotated with overlap: look again when a token names another one. `log_id` and \
             `proof` tell the services of this installation that the keys are its own; others need not look at them.",
        )
        .json(
            200,
            "The keys.",
            &["Cache-Control"],
            &reference("Keys"),
            &json!({
                "keys": [key], "log_id": "0f3c2a9e-3b56-4b1e-8d2f-7c9f4f2f6d10",
                "proof": "mGj0nYt2u0W9cZk1hVqv8Qx3sL5bD7eF2aN4pR6tX8w",
            }),
        )
}

pub(crate) fn schema() -> Value {
    let key = whole(json!({
        "kty": {"const": "OKP"}, "crv": {"const": "Ed25519"}, "x": {"type": "string"}, "kid": {"type": "string"},
        "use": {"const": "sig"}, "alg": {"const": "EdDSA"},
    }));
    whole(json!({
        "keys": {"type": "array", "items": key},
        "log_id": {"type": "string", "format": "uuid", "description": "The log of this installation."},
        "proof": {
            "type": "string",
            "description": "HMAC-SHA-256 of log and keys under a key made from the installation's secret, in base64url.",
        },
    }))
}
