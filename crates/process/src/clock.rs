//! The wall clock, and the ids made from it: read here and nowhere else (clippy's `disallowed-methods` holds it).

use chrono::{Timelike, Utc};
use domain::Time;
use uuid::Uuid;

/// Now, truncated to the microsecond: what Postgres and the stored events keep.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> Time {
    let now = Utc::now();
    now.with_nanosecond(now.nanosecond() / 1000 * 1000).unwrap_or(now)
}

/// A new id, ordered by the time it was made (UUID version 7).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
