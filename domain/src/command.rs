//! What a client may ask for. A command is addressed to one stream: (owner, task).

use crate::values::{Description, Priority, Rank, Status, Tags, Time, Title};

/// A command to one task. Renaming, describing, reprioritizing, scheduling and ranking are patches of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskCommand {
    /// Make it. Again with the content it was made with: the same task.
    Create(Box<NewTask>),
    /// Change fields; yields one event for each thing that really changes.
    Patch(Box<TaskPatch>),
    /// Add tags.
    Tag(Tags),
    /// Remove tags.
    Untag(Tags),
    /// pending → in_progress.
    Start,
    /// pending or in_progress → completed.
    Complete,
    /// completed or cancelled → pending.
    Reopen,
    /// pending or in_progress → cancelled.
    Cancel,
    /// Undoes a change of the stage: back from one status to another, with the times that it had there.
    RevertStage {
        /// Where it is.
        from: Status,
        /// Where it was before.
        to: Status,
        /// When work on it had begun then.
        started_at: Option<Time>,
        /// When it had been done then.
        completed_at: Option<Time>,
    },
    /// From anywhere, into the trash.
    Delete,
    /// Out of the trash, as it was before.
    Restore,
    /// Out of the trash for ever. The system's: no client can ask for it.
    Purge,
}

/// The content a task is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// What is to be done.
    pub title: Title,
    /// More about it.
    pub description: Option<Description>,
    /// How much it matters.
    pub priority: Priority,
    /// By when.
    pub due_at: Option<Time>,
    /// At most [`TAGS_MAX`](crate::TAGS_MAX), or it is refused.
    pub tags: Tags,
    /// Its place in the order that people give by hand.
    pub rank: Option<Rank>,
}

/// What to change; `None` leaves a field alone, `Some(None)` empties it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPatch {
    /// A new title.
    pub title: Option<Title>,
    /// A new description, or none any more.
    pub description: Option<Option<Description>>,
    /// A new priority.
    pub priority: Option<Priority>,
    /// A new due time, or none any more.
    pub due_at: Option<Option<Time>>,
    /// The whole new set of tags.
    pub tags: Option<Tags>,
    /// A new rank, or none any more.
    pub rank: Option<Option<Rank>>,
}
