use std::io;

use domain::{StoredEvent, TaskId};

/// How many tasks are put in order at most: 32 bytes each.
pub const CHOSEN_TASKS_MAX: usize = 4_000_000;

/// Why an export ended early; what was written is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("cannot write the file: {0}. What was written is not whole")]
    Write(#[from] io::Error),
    /// The store.
    #[error("the event store cannot be read: {0}")]
    Store(#[from] sqlx::Error),
    /// More than can be put in order.
    #[error("there are more than {CHOSEN_TASKS_MAX} tasks")]
    TooManyTasks,
    /// An event of a later or broken kind.
    #[error(
        "task {task_id} cannot be exported, since its event {version} cannot be read: {reason}. See primetrade doctor"
    )]
    Unreadable {
        /// Which task.
        task_id: TaskId,
        /// Which event.
        version: i64,
        /// Why not.
        reason: String,
    },
}

impl ExportError {
    pub(crate) fn unreadable(event: &StoredEvent, reason: &dyn std::fmt::Display) -> Self {
        Self::Unreadable { task_id: event.task_id, version: event.version, reason: reason.to_string() }
    }
}
