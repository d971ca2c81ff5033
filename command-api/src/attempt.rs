use std::sync::Arc;

use access::Principal;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use commands::identity::{CommandIdentity, IdentityFrom, command_id_of_key, fingerprint};
use commands::json::{self, Json};
use commands::{Accepted, Caller, CommandRequest, ExecuteError, ExpectedVersion};
use domain::{Actor, ActorType, TaskCommand, TaskId};
use http_api::account::TaskCaller;
use http_api::body::{BODY_BYTES_MAX, read_body, require_media_type};
use http_api::headers::{IdempotencyKey, IfMatch, SentToken};
use http_api::problem::Problem;
use http_api::query::NoQuery;
use process::clock;
use process::context::RequestContext;
use uuid::Uuid;

use crate::answer::Answer;
use crate::api::CommandApi;
use crate::refusal;

/// A request for a write, but for its body.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) principal: Principal,
    context: RequestContext,
    method: Method,
    uri: Uri,
    /// The change that its events will be of.
    change_id: Uuid,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) expected: Option<IfMatch>,
    /// What the Consistency-Token that came with it stands for; see [`CommandApi::position_sent`].
    pub(crate) sent: i64,
}

impl FromRequestParts<CommandApi> for Attempt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &CommandApi) -> Result<Self, Problem> {
        let attempt = Self::with_query(parts, api).await?;
        NoQuery::from_request_parts(parts, api).await?;
        Ok(attempt)
    }
}

impl Attempt {
    /// Of a request that may have a query string.
    pub(crate) async fn with_query(parts: &mut Parts, api: &CommandApi) -> Result<Self, Problem> {
        let TaskCaller(principal) = TaskCaller::from_request_parts(parts, api).await?;
        let token = SentToken::from_headers(&parts.headers)?;
        let context = RequestContext::current();
        Ok(Self {
            sent: api.position_sent(principal.owner, token.as_ref())?,
            principal,
            // as the request id, where nobody sent one: then the log stores one of the two
            change_id: context.made_id().unwrap_or_else(clock::new_id),
            context,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            key: IdempotencyKey::of_request(&parts.headers)?,
            expected: IfMatch::from_headers(&parts.headers)?,
        })
    }

    /// What it is about is no task: a condition on a version makes no sense.
    pub(crate) fn refuse_condition(&self, instead: &'static str) -> Result<(), Problem> {
        match self.expected {
            None => Ok(()),
            Some(_) => Err(Problem::parameter(instead)),
        }
    }

    /// On whose behalf its commands run.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            owner: self.principal.owner,
            shard: self.principal.shard,
            actor: Actor { actor_type: ActorType::User, id: Some(self.principal.owner.0) },
            correlation_id: Arc::from(self.context.request_id()),
            traceparent: Arc::from(self.context.traceparent()),
            change_id: self.change_id,
            history: false,
        }
    }

    /// Of its key and content; none without a key.
    pub(crate) fn identity(&self, body: Option<&Json<'_>>) -> Option<CommandIdentity> {
        self.key.as_ref().map(|key| CommandIdentity {
            command_id: command_id_of_key(key.as_str()),
            fingerprint: fingerprint(self.method.as_str(), self.uri.path(), body),
        })
    }

    /// Its one command, with its conditions.
    pub(crate) fn request(&self, task_id: TaskId, command: TaskCommand, body: Option<&Json<'_>>) -> CommandRequest {
        let identity = self.identity(body);
        let expected = match &self.expected {
            None => ExpectedVersion::Any,
            Some(IfMatch::Any) => ExpectedVersion::Exists,
            Some(IfMatch::Versions(versions)) => ExpectedVersion::OneOf(versions.clone()),
        };
        CommandRequest { task_id, command, identity, expected, occurred_at: None }
    }
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
    json::parse(text).map_err(|error| refusal::parse_problem(error.into()))
}

impl CommandApi {
    /// Carries out the one command of a request.
    pub(crate) async fn execute(&self, attempt: &Attempt, request: CommandRequest) -> Result<Accepted, Problem> {
        self.counted(self.executor().execute(&attempt.caller(), request).await)
    }

    /// The same to a task whose id was made for it.
    pub(crate) async fn execute_new(&self, attempt: &Attempt, request: CommandRequest) -> Result<Accepted, Problem> {
        self.counted(self.executor().execute_new(&attempt.caller(), request).await)
    }

    fn counted(&self, outcome: Result<Accepted, ExecuteError>) -> Result<Accepted, Problem> {
        let accepted = outcome.map_err(|error| refusal::problem(error, IdentityFrom::IdempotencyKey))?;
        self.count(&accepted);
        Ok(accepted)
    }

    /// Makes the answers to a request.
    pub(crate) fn answer(&self, attempt: &Attempt) -> Answer<'_> {
        let owner = attempt.principal.owner;
        Answer {
            sealer: self.sealer(),
            log_id: self.executor().store().log_id(),
            owner,
            shard: attempt.principal.shard,
            sent: attempt.sent,
            known: if attempt.key.is_some() { 0 } else { self.executor().last_position(owner) },
        }
    }
}
