//! Requests that wait for a lookup at one source. What gathers while one is under way is the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::ReadError;
use crate::owner_version::{Owner, OwnerVersion};

/// Owners in one lookup.
const LOOKUP_OWNERS_MAX: usize = 1_000;
/// Requests that may wait; more are turned away.
const WAITING_MAX: usize = 20_000;

/// Answers a request.
pub(super) type Sender = oneshot::Sender<Result<Arc<OwnerVersion>, ReadError>>;

/// The requests that wait for each owner.
pub(super) type Batch = HashMap<Uuid, Requests>;

#[derive(Debug)]
pub(super) struct Requests {
    pub shard: i16,
    pub senders: Vec<Sender>,
}

#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    owners: Batch,
    requests: usize,
    /// A task takes what has gathered.
    is_served: bool,
}

impl Queue {
    /// Adds requests. True: no task takes them, and the caller is to start one. Where too many wait they are told so.
    pub fn push(&self, owner: Owner, senders: Vec<Sender>) -> Result<bool, ReadError> {
        let mut waiting = self.lock();
        if waiting.requests + senders.len() > WAITING_MAX {
            for sender in senders {
                let _ = sender.send(Err(ReadError::Overloaded));
            }
            return Err(ReadError::Overloaded);
        }
        waiting.requests += senders.len();
        let requests = waiting.owners.entry(owner.id);
        requests.or_insert_with(|| Requests { shard: owner.shard, senders: Vec::new() }).senders.extend(senders);
        Ok(!std::mem::replace(&mut waiting.is_served, true))
    }

    /// Takes what has gathered; `None`: nothing, and the task that takes it ends.
    pub fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        if waiting.owners.is_empty() {
            waiting.is_served = false;
            return None;
        }
        if waiting.owners.len() <= LOOKUP_OWNERS_MAX {
            waiting.requests = 0;
            return Some(std::mem::take(&mut waiting.owners));
        }
        let some: Vec<Uuid> = waiting.owners.keys().take(LOOKUP_OWNERS_MAX).copied().collect();
        let batch: Batch = some.into_iter().filter_map(|owner| waiting.owners.remove_entry(&owner)).collect();
        waiting.requests -= batch.values().map(|requests| requests.senders.len()).sum::<usize>();
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
