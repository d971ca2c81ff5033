//! Postgres by URL: connected, with retries for a limited time, and its schemas compared with what this program was built for.
//!
//! Who owns a schema migrates it; here is only what every service does before it reads or writes anything.

/// What an error of sqlx says, and a bound on how long a statement may take.
mod sql_error;

/// Where a database is, and what a connection to it has to be like.
mod address;

/// Connections that are shared.
mod pool;

/// One statement on any of them.
mod executor;

/// Whether its disk has room for more.
mod disk_space;

/// Why a database cannot be used.
mod error;

/// Waits for what may appear yet.
mod retries;

/// A pool, once its database has answered.
mod connect;

/// A schema as this program has it, held against the database's.
mod schema;

/// Who may do what in a schema.
mod roles;

/// Where databases are, from the settings.
mod url;

pub use address::{Address, ConnectError, Use};
pub use connect::{address, check, connect, pool};
pub use disk_space::DiskSpace;
pub use error::{DatabaseError, MAJOR_MIN};
pub use pool::{AGE_S_MAX, Pool, PoolSize, PoolTransaction, Pooled, Prepare};
pub use roles::{Granted, Roles};
pub use schema::{Plan, Schema};
pub use sql_error::{in_time, is_disk_full, sql_state};
pub use url::{DatabaseUrl, DatabaseUrls, ReadAgain, shown};
