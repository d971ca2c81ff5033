//! The Decider of a task: `decide` may refuse, `evolve` never fails.

use chrono::TimeDelta;

use crate::command::{NewTask, TaskCommand, TaskPatch};
use crate::event::TaskEvent;
use crate::values::{Status, TAGS_MAX, Tags, Time, format_time};

/// How long a deleted task can be restored, in days from its deletion.
pub const RESTORABLE_DAYS: i64 = 30;

/// Where a stream stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum State {
    /// No event yet.
    #[default]
    Missing,
    /// Created or reopened.
    Pending(Content),
    /// Started.
    InProgress(Content),
    /// Completed.
    Completed(Content),
    /// Cancelled.
    Cancelled(Content),
    /// Deleted, and what it was until then.
    Deleted(Box<Self>),
    /// Deleted so long ago that what it was is gone.
    Purged,
}

/// What a living task holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    current: NewTask,
    /// What it was created with, once that is no longer the current content.
    original: Option<Box<NewTask>>,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such task, or it was deleted: the two look the same.
    #[error("There is no such task.")]
    NotFound,
    /// The task was purged.
    #[error("The task was deleted more than {RESTORABLE_DAYS} days ago and is purged: what it was is gone.")]
    Purged,
    /// The id is taken by a task with other content, or by a deleted one.
    #[error("A task with this id exists already, with other content, or was deleted.")]
    IdTaken,
    /// The lifecycle has no such step.
    #[error("A task that is {} cannot be {asked}.", from.as_str().replace('_', " "))]
    NotFrom {
        /// Where the task stands.
        from: Status,
        /// What was asked for, as a participle.
        asked: &'static str,
    },
    /// More than [`TAGS_MAX`] tags.
    #[error("A task has at most {TAGS_MAX} tags.")]
    TooManyTags,
    /// A later change that stands has changed the same.
    #[error("A later change has changed the same, or the task is deleted.")]
    ChangedSince,
    /// The change is undone, as far as it touched this task.
    #[error("The change is undone already.")]
    UndoneAlready,
    /// `occurred_at` lies in the future by more than a minute.
    #[error("occurred_at lies in the future.")]
    OccursInFuture,
    /// `occurred_at` lies before the task's previous event.
    #[error("occurred_at lies before the task's previous event, at {}.", format_time(*.previous))]
    OccursBeforePrevious {
        /// When the previous event happened.
        previous: Time,
    },
}

impl State {
    fn living(&self) -> Option<(Status, &Content)> {
        match self {
            Self::Missing | Self::Deleted(_) | Self::Purged => None,
            Self::Pending(content) => Some((Status::Pending, content)),
            Self::InProgress(content) => Some((Status::InProgress, content)),
            Self::Completed(content) => Some((Status::Completed, content)),
            Self::Cancelled(content) => Some((Status::Cancelled, content)),
        }
    }

    /// Its status; none where there is no task, or none any more.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.living().map(|(status, _)| status)
    }

    /// What the task is now, as if it had been created so; none where there is no task, or none any more.
    #[must_use]
    pub fn content(&self) -> Option<&NewTask> {
        self.living().map(|(_, content)| &content.current)
    }

    /// Roughly how much memory it holds beyond its own size, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        fn bytes(task: &NewTask) -> usize {
            task.title.as_str().len()
                + task.description.as_ref().map_or(0, |text| text.as_str().len())
                + task.rank.as_ref().map_or(0, |rank| rank.as_str().len())
                + task.tags.iter().map(|tag| tag.as_str().len() + 32).sum::<usize>()
        }
        if let Self::Deleted(before) = self {
            return size_of::<Self>() + before.heap_bytes();
        }
        self.living().map_or(0, |(_, content)| {
            bytes(&content.current)
                + content.original.as_ref().map_or(0, |original| bytes(original) + size_of::<NewTask>())
        })
    }
}

/// When a command's events happen: as asked, or now, and never before the stream's previous event.
///
/// # Errors
/// Asked for a time more than a minute in the future, or before the previous event.
pub fn occurred_at(asked: Option<Time>, now: Time, previous: Option<Time>) -> Result<Time, Refusal> {
    match (asked, previous) {
        (Some(asked), _) if asked > now + TimeDelta::minutes(1) => Err(Refusal::OccursInFuture),
        (Some(asked), Some(previous)) if asked < previous => Err(Refusal::OccursBeforePrevious { previous }),
        (Some(asked), _) => Ok(asked),
        (None, previous) => Ok(previous.map_or(now, |previous| now.max(previous))),
    }
}

/// The one event that a command makes where all that it says is new: what an export writes the event as. None for a patch
/// of anything but one field, and of tags.
#[must_use]
pub fn event_of(command: &TaskCommand) -> Option<TaskEvent> {
    Some(match command {
        TaskCommand::Create(new) => created(new),
        TaskCommand::Patch(patch) => {
            let TaskPatch { title, description, priority, due_at, tags, rank } = patch.as_ref().clone();
            let mut events = [
                title.map(|title| TaskEvent::TaskRenamed { title }),
                description.map(|description| TaskEvent::TaskDescribed { description }),
                priority.map(|priority| TaskEvent::TaskReprioritized { priority }),
                due_at.map(|due_at| TaskEvent::TaskScheduled { due_at }),
                rank.map(|rank| TaskEvent::TaskRanked { rank }),
            ]
            .into_iter()
            .flatten();
            match (events.next(), events.next(), tags) {
                (Some(event), None, None) => event,
                _ => return None,
            }
        }
        TaskCommand::Tag(tags) => TaskEvent::TaskTagged { tags: tags.clone() },
        TaskCommand::Untag(tags) => TaskEvent::TaskUntagged { tags: tags.clone() },
        TaskCommand::Start => TaskEvent::TaskStarted {},
        TaskCommand::Complete => TaskEvent::TaskCompleted {},
        TaskCommand::Reopen => TaskEvent::TaskReopened {},
        TaskCommand::Cancel => TaskEvent::TaskCancelled {},
        TaskCommand::RevertStage { from, to, started_at, completed_at } => {
            TaskEvent::TaskStageReverted { from: *from, to: *to, started_at: *started_at, completed_at: *completed_at }
        }
        TaskCommand::Delete => TaskEvent::TaskDeleted {},
        TaskCommand::Restore => TaskEvent::TaskRestored {},
        TaskCommand::Purge => TaskEvent::TaskPurged {},
    })
}

/// Decides a command. No event: the task is already as it was asked to be.
///
/// # Errors
/// The rule that the command breaks.
pub fn decide(state: &State, command: &TaskCommand) -> Result<Vec<TaskEvent>, Refusal> {
    match (command, state) {
        (TaskCommand::Create(new), State::Missing) if new.tags.len() > TAGS_MAX => Err(Refusal::TooManyTags),
        (TaskCommand::Create(new), State::Missing) => Ok(vec![created(new)]),
        (TaskCommand::Create(_), State::Deleted(_) | State::Purged) => Err(Refusal::IdTaken),
        (TaskCommand::Delete, State::Deleted(_) | State::Purged) => Ok(vec![]),
        (TaskCommand::Restore, State::Deleted(_)) => Ok(vec![TaskEvent::TaskRestored {}]),
        (TaskCommand::Restore, State::Purged) => Err(Refusal::Purged),
        (TaskCommand::Purge, State::Deleted(_)) => Ok(vec![TaskEvent::TaskPurged {}]),
        (TaskCommand::Purge, State::Purged) => Ok(vec![]),
        (command, state) => {
            let (status, content) = state.living().ok_or(Refusal::NotFound)?;
            decide_living(status, content, command)
        }
    }
}

fn decide_living(status: Status, content: &Content, command: &TaskCommand) -> Result<Vec<TaskEvent>, Refusal> {
    use Status::{Cancelled, Completed, InProgress, Pending};
    let step = |event| Ok(vec![event]);
    let refuse = |asked| Err(Refusal::NotFrom { from: status, asked });
    match command {
        TaskCommand::Create(new) => {
            let original = content.original.as_deref().unwrap_or(&content.current);
            if **new == *original { Ok(vec![]) } else { Err(Refusal::IdTaken) }
        }
        TaskCommand::Patch(patch) => patched(&content.current, patch),
        TaskCommand::Tag(tags) => retagged(&content.current.tags, &content.current.tags | tags),
        TaskCommand::Untag(tags) => retagged(&content.current.tags, &content.current.tags - tags),
        TaskCommand::Start => match status {
            Pending => step(TaskEvent::TaskStarted {}),
            InProgress => Ok(vec![]),
            Completed | Cancelled => refuse("started"),
        },
        TaskCommand::Complete => match status {
            Pending | InProgress => step(TaskEvent::TaskCompleted {}),
            Completed => Ok(vec![]),
            Cancelled => refuse("completed"),
        },
        TaskCommand::Cancel => match status {
            Pending | InProgress => step(TaskEvent::TaskCancelled {}),
            Cancelled => Ok(vec![]),
            Completed => refuse("cancelled"),
        },
        TaskCommand::Reopen => match status {
            Completed | Cancelled => step(TaskEvent::TaskReopened {}),
            Pending => Ok(vec![]),
            InProgress => refuse("reopened"),
        },
        TaskCommand::RevertStage { from, to, started_at, completed_at } => match status {
            status if status == *from => step(TaskEvent::TaskStageReverted {
                from: *from,
                to: *to,
                started_at: *started_at,
                completed_at: *completed_at,
            }),
            status if status == *to => Ok(vec![]),
            Pending | InProgress | Completed | Cancelled => refuse("reverted"),
        },
        TaskCommand::Delete => step(TaskEvent::TaskDeleted {}),
        TaskCommand::Restore => Ok(vec![]),
        TaskCommand::Purge => refuse("purged"),
    }
}

fn created(new: &NewTask) -> TaskEvent {
    let NewTask { title, description, priority, due_at, tags, rank } = new.clone();
    TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank }
}

fn patched(current: &NewTask, patch: &TaskPatch) -> Result<Vec<TaskEvent>, Refusal> {
    let TaskPatch { title, description, priority, due_at, tags, rank } = patch.clone();
    let mut events = Vec::new();
    if let Some(title) = title.filter(|title| *title != current.title) {
        events.push(TaskEvent::TaskRenamed { title });
    }
    if let Some(description) = description.filter(|description| *description != current.description) {
        events.push(TaskEvent::TaskDescribed { description });
    }
    if let Some(priority) = priority.filter(|priority| *priority != current.priority) {
        events.push(TaskEvent::TaskReprioritized { priority });
    }
    if let Some(due_at) = due_at.filter(|due_at| *due_at != current.due_at) {
        events.push(TaskEvent::TaskScheduled { due_at });
    }
    if let Some(rank) = rank.filter(|rank| *rank != current.rank) {
        events.push(TaskEvent::TaskRanked { rank });
    }
    if let Some(tags) = tags {
        events.extend(retagged(&current.tags, tags)?);
    }
    Ok(events)
}

/// Removal first, so that no state on the way has more tags than a task may have.
fn retagged(current: &Tags, wanted: Tags) -> Result<Vec<TaskEvent>, Refusal> {
    if wanted.len() > TAGS_MAX {
        return Err(Refusal::TooManyTags);
    }
    let mut events = Vec::new();
    let removed = current - &wanted;
    if !removed.is_empty() {
        events.push(TaskEvent::TaskUntagged { tags: removed });
    }
    let added = &wanted - current;
    if !added.is_empty() {
        events.push(TaskEvent::TaskTagged { tags: added });
    }
    Ok(events)
}

/// The state after an event. An event that does not fit changes nothing: what is stored has happened.
#[must_use]
pub fn evolve(state: State, event: &TaskEvent) -> State {
    match (event, state) {
        (TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank }, State::Missing) => {
            let current = NewTask {
                title: title.clone(),
                description: description.clone(),
                priority: *priority,
                due_at: *due_at,
                tags: tags.clone(),
                rank: rank.clone(),
            };
            State::Pending(Content { current, original: None })
        }
        (TaskEvent::TaskRestored {}, State::Deleted(before)) => *before,
        (TaskEvent::TaskPurged {}, State::Deleted(_)) => State::Purged,
        (_, state @ (State::Missing | State::Deleted(_) | State::Purged)) => state,
        (TaskEvent::TaskDeleted {}, state) => State::Deleted(Box::new(state)),
        (event, State::Pending(content)) => evolve_living(State::Pending, content, event),
        (event, State::InProgress(content)) => evolve_living(State::InProgress, content, event),
        (event, State::Completed(content)) => evolve_living(State::Completed, content, event),
        (event, State::Cancelled(content)) => evolve_living(State::Cancelled, content, event),
    }
}

fn evolve_living(stage: fn(Content) -> State, mut content: Content, event: &TaskEvent) -> State {
    match event {
        TaskEvent::TaskCreated { .. }
        | TaskEvent::TaskDeleted {}
        | TaskEvent::TaskRestored {}
        | TaskEvent::TaskPurged {} => {}
        TaskEvent::TaskStarted {} => return State::InProgress(content),
        TaskEvent::TaskCompleted {} => return State::Completed(content),
        TaskEvent::TaskReopened {} => return State::Pending(content),
        TaskEvent::TaskCancelled {} => return State::Cancelled(content),
        TaskEvent::TaskStageReverted { to, .. } => {
            return match to {
                Status::Pending => State::Pending(content),
                Status::InProgress => State::InProgress(content),
                Status::Completed => State::Completed(content),
                Status::Cancelled => State::Cancelled(content),
            };
        }
        TaskEvent::TaskRenamed { title } => content.change().title = title.clone(),
        TaskEvent::TaskDescribed { description } => content.change().description = description.clone(),
        TaskEvent::TaskReprioritized { priority } => content.change().priority = *priority,
        TaskEvent::TaskScheduled { due_at } => content.change().due_at = *due_at,
        TaskEvent::TaskRanked { rank } => content.change().rank.clone_from(rank),
        TaskEvent::TaskTagged { tags } => content.change().tags.extend(tags.iter().cloned()),
        TaskEvent::TaskUntagged { tags } => content.change().tags.retain(|tag| !tags.contains(tag)),
    }
    stage(content)
}

impl Content {
    /// The current content, to be changed: the original is put aside before the first change.
    fn change(&mut self) -> &mut NewTask {
        if self.original.is_none() {
            self.original = Some(Box::new(self.current.clone()));
        }
        &mut self.current
    }
}
