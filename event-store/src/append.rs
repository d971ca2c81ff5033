use std::sync::Arc;

use domain::{Actor, CommandId, OwnerId, TaskEvent, TaskId, Time};
use uuid::Uuid;

use crate::effect::Effect;
use crate::unavailable::Unavailable;

/// An event that was decided.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// UUID version 7. A retry of the same append must carry the same.
    pub event_id: Uuid,
    /// When it happened.
    pub occurred_at: Time,
    /// What happened.
    pub event: TaskEvent,
}

/// Where a command came from; stands in each of its events.
#[derive(Debug, Clone)]
pub struct CommandOrigin {
    /// Who did it.
    pub actor: Actor,
    /// The request it came with: 1 to 128 characters.
    pub correlation_id: Arc<str>,
    /// W3C trace context of the request.
    pub traceparent: Arc<str>,
    /// The change that the events are of: what the request did.
    pub change_id: Uuid,
    /// The change that they undo.
    pub undoes: Option<Uuid>,
}

/// A command that was decided, with its events, if it has any.
#[derive(Debug, Clone)]
pub struct DecidedCommand {
    /// The command's id: the client's own, or one made for it.
    pub command_id: CommandId,
    /// Fingerprint of the request where the id is the client's own: then the outcome is remembered with it.
    pub fingerprint: Option<Uuid>,
    /// What it did, remembered with the outcome.
    pub effect: Effect,
    /// The change that its events are of, remembered with the outcome; none where it has none.
    pub change_id: Option<Uuid>,
    /// In order; none where the task was already as it was asked to be.
    pub events: Vec<NewEvent>,
}

/// The commands of one batch to one stream: they are appended together or not at all.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// The owner.
    pub owner_id: OwnerId,
    /// The task.
    pub task_id: TaskId,
    /// Whether the task's id was made for these commands, so that nobody else knows it: then it is not looked first whether
    /// there is such a task. Should there be one all the same, that is a conflict as any other.
    pub is_new_task: bool,
    /// The version that the first command was decided on; 0: no event yet.
    pub expected_version: i64,
    /// The position of the stream's last event at that version; 0: none.
    pub expected_revision: i64,
    /// Where the commands came from.
    pub origin: CommandOrigin,
    /// In the order decided.
    pub commands: Vec<DecidedCommand>,
}

/// The events are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first event; the others follow without a gap. Of no meaning where there was no event.
    pub first_position: i64,
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream is not at the expected version: read it again and decide again.
    #[error("the stream is at another version")]
    Conflict,
    /// One of the command ids has an outcome already: look it up.
    #[error("a command id is known already")]
    CommandKnown,
    /// Postgres refused this unit's own values. Others in its batch are unaffected.
    #[error("the event store refused the values of a command")]
    Refused,
    /// Not known to have been appended.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What comes of an append.
pub(crate) type AppendResult = Result<Appended, AppendError>;

impl StreamAppend {
    /// Whether it is to be looked at which version the stream is: no index forbids a gap, but of a new task there is none
    /// before the first version, and the index on versions forbids a second one.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.event_count() > 0 && !(self.is_new_task && self.expected_version == 0)
    }

    pub(crate) fn event_count(&self) -> usize {
        self.commands.iter().map(|command| command.events.len()).sum()
    }

    pub(crate) fn first_event(&self) -> Option<Uuid> {
        self.commands.iter().find_map(|command| command.events.first()).map(|event| event.event_id)
    }

    pub(crate) fn last_event(&self) -> Option<Uuid> {
        self.commands.iter().rev().find_map(|command| command.events.last()).map(|event| event.event_id)
    }
}
