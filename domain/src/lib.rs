//! The rules of PrimeTrade: what a task is, what may happen to it, and how what happened is written down.
//!
//! Pure: no async, no I/O, no clock, no random numbers. Time and ids are arguments.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// What is wrong with what a client sent.
pub mod invalid;

/// Newtypes that cannot hold a wrong value: titles, tags, priorities, times, ids.
pub mod values;

/// What a client may ask for.
pub mod command;

/// What has happened.
pub mod event;

/// The Decider: `decide` a command against a state, `evolve` the state by an event.
pub mod task;

/// Undo: what reverts a task to what it was before a change.
pub mod undo;

/// The stored form of an event: a promise to every later version of the program.
pub mod stored;

pub use command::{NewTask, TaskCommand, TaskPatch};
pub use event::{Actor, ActorType, TaskEvent};
pub use invalid::{FieldError, Invalid, InvalidFields};
pub use stored::{StoredEvent, Unreadable, encode};
pub use task::{RESTORABLE_DAYS, Refusal, State, decide, event_of, evolve, occurred_at};
pub use undo::{PastEvent, is_restorable, standing_undos, undo};
pub use values::{
    CommandId, DESCRIPTION_CHARACTERS_MAX, Description, OwnerId, Priority, RANK_CHARACTERS_MAX, Rank, Status,
    TAG_CHARACTERS_MAX, TAGS_MAX, TITLE_CHARACTERS_MAX, Tag, Tags, TaskId, Time, Title, composed, format_time,
    parse_time, parse_uuid,
};
