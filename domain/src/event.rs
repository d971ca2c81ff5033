//! What has happened to a task.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::values::{Description, Priority, Rank, Status, Tags, Time, Title};

/// An event of a task's stream. Its serialised form is the `data` of the stored event: see [`crate::stored`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TaskEvent {
    /// The first event of a stream.
    TaskCreated {
        /// What is to be done.
        title: Title,
        /// More about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<Description>,
        /// How much it matters.
        priority: Priority,
        /// By when.
        #[serde(skip_serializing_if = "Option::is_none")]
        due_at: Option<Time>,
        /// Labels.
        tags: Tags,
        /// Its place in the order that people give by hand.
        #[serde(skip_serializing_if = "Option::is_none")]
        rank: Option<Rank>,
    },
    /// It has another title.
    TaskRenamed {
        /// The new one.
        title: Title,
    },
    /// It has another description, or none any more.
    TaskDescribed {
        /// The new one.
        description: Option<Description>,
    },
    /// It matters more or less.
    TaskReprioritized {
        /// The new priority.
        priority: Priority,
    },
    /// It has another due time, or none any more.
    TaskScheduled {
        /// The new one.
        due_at: Option<Time>,
    },
    /// Tags were added.
    TaskTagged {
        /// Those that it did not have.
        tags: Tags,
    },
    /// Tags were removed.
    TaskUntagged {
        /// Those that it had.
        tags: Tags,
    },
    /// It has another rank, or none any more.
    TaskRanked {
        /// The new one.
        rank: Option<Rank>,
    },
    /// Work on it began.
    TaskStarted {},
    /// It was done.
    TaskCompleted {},
    /// It is to be done again.
    TaskReopened {},
    /// It will not be done.
    TaskCancelled {},
    /// What changed its stage is undone: it is where it was before.
    TaskStageReverted {
        /// The status that was reverted.
        from: Status,
        /// Where it was before, and is again.
        to: Status,
        /// When work on it had begun then.
        started_at: Option<Time>,
        /// When it had been done then.
        completed_at: Option<Time>,
    },
    /// It is in the trash.
    TaskDeleted {},
    /// It is as it was before it was deleted.
    TaskRestored {},
    /// It was deleted so long ago that nobody may know any more what it was.
    TaskPurged {},
}

impl TaskEvent {
    /// The name of its type, as it is stored and shown.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::TaskCreated { .. } => "TaskCreated",
            Self::TaskRenamed { .. } => "TaskRenamed",
            Self::TaskDescribed { .. } => "TaskDescribed",
            Self::TaskReprioritized { .. } => "TaskReprioritized",
            Self::TaskScheduled { .. } => "TaskScheduled",
            Self::TaskTagged { .. } => "TaskTagged",
            Self::TaskUntagged { .. } => "TaskUntagged",
            Self::TaskRanked { .. } => "TaskRanked",
            Self::TaskStarted {} => "TaskStarted",
            Self::TaskCompleted {} => "TaskCompleted",
            Self::TaskReopened {} => "TaskReopened",
            Self::TaskCancelled {} => "TaskCancelled",
            Self::TaskStageReverted { .. } => "TaskStageReverted",
            Self::TaskDeleted {} => "TaskDeleted",
            Self::TaskRestored {} => "TaskRestored",
            Self::TaskPurged {} => "TaskPurged",
        }
    }
}

/// Who made it happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What kind of actor.
    #[serde(rename = "type")]
    pub actor_type: ActorType,
    /// The account; none for the system.
    pub id: Option<Uuid>,
}

/// The kinds of actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorType {
    /// An account, through the API.
    User,
    /// The operator, through the command line.
    System,
}

impl ActorType {
    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
        }
    }
}
