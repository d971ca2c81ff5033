use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use domain::{CommandId, TaskId};
use event_store::{Looked, is_same_request};
use futures_util::{StreamExt, TryStreamExt};
use process::clock;
use quick_cache::Weighter;
use uuid::Uuid;

use crate::executor::Executor;
use crate::identity::CommandIdentity;
use crate::outcome::ExecuteError;
use crate::plan::decide_request;
use crate::request::{Caller, CommandRequest};
use crate::stream::{Stream, StreamWeight};

/// How many tasks are read at a time.
const TASKS_IN_FLIGHT_MAX: usize = 64;

/// Tasks as commands would leave them. It grows with the tasks that it has met: see [`Simulation::bytes`].
#[derive(Default)]
pub struct Simulation {
    streams: HashMap<TaskId, Stream>,
    /// Commands that would have succeeded, with their fingerprints.
    commands: HashMap<CommandId, Uuid>,
    bytes: u64,
}

/// What the log has of a task: its stream, where that was not read yet, and which of its commands are known.
type Read = (TaskId, Option<Stream>, Vec<(CommandId, Uuid)>);

impl Simulation {
    /// How much memory it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Decides commands in order, each on what those before it would have left. Nothing is written. An outcome for each.
    ///
    /// # Errors
    /// The store is busy or does not answer; then it is of no more use.
    pub async fn decide(
        &mut self,
        executor: &Executor,
        caller: &Caller,
        requests: &[CommandRequest],
    ) -> Result<Vec<Result<(), ExecuteError>>, ExecuteError> {
        let mut known = self.read(executor, caller, requests).await?;
        let now = clock::now();
        let mut rejected = Vec::new();
        let mut outcomes = Vec::with_capacity(requests.len());
        for (number, request) in requests.iter().enumerate() {
            let outcome = self.decide_one(request, now, &mut known);
            if outcome.is_err() {
                rejected.push(number);
            }
            outcomes.push(outcome);
        }
        let asked: Vec<&CommandRequest> = rejected.iter().map(|number| &requests[*number]).collect();
        for (number, happened) in rejected.into_iter().zip(executor.happened(caller, &asked).await) {
            if happened?.is_some() {
                outcomes[number] = Ok(());
            }
        }
        Ok(outcomes)
    }

    fn decide_one(
        &mut self,
        request: &CommandRequest,
        now: domain::Time,
        known: &mut HashMap<CommandId, Uuid>,
    ) -> Result<(), ExecuteError> {
        if let Some(CommandIdentity { command_id, fingerprint }) = request.identity
            && let Some(first) = known.get(&command_id).or_else(|| self.commands.get(&command_id))
        {
            return if is_same_request(*first, fingerprint) { Ok(()) } else { Err(ExecuteError::IdentityReused) };
        }
        let stream = self.streams.entry(request.task_id).or_default();
        let (_, events) = decide_request(stream, request, now)?;
        let before = stream.state.heap_bytes();
        for event in &events {
            stream.apply(&event.event, event.occurred_at);
        }
        self.bytes = (self.bytes + stream.state.heap_bytes() as u64).saturating_sub(before as u64);
        if let Some(CommandIdentity { command_id, fingerprint }) = request.identity {
            self.commands.insert(command_id, fingerprint);
            self.bytes += 2 * size_of::<(CommandId, Uuid)>() as u64;
        }
        Ok(())
    }

    /// Reads the tasks that were not met before; which of the commands are in the log.
    async fn read(
        &mut self,
        executor: &Executor,
        caller: &Caller,
        requests: &[CommandRequest],
    ) -> Result<HashMap<CommandId, Uuid>, ExecuteError> {
        let mut ids_of: HashMap<TaskId, HashSet<CommandId>> = HashMap::new();
        for request in requests {
            let ids = ids_of.entry(request.task_id).or_default();
            ids.extend(request.identity.map(|identity| identity.command_id));
        }
        let asked = ids_of.into_iter().map(|(task_id, ids)| (task_id, ids, !self.streams.contains_key(&task_id)));
        let asked: Vec<_> = asked.collect();
        let read: Vec<Read> = futures_util::stream::iter(asked)
            .map(async |(task_id, ids, is_new)| read_one(executor, caller, task_id, ids, is_new).await)
            .buffer_unordered(TASKS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        let mut known = HashMap::new();
        for (task_id, stream, outcomes) in read {
            known.extend(outcomes);
            if let Some(stream) = stream
                && let Entry::Vacant(entry) = self.streams.entry(task_id)
            {
                self.bytes += StreamWeight.weight(&(caller.owner, task_id), &stream.clone().into());
                entry.insert(stream);
            }
        }
        Ok(known)
    }
}

async fn read_one(
    executor: &Executor,
    caller: &Caller,
    task_id: TaskId,
    ids: HashSet<CommandId>,
    is_new: bool,
) -> Result<Read, ExecuteError> {
    let mut ids: Vec<CommandId> = ids.into_iter().collect();
    let mut stream = Stream::default();
    let mut known = Vec::new();
    loop {
        let after = if is_new { stream.version } else { i64::MAX };
        let asked = std::mem::take(&mut ids);
        let Looked { events, more, outcomes } = executor.store().look_up(caller.owner, task_id, after, asked).await?;
        known.extend(outcomes.into_iter().map(|(id, outcome)| (id, outcome.fingerprint)));
        stream.fold(&events)?;
        if !is_new || !more {
            return Ok((task_id, is_new.then_some(stream), known));
        }
    }
}
