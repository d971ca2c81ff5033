use std::sync::Arc;
use std::time::Duration;

use access::token::Sealer;
use commands::executor::BATCHES_AT_ONCE_MAX;
use commands::{Accepted, Effect, Executor};
use domain::OwnerId;
use event_store::{EventStore, TailReader};
use http_api::problem::{Problem, ProblemCode};
use jobs::{AccountRecords, Files, Jobs, Worker};
use metrics::{Counter, counter};
use process::budget::{Budget, Reservation};
use process::context::without_permit;
use tokio::time::timeout;

use crate::refusal;

/// How many of the batches under way may be one account's, so that others get a permit whatever it sends.
const BATCHES_EACH_MAX: u32 = 4;
/// How long a batch waits for a permit, in milliseconds.
const BATCH_WAIT_MS_MAX: u64 = 10_000;

/// How many files may come at the same time: each has parts of some MiB in memory.
const UPLOADS_AT_ONCE_MAX: u32 = 8;
/// How many of them may be one account's.
const UPLOADS_EACH_MAX: u32 = 2;
/// How long one waits for a permit, in milliseconds.
const UPLOAD_WAIT_MS_MAX: u64 = 10_000;

/// What the handlers work with. Cheap to clone, as it is four times for each request on its way to its handler.
#[derive(Clone)]
pub struct CommandApi(Arc<Inner>);

struct Inner {
    executor: Executor,
    sealer: Sealer,
    /// Permits of batches: so many are carried out at a time, and the others take no place from single commands.
    batches: Budget<OwnerId>,
    jobs: Jobs,
    /// Of jobs, where an object store is configured.
    files: Option<Files>,
    /// Permits of files that come.
    uploads: Budget<OwnerId>,
    tasks_created: Counter,
}

impl CommandApi {
    /// Commands go to `store`; `sealer` makes the consistency tokens of the answers. Without `files` there are no imports.
    #[must_use]
    pub fn new(store: EventStore, sealer: Sealer, jobs: Jobs, files: Option<Files>) -> Self {
        let files = files.map(|files| files.beside(store.disk_space()));
        Self(Arc::new(Inner {
            executor: Executor::new(store),
            sealer,
            batches: Budget::new(BATCHES_AT_ONCE_MAX, BATCHES_EACH_MAX),
            jobs,
            files,
            uploads: Budget::new(UPLOADS_AT_ONCE_MAX, UPLOADS_EACH_MAX),
            tasks_created: counter!("tasks_created_total"),
        }))
    }

    /// What carries out the jobs, where there are files. They read tasks by `reads`, and what is known of accounts from
    /// `account`.
    pub(crate) fn worker(&self, reads: TailReader, account: AccountRecords) -> Option<Worker> {
        self.0.files.clone().map(|files| Worker {
            jobs: self.0.jobs.clone(),
            files,
            reads,
            account,
            executor: self.0.executor.clone(),
            permits: self.0.batches.clone(),
            explain: refusal::EXPLAIN,
        })
    }

    /// The jobs of all accounts.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.0.jobs
    }

    /// The files of jobs.
    pub(crate) fn files(&self) -> Result<&Files, Problem> {
        self.0.files.as_ref().ok_or_else(|| Problem::new(ProblemCode::NotConfigured))
    }

    /// Waits until a file of this account may come.
    pub(crate) async fn upload_permit(&self, owner: OwnerId) -> Result<Reservation<OwnerId>, Problem> {
        let taken = timeout(Duration::from_millis(UPLOAD_WAIT_MS_MAX), self.0.uploads.take(owner, 1));
        without_permit(taken).await.map_err(|_| Problem::overloaded())
    }

    /// What carries out the commands.
    #[must_use]
    pub fn executor(&self) -> &Executor {
        &self.0.executor
    }

    /// Waits until a batch of this account may be carried out.
    pub(crate) async fn batch_permit(&self, owner: OwnerId) -> Result<Reservation<OwnerId>, Problem> {
        let taken = timeout(Duration::from_millis(BATCH_WAIT_MS_MAX), self.0.batches.take(owner, 1));
        without_permit(taken).await.map_err(|_| Problem::overloaded())
    }

    /// Makes and opens the tokens and cursors.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    /// Counts a command that was accepted.
    pub(crate) fn count(&self, accepted: &Accepted) {
        if accepted.effect == Effect::Created && !accepted.replayed {
            self.0.tasks_created.increment(1);
        }
    }
}
