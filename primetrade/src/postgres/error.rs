use std::time::Duration;

use backends::database::MAJOR_MIN;

use crate::data_dir::DataDirError;

/// How long somebody else may take to start or stop it, in milliseconds.
pub(super) const GATE_WAIT_MS_MAX: u64 = 180_000;
/// Restarts of a cluster that dies while it is used, before the server gives up.
pub(super) const RESTARTS_MAX: usize = 5;
pub(super) const RESTARTS_WINDOW: Duration = Duration::from_secs(300);

/// Why the managed Postgres cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No programs on this machine.
    #[error(
        "PostgreSQL's server programs (initdb, postgres) were not found. Install them (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; Arch: pacman -S postgresql; Alpine: apk add postgresql; macOS: brew install postgresql), say where they are with PRIMETRADE_POSTGRES_BIN, or give a database with PRIMETRADE_DATABASE_URL"
    )]
    NotInstalled,
    /// The setting points elsewhere.
    #[error(
        "PRIMETRADE_POSTGRES_BIN: {0} does not hold PostgreSQL's server programs (initdb, postgres). Name the folder they are in, or unset it"
    )]
    NotThere(String),
    /// Nothing that can be used.
    #[error(
        "the newest PostgreSQL on this machine is {found}; {MAJOR_MIN} or newer is needed. Install it, or give a database with PRIMETRADE_DATABASE_URL"
    )]
    TooOld {
        /// The newest there is.
        found: u32,
    },
    /// Data that none of the programs can read.
    #[error(
        "the data folder was made by PostgreSQL {data}, which is not on this machine (here: {here}). Install the server programs of PostgreSQL {data} (Debian: postgresql-{data}), or move the data over with pg_upgrade, or start with another folder: --data-dir"
    )]
    OtherVersion {
        /// Major version of the data.
        data: u32,
        /// Major versions on this machine.
        here: String,
    },
    /// Not a cluster, or half of one.
    #[error(
        "{path} does not look like PostgreSQL's data (no readable PG_VERSION). Restore it from a backup, or start with another folder: --data-dir"
    )]
    NotACluster {
        /// The cluster's folder.
        path: String,
    },
    /// The disk.
    #[error(
        "the disk is full: {path} has {free_mb} MB left, and {needed_mb} MB are needed. Free some space, or choose a folder on another disk with --data-dir"
    )]
    DiskFull {
        /// The data folder.
        path: String,
        /// What is left.
        free_mb: u64,
        /// What is needed.
        needed_mb: u64,
    },
    /// `initdb` failed.
    #[error("initdb could not make the database in {path}: {said}")]
    InitFailed {
        /// The data folder.
        path: String,
        /// What it said.
        said: String,
    },
    /// `postgres` did not come up.
    #[error("PostgreSQL did not start: {said}. Its log is {log}")]
    StartFailed {
        /// The last things it said.
        said: String,
        /// Where to read more.
        log: String,
    },
    /// It runs but does not answer.
    #[error(
        "PostgreSQL (process {pid}) has not answered for {seconds} s. Its log is {log}; end it with: kill -QUIT {pid}"
    )]
    Silent {
        /// The postmaster.
        pid: i32,
        /// How long it was waited for.
        seconds: u64,
        /// Where to read more.
        log: String,
    },
    /// Somebody else uses the folder, and we cannot join.
    #[error(
        "the data folder {path} is in use by a process that cannot be reached from here (another container?). Stop that one first"
    )]
    UsedElsewhere {
        /// The data folder.
        path: String,
    },
    /// Somebody starts or stops it for very long.
    #[error("another process has been starting or stopping PostgreSQL in {path} for more than {} s. See whether it hangs, and end it", GATE_WAIT_MS_MAX / 1000)]
    GateShut {
        /// The data folder.
        path: String,
    },
    /// It dies again and again.
    #[error("PostgreSQL died {RESTARTS_MAX} times within {} s. Its log is {log}", RESTARTS_WINDOW.as_secs())]
    KeepsDying {
        /// Where to read more.
        log: String,
    },
    /// No folder for the socket.
    #[error(
        "the path of the data folder is too long for a unix socket, and {path} cannot be used instead: it is not a private folder of this user. Choose a shorter --data-dir"
    )]
    NoSocketDir {
        /// The folder in question.
        path: String,
    },
    /// It runs, but refuses us.
    #[error("PostgreSQL in the data folder refuses the connection: {0}")]
    Refused(#[source] sqlx::Error),
    /// Something with a file.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}
