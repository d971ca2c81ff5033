use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;

/// What the client calls itself, if it does.
pub(crate) struct UserAgent(pub Option<identity::UserAgent>);

impl<S: Sync> FromRequestParts<S> for UserAgent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let sent = parts.headers.get(USER_AGENT);
        Ok(Self(sent.and_then(|sent| identity::UserAgent::cleaned(sent.as_bytes()))))
    }
}
