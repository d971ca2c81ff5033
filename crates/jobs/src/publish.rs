use std::collections::HashMap;
use std::time::Duration;

use backends::database::Pool;
use process::periodic::Periodic;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::job::Job;
use crate::table::{Jobs, SHOWN_DAYS, in_time, job};

const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// How many jobs are published at a time.
const JOBS_MAX: i64 = 1_000;
/// How long the end of a job is published, in seconds.
const ENDED_S_MAX: f64 = 10.0;
/// How long a published job that does not change any more is kept, in seconds.
const KEPT_S: f64 = 60.0;

impl Jobs {
    /// Writes the jobs that change to the read database, each second and until `stop`, as JSON that `shown` makes.
    pub async fn publish(self, read_pool: Pool, shown: fn(&Job) -> String, stop: CancellationToken) {
        let mut publishing = Periodic::every(PUBLISH_INTERVAL, "publishing jobs", stop);
        let mut published = HashMap::new();
        while publishing.due().await {
            publishing.seen(self.publish_changes(&read_pool, shown, &mut published).await);
        }
    }

    async fn publish_changes(
        &self,
        read_pool: &Pool,
        shown: fn(&Job) -> String,
        published: &mut HashMap<Uuid, String>,
    ) -> Result<(), sqlx::Error> {
        let rows = sqlx::query!(
            r#"
            select owner_id, id, kind, state, total, succeeded, failed, dry_run, revision,
                created_at as "created_at: domain::Time", started_at as "started_at: domain::Time",
                finished_at as "finished_at: domain::Time", expires_at as "expires_at: domain::Time", result_bytes, problem,
                request, events, epoch, clock_timestamp() as "seen_at!: domain::Time"
            from jobs.job
            where state in ('queued', 'running') or expires_at > now() + make_interval(days => $1) - make_interval(secs => $2)
            order by state = 'queued', id desc limit $3
            "#,
            SHOWN_DAYS,
            ENDED_S_MAX,
            JOBS_MAX,
        );
        let rows = in_time(rows.fetch_all(&self.pool)).await?;
        let mut present = HashMap::with_capacity(rows.len());
        let (mut ids, mut owners, mut texts, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let (owner, seen_at) = (row.owner_id, row.seen_at);
            let job = job!(row);
            let text = shown(&job);
            if published.get(&job.id) != Some(&text) {
                ids.push(job.id);
                owners.push(owner);
                texts.push(text.clone());
                times.push(seen_at);
            }
            present.insert(job.id, text);
        }
        if !ids.is_empty() {
            let written = sqlx::query!(
                r#"
                insert into read_model.job as known (id, owner_id, shown, seen_at)
                select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[])
                on conflict (id) do update
                set shown = excluded.shown, seen_at = excluded.seen_at, changed_at = excluded.changed_at
                where known.seen_at < excluded.seen_at and known.shown <> excluded.shown
                "#,
                &ids,
                &owners,
                &texts,
                &times,
            );
            in_time(written.execute(read_pool)).await?;
            let removed =
                sqlx::query!("delete from read_model.job where changed_at < now() - make_interval(secs => $1)", KEPT_S);
            in_time(removed.execute(read_pool)).await?;
        }
        *published = present;
        Ok(())
    }
}
