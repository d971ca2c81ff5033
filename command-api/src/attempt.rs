//! What stands around a command: who asks, under which key and condition.

use http_api::account::Account;
use std::sync::Arc;

use access::Principal;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use domain::{Actor, ActorType, CommandId, TaskCommand, TaskId};
use http_api::body::{BODY_BYTES_MAX, read_body, require_media_type};
use http_api::headers::{IdempotencyKey, IfMatch};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::NoQuery;
use process::context::RequestContext;
use uuid::Uuid;

use crate::execute::{Caller, Expected, Identity, Item};
use crate::json::{self, Json};

/// A request for a write, but for its body.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) principal: Principal,
    context: RequestContext,
    method: Method,
    uri: Uri,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) expected: Option<IfMatch>,
}

impl<S: Sync> FromRequestParts<S> for Attempt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Account(principal) = Account::from_request_parts(parts, state).await?;
        NoQuery::from_request_parts(parts, state).await?;
        Ok(Self {
            principal,
            context: RequestContext::current(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            key: IdempotencyKey::from_headers(&parts.headers)?,
            expected: IfMatch::from_headers(&parts.headers)?,
        })
    }
}

impl Attempt {
    /// On whose behalf its commands run.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            owner: self.principal.owner,
            shard: self.principal.shard,
            actor: Actor { actor_type: ActorType::User, id: Some(self.principal.owner.0) },
            correlation_id: Arc::from(self.context.request_id()),
            traceparent: Arc::from(self.context.traceparent()),
            history: false,
        }
    }

    /// Its one command, with its conditions.
    pub(crate) fn item(&self, task_id: TaskId, command: TaskCommand, body: Option<&Json<'_>>) -> Item {
        let identity = self.key.as_ref().map(|key| Identity {
            command_id: command_id_of_key(key),
            fingerprint: json::fingerprint(self.method.as_str(), self.uri.path(), body),
        });
        let expected = match &self.expected {
            None => Expected::Nothing,
            Some(IfMatch::Any) => Expected::Existing,
            Some(IfMatch::Versions(versions)) => Expected::OneOf(versions.clone()),
        };
        Item { task_id, command, identity, expected, occurred_at: None }
    }
}

/// Namespaces of the ids that are made from keys (RFC 9562, version 5). They stand in stored commands: never change them.
const KEY: Uuid = Uuid::from_u128(0x6d0a_1d0e_6c5b_4a51_9a3c_1b7f_3f6c_0e01);
const KEY_AND_INDEX: Uuid = Uuid::from_u128(0x6d0a_1d0e_6c5b_4a51_9a3c_1b7f_3f6c_0e02);

/// The command id that an `Idempotency-Key` stands for: one unique index serves both.
pub(crate) fn command_id_of_key(key: &IdempotencyKey) -> CommandId {
    CommandId(Uuid::new_v5(&KEY, key.as_str().as_bytes()))
}

/// The id of a command without one of its own, in a batch under a key.
pub(crate) fn command_id_of_key_and_index(key: &IdempotencyKey, index: usize) -> CommandId {
    let mut name = Vec::with_capacity(key.as_str().len() + 8);
    // The number first: of fixed length, so that no other key and number give the same name.
    name.extend_from_slice(&(index as u64).to_be_bytes());
    name.extend_from_slice(key.as_str().as_bytes());
    CommandId(Uuid::new_v5(&KEY_AND_INDEX, &name))
}

/// The bytes of a JSON body of at most 1 MiB.
#[derive(Debug)]
pub(crate) struct JsonText(Bytes);

/// The bytes of a merge patch (RFC 7396), sent as that or as JSON.
#[derive(Debug)]
pub(crate) struct PatchText(Bytes);

impl<S: Sync> FromRequest<S> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        text(request, &["application/json"]).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for PatchText {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        text(request, &["application/json", "application/merge-patch+json"]).await.map(Self)
    }
}

impl JsonText {
    /// The value.
    pub(crate) fn json(&self) -> Result<Json<'_>, Problem> {
        parse(&self.0)
    }
}

impl PatchText {
    /// The value.
    pub(crate) fn json(&self) -> Result<Json<'_>, Problem> {
        parse(&self.0)
    }
}

async fn text(request: Request, media_types: &[&'static str]) -> Result<Bytes, Problem> {
    let headers: &HeaderMap = request.headers();
    require_media_type(headers, media_types)?;
    read_body(request, BODY_BYTES_MAX).await
}

fn parse(text: &[u8]) -> Result<Json<'_>, Problem> {
    json::parse(text)
        .map_err(|error| Problem::new(ProblemCode::MalformedBody).detail(format!("Not as JSON should be: {error}.")))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use http_api::headers::IDEMPOTENCY_KEY;

    use super::*;

    fn key(text: &str) -> IdempotencyKey {
        let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_str(text).unwrap())]);
        IdempotencyKey::from_headers(&headers).unwrap().unwrap()
    }

    #[test]
    fn ids_made_from_keys_are_a_promise() {
        assert_eq!(command_id_of_key(&key("k")).to_string(), "717e5896-4fae-583a-a3a7-11d28c177e0e");
        assert_eq!(command_id_of_key_and_index(&key("k"), 7).to_string(), "a652a064-9153-5fc0-a85c-07dd29f6f08f");
    }

    #[test]
    fn ids_made_from_keys_differ() {
        let ids = [
            command_id_of_key(&key("k")),
            command_id_of_key(&key("l")),
            command_id_of_key_and_index(&key("k"), 0),
            command_id_of_key_and_index(&key("k"), 1),
            command_id_of_key_and_index(&key("l"), 0),
        ];
        assert_eq!(std::collections::HashSet::from(ids).len(), ids.len());
    }
}
