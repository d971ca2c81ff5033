//! What an account is given of its tasks when it asks for everything: a line for each task, and one for each of its events.

use domain::{StoredEvent, format_time};
use read_model::{TaskRow, fold, task_json};
use serde_json::{Value, json};

use crate::export_error::ExportError;

/// A task, made of its events as they come.
#[derive(Default)]
pub struct TaskRecord(Option<TaskRow>);

impl TaskRecord {
    /// Takes the next event, and gives its line.
    ///
    /// # Errors
    /// The event cannot be read.
    pub fn take(&mut self, event: &StoredEvent) -> Result<String, ExportError> {
        fold(&mut self.0, event).map_err(|error| ExportError::unreadable(event, &error))?;
        let data: Value = serde_json::from_str(&event.data).map_err(|error| ExportError::unreadable(event, &error))?;
        let line = json!({
            "task_id": event.task_id.0,
            "version": event.version,
            "type": event.event_type,
            "schema_version": event.schema_version,
            "occurred_at": format_time(event.occurred_at),
            "recorded_at": format_time(event.recorded_at),
            "actor": {"type": event.actor_type, "id": event.actor_id},
            "change_id": event.change(),
            "undoes": event.undoes,
            "data": data,
        });
        Ok(line.to_string())
    }

    /// The task's line, after its last event.
    #[must_use]
    pub fn end(self) -> Option<String> {
        let TaskRow { deleted, task, .. } = self.0?;
        let mut line = task_json::to_json(&task);
        line.pop();
        line.extend_from_slice(b",\"deleted_at\":");
        task_json::write_time(&mut line, deleted.then_some(task.updated_at));
        line.push(b'}');
        String::from_utf8(line).ok()
    }
}
