//! Postgres by URL: connected with patience, and its schemas held against what this program was built for.
//!
//! Who owns a schema migrates it; here is only what every service does before it reads or writes anything.

mod address;
mod pool;

use std::time::Duration;

use secrecy::SecretString;
use sqlx::Connection;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use tokio::time::Instant;

pub use address::{Address, ConnectError, Use};
pub use pool::{AGE_S_MAX, Pool, PoolSize, PoolTransaction, Pooled, Prepare};

use crate::health::Check;

/// The oldest PostgreSQL that will do.
pub const MAJOR_MIN: u32 = 14;
/// The first and the longest pause between two attempts, in milliseconds.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;
/// While something is waited for, it is said this often, in milliseconds.
const SAID_EVERY_MS: u64 = 10_000;
/// How long a query waits for a connection of the pool, in milliseconds.
const ACQUIRE_MS_MAX: u64 = 10_000;

/// Why a database cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nobody there, or not in time.
    #[error(
        "the database at {place} does not answer ({reason}); tried for {tried_s} s. Start it, or correct {variable}"
    )]
    NoAnswer {
        /// Host, port and database.
        place: String,
        /// What the last attempt said.
        reason: String,
        /// How long it was tried.
        tried_s: u64,
        /// Where the URL came from.
        variable: &'static str,
    },
    /// It answers, but not to us.
    #[error(
        "the database at {place} refuses the connection: {reason}. Correct user, password or database name in {variable}"
    )]
    Refused {
        /// Host, port and database.
        place: String,
        /// What it said.
        reason: String,
        /// Where the URL came from.
        variable: &'static str,
    },
    /// Not a URL that can be used.
    #[error("{variable} cannot be used: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
        /// Where it came from.
        variable: &'static str,
    },
    /// A connection pooler that is set up for something else.
    #[error(transparent)]
    Pooler(ConnectError),
    /// It cannot hold every text.
    #[error(
        "the database at {place} has the encoding {found}, which cannot hold every text that people write; UTF8 is needed. Make another one (create database NAME encoding 'UTF8' template template0) and give its name"
    )]
    Encoding {
        /// Host, port and database.
        place: String,
        /// Its encoding.
        found: String,
    },
    /// Too old a server.
    #[error("the database at {place} is PostgreSQL {found}; {MAJOR_MIN} or newer is needed")]
    TooOld {
        /// Host, port and database.
        place: String,
        /// Its major version.
        found: i32,
    },
    /// Nobody has migrated it in time.
    #[error(
        "the schema {schema} is not there, or older than this program: run primetrade migrate; waited for {waited_s} s"
    )]
    NotMigrated {
        /// Which schema.
        schema: &'static str,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// Made by a later program.
    #[error(
        "the schema {schema} was migrated by a newer version of primetrade (migration {version} is unknown to this one). Run that version or a later one; an older one must not touch its data"
    )]
    NewerMigration {
        /// Which schema.
        schema: &'static str,
        /// The migration that is not known.
        version: i64,
    },
    /// Not what was applied.
    #[error(
        "migration {version} of the schema {schema} is not the one that was applied here: this is another build of primetrade, or the database was changed by hand. Run the version that made it, or restore a backup"
    )]
    OtherMigration {
        /// Which schema.
        schema: &'static str,
        /// The migration that differs.
        version: i64,
    },
    /// No room.
    #[error("the disk of the database is full ({0}). Free some space and try again")]
    DiskFull(String),
    /// Something else in a migration.
    #[error("the schema {schema} could not be migrated: {source}")]
    Migration {
        /// Which schema.
        schema: &'static str,
        /// What happened.
        source: MigrateError,
    },
}

impl DatabaseError {
    /// Why a migration of this schema failed.
    #[must_use]
    pub fn of_migration(schema: &'static str, error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
                Self::NewerMigration { schema, version }
            }
            MigrateError::VersionMismatch(version) => Self::OtherMigration { schema, version },
            MigrateError::Execute(ref cause) | MigrateError::ExecuteMigration(ref cause, _)
                if sql_state(cause).as_deref() == Some("53100") =>
            {
                Self::DiskFull(cause.to_string())
            }
            source => Self::Migration { schema, source },
        }
    }
}

/// How long something may take to appear, how often it is looked for, and what was said of that.
struct Patience {
    began: Instant,
    pause: Duration,
    wait: Duration,
    said: Option<Instant>,
}

impl Patience {
    fn new(wait: Duration) -> Self {
        Self { began: Instant::now(), pause: Duration::from_millis(PAUSE_MS_MIN), wait, said: None }
    }

    /// Waits until it is time to look again; `false` when it is too late for that.
    async fn again(&mut self, what: &str, reason: &str) -> bool {
        if self.began.elapsed() + self.pause > self.wait {
            return false;
        }
        if self.said.is_none_or(|said| said.elapsed() >= Duration::from_millis(SAID_EVERY_MS)) {
            self.said = Some(Instant::now());
            let left_s = (self.wait - self.began.elapsed()).as_secs();
            tracing::warn!(reason, "waiting for {what}; trying again for {left_s} s");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
        true
    }
}

/// Where a database is. Nobody is asked. `variable` is where the URL came from.
///
/// # Errors
/// It is not a URL of a database.
pub fn address(variable: &'static str, url: &SecretString, for_use: Use) -> Result<Address, DatabaseError> {
    Address::parse(url, for_use).map_err(|reason| DatabaseError::BadUrl { reason, variable })
}

/// A pool, once its database has answered; waits for that at most `wait`. `variable` is where the URL came from.
///
/// # Errors
/// It does not answer in time, refuses, or is of no use.
pub async fn connect(
    variable: &'static str,
    connections_max: u32,
    url: &SecretString,
    for_use: Use,
    wait: Duration,
) -> Result<Pool, DatabaseError> {
    let address = address(variable, url, for_use)?;
    let place = address.place();
    let what = format!("the database at {place}");
    let mut patience = Patience::new(wait);
    let mut connection = loop {
        let reason = match address.connect().await {
            Ok(connection) => break connection,
            Err(error @ (ConnectError::SharedSessions(_) | ConnectError::NoPreparedStatements(_))) => {
                return Err(DatabaseError::Pooler(error));
            }
            Err(ConnectError::Database(error)) if is_final(&error) => {
                return Err(DatabaseError::Refused { place, reason: said(&error), variable });
            }
            Err(error) => error.to_string(),
        };
        if !patience.again(&what, &reason).await {
            return Err(DatabaseError::NoAnswer { place, reason, tried_s: wait.as_secs(), variable });
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
        Err(error) => Err(DatabaseError::NoAnswer { place, reason: said(&error), tried_s: wait.as_secs(), variable }),
    }
}

/// A pool that connects when it is asked.
#[must_use]
pub fn pool(connections_max: u32, address: impl Into<Address>) -> Pool {
    let size = PoolSize { connections_max, connections_kept: 0, wait_ms_max: ACQUIRE_MS_MAX, age_s_max: AGE_S_MAX };
    Pool::new(address.into(), size, None)
}

/// At most so long: a connection that is silently gone, or a lock that nobody gives up, is an error as any other.
///
/// # Errors
/// As `work`, and [`sqlx::Error::PoolTimedOut`] where it was not done in time.
pub async fn in_time<T>(
    time_max: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(time_max, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Waits at most `wait` until somebody (`primetrade migrate`) has brought the schema to where this program has it.
///
/// # Errors
/// Not in time; or it was migrated by another program.
pub async fn await_schema(
    pool: &Pool,
    schema: &'static str,
    migrator: &Migrator,
    wait: Duration,
) -> Result<(), DatabaseError> {
    let what = format!("the schema {schema}, which primetrade migrate makes");
    let mut patience = Patience::new(wait);
    loop {
        let reason = match lacks(pool, migrator).await {
            Ok(None) => return Ok(()),
            Ok(Some(version)) => format!("migration {version} is not applied"),
            // no table of migrations, or nobody answers: both may still come
            Err(MigrateError::Execute(error)) => said(&error),
            Err(error) => return Err(DatabaseError::of_migration(schema, error)),
        };
        if !patience.again(&what, &reason).await {
            return Err(DatabaseError::NotMigrated { schema, waited_s: wait.as_secs() });
        }
    }
}

/// The first migration that is not applied yet.
async fn lacks(pool: &Pool, migrator: &Migrator) -> Result<Option<i64>, MigrateError> {
    let mut connection = pool.acquire().await?;
    if let Some(version) = connection.dirty_version(&migrator.table_name).await? {
        return Ok(Some(version));
    }
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    for migration in &applied {
        match migrator.iter().find(|known| known.version == migration.version) {
            None => return Err(MigrateError::VersionMissing(migration.version)),
            Some(known) if known.checksum != migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version));
            }
            Some(_) => {}
        }
    }
    let is_applied = |version: i64| applied.iter().any(|migration| migration.version == version);
    Ok(migrator.iter().map(|migration| migration.version).find(|version| !is_applied(*version)))
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

/// The code that Postgres gave.
#[must_use]
pub fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}

fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
