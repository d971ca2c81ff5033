//! What an error of sqlx says, and a bound on how long a statement may take.

use std::time::Duration;

/// The code that Postgres gave.
#[must_use]
pub fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}

/// Whether Postgres has refused for want of room on its disk. False for an error that is not of sqlx.
#[must_use]
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<sqlx::Error>().and_then(sql_state).as_deref() == Some("53100")
}

/// What it says, without the library's words around it.
pub(super) fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// At most so long: a connection that is silently gone, or a lock that nobody releases, is an error as any other.
///
/// # Errors
/// As `work`, and [`sqlx::Error::PoolTimedOut`] where it was not done in time.
pub async fn in_time<T>(
    time_max: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(time_max, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
