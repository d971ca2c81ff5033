//! `GET /.well-known/jwks.json`

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use identity::Identity;
use identity::keys::JWKS_MAX_AGE_S;

/// The keys that access tokens are verified by.
pub(super) async fn jwks(State(identity): State<Identity>) -> impl IntoResponse {
    let max_age = format!("public, max-age={JWKS_MAX_AGE_S}");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_str(&max_age).unwrap_or(HeaderValue::from_static("no-cache"))),
    ];
    (headers, Bytes::copy_from_slice(&identity.jwks()))
}
