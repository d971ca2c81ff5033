//! A connection of its own for each queue: what waits in it never waits for a pool.

use std::future::Future;
use std::time::Duration;

use backends::database::{AGE_S_MAX, Address, Pool};
use sqlx::PgConnection;
use tokio::time::{Instant, timeout};

use crate::log_state::{Seen, check};

/// How long one statement may take, in milliseconds.
const STATEMENT_WAIT_MS_MAX: u64 = 5_000;
/// How long a page of the log may take, in milliseconds: a busy disk reads it slowly.
const PAGE_WAIT_MS_MAX: u64 = 30_000;
/// How long one look at all events of an account may take, in milliseconds.
const ACCOUNT_WAIT_MS_MAX: u64 = 600_000;
/// A connection that was not used for so long is asked whether it is there before it is used, in milliseconds.
const IDLE_MS_MAX: u64 = 5_000;

/// One connection, made anew after an error, and now and then.
pub(crate) struct DedicatedConnection {
    address: Address,
    /// Of the same database: what one finds out of its server holds for the other.
    pool: Pool,
    /// Where commands are decided by it: what has to be there.
    has: Option<Seen>,
    open: Option<Open>,
}

struct Open {
    connection: PgConnection,
    made: Instant,
    used: Instant,
    /// When its server was last known to be the one that is wanted.
    found_good: Instant,
}

impl DedicatedConnection {
    pub(crate) fn new(pool: &Pool) -> Self {
        Self::with(pool, [])
    }

    /// With settings of its own.
    pub(crate) fn with<const N: usize>(pool: &Pool, settings: [(&'static str, &'static str); N]) -> Self {
        // Its statements are few and all go through an index. The planner must not conclude otherwise from the
        // statistics of a table that was empty when the plan was made.
        let address = pool.address().clone().with([
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]);
        Self { address: address.with(settings), pool: pool.clone(), has: None, open: None }
    }

    /// One by which commands are decided and appended: whatever is done on it, it has to lead to where the log was last
    /// written, with all that was seen of it.
    pub(crate) fn with_seen(self, seen: Seen) -> Self {
        Self { has: Some(seen), ..self }
    }

    /// Whether the next statement goes down a new connection.
    pub(crate) fn is_fresh(&self) -> bool {
        self.open.is_none()
    }

    /// Runs statements on the connection. It is kept after a success and after an error about the values; after anything
    /// else the next call makes a new one, which may lead elsewhere: to the server that writes since a failover.
    pub(crate) async fn run<T, F>(&mut self, statements: F) -> Result<T, sqlx::Error>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let result = in_time(statements(&mut open.connection)).await;
        if let Err(error) = &result {
            self.pool.notice(error);
        }
        if result.as_ref().err().is_none_or(is_about_values) {
            self.open = Some(Open { used: Instant::now(), ..open });
        }
        result
    }

    /// Before a statement: a connection that is old, that has not been used for a while and does not answer, or whose server
    /// only reads, as others have found out since, is closed. (That one would go on to answer, from before a failover.)
    pub(crate) async fn look(&mut self) {
        let Some(open) = &mut self.open else { return };
        let is_old = open.made.elapsed() >= Duration::from_secs(AGE_S_MAX);
        let is_idle = open.used.elapsed() >= Duration::from_millis(IDLE_MS_MAX);
        if !is_old && !is_idle && !self.pool.is_in_doubt_since(open.found_good) {
            return;
        }
        let asked = Instant::now();
        if !is_old && self.address.check(&mut open.connection).await {
            open.found_good = asked;
        } else {
            self.open = None;
        }
    }

    async fn connect(&self) -> Result<Open, sqlx::Error> {
        let made = Instant::now();
        let mut connection = self.address.connect().await?;
        if let Some(seen) = &self.has {
            in_time(check(&mut connection, seen)).await?;
        }
        Ok(Open { connection, made, used: made, found_good: made })
    }
}

/// A statement's outcome, or an error if it does not come: a connection that hangs is of no use.
pub(crate) async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(STATEMENT_WAIT_MS_MAX, statement).await
}

/// The same for a page of many rows, which may take longer.
pub(crate) async fn page_in_time<T>(page: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(PAGE_WAIT_MS_MAX, page).await
}

/// The same for one look at all events of an account.
pub(crate) async fn account_in_time<T>(look: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(ACCOUNT_WAIT_MS_MAX, look).await
}

async fn within<T>(
    wait_ms_max: u64,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(Duration::from_millis(wait_ms_max), statement)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Whether Postgres refused the values themselves, so that the same statement fails again: classes data exception,
/// integrity constraint, program limit. Anything else is the database's own affair (it is away, full, starting, only
/// reads since a failover, has another schema) and may be over in a moment.
#[must_use]
pub fn is_about_values(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}
