//! The managed PostgreSQL: a cluster in the data folder, reached by a unix socket, shared by the server and the commands
//! that run beside it. Whoever comes first starts it; whoever goes last stops it.

/// PostgreSQL's programs on this machine.
mod binaries;
/// The cluster's files and settings, and how to reach it.
mod cluster;
/// What the disk has left.
mod disk;
/// Events are not taken where the disk gets full.
mod disk_watch;
/// Why it cannot be used.
mod error;
/// The cluster as it is shared and watched over.
mod managed;
/// The server process: started, stopped.
mod postmaster;
/// What PostgreSQL said.
mod server_log;

pub use error::PostgresError;
pub use managed::ManagedPostgres;
