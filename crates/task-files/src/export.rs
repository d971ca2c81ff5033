//! An account's tasks from the log, in the order of their creation and in bounded memory: the one writer of exports, for
//! `primetrade export` and for jobs.
//!
//! What is written is as the log stood when the export was asked for. A deleted task is no task any more, and its content is
//! nobody's business: it is left out.
//!
//! A line is a command that makes one event. It carries the version that the event came after and the id of the command
//! that it came from, so that an import recognises what is there, in this account or in a copy of it.

use std::collections::HashMap;
use std::io::Write;

use domain::{OwnerId, StoredEvent, TaskEvent, TaskId, Unreadable, encode, format_time};
use event_store::TailReader;
use process::clock;
use read_model::{TaskFilters, TaskRow, fold};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use crate::export_error::ExportError;
use crate::format::ExportFormat;
use crate::lines::BOM;
use crate::selection::{Chosen, choose};
use crate::{calendar, csv_row};

/// How many events are read together, but for those of one task that has more by itself.
const PART_EVENTS_MAX: u64 = 2_000;
const PAGE_EVENTS_MAX: i64 = 2_000;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tasks written.
    pub tasks: usize,
    /// Lines written: commands, or rows and the header.
    pub lines: usize,
}

/// Writes all tasks of an owner, as they are now. `progress` is told what was written, of how many tasks. CSV that is
/// `for_excel` begins with a byte order mark, and its lines end in CRLF.
///
/// # Errors
/// See [`ExportError`].
pub async fn export(
    tail: &TailReader,
    owner: OwnerId,
    shard: i16,
    format: ExportFormat,
    for_excel: bool,
    out: &mut (impl AsyncWrite + Unpin),
    progress: impl Fn(Summary, usize),
) -> Result<Summary, ExportError> {
    let heads = tail.heads().await?;
    let until = heads.iter().find(|(found, _)| *found == shard).map_or(0, |(_, position)| *position);
    let tasks = choose(tail, owner, until, &TaskFilters::default(), clock::now()).await?.tasks;
    let export = Export { tail, owner, until, format, for_excel, log_id: tail.log_id().await? };
    let mut written = export.begin(out).await?;
    while written.tasks < tasks.len() {
        let part = export.part(&tasks[written.tasks..], out).await?;
        written.tasks += part.tasks;
        written.lines += part.lines;
        progress(written, tasks.len());
    }
    export.end(tasks.is_empty(), out).await?;
    out.flush().await?;
    Ok(written)
}

/// An export of chosen tasks: its beginning, parts of it, its end.
pub struct Export<'a> {
    /// Where the tasks are.
    pub tail: &'a TailReader,
    /// Whose they are.
    pub owner: OwnerId,
    /// They are written as they were after the event at this position.
    pub until: i64,
    /// What is written.
    pub format: ExportFormat,
    /// Whether CSV begins with a byte order mark, and its lines end in CRLF.
    pub for_excel: bool,
    /// Names the tasks in calendars.
    pub log_id: Uuid,
}

impl Export<'_> {
    /// What comes before all tasks.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn begin(&self, out: &mut (impl AsyncWrite + Unpin)) -> Result<Summary, ExportError> {
        let mut lines = 0;
        match self.format {
            ExportFormat::Ndjson => {}
            ExportFormat::Csv => {
                if self.for_excel {
                    out.write_all(BOM).await?;
                }
                out.write_all(&csv_row::line(csv_row::FIELDS, self.for_excel)?).await?;
                lines = 1;
            }
            ExportFormat::Ics => out.write_all(calendar::BEGIN.as_bytes()).await?,
        }
        Ok(Summary { tasks: 0, lines })
    }

    /// The first of these tasks, as many as are read together.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn part(&self, tasks: &[Chosen], out: &mut (impl AsyncWrite + Unpin)) -> Result<Summary, ExportError> {
        let ids: Vec<TaskId> = tasks[..part_length(tasks)].iter().map(|chosen| chosen.task_id).collect();
        let mut written: HashMap<TaskId, WrittenTask> = HashMap::new();
        let mut after = None;
        loop {
            let page = self.tail.read_streams_of(self.owner, &ids, after, self.until, PAGE_EVENTS_MAX).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.task_id, last.version));
            for event in &page {
                written.entry(event.task_id).or_default().take(event, self.format)?;
            }
            // One alone may have any number of events.
            if let [only] = ids.as_slice()
                && let Some(task) = written.get_mut(only)
            {
                out.write_all(&std::mem::take(&mut task.text)).await?;
            }
        }
        let mut lines = 0;
        for task_id in &ids {
            if let Some(mut task) = written.remove(task_id) {
                task.end(self)?;
                out.write_all(&task.text).await?;
                lines += task.lines;
            }
        }
        Ok(Summary { tasks: ids.len(), lines })
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

/// A task on its way into the file.
#[derive(Default)]
struct WrittenTask {
    text: Vec<u8>,
    lines: usize,
    ids: LineIds,
    row: Option<TaskRow>,
}

impl WrittenTask {
    fn take(&mut self, event: &StoredEvent, format: ExportFormat) -> Result<(), ExportError> {
        match format {
            ExportFormat::Ndjson => {
                write_command(&mut self.text, event, self.ids.of(event))?;
                self.lines += 1;
            }
            ExportFormat::Csv | ExportFormat::Ics => {
                fold(&mut self.row, event).map_err(|error| ExportError::unreadable(event, &error))?;
            }
        }
        Ok(())
    }

    /// All its events are there.
    fn end(&mut self, export: &Export<'_>) -> Result<(), ExportError> {
        let Some(row) = &self.row else { return Ok(()) };
        self.text = match export.format {
            ExportFormat::Csv => csv_row::line(csv_row::row(&row.task), export.for_excel)?,
            ExportFormat::Ics => calendar::components(&row.task, export.log_id).into_bytes(),
            ExportFormat::Ndjson => return Ok(()),
        };
        self.lines = 1;
        Ok(())
    }
}

/// The command ids of the lines. A command that made one event is the line's; one that made several (a patch) is the
/// first one's, and the others' are made from it.
#[derive(Default)]
struct LineIds {
    task: Option<TaskId>,
    command: Uuid,
    /// How many events of that command came before.
    number: u32,
}

impl LineIds {
    fn of(&mut self, event: &StoredEvent) -> Uuid {
        if (self.task, self.command) == (Some(event.task_id), event.command_id) {
            self.number += 1;
            return Uuid::new_v5(&self.command, &self.number.to_be_bytes());
        }
        *self = Self { task: Some(event.task_id), command: event.command_id, number: 0 };
        event.command_id
    }
}

/// The command that makes this event happen again. The names of its fields are those of the event's data.
fn write_command(out: &mut impl Write, stored: &StoredEvent, command_id: Uuid) -> Result<(), ExportError> {
    let event = stored.decode().map_err(|error: Unreadable| ExportError::unreadable(stored, &error))?;
    let (_, _, data) = encode(&event);
    let members = &data[1..data.len() - 1];
    let comma = if members.is_empty() { "" } else { "," };
    // What the system does is no command of anybody.
    let Some(command) = command_of(&event) else { return Ok(()) };
    let (task_id, at) = (stored.task_id, format_time(stored.occurred_at));
    let after = stored.version - 1;
    writeln!(
        out,
        r#"{{"type":"{command}","task_id":"{task_id}","command_id":"{command_id}","expected_version":{after},"occurred_at":"{at}"{comma}{members}}}"#
    )?;
    Ok(())
}

fn command_of(event: &TaskEvent) -> Option<&'static str> {
    Some(match event {
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
        TaskEvent::TaskPurged {} => return None,
    })
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
