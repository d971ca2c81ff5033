//! A task, as the read models have it, and the one fold that makes it: of events ([`fold`]), or of what they
//! changed ([`Task::apply`]).

use domain::{OwnerId, Priority, Status, StoredEvent, TaskEvent, Time, Unreadable};
use uuid::Uuid;

use crate::field_changes::{FieldChange, FieldChanges};
use crate::search::Texts;

/// A task at one version, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Which.
    pub id: Uuid,
    /// Of the last event folded into it.
    pub version: i64,
    /// Empty where it is purged, or an older program deleted it.
    pub title: String,
    /// Where it is known that no event touches it, it may not have been loaded (`None`).
    pub description: Option<String>,
    /// Its stage.
    pub status: Status,
    /// How much it matters.
    pub priority: Priority,
    /// By when.
    pub due_at: Option<Time>,
    /// Sorted, each once.
    pub tags: Vec<String>,
    /// Its place in the order that people give by hand.
    pub rank: Option<String>,
    /// When the first event happened.
    pub created_at: Time,
    /// When the last event happened.
    pub updated_at: Time,
    /// When work on it began, since the last reopening.
    pub started_at: Option<Time>,
    /// When it was done: set exactly while it is completed.
    pub completed_at: Option<Time>,
}

impl Task {
    /// Before its first event: without a version, and nothing is true of it but its id.
    #[must_use]
    pub fn blank(id: Uuid, created_at: Time) -> Self {
        Self {
            id,
            version: 0,
            title: String::new(),
            description: None,
            status: Status::Pending,
            priority: Priority::Medium,
            due_at: None,
            tags: Vec::new(),
            rank: None,
            created_at,
            updated_at: created_at,
            started_at: None,
            completed_at: None,
        }
    }

    /// What an event has changed, and when.
    pub fn apply(&mut self, version: i64, occurred_at: Time, changes: &FieldChanges) {
        self.version = version;
        self.updated_at = occurred_at;
        set(&mut self.title, changes.title.as_ref());
        set(&mut self.description, changes.description.as_ref());
        set(&mut self.status, changes.status.as_ref());
        set(&mut self.priority, changes.priority.as_ref());
        set(&mut self.due_at, changes.due_at.as_ref());
        set(&mut self.tags, changes.tags.as_ref());
        set(&mut self.rank, changes.rank.as_ref());
        set(&mut self.started_at, changes.started_at.as_ref());
        set(&mut self.completed_at, changes.completed_at.as_ref());
    }
}

impl Task {
    /// Its texts, to be searched.
    #[must_use]
    pub fn texts(&self) -> Texts {
        Texts::of(&self.title, self.tags.iter().map(String::as_str), self.description.as_deref())
    }

    /// Nothing is left but what is counted: its stage, and when that was.
    fn forget_content(&mut self) {
        let blank = Self::blank(self.id, self.created_at);
        let Self { version, status, updated_at, started_at, completed_at, .. } = *self;
        *self = Self { version, status, updated_at, started_at, completed_at, ..blank };
    }
}

fn set<Before: Default, After: Clone>(field: &mut After, change: Option<&FieldChange<Before, After>>) {
    if let Some(change) = change {
        field.clone_from(&change.to);
    }
}

/// A task's columns in a row of a statement; all are null where there is no task.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in Task, and in the table")]
pub struct TaskColumns {
    pub id: Option<Uuid>,
    pub version: Option<i64>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub status: Option<i16>,
    pub priority: Option<i16>,
    pub due_at: Option<Time>,
    pub tags: Option<Vec<String>>,
    pub rank: Option<String>,
    pub created_at: Option<Time>,
    pub updated_at: Option<Time>,
    pub started_at: Option<Time>,
    pub completed_at: Option<Time>,
}

impl Task {
    /// From columns of `read_model.task` in a row that may be without a task.
    ///
    /// # Errors
    /// A null or a code that the table cannot have.
    pub fn of(columns: TaskColumns) -> Result<Option<Self>, sqlx::Error> {
        let Some(version) = columns.version else { return Ok(None) };
        Ok(Some(Self {
            id: given(columns.id)?,
            version,
            title: given(columns.title)?,
            description: columns.description,
            status: status(given(columns.status)?)?,
            priority: priority(given(columns.priority)?)?,
            due_at: columns.due_at,
            tags: given(columns.tags)?,
            rank: columns.rank,
            created_at: given(columns.created_at)?,
            updated_at: given(columns.updated_at)?,
            started_at: columns.started_at,
            completed_at: columns.completed_at,
        }))
    }
}

/// A status by its code.
///
/// # Errors
/// A code that the table cannot have.
pub fn status(code: i16) -> Result<Status, sqlx::Error> {
    by_code(Status::ALL, code)
}

/// A priority by its code.
///
/// # Errors
/// A code that the table cannot have.
pub fn priority(code: i16) -> Result<Priority, sqlx::Error> {
    by_code(Priority::ALL, code)
}

fn by_code<T: Copy>(all: &[T], code: i16) -> Result<T, sqlx::Error> {
    let value = usize::try_from(code).ok().and_then(|code| all.get(code).copied());
    value.ok_or_else(|| sqlx::Error::Decode(format!("unknown code {code}").into()))
}

fn given<T>(value: Option<T>) -> Result<T, sqlx::Error> {
    value.ok_or_else(|| sqlx::Error::Decode("null in a column that cannot be null".into()))
}

/// A row of `read_model.task`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Whose task.
    pub owner_id: OwnerId,
    /// Position of the last event folded into it.
    pub position: i64,
    /// In the trash: it is in no list and counts nowhere.
    pub deleted: bool,
    /// The task.
    pub task: Task,
}

impl TaskRow {
    /// The row with nothing but its title and description left out.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        let (tags, rank) = (self.task.tags.clone(), self.task.rank.clone());
        let task = Task { title: String::new(), description: None, tags, rank, ..self.task };
        Self { task, ..*self }
    }
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
    /// Something but a restoration happened to a deleted task.
    #[error("the task was deleted before this event")]
    AfterDeletion,
    /// A task that is not deleted is purged.
    #[error("the task is not deleted, so it cannot be purged")]
    NotDeleted,
    /// A deleted task that an older program has blanked is restored.
    #[error("what the task was before it was deleted is not there: rebuild the read models")]
    Blanked,
}

/// Whether the fold of this event needs the description and the words of a row that exists.
#[must_use]
pub fn touches_text(event_type: &str) -> bool {
    matches!(event_type, "TaskRenamed" | "TaskDescribed" | "TaskDeleted" | "TaskRestored" | "TaskPurged")
}

/// Folds an event into the row of its task, and says what it has changed. `None`: the row had seen it already.
///
/// # Errors
/// See [`FoldError`]; the row is then as it was.
pub fn fold(row: &mut Option<TaskRow>, stored: &StoredEvent) -> Result<Option<FieldChanges>, FoldError> {
    let seen = row.as_ref().map_or(0, |row| row.task.version);
    if stored.version <= seen {
        return Ok(None);
    }
    if stored.version != seen + 1 {
        return Err(FoldError::Gap { expected: seen + 1, found: stored.version });
    }
    let event = stored.decode()?;
    let row = match (row, &event) {
        (Some(TaskRow { deleted: true, task, .. }), TaskEvent::TaskRestored {}) if task.title.is_empty() => {
            return Err(FoldError::Blanked);
        }
        (Some(row @ TaskRow { deleted: true, .. }), TaskEvent::TaskRestored {} | TaskEvent::TaskPurged {}) => row,
        (Some(TaskRow { deleted: true, .. }), _) => return Err(FoldError::AfterDeletion),
        (Some(_), TaskEvent::TaskPurged {}) => return Err(FoldError::NotDeleted),
        (Some(_), TaskEvent::TaskCreated { .. }) => return Err(FoldError::CreatedTwice),
        (Some(row), _) => row,
        (row @ None, TaskEvent::TaskCreated { .. }) => row.insert(TaskRow {
            owner_id: stored.owner_id,
            position: 0,
            deleted: false,
            task: Task::blank(stored.task_id.0, stored.occurred_at),
        }),
        (None, event) => return Err(FoldError::NotCreated { event_type: event.event_type().to_owned() }),
    };
    match event {
        TaskEvent::TaskDeleted {} => row.deleted = true,
        TaskEvent::TaskRestored {} => row.deleted = false,
        TaskEvent::TaskPurged {} => row.task.forget_content(),
        _ => {}
    }
    let changes = changes_of(event, stored.occurred_at, &row.task);
    row.position = stored.position;
    row.task.apply(stored.version, stored.occurred_at, &changes);
    Ok(Some(changes))
}

/// What an event changes in its task. (A deletion changes nothing that is shown, nor do a restoration and a purge.)
fn changes_of(event: TaskEvent, at: Time, task: &Task) -> FieldChanges {
    match event {
        TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank } => FieldChanges {
            title: FieldChange::first(title.as_str().to_owned()),
            description: FieldChange::between(None, description.map(|text| text.as_str().to_owned())),
            status: FieldChange::first(Status::Pending),
            priority: FieldChange::first(priority),
            due_at: FieldChange::between(None, due_at),
            tags: FieldChange::between(Vec::new(), tags.iter().map(|tag| tag.as_str().to_owned()).collect()),
            rank: FieldChange::between(None, rank.map(|rank| rank.as_str().to_owned())),
            ..FieldChanges::default()
        },
        TaskEvent::TaskRenamed { title } => FieldChanges {
            title: FieldChange::of_given(task.title.clone(), title.as_str().to_owned()),
            ..FieldChanges::default()
        },
        TaskEvent::TaskDescribed { description } => FieldChanges {
            description: FieldChange::between(
                task.description.clone(),
                description.map(|text| text.as_str().to_owned()),
            ),
            ..FieldChanges::default()
        },
        TaskEvent::TaskReprioritized { priority } => {
            FieldChanges { priority: FieldChange::of_given(task.priority, priority), ..FieldChanges::default() }
        }
        TaskEvent::TaskScheduled { due_at } => {
            FieldChanges { due_at: FieldChange::between(task.due_at, due_at), ..FieldChanges::default() }
        }
        TaskEvent::TaskRanked { rank } => FieldChanges {
            rank: FieldChange::between(task.rank.clone(), rank.map(|rank| rank.as_str().to_owned())),
            ..FieldChanges::default()
        },
        TaskEvent::TaskTagged { tags } => {
            let mut to = task.tags.clone();
            to.extend(tags.iter().map(|tag| tag.as_str().to_owned()));
            to.sort_unstable();
            to.dedup();
            FieldChanges { tags: FieldChange::between(task.tags.clone(), to), ..FieldChanges::default() }
        }
        TaskEvent::TaskUntagged { tags } => {
            let mut to = task.tags.clone();
            to.retain(|tag| !tags.iter().any(|gone| gone.as_str() == tag));
            FieldChanges { tags: FieldChange::between(task.tags.clone(), to), ..FieldChanges::default() }
        }
        TaskEvent::TaskStarted {} => to_stage(task, Status::InProgress, Some(at), None),
        TaskEvent::TaskCompleted {} => to_stage(task, Status::Completed, task.started_at, Some(at)),
        TaskEvent::TaskReopened {} => to_stage(task, Status::Pending, None, None),
        TaskEvent::TaskCancelled {} => to_stage(task, Status::Cancelled, task.started_at, None),
        TaskEvent::TaskStageReverted { to, started_at, completed_at, .. } => {
            to_stage(task, to, started_at, completed_at)
        }
        TaskEvent::TaskDeleted {} | TaskEvent::TaskRestored {} | TaskEvent::TaskPurged {} => FieldChanges::default(),
    }
}

fn to_stage(task: &Task, status: Status, started_at: Option<Time>, completed_at: Option<Time>) -> FieldChanges {
    FieldChanges {
        status: FieldChange::of_given(task.status, status),
        started_at: FieldChange::between(task.started_at, started_at),
        completed_at: FieldChange::between(task.completed_at, completed_at),
        ..FieldChanges::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{NewTask, State, Tag, TaskCommand, TaskId, TaskPatch, Title, decide, encode, evolve, format_time};
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn stored(version: i64, event_type: &str, data: &str) -> StoredEvent {
        StoredEvent {
            shard: 0,
            position: version * 10,
            owner_id: OwnerId(Uuid::from_u128(1)),
            task_id: TaskId(Uuid::from_u128(2)),
            version,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned(),
            schema_version: 1,
            // a step of 7 hours, so that days change
            occurred_at: Time::UNIX_EPOCH + chrono::TimeDelta::seconds(version * 25_200),
            recorded_at: Time::UNIX_EPOCH,
            actor_type: "user".to_owned(),
            actor_id: None,
            command_id: Uuid::nil(),
            correlation_id: String::new(),
            traceparent: String::new(),
            change_id: None,
            undoes: None,
            data: data.to_owned(),
        }
    }

    fn created(version: i64) -> StoredEvent {
        stored(version, "TaskCreated", r#"{"title":"t","priority":"medium","tags":[]}"#)
    }

    fn folded(events: &[StoredEvent]) -> Option<TaskRow> {
        let mut row = None;
        for event in events {
            fold(&mut row, event).unwrap();
        }
        row
    }

    fn refused(given: &[StoredEvent], event: &StoredEvent) -> FoldError {
        let mut row = folded(given);
        let before = row.clone();
        let error = fold(&mut row, event).unwrap_err();
        assert_eq!(row, before, "a refused event leaves the row as it was");
        error
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(refused(&[], &created(2)), FoldError::Gap { expected: 1, found: 2 });
        let started = stored(1, "TaskStarted", "{}");
        assert_eq!(refused(&[], &started), FoldError::NotCreated { event_type: "TaskStarted".to_owned() });
        assert_eq!(refused(&[created(1)], &created(2)), FoldError::CreatedTwice);
        let deleted = [created(1), stored(2, "TaskDeleted", "{}")];
        assert_eq!(refused(&deleted, &stored(3, "TaskStarted", "{}")), FoldError::AfterDeletion);
        let mut blanked = folded(&deleted);
        blanked.as_mut().unwrap().task.title.clear();
        assert_eq!(fold(&mut blanked, &stored(3, "TaskRestored", "{}")), Err(FoldError::Blanked));
        assert!(matches!(refused(&[created(1)], &stored(2, "TaskPainted", "{}")), FoldError::Unreadable(_)));
        assert!(matches!(refused(&[created(1)], &stored(2, "TaskRenamed", "{}")), FoldError::Unreadable(_)));
        let nul = stored(2, "TaskRenamed", r#"{"title":"a\u0000b"}"#);
        assert!(matches!(refused(&[created(1)], &nul), FoldError::Unreadable(_)), "Postgres cannot store it");
    }

    #[test]
    fn a_deleted_task_keeps_what_it_was() {
        let events = [
            stored(1, "TaskCreated", r#"{"title":"t","description":"d","priority":"high","tags":["x"]}"#),
            stored(2, "TaskCompleted", "{}"),
            stored(3, "TaskDeleted", "{}"),
            stored(4, "TaskRestored", "{}"),
        ];
        let (before, deleted) = (folded(&events[..2]).unwrap(), folded(&events[..3]).unwrap());
        let moved = |version: i64, deleted| {
            let updated_at = events[version as usize - 1].occurred_at;
            let task = Task { version, updated_at, ..before.task.clone() };
            TaskRow { position: version * 10, deleted, task, ..before.clone() }
        };
        assert_eq!(deleted, moved(3, true));
        assert_eq!(folded(&events).unwrap(), moved(4, false));
    }

    #[test]
    fn a_task_that_is_purged_is_blank() {
        let events = [
            stored(1, "TaskCreated", r#"{"title":"t","description":"d","priority":"high","tags":["x"]}"#),
            stored(2, "TaskCompleted", "{}"),
            stored(3, "TaskDeleted", "{}"),
            stored(4, "TaskPurged", "{}"),
        ];
        let row = folded(&events).unwrap();
        let (id, created_at) = (row.task.id, events[0].occurred_at);
        let left = Task {
            version: 4,
            status: Status::Completed,
            updated_at: events[3].occurred_at,
            completed_at: Some(events[1].occurred_at),
            ..Task::blank(id, created_at)
        };
        assert_eq!((row.deleted, row.task), (true, left));
        assert_eq!(refused(&events, &stored(5, "TaskRestored", "{}")), FoldError::Blanked);
        assert_eq!(refused(&events[..2], &stored(3, "TaskPurged", "{}")), FoldError::NotDeleted);
    }

    #[test]
    fn a_stage_is_reverted_with_its_times() {
        let row = folded(&[
            created(1),
            stored(2, "TaskStarted", "{}"),
            stored(3, "TaskCompleted", "{}"),
            stored(
                4,
                "TaskStageReverted",
                r#"{"from":"completed","to":"in_progress","started_at":"1970-01-01T14:00:00Z","completed_at":null}"#,
            ),
        ]);
        let task = row.unwrap().task;
        assert_eq!(
            (task.status, task.started_at),
            (Status::InProgress, domain::parse_time("1970-01-01T14:00:00Z").ok())
        );
        assert_eq!(task.completed_at, None);
    }

    #[test]
    fn the_changes_say_from_and_to() {
        let mut row = None;
        let first = stored(1, "TaskCreated", r#"{"title":"t","priority":"high","tags":["b","a"]}"#);
        assert_eq!(
            fold(&mut row, &first).unwrap().unwrap().to_json(),
            r#"{"title":{"from":null,"to":"t"},"status":{"from":null,"to":"pending"},"priority":{"from":null,"to":"high"},"tags":{"from":[],"to":["a","b"]}}"#
        );
        let completed = stored(2, "TaskCompleted", "{}");
        assert_eq!(
            fold(&mut row, &completed).unwrap().unwrap().to_json(),
            r#"{"status":{"from":"pending","to":"completed"},"completed_at":{"from":null,"to":"1970-01-01T14:00:00Z"}}"#
        );
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-cÄ]{1,3}"
    }

    fn tags() -> impl Strategy<Value = BTreeSet<Tag>> {
        prop::collection::btree_set("[a-e]".prop_map(|tag| Tag::parse(&tag).unwrap()), 0..4)
    }

    fn priority() -> impl Strategy<Value = Priority> {
        prop::sample::select(Priority::ALL)
    }

    fn command() -> impl Strategy<Value = TaskCommand> {
        let due = prop::option::of((0_i64..5).prop_map(|day| Time::UNIX_EPOCH + chrono::TimeDelta::days(day)));
        let description = || prop::option::of(text().prop_map(|text| domain::Description::parse(&text).unwrap()));
        let rank = || prop::option::of("[a-c]{1,2}".prop_map(|rank| domain::Rank::parse(&rank).unwrap()));
        let patch = (
            prop::option::of(text().prop_map(|text| Title::parse(&text).unwrap())),
            prop::option::of(description()),
            prop::option::of(priority()),
            prop::option::of(due.clone()),
            prop::option::of(tags()),
            prop::option::of(rank()),
        )
            .prop_map(|(title, description, priority, due_at, tags, rank)| {
                TaskCommand::Patch(Box::new(TaskPatch { title, description, priority, due_at, tags, rank }))
            });
        let create = (text(), description(), priority(), due, tags(), rank()).prop_map(
            |(title, description, priority, due_at, tags, rank)| {
                let title = Title::parse(&title).unwrap();
                TaskCommand::Create(Box::new(NewTask { title, description, priority, due_at, tags, rank }))
            },
        );
        prop_oneof![
            4 => patch,
            2 => create,
            2 => tags().prop_map(TaskCommand::Tag),
            2 => tags().prop_map(TaskCommand::Untag),
            3 => Just(TaskCommand::Start),
            3 => Just(TaskCommand::Complete),
            3 => Just(TaskCommand::Reopen),
            2 => Just(TaskCommand::Cancel),
            1 => Just(TaskCommand::Delete),
            1 => Just(TaskCommand::Purge),
        ]
    }

    /// A stream that the domain has decided.
    fn stream() -> impl Strategy<Value = Vec<StoredEvent>> {
        prop::collection::vec(command(), 1..40).prop_map(|commands| {
            let mut state = State::default();
            let mut events = Vec::new();
            for command in commands {
                for event in decide(&state, &command).unwrap_or_default() {
                    state = evolve(state, &event);
                    let (event_type, schema_version, data) = encode(&event);
                    let version = i64::try_from(events.len()).unwrap() + 1;
                    events.push(StoredEvent { schema_version, ..stored(version, event_type, &data) });
                }
            }
            events
        })
    }

    /// The fields of a row as the API shows them, but for those that no change names.
    fn shown(row: &Task) -> Value {
        json!({
            "title": row.title,
            "description": row.description,
            "status": row.status.as_str(),
            "priority": row.priority.as_str(),
            "due_at": row.due_at.map(format_time),
            "tags": row.tags,
            "rank": row.rank,
            "started_at": row.started_at.map(format_time),
            "completed_at": row.completed_at.map(format_time),
        })
    }

    proptest! {
        #[test]
        fn the_row_says_what_the_domain_says(events in stream()) {
            let mut state = State::default();
            let mut row = None;
            for event in &events {
                state = evolve(state, &event.decode().unwrap());
                prop_assert!(matches!(fold(&mut row, event), Ok(Some(_))));
                let TaskRow { deleted, task: row, .. } = row.as_ref().unwrap();
                prop_assert_eq!(row.version, event.version);
                prop_assert_eq!(row.updated_at, event.occurred_at);
                prop_assert_eq!(state.status(), (!deleted).then_some(row.status));
                prop_assert_eq!(row.completed_at.is_some(), row.status == Status::Completed);
                if !deleted {
                    // creating it again with what the row says is the same task, or the row is wrong
                    let patch = TaskPatch {
                        title: Some(Title::parse(&row.title).unwrap()),
                        description: Some(row.description.as_deref().map(|text| domain::Description::parse(text).unwrap())),
                        priority: Some(row.priority),
                        due_at: Some(row.due_at),
                        tags: Some(row.tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect()),
                        rank: Some(row.rank.as_deref().map(|rank| domain::Rank::parse(rank).unwrap())),
                    };
                    prop_assert_eq!(decide(&state, &TaskCommand::Patch(Box::new(patch))), Ok(Vec::new()));
                }
            }
        }

        #[test]
        fn the_changes_lead_from_each_row_to_the_next(events in stream()) {
            let mut row = None;
            let mut fields = shown(&Task::blank(Uuid::nil(), Time::UNIX_EPOCH));
            for name in ["title", "status", "priority"] {
                fields[name] = Value::Null;
            }
            for event in &events {
                let changes = fold(&mut row, event).unwrap().unwrap().to_json();
                let changes: Map<String, Value> = serde_json::from_str(&changes).unwrap();
                for (name, change) in changes {
                    prop_assert_eq!(&fields[&name], &change["from"], "{} of {}", name, event.event_type);
                    prop_assert_ne!(&change["from"], &change["to"]);
                    fields[&name] = change["to"].clone();
                }
                let row = row.as_ref().unwrap();
                if !row.deleted {
                    prop_assert_eq!(&fields, &shown(&row.task));
                }
            }
        }

        /// What query-api folds out of the history is what the projector folds out of the log.
        #[test]
        fn the_history_folds_to_the_same_task(events in stream()) {
            let mut row = None;
            let began = events.first().map_or(Time::UNIX_EPOCH, |event| event.occurred_at);
            let mut task = Task::blank(Uuid::from_u128(2), began);
            for event in &events {
                let kept = fold(&mut row, event).unwrap().unwrap().to_json();
                task.apply(event.version, event.occurred_at, &FieldChanges::from_json(&kept).unwrap());
                let row = row.as_ref().unwrap();
                if !row.deleted {
                    prop_assert_eq!(&task, &row.task);
                }
            }
        }

        #[test]
        fn folding_a_prefix_again_changes_nothing(events in stream(), again in 0_usize..40) {
            let mut row = folded(&events);
            let whole = row.clone();
            for event in events.iter().take(again) {
                prop_assert_eq!(fold(&mut row, event), Ok(None));
            }
            prop_assert_eq!(row, whole);
        }
    }
}
