//! What is driven from here rather than by wrk: bulk through the batch endpoint, and the open loop.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::Account;
use tokio::time::{MissedTickBehavior, interval};

const BATCHES_IN_FLIGHT: usize = 4;
/// Commands of one batch.
pub const BATCH: usize = 5_000;

/// The id of a task that a script knows too (wrk/common.lua).
pub fn task_id(run: u32, thread: u32, n: usize) -> String {
    format!("{run:08x}-0000-7000-8000-{thread:04x}{n:08x}")
}

/// Creates of tasks, one line each.
pub fn creates(ids: impl Iterator<Item = String>) -> Vec<String> {
    ids.enumerate()
        .map(|(n, id)| {
            format!(
                "{{\"type\":\"CreateTask\",\"task_id\":\"{id}\",\"title\":\"Task {n} of the benchmark\",\
                 \"description\":\"Neither long nor short\",\"priority\":\"{}\",\"due_at\":\"2031-05-0{}T12:00:00Z\",\
                 \"tags\":[\"bench\",\"t{}\"]}}",
                ["low", "medium", "high", "urgent"][n % 4],
                1 + n % 9,
                n % 10
            )
        })
        .collect()
}

/// Five commands for each task, each with one event.
pub fn lives(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut commands = Vec::new();
    for (n, id) in ids.enumerate() {
        commands.extend(creates(std::iter::once(id.clone())));
        for rest in [
            format!("\"RenameTask\",\"title\":\"Task {n}, renamed\""),
            "\"StartTask\"".to_owned(),
            "\"TagTask\",\"tag\":\"late\"".to_owned(),
            "\"CompleteTask\"".to_owned(),
        ] {
            commands.push(format!("{{\"type\":{rest},\"task_id\":\"{id}\"}}"));
        }
    }
    commands
}

/// Sends commands through the batch endpoint, several batches at once (a batch holds whole tasks); gives the seconds.
pub async fn batches(account: &Arc<Account>, commands: &[String]) -> f64 {
    let bodies: Vec<String> = commands
        .chunks(BATCH)
        .map(|chunk| {
            chunk.iter().fold(String::new(), |mut body, command| {
                let _ = writeln!(body, "{command}");
                body
            })
        })
        .collect();
    let bodies = Arc::new(bodies);
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let senders: Vec<_> = (0..BATCHES_IN_FLIGHT)
        .map(|_| {
            let (account, bodies, next) = (Arc::clone(account), Arc::clone(&bodies), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("index");
                    let Some(body) = bodies.get(index) else { return };
                    let request = account.request("POST", "/api/v1/commands");
                    let answer = request.body("application/x-ndjson", body.clone()).send().await.expect(200);
                    assert_eq!(answer.number("/failed"), 0);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("batches");
    }
    started.elapsed().as_secs_f64()
}

/// Percentiles of times, in milliseconds.
#[derive(Clone, Debug)]
pub struct Times(Vec<f64>);

impl Times {
    /// Of these.
    pub fn new(mut millis: Vec<f64>) -> Times {
        millis.sort_by(f64::total_cmp);
        Times(millis)
    }

    /// Nearest rank.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Commands at a fixed rate, whether answered or not; each time runs from when the command was due until a query
/// showed it. Also how many were refused.
pub async fn command_to_visible(accounts: Vec<Account>, per_second: u64, seconds: u64) -> (Times, u32) {
    let accounts: Vec<Arc<Account>> = accounts.into_iter().map(Arc::new).collect();
    let (done, mut times) = tokio::sync::mpsc::unbounded_channel();
    let began = Instant::now();
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = 0;
    while sent < per_second * seconds {
        tick.tick().await;
        let due_by_now = (began.elapsed().as_secs_f64() * per_second as f64) as u64;
        while sent < due_by_now.min(per_second * seconds) {
            let due = began + Duration::from_secs_f64(sent as f64 / per_second as f64);
            let account = Arc::clone(&accounts[sent as usize % accounts.len()]);
            let done = done.clone();
            tokio::spawn(async move {
                let seen = visible(&account).await;
                let _ = done.send((seen, due.elapsed().as_secs_f64() * 1_000.0));
            });
            sent += 1;
        }
    }
    drop(done);
    let (mut all, mut failed) = (Vec::new(), 0);
    while let Some((seen, time)) = times.recv().await {
        all.push(time);
        failed += u32::from(!seen);
    }
    (Times::new(all), failed)
}

/// Creates a task and reads it back with the token; false where either was refused.
async fn visible(account: &Account) -> bool {
    let create = account.request("POST", "/api/v1/tasks").json(&json!({"title": "Seen at once", "tags": ["bench"]}));
    let Ok(written) = create.try_send().await else { return false };
    if written.status != 201 {
        return false;
    }
    let path = format!("/api/v1/tasks/{}", written.string("/id"));
    let token = written.must("Consistency-Token").to_owned();
    let read = account.request("GET", &path).header("Consistency-Token", &token).try_send().await;
    read.is_ok_and(|answer| answer.status == 200)
}

/// First pages, each after a change, so that none comes from a cache.
pub async fn first_pages(account: &Account, pages: usize) -> Times {
    let mut times = Vec::new();
    for _ in 0..pages {
        assert!(visible(account).await, "refused");
        let started = Instant::now();
        let page: Value = account.request("GET", "/api/v1/tasks?limit=50").send().await.expect(200).json();
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(50));
    }
    Times::new(times)
}
