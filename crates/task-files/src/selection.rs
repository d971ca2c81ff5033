//! The tasks of an account that an export or a change of many is about.

use domain::{OwnerId, TaskId, Time};
use event_store::TailReader;
use read_model::{TaskFilters, TaskRow, fold};

use crate::export_error::{CHOSEN_TASKS_MAX, ExportError};

const PAGE_EVENTS_MAX: i64 = 2_000;

/// A task that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chosen {
    created_at_micros: i64,
    /// Which.
    pub task_id: TaskId,
    /// How many events it has.
    pub(crate) events: u32,
}

/// Tasks as they were at one position of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// By creation and id.
    pub tasks: Vec<Chosen>,
    /// The owner's last event up to then, whatever task it is of; 0: none.
    pub revision: i64,
}

/// The tasks of an owner that match, as they were after the event at `until`. `now` decides what is overdue.
///
/// # Errors
/// The store does not answer, an event cannot be read, or there are more than [`CHOSEN_TASKS_MAX`].
pub async fn choose(
    tail: &TailReader,
    owner: OwnerId,
    until: i64,
    filters: &TaskFilters,
    now: Time,
) -> Result<Selection, ExportError> {
    let mut selection = Selection::default();
    let mut task: Option<TaskRow> = None;
    let mut after = None;
    loop {
        let page = tail.read_owner_streams_after(owner, after, until, PAGE_EVENTS_MAX).await?;
        if page.is_empty() {
            break;
        }
        for event in &page {
            after = Some((event.task_id, event.version));
            selection.revision = selection.revision.max(event.position);
            if task.as_ref().is_some_and(|row| row.task.id != event.task_id.0) {
                selection.add(task.take(), filters, now)?;
            }
            fold(&mut task, event).map_err(|error| ExportError::unreadable(event, &error))?;
        }
    }
    selection.add(task, filters, now)?;
    selection.tasks.sort_unstable();
    Ok(selection)
}

impl Selection {
    fn add(&mut self, row: Option<TaskRow>, filters: &TaskFilters, now: Time) -> Result<(), ExportError> {
        let Some(TaskRow { task, .. }) = row.filter(|row| !row.deleted && filters.matches(&row.task, now)) else {
            return Ok(());
        };
        if self.tasks.len() >= CHOSEN_TASKS_MAX {
            return Err(ExportError::TooManyTasks);
        }
        self.tasks.push(Chosen {
            created_at_micros: task.created_at.timestamp_micros(),
            task_id: TaskId(task.id),
            events: u32::try_from(task.version).unwrap_or(u32::MAX),
        });
        Ok(())
    }
}
