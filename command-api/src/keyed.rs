use axum::response::Response;
use commands::identity::IdentityFrom;
use commands::keyed_batch::KeyedBatch;
use commands::{Caller, ExecuteError};
use http_api::problem::Problem;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::batch_answer::Results;
use crate::refusal;

/// Carries out what has many results, once: under the lease on its key, and the answer is kept. Whoever is second gets the
/// answer of the first. `work`: on behalf of a caller whose change is that of the first request.
pub(crate) async fn carry_out(
    api: &CommandApi,
    attempt: &Attempt,
    mut keyed: KeyedBatch<'_>,
    work: impl AsyncFnOnce(&Caller) -> Result<Results, Problem>,
) -> Result<Response, Problem> {
    let mut caller = attempt.caller();
    caller.change_id = keyed.bind(&caller).await.map_err(problem)?;
    // An equal one may be under way: who waits for it holds no permit.
    if let Some(kept) = keyed.lease_or_answer().await.map_err(problem)? {
        return replay(api, attempt, kept);
    }
    let results = match keyed.renewed_during(work(&caller)).await {
        Ok(results) if !results.unfinished => results,
        // The same request again replays what succeeded and decides the rest.
        unfinished => {
            keyed.release().await;
            return unfinished.map(|results| answer(api, attempt, results));
        }
    };
    match keyed.keep(&results.body).await.map_err(problem)? {
        None => Ok(answer(api, attempt, results)),
        Some(other) => replay(api, attempt, other),
    }
}

pub(crate) fn problem(error: ExecuteError) -> Problem {
    refusal::problem(error, IdentityFrom::IdempotencyKey)
}

pub(crate) fn answer(api: &CommandApi, attempt: &Attempt, results: Results) -> Response {
    let Results { body, revision, change_id, .. } = results;
    api.answer(attempt).batch(body, revision, change_id, false)
}

/// The answer that was kept.
pub(crate) fn replay(api: &CommandApi, attempt: &Attempt, body: String) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct Kept {
        revision: Option<i64>,
        change_id: Option<Uuid>,
    }
    let Kept { revision, change_id } = serde_json::from_str(&body).map_err(|error| Problem::internal(&error))?;
    Ok(api.answer(attempt).batch(body, revision, change_id, true))
}
