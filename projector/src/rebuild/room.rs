//! The room that a second generation takes on the disk, and what is done where there is none.

use backends::database::{Pool, is_disk_full};
use sqlx::PgConnection;
use tracing::warn;

use super::error::RebuildError;
use super::generation::drop_unfinished;
use super::lock::{lock, unlock};

/// The least that a rebuild will take on the disk, in bytes: half of what the live generation does, which has dead rows and
/// pages that are not full; less what an earlier run has left of it.
///
/// # Errors
/// The database does not answer.
pub async fn bytes_min(read_pool: &Pool) -> Result<u64, RebuildError> {
    let sizes = sqlx::query!(
        r#"
        select
            coalesce(sum(pg_total_relation_size(to_regclass(format('read_model.%I', t.name || '_' || p.live_generation)))),
                0)::bigint as "live!",
            coalesce(sum(pg_total_relation_size(to_regclass(format('read_model.%I', t.name || '_building')))),
                0)::bigint as "building!"
        from read_model.projected_table as t, read_model.projection as p
        "#
    )
    .fetch_one(read_pool)
    .await?;
    Ok((sizes.live / 2 - sizes.building).max(0).unsigned_abs())
}

/// Drops what a run has made that was broken off, where it cannot be left to the next one.
///
/// # Errors
/// See [`RebuildError`]; then it is left to the next run.
pub async fn discard(read_pool: &Pool) -> Result<(), RebuildError> {
    let mut guard = lock(read_pool).await?;
    let discarded = drop_unfinished(&mut guard).await;
    unlock(guard).await;
    discarded
}

/// What a run that failed has made is left to the next one; but not where the disk is full, since nobody else has room
/// then either.
pub(super) async fn nothing_left_where_full<T>(
    report: Result<T, RebuildError>,
    guard: &mut PgConnection,
) -> Result<T, RebuildError> {
    match report {
        Err(RebuildError::Database(error)) if is_disk_full(&error) => {
            if let Err(error) = drop_unfinished(guard).await {
                warn!(%error, "what was made of a new generation of the read models is left to the next rebuild");
            }
            Err(RebuildError::NoRoom("PostgreSQL has no space left on its disk".to_owned()))
        }
        report => report,
    }
}
