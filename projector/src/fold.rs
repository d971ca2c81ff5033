//! The fold: what an event makes of a task's row, and what it says in the history.
//!
//! Pure and synchronous: rows in, rows out. [`crate::batch`] and [`crate::bulk`] both run it, so that a rebuild
//! can differ from the live generation only where one of them is wrong.

use domain::{OwnerId, Priority, Status, StoredEvent, TaskEvent, TaskId, Time, Unreadable, format_time};
use serde::Serialize;

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
    /// Its text could not stand in the tables: a NUL, or a tag that no tag can be. (Whoever appends refuses these.)
    #[error("the {0} cannot be stored")]
    NotStorable(&'static str),
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
    check_storable(&event)?;
    let mut changes = Changes::default();
    match (row.as_mut(), event) {
        (Some(TaskRow { deleted: true, .. }), _) => return Err(FoldError::AfterDeletion),
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

fn check_storable(event: &TaskEvent) -> Result<(), FoldError> {
    // Tags are indexed: Postgres takes no more than a third of a page there.
    const TAG_BYTES_MAX: usize = 1_000;
    let (title, description, tags) = match event {
        TaskEvent::TaskCreated { title, description, tags, .. } => (Some(title), description.as_ref(), Some(tags)),
        TaskEvent::TaskRenamed { title } => (Some(title), None, None),
        TaskEvent::TaskDescribed { description } => (None, description.as_ref(), None),
        TaskEvent::TaskTagged { tags } => (None, None, Some(tags)),
        TaskEvent::TaskReprioritized { .. }
        | TaskEvent::TaskScheduled { .. }
        | TaskEvent::TaskUntagged { .. }
        | TaskEvent::TaskStarted {}
        | TaskEvent::TaskCompleted {}
        | TaskEvent::TaskReopened {}
        | TaskEvent::TaskCancelled {}
        | TaskEvent::TaskDeleted {} => return Ok(()),
    };
    if title.is_some_and(|title| title.as_str().contains('\0')) {
        return Err(FoldError::NotStorable("title"));
    }
    if description.is_some_and(|description| description.as_str().contains('\0')) {
        return Err(FoldError::NotStorable("description"));
    }
    let is_bad = |tag: &str| tag.len() > TAG_BYTES_MAX || tag.contains(char::is_control);
    if tags.is_some_and(|tags| tags.iter().any(|tag| is_bad(tag.as_str()))) {
        return Err(FoldError::NotStorable("tags"));
    }
    Ok(())
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use domain::{NewTask, State, Tag, TaskCommand, TaskPatch, Title, decide, encode, evolve};
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};
    use uuid::Uuid;

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
        assert!(matches!(refused(&[created(1)], &stored(2, "TaskPainted", "{}")), FoldError::Unreadable(_)));
        assert!(matches!(refused(&[created(1)], &stored(2, "TaskRenamed", "{}")), FoldError::Unreadable(_)));
        let nul = stored(2, "TaskRenamed", r#"{"title":"a\u0000b"}"#);
        assert_eq!(refused(&[created(1)], &nul), FoldError::NotStorable("title"));
    }

    #[test]
    fn a_deleted_task_is_an_empty_tombstone() {
        let row = folded(&[
            stored(1, "TaskCreated", r#"{"title":"t","description":"d","priority":"high","tags":["x"]}"#),
            stored(2, "TaskCompleted", "{}"),
            stored(3, "TaskDeleted", "{}"),
        ])
        .unwrap();
        assert!(row.deleted && row.title.is_empty() && row.description.is_none() && row.tags.is_empty());
        assert_eq!((row.version, row.position), (3, 30));
    }

    #[test]
    fn the_changes_say_from_and_to() {
        let mut row = None;
        let first = stored(1, "TaskCreated", r#"{"title":"t","priority":"high","tags":["b","a"]}"#);
        let Folded::Applied(changes) = fold(&mut row, &first).unwrap() else { panic!("skipped") };
        assert_eq!(
            changes,
            r#"{"title":{"from":null,"to":"t"},"status":{"from":null,"to":"pending"},"priority":{"from":null,"to":"high"},"tags":{"from":[],"to":["a","b"]}}"#
        );
        let Folded::Applied(changes) = fold(&mut row, &stored(2, "TaskCompleted", "{}")).unwrap() else {
            panic!("skipped")
        };
        assert_eq!(
            changes,
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
        let patch = (
            prop::option::of(text().prop_map(|text| Title::parse(&text).unwrap())),
            prop::option::of(description()),
            prop::option::of(priority()),
            prop::option::of(due.clone()),
            prop::option::of(tags()),
        )
            .prop_map(|(title, description, priority, due_at, tags)| {
                TaskCommand::Patch(Box::new(TaskPatch { title, description, priority, due_at, tags }))
            });
        let create = (text(), description(), priority(), due, tags()).prop_map(
            |(title, description, priority, due_at, tags)| {
                let title = Title::parse(&title).unwrap();
                TaskCommand::Create(Box::new(NewTask { title, description, priority, due_at, tags }))
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
        ]
    }

    /// A stream that the domain has decided.
    pub(crate) fn stream() -> impl Strategy<Value = Vec<StoredEvent>> {
        prop::collection::vec(command(), 1..40).prop_map(|commands| {
            let mut state = State::default();
            let mut events = Vec::new();
            for command in commands {
                for event in decide(&state, &command).unwrap_or_default() {
                    state = evolve(state, &event);
                    let (event_type, _, data) = encode(&event);
                    events.push(stored(i64::try_from(events.len()).unwrap() + 1, event_type, &data));
                }
            }
            events
        })
    }

    /// The fields of a row as the API shows them, but for those that no change names.
    fn shown(row: &TaskRow) -> Value {
        json!({
            "title": row.title,
            "description": row.description,
            "status": row.status.as_str(),
            "priority": row.priority.as_str(),
            "due_at": row.due_at.map(format_time),
            "tags": row.tags,
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
                prop_assert!(matches!(fold(&mut row, event), Ok(Folded::Applied(_))));
                let row = row.as_ref().unwrap();
                prop_assert_eq!(row.version, event.version);
                prop_assert_eq!(row.updated_at, event.occurred_at);
                prop_assert_eq!(state.status(), (!row.deleted).then_some(row.status));
                prop_assert_eq!(row.completed_at.is_some(), row.status == Status::Completed);
                if !row.deleted {
                    // creating it again with what the row says is the same task, or the row is wrong
                    let patch = TaskPatch {
                        title: Some(Title::parse(&row.title).unwrap()),
                        description: Some(row.description.as_deref().map(|text| domain::Description::parse(text).unwrap())),
                        priority: Some(row.priority),
                        due_at: Some(row.due_at),
                        tags: Some(row.tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect()),
                    };
                    prop_assert_eq!(decide(&state, &TaskCommand::Patch(Box::new(patch))), Ok(Vec::new()));
                }
            }
        }

        #[test]
        fn the_changes_lead_from_each_row_to_the_next(events in stream()) {
            let mut row = None;
            let mut fields = shown(&TaskRow {
                owner_id: OwnerId(Uuid::nil()), task_id: TaskId(Uuid::nil()), position: 0, version: 0, deleted: false,
                status: Status::Pending, priority: Priority::Low, title: String::new(), description: None,
                tags: Vec::new(), due_at: None, created_at: Time::UNIX_EPOCH, updated_at: Time::UNIX_EPOCH,
                started_at: None, completed_at: None,
            });
            for name in ["title", "status", "priority"] {
                fields[name] = Value::Null;
            }
            for event in &events {
                let Folded::Applied(changes) = fold(&mut row, event).unwrap() else { panic!("skipped") };
                let changes: Map<String, Value> = serde_json::from_str(&changes).unwrap();
                for (name, change) in changes {
                    prop_assert_eq!(&fields[&name], &change["from"], "{} of {}", name, event.event_type);
                    prop_assert_ne!(&change["from"], &change["to"]);
                    fields[&name] = change["to"].clone();
                }
                let row = row.as_ref().unwrap();
                if !row.deleted {
                    prop_assert_eq!(&fields, &shown(row));
                }
            }
        }

        #[test]
        fn folding_a_prefix_again_changes_nothing(events in stream(), again in 0_usize..40) {
            let mut row = folded(&events);
            let whole = row.clone();
            for event in events.iter().take(again) {
                prop_assert_eq!(fold(&mut row, event), Ok(Folded::Skipped));
            }
            prop_assert_eq!(row, whole);
        }
    }
}
