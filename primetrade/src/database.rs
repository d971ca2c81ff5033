//! The databases of one process: by URL, or the private Postgres; connected with patience, and migrated.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use service_kit::config::DatabaseUrls;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::binaries::MAJOR_MIN;
use crate::data_dir::DataDir;
use crate::postgres::{PostgresError, Private, sql_state};

/// How long a database that does not answer is tried, in milliseconds.
const CONNECT_MS_MAX: u64 = 15_000;
/// How long one attempt may take, in milliseconds.
const ATTEMPT_MS_MAX: u64 = 5_000;
/// How long a query waits for a connection of the pool, in milliseconds.
const ACQUIRE_MS_MAX: u64 = 10_000;
const WRITE_CONNECTIONS_MAX: u32 = 12;
const READ_CONNECTIONS_MAX: u32 = 24;
const LOG_CONNECTIONS_MAX: u32 = 8;

/// Why the databases cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The private one.
    #[error(transparent)]
    Private(#[from] PostgresError),
    /// Nobody there, or not in time.
    #[error("the database at {place} does not answer ({reason}); tried for {} s. Start it, or correct {variable}", CONNECT_MS_MAX / 1000)]
    NoAnswer {
        /// Host, port and database.
        place: String,
        /// What the last attempt said.
        reason: String,
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
    /// Too old a server.
    #[error("the database at {place} is PostgreSQL {found}; {MAJOR_MIN} or newer is needed")]
    TooOld {
        /// Host, port and database.
        place: String,
        /// Its major version.
        found: i32,
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

/// Pools to all databases of the process, and the share in the private one.
pub struct Databases {
    /// Event store and identity.
    pub write: PgPool,
    /// Read models.
    pub read: PgPool,
    /// Where queries read: the replica, or the read database.
    pub replica: PgPool,
    private: Option<Private>,
}

impl Databases {
    /// Starts or joins the private Postgres of a data folder.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open_private(dir: &DataDir, bin_setting: Option<&Path>) -> Result<Self, DatabaseError> {
        let private = Private::acquire(dir, bin_setting).await?;
        let write = pool(WRITE_CONNECTIONS_MAX, private.connect_options());
        let read = pool(READ_CONNECTIONS_MAX, private.connect_options());
        Ok(Self { write, replica: read.clone(), read, private: Some(private) })
    }

    /// Connects by URL.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open_urls(write_url: &SecretString, urls: &DatabaseUrls) -> Result<Self, DatabaseError> {
        let write = connect("PRIMETRADE_DATABASE_URL", WRITE_CONNECTIONS_MAX, write_url).await?;
        let read_url = urls.read.as_ref().unwrap_or(write_url);
        let read = connect("PRIMETRADE_READ_DATABASE_URL", READ_CONNECTIONS_MAX, read_url).await?;
        let replica = match &urls.replica {
            Some(url) => connect("PRIMETRADE_READ_REPLICA_URL", READ_CONNECTIONS_MAX, url).await?,
            None => read.clone(),
        };
        Ok(Self { write, read, replica, private: None })
    }

    /// Brings all three schemas to the program's version.
    ///
    /// # Errors
    /// A newer program was here, or the database refuses.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        told("event_store", event_store::migrate(&self.write).await)?;
        told("identity", identity::migrate(&self.write).await)?;
        told("read_model", projector::migrate(&self.read).await)
    }

    /// A pool for reading the whole log page by page, in the order of an index. Its plans are made for that: on the
    /// statistics of a fresh table the planner would rather sort all of it for each page.
    #[must_use]
    pub fn in_index_order(&self) -> PgPool {
        let options = (*self.write.connect_options()).clone().options([
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_sort", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
            ("plan_cache_mode", "force_custom_plan"),
        ]);
        pool(LOG_CONNECTIONS_MAX, options)
    }

    /// The private Postgres, if it is used.
    #[must_use]
    pub fn private(&self) -> Option<&Private> {
        self.private.as_ref()
    }

    /// Closes the pools and gives the share in the private Postgres back.
    ///
    /// # Errors
    /// It could not be stopped.
    pub async fn close(self) -> Result<(), DatabaseError> {
        let closing = async {
            tokio::join!(self.write.close(), self.read.close(), self.replica.close());
        };
        // A connection that hangs is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(3), closing).await;
        if let Some(private) = self.private {
            private.release().await?;
        }
        Ok(())
    }
}

fn told(schema: &'static str, migrated: Result<(), MigrateError>) -> Result<(), DatabaseError> {
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            DatabaseError::NewerMigration { schema, version }
        }
        MigrateError::VersionMismatch(version) => DatabaseError::OtherMigration { schema, version },
        MigrateError::Execute(ref cause) | MigrateError::ExecuteMigration(ref cause, _)
            if sql_state(cause).as_deref() == Some("53100") =>
        {
            DatabaseError::DiskFull(cause.to_string())
        }
        source => DatabaseError::Migration { schema, source },
    })
}

/// Each statement says itself what went wrong with it; to log the slow ones too would only flood a terminal.
fn pool(connections_max: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX))
        .connect_lazy_with(options.disable_statement_logging())
}

async fn connect(variable: &'static str, connections_max: u32, url: &SecretString) -> Result<PgPool, DatabaseError> {
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(|_| DatabaseError::Refused {
        place: "?".to_owned(),
        reason: "it is not a URL as postgres://user:password@host:5432/database".to_owned(),
        variable,
    })?;
    let options = options.application_name("primetrade");
    let place = place(&options);
    let began = Instant::now();
    let mut pause_ms = 100;
    let mut connection = loop {
        let attempt = tokio::time::timeout(Duration::from_millis(ATTEMPT_MS_MAX), options.connect()).await;
        let reason = match attempt {
            Ok(Ok(connection)) => break connection,
            Ok(Err(error)) if is_final(&error) => {
                return Err(DatabaseError::Refused { place, reason: said(&error), variable });
            }
            Ok(Err(error)) => said(&error),
            Err(_) => format!("no answer within {} s", ATTEMPT_MS_MAX / 1000),
        };
        if began.elapsed() + Duration::from_millis(pause_ms) > Duration::from_millis(CONNECT_MS_MAX) {
            return Err(DatabaseError::NoAnswer { place, reason, variable });
        }
        if pause_ms == 100 {
            tracing::warn!(%place, reason, "the database does not answer yet; trying again for {} s", CONNECT_MS_MAX / 1000);
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(2_000);
    };
    let version =
        sqlx::query_scalar!("select current_setting('server_version_num')::int").fetch_one(&mut connection).await;
    let _ = connection.close().await;
    match version {
        Ok(Some(number)) if number / 10_000 < MAJOR_MIN as i32 => {
            Err(DatabaseError::TooOld { place, found: number / 10_000 })
        }
        Ok(_) => Ok(pool(connections_max, options)),
        Err(error) => Err(DatabaseError::Refused { place, reason: said(&error), variable }),
    }
}

fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// Whether trying again is of no use: wrong password, no such user or database, not allowed, no TLS there.
fn is_final(error: &sqlx::Error) -> bool {
    match sql_state(error) {
        Some(code) => code.starts_with("28") || code == "3D000" || code == "42501",
        None => matches!(error, sqlx::Error::Configuration(_) | sqlx::Error::Tls(_)),
    }
}

fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
