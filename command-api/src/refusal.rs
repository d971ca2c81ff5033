//! Matched without `_`: a new refusal does not compile until somebody decides its status.

use commands::identity::IdentityFrom;
use commands::parse_error::COMMAND_BYTES_MAX;
use commands::{ExecuteError, ParseError};
use domain::Refusal;
use http_api::problem::{Problem, ProblemCode};
use jobs::{Explain, Failure};
use serde_json::json;
use task_files::{CutError, LINE_BYTES_MAX, LineError};

/// The problem for a command that was not carried out.
#[must_use]
pub fn problem(error: ExecuteError, identity_from: IdentityFrom) -> Problem {
    match error {
        ExecuteError::NotFound | ExecuteError::Refused(Refusal::NotFound) => not_found(),
        ExecuteError::StaleVersion { version: 0 } => {
            Problem::new(ProblemCode::StaleVersion).detail("The task does not exist yet; it has no version.")
        }
        ExecuteError::StaleVersion { version } => {
            Problem::new(ProblemCode::StaleVersion).detail(format!("The task is at version {version}."))
        }
        ExecuteError::Refused(refusal) => rules(&refusal),
        ExecuteError::IdentityReused => Problem::new(match identity_from {
            IdentityFrom::IdempotencyKey => ProblemCode::KeyReused,
            IdentityFrom::CommandId => ProblemCode::CommandIdReused,
        }),
        ExecuteError::InFlight => Problem::new(ProblemCode::RequestInFlight).retry_after_s(1),
        ExecuteError::Contended => Problem::new(ProblemCode::Contended).retry_after_s(1),
        ExecuteError::Overloaded => Problem::new(ProblemCode::Overloaded).retry_after_s(1),
        ExecuteError::DiskFull => Problem::disk_full(),
        ExecuteError::Unreadable => Problem::new(ProblemCode::StreamUnreadable).retry_after_s(30),
        ExecuteError::Failed => Problem::new(ProblemCode::Internal),
        ExecuteError::Unavailable => Problem::new(ProblemCode::Unavailable).retry_after_s(1),
    }
}

/// The problem for a text that is no command, or no batch.
#[must_use]
pub fn parse_problem(error: ParseError) -> Problem {
    match error {
        ParseError::TooLong => Problem::new(ProblemCode::BodyTooLarge)
            .detail(format!("A command has at most {} MiB.", COMMAND_BYTES_MAX >> 20)),
        ParseError::TooManyCommands => Problem::new(ProblemCode::BatchTooLarge),
        ParseError::NotJson(error) => {
            Problem::new(ProblemCode::MalformedBody).detail(format!("Not JSON as it should be: {error}."))
        }
        ParseError::Fields(invalid) => invalid.into(),
    }
}

/// The problem for a line of a file that was rejected.
#[must_use]
pub fn line_problem(error: LineError) -> Problem {
    match error {
        LineError::Cut(CutError::TooLong) => {
            Problem::new(ProblemCode::BodyTooLarge).detail(format!("A line has at most {} MiB.", LINE_BYTES_MAX >> 20))
        }
        LineError::Cut(error @ CutError::Unclosed) => {
            Problem::new(ProblemCode::MalformedBody).detail(error.to_string())
        }
        LineError::Row(error) => Problem::new(ProblemCode::MalformedBody).detail(error.to_string()),
        LineError::Parse(error) => parse_problem(error),
        LineError::Execute(error) => problem(error, IdentityFrom::CommandId),
    }
}

/// The problem for a job that could not be carried out.
#[must_use]
pub fn job_problem(failure: &Failure) -> Problem {
    let code = match failure {
        Failure::Header(_) => ProblemCode::InvalidFields,
        Failure::TookTooLong | Failure::FileGone | Failure::Outdated => ProblemCode::Unavailable,
        Failure::Tasks(_) => ProblemCode::StreamUnreadable,
    };
    Problem::new(code).detail(failure.to_string())
}

/// The same as JSON, for jobs to keep.
pub(crate) const EXPLAIN: Explain = Explain {
    line: |error| json!(line_problem(error)).to_string(),
    failure: |failure| json!(job_problem(failure)).to_string(),
};

fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound).detail("There is no such task.")
}

fn rules(refusal: &Refusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::Purged => Problem::new(ProblemCode::NotFound).detail(detail),
        Refusal::IdTaken => Problem::new(ProblemCode::TaskExists).detail(detail),
        Refusal::NotFrom { .. } => Problem::new(ProblemCode::TransitionRefused).detail(detail),
        Refusal::TooManyTags => Problem::new(ProblemCode::TooManyTags).detail(detail),
        Refusal::ChangedSince => Problem::new(ProblemCode::ChangedSince).detail(detail),
        Refusal::UndoneAlready => Problem::new(ProblemCode::UndoneAlready).detail(detail),
        Refusal::OccursInFuture => Problem::new(ProblemCode::OccurredAtRefused)
            .detail(detail)
            .error("/occurred_at", "must not lie in the future"),
        Refusal::OccursBeforePrevious { .. } => Problem::new(ProblemCode::OccurredAtRefused)
            .detail(detail)
            .error("/occurred_at", "must not lie before the task's previous event"),
    }
}

#[cfg(test)]
mod tests {
    use domain::{Status, Time};

    use super::*;

    #[test]
    fn every_refusal_has_its_status_and_code() {
        let rules = |refusal| ExecuteError::Refused(refusal);
        let table = [
            (ExecuteError::NotFound, 404, "not-found"),
            (rules(Refusal::NotFound), 404, "not-found"),
            (rules(Refusal::Purged), 404, "not-found"),
            (ExecuteError::StaleVersion { version: 3 }, 412, "stale-version"),
            (ExecuteError::StaleVersion { version: 0 }, 412, "stale-version"),
            (rules(Refusal::IdTaken), 409, "task-exists"),
            (rules(Refusal::NotFrom { from: Status::Completed, asked: "started" }), 409, "transition-refused"),
            (rules(Refusal::TooManyTags), 409, "too-many-tags"),
            (rules(Refusal::ChangedSince), 409, "changed-since"),
            (rules(Refusal::UndoneAlready), 409, "undone-already"),
            (rules(Refusal::OccursInFuture), 422, "occurred-at-refused"),
            (rules(Refusal::OccursBeforePrevious { previous: Time::UNIX_EPOCH }), 422, "occurred-at-refused"),
            (ExecuteError::IdentityReused, 422, "key-reused"),
            (ExecuteError::InFlight, 409, "request-in-flight"),
            (ExecuteError::Contended, 503, "contended"),
            (ExecuteError::Overloaded, 503, "overloaded"),
            (ExecuteError::DiskFull, 503, "disk-full"),
            (ExecuteError::Unreadable, 503, "stream-unreadable"),
            (ExecuteError::Failed, 500, "internal"),
            (ExecuteError::Unavailable, 503, "unavailable"),
        ];
        for (refused, status, code) in table {
            let problem = problem(refused.clone(), IdentityFrom::IdempotencyKey);
            assert_eq!((problem.status().as_u16(), problem.code().as_str()), (status, code), "{refused:?}");
        }
        assert_eq!(problem(ExecuteError::IdentityReused, IdentityFrom::CommandId).code(), ProblemCode::CommandIdReused);
    }

    #[test]
    fn a_missing_task_tells_the_same_whoever_noticed() {
        let by = |refused| problem(refused, IdentityFrom::IdempotencyKey);
        assert_eq!(by(ExecuteError::NotFound), by(ExecuteError::Refused(Refusal::NotFound)));
    }
}
