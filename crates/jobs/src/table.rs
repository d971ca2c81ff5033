//! The rows of `jobs.job`, for those who ask.

use std::sync::Arc;
use std::time::Duration;

use backends::database::{self, Pool};
use commands::CommandIdentity;
use domain::{CommandId, OwnerId, Time};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::job::{Job, NewJob, Request, ResultFormat, State};

/// How many jobs of an account are carried out at a time.
pub const RUNNING_EACH_MAX: i64 = 2;
/// How many jobs of an account wait beside those.
pub const QUEUED_EACH_MAX: i64 = 20;
/// How long a job is shown after its end, in days.
pub const SHOWN_DAYS: i32 = 7;
/// How long it is remembered after that that there was one, in days.
const REMEMBERED_DAYS: i32 = 30;

/// How long a statement may take.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    database::in_time(STATEMENT_TIME_MAX, work).await
}

/// The jobs of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    pub(crate) pool: Pool,
    /// A hint for the worker of this process.
    pub(crate) added: Arc<Notify>,
}

/// What became of a job that was asked for.
#[derive(Debug)]
pub enum Added {
    /// It waits for its turn.
    Queued(Job),
    /// An equal request was there before; its job as it is now.
    Known(Job),
    /// The key was used for another request.
    KeyReused,
    /// The account has too many jobs.
    TooMany,
}

/// A line that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFailure {
    /// Its number among the failures, from 1.
    pub number: i64,
    /// Number of the line, where the job has lines.
    pub line: Option<i64>,
    /// The task, where it is known.
    pub task_id: Option<Uuid>,
    /// A problem in JSON.
    pub problem: String,
}

macro_rules! job {
    ($row:expr) => {{
        let row = $row;
        let is_change = !row.dry_run && row.kind != crate::job::Kind::Export.as_str();
        let change_id = (is_change && (row.events > 0 || row.epoch > 1)).then_some(row.id);
        crate::job::Job {
            id: row.id,
            kind: row.kind,
            state: crate::job::State::parse(&row.state)
                .ok_or_else(|| sqlx::Error::Decode(format!("unknown state {}", row.state).into()))?,
            total: row.total,
            succeeded: row.succeeded,
            failed: row.failed,
            dry_run: row.dry_run,
            change_id,
            revision: row.revision,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            expires_at: row.expires_at,
            result_bytes: row.result_bytes,
            format: crate::table::result_format(&row.request),
            problem: row.problem,
        }
    }};
}

pub(crate) use job;

pub(crate) fn result_format(request: &str) -> Option<ResultFormat> {
    match serde_json::from_str(request) {
        Ok(Request::Export { format, .. }) => Some(ResultFormat::Tasks(format)),
        Ok(Request::Archive { .. }) => Some(ResultFormat::Archive),
        Ok(Request::Import { .. } | Request::Bulk { .. } | Request::Undo { .. }) | Err(_) => None,
    }
}

impl Jobs {
    /// The jobs in this database.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, added: Arc::default() }
    }

    /// Adds a job, unless an equal request was there before or the account has too many.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn add(&self, new: NewJob) -> Result<Added, sqlx::Error> {
        in_time(self.add_in_turn(new)).await
    }

    async fn add_in_turn(&self, new: NewJob) -> Result<Added, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("select from jobs.turn for update").execute(&mut *transaction).await?;
        if let Some(identity) = &new.identity {
            let known = sqlx::query!(
                r#"select id, fingerprint as "fingerprint!" from jobs.job where owner_id = $1 and command_id = $2"#,
                new.owner.0,
                identity.command_id.0,
            );
            if let Some(known) = known.fetch_optional(&mut *transaction).await? {
                if known.fingerprint != identity.fingerprint {
                    return Ok(Added::KeyReused);
                }
                let job = self.find_any(new.owner, known.id).await?;
                return job.map(Added::Known).ok_or(sqlx::Error::RowNotFound);
            }
        }
        let waiting = sqlx::query_scalar!(
            r#"select count(*) as "count!" from jobs.job where state = 'queued' and owner_id = $1"#,
            new.owner.0
        );
        if waiting.fetch_one(&mut *transaction).await? >= QUEUED_EACH_MAX {
            return Ok(Added::TooMany);
        }
        let request = serde_json::to_string(&new.request).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let row = sqlx::query!(
            r#"
            insert into jobs.job (id, owner_id, shard, kind, request, dry_run, command_id, fingerprint, correlation_id,
                traceparent, created_at, state)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), 'queued')
            returning created_at as "created_at: Time"
            "#,
            new.id,
            new.owner.0,
            new.shard,
            new.request.kind().as_str(),
            request,
            new.dry_run,
            new.identity.map(|identity| identity.command_id.0),
            new.identity.map(|identity| identity.fingerprint),
            new.correlation_id,
            new.traceparent,
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.added.notify_one();
        Ok(Added::Queued(Job {
            id: new.id,
            kind: new.request.kind().as_str().to_owned(),
            state: State::Queued,
            total: None,
            succeeded: 0,
            failed: 0,
            dry_run: new.dry_run,
            change_id: None,
            revision: None,
            created_at: row.created_at,
            started_at: None,
            finished_at: None,
            expires_at: None,
            result_bytes: None,
            format: None,
            problem: None,
        }))
    }

    /// The job of an earlier request under the same key, and whether that was equal.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn known(&self, owner: OwnerId, identity: CommandIdentity) -> Result<Option<Added>, sqlx::Error> {
        let CommandIdentity { command_id: CommandId(command_id), fingerprint } = identity;
        let known = sqlx::query!(
            r#"select id, fingerprint as "fingerprint!" from jobs.job where owner_id = $1 and command_id = $2"#,
            owner.0,
            command_id,
        );
        Ok(match in_time(known.fetch_optional(&self.pool)).await? {
            None => None,
            Some(known) if known.fingerprint != fingerprint => Some(Added::KeyReused),
            Some(known) => self.find_any(owner, known.id).await?.map(Added::Known),
        })
    }

    /// Whether an account may have one more job that waits.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn has_room(&self, owner: OwnerId) -> Result<bool, sqlx::Error> {
        let waiting = sqlx::query_scalar!(
            r#"select count(*) as "count!" from jobs.job where state = 'queued' and owner_id = $1"#,
            owner.0
        );
        Ok(in_time(waiting.fetch_one(&self.pool)).await? < QUEUED_EACH_MAX)
    }

    /// A job of this owner that is shown.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn find(&self, owner: OwnerId, id: Uuid) -> Result<Option<Job>, sqlx::Error> {
        let now = sqlx::query_scalar!(r#"select now() as "now!: Time""#);
        let Some(job) = self.find_any(owner, id).await? else { return Ok(None) };
        let now = in_time(now.fetch_one(&self.pool)).await?;
        Ok(Some(job).filter(|job| job.expires_at.is_none_or(|expires_at| expires_at > now)))
    }

    /// A job of this owner, also one that is not shown any more.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn find_any(&self, owner: OwnerId, id: Uuid) -> Result<Option<Job>, sqlx::Error> {
        let row = sqlx::query!(
            r#"
            select id, kind, state, total, succeeded, failed, dry_run, revision, created_at as "created_at: Time",
                started_at as "started_at: Time", finished_at as "finished_at: Time", expires_at as "expires_at: Time",
                result_bytes, problem, request, events, epoch
            from jobs.job where owner_id = $1 and id = $2
            "#,
            owner.0,
            id,
        );
        let row = in_time(row.fetch_optional(&self.pool)).await?;
        row.map(|row| Ok(job!(row))).transpose()
    }

    /// The jobs of this owner that are shown, the latest first, before `before`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn list(&self, owner: OwnerId, before: Option<Uuid>, rows_max: i64) -> Result<Vec<Job>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"
            select id, kind, state, total, succeeded, failed, dry_run, revision, created_at as "created_at: Time",
                started_at as "started_at: Time", finished_at as "finished_at: Time", expires_at as "expires_at: Time",
                result_bytes, problem, request, events, epoch
            from jobs.job
            where owner_id = $1 and id < $2 and (expires_at is null or expires_at > now())
            order by id desc limit $3
            "#,
            owner.0,
            before.unwrap_or(Uuid::max()),
            rows_max,
        );
        let rows = in_time(rows.fetch_all(&self.pool)).await?;
        rows.into_iter().map(|row| Ok(job!(row))).collect()
    }

    /// Why lines of a job failed, in order, past the failure of this number.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn failures(&self, job_id: Uuid, after: i64, rows_max: i64) -> Result<Vec<LineFailure>, sqlx::Error> {
        let rows = sqlx::query_as!(
            LineFailure,
            "select number, line, task_id, problem from jobs.error where job_id = $1 and number > $2 order by number limit $3",
            job_id,
            after,
            rows_max,
        );
        in_time(rows.fetch_all(&self.pool)).await
    }

    /// Cancels a job that has not ended: at once where nobody carries it out, else its holder ends it after the lines that
    /// it has begun.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn cancel(&self, owner: OwnerId, id: Uuid) -> Result<(), sqlx::Error> {
        let cancelled = sqlx::query!(
            r#"
            update jobs.job set is_cancel_requested = true,
                state = case when state = 'queued' then 'cancelled' else state end,
                finished_at = case when state = 'queued' then now() end,
                expires_at = case when state = 'queued' then now() + make_interval(days => $3) end
            where owner_id = $1 and id = $2 and state in ('queued', 'running')
            "#,
            owner.0,
            id,
            SHOWN_DAYS,
        );
        in_time(cancelled.execute(&self.pool)).await.map(drop)
    }

    /// Drops the errors of a job that has ended, and that it has a result.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn drop_results(&self, owner: OwnerId, id: Uuid) -> Result<(), sqlx::Error> {
        let dropped = sqlx::query!(
            r#"
            with job as (
                update jobs.job set result_bytes = null where owner_id = $1 and id = $2 and finished_at is not null
                returning id
            )
            delete from jobs.error where job_id in (select id from job)
            "#,
            owner.0,
            id,
        );
        in_time(dropped.execute(&self.pool)).await.map(drop)
    }

    /// Those of these ids that no job has.
    pub(crate) async fn unknown(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
        let rows = sqlx::query_scalar!(
            r#"
            select id as "id!" from unnest($1::uuid[]) as file (id)
            where not exists (select from jobs.job where job.id = file.id)
            "#,
            ids,
        );
        in_time(rows.fetch_all(&self.pool)).await
    }

    /// Ended jobs whose time is over, at most so many, for which files may still be there.
    pub(crate) async fn expired(&self, jobs_max: i64) -> Result<Vec<Uuid>, sqlx::Error> {
        let rows = sqlx::query_scalar!(
            r#"
            select id from jobs.job where expires_at < now() and (result_bytes is not null or request <> '')
            order by expires_at limit $1
            "#,
            jobs_max,
        );
        in_time(rows.fetch_all(&self.pool)).await
    }

    /// Of jobs whose files are gone: errors and content go too. And those that ended long ago are forgotten.
    pub(crate) async fn forget(&self, ids: &[Uuid]) -> Result<(), sqlx::Error> {
        let emptied = sqlx::query!(
            r#"
            with emptied as (
                update jobs.job set result_bytes = null, request = '' where id = any ($1) returning id
            )
            delete from jobs.error where job_id in (select id from emptied)
            "#,
            ids,
        );
        in_time(emptied.execute(&self.pool)).await?;
        let forgotten = sqlx::query!(
            r#"
            delete from jobs.job where ctid = any (array(
                select ctid from jobs.job where expires_at < now() - make_interval(days => $1) limit 100
            ))
            "#,
            REMEMBERED_DAYS,
        );
        in_time(forgotten.execute(&self.pool)).await.map(drop)
    }
}
