use http_api::openapi::{Operation, Tag};
use http_api::problem::ProblemCode;

/// A write: its key, and what any of them may be refused for.
pub(crate) fn write(id: &'static str, summary: &'static str) -> Operation {
    let operation = Operation::new(Tag::Commands, id, summary).task_caller();
    operation.header("Idempotency-Key").header("Consistency-Token").refuses(&[
        ProblemCode::InvalidConsistencyToken,
        ProblemCode::RequestInFlight,
        ProblemCode::KeyReused,
        ProblemCode::Contended,
        ProblemCode::DiskFull,
        ProblemCode::StreamUnreadable,
    ])
}

/// A write to a task that there is.
pub(crate) fn change(id: &'static str, summary: &'static str) -> Operation {
    write(id, summary)
        .path_id("The task's id.")
        .header("If-Match")
        .refuses(&[ProblemCode::NotFound, ProblemCode::StaleVersion])
}

/// About jobs.
pub(crate) fn job(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Jobs, id, summary).task_caller()
}

/// A write about jobs.
pub(crate) fn job_write(id: &'static str, summary: &'static str) -> Operation {
    job(id, summary)
        .header("Idempotency-Key")
        .header("Consistency-Token")
        .refuses(&[ProblemCode::InvalidConsistencyToken])
}
