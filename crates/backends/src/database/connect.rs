//! A pool, once its database has answered; and whether it still does.

use std::time::Duration;

use process::health::Check;
use sqlx::Connection;

use super::address::{Address, ConnectError, Use};
use super::error::{DatabaseError, MAJOR_MIN};
use super::pool::{AGE_S_MAX, Pool, PoolSize};
use super::retries::Retries;
use super::sql_error::{message, sql_state};
use super::url::DatabaseUrl;

/// How long a query waits for a connection of the pool, in milliseconds.
const ACQUIRE_MS_MAX: u64 = 10_000;

/// Where a database is. Nobody is asked.
///
/// # Errors
/// It is not a URL of a database.
pub fn address(given: &DatabaseUrl, for_use: Use) -> Result<Address, DatabaseError> {
    let settings = given.settings.clone();
    let address = Address::parse(&given.url, for_use).map_err(|reason| DatabaseError::BadUrl { reason, settings })?;
    Ok(match &given.again {
        Some(again) => address.read_again(again.clone()),
        None => address,
    })
}

/// A pool, once its database has answered; waits for that at most `wait`.
///
/// # Errors
/// It does not answer in time, refuses, or is of no use.
pub async fn connect(
    given: &DatabaseUrl,
    connections_max: u32,
    for_use: Use,
    wait: Duration,
) -> Result<Pool, DatabaseError> {
    let address = address(given, for_use)?;
    let settings = || given.settings.clone();
    let place = address.place();
    let what = format!("the database at {place}");
    let mut retries = Retries::new(wait);
    let mut connection = loop {
        let reason = match address.connect().await {
            Ok(connection) => break connection,
            Err(error @ (ConnectError::SharedSessions(_) | ConnectError::NoPreparedStatements(_))) => {
                return Err(DatabaseError::Pooler(error));
            }
            Err(ConnectError::Database(error)) if is_final(&error) => {
                return Err(DatabaseError::Refused { place, reason: message(&error), settings: settings() });
            }
            Err(error) => error.to_string(),
        };
        if !retries.again(&what, &reason).await {
            return Err(DatabaseError::NoAnswer { place, reason, tried_s: wait.as_secs(), settings: settings() });
        }
    };
    let server = sqlx::query!(
        r#"select current_setting('server_version_num')::int as "version!", current_setting('server_encoding') as "encoding!""#
    );
    let server = server.fetch_one(&mut connection).await;
    let _ = connection.close().await;
    match server {
        Ok(server) if server.version / 10_000 < MAJOR_MIN as i32 => {
            Err(DatabaseError::TooOld { place, found: server.version / 10_000 })
        }
        Ok(server) if server.encoding != "UTF8" => Err(DatabaseError::Encoding { place, found: server.encoding }),
        Ok(_) => Ok(pool(connections_max, address)),
        Err(error) => Err(DatabaseError::NoAnswer {
            place,
            reason: message(&error),
            tried_s: wait.as_secs(),
            settings: settings(),
        }),
    }
}

/// A pool that connects when it is asked.
#[must_use]
pub fn pool(connections_max: u32, address: impl Into<Address>) -> Pool {
    let size = PoolSize { connections_max, connections_kept: 0, wait_ms_max: ACQUIRE_MS_MAX, age_s_max: AGE_S_MAX };
    Pool::new(address.into(), size, None)
}

/// For `/readyz`: whether the database answers those who use this pool. What went wrong goes to the log, since anybody
/// may read the check.
pub async fn check(pool: Pool) -> Check {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return failed(&error),
    };
    if pool.address().check(&mut connection).await {
        Check::ok("answers")
    } else {
        failed(&sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }
}

fn failed(error: &sqlx::Error) -> Check {
    tracing::warn!(%error, "a check failed");
    Check::failed("the database does not answer")
}

/// Whether trying again is of no use: wrong password, no such user or database, not allowed, no TLS there.
fn is_final(error: &sqlx::Error) -> bool {
    match sql_state(error) {
        Some(code) => code.starts_with("28") || code == "3D000" || code == "42501",
        None => matches!(error, sqlx::Error::Configuration(_) | sqlx::Error::Tls(_)),
    }
}
