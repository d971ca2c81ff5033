//! Which problem the client gets for each refusal. Matched without `_`: a new refusal does not compile until somebody
//! decides its status.

use domain::Refusal;
use http_api::problem::{Problem, ProblemCode};

use crate::execute::Refused;

/// Where a command's identity came from, for words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityFrom {
    /// The header of the request.
    IdempotencyKey,
    /// The field `command_id` of a batch or a line.
    CommandId,
}

/// The problem for a refused command.
#[must_use]
pub fn problem(refused: Refused, identity_from: IdentityFrom) -> Problem {
    match refused {
        Refused::NotFound | Refused::Rules(Refusal::NotFound) => not_found(),
        Refused::Stale { version: 0 } => {
            Problem::new(ProblemCode::StaleVersion).detail("The task does not exist yet; it has no version.")
        }
        Refused::Stale { version } => {
            Problem::new(ProblemCode::StaleVersion).detail(format!("The task is at version {version}."))
        }
        Refused::Rules(refusal) => rules(&refusal),
        Refused::KeyReused => Problem::new(match identity_from {
            IdentityFrom::IdempotencyKey => ProblemCode::KeyReused,
            IdentityFrom::CommandId => ProblemCode::CommandIdReused,
        }),
        Refused::InFlight => Problem::new(ProblemCode::RequestInFlight).retry_after_s(1),
        Refused::Contended => Problem::new(ProblemCode::Contended).retry_after_s(1),
        Refused::Overloaded => Problem::new(ProblemCode::Overloaded).retry_after_s(1),
        Refused::DiskFull => Problem::new(ProblemCode::DiskFull).retry_after_s(5),
        Refused::Unreadable => Problem::new(ProblemCode::StreamUnreadable).retry_after_s(30),
        Refused::Failed => Problem::new(ProblemCode::Internal),
        Refused::Unavailable => Problem::new(ProblemCode::Unavailable).retry_after_s(1),
    }
}

fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound).detail("There is no such task.")
}

fn rules(refusal: &Refusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::IdTaken => Problem::new(ProblemCode::TaskExists).detail(detail),
        Refusal::NotFrom { .. } => Problem::new(ProblemCode::TransitionRefused).detail(detail),
        Refusal::TooManyTags => Problem::new(ProblemCode::TooManyTags).detail(detail),
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
        let rules = |refusal| Refused::Rules(refusal);
        let table = [
            (Refused::NotFound, 404, "not-found"),
            (rules(Refusal::NotFound), 404, "not-found"),
            (Refused::Stale { version: 3 }, 412, "stale-version"),
            (Refused::Stale { version: 0 }, 412, "stale-version"),
            (rules(Refusal::IdTaken), 409, "task-exists"),
            (rules(Refusal::NotFrom { from: Status::Completed, asked: "started" }), 409, "transition-refused"),
            (rules(Refusal::TooManyTags), 409, "too-many-tags"),
            (rules(Refusal::OccursInFuture), 422, "occurred-at-refused"),
            (rules(Refusal::OccursBeforePrevious { previous: Time::UNIX_EPOCH }), 422, "occurred-at-refused"),
            (Refused::KeyReused, 422, "key-reused"),
            (Refused::InFlight, 409, "request-in-flight"),
            (Refused::Contended, 503, "contended"),
            (Refused::Overloaded, 503, "overloaded"),
            (Refused::DiskFull, 503, "disk-full"),
            (Refused::Unreadable, 503, "stream-unreadable"),
            (Refused::Failed, 500, "internal"),
            (Refused::Unavailable, 503, "unavailable"),
        ];
        for (refused, status, code) in table {
            let problem = problem(refused.clone(), IdentityFrom::IdempotencyKey);
            assert_eq!((problem.status().as_u16(), problem.code().as_str()), (status, code), "{refused:?}");
        }
        assert_eq!(problem(Refused::KeyReused, IdentityFrom::CommandId).code(), ProblemCode::CommandIdReused);
    }

    #[test]
    fn a_missing_task_tells_the_same_whoever_noticed() {
        let by = |refused| problem(refused, IdentityFrom::IdempotencyKey);
        assert_eq!(by(Refused::NotFound), by(Refused::Rules(Refusal::NotFound)));
    }
}
