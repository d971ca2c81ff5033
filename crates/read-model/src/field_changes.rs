//! What an event changes in a task, as `read_model.history` keeps it and the API shows it: `{field: {"from": …, "to": …}}`.

use domain::{Priority, Status, Time};
use serde::{Deserialize, Serialize};

/// A field before and after. What it was is not read back: nobody needs it to fold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange<Before: Default, After = Before> {
    /// Before.
    #[serde(skip_deserializing)]
    pub from: Before,
    /// After.
    pub to: After,
}

impl<T: Default + PartialEq> FieldChange<T> {
    /// `None` where nothing has changed.
    pub fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

impl<T: PartialEq> FieldChange<Option<T>, T> {
    /// Of a field that every task has: `None` where nothing has changed.
    pub fn of_given(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from: Some(from), to })
    }

    /// Of a field that every task has, in its first event.
    pub fn first(to: T) -> Option<Self> {
        Some(Self { from: None, to })
    }
}

/// The fields of a task that an event changed, in the order in which the API shows them. Folding those of the versions 1
/// to n gives the task at version n ([`crate::Task::apply`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldChanges {
    /// The first event changes it from null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<FieldChange<Option<String>, String>>,
    /// Null: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<FieldChange<Option<String>>>,
    /// The first event changes it from null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<FieldChange<Option<Status>, Status>>,
    /// The first event changes it from null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<FieldChange<Option<Priority>, Priority>>,
    /// Null: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<FieldChange<Option<Time>>>,
    /// All of them, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<FieldChange<Vec<String>>>,
    /// Null: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<FieldChange<Option<String>>>,
    /// Null: not yet, or no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<FieldChange<Option<Time>>>,
    /// Null: not yet, or no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<FieldChange<Option<Time>>>,
}

impl FieldChanges {
    /// As the history keeps them.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings, names and times always serialise")]
        serde_json::to_string(self).expect("changes serialise")
    }

    /// As they were written.
    ///
    /// # Errors
    /// It is not what [`Self::to_json`] has written.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}
