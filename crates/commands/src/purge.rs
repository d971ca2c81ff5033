//! Purges what was deleted 30 days ago: its content goes from every read model.
//!
//! Each copy does it, each hour. What another one has purged, or its owner has restored, is as it should be.

use std::fmt::Display;
use std::time::Duration;

use chrono::TimeDelta;
use domain::{Actor, ActorType, OwnerId, RESTORABLE_DAYS, TaskCommand};
use event_store::Deletion;
use process::clock::{self, new_id};
use process::context::RequestContext;
use process::periodic::Periodic;
use tokio_util::sync::CancellationToken;

use crate::executor::Executor;
use crate::outcome::ExecuteError;
use crate::request::{Caller, CommandRequest, ExpectedVersion};

/// How often deletions are looked for that are old enough.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// Deletions dealt with at a time; so few that commands of others hardly wait for them.
const DELETIONS_AT_ONCE: i64 = 100;

impl Executor {
    /// Purges what was deleted 30 days ago, again and again until the process stops.
    pub async fn purge(self, stop: CancellationToken) {
        let mut purging = Periodic::every(INTERVAL, "purging tasks that were deleted 30 days ago", stop.clone());
        while purging.due().await {
            purging.seen(self.purge_old(&stop).await);
        }
    }

    async fn purge_old(&self, stop: &CancellationToken) -> Result<(), String> {
        let (store, before) = (self.store(), clock::now() - TimeDelta::days(RESTORABLE_DAYS));
        for shard in store.shards() {
            self.purge_left(shard, stop).await?;
            while !stop.is_cancelled()
                && let Some(due) = store.deletions_before(shard, before, DELETIONS_AT_ONCE).await.map_err(text)?
            {
                let left = self.purge_deletions(shard, &due.deletions).await?;
                store.purged_until(shard, due.until, &left).await.map_err(text)?;
            }
        }
        Ok(())
    }

    /// Purges what was left before, if it can be read by now: by another version of the program.
    async fn purge_left(&self, shard: i16, stop: &CancellationToken) -> Result<(), String> {
        let mut after = 0;
        while !stop.is_cancelled() {
            let deletions = self.store().deletions_left(shard, after, DELETIONS_AT_ONCE).await.map_err(text)?;
            let Some(last) = deletions.last() else { break };
            after = last.position;
            let left = self.purge_deletions(shard, &deletions).await?;
            let done = deletions.iter().filter(|deletion| !left.contains(deletion)).map(|deletion| deletion.position);
            let done: Vec<i64> = done.collect();
            self.store().forget_deletions_left(shard, &done).await.map_err(text)?;
        }
        Ok(())
    }

    /// Purges tasks, those of each owner as a change of its own. Returns the deletions that cannot be dealt with.
    async fn purge_deletions(&self, shard: i16, deletions: &[Deletion]) -> Result<Vec<Deletion>, String> {
        let mut left = Vec::new();
        for of_owner in deletions.chunk_by(|one, next| one.owner_id == next.owner_id) {
            left.extend(self.purge_tasks(shard, of_owner[0].owner_id, of_owner).await?);
        }
        Ok(left)
    }

    /// Purges tasks of one owner, if nothing has happened to them since their deletion. Returns those that cannot be read.
    async fn purge_tasks(&self, shard: i16, owner: OwnerId, deletions: &[Deletion]) -> Result<Vec<Deletion>, String> {
        let context = RequestContext::fresh();
        let caller = Caller {
            owner,
            shard,
            actor: Actor { actor_type: ActorType::System, id: None },
            correlation_id: format!("purge-{}", context.request_id()).into(),
            traceparent: context.traceparent().into(),
            change_id: new_id(),
            history: false,
        };
        let request = |deletion: &Deletion| CommandRequest {
            task_id: deletion.task_id,
            command: TaskCommand::Purge,
            identity: None,
            expected: ExpectedVersion::OneOf(vec![deletion.version]),
            occurred_at: None,
        };
        let mut left = Vec::new();
        let outcomes = self.execute_all(&caller, deletions.iter().map(request).collect()).await;
        for (deletion, outcome) in deletions.iter().zip(outcomes) {
            match outcome {
                Ok(_) => {}
                // Restored, or purged by another copy.
                Err(ExecuteError::StaleVersion { .. } | ExecuteError::NotFound) => {}
                // It is told to the operator wherever it is met, and holds up no other task.
                Err(error @ ExecuteError::Unreadable) => {
                    tracing::error!(%owner, task_id = %deletion.task_id, %error, "a deleted task is not purged");
                    left.push(*deletion);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(left)
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
