//! Several transactions carry out a batch, so its key is bound to it first. A lease sees to it that of equal ones, at
//! whatever copy of the service, one is carried out; where that process dies, or its client goes away, the lease expires
//! and another takes over. In the end the whole answer is kept. A batch that is carried out again repeats nothing: each of
//! its commands has an id.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use domain::{OwnerId, TaskId};
use event_store::{
    AppendError, CommandOrigin, DecidedCommand, Effect, EventStore, Outcome, StreamAppend, is_same_request,
};
use process::clock::new_id;
use process::context::without_permit;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use crate::identity::CommandIdentity;
use crate::outcome::ExecuteError;
use crate::request::Caller;

/// How long an equal batch that is under way is waited for, in milliseconds. Longer than a lease lasts.
const EQUAL_WAIT_MS_MAX: u64 = 10_000;
/// How often it is looked for its answer, in milliseconds.
const EQUAL_LOOK_MS: u64 = 100;
/// How often a lease is renewed, in milliseconds: several times before it would end.
pub(crate) const RENEWAL_MS: u64 = 500;
/// How many old answers are forgotten with each that is kept: more than one, so that they run out.
const FORGOTTEN_WITH_EACH: i64 = 4;

/// What a key stands for that is bound to a batch.
const NO_TASK: TaskId = TaskId(Uuid::nil());

/// A batch under an Idempotency-Key.
pub struct KeyedBatch<'a> {
    store: &'a EventStore,
    owner: OwnerId,
    identity: CommandIdentity,
    /// This request.
    holder: Uuid,
    /// What it makes: the change of the first request under this key.
    change_id: Uuid,
}

impl<'a> KeyedBatch<'a> {
    /// `identity`: of the key, and of the whole batch.
    #[must_use]
    pub fn new(store: &'a EventStore, caller: &Caller, identity: CommandIdentity) -> Self {
        Self { store, owner: caller.owner, identity, holder: new_id(), change_id: caller.change_id }
    }

    /// The answer of an equal batch, where it is kept.
    ///
    /// # Errors
    /// The key was used for another batch, or the store does not answer.
    pub async fn answer(&self) -> Result<Option<String>, ExecuteError> {
        let kept = self.store.batch_answer(self.owner, self.identity.command_id).await.map_err(unavailable)?;
        match kept {
            Some(kept) if kept.fingerprint != self.identity.fingerprint => Err(ExecuteError::IdentityReused),
            kept => Ok(kept.map(|kept| kept.body)),
        }
    }

    /// Whether the key is bound to this batch: somebody has begun it.
    ///
    /// # Errors
    /// The key was used for another request, or the store does not answer.
    pub async fn is_bound(&self) -> Result<bool, ExecuteError> {
        Ok(self.bound().await?.is_some())
    }

    async fn bound(&self) -> Result<Option<Outcome>, ExecuteError> {
        let CommandIdentity { command_id, fingerprint } = self.identity;
        let looked = self.store.look_up(self.owner, NO_TASK, i64::MAX, vec![command_id]).await?;
        match looked.outcomes.first() {
            Some((_, known)) if !is_same_request(known.fingerprint, fingerprint) => Err(ExecuteError::IdentityReused),
            known => Ok(known.map(|(_, known)| *known)),
        }
    }

    /// Binds the key to this batch before anything is done: an outcome that is no command's. So the key cannot be used for
    /// another request from now on, nor for this one if it was used before, by a single request or by another batch.
    /// Returns the change that its events are of: who goes on after a crash goes on with the same one.
    ///
    /// # Errors
    /// The key was used for another request, or the store does not answer.
    pub async fn bind(&mut self, caller: &Caller) -> Result<Uuid, ExecuteError> {
        let Caller { shard, actor, correlation_id, traceparent, change_id, .. } = caller.clone();
        let CommandIdentity { command_id, fingerprint } = self.identity;
        let bound = DecidedCommand {
            command_id,
            fingerprint: Some(fingerprint),
            effect: Effect::Changed,
            change_id: Some(change_id),
            events: Vec::new(),
        };
        let append = StreamAppend {
            owner_id: self.owner,
            task_id: NO_TASK,
            is_new_task: false,
            expected_version: 0,
            expected_revision: 0,
            origin: CommandOrigin { actor, correlation_id, traceparent, change_id, undoes: None },
            commands: vec![bound],
        };
        match self.store.append(shard, append).await {
            Ok(_) => Ok(self.change_id),
            Err(AppendError::CommandKnown) => {
                // An earlier attempt at the same: what it did is replayed.
                let known = self.bound().await?.ok_or(ExecuteError::Unavailable)?;
                self.change_id = known.change_id.unwrap_or(change_id);
                Ok(self.change_id)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lease, or for the answer of an equal batch: then there is no lease.
    ///
    /// # Errors
    /// Neither came in time, or the store does not answer.
    pub async fn lease_or_answer(&self) -> Result<Option<String>, ExecuteError> {
        self.wait(true).await
    }

    async fn wait(&self, may_lease: bool) -> Result<Option<String>, ExecuteError> {
        let deadline = Instant::now() + Duration::from_millis(EQUAL_WAIT_MS_MAX);
        let (owner, command_id) = (self.owner, self.identity.command_id);
        loop {
            let leased = may_lease
                && self.store.lease_batch(owner, command_id, self.holder, self.change_id).await.map_err(unavailable)?;
            // After the lease: until then somebody else may have answered.
            let answer = self.answer().await;
            if leased && !matches!(answer, Ok(None)) {
                self.release().await;
            }
            if let Some(body) = answer? {
                return Ok(Some(body));
            }
            if leased {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Err(ExecuteError::InFlight);
            }
            without_permit(sleep(Duration::from_millis(EQUAL_LOOK_MS))).await;
        }
    }

    /// Renews the lease while the work goes on.
    pub async fn renewed_during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.renew() => match never {},
        }
    }

    async fn renew(&self) -> Infallible {
        let mut renewals = interval(Duration::from_millis(RENEWAL_MS));
        renewals.tick().await;
        loop {
            renewals.tick().await;
            // One that is lost is noticed when the answer is to be kept.
            if let Err(error) = self.store.renew_batch(self.owner, self.identity.command_id, self.holder).await {
                tracing::warn!(%error, "the lease on a batch was not renewed");
            }
        }
    }

    /// Gives the lease back without an answer.
    pub async fn release(&self) {
        if let Err(error) = self.store.release_batch(self.owner, self.identity.command_id, self.holder).await {
            tracing::warn!(%error, "the lease on a batch was not given back; it expires");
        }
    }

    /// Keeps the answer and ends the lease. Gives back another answer where that one counts: this process was held up for
    /// so long that another one took over.
    ///
    /// # Errors
    /// Whether it was kept is not known. What was done is done; asked again, it is replayed command by command.
    pub async fn keep(&self, body: &str) -> Result<Option<String>, ExecuteError> {
        let CommandIdentity { command_id, fingerprint } = self.identity;
        let kept = self.store.keep_batch_answer(self.owner, command_id, self.holder, fingerprint, body).await;
        if !kept.map_err(unavailable)? {
            return self.wait(false).await;
        }
        if let Err(error) = self.store.forget_old_batch_answers(FORGOTTEN_WITH_EACH).await {
            tracing::warn!(%error, "old batch answers were not forgotten");
        }
        Ok(None)
    }
}

fn unavailable(error: impl Display) -> ExecuteError {
    tracing::warn!(%error, "the answers of batches are unavailable");
    ExecuteError::Unavailable
}
