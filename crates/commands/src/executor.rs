//! Executes commands: replays a known outcome, or decides on the cached stream and appends. After a version conflict the
//! command is decided again.
//!
//! Nothing is answered from uncommitted state. An outcome with events is confirmed by the append, which checks the
//! version that it was decided on; an outcome without events (nothing to do, or refused) is confirmed by a lookup that
//! began after the command arrived.

use std::collections::HashMap;
use std::sync::Arc;

use domain::{OwnerId, TaskId};
use event_store::EventStore;
use futures_util::StreamExt;
use tokio::sync::MutexGuard;

use crate::chain::{Caches, Chain, IsNew};
use crate::keyed_locks::{Busy, KeyedLocks};
use crate::outcome::{Accepted, ExecuteError};
use crate::request::{Caller, CommandRequest};

/// How many batches may be executed at the same time. Whoever accepts batches enforces it.
pub const BATCHES_AT_ONCE_MAX: u32 = 8;
/// How many streams of one batch are executed at the same time.
const STREAMS_IN_FLIGHT_MAX: usize = 256;
// All batches together leave half of each queue of the store to single commands.
const _: () = assert!(BATCHES_AT_ONCE_MAX as usize * STREAMS_IN_FLIGHT_MAX <= event_store::QUEUE_MAX / 2);

/// Executes commands. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    store: EventStore,
    caches: Caches,
    /// Serialise equal commands: the second finds the outcome of the first.
    command_locks: KeyedLocks,
    /// Serialise commands to one task, which would otherwise conflict in the store.
    stream_locks: KeyedLocks,
}

impl Executor {
    /// An executor that appends to `store`.
    #[must_use]
    pub fn new(store: EventStore) -> Self {
        let (command_locks, stream_locks) = (KeyedLocks::new(), KeyedLocks::new());
        Self { inner: Arc::new(Inner { store, caches: Caches::default(), command_locks, stream_locks }) }
    }

    /// The event store that it appends to.
    #[must_use]
    pub fn store(&self) -> &EventStore {
        &self.inner.store
    }

    /// The position of the owner's last event that this process has appended or looked up; 0 where it knows of none.
    #[must_use]
    pub fn last_position(&self, owner: OwnerId) -> i64 {
        self.inner.caches.last_positions.of(owner)
    }

    /// An event of the owner is at this position.
    pub(crate) fn note_position(&self, owner: OwnerId, position: i64) {
        self.inner.caches.last_positions.note(owner, position);
    }

    /// Nobody else of this process changes the task until the lock is dropped.
    pub(crate) async fn lock_stream(
        &self,
        owner: OwnerId,
        task_id: TaskId,
    ) -> Result<Vec<MutexGuard<'_, ()>>, ExecuteError> {
        self.inner.stream_locks.lock([(owner, task_id)].into_iter()).await.map_err(|_| ExecuteError::Contended)
    }

    /// What is cached of a stream is out of date.
    pub(crate) fn forget_stream(&self, owner: OwnerId, task_id: TaskId) {
        self.inner.caches.forget_stream(owner, task_id);
    }

    /// Executes one command.
    ///
    /// # Errors
    /// See [`ExecuteError`]. After any but `Unavailable` it is certain that nothing was changed.
    pub async fn execute(&self, caller: &Caller, request: CommandRequest) -> Result<Accepted, ExecuteError> {
        let mut outcomes = self.execute_stream(caller, request.task_id, vec![request], IsNew::Unknown).await;
        outcomes.pop().unwrap_or(Err(ExecuteError::Failed))
    }

    /// Executes one command to a task whose id was made for it, so that nobody else can know the id: neither is there
    /// anything of the task to be looked for, nor anybody to be waited for.
    ///
    /// # Errors
    /// As of [`Self::execute`].
    pub async fn execute_new(&self, caller: &Caller, request: CommandRequest) -> Result<Accepted, ExecuteError> {
        let mut outcomes = self.execute_stream(caller, request.task_id, vec![request], IsNew::Yes).await;
        outcomes.pop().unwrap_or(Err(ExecuteError::Failed))
    }

    /// Executes many commands: each on its own, those to one task in order. Returns an outcome for each, in the order given.
    pub async fn execute_all(
        &self,
        caller: &Caller,
        requests: Vec<CommandRequest>,
    ) -> Vec<Result<Accepted, ExecuteError>> {
        let mut outcomes: Vec<_> = requests.iter().map(|_| Err(ExecuteError::Failed)).collect();
        let mut groups: Vec<(TaskId, Vec<usize>, Vec<CommandRequest>)> = Vec::new();
        let mut group_of: HashMap<TaskId, usize> = HashMap::new();
        for (index, request) in requests.into_iter().enumerate() {
            let group = *group_of.entry(request.task_id).or_insert_with(|| {
                groups.push((request.task_id, Vec::new(), Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(index);
            groups[group].2.push(request);
        }
        let mut done = futures_util::stream::iter(groups)
            .map(async |(task_id, indices, requests)| {
                (indices, self.execute_stream(caller, task_id, requests, IsNew::Unknown).await)
            })
            .buffer_unordered(STREAMS_IN_FLIGHT_MAX);
        while let Some((indices, results)) = done.next().await {
            for (index, result) in indices.into_iter().zip(results) {
                outcomes[index] = result;
            }
        }
        outcomes
    }

    /// Executes commands to one task, in order: with one append, unless a version conflict splits it.
    async fn execute_stream(
        &self,
        caller: &Caller,
        task_id: TaskId,
        requests: Vec<CommandRequest>,
        is_new: IsNew,
    ) -> Vec<Result<Accepted, ExecuteError>> {
        let Inner { store, caches, command_locks, stream_locks } = &*self.inner;
        let identities = requests.iter().filter_map(|request| request.identity);
        let keys = identities.map(|identity| (caller.owner, identity.command_id));
        let _command_locks = match command_locks.lock(keys).await {
            Ok(locks) => locks,
            Err(Busy::Equal) => return requests.iter().map(|_| Err(ExecuteError::InFlight)).collect(),
            Err(Busy::Other) => return requests.iter().map(|_| Err(ExecuteError::Contended)).collect(),
        };
        let mut chain = Chain::new(store, caches, caller, task_id, is_new, requests);
        chain.replay_cached();
        if !chain.is_done() {
            let others = (is_new == IsNew::Unknown).then_some((caller.owner, task_id));
            match stream_locks.lock(others.into_iter()).await {
                Ok(_stream_lock) => {
                    if let Err(error) = chain.run().await {
                        chain.fail_rest(&error);
                    }
                }
                Err(Busy::Equal | Busy::Other) => chain.fail_rest(&ExecuteError::Contended),
            }
        }
        chain.into_outcomes()
    }
}
