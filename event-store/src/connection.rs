//! A connection of its own for each queue: what waits in it never waits for a pool.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

/// How long one statement, or one attempt to connect, may take, in milliseconds.
const STATEMENT_WAIT_MS_MAX: u64 = 5_000;

/// One connection, made anew after an error.
pub(crate) struct Lane {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Lane {
    pub(crate) fn new(pool: &PgPool) -> Self {
        Self::with(pool, [])
    }

    /// With settings of its own.
    pub(crate) fn with<const N: usize>(pool: &PgPool, settings: [(&'static str, &'static str); N]) -> Self {
        // Its statements are few and all go through an index. The planner must not conclude otherwise from the
        // statistics of a table that was empty when the plan was made.
        let options = (*pool.connect_options()).clone().options([
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        let options = options.options(settings);
        Self { options, connection: None }
    }

    /// Whether the next statement goes down a new connection.
    pub(crate) fn is_fresh(&self) -> bool {
        self.connection.is_none()
    }

    /// Runs statements on the connection. It is kept after a success and after an error that Postgres itself
    /// reported; after anything else (cut, no answer) the next call makes a new one.
    pub(crate) async fn run<T, F>(&mut self, statements: F) -> Result<T, sqlx::Error>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => in_time(PgConnection::connect_with(&self.options)).await?,
        };
        let result = in_time(statements(&mut connection)).await;
        if matches!(&result, Ok(_) | Err(sqlx::Error::Database(_))) {
            self.connection = Some(connection);
        }
        result
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(Duration::from_millis(STATEMENT_WAIT_MS_MAX), statement)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Whether the same statement may well succeed in a moment: the connection broke, or the server is starting,
/// stopping, full or short of something.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Classes: connection, rollback (deadlock, serialisation), resources, operator, system.
            ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
