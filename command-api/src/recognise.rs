//! What the log holds already, for imports: commands by their ids, and events by what they say.

use std::collections::{BTreeMap, HashSet};

use domain::{CommandId, TaskId, event_of};
use event_store::Looked;
use futures_util::StreamExt;
use uuid::Uuid;

use crate::execute::{Caller, Executor, Expected, Item, Refused};

/// How many tasks are read at a time.
const TASKS_IN_FLIGHT_MAX: usize = 64;

impl Executor {
    /// Those of the caller's command ids that had an effect or found nothing to do.
    ///
    /// # Errors
    /// The store is busy or does not answer.
    pub async fn known(&self, caller: &Caller, command_ids: Vec<CommandId>) -> Result<HashSet<CommandId>, Refused> {
        let no_task = TaskId(Uuid::nil());
        let looked = self.store().look_up(caller.owner, no_task, i64::MAX, command_ids).await?;
        Ok(looked.outcomes.into_iter().map(|(command_id, _)| command_id).collect())
    }

    /// Of commands that were refused: whether the very event that each would make, at its time, stands in the log, as the
    /// one after the version that it expects. So an account's own export is recognised, whatever the ids and requests
    /// were that it came from. An outcome for each, in the order given.
    pub async fn happened(&self, caller: &Caller, items: &[&Item]) -> Vec<Result<bool, Refused>> {
        let mut happened: Vec<Result<bool, Refused>> = items.iter().map(|_| Ok(false)).collect();
        let mut of_task: BTreeMap<TaskId, BTreeMap<i64, Vec<usize>>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            if let Expected::OneOf(versions) = &item.expected
                && let [version] = versions.as_slice()
                && item.occurred_at.is_some()
            {
                of_task.entry(item.task_id).or_default().entry(version + 1).or_default().push(index);
            }
        }
        let mut looked = futures_util::stream::iter(of_task)
            .map(async |(task_id, at)| (self.happened_to(caller, task_id, &at, items).await, at))
            .buffer_unordered(TASKS_IN_FLIGHT_MAX);
        while let Some((there, at)) = looked.next().await {
            match there {
                Ok(there) => there.into_iter().for_each(|index| happened[index] = Ok(true)),
                Err(refused) => at.into_values().flatten().for_each(|index| happened[index] = Err(refused.clone())),
            }
        }
        happened
    }

    /// The items, by the version that each would make, whose event is there.
    async fn happened_to(
        &self,
        caller: &Caller,
        task_id: TaskId,
        at: &BTreeMap<i64, Vec<usize>>,
        items: &[&Item],
    ) -> Result<Vec<usize>, Refused> {
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
                let event = stored.decode().map_err(|_| Refused::Unreadable)?;
                there.extend(indices.iter().copied().filter(|index| {
                    let item = items[*index];
                    item.occurred_at == Some(stored.occurred_at) && event_of(&item.command).as_ref() == Some(&event)
                }));
            }
            if !more || after >= *last {
                return Ok(there);
            }
        }
    }
}
