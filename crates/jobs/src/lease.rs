//! Who carries a job out: one process at a time, by a lease that ends by the database's clock. What is written under an old
//! epoch has no effect.

use domain::{OwnerId, Time};
use uuid::Uuid;

use crate::job::{Request, State};
use crate::step::{Step, StepFailure};
use crate::table::{Jobs, RUNNING_EACH_MAX, SHOWN_DAYS, in_time};

/// How long a lease lasts that is not renewed, in milliseconds.
pub(crate) const LEASE_MS: u64 = 5_000;

/// A job that this process carries out.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub id: Uuid,
    pub epoch: i64,
    pub owner: OwnerId,
    pub shard: i16,
    pub request: Request,
    pub dry_run: bool,
    pub correlation_id: String,
    pub traceparent: String,
    pub created_at: Time,
    /// Everything up to this line is done.
    pub line: i64,
    pub total: Option<i64>,
    pub failed: i64,
    pub is_cancel_requested: bool,
    /// How long ago somebody first took it, in seconds: how long it has waited before that does not count.
    pub since_begun_s: f64,
}

/// The job is somebody else's now, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Jobs {
    /// Takes the lease on a job that nobody carries out: first of those that somebody did, then of the accounts that have
    /// the fewest under way.
    pub(crate) async fn take(&self) -> Result<Option<Lease>, sqlx::Error> {
        let waiting = sqlx::query_scalar!(
            r#"
            select exists (
                select from jobs.job
                where state = 'queued' or state = 'running' and lease_expires_at < clock_timestamp()
            ) as "waiting!"
            "#
        );
        if !in_time(waiting.fetch_one(&self.pool)).await? {
            return Ok(None);
        }
        in_time(self.take_in_turn()).await
    }

    async fn take_in_turn(&self) -> Result<Option<Lease>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // The next statement's snapshot is from after the wait.
        sqlx::query!("select from jobs.turn for update").execute(&mut *transaction).await?;
        let row = sqlx::query!(
            r#"
            with under_way as (
                select owner_id, count(*) as jobs from jobs.job where state = 'running' group by owner_id
            ), next as (
                select j.id
                from jobs.job j left join under_way u using (owner_id)
                where j.state = 'running' and j.lease_expires_at < clock_timestamp()
                    or j.state = 'queued' and coalesce(u.jobs, 0) < $1
                order by j.state = 'queued', coalesce(u.jobs, 0), j.id
                limit 1
            )
            update jobs.job j
            set state = 'running', epoch = epoch + 1, started_at = coalesce(started_at, now()),
                lease_expires_at = clock_timestamp() + make_interval(secs => $2)
            from next where j.id = next.id
            returning j.id, epoch, owner_id, shard, request, dry_run, correlation_id, traceparent,
                created_at as "created_at: Time",
                line, total, failed, is_cancel_requested,
                extract(epoch from clock_timestamp() - started_at)::float8 as "since_begun_s!"
            "#,
            RUNNING_EACH_MAX,
            LEASE_MS as f64 / 1000.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Lease {
            id: row.id,
            epoch: row.epoch,
            owner: OwnerId(row.owner_id),
            shard: row.shard,
            request: serde_json::from_str(&row.request).map_err(|error| sqlx::Error::Decode(error.into()))?,
            dry_run: row.dry_run,
            correlation_id: row.correlation_id,
            traceparent: row.traceparent,
            created_at: row.created_at,
            line: row.line,
            total: row.total,
            failed: row.failed,
            is_cancel_requested: row.is_cancel_requested,
            since_begun_s: row.since_begun_s,
        }))
    }

    /// Keeps the lease. Whether the owner has cancelled the job meanwhile.
    pub(crate) async fn renew(&self, lease: &Lease) -> Result<Result<bool, Lost>, sqlx::Error> {
        let renewed = sqlx::query_scalar!(
            r#"
            update jobs.job set lease_expires_at = clock_timestamp() + make_interval(secs => $3)
            where id = $1 and epoch = $2 and state = 'running'
            returning is_cancel_requested
            "#,
            lease.id,
            lease.epoch,
            LEASE_MS as f64 / 1000.0,
        );
        Ok(in_time(renewed.fetch_optional(&self.pool)).await?.ok_or(Lost))
    }

    /// Gives the lease back, so that another copy need not wait for its end.
    pub(crate) async fn release(&self, lease: &Lease) -> Result<(), sqlx::Error> {
        let released = sqlx::query!(
            "update jobs.job set lease_expires_at = '-infinity' where id = $1 and epoch = $2 and state = 'running'",
            lease.id,
            lease.epoch,
        );
        in_time(released.execute(&self.pool)).await.map(drop)
    }

    /// How many lines there are.
    pub(crate) async fn set_total(&self, lease: &Lease, total: i64) -> Result<(), sqlx::Error> {
        let set = sqlx::query!(
            "update jobs.job set total = $3 where id = $1 and epoch = $2 and state = 'running'",
            lease.id,
            lease.epoch,
            total,
        );
        in_time(set.execute(&self.pool)).await.map(drop)
    }

    /// How many tasks it is about, and the revision that it is of; nothing counts as done of what was before.
    pub(crate) async fn restart(&self, lease: &Lease, total: i64, revision: Option<i64>) -> Result<(), sqlx::Error> {
        let restarted = sqlx::query!(
            r#"
            update jobs.job set total = $3, revision = $4, line = 0, succeeded = 0, failed = 0
            where id = $1 and epoch = $2 and state = 'running'
            "#,
            lease.id,
            lease.epoch,
            total,
            revision,
        );
        in_time(restarted.execute(&self.pool)).await.map(drop)
    }

    /// More lines are done: all of it is written, or nothing. Whether the owner has cancelled the job meanwhile.
    pub(crate) async fn advance(&self, lease: &Lease, step: &Step) -> Result<Result<bool, Lost>, sqlx::Error> {
        let Step { after, line, succeeded, failed, events, revision, failures } = step;
        let column = |of: fn(&StepFailure) -> Option<Uuid>| failures.iter().map(of).collect::<Vec<_>>();
        let numbers: Vec<i64> = failures.iter().map(|failure| failure.number).collect();
        let lines: Vec<Option<i64>> = failures.iter().map(|failure| failure.line).collect();
        let problems: Vec<String> = failures.iter().map(|failure| failure.problem.clone()).collect();
        // A step that was written before its answer was lost is not counted again.
        let advanced = sqlx::query!(
            r#"
            with job as (
                select id, line, is_cancel_requested from jobs.job
                where id = $1 and epoch = $2 and state = 'running' for update
            ), advanced as (
                update jobs.job j
                set line = $4, succeeded = j.succeeded + $5, failed = j.failed + $6, events = j.events + $12,
                    revision = greatest(j.revision, $7)
                from job where j.id = job.id and job.line = $3
                returning j.id
            ), told as (
                insert into jobs.error (job_id, number, line, task_id, problem)
                select advanced.id, e.number, e.line, e.task_id, e.problem
                from advanced, unnest($8::bigint[], $9::bigint[], $10::uuid[], $11::text[]) as e (number, line, task_id, problem)
            )
            select is_cancel_requested from job
            "#,
            lease.id,
            lease.epoch,
            after,
            line,
            succeeded,
            failed,
            *revision,
            &numbers,
            &lines as &[Option<i64>],
            &column(|failure| failure.task_id) as &[Option<Uuid>],
            &problems,
            events,
        );
        Ok(in_time(advanced.fetch_optional(&self.pool)).await?.map(|row| row.is_cancel_requested).ok_or(Lost))
    }

    /// Ends the job. `Lost` also where it was ended before, and the answer was lost.
    pub(crate) async fn end(
        &self,
        lease: &Lease,
        state: State,
        problem: Option<&str>,
        result_bytes: Option<i64>,
    ) -> Result<Result<(), Lost>, sqlx::Error> {
        let ended = sqlx::query!(
            r#"
            update jobs.job
            set state = $3, problem = $4, result_bytes = $5, lease_expires_at = null, finished_at = now(),
                expires_at = now() + make_interval(days => $6)
            where id = $1 and epoch = $2 and state = 'running'
            "#,
            lease.id,
            lease.epoch,
            state.as_str(),
            problem,
            result_bytes,
            SHOWN_DAYS,
        );
        let ended = in_time(ended.execute(&self.pool)).await?;
        Ok(if ended.rows_affected() == 1 { Ok(()) } else { Err(Lost) })
    }
}
