//! An account's tasks from the log, stream by stream, in bounded memory.
//!
//! What is written is as the log stood when the export began. A deleted task is no task any more, and its content is
//! nobody's business: it is left out.
//!
//! A line is a command that makes one event. It carries the version that the event came after and the id of the command
//! that it came from, so that an import recognises what is there, in this account or in a copy of it.

use std::io::{self, Write};

use domain::{OwnerId, StoredEvent, TaskEvent, TaskId, Unreadable, encode, format_time};
use event_store::TailReader;
use read_model::{FoldError, TaskRow, fold};
use uuid::Uuid;

use crate::csv_row;
use crate::format::Format;
use crate::lines::BOM;

const PAGE_EVENTS_MAX: i64 = 2_000;
/// How many tasks are put in order at most: 32 bytes each.
pub const CHOSEN_TASKS_MAX: usize = 4_000_000;
/// A task's commands are held back until it is known that it was not deleted, up to so many bytes.
const HELD_BYTES_MAX: usize = 4 << 20;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tasks written.
    pub tasks: u64,
    /// Lines written: commands, or rows and the header.
    pub lines: u64,
}

/// Why an export ended early; what was written is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("cannot write the file: {0}. What was written is not whole")]
    Write(#[from] io::Error),
    /// The store.
    #[error("the event store cannot be read: {0}")]
    Store(#[from] sqlx::Error),
    /// More than can be put in order.
    #[error("there are more than {CHOSEN_TASKS_MAX} tasks")]
    TooManyTasks,
    /// An event of a later or broken kind.
    #[error(
        "task {task_id} cannot be exported, since its event {version} cannot be read: {reason}. See primetrade doctor"
    )]
    Unreadable {
        /// Which task.
        task_id: TaskId,
        /// Which event.
        version: i64,
        /// Why not.
        reason: String,
    },
}

impl ExportError {
    pub(crate) fn unreadable(event: &StoredEvent, reason: &dyn std::fmt::Display) -> Self {
        Self::Unreadable { task_id: event.task_id, version: event.version, reason: reason.to_string() }
    }
}

/// Writes the tasks of an owner. `progress` is told how many events were read, and what of them was written. CSV that is
/// `for_excel` begins with a byte order mark, and its lines end in CRLF.
///
/// # Errors
/// See [`ExportError`].
pub async fn export(
    tail: &TailReader,
    owner: OwnerId,
    shard: i16,
    format: Format,
    for_excel: bool,
    out: impl Write,
    progress: impl Fn(u64, Summary),
) -> Result<Summary, ExportError> {
    let heads = tail.heads().await?;
    let until = heads.iter().find(|(found, _)| *found == shard).map_or(0, |(_, position)| *position);
    let mut export = Export { tail, owner, until, out, progress, summary: Summary::default(), events: 0 };
    match format {
        Format::Ndjson => export.commands().await?,
        Format::Csv => export.rows(for_excel).await?,
    }
    export.out.flush()?;
    Ok(export.summary)
}

struct Export<'a, W, P> {
    tail: &'a TailReader,
    owner: OwnerId,
    until: i64,
    out: W,
    progress: P,
    summary: Summary,
    events: u64,
}

/// What is done with the lines of the current task.
enum Held {
    /// Kept until the task's end is seen.
    Back { lines: Vec<u8>, count: u64 },
    /// Too many to keep, and known not to be deleted.
    Through,
    /// Too many to keep, and known to be deleted.
    Away,
}

impl<W: Write, P: Fn(u64, Summary)> Export<'_, W, P> {
    async fn page(&mut self, after: Option<(TaskId, i64)>) -> Result<Vec<StoredEvent>, ExportError> {
        let page = self.tail.read_owner_streams_after(self.owner, after, self.until, PAGE_EVENTS_MAX).await?;
        self.events += page.len() as u64;
        (self.progress)(self.events, self.summary);
        Ok(page)
    }

    async fn commands(&mut self) -> Result<(), ExportError> {
        let mut last: Option<StoredEvent> = None;
        let mut ids = LineIds::default();
        let mut held = Held::Back { lines: Vec::new(), count: 0 };
        loop {
            let after = last.as_ref().map(|event| (event.task_id, event.version));
            let page = self.page(after).await?;
            if page.is_empty() {
                break;
            }
            for event in page {
                if last.as_ref().is_some_and(|last| last.task_id != event.task_id) {
                    let done = std::mem::replace(&mut held, Held::Back { lines: Vec::new(), count: 0 });
                    self.end_task(last.as_ref(), done)?;
                }
                held = self.take(held, &event, ids.of(&event)).await?;
                last = Some(event);
            }
        }
        self.end_task(last.as_ref(), held)
    }

    async fn take(&mut self, held: Held, event: &StoredEvent, command_id: Uuid) -> Result<Held, ExportError> {
        Ok(match held {
            Held::Back { mut lines, mut count } => {
                write_command(&mut lines, event, command_id)?;
                count += 1;
                if lines.len() < HELD_BYTES_MAX {
                    Held::Back { lines, count }
                } else if self.ends_deleted(event).await? {
                    Held::Away
                } else {
                    self.out.write_all(&lines)?;
                    self.summary.lines += count;
                    Held::Through
                }
            }
            Held::Through => {
                write_command(&mut self.out, event, command_id)?;
                self.summary.lines += 1;
                Held::Through
            }
            Held::Away => Held::Away,
        })
    }

    fn end_task(&mut self, last: Option<&StoredEvent>, held: Held) -> Result<(), ExportError> {
        let deleted = last.is_none_or(|last| last.event_type == "TaskDeleted");
        match held {
            Held::Back { lines, count } if !deleted => {
                self.out.write_all(&lines)?;
                self.summary.lines += count;
                self.summary.tasks += 1;
            }
            Held::Through => self.summary.tasks += 1,
            Held::Back { .. } | Held::Away => {}
        }
        Ok(())
    }

    /// Whether the task's last event deletes it. Reads it through, so only where it is very long.
    async fn ends_deleted(&self, event: &StoredEvent) -> Result<bool, ExportError> {
        let mut at = (event.task_id, event.version);
        let mut deleted = event.event_type == "TaskDeleted";
        loop {
            let page = self.tail.read_owner_streams_after(self.owner, Some(at), self.until, PAGE_EVENTS_MAX).await?;
            for next in &page {
                if next.task_id != event.task_id {
                    return Ok(deleted);
                }
                deleted = next.event_type == "TaskDeleted";
                at.1 = next.version;
            }
            if page.is_empty() {
                return Ok(deleted);
            }
        }
    }

    async fn rows(&mut self, for_excel: bool) -> Result<(), ExportError> {
        if for_excel {
            self.out.write_all(BOM)?;
        }
        self.write_row(csv_row::FIELDS, for_excel)?;
        let mut task: Option<TaskRow> = None;
        let mut after = None;
        loop {
            let page = self.page(after).await?;
            if page.is_empty() {
                break;
            }
            for event in &page {
                after = Some((event.task_id, event.version));
                if task.as_ref().is_some_and(|task| task.task.id != event.task_id.0) {
                    self.write_task(task.take(), for_excel)?;
                }
                fold(&mut task, event).map_err(|error: FoldError| ExportError::unreadable(event, &error))?;
            }
        }
        self.write_task(task, for_excel)
    }

    fn write_task(&mut self, task: Option<TaskRow>, for_excel: bool) -> Result<(), ExportError> {
        if let Some(task) = task.filter(|task| !task.deleted) {
            self.write_row(csv_row::row(&task.task), for_excel)?;
            self.summary.tasks += 1;
        }
        Ok(())
    }

    fn write_row<const N: usize>(&mut self, cells: [impl AsRef<[u8]>; N], for_excel: bool) -> Result<(), ExportError> {
        self.out.write_all(&csv_row::line(cells, for_excel)?)?;
        self.summary.lines += 1;
        Ok(())
    }
}

/// The command ids of the lines. A command that made one event is the line's; one that made several (a patch) is the
/// first one's, and the others' are made from it.
#[derive(Default)]
pub(crate) struct LineIds {
    task: Option<TaskId>,
    command: Uuid,
    /// How many events of that command came before.
    number: u32,
}

impl LineIds {
    pub(crate) fn of(&mut self, event: &StoredEvent) -> Uuid {
        if (self.task, self.command) == (Some(event.task_id), event.command_id) {
            self.number += 1;
            return Uuid::new_v5(&self.command, &self.number.to_be_bytes());
        }
        *self = Self { task: Some(event.task_id), command: event.command_id, number: 0 };
        event.command_id
    }
}

/// The command that makes this event happen again. The names of its fields are those of the event's data.
pub(crate) fn write_command(out: &mut impl Write, stored: &StoredEvent, command_id: Uuid) -> Result<(), ExportError> {
    let event = stored.decode().map_err(|error: Unreadable| ExportError::unreadable(stored, &error))?;
    let (_, _, data) = encode(&event);
    let members = &data[1..data.len() - 1];
    let comma = if members.is_empty() { "" } else { "," };
    let (command, task_id, at) = (command_of(&event), stored.task_id, format_time(stored.occurred_at));
    let after = stored.version - 1;
    writeln!(
        out,
        r#"{{"type":"{command}","task_id":"{task_id}","command_id":"{command_id}","expected_version":{after},"occurred_at":"{at}"{comma}{members}}}"#
    )?;
    Ok(())
}

fn command_of(event: &TaskEvent) -> &'static str {
    match event {
        TaskEvent::TaskCreated { .. } => "CreateTask",
        TaskEvent::TaskRenamed { .. } => "RenameTask",
        TaskEvent::TaskDescribed { .. } => "DescribeTask",
        TaskEvent::TaskReprioritized { .. } => "ReprioritizeTask",
        TaskEvent::TaskScheduled { .. } => "ScheduleTask",
        TaskEvent::TaskRanked { .. } => "RankTask",
        TaskEvent::TaskTagged { .. } => "TagTask",
        TaskEvent::TaskUntagged { .. } => "UntagTask",
        TaskEvent::TaskStarted {} => "StartTask",
        TaskEvent::TaskCompleted {} => "CompleteTask",
        TaskEvent::TaskReopened {} => "ReopenTask",
        TaskEvent::TaskCancelled {} => "CancelTask",
        TaskEvent::TaskStageReverted { .. } => "RevertStage",
        TaskEvent::TaskDeleted {} => "DeleteTask",
        TaskEvent::TaskRestored {} => "RestoreTask",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{
        Description, NewTask, Priority, State, Status, Tag, TaskCommand, Time, Title, decide, event_of, evolve,
    };

    use super::*;

    fn stored(version: i64, event: &TaskEvent) -> StoredEvent {
        let (event_type, schema_version, data) = encode(event);
        StoredEvent {
            shard: 0,
            position: version,
            owner_id: OwnerId(Uuid::nil()),
            task_id: TaskId(Uuid::from_u128(9)),
            version,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned(),
            schema_version,
            occurred_at: Time::UNIX_EPOCH + chrono::TimeDelta::microseconds(version),
            recorded_at: Time::UNIX_EPOCH,
            actor_type: "user".to_owned(),
            actor_id: None,
            command_id: Uuid::nil(),
            correlation_id: String::new(),
            traceparent: String::new(),
            change_id: None,
            undoes: None,
            data,
        }
    }

    /// Every type of event, in an order that a task can go through.
    fn every_event() -> Vec<TaskEvent> {
        let tags = |names: &[&str]| names.iter().map(|name| Tag::parse(name).unwrap()).collect::<BTreeSet<_>>();
        let due_at = domain::parse_time("2030-01-01T00:00:00.000001Z").ok();
        vec![
            TaskEvent::TaskCreated {
                title: Title::parse("a \"quoted\" {title}").unwrap(),
                description: Description::parse("{\n}").ok(),
                priority: Priority::Low,
                due_at,
                tags: tags(&["x", "y}"]),
                rank: domain::Rank::parse("m").ok(),
            },
            TaskEvent::TaskRenamed { title: Title::parse("{b}").unwrap() },
            TaskEvent::TaskDescribed { description: None },
            TaskEvent::TaskReprioritized { priority: Priority::Urgent },
            TaskEvent::TaskScheduled { due_at: None },
            TaskEvent::TaskRanked { rank: None },
            TaskEvent::TaskUntagged { tags: tags(&["y}"]) },
            TaskEvent::TaskTagged { tags: tags(&["z}", "ä"]) },
            TaskEvent::TaskStarted {},
            TaskEvent::TaskCompleted {},
            TaskEvent::TaskReopened {},
            TaskEvent::TaskCancelled {},
            TaskEvent::TaskStageReverted {
                from: Status::Cancelled,
                to: Status::Completed,
                started_at: None,
                completed_at: Some(Time::UNIX_EPOCH),
            },
            TaskEvent::TaskDeleted {},
            TaskEvent::TaskRestored {},
        ]
    }

    #[test]
    fn each_command_makes_its_event_happen_again() {
        let mut state = State::default();
        for (version, event) in (1..).zip(every_event()) {
            let stored = stored(version, &event);
            let mut line = Vec::new();
            write_command(&mut line, &stored, Uuid::max()).unwrap();
            let parsed = commands::line::parse(&line)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)));
            assert_eq!((parsed.task_id, parsed.occurred_at), (stored.task_id, Some(stored.occurred_at)));
            assert_eq!(parsed.command_id.map(|id| id.0), Some(Uuid::max()));
            assert_eq!(parsed.expected_version, Some(version - 1));
            assert_eq!(event_of(&parsed.command).as_ref(), Some(&event));
            assert_eq!(
                decide(&state, &parsed.command).unwrap(),
                std::slice::from_ref(&event),
                "{}",
                String::from_utf8_lossy(&line)
            );
            state = evolve(state, &event);
        }
    }

    #[test]
    fn each_line_has_an_id_of_its_own_made_from_its_command() {
        let (patch, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let event = |task: u128, command_id: Uuid| StoredEvent {
            task_id: TaskId(Uuid::from_u128(task)),
            command_id,
            ..stored(1, &TaskEvent::TaskStarted {})
        };
        let mut ids = LineIds::default();
        let found = [(7, other), (7, patch), (7, patch), (7, patch), (7, other), (8, other)]
            .map(|(task, command_id)| ids.of(&event(task, command_id)));
        assert_eq!((found[0], found[1], found[4], found[5]), (other, patch, other, other));
        assert_ne!(found[2], found[3]);
        // In exports that are kept.
        assert_eq!(found[2].to_string(), "4a213f6d-d21f-51b6-bfb7-b42c31a986f2");
    }

    #[test]
    fn creation_without_anything_optional_is_a_command_too() {
        let new = NewTask {
            title: Title::parse("t").unwrap(),
            description: None,
            priority: Priority::Medium,
            due_at: None,
            tags: BTreeSet::new(),
            rank: None,
        };
        let events = decide(&State::default(), &TaskCommand::Create(Box::new(new.clone()))).unwrap();
        let mut line = Vec::new();
        write_command(&mut line, &stored(1, &events[0]), Uuid::nil()).unwrap();
        assert_eq!(commands::line::parse(&line).unwrap().command, TaskCommand::Create(Box::new(new)));
    }
}
