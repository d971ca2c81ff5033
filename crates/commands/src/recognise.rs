//! What the log holds already, for imports: commands by their ids, and events by what they say.

use std::collections::{BTreeMap, HashSet};

use domain::{CommandId, TaskId, event_of};
use event_store::Looked;
use futures_util::StreamExt;
use uuid::Uuid;

use crate::executor::Executor;
use crate::outcome::ExecuteError;
use crate::request::{Caller, CommandRequest, ExpectedVersion};

/// How many tasks are read at a time.
const TASKS_IN_FLIGHT_MAX: usize = 64;

impl Executor {
    /// Those of the caller's command ids that had an effect or found nothing to do.
    ///
    /// # Errors
    /// The store is busy or does not answer.
    pub async fn known(
        &self,
        caller: &Caller,
        command_ids: Vec<CommandId>,
    ) -> Result<HashSet<CommandId>, ExecuteError> {
        let no_task = TaskId(Uuid::nil());
        let looked = self.store().look_up(caller.owner, no_task, i64::MAX, command_ids).await?;
        Ok(looked.outcomes.into_iter().map(|(command_id, _)| command_id).collect())
    }

    /// Of commands that were refused: whether the very event that each would make, at its time, is in the log, as the one
    /// after the version that it expects. So an account's own export is recognised, whatever the ids and requests
    /// were that it came from. An outcome for each, in the order given.
    pub async fn happened(&self, caller: &Caller, requests: &[&CommandRequest]) -> Vec<Result<bool, ExecuteError>> {
        let mut happened: Vec<Result<bool, ExecuteError>> = requests.iter().map(|_| Ok(false)).collect();
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
                Ok(there) => there.into_iter().for_each(|index| happened[index] = Ok(true)),
                Err(error) => at.into_values().flatten().for_each(|index| happened[index] = Err(error.clone())),
            }
        }
        happened
    }

    /// The requests, by the version that each would make, whose event is there.
    async fn happened_to(
        &self,
        caller: &Caller,
        task_id: TaskId,
        at: &BTreeMap<i64, Vec<usize>>,
        requests: &[&CommandRequest],
    ) -> Result<Vec<usize>, ExecuteError> {
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
                there.extend(indices.iter().copied().filter(|index| {
                    let request = requests[*index];
                    request.occurred_at == Some(stored.occurred_at)
                        && event_of(&request.command).as_ref() == Some(&event)
                }));
            }
            if !more || after >= *last {
                return Ok(there);
            }
        }
    }
}
