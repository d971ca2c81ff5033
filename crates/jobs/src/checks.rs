//! Whether jobs get to their end, looked for in a live database.

use backends::database::Pool;
use event_store::checks::{Found, SHOWN_MAX};
use uuid::Uuid;

/// A job with which nothing happens.
#[derive(Debug)]
pub struct IdleJob {
    /// Which.
    pub id: Uuid,
    /// Whose.
    pub owner_id: Uuid,
    /// For how long.
    pub seconds: i64,
}

/// A job of an account that is not there.
#[derive(Debug)]
pub struct OrphanedJob {
    /// Which.
    pub id: Uuid,
    /// Whose.
    pub owner_id: Uuid,
}

/// Jobs that nobody has gone on with for so many seconds: no copy runs that has an object store, or none gets to its end.
///
/// # Errors
/// The database does not answer.
pub async fn left(pool: &Pool, seconds: f64) -> Result<Found<IdleJob>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select id, owner_id, extract(epoch from clock_timestamp() - lease_expires_at)::bigint as "seconds!",
            count(*) over () as "jobs!"
        from jobs.job
        where state = 'running' and lease_expires_at between '2000-01-01' and clock_timestamp() - make_interval(secs => $1)
        order by lease_expires_at, id
        limit $2
        "#,
        seconds,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(rows, |row| row.jobs, |row| IdleJob { id: row.id, owner_id: row.owner_id, seconds: row.seconds }))
}

/// Jobs that nobody has taken for so many seconds, though their accounts have room for them. (How long others of the account took
/// is not known, so one that waits behind those is none.)
///
/// # Errors
/// The database does not answer.
pub async fn waiting(pool: &Pool, seconds: f64) -> Result<Found<IdleJob>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select id, owner_id, extract(epoch from clock_timestamp() - created_at)::bigint as "seconds!",
            count(*) over () as "jobs!"
        from jobs.job j
        where state = 'queued' and created_at < clock_timestamp() - make_interval(secs => $1)
            and not exists (
                select from jobs.job other
                where other.owner_id = j.owner_id and other.id <> j.id and (other.state = 'running'
                    or other.finished_at > clock_timestamp() - make_interval(secs => $1)))
        order by created_at, id
        limit $2
        "#,
        seconds,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(rows, |row| row.jobs, |row| IdleJob { id: row.id, owner_id: row.owner_id, seconds: row.seconds }))
}

/// Jobs of accounts that are not there.
///
/// # Errors
/// The database does not answer.
pub async fn of_nobody(pool: &Pool) -> Result<Found<OrphanedJob>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select id, owner_id, count(*) over () as "jobs!"
        from jobs.job j
        where not exists (select from identity.account a where a.id = j.owner_id)
        order by id
        limit $1
        "#,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(rows, |row| row.jobs, |row| OrphanedJob { id: row.id, owner_id: row.owner_id }))
}
