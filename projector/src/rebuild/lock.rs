//! One rebuild at a time: an advisory lock.

use std::time::Duration;

use backends::database::Pool;
use sqlx::PgConnection;
use tokio::time::sleep;
use tracing::warn;

use super::error::RebuildError;
use crate::connection;

/// The advisory lock that a rebuild holds: "prtr", "ebld".
pub(crate) const LOCK: (i32, i32) = (0x7072_7472, 0x6562_6c64);
/// The lock of a run that was just stopped is waited for, 200 ms at a time.
const LOCK_ATTEMPTS_MAX: u32 = 5;

/// Holds the lock as long as the connection lives.
pub(super) async fn lock(pool: &Pool) -> Result<PgConnection, RebuildError> {
    let mut connection = connection::for_rebuild(pool).await?;
    for attempt in 0..LOCK_ATTEMPTS_MAX {
        if attempt > 0 {
            sleep(Duration::from_millis(200)).await;
        }
        let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1, $2) as "locked!""#, LOCK.0, LOCK.1)
            .fetch_one(&mut connection)
            .await?;
        if locked {
            return Ok(connection);
        }
    }
    Err(RebuildError::Running)
}

/// Gives the lock back at once; a connection that just closes gives it back a little later.
pub(super) async fn unlock(mut connection: PgConnection) {
    let unlocked = sqlx::query!("select pg_advisory_unlock($1, $2)", LOCK.0, LOCK.1).fetch_one(&mut connection).await;
    if let Err(error) = unlocked {
        warn!(%error, "the rebuild's connection was lost");
    }
}
