//! A change that several appends make counts as being made until the last of them, so that an undo that comes in between
//! is refused, and does not take half of it back. (A batch under a key and a job say so by their own leases.)

use std::convert::Infallible;
use std::time::Duration;

use domain::OwnerId;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use crate::executor::Executor;
use crate::keyed_batch::RENEWAL_MS;
use crate::outcome::ExecuteError;
use crate::request::Caller;

/// How long it is tried to begin a change while the database is away, in milliseconds.
const BEGIN_MS_MAX: u64 = 5_000;
const BEGIN_PAUSE_MS: u64 = 100;

impl Executor {
    /// Does what makes the caller's change. Where that is broken off, or the process dies, the change counts as whole a few
    /// seconds later.
    ///
    /// # Errors
    /// The store does not answer; nothing was done.
    pub async fn make_change<T>(&self, caller: &Caller, work: impl Future<Output = T>) -> Result<T, ExecuteError> {
        let Caller { owner, change_id, .. } = *caller;
        self.begin_change(owner, change_id).await?;
        let done = tokio::select! {
            done = work => done,
            never = self.hold_change(owner, change_id) => match never {},
        };
        if let Err(error) = self.store().release_change(owner, change_id).await {
            tracing::warn!(%error, "a change counts as being made for a few seconds more");
        }
        Ok(done)
    }

    async fn begin_change(&self, owner: OwnerId, change_id: Uuid) -> Result<(), ExecuteError> {
        let began = Instant::now();
        while let Err(error) = self.store().hold_change(owner, change_id).await {
            if began.elapsed() > Duration::from_millis(BEGIN_MS_MAX) {
                tracing::warn!(%error, "a change was not begun");
                return Err(ExecuteError::Unavailable);
            }
            sleep(Duration::from_millis(BEGIN_PAUSE_MS)).await;
        }
        Ok(())
    }

    async fn hold_change(&self, owner: OwnerId, change_id: Uuid) -> Infallible {
        let mut renewals = interval(Duration::from_millis(RENEWAL_MS));
        renewals.tick().await;
        loop {
            renewals.tick().await;
            if let Err(error) = self.store().hold_change(owner, change_id).await {
                tracing::warn!(%error, "a change that is being made may be undone before it is whole");
            }
        }
    }
}
