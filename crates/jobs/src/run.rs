//! Carries out jobs, a few at a time, as long as the process runs.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use process::periodic::Periodic;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::archive::archive;
use crate::bulk::bulk;
use crate::dry_run::dry_run;
use crate::export::export;
use crate::failure::Failure;
use crate::import::import;
use crate::job::{Request, State};
use crate::lease::{LEASE_MS, Lease};
use crate::progress::{Ended, Left, Progress};
use crate::undo::undo;
use crate::worker::Worker;

/// How many jobs a process carries out at a time.
const JOBS_AT_ONCE_MAX: usize = 4;
/// How often it is looked for jobs, in milliseconds.
const LOOK_MS: u64 = 500;
/// How often a lease is renewed, in milliseconds: several times before it would end.
const RENEWAL_MS: u64 = 1_000;
/// How often it is looked for jobs whose time is over, in seconds.
const FORGETTING_S: u64 = 60;
/// How many of them are forgotten at a time.
const FORGOTTEN_JOBS_MAX: i64 = 100;
/// How often it is looked for files that no job has, in seconds.
const SWEEP_S: u64 = 600;
/// How long nothing may happen to them before they count as left behind, in seconds.
const LEFT_BEHIND_S: u64 = 3_600;
/// How many of them are looked at a time.
const SWEPT_FILES_MAX: usize = 10_000;
/// A job that was first begun so long ago and has to be begun again fails instead, in seconds.
const SINCE_BEGUN_S_MAX: f64 = 86_400.0;

impl Worker {
    /// Works until `stop`. What is not done by then is left to another copy.
    pub async fn run(self, stop: CancellationToken) {
        let mut looking = Periodic::every(Duration::from_millis(LOOK_MS), "looking for jobs", stop.clone());
        let forgetting = self.clone().forget(stop.clone());
        let sweeping = self.clone().sweep(stop.clone());
        let working = async {
            let added = Arc::clone(&self.jobs.added);
            let mut under_way = JoinSet::new();
            loop {
                let sooner = async {
                    tokio::select! {
                        () = added.notified() => {}
                        Some(_) = under_way.join_next() => {}
                    }
                };
                if looking.due_or(sooner).await.is_none() {
                    break;
                }
                while under_way.try_join_next().is_some() {}
                while under_way.len() < JOBS_AT_ONCE_MAX
                    // what is taken now would only be left again
                    && self.files.check_room().is_ok()
                    && let Some(Some(lease)) = looking.seen(self.jobs.take().await)
                {
                    under_way.spawn(self.clone().carry_out(lease, stop.clone()));
                }
                gauge!("jobs_running").set(under_way.len() as f64);
            }
            while under_way.join_next().await.is_some() {}
        };
        tokio::join!(working, forgetting, sweeping);
    }

    async fn carry_out(self, lease: Lease, stop: CancellationToken) {
        let (id, kind) = (lease.id, lease.request.kind().as_str());
        let kept = lease.clone();
        let mut progress = Progress::new(self.jobs.clone(), lease, self.explain);
        let cancelled = progress.cancelled.clone();
        let outcome = tokio::select! {
            outcome = self.work(&mut progress) => outcome,
            left = self.keep(&kept, &cancelled) => Err(left),
            () = stop.cancelled() => {
                if let Err(error) = self.jobs.release(&kept).await {
                    tracing::warn!(job_id = %id, %error, "the lease on a job was not given back; it expires");
                }
                return;
            }
        };
        let ended = match outcome {
            Ok(ended) => self.end(&progress, ended).await,
            Err(left) => Err(left),
        };
        match ended {
            Ok(state) => counter!("jobs_ended_total", "kind" => kind, "state" => state.as_str()).increment(1),
            Err(left) => {
                counter!("jobs_left_total", "kind" => kind).increment(1);
                tracing::warn!(job_id = %id, reason = %left, "a job was left before its end; whoever is free goes on with it");
            }
        }
    }

    async fn work(&self, progress: &mut Progress) -> Result<Ended, Left> {
        if progress.lease.since_begun_s > SINCE_BEGUN_S_MAX {
            return Ok(Ended::Failed(Failure::TookTooLong));
        }
        match progress.lease.request.clone() {
            Request::Import { format } if progress.lease.dry_run => dry_run(self, progress, format).await,
            Request::Import { format } => import(self, progress, format).await,
            Request::Export { format, filters, until } => export(self, progress, format, &filters, until).await,
            Request::Archive { until } => archive(self, progress, until).await,
            Request::Bulk { filters, command, until } => bulk(self, progress, &filters, &command, until).await,
            Request::Undo { change_id } => undo(self, progress, change_id).await,
        }
    }

    async fn end(&self, progress: &Progress, ended: Ended) -> Result<State, Left> {
        let (state, problem, bytes) = match ended {
            Ended::Succeeded => (State::Succeeded, None, None),
            Ended::Written(bytes) => (State::Succeeded, None, Some(bytes)),
            Ended::Failed(failure) => (State::Failed, Some(progress.problem_of(&failure)), None),
            Ended::Cancelled => (State::Cancelled, None, None),
        };
        self.jobs.end(&progress.lease, state, problem.as_deref(), bytes).await?.map_err(|_| Left::Lost)?;
        if bytes.is_none() {
            // What is left behind goes when the job is forgotten.
            let _ = self.files.delete(progress.lease.id).await;
        }
        Ok(state)
    }

    /// Renews the lease until it is lost.
    async fn keep(&self, lease: &Lease, cancelled: &CancellationToken) -> Left {
        let mut renewed = Instant::now();
        loop {
            sleep(Duration::from_millis(RENEWAL_MS)).await;
            let asked = Instant::now();
            match self.jobs.renew(lease).await {
                Ok(Ok(is_cancelled)) => {
                    renewed = asked;
                    if is_cancelled {
                        cancelled.cancel();
                    }
                }
                Ok(Err(_)) => return Left::Lost,
                // By then it is somebody else's.
                Err(error) if renewed.elapsed() > Duration::from_millis(LEASE_MS) => return error.into(),
                Err(_) => {}
            }
        }
    }

    async fn forget(self, stop: CancellationToken) {
        let mut forgetting = Periodic::every(Duration::from_secs(FORGETTING_S), "forgetting old jobs", stop);
        while forgetting.due().await {
            forgetting.seen(self.forget_expired().await);
        }
    }

    async fn forget_expired(&self) -> Result<(), Left> {
        let expired = self.jobs.expired(FORGOTTEN_JOBS_MAX).await?;
        for id in &expired {
            self.files.delete(*id).await?;
        }
        self.jobs.forget(&expired).await?;
        Ok(())
    }

    async fn sweep(self, stop: CancellationToken) {
        let mut sweeping = Periodic::every(Duration::from_secs(SWEEP_S), "looking for files that no job has", stop);
        while sweeping.due().await {
            sweeping.seen(self.remove_left_behind().await);
        }
    }

    /// Files of imports whose process died before their job was added.
    async fn remove_left_behind(&self) -> Result<(), Left> {
        let age = Duration::from_secs(LEFT_BEHIND_S);
        self.files.remove_drafts(age).await?;
        let old = self.files.imports_older_than(age, SWEPT_FILES_MAX).await?;
        for id in self.jobs.unknown(&old).await? {
            self.files.delete(id).await?;
        }
        Ok(())
    }
}
