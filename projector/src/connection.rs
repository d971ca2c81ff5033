//! The projector's own connections. What they are set to is no matter of taste:
//!
//! - `synchronous_commit = off`: a batch is folded again if a crash of Postgres loses it, since its checkpoint is lost
//!   with it; the events themselves are on disk before they can be read. Nothing that was shown goes back for good:
//!   tokens are positions (a read with one waits until that is folded again), and the change counter passes through
//!   the same numbers with the same contents (see the migration). Parking, retries and the switch of generations,
//!   which would not happen again in the same way, commit synchronously, and so make durable what came before them.
//! - `statement_timeout`: whatever hangs ends, and is tried again with a new connection; the fence
//!   keeps what the old one may still do from being done twice.
//! - `idle_in_transaction_session_timeout`: a process that is stopped in the middle of a batch holds the fence, and
//!   nobody else can go on. Its connection ends, its batch with it. In the middle of a COPY Postgres heeds no time-out:
//!   [`end_stopped`].
//! - generic plans, made once, by index only: the plan must hang neither on the length of the first batches nor on the
//!   statistics of a fresh table.

use std::time::Duration;

use backends::database::Pool;
use sqlx::PgConnection;
use tracing::warn;

/// A database that has not answered for so long is asked again by another connection; longer than its own time-out.
const ANSWER_MS_MAX: u64 = 20_000;

/// What `pg_stat_activity` calls those that apply batches.
const BATCHES: &str = "primetrade projector";

/// A connection for applying batches.
pub(crate) async fn for_batches(pool: &Pool) -> Result<PgConnection, sqlx::Error> {
    let address = pool.address().clone().called(BATCHES).with([
        ("synchronous_commit", "off"),
        ("statement_timeout", "15s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]);
    Ok(address.connect().await?)
}

/// What `pg_stat_activity` calls those of a rebuild.
pub(crate) const REBUILD: &str = "primetrade rebuild";

/// A connection of a rebuild: for COPY, counting, indexes, comparison.
pub(crate) async fn for_rebuild(pool: &Pool) -> Result<PgConnection, sqlx::Error> {
    let address = pool.address().clone().called(REBUILD).with([("synchronous_commit", "off")]);
    Ok(address.connect().await?)
}

/// After a time-out of a statement: ends connections for batches whose process has sent nothing for 5 s in the middle of a
/// statement, that is of a COPY, and with them the locks that their batches hold. Where this fails, it is tried again after the
/// next time-out.
pub(crate) async fn end_stopped(error: &sqlx::Error, pool: &Pool) {
    // query_canceled
    let is_time_out = error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014");
    if !is_time_out {
        return;
    }
    let ended = sqlx::query_scalar!(
        r#"
        select pg_terminate_backend(pid) as "ended!"
        from pg_stat_activity
        where datname = current_database() and usename = current_user and application_name = $1
            and state = 'active' and wait_event = 'ClientRead' and query_start < clock_timestamp() - interval '5 seconds'
        "#,
        BATCHES,
    );
    match in_time(ended.fetch_all(pool)).await {
        Ok(ended) if ended.is_empty() => {}
        Ok(ended) => warn!(
            connections = ended.len(),
            "a projector was stopped in the middle of a batch; its connection is ended"
        ),
        Err(error) => warn!(%error, "projectors that were stopped in the middle of a batch cannot be looked for"),
    }
}

/// An answer of a database that does not hang.
pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer);
    answer.await.unwrap_or_else(|_| Err(sqlx::Error::Protocol("the database does not answer".to_owned())))
}
