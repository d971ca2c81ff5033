//! A service as a process: read the configuration, wait for what it needs, serve, drain. [`run`] is what the three
//! `main.rs` share; from [`Serving`] on, `primetrade serve` lives like them.
//!
//! ```text
//! service::run("query-api", 8082, async |starting| {
//!     let pool = …;                                          // waits for the database, for a limited time
//!     let verifier = starting.remote_verifier(&pool).await?; // waits for the keys
//!     Ok(Built { api: query_api::router(…), verifier })
//! })
//! ```
//!
//! The end, at SIGTERM: `/readyz` says 503 and each answer closes its connection, while everything is still answered, so
//! that whoever sends requests here sends them elsewhere; then no connection is accepted any more and what is being
//! answered is waited for; then the background tasks end. It takes at most 10 s. A second signal ends it at once.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The whole life of a service.
mod run;

/// What a service is built with.
mod starting;

/// A program while it serves.
mod serving;

/// The ports of a process, and how it answers there until its end.
mod listeners;

/// The forms of all settings.
mod forms;

pub use forms::check_forms;
pub use listeners::{Listen, ListenError, Listeners};
pub use run::run;
pub use serving::{Built, Ending, Serving};
pub use starting::{DEPENDENCY_WAIT, StartError, Starting};
