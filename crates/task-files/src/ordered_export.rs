//! Tasks that were chosen, written in their order.

use std::collections::HashMap;

use domain::{OwnerId, StoredEvent, TaskId};
use event_store::TailReader;
use read_model::{TaskRow, fold};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use crate::calendar;
use crate::csv_row;
use crate::export::{ExportError, LineIds, write_command};
use crate::format::ExportFormat;
use crate::selection::Chosen;

/// How many events are read together, but for those of one task that has more by itself.
const PART_EVENTS_MAX: u64 = 2_000;
const PAGE_EVENTS_MAX: i64 = 2_000;

/// An export of chosen tasks: its beginning, parts of it, its end.
pub struct OrderedExport<'a> {
    /// Where the tasks are.
    pub tail: &'a TailReader,
    /// Whose they are.
    pub owner: OwnerId,
    /// They are written as they were after the event at this position.
    pub until: i64,
    /// What is written.
    pub format: ExportFormat,
    /// Names the tasks in calendars.
    pub log_id: Uuid,
}

impl OrderedExport<'_> {
    /// What comes before all tasks.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn begin(&self, out: &mut (impl AsyncWrite + Unpin)) -> Result<(), ExportError> {
        match self.format {
            ExportFormat::Ndjson => {}
            ExportFormat::Csv => out.write_all(&csv_row::line(csv_row::FIELDS, false)?).await?,
            ExportFormat::Ics => out.write_all(calendar::BEGIN.as_bytes()).await?,
        }
        Ok(())
    }

    /// The first of these tasks, as many as are read together. How many.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn part(&self, tasks: &[Chosen], out: &mut (impl AsyncWrite + Unpin)) -> Result<usize, ExportError> {
        let Self { tail, owner, until, format, log_id } = self;
        let ids: Vec<TaskId> = tasks[..part_length(tasks)].iter().map(|chosen| chosen.task_id).collect();
        let mut written: HashMap<TaskId, WrittenTask> = HashMap::new();
        let mut after = None;
        loop {
            let page = tail.read_streams_of(*owner, &ids, after, *until, PAGE_EVENTS_MAX).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.task_id, last.version));
            for event in &page {
                written.entry(event.task_id).or_default().take(event, *format)?;
            }
            // One alone may have any number of events.
            if let [only] = ids.as_slice()
                && let Some(task) = written.get_mut(only)
            {
                out.write_all(&std::mem::take(&mut task.lines)).await?;
            }
        }
        for task_id in &ids {
            if let Some(task) = written.remove(task_id) {
                out.write_all(&task.end(*format, *log_id)?).await?;
            }
        }
        Ok(ids.len())
    }

    /// What comes after all tasks. `is_empty`: there was none.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn end(&self, is_empty: bool, out: &mut (impl AsyncWrite + Unpin)) -> Result<(), ExportError> {
        if self.format == ExportFormat::Ics {
            if is_empty {
                out.write_all(calendar::NOTHING.as_bytes()).await?;
            }
            out.write_all(calendar::END.as_bytes()).await?;
        }
        Ok(())
    }
}

fn part_length(tasks: &[Chosen]) -> usize {
    let mut events = 0;
    let fitting = tasks.iter().take_while(|task| {
        events += u64::from(task.events);
        events <= PART_EVENTS_MAX
    });
    fitting.count().clamp(1, tasks.len())
}

#[derive(Default)]
struct WrittenTask {
    lines: Vec<u8>,
    ids: LineIds,
    row: Option<TaskRow>,
}

impl WrittenTask {
    fn take(&mut self, event: &StoredEvent, format: ExportFormat) -> Result<(), ExportError> {
        match format {
            ExportFormat::Ndjson => write_command(&mut self.lines, event, self.ids.of(event)),
            ExportFormat::Csv | ExportFormat::Ics => {
                fold(&mut self.row, event).map_err(|error| ExportError::unreadable(event, &error))?;
                Ok(())
            }
        }
    }

    fn end(self, format: ExportFormat, log_id: Uuid) -> Result<Vec<u8>, ExportError> {
        match (format, self.row) {
            (ExportFormat::Csv, Some(row)) => Ok(csv_row::line(csv_row::row(&row.task), false)?),
            (ExportFormat::Ics, Some(row)) => Ok(calendar::components(&row.task, log_id).into_bytes()),
            (_, _) => Ok(self.lines),
        }
    }
}
