//! The real program on real files and a real Postgres.

/// What the commands do and say, and their exit status.
mod command_line;
/// Limits as texts tell them.
mod limits;
/// The life of the managed PostgreSQL, and every way in which it cannot start.
mod managed_postgres;
mod openapi;
/// A data folder of a test's own, and the program run on it.
mod support;
