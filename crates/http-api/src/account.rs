//! The caller. A handler takes [`TaskCaller`], [`Account`] or [`Admin`] as an argument and is done:
//!
//! ```text
//! async fn list(TaskCaller(principal): TaskCaller, ...) -> Result<_, Problem>   // 401 without a good token
//! async fn rename(Account(principal): Account, ...)                             // 403 for tokens of API keys
//! async fn parked(Admin(principal): Admin, ...)                                 // 403 for others than admins, too
//! ```
//!
//! Put it before the other arguments, so that a bad token is told before a bad body. The [`Verifier`] is found in the
//! request's extensions, where the edge puts it; a router tested by itself gets `.layer(Extension(verifier))`.

use access::{API_KEY_PREFIX, Principal, Role, Scope, Verifier};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use process::context;

use crate::headers::single;
use crate::problem::{Problem, ProblemCode};

/// The account behind a request for its tasks, and what belongs to them: by an access token of a session, or by one of an
/// API key, which takes a scope. Others get 403.
#[derive(Debug, Clone)]
pub struct TaskCaller(pub Principal);

impl<S: Sync> FromRequestParts<S> for TaskCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let principal = principal(parts).await?;
        let needed = if is_read(&parts.method) { Scope::TasksRead } else { Scope::TasksWrite };
        match principal.scopes {
            Some(scopes) if !scopes.contains(needed) => Err(insufficient_scope(Some(needed))),
            Some(_) | None => Ok(Self(principal)),
        }
    }
}

/// The account behind a request, by an access token of a session; one of an API key gets 403.
#[derive(Debug, Clone)]
pub struct Account(pub Principal);

impl<S: Sync> FromRequestParts<S> for Account {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let principal = principal(parts).await?;
        match principal.scopes {
            Some(_) => Err(covered_by_no_scope()),
            None => Ok(Self(principal)),
        }
    }
}

async fn principal(parts: &Parts) -> Result<Principal, Problem> {
    if let Some(principal) = parts.extensions.get::<Principal>() {
        // the edge had to know already
        context::belongs_to(principal.owner);
        return Ok(principal.clone());
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
    Ok(principal)
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

/// What a request has in place of an access token: an API key, which it is given one for.
pub struct SentApiKey(pub String);

impl<S: Sync> FromRequestParts<S> for SentApiKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let value = single(&parts.headers, &AUTHORIZATION)?.ok_or_else(unauthenticated)?;
        bearer(value).map(|key| Self(key.to_owned())).ok_or_else(unauthenticated)
    }
}

/// Whether the method is safe (RFC 9110): it asks for no change.
pub(crate) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
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
    let token = bearer(value);
    token.and_then(|token| verifier.verify(token)).ok_or_else(|| {
        let refused = challenged("Bearer realm=\"primetrade\", error=\"invalid_token\"");
        match token {
            Some(token) if token.starts_with(API_KEY_PREFIX) => {
                refused.detail("This is an API key; POST /api/v1/auth/token gives an access token for it.")
            }
            Some(_) | None => refused,
        }
    })
}

/// The answer to an access token of an API key where no scope would be enough.
#[must_use]
pub fn covered_by_no_scope() -> Problem {
    insufficient_scope(None)
}

/// The answer to an access token of an API key that is not good for the request; `needed` would make it so.
fn insufficient_scope(needed: Option<Scope>) -> Problem {
    let challenge = HeaderValue::from_static(match needed {
        Some(Scope::TasksRead) => "Bearer realm=\"primetrade\", error=\"insufficient_scope\", scope=\"tasks:read\"",
        Some(Scope::TasksWrite) => "Bearer realm=\"primetrade\", error=\"insufficient_scope\", scope=\"tasks:write\"",
        None => "Bearer realm=\"primetrade\", error=\"insufficient_scope\"",
    });
    Problem::new(ProblemCode::InsufficientScope).header(WWW_AUTHENTICATE, challenge)
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

    use access::{AUDIENCE, Claims, ISSUER, Keys, Scopes};
    use ed25519_dalek::SigningKey;
    use process::clock;
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::*;

    fn good_token() -> (Verifier, String) {
        token_of(None)
    }

    fn token_of(scope: Option<Scopes>) -> (Verifier, String) {
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
            scope,
        };
        let verifier = Verifier::new(watch::channel(Arc::new(keys)).1, watch::channel(Arc::default()).1);
        (verifier, claims.sign("key-1", &key).expect("signs"))
    }

    /// The code of the refusal, and the challenge; "" where there is none.
    async fn refusal<A: FromRequestParts<(), Rejection = Problem>>(
        method: Method,
        (verifier, token): &(Verifier, String),
    ) -> (&'static str, String) {
        let request = axum::http::Request::builder().method(method).extension(verifier.clone());
        let request = request.header(AUTHORIZATION, format!("Bearer {token}")).body(()).expect("a request");
        let Err(problem) = A::from_request_parts(&mut request.into_parts().0, &()).await else {
            return ("", String::new());
        };
        let code = problem.code().as_str();
        let response = axum::response::IntoResponse::into_response(problem);
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        (code, challenge.unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn a_token_of_an_api_key_opens_what_its_scopes_cover_and_no_account() {
        let session = good_token();
        let reader = token_of(Some([Scope::TasksRead].into_iter().collect()));
        let writer = token_of(Some([Scope::TasksWrite].into_iter().collect()));
        let nothing = token_of(Some(Scopes::default()));
        let methods = [(Method::GET, true), (Method::HEAD, true), (Method::POST, false), (Method::PATCH, false)];
        for (method, is_read) in methods.into_iter().chain([(Method::DELETE, false)]) {
            let needed = if is_read { "tasks:read" } else { "tasks:write" };
            let lacks = format!("Bearer realm=\"primetrade\", error=\"insufficient_scope\", scope=\"{needed}\"");
            let lacks = ("insufficient-scope", lacks);
            let good = ("", String::new());
            let [may, may_not] = if is_read { [&reader, &writer] } else { [&writer, &reader] };
            assert_eq!(refusal::<TaskCaller>(method.clone(), may).await, good, "{method}");
            assert_eq!(refusal::<TaskCaller>(method.clone(), may_not).await, lacks, "{method}");
            assert_eq!(refusal::<TaskCaller>(method.clone(), &nothing).await, lacks, "{method}");
            assert_eq!(refusal::<TaskCaller>(method.clone(), &session).await, good, "{method}");
            assert_eq!(refusal::<Account>(method.clone(), &session).await, good, "{method}");
            for of_a_key in [&reader, &writer, &nothing] {
                let no_scope =
                    ("insufficient-scope", "Bearer realm=\"primetrade\", error=\"insufficient_scope\"".to_owned());
                assert_eq!(refusal::<Account>(method.clone(), of_a_key).await, no_scope, "{method}");
                assert_eq!(refusal::<Admin>(method.clone(), of_a_key).await, no_scope, "{method}");
            }
        }
    }

    #[test]
    fn an_api_key_in_place_of_an_access_token_is_told_where_to_go() {
        let (verifier, _) = good_token();
        let detail = |credential: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(credential))]);
            let problem = authenticate(&verifier, &headers).expect_err("refused");
            problem.detail_text().map(str::to_owned)
        };
        assert!(detail("Bearer ptk_x").is_some_and(|detail| detail.contains("/api/v1/auth/token")));
        assert_eq!(detail("Bearer x"), None);
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
