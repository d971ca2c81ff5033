//! command-api

/// The way of a command.
pub mod execute;
