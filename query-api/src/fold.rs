//! The history of a task, folded: the task as of a version.

use domain::Time;
use read_model::{FieldChanges, Task};
use uuid::Uuid;

/// Why a history cannot be folded: the table is not as its writer promised.
#[derive(Debug, thiserror::Error)]
#[error("history of task {task_id} at version {version}: {reason}")]
pub(crate) struct Unfoldable {
    task_id: Uuid,
    version: i64,
    reason: String,
}

/// Folds the history of one task, oldest first from version 1: each call of [`Fold::apply`] gives the task after that
/// change. Both `as_of` and the stream are made by it.
#[derive(Debug)]
pub(crate) struct Fold {
    task_id: Uuid,
    task: Option<Task>,
}

impl Fold {
    pub fn of(task_id: Uuid) -> Self {
        Self { task_id, task: None }
    }

    /// The task after this version. `changes` is as the history keeps it: a JSON object {field: {from, to}}.
    pub fn apply(&mut self, version: i64, occurred_at: Time, changes: &str) -> Result<&Task, Unfoldable> {
        let unfoldable = |reason: String| Unfoldable { task_id: self.task_id, version, reason };
        let changes = FieldChanges::from_json(changes).map_err(|error| unfoldable(error.to_string()))?;
        let expected = self.version() + 1;
        if version != expected {
            return Err(unfoldable(format!("version {expected} was to come")));
        }
        let task = self.task.get_or_insert_with(|| Task::blank(self.task_id, occurred_at));
        task.apply(version, occurred_at, &changes);
        Ok(task)
    }

    /// The version that it has come to.
    pub fn version(&self) -> i64 {
        self.task.as_ref().map_or(0, |task| task.version)
    }

    /// In memory, roughly.
    pub fn bytes(&self) -> usize {
        let texts = |task: &Task| {
            let tags = task.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum::<usize>();
            task.title.len() + task.description.as_ref().map_or(0, String::len) + tags
        };
        size_of::<Self>() + self.task.as_ref().map_or(0, texts)
    }

    pub fn into_task(self) -> Option<Task> {
        self.task
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use domain::{Priority, Status};

    use super::*;

    fn at(second: i64) -> Time {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn apply<'f>(fold: &'f mut Fold, version: i64, changes: &str) -> Result<&'f Task, Unfoldable> {
        fold.apply(version, at(version), changes)
    }

    #[test]
    fn a_history_folds_to_the_task_at_each_version() {
        let mut fold = Fold::of(Uuid::nil());
        let created = r#"{"title":{"from":null,"to":"a"},"status":{"from":null,"to":"pending"},
            "priority":{"from":null,"to":"high"},"tags":{"from":[],"to":["x"]},"due_at":{"from":null,"to":"2026-01-01T00:00:00.5Z"}}"#;
        let task = apply(&mut fold, 1, created).unwrap().clone();
        assert_eq!(
            (task.title.as_str(), task.priority, task.tags.as_slice()),
            ("a", Priority::High, &["x".to_owned()][..])
        );
        let started = r#"{"status":{"from":"pending","to":"in_progress"},"started_at":{"from":null,"to":"1970-01-01T00:00:02Z"}}"#;
        let task = apply(&mut fold, 2, started).unwrap().clone();
        assert_eq!(
            (task.status, task.started_at, task.created_at, task.updated_at),
            (Status::InProgress, Some(at(2)), at(1), at(2))
        );
        let task = apply(&mut fold, 3, r#"{"due_at":{"from":"2026-01-01T00:00:00.5Z","to":null}}"#).unwrap();
        assert_eq!((task.due_at, task.version), (None, 3));
    }

    #[test]
    fn a_hole_or_an_unknown_value_is_told() {
        let mut fold = Fold::of(Uuid::nil());
        assert!(apply(&mut fold, 2, "{}").is_err());
        assert!(apply(&mut fold, 1, r#"{"status":{"from":null,"to":"asleep"}}"#).is_err());
        assert!(apply(&mut fold, 1, r#"{"title":{"from":null,"to":7}}"#).is_err());
    }
}
