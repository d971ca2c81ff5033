//! The real program on real files and a real Postgres.

/// What the commands do and say, and their exit status.
mod command_line;
mod openapi;
/// The life of the private Postgres, and every way in which it cannot start.
mod private_postgres;
/// A data folder of a test's own, and the program run on it.
mod support;
