//! Commands: parsed, decided, appended. Whoever has them (HTTP, an import) asks an [`Executor`]; what it answers says what
//! happened, and nothing about HTTP.

// messages go by process::stderr
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// What is asked: a command, its conditions, and on whose behalf.
pub mod request;

/// What came of it.
pub mod outcome;

/// Carries out commands.
pub mod executor;

/// The commands to one task that are decided and appended together.
mod chain;

/// What undecided commands come to on a stream.
mod plan;

/// A task's stream as far as it was read.
mod stream;

/// How far the log of each owner is known to go.
mod last_positions;

/// Locks for keys that nobody counts.
mod keyed_locks;

/// Many commands in one request.
pub mod batch;

/// A batch under an Idempotency-Key: carried out once.
pub mod keyed_batch;

/// A change that is not whole yet.
mod change_in_progress;

/// Undoes a change, task by task.
mod undo;

/// Purges what was deleted long ago.
mod purge;

/// What the log holds already, for imports.
mod recognise;

/// What commands would come to, one after the other, if they were carried out.
mod simulation;

/// One command of a batch or one line of an import.
pub mod line;

/// A new task, from JSON.
pub mod new_task;

/// A change of a task's fields, from JSON.
pub mod patch;

/// The reversion of a stage, from JSON.
mod stage_reversion;

/// Why a text is no command.
pub mod parse_error;

/// The values of fields, read one by one.
mod fields;

/// The commands of a batch, taken apart.
mod split;

/// The identity of a request: an id, and a fingerprint of its content.
pub mod identity;

/// JSON as a tree that borrows.
pub mod json;

pub use executor::Executor;
pub use outcome::{Accepted, ExecuteError};
pub use parse_error::ParseError;
pub use request::{Caller, CommandRequest, ExpectedVersion};
pub use simulation::Simulation;
pub use undo::{Touched, Undone};

pub use event_store::Effect;
pub use identity::CommandIdentity;
