//! What the handlers need.

use access::token::Sealer;
use backends::database::Pool;
use event_store::TailReader;
use http_api::openapi::{Operation, Tag};
use http_api::problem::Problem;

/// What the handlers need.
#[derive(Clone)]
pub struct AdminApi {
    pub(super) pool: Pool,
    pub(super) tail: TailReader,
    pub(super) sealer: Sealer,
}

impl AdminApi {
    /// With the read models, the log, and what seals cursors.
    #[must_use]
    pub fn new(read_pool: Pool, tail: TailReader, sealer: Sealer) -> Self {
        Self { pool: read_pool, tail, sealer }
    }
}

pub(super) fn described_as(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Administration, id, summary).admin()
}

pub(super) fn unavailable(error: sqlx::Error) -> Problem {
    Problem::unavailable(&error)
}
