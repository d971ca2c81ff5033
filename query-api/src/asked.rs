//! What every read takes from a request's headers, and every answer says in its own.

use access::Principal;
use access::token::Sealer;
use axum::extract::FromRequestParts;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use domain::OwnerId;
use http_api::account::Account;
use http_api::headers::{CONSISTENCY_TOKEN, IfNoneMatch, SentToken};
use http_api::problem::Problem;

use crate::QueryApi;
use crate::error::ReadError;
use crate::owners::{Need, Owner, Standing};
use crate::reads::Answer;

/// Who asks, what it must show at least, and what the client has already.
pub(crate) struct Asked {
    pub owner: Owner,
    pub need: Option<Need>,
    if_none_match: Option<IfNoneMatch>,
}

impl FromRequestParts<QueryApi> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &QueryApi) -> Result<Self, Problem> {
        let Account(principal) = Account::from_request_parts(parts, app).await?;
        let need = match SentToken::from_headers(&parts.headers)? {
            None => None,
            Some(token) => Some(Need::open(&token, principal.owner, app.reads.owners().sealer())?),
        };
        Ok(Self { owner: Owner::of(&principal), need, if_none_match: IfNoneMatch::from_headers(&parts.headers)? })
    }
}

impl Owner {
    pub fn of(principal: &Principal) -> Self {
        Self { id: principal.owner.0, shard: principal.shard }
    }
}

impl Need {
    fn open(token: &SentToken, owner: OwnerId, sealer: &Sealer) -> Result<Self, ReadError> {
        let token = sealer.open_consistency_token(token.as_str(), owner).map_err(|_| ReadError::ForeignToken)?;
        Ok(Self::from_position(token.log_id, token.position))
    }
}

impl Asked {
    /// 304 where the client has what is at this standing; for what exists at every standing and depends on no clock.
    pub fn not_modified(&self, standing: &Standing) -> Option<Response> {
        self.has(&standing.etag).then(|| not_modified(&standing.etag, &standing.token))
    }

    /// The answer, or 304 where the client has it.
    pub fn respond(&self, answer: &Answer) -> Response {
        if self.has(&answer.etag) {
            return not_modified(&answer.etag, &answer.standing.token);
        }
        let mut response = Response::new(answer.body.clone().into());
        let headers = response.headers_mut();
        headers.reserve(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(link) = &answer.link {
            headers.insert(LINK, link.clone());
        }
        validate(&mut response, &answer.etag, &answer.standing.token);
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
