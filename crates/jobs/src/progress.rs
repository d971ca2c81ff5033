use std::collections::BTreeMap;
use std::time::Duration;

use commands::Caller;
use domain::{Actor, ActorType};
use process::context::RequestContext;
use task_files::LineError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::failure::Failure;
use crate::job::Request;
use crate::lease::Lease;
use crate::step::{Step, StepFailure};
use crate::table::Jobs;
use crate::worker::Explain;

/// So many failed lines of a job are kept.
pub const FAILURES_MAX: i64 = 10_000;
/// How long a database that is away is tried again, in milliseconds.
const RETRY_MS_MAX: u64 = 60_000;
const PAUSE_MS_MAX: u64 = 1_000;

/// How a job came to its end here.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Carried out to the end.
    Succeeded,
    /// The same, with a file of so many bytes.
    Written(i64),
    /// Cannot be.
    Failed(Failure),
    /// By its owner.
    Cancelled,
}

/// Why it is not at its end, and left to whoever takes it next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Left {
    #[error("another copy carries it out")]
    Lost,
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Store(#[from] task_files::StoreAway),
    #[error("{0}")]
    Files(#[from] object_store::Error),
    #[error("{0}")]
    Export(#[from] task_files::ExportError),
    #[error("{0}")]
    Write(#[from] std::io::Error),
    #[error(transparent)]
    Read(#[from] task_files::ReadError),
    #[error("{0}")]
    Execute(#[from] commands::ExecuteError),
    #[error("what is known of the account: {0}")]
    Account(crate::account_records::AccountError),
    #[error("a thread died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

/// A job under way, and how far it is.
pub(crate) struct Progress {
    jobs: Jobs,
    pub lease: Lease,
    pub explain: Explain,
    /// Of the request that asked for it: problems name its trace.
    context: RequestContext,
    /// Whether its owner has cancelled it.
    pub cancelled: CancellationToken,
    step: Step,
}

impl Progress {
    pub fn new(jobs: Jobs, lease: Lease, explain: Explain) -> Self {
        let context = RequestContext::of_earlier(&lease.correlation_id, &lease.traceparent);
        let step = Step { after: lease.line, line: lease.line, ..Step::default() };
        let cancelled = CancellationToken::new();
        if lease.is_cancel_requested {
            cancelled.cancel();
        }
        Self { jobs, lease, explain, context, cancelled, step }
    }

    /// On whose behalf its commands run.
    pub fn caller(&self) -> Caller {
        let Lease { id, owner, shard, correlation_id, traceparent, .. } = &self.lease;
        Caller {
            owner: *owner,
            shard: *shard,
            actor: Actor { actor_type: ActorType::User, id: Some(owner.0) },
            correlation_id: correlation_id.as_str().into(),
            traceparent: traceparent.as_str().into(),
            // All that it does is one change, whoever goes on with it.
            change_id: *id,
            history: false,
        }
    }

    /// A line took effect, now or before.
    pub fn succeeded(&mut self, line: i64, events: u32, revision: Option<i64>) {
        self.step.line = line;
        self.step.succeeded += 1;
        self.step.events += i64::from(events);
        self.step.revision = self.step.revision.max(revision);
    }

    /// A line was rejected.
    pub fn failed(&mut self, line: i64, task_id: Option<Uuid>, error: LineError) {
        self.step.line = line;
        self.step.failed += 1;
        let number = self.lease.failed + self.step.failed;
        if number <= FAILURES_MAX {
            let problem = self.context.clone().sync_scope(|| (self.explain.line)(error));
            let line = matches!(self.lease.request, Request::Import { .. }).then_some(line);
            self.step.failures.push(StepFailure { number, line, task_id, problem });
        }
    }

    /// How many lines there are.
    pub async fn set_total(&mut self, total: i64) -> Result<(), Left> {
        self.jobs.set_total(&self.lease, total).await?;
        self.lease.total = Some(total);
        Ok(())
    }

    /// All lines were tried out; of those that failed the first ones.
    pub fn tried_out(
        &mut self,
        last_line: i64,
        succeeded: i64,
        failed: i64,
        failures: BTreeMap<i64, (Option<Uuid>, LineError)>,
    ) {
        for (line, (task_id, error)) in failures {
            self.failed(line, task_id, error);
        }
        self.step = Step { line: last_line, succeeded, failed, ..std::mem::take(&mut self.step) };
    }

    /// The problem by which it fails.
    pub fn problem_of(&self, failure: &Failure) -> String {
        self.context.clone().sync_scope(|| (self.explain.failure)(failure))
    }

    /// Begins anew, with so many tasks as of one revision.
    pub async fn restart(&mut self, total: i64, revision: i64) -> Result<(), Left> {
        self.jobs.restart(&self.lease, total, (revision > 0).then_some(revision)).await?;
        self.lease.total = Some(total);
        self.step = Step::default();
        Ok(())
    }

    /// Writes down what was done since.
    pub async fn write(&mut self) -> Result<(), Left> {
        if self.step.line == self.step.after {
            return Ok(());
        }
        let began = Instant::now();
        let mut pause_ms = 10;
        loop {
            match self.jobs.advance(&self.lease, &self.step).await {
                Ok(Ok(is_cancelled)) => {
                    self.lease.failed += self.step.failed;
                    self.step = Step { after: self.step.line, line: self.step.line, ..Step::default() };
                    if is_cancelled {
                        self.cancelled.cancel();
                    }
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Left::Lost),
                Err(error) if began.elapsed() > Duration::from_millis(RETRY_MS_MAX) => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(pause_ms)).await,
            }
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }
}
