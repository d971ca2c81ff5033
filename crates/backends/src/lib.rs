//! What the services keep their data in: Postgres and Redis, each with its section of the settings.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Postgres by URL: connected, with retries for a limited time; its schemas checked.
pub mod database;

/// A cache that may be away: short calls behind a circuit breaker.
pub mod redis;
