//! Why a read was refused, and the problem that says so.

use axum::response::{IntoResponse, Response};
use http_api::problem::{Problem, ProblemCode};

use crate::fold::Unfoldable;

/// When to try again what was not there yet, seconds.
const RETRY_AFTER_S: u32 = 1;
/// When to try again behind a parked event, which an administrator has to mend, seconds.
const PARKED_RETRY_AFTER_S: u32 = 30;

/// Why a read was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// A part of path or query was not understood; the text names it.
    #[error("{0}")]
    Parameter(String),
    /// A cursor that was not given out for this account, filters and sort.
    #[error("cursor of something else")]
    ForeignCursor,
    /// A consistency token that was not given out to this account for this log.
    #[error("consistency token of something else")]
    ForeignToken,
    /// Unknown, deleted or another owner's.
    #[error("not found")]
    NotFound,
    /// What the token names was not applied in time.
    #[error("not applied in time")]
    NotYet,
    /// What the token names is parked.
    #[error("parked")]
    Parked,
    /// The account has its share of streams.
    #[error("too many streams")]
    TooManyStreams,
    /// Texts of a past time were not searched in time.
    #[error("search too slow")]
    SearchTooSlow,
    /// Too many wait already.
    #[error("overloaded")]
    Overloaded,
    /// The connection to the database is gone; logged where it happened.
    #[error("disconnected")]
    Disconnected,
    /// The database did not answer as it should; logged where it happened.
    #[error("unavailable")]
    Unavailable,
}

impl ReadError {
    pub fn parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        Self::Parameter(format!("{name} {detail}"))
    }
}

/// Whether the connection is gone, not the statement wrong: another one may do.
pub(crate) fn is_disconnect(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // Connection exceptions; terminated by an operator, a crash, or not started yet.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        if is_disconnect(&error) {
            tracing::warn!(%error, "reading the read models");
            Self::Disconnected
        } else {
            tracing::error!(%error, "reading the read models");
            Self::Unavailable
        }
    }
}

impl From<Unfoldable> for ReadError {
    fn from(error: Unfoldable) -> Self {
        tracing::error!(%error, "folding a history");
        Self::Unavailable
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Parameter(detail) => Self::parameter(detail),
            ReadError::ForeignCursor => Self::new(ProblemCode::InvalidCursor)
                .detail("cursor was not given out for this account, filters and sort"),
            ReadError::ForeignToken => Self::new(ProblemCode::InvalidConsistencyToken)
                .detail("Consistency-Token was not given out to this account"),
            ReadError::NotFound => Self::new(ProblemCode::NotFound),
            ReadError::NotYet => Self::new(ProblemCode::NotCaughtUp).retry_after_s(RETRY_AFTER_S),
            ReadError::Parked => Self::new(ProblemCode::ProjectionParked).retry_after_s(PARKED_RETRY_AFTER_S),
            ReadError::TooManyStreams => Self::new(ProblemCode::TooManyStreams).retry_after_s(RETRY_AFTER_S),
            ReadError::SearchTooSlow => Self::new(ProblemCode::SearchTooSlow).retry_after_s(RETRY_AFTER_S),
            ReadError::Overloaded => Self::new(ProblemCode::Overloaded).retry_after_s(RETRY_AFTER_S),
            ReadError::Disconnected | ReadError::Unavailable => {
                Self::new(ProblemCode::Unavailable).retry_after_s(RETRY_AFTER_S)
            }
        }
    }
}

impl IntoResponse for ReadError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
