//! Undo: a change is reverted, task by task, by events of its own. Decided from the task's whole history.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::mem::discriminant;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::event::TaskEvent;
use crate::task::{RESTORABLE_DAYS, Refusal};
use crate::values::{Description, Priority, Rank, Status, TAGS_MAX, Tag, Tags, Time, Title};

/// Whether a task that was deleted at a time can still be restored.
#[must_use]
pub fn is_restorable(deleted_at: Time, now: Time) -> bool {
    now - deleted_at <= TimeDelta::days(RESTORABLE_DAYS)
}

/// The latest undo that stands of each change, by the change. `undos` has each undo with what it undoes, the latest first:
/// so whether an undo stands is known before what it undoes is met.
#[must_use]
pub fn standing_undos(undos: impl IntoIterator<Item = (Uuid, Uuid)>) -> HashMap<Uuid, Uuid> {
    let mut undone_by = HashMap::new();
    for (undo, undoes) in undos {
        if !undone_by.contains_key(&undo) {
            undone_by.entry(undoes).or_insert(undo);
        }
    }
    undone_by
}

/// An event with what undo needs of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEvent {
    /// The change that it is of.
    pub change_id: Uuid,
    /// The change that it undoes.
    pub undoes: Option<Uuid>,
    /// When it happened.
    pub occurred_at: Time,
    /// What happened.
    pub event: TaskEvent,
}

/// The events that revert a task to what it was before a change: each field that the change touched, to what those
/// changes before it that stand have made of it. The undo of an undo does the change again, in the same way. A change that is
/// undone and not redone, and its undo, count as never made. No event: the task is so already.
///
/// # Errors
/// A later change that stands touched one of the same fields, or the task is deleted; the change is undone already; the
/// change did not touch the task, or that was deleted too long ago, or is purged; it would have too many tags.
pub fn undo(history: &[PastEvent], change_id: Uuid, now: Time) -> Result<Vec<TaskEvent>, Refusal> {
    let Some(first) = history.iter().position(|past| past.change_id == change_id) else {
        return Err(Refusal::NotFound);
    };
    if history.iter().any(|past| past.event == TaskEvent::TaskPurged {}) {
        return Err(Refusal::Purged);
    }
    let (undone_now, undone_then) = (undone(history, None), undone(history, Some(change_id)));
    if undone_now.contains(&change_id) {
        return Err(Refusal::UndoneAlready);
    }
    let (mut current, mut wanted) = (Snapshot::missing(), Snapshot::missing());
    let (mut of_change, mut later) = (HashSet::new(), HashSet::new());
    // Of each change that is under way: what it found, and what it touches.
    let mut begun: HashMap<Uuid, (Snapshot, HashSet<Field>)> = HashMap::new();
    let last: HashMap<Uuid, usize> = history.iter().enumerate().map(|(at, past)| (past.change_id, at)).collect();
    for (at, PastEvent { change_id: id, undoes, occurred_at, event }) in history.iter().enumerate() {
        let (_, touched) = begun.entry(*id).or_insert_with(|| (current.clone(), HashSet::new()));
        touched.extend(fields(event));
        current.apply(event, *occurred_at);
        if last.get(id) != Some(&at) {
            continue;
        }
        let Some((found, mut touched)) = begun.remove(id) else { continue };
        // What it has left as it found it, it has not changed.
        touched.retain(|field| !field.is_equal(&found, &current));
        if *id == change_id {
            of_change = touched;
        } else if at > first && undoes.is_none() && !undone_now.contains(id) {
            later.extend(touched);
        } else if at < first && undoes.is_none() && !undone_then.contains(id) {
            touched.iter().for_each(|field| wanted.set(field, &current));
        }
    }
    if !of_change.is_empty() && later.iter().any(|field| field.meets(&of_change)) {
        return Err(Refusal::ChangedSince);
    }
    revert(&current, &wanted, &of_change, now)
}

/// The changes that are undone, and not redone: as they are, or once this one is undone, too.
fn undone(history: &[PastEvent], and: Option<Uuid>) -> HashSet<Uuid> {
    let mut undone = HashSet::from_iter(and);
    // The latest first: whether an undo stands is known before what it undoes is met.
    for past in history.iter().rev() {
        if let Some(undoes) = past.undoes
            && !undone.contains(&past.change_id)
        {
            undone.insert(undoes);
        }
    }
    undone
}

/// What an event touches: one of these for each thing that can be reverted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Field {
    /// All of them: the task was created.
    Every,
    Existence,
    Title,
    Description,
    Priority,
    DueAt,
    Rank,
    Tag(Tag),
    /// Status, `started_at` and `completed_at`.
    Stage,
}

impl Field {
    fn meets(&self, others: &HashSet<Self>) -> bool {
        *self == Self::Every || others.contains(&Self::Every) || others.contains(self)
    }

    fn is_equal(&self, one: &Snapshot, other: &Snapshot) -> bool {
        match self {
            Self::Every => one == other,
            // When it was deleted makes no difference.
            Self::Existence => discriminant(&one.existence) == discriminant(&other.existence),
            Self::Title => one.title == other.title,
            Self::Description => one.description == other.description,
            Self::Priority => one.priority == other.priority,
            Self::DueAt => one.due_at == other.due_at,
            Self::Rank => one.rank == other.rank,
            Self::Tag(tag) => one.tags.contains(tag) == other.tags.contains(tag),
            Self::Stage => one.stage == other.stage,
        }
    }
}

fn fields(event: &TaskEvent) -> Vec<Field> {
    match event {
        TaskEvent::TaskCreated { .. } => vec![Field::Every],
        TaskEvent::TaskRenamed { .. } => vec![Field::Title],
        TaskEvent::TaskDescribed { .. } => vec![Field::Description],
        TaskEvent::TaskReprioritized { .. } => vec![Field::Priority],
        TaskEvent::TaskScheduled { .. } => vec![Field::DueAt],
        TaskEvent::TaskRanked { .. } => vec![Field::Rank],
        TaskEvent::TaskTagged { tags } | TaskEvent::TaskUntagged { tags } => {
            tags.iter().cloned().map(Field::Tag).collect()
        }
        TaskEvent::TaskStarted {}
        | TaskEvent::TaskCompleted {}
        | TaskEvent::TaskReopened {}
        | TaskEvent::TaskCancelled {}
        | TaskEvent::TaskStageReverted { .. } => vec![Field::Stage],
        TaskEvent::TaskDeleted {} | TaskEvent::TaskRestored {} | TaskEvent::TaskPurged {} => vec![Field::Existence],
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    /// Not created: its creation counts as never made.
    Missing,
    Living,
    Deleted(Time),
}

/// A task as events have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    existence: Existence,
    title: Option<Title>,
    description: Option<Description>,
    priority: Priority,
    due_at: Option<Time>,
    rank: Option<Rank>,
    tags: Tags,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stage {
    status: Status,
    started_at: Option<Time>,
    completed_at: Option<Time>,
}

impl Snapshot {
    const fn missing() -> Self {
        Self {
            existence: Existence::Missing,
            title: None,
            description: None,
            priority: Priority::Medium,
            due_at: None,
            rank: None,
            tags: Tags::new(),
            stage: Stage { status: Status::Pending, started_at: None, completed_at: None },
        }
    }

    /// Takes a field from another.
    fn set(&mut self, field: &Field, from: &Self) {
        match field {
            Field::Every => *self = from.clone(),
            Field::Existence => self.existence = from.existence,
            Field::Title => self.title.clone_from(&from.title),
            Field::Description => self.description.clone_from(&from.description),
            Field::Priority => self.priority = from.priority,
            Field::DueAt => self.due_at = from.due_at,
            Field::Rank => self.rank.clone_from(&from.rank),
            Field::Tag(tag) if from.tags.contains(tag) => _ = self.tags.insert(tag.clone()),
            Field::Tag(tag) => _ = self.tags.remove(tag),
            Field::Stage => self.stage = from.stage,
        }
    }

    fn apply(&mut self, event: &TaskEvent, at: Time) {
        match event {
            TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank } => {
                self.existence = Existence::Living;
                self.title = Some(title.clone());
                self.description.clone_from(description);
                self.priority = *priority;
                self.due_at = *due_at;
                self.tags.clone_from(tags);
                self.rank.clone_from(rank);
            }
            TaskEvent::TaskRenamed { title } => self.title = Some(title.clone()),
            TaskEvent::TaskDescribed { description } => self.description.clone_from(description),
            TaskEvent::TaskReprioritized { priority } => self.priority = *priority,
            TaskEvent::TaskScheduled { due_at } => self.due_at = *due_at,
            TaskEvent::TaskRanked { rank } => self.rank.clone_from(rank),
            TaskEvent::TaskTagged { tags } => self.tags.extend(tags.iter().cloned()),
            TaskEvent::TaskUntagged { tags } => self.tags.retain(|tag| !tags.contains(tag)),
            TaskEvent::TaskStarted {} => self.step(Status::InProgress, Some(at), None),
            TaskEvent::TaskCompleted {} => self.step(Status::Completed, self.stage.started_at, Some(at)),
            TaskEvent::TaskReopened {} => self.step(Status::Pending, None, None),
            TaskEvent::TaskCancelled {} => self.step(Status::Cancelled, self.stage.started_at, None),
            TaskEvent::TaskStageReverted { to, started_at, completed_at, .. } => {
                self.step(*to, *started_at, *completed_at);
            }
            TaskEvent::TaskDeleted {} => self.existence = Existence::Deleted(at),
            TaskEvent::TaskRestored {} => self.existence = Existence::Living,
            TaskEvent::TaskPurged {} => {}
        }
    }

    fn step(&mut self, status: Status, started_at: Option<Time>, completed_at: Option<Time>) {
        self.stage = Stage { status, started_at, completed_at };
    }
}

/// The events that revert one state to the other, in the fields that were touched.
fn revert(
    current: &Snapshot,
    wanted: &Snapshot,
    touched: &HashSet<Field>,
    now: Time,
) -> Result<Vec<TaskEvent>, Refusal> {
    let is_touched = touched.contains(&Field::Every) || touched.contains(&Field::Existence);
    let fields = || revert_fields(current, wanted, touched);
    let restored = |deleted_at| match is_restorable(deleted_at, now) {
        true => Ok(TaskEvent::TaskRestored {}),
        false => Err(Refusal::NotFound),
    };
    Ok(match (current.existence, wanted.existence) {
        (Existence::Living, Existence::Missing) if is_touched => vec![TaskEvent::TaskDeleted {}],
        // What it is in the trash, too, is what it was.
        (Existence::Living, Existence::Deleted(_)) if is_touched => {
            fields()?.into_iter().chain([TaskEvent::TaskDeleted {}]).collect()
        }
        (Existence::Living, _) => fields()?,
        (Existence::Deleted(at), Existence::Living) if is_touched => {
            iter::once(restored(at)?).chain(fields()?).collect()
        }
        (Existence::Deleted(_), Existence::Living) => return Err(Refusal::ChangedSince),
        (Existence::Deleted(at), Existence::Deleted(_)) => match fields()? {
            fields if fields.is_empty() => fields,
            fields => iter::once(restored(at)?).chain(fields).chain([TaskEvent::TaskDeleted {}]).collect(),
        },
        (Existence::Deleted(_) | Existence::Missing, _) => Vec::new(),
    })
}

fn revert_fields(current: &Snapshot, wanted: &Snapshot, touched: &HashSet<Field>) -> Result<Vec<TaskEvent>, Refusal> {
    let is_touched = |field| touched.contains(&Field::Every) || touched.contains(&field);
    let mut events = Vec::new();
    if is_touched(Field::Title)
        && wanted.title != current.title
        && let Some(title) = wanted.title.clone()
    {
        events.push(TaskEvent::TaskRenamed { title });
    }
    if is_touched(Field::Description) && wanted.description != current.description {
        events.push(TaskEvent::TaskDescribed { description: wanted.description.clone() });
    }
    if is_touched(Field::Priority) && wanted.priority != current.priority {
        events.push(TaskEvent::TaskReprioritized { priority: wanted.priority });
    }
    if is_touched(Field::DueAt) && wanted.due_at != current.due_at {
        events.push(TaskEvent::TaskScheduled { due_at: wanted.due_at });
    }
    if is_touched(Field::Rank) && wanted.rank != current.rank {
        events.push(TaskEvent::TaskRanked { rank: wanted.rank.clone() });
    }
    let of_touched =
        |tags: Tags| -> Tags { tags.into_iter().filter(|tag| is_touched(Field::Tag(tag.clone()))).collect() };
    let removed = of_touched(&current.tags - &wanted.tags);
    let added = of_touched(&wanted.tags - &current.tags);
    if current.tags.len() - removed.len() + added.len() > TAGS_MAX {
        return Err(Refusal::TooManyTags);
    }
    if !removed.is_empty() {
        events.push(TaskEvent::TaskUntagged { tags: removed });
    }
    if !added.is_empty() {
        events.push(TaskEvent::TaskTagged { tags: added });
    }
    if is_touched(Field::Stage) && wanted.stage != current.stage {
        let Stage { status: to, started_at, completed_at } = wanted.stage;
        events.push(TaskEvent::TaskStageReverted { from: current.stage.status, to, started_at, completed_at });
    }
    Ok(events)
}
