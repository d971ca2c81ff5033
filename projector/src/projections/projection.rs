//! What a projection is, and what it is given.

use async_trait::async_trait;
use domain::{OwnerId, StoredEvent, TaskId};
use read_model::{FieldChanges, TaskRow};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::copy::CopyIn;
use crate::differences::Differences;

/// A task's stream.
pub(crate) type Stream = (OwnerId, TaskId);

/// What a batch of events does: events that could be applied, and what became of their tasks.
#[derive(Debug, Default)]
pub(crate) struct Effect<'a> {
    /// In the order of the log.
    pub events: Vec<AppliedEvent<'a>>,
    /// Each task once, in the order in which they were touched first.
    pub tasks: Vec<TaskChange>,
}

impl Effect<'_> {
    /// The streams that are purged, as columns: what their events have left anywhere is to be blanked.
    pub fn purged(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        let purges = self.events.iter().filter(|applied| applied.event.event_type == "TaskPurged");
        purges.map(|applied| (applied.event.owner_id.0, applied.event.task_id.0)).unzip()
    }
}

/// An event that was applied.
#[derive(Debug)]
pub(crate) struct AppliedEvent<'a> {
    pub event: &'a StoredEvent,
    /// The fields of its task that it changed.
    pub changes: FieldChanges,
    /// The row after it, without its texts.
    pub after: TaskRow,
}

/// A task whose row a batch has changed.
#[derive(Debug)]
pub(crate) struct TaskChange {
    /// `None`: it has no row yet. In bulk: always.
    pub before: Option<TaskRow>,
    pub after: TaskRow,
    /// False: title and description are as they were, and the description may not have been loaded.
    pub text_changed: bool,
}

/// One of the read models.
#[async_trait]
pub(crate) trait Projection: Sync {
    /// Writes what the effect changes in its tables. The transaction has moved the checkpoint, so nobody else writes to
    /// these owners' rows. With nothing to write it asks the database nothing.
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error>;

    /// The rows of an effect for a generation that is filled in bulk: whole streams, each task once. `None`: it is
    /// counted afterwards, by the function in its migration.
    fn copy(&self, _effect: &Effect<'_>, _generation: i32) -> Option<CopyIn> {
        None
    }

    /// How two generations differ, in the snapshot of the transaction that is open. What either has from past the lower
    /// of both checkpoints is left out.
    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error>;
}
