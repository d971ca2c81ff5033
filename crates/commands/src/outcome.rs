use domain::{Refusal, TaskId};
use event_store::{AppendError, Effect, Unavailable};
use uuid::Uuid;

/// A command that took effect, or found nothing to do, or was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// What it did.
    pub effect: Effect,
    /// The task.
    pub task_id: TaskId,
    /// The task's version after the command.
    pub version: i64,
    /// The position of the task's last event after the command.
    pub revision: i64,
    /// Whether this is the answer of an earlier, equal request.
    pub replayed: bool,
    /// The change that its events are of: of a replay, that of the earlier request. None: it made no event.
    pub change_id: Option<Uuid>,
    /// How many events were appended now.
    pub events: u32,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// There is no such task.
    #[error("there is no such task")]
    NotFound,
    /// Another version was expected.
    #[error("the task is at version {version}")]
    StaleVersion {
        /// The version that the task has.
        version: i64,
    },
    /// The rules refuse it.
    #[error(transparent)]
    Refused(Refusal),
    /// The id or key was used with another request.
    #[error("the id or key was used with another request")]
    IdentityReused,
    /// An equal request has been in flight for longer than 10 s.
    #[error("an equal request is in flight")]
    InFlight,
    /// Writers collided 20 times, or the task was busy for longer than 10 s.
    #[error("too many others are changing the same task")]
    Contended,
    /// The queue is full; nothing was done.
    #[error("the event store's queue is full")]
    Overloaded,
    /// The disk has no room for more; nothing was done.
    #[error("the event store's disk is full")]
    DiskFull,
    /// The stream holds an event that cannot be read.
    #[error("the task's stream holds an event that cannot be read")]
    Unreadable,
    /// Postgres refused the command's values; nothing was done.
    #[error("the event store refused the command's values")]
    Failed,
    /// The store does not answer; whether the command took effect is unknown.
    #[error("the event store does not answer")]
    Unavailable,
}

impl ExecuteError {
    /// Whether the same command may succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::InFlight | Self::Contended | Self::Overloaded | Self::DiskFull | Self::Unavailable => true,
            Self::NotFound
            | Self::StaleVersion { .. }
            | Self::Refused(_)
            | Self::IdentityReused
            | Self::Unreadable
            | Self::Failed => false,
        }
    }
}

impl From<Unavailable> for ExecuteError {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Busy => Self::Overloaded,
            Unavailable::DiskFull => Self::DiskFull,
            Unavailable::NoAnswer => Self::Unavailable,
        }
    }
}

impl From<Refusal> for ExecuteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            refusal => Self::Refused(refusal),
        }
    }
}

impl From<AppendError> for ExecuteError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict | AppendError::CommandKnown => Self::Contended,
            AppendError::Refused => Self::Failed,
            AppendError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}
