//! Publishes the log to Kafka, in order, and goes on where it was.
//!
//! Every copy of the service runs a relay; the one that has the lease publishes. On any trouble it drops what is not
//! on the brokers yet, and the next holder of the lease begins again at the stored cursor: a message may come twice, the
//! first time always in order. Commands never wait for it.

// messages go by process::stderr
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The relay of a process: leads where it has the lease.
mod leader;

/// One term of the leader: reads the log, sends, moves the cursor, renews the lease.
mod term;

/// How far the publication is behind the log.
mod lag;

/// Why a term ends early.
mod trouble;

pub use lag::RelayLag;
pub use leader::{Relay, StartError};
