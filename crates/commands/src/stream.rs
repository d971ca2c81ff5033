use std::sync::Arc;

use domain::{OwnerId, State, StoredEvent, TaskEvent, TaskId, Time, evolve};
use quick_cache::Weighter;

use crate::outcome::ExecuteError;

/// A task's stream as far as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Of the last event; 0: none.
    pub(crate) version: i64,
    /// Position of the last event.
    pub(crate) revision: i64,
    pub(crate) last_occurred_at: Option<Time>,
    pub(crate) state: State,
}

impl Stream {
    pub(crate) fn apply(&mut self, event: &TaskEvent, occurred_at: Time) {
        self.version += 1;
        self.last_occurred_at = Some(occurred_at);
        self.state = evolve(std::mem::take(&mut self.state), event);
    }

    /// Applies events that were read.
    pub(crate) fn fold(&mut self, events: &[StoredEvent]) -> Result<(), ExecuteError> {
        for stored in events {
            let event = stored.decode().map_err(|error| {
                tracing::error!(owner_id = %stored.owner_id, position = stored.position, %error, "unreadable event");
                ExecuteError::Unreadable
            })?;
            self.apply(&event, stored.occurred_at);
            self.revision = stored.position;
        }
        Ok(())
    }
}

/// How much memory a cached stream takes.
#[derive(Clone)]
pub(crate) struct StreamWeight;

impl Weighter<(OwnerId, TaskId), Arc<Stream>> for StreamWeight {
    fn weight(&self, _: &(OwnerId, TaskId), stream: &Arc<Stream>) -> u64 {
        // The entry, and about as much again for what the cache and the allocator keep beside it.
        (2 * size_of::<Stream>() + stream.state.heap_bytes() + 128) as u64
    }
}
