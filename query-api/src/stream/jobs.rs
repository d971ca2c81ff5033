//! What streams tell of jobs: each as it was seen last.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::error::ReadError;
use crate::reads::Reads;

/// How far back a look goes for jobs that have changed, in seconds: over several looks, since clocks and commits differ.
const CHANGED_S_MAX: f64 = 10.0;
/// Jobs seen by one look.
const SEEN_JOBS_MAX: i64 = 1_000;
/// Jobs of an account that are kept for streams whose clients are slow: as many as it may have under way, and some more.
const KEPT_JOBS_MAX: usize = 32;

/// A job in the read database.
pub(super) struct SeenJob {
    pub owner: Uuid,
    id: Uuid,
    shown: String,
}

/// The jobs of these accounts that have changed lately, in the order of their changes.
pub(super) async fn changed(reads: &Reads, owners: &[Uuid]) -> Result<Vec<SeenJob>, ReadError> {
    let source = reads.nearest();
    let rows = sqlx::query_as!(
        SeenJob,
        r#"select owner_id as owner, id, shown from read_model.job
           where changed_at > now() - make_interval(secs => $2) and owner_id = any ($1) order by changed_at limit $3"#,
        owners,
        CHANGED_S_MAX,
        SEEN_JOBS_MAX
    )
    .fetch_all(reads.pool(source));
    reads.in_time(source, async { Ok(rows.await?) }).await
}

/// The jobs of one account, as messages.
#[derive(Debug, Default)]
pub(super) struct JobMessages {
    /// Number of the last one; they are counted from 1.
    last: u64,
    /// The latest of each job, in order.
    latest: Vec<(u64, Uuid, Bytes)>,
}

impl JobMessages {
    /// Makes a message of a job that is not as it was. The number of the last one.
    pub fn take(&mut self, job: &SeenJob) -> u64 {
        // JSON without line breaks, so one line of data. No id: nobody resumes from it.
        let message = Bytes::from(format!("event: job\ndata: {}\n\n", job.shown));
        if self.latest.iter().any(|(_, id, known)| *id == job.id && *known == message) {
            return self.last;
        }
        self.latest.retain(|(_, id, _)| *id != job.id);
        if self.latest.len() >= KEPT_JOBS_MAX {
            self.latest.remove(0);
        }
        self.last += 1;
        self.latest.push((self.last, job.id, message));
        self.last
    }

    /// What to send to a client that has those up to this number, and up to which it has them then.
    pub fn after(&self, number: u64) -> (Bytes, u64) {
        let mut chunk = BytesMut::new();
        for (_, _, message) in self.latest.iter().filter(|(at, ..)| *at > number) {
            chunk.extend_from_slice(message);
        }
        (chunk.freeze(), self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_told_as_it_was_seen_last() {
        let job =
            |id: u128, shown: &str| SeenJob { owner: Uuid::nil(), id: Uuid::from_u128(id), shown: shown.to_owned() };
        let mut messages = JobMessages::default();
        let numbers = [job(1, "a"), job(2, "b"), job(1, "a"), job(1, "c")].map(|job| messages.take(&job));
        assert_eq!(numbers, [1, 2, 2, 3]);
        let told = |text: &str| format!("event: job\ndata: {text}\n\n");
        assert_eq!(messages.after(0), (Bytes::from(told("b") + &told("c")), 3));
        assert_eq!(messages.after(2), (Bytes::from(told("c")), 3));
        assert_eq!(messages.after(3), (Bytes::new(), 3));
        for id in 10..100 {
            messages.take(&job(id, "x"));
        }
        assert_eq!(messages.latest.len(), KEPT_JOBS_MAX);
    }
}
