//! Jobs, waited for.

use std::time::Duration;

use serde_json::Value;

use crate::client::{Account, Answer};
use crate::wait::until;

const JOB_MS_MAX: u64 = 60_000;

impl Account {
    /// The job that this answer is about, once it has ended. Reads show then what it has done.
    pub async fn job_ended(&self, asked: &Answer) -> Value {
        let path = asked.must("Location").to_owned();
        assert_eq!(path, format!("/api/v1/jobs/{}", asked.string("/id")));
        until("the job's end", Duration::from_millis(JOB_MS_MAX), || async {
            let answer = self.read(&path).await.expect(200);
            let job = answer.json();
            (!job["finished_at"].is_null()).then(|| {
                self.has_seen(&answer);
                job
            })
        })
        .await
    }
}
