//! Undoes a change, task by task: decided from the task's whole stream, and appended if that has not moved since.

use std::pin::pin;

use domain::{CommandId, PastEvent, Refusal, StoredEvent, TaskId, occurred_at};
use event_store::{AppendError, CommandOrigin, DecidedCommand, Effect, Looked, NewEvent, StreamAppend};
use futures_util::StreamExt;
use metrics::counter;
use process::clock::{self, new_id};
use uuid::Uuid;

use crate::chain::{DECISIONS_MAX, replay};
use crate::executor::Executor;
use crate::identity::CommandIdentity;
use crate::outcome::{Accepted, ExecuteError};
use crate::request::Caller;

/// How many tasks are reverted at the same time: each with its whole stream in memory.
const TASKS_IN_FLIGHT_MAX: usize = 64;

/// A task that a change touched, and the identity under which the change is undone there.
#[derive(Debug, Clone, Copy)]
pub struct Touched {
    /// The task.
    pub task_id: TaskId,
    /// The request's, for this task.
    pub identity: Option<CommandIdentity>,
}

/// A task that is as it was before the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undone {
    /// One without an event has no change.
    pub accepted: Accepted,
    /// Whether an earlier undo has reverted it.
    pub already: bool,
}

impl Executor {
    /// Whether there is nothing left to undo of a change that touched these tasks, since it is undone already. Reads little
    /// further than to the first task of which something is left.
    ///
    /// # Errors
    /// The store is busy or does not answer, or holds an event that cannot be read.
    pub async fn is_undone(&self, caller: &Caller, change_id: Uuid, tasks: &[TaskId]) -> Result<bool, ExecuteError> {
        let decided = async |task_id: TaskId| {
            let mut stream = PastStream::default();
            stream.read_on(self, caller, task_id, None).await?;
            Ok::<_, ExecuteError>(domain::undo(&stream.events, change_id, clock::now()))
        };
        let mut decisions = pin!(futures_util::stream::iter(tasks.to_vec()).map(decided).buffered(TASKS_IN_FLIGHT_MAX));
        let mut already = false;
        while let Some(decision) = decisions.next().await {
            match decision? {
                Err(Refusal::UndoneAlready) => already = true,
                Ok(events) if events.is_empty() => {}
                Ok(_) | Err(_) => return Ok(false),
            }
        }
        Ok(already)
    }

    /// Reverts tasks to what they were before a change, each on its own. An outcome for each, in the order given.
    pub async fn undo(
        &self,
        caller: &Caller,
        change_id: Uuid,
        tasks: Vec<Touched>,
    ) -> Vec<Result<Undone, ExecuteError>> {
        futures_util::stream::iter(tasks)
            .map(|touched| self.undo_in_task(caller, change_id, touched))
            .buffered(TASKS_IN_FLIGHT_MAX)
            .collect()
            .await
    }

    async fn undo_in_task(
        &self,
        caller: &Caller,
        change_id: Uuid,
        Touched { task_id, identity }: Touched,
    ) -> Result<Undone, ExecuteError> {
        let _stream_lock = self.lock_stream(caller.owner, task_id).await?;
        let mut stream = PastStream::default();
        for _ in 0..DECISIONS_MAX {
            if let Some(known) = stream.read_on(self, caller, task_id, identity).await? {
                return known.map(|accepted| Undone { accepted, already: false });
            }
            let now = clock::now();
            let (events, already) = match domain::undo(&stream.events, change_id, now) {
                Err(Refusal::UndoneAlready) => (Vec::new(), true),
                decided => (decided?, false),
            };
            let occurred_at = occurred_at(None, now, stream.events.last().map(|last| last.occurred_at))?;
            let mut accepted = Accepted {
                effect: Effect::Changed,
                task_id,
                version: stream.version() + events.len() as i64,
                revision: stream.revision,
                replayed: false,
                change_id: (!events.is_empty()).then_some(caller.change_id),
                events: events.len() as u32,
            };
            if events.is_empty() {
                return Ok(Undone { accepted, already });
            }
            let event = |event| NewEvent { event_id: new_id(), occurred_at, event };
            let append = StreamAppend {
                owner_id: caller.owner,
                task_id,
                is_new_task: false,
                expected_version: stream.version(),
                expected_revision: stream.revision,
                origin: CommandOrigin {
                    actor: caller.actor,
                    correlation_id: caller.correlation_id.clone(),
                    traceparent: caller.traceparent.clone(),
                    change_id: caller.change_id,
                    undoes: Some(change_id),
                },
                commands: vec![DecidedCommand {
                    command_id: identity.map_or_else(|| CommandId(new_id()), |identity| identity.command_id),
                    fingerprint: identity.map(|identity| identity.fingerprint),
                    effect: accepted.effect,
                    change_id: accepted.change_id,
                    events: events.into_iter().map(event).collect(),
                }],
            };
            match self.store().append(caller.shard, append).await {
                Ok(appended) => {
                    accepted.revision = appended.first_position + i64::from(accepted.events) - 1;
                    self.note_position(caller.owner, accepted.revision);
                    self.forget_stream(caller.owner, task_id);
                    return Ok(Undone { accepted, already });
                }
                Err(AppendError::Conflict | AppendError::CommandKnown) => {
                    counter!("command_conflicts_total").increment(1);
                }
                Err(error @ (AppendError::Refused | AppendError::Unavailable(_))) => return Err(error.into()),
            }
        }
        Err(ExecuteError::Contended)
    }
}

/// A whole stream, as far as it was read.
#[derive(Default)]
struct PastStream {
    events: Vec<PastEvent>,
    /// Position of the last event.
    revision: i64,
}

impl PastStream {
    fn version(&self) -> i64 {
        self.events.len() as i64
    }

    /// Reads on to the end. Returns the outcome of an earlier, equal request, if there was one.
    async fn read_on(
        &mut self,
        executor: &Executor,
        caller: &Caller,
        task_id: TaskId,
        identity: Option<CommandIdentity>,
    ) -> Result<Option<Result<Accepted, ExecuteError>>, ExecuteError> {
        let mut command_ids: Vec<CommandId> = identity.iter().map(|identity| identity.command_id).collect();
        loop {
            let (after, ids) = (self.version(), std::mem::take(&mut command_ids));
            let Looked { events, more, outcomes } = executor.store().look_up(caller.owner, task_id, after, ids).await?;
            if let (Some(identity), Some((_, known))) = (identity, outcomes.first()) {
                return Ok(Some(replay(identity, *known)));
            }
            for stored in &events {
                self.events.push(past(stored)?);
                self.revision = stored.position;
            }
            executor.note_position(caller.owner, self.revision);
            if !more {
                return Ok(None);
            }
        }
    }
}

fn past(stored: &StoredEvent) -> Result<PastEvent, ExecuteError> {
    let event = stored.decode().map_err(|error| {
        tracing::error!(owner_id = %stored.owner_id, position = stored.position, %error, "unreadable event");
        ExecuteError::Unreadable
    })?;
    // What is older than changes is a change of its command.
    let change_id = stored.change_id.unwrap_or(stored.command_id);
    Ok(PastEvent { change_id, undoes: stored.undoes, occurred_at: stored.occurred_at, event })
}
