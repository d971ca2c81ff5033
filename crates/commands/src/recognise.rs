//! What the log holds already, for imports: commands by their ids, and events by what they say.

use std::collections::{BTreeMap, HashMap};

use domain::{CommandId, StoredEvent, TaskCommand, TaskId, event_of};
use event_store::Looked;
use futures_util::{StreamExt, TryStreamExt};
use process::clock;
use uuid::Uuid;

use crate::executor::Executor;
use crate::outcome::ExecuteError;
use crate::plan::decide_request;
use crate::request::{Caller, CommandRequest, ExpectedVersion};
use crate::stream::Stream;

/// How many tasks are read at a time.
const TASKS_IN_FLIGHT_MAX: usize = 64;

impl Executor {
    /// Those of the caller's command ids that had an effect or found nothing to do, each with the position of its task's last
    /// event then.
    ///
    /// # Errors
    /// The store is busy or does not answer.
    pub async fn known(
        &self,
        caller: &Caller,
        command_ids: Vec<CommandId>,
    ) -> Result<HashMap<CommandId, i64>, ExecuteError> {
        let no_task = TaskId(Uuid::nil());
        let looked = self.store().look_up(caller.owner, no_task, i64::MAX, command_ids).await?;
        Ok(looked.outcomes.into_iter().map(|(command_id, outcome)| (command_id, outcome.revision)).collect())
    }

    /// Of commands that were refused: where the very event that each would make, at its time, is in the log as the one
    /// after the version that it expects, its position. So an account's own export is recognised, whatever the ids and
    /// requests were that it came from. A creation with a time and without an expected version, as a row of CSV is one, says
    /// what a task is: it is there if the task was created then and is that now, by its last event. An outcome for each, in
    /// the order given.
    pub async fn happened(
        &self,
        caller: &Caller,
        requests: &[&CommandRequest],
    ) -> Vec<Result<Option<i64>, ExecuteError>> {
        let mut happened: Vec<Result<Option<i64>, ExecuteError>> = requests.iter().map(|_| Ok(None)).collect();
        let mut of_task: BTreeMap<TaskId, BTreeMap<i64, Vec<usize>>> = BTreeMap::new();
        for (index, request) in requests.iter().enumerate() {
            if let ExpectedVersion::OneOf(versions) = &request.expected
                && let [version] = versions.as_slice()
                && request.occurred_at.is_some()
            {
                of_task.entry(request.task_id).or_default().entry(version + 1).or_default().push(index);
            }
        }
        let mut looked = futures_util::stream::iter(of_task)
            .map(async |(task_id, at)| (self.happened_to(caller, task_id, &at, requests).await, at))
            .buffer_unordered(TASKS_IN_FLIGHT_MAX);
        while let Some((there, at)) = looked.next().await {
            match there {
                Ok(there) => there.into_iter().for_each(|(index, position)| happened[index] = Ok(Some(position))),
                Err(error) => at.into_values().flatten().for_each(|index| happened[index] = Err(error.clone())),
            }
        }
        let creations = requests.iter().enumerate().filter(|(_, request)| {
            matches!(request.command, TaskCommand::Create(_)) && request.expected == ExpectedVersion::Any
        });
        let creations: Vec<usize> = creations.map(|(index, _)| index).collect();
        let mut looked = futures_util::stream::iter(creations)
            .map(async |index| (self.is_there(caller, requests[index]).await, index))
            .buffer_unordered(TASKS_IN_FLIGHT_MAX);
        while let Some((there, index)) = looked.next().await {
            happened[index] = there;
        }
        happened
    }

    /// Of commands that may have been carried out before, in this order, by a process that died before it could say what
    /// came of them: those that it refused, by their numbers. Such a one has had no outcome, and a later one to the same
    /// task has; by now the rules might take it. It is decided again on what the later one found.
    ///
    /// # Errors
    /// The store is busy or does not answer.
    pub async fn refused_before(
        &self,
        caller: &Caller,
        requests: &[&CommandRequest],
    ) -> Result<Vec<(usize, ExecuteError)>, ExecuteError> {
        let mut of_task: BTreeMap<TaskId, Vec<usize>> = BTreeMap::new();
        for (index, request) in requests.iter().enumerate() {
            of_task.entry(request.task_id).or_default().push(index);
        }
        let several = of_task.into_iter().filter(|(_, indices)| indices.len() > 1);
        let refused: Vec<_> = futures_util::stream::iter(several)
            .map(async |(task_id, indices)| self.refused_of_task(caller, task_id, &indices, requests).await)
            .buffer_unordered(TASKS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        Ok(refused.into_iter().flatten().collect())
    }

    async fn refused_of_task(
        &self,
        caller: &Caller,
        task_id: TaskId,
        indices: &[usize],
        requests: &[&CommandRequest],
    ) -> Result<Vec<(usize, ExecuteError)>, ExecuteError> {
        let id_of = |index: usize| requests[index].identity.map(|identity| identity.command_id);
        let mut ids: Vec<CommandId> = indices.iter().filter_map(|index| id_of(*index)).collect();
        let (mut events, mut outcomes) = (Vec::new(), BTreeMap::new());
        loop {
            let after = events.last().map_or(0, |event: &StoredEvent| event.version);
            let asked = std::mem::take(&mut ids);
            let looked = self.store().look_up(caller.owner, task_id, after, asked).await?;
            outcomes.extend(looked.outcomes);
            // Where nothing of it was done there is nothing to find out.
            if !looked.more || outcomes.is_empty() {
                events.extend(looked.events);
                break;
            }
            events.extend(looked.events);
        }
        let mut refused = Vec::new();
        // The version that the next command with an outcome was decided on.
        let mut found_by_next = None;
        for index in indices.iter().rev() {
            let Some(id) = id_of(*index) else { continue };
            if let Some(outcome) = outcomes.get(&id) {
                let first = events.iter().find(|event| event.command_id == id.0);
                found_by_next = Some(first.map_or(outcome.version, |event| event.version - 1));
            } else if let Some(version) = found_by_next {
                let mut stream = Stream::default();
                stream.fold(&events[..usize::try_from(version).unwrap_or(0).min(events.len())])?;
                if let Err(error) = decide_request(&stream, requests[*index], clock::now()) {
                    refused.push((*index, error));
                }
            }
        }
        Ok(refused)
    }

    /// Where the task was created at the time that this creation says, and is now what it says, the position of its last event.
    async fn is_there(&self, caller: &Caller, request: &CommandRequest) -> Result<Option<i64>, ExecuteError> {
        let (TaskCommand::Create(new), Some(created_at)) = (&request.command, request.occurred_at) else {
            return Ok(None);
        };
        let (mut stream, mut first) = (Stream::default(), None);
        loop {
            let Looked { events, more, .. } =
                self.store().look_up(caller.owner, request.task_id, stream.version, Vec::new()).await?;
            first = first.or(events.first().map(|event| event.occurred_at));
            if first.is_some_and(|first| first != created_at) {
                return Ok(None);
            }
            stream.fold(&events)?;
            if !more {
                let is_it = first == Some(created_at) && stream.state.content() == Some(&**new);
                return Ok(is_it.then_some(stream.revision));
            }
        }
    }

    /// Of the requests, by the version that each would make, those whose event is there, and its position.
    async fn happened_to(
        &self,
        caller: &Caller,
        task_id: TaskId,
        at: &BTreeMap<i64, Vec<usize>>,
        requests: &[&CommandRequest],
    ) -> Result<Vec<(usize, i64)>, ExecuteError> {
        let Some(((first, _), (last, _))) = at.first_key_value().zip(at.last_key_value()) else {
            return Ok(Vec::new());
        };
        let mut there = Vec::new();
        let mut after = first - 1;
        loop {
            let Looked { events, more, .. } = self.store().look_up(caller.owner, task_id, after, Vec::new()).await?;
            for stored in &events {
                after = stored.version;
                let Some(indices) = at.get(&stored.version) else { continue };
                let event = stored.decode().map_err(|_| ExecuteError::Unreadable)?;
                let same = indices.iter().filter(|index| {
                    let request = requests[**index];
                    request.occurred_at == Some(stored.occurred_at)
                        && event_of(&request.command).as_ref() == Some(&event)
                });
                there.extend(same.map(|index| (*index, stored.position)));
            }
            if !more || after >= *last {
                return Ok(there);
            }
        }
    }
}
