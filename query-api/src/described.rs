//! What the OpenAPI document says of all reads.

use http_api::openapi::{Operation, Tag};
use http_api::problem::ProblemCode;

/// Headers that answers to reads have.
pub(crate) const ANSWERED: [&str; 2] = ["ETag", "Consistency-Token"];
/// Those of pages.
pub(crate) const ANSWERED_PAGE: [&str; 3] = ["ETag", "Consistency-Token", "Link"];

/// What all reads have in common: what the client has already, what it must see at least.
pub(crate) fn read(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Queries, id, summary)
        .task_caller()
        .header("Consistency-Token")
        .header("If-None-Match")
        .empty(304, "The client has it.", &ANSWERED)
        .refuses(&[ProblemCode::InvalidConsistencyToken, ProblemCode::NotCaughtUp, ProblemCode::ProjectionParked])
}
