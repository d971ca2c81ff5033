//! The life of a process: its arguments, signals and clock, its logs, metrics and traces, the requests in progress, its
//! health, and the work that runs beside.

// what is to be told goes by stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The arguments of a program.
pub mod arguments;

/// Ctrl-C, SIGTERM and SIGHUP.
pub mod interrupt;

/// The one place where the wall clock is read.
pub mod clock;

/// Standard error: a bounded queue that nobody waits for.
pub mod stderr;

/// Logs, to standard error.
pub mod logs;

/// The recorder of metrics.
pub mod prometheus;

/// Spans to an OpenTelemetry collector, where one is configured.
pub mod traces;

/// The request in progress: ids, client, span, permit.
pub mod context;

/// How many requests are worked on at once.
pub mod load;

/// What there is only so much of, and each client's part of it.
pub mod budget;

/// Whether the process can do its work.
pub mod health;

/// Tasks that run as long as the process.
pub mod background;

/// Work that is done again and again.
pub mod periodic;

/// What fails for a while, said once.
pub mod outage;
