use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use commands::Caller;
use commands::keyed_batch::KeyedBatch;
use domain::OwnerId;
use http_api::account::TaskCaller;
use http_api::answer;
use http_api::body::EmptyBody;
use http_api::headers::SentToken;
use http_api::openapi::{EXAMPLE_ID, Operation, page_of, reference, whole};
use http_api::page::{PageOf, PageQuery};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{NoQuery, PathId, StrictQuery};
use jobs::{Job, LineFailure};
use process::context::without_permit;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::batch_answer::Results;
use crate::job::{self, shown, unavailable};
use crate::keyed;
use crate::operation::{job as job_operation, job_write};
use crate::token::later;

/// How long it is waited for the end of a job that was cancelled, in milliseconds: longer than its holder needs to notice.
const CANCEL_WAIT_MS_MAX: u64 = 5_000;
const CANCEL_LOOK_MS: u64 = 50;

/// The account's jobs, the latest first.
pub(crate) async fn list(
    State(api): State<CommandApi>,
    TaskCaller(principal): TaskCaller,
    token: Option<SentToken>,
    StrictQuery(PageQuery { limit, cursor }): StrictQuery<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let sent = api.position_sent(principal.owner, token.as_ref())?;
    let page = PageOf { sealer: api.sealer(), reader: principal.owner, binding: b"jobs", uri: &uri, limit };
    let before = page.begins_behind_id(cursor.as_deref())?;
    let jobs = api.jobs().list(principal.owner, before, page.rows_max()).await.map_err(unavailable)?;
    let position = later(sent, jobs.iter().filter_map(|job| job.revision).max());
    let mut response = page.answer(jobs, |job| job.id, |job| shown(&job));
    api.set_token(response.headers_mut(), principal.owner, principal.shard, position);
    Ok(response)
}

/// One job.
pub(crate) async fn get(
    State(api): State<CommandApi>,
    TaskCaller(principal): TaskCaller,
    token: Option<SentToken>,
    PathId(id): PathId,
    _: NoQuery,
) -> Result<Response, Problem> {
    let sent = api.position_sent(principal.owner, token.as_ref())?;
    let job = find(&api, principal.owner, id).await?;
    let mut response = answer::json(StatusCode::OK, &shown(&job));
    let position = later(sent, job.revision);
    api.set_token(response.headers_mut(), principal.owner, principal.shard, position);
    Ok(response)
}

async fn find(api: &CommandApi, owner: OwnerId, id: Uuid) -> Result<Job, Problem> {
    let found = api.jobs().find(owner, id).await.map_err(unavailable)?;
    found.ok_or_else(|| Problem::new(ProblemCode::NotFound).detail("There is no such job."))
}

/// Why lines of a job failed.
pub(crate) async fn errors(
    State(api): State<CommandApi>,
    TaskCaller(principal): TaskCaller,
    token: Option<SentToken>,
    PathId(id): PathId,
    StrictQuery(PageQuery { limit, cursor }): StrictQuery<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let sent = api.position_sent(principal.owner, token.as_ref())?;
    let job = find(&api, principal.owner, id).await?;
    let binding = [b"job-errors".as_slice(), id.as_bytes()].concat();
    let page = PageOf { sealer: api.sealer(), reader: principal.owner, binding: &binding, uri: &uri, limit };
    let after = page.begins_behind(cursor.as_deref(), |key| Some(i64::from_be_bytes(key.try_into().ok()?)))?;
    let failures = api.jobs().failures(id, after.unwrap_or(0), page.rows_max()).await.map_err(unavailable)?;
    let mut response = page.answer(failures, |failure| failure.number.to_be_bytes(), |failure| shown_failure(&failure));
    let position = later(sent, job.revision);
    api.set_token(response.headers_mut(), principal.owner, principal.shard, position);
    Ok(response)
}

fn shown_failure(failure: &LineFailure) -> Value {
    json!({"line": failure.line, "task_id": failure.task_id, "problem": job::problem(&failure.problem)})
}

/// Cancels a job, or drops what it has left behind. Under a key it does so once: the second try of a cancellation does not
/// drop the errors.
pub(crate) async fn delete(
    State(api): State<CommandApi>,
    attempt: Attempt,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<Response, Problem> {
    attempt.refuse_condition("If-Match is for one task")?;
    let owner = attempt.principal.owner;
    let Some(identity) = attempt.identity(None) else {
        let ended = end(&api, owner, id).await?;
        return Ok(without_body(keyed::answer(&api, &attempt, ended)));
    };
    let keyed = KeyedBatch::new(api.executor().store(), &attempt.caller(), identity);
    if let Some(kept) = keyed.answer().await.map_err(keyed::problem)? {
        return keyed::replay(&api, &attempt, kept).map(without_body);
    }
    // A refused request leaves its key free.
    find(&api, owner, id).await?;
    let work = async |_: &Caller| end(&api, owner, id).await;
    keyed::carry_out(&api, &attempt, keyed, work).await.map(without_body)
}

/// Ends the job, or drops what it has left behind. The answer stands for what it has done, which stays, at least.
async fn end(api: &CommandApi, owner: OwnerId, id: Uuid) -> Result<Results, Problem> {
    let mut job = find(api, owner, id).await?;
    if job.state.has_ended() {
        api.jobs().drop_results(owner, id).await.map_err(unavailable)?;
        if let Ok(files) = api.files() {
            files.delete(id).await.map_err(|error| Problem::unavailable(&error))?;
        }
    } else {
        api.jobs().cancel(owner, id).await.map_err(unavailable)?;
        let began = Instant::now();
        // Its holder may have died: whoever takes it over ends it.
        while began.elapsed() < Duration::from_millis(CANCEL_WAIT_MS_MAX) {
            let Some(now) = api.jobs().find_any(owner, id).await.map_err(unavailable)? else { break };
            job = now;
            if job.state.has_ended() {
                break;
            }
            without_permit(sleep(Duration::from_millis(CANCEL_LOOK_MS))).await;
        }
    }
    let revision = api.or_last_known(owner, job.revision);
    let body = json!({"revision": revision, "change_id": null}).to_string();
    Ok(Results { body, revision, change_id: None, unfinished: false })
}

/// What is kept under a key serves its replay alone.
fn without_body(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.body_mut() = Body::empty();
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

pub(crate) fn list_described() -> Operation {
    job_operation("listJobs", "List your jobs")
        .header("Consistency-Token")
        .pages()
        .json(
            200,
            "The latest first.",
            &["Consistency-Token", "Link"],
            &page_of("Job"),
            &json!({"items": [job::example()], "next_cursor": null}),
        )
        .refuses(&[ProblemCode::InvalidConsistencyToken])
}

pub(crate) fn get_described() -> Operation {
    job_operation("getJob", "Get a job")
        .path_id("The job's id.")
        .header("Consistency-Token")
        .json(200, "The job, as far as it is.", &["Consistency-Token"], &reference("Job"), &job::example())
        .refuses(&[ProblemCode::NotFound, ProblemCode::InvalidConsistencyToken])
}

pub(crate) fn errors_described() -> Operation {
    let example = json!({
        "line": 3, "task_id": EXAMPLE_ID,
        "problem": {
            "type": "/problems/transition-refused", "title": "The task's status does not allow this", "status": 409,
            "detail": "a completed task cannot be started", "code": "transition-refused",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        },
    });
    job_operation("listJobErrors", "List the lines of a job that failed")
        .says("The first 10,000. `line` counts from 1, blank lines and a CSV file's header too.")
        .path_id("The job's id.")
        .header("Consistency-Token")
        .pages()
        .json(
            200,
            "In the order of the lines.",
            &["Consistency-Token", "Link"],
            &page_of("JobError"),
            &json!({"items": [example], "next_cursor": null}),
        )
        .refuses(&[ProblemCode::NotFound, ProblemCode::InvalidConsistencyToken])
}

pub(crate) fn delete_described() -> Operation {
    job_write("deleteJob", "Cancel a job, or drop its result")
        .says(
            "A job that has not ended is cancelled at its next line; what is done stays. Of one that has ended the result \
             and the errors are dropped; the job itself is shown until it expires.",
        )
        .path_id("The job's id.")
        .empty_body()
        .empty(204, "It was.", &["Consistency-Token", "Idempotent-Replayed"])
        .refuses(&[
            ProblemCode::NotFound,
            ProblemCode::RequestInFlight,
            ProblemCode::KeyReused,
            ProblemCode::Contended,
            ProblemCode::DiskFull,
        ])
}

pub(crate) fn error_schema() -> Value {
    whole(json!({
        "line": {"type": ["integer", "null"], "minimum": 1, "description": "Of a file, from 1."},
        "task_id": {"type": ["string", "null"], "format": "uuid"},
        "problem": reference("Problem"),
    }))
}
