//! The fold: what an event makes of a task's row, what it says in the history, and what it changes in the counters.
//!
//! Pure and synchronous: rows in, rows out. [`crate::apply`] and [`crate::rebuild`] both run it, so that a rebuild
//! can differ from the live generation only where one of them is wrong.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use domain::{OwnerId, Priority, Status, StoredEvent, TaskEvent, TaskId, Time, Unreadable, format_time};
use serde::Serialize;
use uuid::Uuid;

/// A task as it stands in `read_model.task`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Whose task.
    pub owner_id: OwnerId,
    /// Which task.
    pub task_id: TaskId,
    /// Position of the last event folded into it.
    pub position: i64,
    /// Version of the last event folded into it.
    pub version: i64,
    /// A tombstone: only owner, id, version and position count.
    pub deleted: bool,
    /// Its stage.
    pub status: Status,
    /// Its priority.
    pub priority: Priority,
    /// Empty in a tombstone.
    pub title: String,
    /// Not loaded (`None`) where no event of the batch touches the text: see [`touches_text`].
    pub description: Option<String>,
    /// Sorted, each once.
    pub tags: Vec<String>,
    /// By when.
    pub due_at: Option<Time>,
    /// When the first event happened.
    pub created_at: Time,
    /// When the last event happened.
    pub updated_at: Time,
    /// When work on it began, since the last reopening.
    pub started_at: Option<Time>,
    /// When it was done: set exactly while it is completed.
    pub completed_at: Option<Time>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// The row had seen it already.
    Skipped,
    /// The row has changed; the JSON object that the history keeps.
    Applied(String),
}

/// Why an event cannot be folded into its row. The row is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// It cannot be understood.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Events before it are missing.
    #[error("version {found} where version {expected} was to come: events are missing before it")]
    Gap {
        /// The version after the row's.
        expected: i64,
        /// The event's version.
        found: i64,
    },
    /// The stream does not begin with `TaskCreated`.
    #[error("the stream begins with a {event_type}")]
    NotCreated {
        /// The type of its first event.
        event_type: String,
    },
    /// A second `TaskCreated`.
    #[error("the task is created a second time")]
    CreatedTwice,
    /// Something happened to a deleted task.
    #[error("the task was deleted before this event")]
    AfterDeletion,
}

/// Whether the fold of this event needs the description and the words of a row that exists.
#[must_use]
pub fn touches_text(event_type: &str) -> bool {
    matches!(event_type, "TaskRenamed" | "TaskDescribed" | "TaskDeleted")
}

/// Folds an event into the row of its task.
///
/// # Errors
/// See [`FoldError`]; the row is then as it was.
pub fn fold(row: &mut Option<TaskRow>, stored: &StoredEvent) -> Result<Folded, FoldError> {
    let seen = row.as_ref().map_or(0, |row| row.version);
    if stored.version <= seen {
        return Ok(Folded::Skipped);
    }
    if stored.version != seen + 1 {
        return Err(FoldError::Gap { expected: seen + 1, found: stored.version });
    }
    let event = stored.decode()?;
    let mut changes = Changes::default();
    match (row.as_mut(), event) {
        (Some(row), event) if row.deleted => {
            drop(event);
            return Err(FoldError::AfterDeletion);
        }
        (Some(_), TaskEvent::TaskCreated { .. }) => return Err(FoldError::CreatedTwice),
        (None, TaskEvent::TaskCreated { title, description, priority, due_at, tags }) => {
            let new = TaskRow {
                owner_id: stored.owner_id,
                task_id: stored.task_id,
                position: stored.position,
                version: stored.version,
                deleted: false,
                status: Status::Pending,
                priority,
                title: title.as_str().to_owned(),
                description: description.map(|text| text.as_str().to_owned()),
                tags: tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
                due_at,
                created_at: stored.occurred_at,
                updated_at: stored.occurred_at,
                started_at: None,
                completed_at: None,
            };
            changes.title = Some(Change { from: None, to: Some(new.title.clone()) });
            changes.description = Change::between(None, new.description.clone());
            changes.status = Some(Change { from: None, to: Some(new.status.as_str()) });
            changes.priority = Some(Change { from: None, to: Some(new.priority.as_str()) });
            changes.due_at = Change::between(None, new.due_at.map(format_time));
            changes.tags = Change::between(Vec::new(), new.tags.clone());
            *row = Some(new);
        }
        (None, event) => return Err(FoldError::NotCreated { event_type: event.event_type().to_owned() }),
        (Some(row), event) => {
            change(row, event, stored.occurred_at, &mut changes);
            row.position = stored.position;
            row.version = stored.version;
            row.updated_at = stored.occurred_at;
        }
    }
    #[expect(clippy::expect_used, reason = "a struct of strings always serialises")]
    let changes = serde_json::to_string(&changes).expect("changes serialise");
    Ok(Folded::Applied(changes))
}

/// What an event changes in a row that exists.
fn change(row: &mut TaskRow, event: TaskEvent, at: Time, changes: &mut Changes) {
    match event {
        // Refused by the caller; a row that exists is not created again.
        TaskEvent::TaskCreated { .. } => {}
        TaskEvent::TaskRenamed { title } => {
            let from = std::mem::replace(&mut row.title, title.as_str().to_owned());
            changes.title = Change::between(Some(from), Some(row.title.clone()));
        }
        TaskEvent::TaskDescribed { description } => {
            let from = std::mem::replace(&mut row.description, description.map(|text| text.as_str().to_owned()));
            changes.description = Change::between(from, row.description.clone());
        }
        TaskEvent::TaskReprioritized { priority } => {
            let from = std::mem::replace(&mut row.priority, priority);
            changes.priority = Change::between(Some(from.as_str()), Some(priority.as_str()));
        }
        TaskEvent::TaskScheduled { due_at } => {
            let from = std::mem::replace(&mut row.due_at, due_at);
            changes.due_at = Change::between(from.map(format_time), due_at.map(format_time));
        }
        TaskEvent::TaskTagged { tags } => {
            let from = row.tags.clone();
            row.tags.extend(tags.iter().map(|tag| tag.as_str().to_owned()));
            row.tags.sort_unstable();
            row.tags.dedup();
            changes.tags = Change::between(from, row.tags.clone());
        }
        TaskEvent::TaskUntagged { tags } => {
            let from = row.tags.clone();
            row.tags.retain(|tag| !tags.iter().any(|gone| gone.as_str() == tag));
            changes.tags = Change::between(from, row.tags.clone());
        }
        TaskEvent::TaskStarted {} => to_stage(row, Status::InProgress, Some(at), None, changes),
        TaskEvent::TaskCompleted {} => to_stage(row, Status::Completed, row.started_at, Some(at), changes),
        TaskEvent::TaskReopened {} => to_stage(row, Status::Pending, None, None, changes),
        TaskEvent::TaskCancelled {} => to_stage(row, Status::Cancelled, row.started_at, None, changes),
        TaskEvent::TaskDeleted {} => {
            row.deleted = true;
            row.title = String::new();
            row.description = None;
            row.tags = Vec::new();
            row.due_at = None;
        }
    }
}

fn to_stage(
    row: &mut TaskRow,
    status: Status,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    changes: &mut Changes,
) {
    changes.status = Change::between(Some(row.status.as_str()), Some(status.as_str()));
    changes.started_at = Change::between(row.started_at.map(format_time), started_at.map(format_time));
    changes.completed_at = Change::between(row.completed_at.map(format_time), completed_at.map(format_time));
    row.status = status;
    row.started_at = started_at;
    row.completed_at = completed_at;
}

/// A field before and after.
#[derive(Serialize)]
struct Change<T> {
    from: T,
    to: T,
}

impl<T: PartialEq> Change<T> {
    fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

/// The fields of a task that an event changed, in the order in which the API shows them.
#[derive(Default, Serialize)]
struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Change<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Change<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Change<Option<&'static str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Change<Option<&'static str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Change<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Change<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Change<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Change<Option<String>>>,
}

/// What a row adds to its owner's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contribution {
    status: i16,
    priority: i16,
    created: NaiveDate,
    completed: Option<NaiveDate>,
}

impl TaskRow {
    /// What it adds to the counters; nothing once it is deleted.
    #[must_use]
    pub fn contribution(&self) -> Option<Contribution> {
        (!self.deleted).then(|| Contribution {
            status: self.status.code(),
            priority: self.priority.code(),
            created: self.created_at.date_naive(),
            completed: self.completed_at.map(|time| time.date_naive()),
        })
    }
}

/// Differences of counters, of one batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counters {
    /// By owner, status and priority.
    pub tasks: BTreeMap<(OwnerId, i16, i16), i64>,
    /// By owner and UTC day: created, completed.
    pub days: BTreeMap<(OwnerId, NaiveDate), (i64, i64)>,
}

impl Counters {
    /// Adds the difference between a row before and after.
    pub fn differ(&mut self, owner: OwnerId, before: Option<Contribution>, after: Option<Contribution>) {
        if before == after {
            return;
        }
        for (contribution, sign) in [(before, -1), (after, 1)] {
            let Some(Contribution { status, priority, created, completed }) = contribution else { continue };
            *self.tasks.entry((owner, status, priority)).or_default() += sign;
            self.days.entry((owner, created)).or_default().0 += sign;
            if let Some(completed) = completed {
                self.days.entry((owner, completed)).or_default().1 += sign;
            }
        }
    }

    /// Drops what came to nothing.
    pub fn settle(&mut self) {
        self.tasks.retain(|_, count| *count != 0);
        self.days.retain(|_, counts| *counts != (0, 0));
    }
}

/// Names the fold: what it makes of a stream with every type of event. A rebuild that was stopped goes on only with
/// the same fold.
#[must_use]
pub fn fold_id() -> Uuid {
    const SAMPLE: [(&str, &str); 13] = [
        (
            "TaskCreated",
            r#"{"title":"Ä b","description":"C","priority":"high","due_at":"2026-01-02T03:04:05Z","tags":["x"]}"#,
        ),
        ("TaskRenamed", r#"{"title":"B"}"#),
        ("TaskDescribed", r#"{"description":"Déjà"}"#),
        ("TaskReprioritized", r#"{"priority":"low"}"#),
        ("TaskScheduled", r#"{"due_at":null}"#),
        ("TaskTagged", r#"{"tags":["y","z"]}"#),
        ("TaskUntagged", r#"{"tags":["x"]}"#),
        ("TaskStarted", "{}"),
        ("TaskCompleted", "{}"),
        ("TaskReopened", "{}"),
        ("TaskStarted", "{}"),
        ("TaskCancelled", "{}"),
        ("TaskDeleted", "{}"),
    ];
    let mut row = None;
    let mut text = String::new();
    for (at, (event_type, data)) in (1_i64..).zip(SAMPLE) {
        let stored = StoredEvent {
            shard: 0,
            position: at,
            owner_id: OwnerId(Uuid::nil()),
            task_id: TaskId(Uuid::nil()),
            version: at,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned(),
            schema_version: 1,
            occurred_at: Time::UNIX_EPOCH + chrono::TimeDelta::seconds(at),
            recorded_at: Time::UNIX_EPOCH,
            actor_type: "system".to_owned(),
            actor_id: None,
            command_id: Uuid::nil(),
            correlation_id: String::new(),
            traceparent: String::new(),
            data: data.to_owned(),
        };
        let folded = fold(&mut row, &stored);
        let words = row.as_ref().map(|row| crate::words::Words::of(&row.title, row.description.as_deref()).joined());
        text.push_str(&format!("{folded:?} {row:?} {words:?}\n"));
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}
