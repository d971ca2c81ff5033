//! The caller. A handler takes [`Account`] (any account) or [`Admin`] as an argument and is done:
//!
//! ```text
//! async fn list(Account(principal): Account, ...) -> Result<_, Problem>   // 401 without a good token
//! async fn parked(Admin(principal): Admin, ...)                           // 403 for others than admins
//! ```
//!
//! Put it before the other arguments, so that a bad token is told before a bad body. The [`Verifier`] is found in the
//! request's extensions, where the edge puts it; a router tested by itself gets `.layer(Extension(verifier))`.

use access::{Principal, Role, Verifier};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use process::context;

use crate::headers::single;
use crate::problem::{Problem, ProblemCode};

/// The account behind a request, by its access token.
#[derive(Debug, Clone)]
pub struct Account(pub Principal);

impl<S: Sync> FromRequestParts<S> for Account {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if let Some(principal) = parts.extensions.get::<Principal>() {
            // the edge had to know already
            context::belongs_to(principal.owner);
            return Ok(Self(principal.clone()));
        }
        let verifier = parts
            .extensions
            .get::<Verifier>()
            .ok_or_else(|| Problem::internal(&"no Verifier in the request's extensions: is the edge around?"))?;
        let principal = match authenticate(verifier, &parts.headers) {
            Err(_) if asked_for_key(verifier, &parts.headers).await => authenticate(verifier, &parts.headers),
            answer => answer,
        }?;
        context::belongs_to(principal.owner);
        Ok(Self(principal))
    }
}

/// None where no `Authorization` header was sent.
impl<S: Sync> OptionalFromRequestParts<S> for Account {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// An [`Account`] that is an admin; others get 403.
#[derive(Debug, Clone)]
pub struct Admin(pub Principal);

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Account(principal) = <Account as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        match principal.role {
            Role::Admin => Ok(Self(principal)),
            Role::User => Err(Problem::new(ProblemCode::Forbidden)),
        }
    }
}

/// The principal of a request that has a good token; why another has none is told by [`authenticate`].
pub(crate) fn known(verifier: &Verifier, headers: &HeaderMap) -> Option<Principal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    bearer(value).and_then(|token| verifier.verify(token))
}

/// The principal of a request.
///
/// # Errors
/// 401 without a good bearer token, 400 with two `Authorization` headers.
fn authenticate(verifier: &Verifier, headers: &HeaderMap) -> Result<Principal, Problem> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Err(unauthenticated()) };
    bearer(value)
        .and_then(|token| verifier.verify(token))
        .ok_or_else(|| challenged("Bearer realm=\"primetrade\", error=\"invalid_token\""))
}

/// The answer to a request without any credentials.
#[must_use]
pub fn unauthenticated() -> Problem {
    challenged("Bearer realm=\"primetrade\"")
}

fn challenged(challenge: &'static str) -> Problem {
    Problem::new(ProblemCode::Unauthenticated).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// Whether the request's token names a key that was not known and has been asked for since.
async fn asked_for_key(verifier: &Verifier, headers: &HeaderMap) -> bool {
    match headers.get(AUTHORIZATION).and_then(bearer) {
        Some(token) => verifier.asked_for_its_key(token).await,
        None => false,
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case("bearer ")).then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use access::{AUDIENCE, Claims, ISSUER, Keys};
    use ed25519_dalek::SigningKey;
    use process::clock;
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::*;

    fn good_token() -> (Verifier, String) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = Keys::new([("key-1".to_owned(), key.verifying_key().to_bytes())]);
        let now = clock::now().timestamp();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: Uuid::from_u128(1),
            sid: Uuid::from_u128(2),
            role: Role::User,
            shard: 3,
            iat: now,
            exp: now + 900,
            jti: Uuid::from_u128(4),
        };
        let verifier = Verifier::new(watch::channel(Arc::new(keys)).1, watch::channel(Arc::default()).1);
        (verifier, claims.sign("key-1", &key).expect("signs"))
    }

    #[test]
    fn the_authorization_header_is_read_as_rfc_6750_has_it() {
        let (verifier, token) = good_token();
        let status = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"));
            }
            match authenticate(&verifier, &headers) {
                Ok(_) => 200,
                Err(problem) => {
                    let has_challenge = axum::response::IntoResponse::into_response(problem.clone())
                        .headers()
                        .contains_key(WWW_AUTHENTICATE);
                    assert_eq!(has_challenge, problem.status() == 401);
                    problem.status().as_u16()
                }
            }
        };
        let good = format!("Bearer {token}");
        assert_eq!(status(&[&good]), 200);
        assert_eq!(status(&[&format!("bearer {token}")]), 200);
        assert_eq!(status(&[]), 401);
        assert_eq!(status(&[&format!("Basic {token}")]), 401);
        assert_eq!(status(&[&format!("Bearer{token}")]), 401);
        assert_eq!(status(&["Bearer"]), 401);
        assert_eq!(status(&["Bearer "]), 401);
        assert_eq!(status(&[&good, &good]), 400);
    }
}
