//! A job that is asked for, and a job as JSON.

use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use commands::identity::IdentityFrom;
use commands::keyed_batch::KeyedBatch;
use commands::{CommandIdentity, ExecuteError};
use domain::format_time;
use http_api::answer;
use http_api::headers::IDEMPOTENT_REPLAYED;
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, count, whole};
use http_api::problem::{Problem, ProblemCode};
use jobs::{Added, Job, Kind, NewJob, QUEUED_EACH_MAX, Request, State};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::refusal;
use crate::token::later;

/// When it is worth asking again for a job that was one too many, in seconds.
const RETRY_AFTER_S: u32 = 10;

/// What a request asks for.
pub(crate) struct Asked {
    pub id: Uuid,
    pub request: Request,
    pub dry_run: bool,
    /// Of the request's key and content.
    pub identity: Option<CommandIdentity>,
}

impl CommandApi {
    /// Adds a job and answers with it: 202. An equal request under the same key gets the job of the first one; the second
    /// value says whether this one's was added.
    pub(crate) async fn submit(&self, attempt: &Attempt, asked: Asked) -> (Result<Response, Problem>, bool) {
        let added = match self.add(attempt, asked).await {
            Ok(added) => added,
            Err(problem) => return (Err(problem), false),
        };
        let is_new = matches!(added, Added::Queued(_));
        let answered = match added {
            Added::Queued(job) => Ok(self.accepted(attempt, &job, false)),
            Added::Known(job) => Ok(self.accepted(attempt, &job, true)),
            Added::KeyReused => Err(refusal::problem(ExecuteError::IdentityReused, IdentityFrom::IdempotencyKey)),
            Added::TooMany => Err(Problem::new(ProblemCode::TooManyJobs)
                .detail(format!("{QUEUED_EACH_MAX} jobs wait already."))
                .retry_after_s(RETRY_AFTER_S)),
        };
        (answered, is_new)
    }

    async fn add(&self, attempt: &Attempt, asked: Asked) -> Result<Added, Problem> {
        let caller = attempt.caller();
        if let Some(identity) = asked.identity {
            if let Some(known) = self.jobs().known(caller.owner, identity).await.map_err(unavailable)? {
                return Ok(known);
            }
            if !self.jobs().has_room(caller.owner).await.map_err(unavailable)? {
                return Ok(Added::TooMany);
            }
            self.check_disk()?;
            // From now on no command can use the key, nor a job one that a command has used.
            let mut keyed = KeyedBatch::new(self.executor().store(), &caller, identity);
            let bound = keyed.bind(&caller).await;
            bound.map_err(|error| refusal::problem(error, IdentityFrom::IdempotencyKey))?;
        } else {
            self.check_disk()?;
        }
        let new = NewJob {
            id: asked.id,
            owner: caller.owner,
            shard: caller.shard,
            request: asked.request,
            dry_run: asked.dry_run,
            identity: asked.identity,
            correlation_id: caller.correlation_id.to_string(),
            traceparent: caller.traceparent.to_string(),
        };
        let added = self.jobs().add(new).await;
        added.inspect_err(|error| self.executor().store().disk_space().notice(error)).map_err(unavailable)
    }

    /// What a job does is written to the log, or to a disk that may be the same.
    fn check_disk(&self) -> Result<(), Problem> {
        if self.executor().store().disk_space().is_short() { Err(Problem::disk_full()) } else { Ok(()) }
    }

    fn accepted(&self, attempt: &Attempt, job: &Job, is_replayed: bool) -> Response {
        let mut response = answer::json(StatusCode::ACCEPTED, &shown(job));
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1/jobs/{}", job.id)) {
            headers.insert(LOCATION, location);
        }
        let (owner, shard) = (attempt.principal.owner, attempt.principal.shard);
        // Nothing known is nothing to wait for: a token of it would take the place of a later one that the client has.
        match later(attempt.sent, self.or_last_known(owner, job.revision)) {
            0 => {}
            position => self.set_token(headers, owner, shard, position),
        }
        if is_replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The database of jobs did not answer.
pub(crate) fn unavailable(error: impl std::error::Error + 'static) -> Problem {
    Problem::unavailable(&error)
}

/// A job as JSON.
pub(crate) fn shown(job: &Job) -> Value {
    let time = |time: Option<domain::Time>| time.map(format_time);
    json!({
        "id": job.id,
        "kind": job.kind,
        "state": job.state.as_str(),
        "done": job.succeeded + job.failed,
        "total": job.total,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "dry_run": job.dry_run,
        "change_id": job.change_id,
        "revision": job.revision,
        "created_at": format_time(job.created_at),
        "started_at": time(job.started_at),
        "finished_at": time(job.finished_at),
        "expires_at": time(job.expires_at),
        "result": job.result_bytes.zip(job.format).map(|(bytes, format)| json!({
            "href": format!("/api/v1/jobs/{}/result", job.id),
            "bytes": bytes,
            "media_type": format.media_type(),
        })),
        "problem": job.problem.as_deref().and_then(problem),
    })
}

/// A job as JSON, in a line, for those that are not asked over HTTP.
pub(crate) fn shown_text(job: &Job) -> String {
    shown(job).to_string()
}

/// A problem as it was kept.
pub(crate) fn problem(kept: &str) -> Option<Value> {
    serde_json::from_str(kept).ok()
}

pub(crate) fn schema() -> Value {
    let when =
        |description: &str| json!({"type": ["string", "null"], "format": "date-time", "description": description});
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "kind": {"type": "string", "enum": Kind::ALL.map(Kind::as_str)},
        "state": {
            "type": "string", "enum": State::ALL.map(State::as_str),
            "description": "`succeeded`: carried out to the end, whatever lines failed. `failed`: it could not be; `problem` \
                            says why, and what was done stays.",
        },
        "done": count(),
        "total": {"type": ["integer", "null"], "minimum": 0, "description": "`null` until it is known."},
        "succeeded": count(),
        "failed": count(),
        "dry_run": {"type": "boolean"},
        "change_id": {"type": ["string", "null"], "format": "uuid", "description": "The change that its events are of."},
        "revision": {"type": ["integer", "null"], "description": "The position of the last event that what is done stands for."},
        "created_at": {"type": "string", "format": "date-time"},
        "started_at": when("When it was begun."),
        "finished_at": when("When it ended."),
        "expires_at": when("Until when it is shown."),
        "result": {
            "oneOf": [
                {"type": "null"},
                whole(json!({
                    "href": {"type": "string", "format": "uri-reference"},
                    "bytes": count(),
                    "media_type": {"type": "string"},
                })),
            ],
        },
        "problem": {"oneOf": [{"type": "null"}, http_api::openapi::reference("Problem")]},
    }))
}

pub(crate) fn example() -> Value {
    json!({
        "id": EXAMPLE_ID, "kind": "import", "state": "running", "done": 2000, "total": 100_000, "succeeded": 1999,
        "failed": 1, "dry_run": false, "change_id": null, "revision": 4711, "created_at": EXAMPLE_TIME,
        "started_at": EXAMPLE_TIME, "finished_at": null, "expires_at": null, "result": null, "problem": null,
    })
}
