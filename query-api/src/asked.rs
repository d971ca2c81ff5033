//! What every read takes from a request's headers, and every answer says in its own.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_api::account::TaskCaller;
use http_api::headers::{CONSISTENCY_TOKEN, IfNoneMatch, SentToken};
use http_api::problem::Problem;

use crate::answer::Answer;
use crate::error::ReadError;
use crate::minimum_revision::MinimumRevision;
use crate::owner_version::{Owner, OwnerVersion};
use crate::reads::{Query, Reads};

/// The owner who asks, what it must show at least, and what the client has already.
pub(crate) struct Asked {
    pub owner: Owner,
    pub minimum: Option<MinimumRevision>,
    if_none_match: Option<IfNoneMatch>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked
where
    Reads: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let TaskCaller(principal) = TaskCaller::from_request_parts(parts, state).await?;
        let reads = Reads::from_ref(state);
        let minimum = match SentToken::from_headers(&parts.headers)? {
            None => None,
            Some(token) => Some(MinimumRevision::open(&token, principal.owner, reads.owner_versions().sealer())?),
        };
        Ok(Self { owner: Owner::of(&principal), minimum, if_none_match: IfNoneMatch::from_headers(&parts.headers)? })
    }
}

impl Asked {
    /// What the query finds for the owner who asks, or 304 where the client has it.
    pub async fn answer(self, reads: &Reads, query: &impl Query) -> Result<Response, ReadError> {
        let version = reads.owner_version(self.owner, self.minimum).await?;
        let answer = reads.answer(self.owner, version, query).await?;
        Ok(self.respond(&answer))
    }

    /// 304 where the client has what is at this version; for what exists at every version and depends on no clock.
    pub fn not_modified(&self, version: &OwnerVersion) -> Option<Response> {
        self.has(&version.etag).then(|| not_modified(&version.etag, &version.token))
    }

    /// The answer, or 304 where the client has it.
    pub fn respond(&self, answer: &Answer) -> Response {
        if self.has(&answer.etag) {
            return not_modified(&answer.etag, &answer.owner_version.token);
        }
        let mut response = Response::new(answer.body.clone().into());
        let headers = response.headers_mut();
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(link) = &answer.link {
            headers.insert(LINK, link.clone());
        }
        validate(&mut response, &answer.etag, &answer.owner_version.token);
        response
    }

    fn has(&self, etag: &HeaderValue) -> bool {
        let Some(if_none_match) = &self.if_none_match else { return false };
        etag.to_str().is_ok_and(|etag| if_none_match.matches(etag))
    }
}

fn not_modified(etag: &HeaderValue, token: &HeaderValue) -> Response {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    validate(&mut response, etag, token);
    response
}

fn validate(response: &mut Response, etag: &HeaderValue, token: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.clone());
    headers.insert(CONSISTENCY_TOKEN, token.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}
