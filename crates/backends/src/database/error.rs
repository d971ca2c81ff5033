//! Why a database cannot be used.

use sqlx::migrate::MigrateError;

use super::address::ConnectError;
use super::sql_error::is_disk_full;

/// The oldest PostgreSQL that will do.
pub const MAJOR_MIN: u32 = 14;

/// Why a database cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nobody there, or not in time.
    #[error(
        "the database at {place} does not answer ({reason}); tried for {tried_s} s. Start it, or correct {settings}"
    )]
    NoAnswer {
        /// Host, port and database.
        place: String,
        /// What the last attempt said.
        reason: String,
        /// How long it was tried.
        tried_s: u64,
        /// The settings that say where it is.
        settings: String,
    },
    /// It answers, but not to us.
    #[error(
        "the database at {place} refuses the connection: {reason}. Correct user, password or database name in {settings}"
    )]
    Refused {
        /// Host, port and database.
        place: String,
        /// What it said.
        reason: String,
        /// The settings that say where it is.
        settings: String,
    },
    /// Not a URL that can be used.
    #[error("{settings} cannot be used: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
        /// The settings that say it.
        settings: String,
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
    /// Made by a later program, and not for this one.
    #[error(
        "the schema {schema} was migrated by a newer version of primetrade: its migration {version} is only for programs that know migration {since} or a later one, and the newest that this one knows is {newest}. Run that version or a later one"
    )]
    NewerMigration {
        /// Which schema.
        schema: &'static str,
        /// The migration that is not known.
        version: i64,
        /// The oldest program that it is for, by the newest migration which that program knows.
        since: i64,
        /// The newest migration that this program knows.
        newest: i64,
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
            MigrateError::VersionMismatch(version) => Self::OtherMigration { schema, version },
            MigrateError::Execute(ref cause) | MigrateError::ExecuteMigration(ref cause, _) if is_disk_full(cause) => {
                Self::DiskFull(cause.to_string())
            }
            source => Self::Migration { schema, source },
        }
    }
}
