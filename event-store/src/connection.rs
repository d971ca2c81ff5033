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

    /// Runs statements on the connection. It is kept after a success and after an error about the values; after anything
    /// else the next call makes a new one, which may lead elsewhere: to the server that writes since a failover.
    pub(crate) async fn run<T, F>(&mut self, statements: F) -> Result<T, sqlx::Error>
    where
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => in_time(PgConnection::connect_with(&self.options)).await?,
        };
        let result = in_time(statements(&mut connection)).await;
        if result.as_ref().err().is_none_or(is_about_values) {
            self.connection = Some(connection);
        }
        result
    }
}

/// A statement's outcome, or an error if it does not come: a connection that hangs is of no use.
pub(crate) async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(Duration::from_millis(STATEMENT_WAIT_MS_MAX), statement)
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
