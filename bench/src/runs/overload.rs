//! Ten times what the server can do, at a fixed rate.

use std::sync::Arc;
use std::time::Duration;

use system_tests::client::Account;
use system_tests::flood::{Answered, Flood, percentile};
use system_tests::server::Server;
use tokio::time::{interval, sleep};

use super::{Bench, mebibytes, next_run, percent};
use crate::load::{batches, creates, task_id};
use crate::report::rounded;

const TIMES_TOO_MUCH: f64 = 10.0;
/// As many at once as it takes to keep the machine busy.
const CONNECTIONS_ALONE: u32 = 16;
/// As many as never to be the limit.
const CONNECTIONS: u32 = 2_000;
const MEMORY_LOOK_MS: u64 = 500;
/// In which memory that the load needs anyway has been taken.
const WARM_SHARE: f64 = 1.0 / 3.0;
const WELL_AGAIN_MS: u64 = 1_000;

impl Bench<'_> {
    /// Of requests that are costly, so that there is room on the machine for ten times as many: lists that are in no cache.
    pub(super) async fn overload(&mut self) {
        self.report.part("Ten times too much: lists of 200 from 100,000 tasks, no two alike, open loop");
        let server = self.server(false).await;
        let account = Arc::new(server.api().account().await);
        let run = next_run();
        batches(&account, &creates((0..self.plan.many_tasks).map(|n| task_id(run, 0, n)))).await;
        server.caught_up().await;
        let seconds = Duration::from_secs(self.plan.seconds);
        // the owner's columns are loaded, plans are made
        lists(&server, &account, CONNECTIONS_ALONE).back_to_back(Duration::from_secs(2)).await;
        let alone = lists(&server, &account, CONNECTIONS_ALONE).back_to_back(seconds).await;
        assert!(alone.iter().all(|answered| answered.status == 200), "alone");
        let capacity = alone.len() as f64 / seconds.as_secs_f64();
        let beside = format!("{CONNECTIONS_ALONE} connections, {}", times(&alone, 200));
        self.report.note("overload_capacity", "what it can do", capacity, "/s", beside);

        let time = Duration::from_secs(self.plan.overload_seconds);
        let flood = lists(&server, &account, CONNECTIONS);
        let (answers, memory) =
            tokio::join!(flood.at_rate(capacity * TIMES_TOO_MUCH, time), memory_during(&server, time));
        self.overloaded(&answers, time);
        self.flat(&memory);

        sleep(Duration::from_millis(WELL_AGAIN_MS)).await;
        let again = lists(&server, &account, CONNECTIONS_ALONE).back_to_back(seconds).await;
        let refused = again.iter().filter(|answered| answered.status != 200).count();
        let ratio = again.len() as f64 / alone.len() as f64;
        self.report.target(
            "overload_after",
            "one second later",
            (again.len() as f64 / seconds.as_secs_f64(), "/s"),
            format!("{} of before, {refused} refused, {}", percent(ratio), times(&again, 200)),
            "as before: 90 %, none refused",
            ratio >= 0.9 && refused == 0,
        );
    }

    fn overloaded(&mut self, answers: &[Answered], time: Duration) {
        let seconds = time.as_secs_f64();
        let accepted = answers.iter().filter(|answered| answered.status == 200).count();
        let refused = answers.iter().filter(|answered| answered.status == 503).count();
        assert_eq!(accepted + refused, answers.len(), "another answer than 200 and 503");
        let p99_ms = millis(answers, 200, 0.99);
        self.report.note(
            "overload_offered",
            "asked for",
            answers.len() as f64 / seconds,
            "/s",
            format!("for {} s; {} refused", rounded(seconds), percent(refused as f64 / answers.len() as f64)),
        );
        self.report.target(
            "overload_accepted",
            "accepted",
            (p99_ms, "ms p99"),
            format!("{} /s, {}", rounded(accepted as f64 / seconds), times(answers, 200)),
            "p99 < 250 ms",
            p99_ms < 250.0 && accepted > 0,
        );
        let p99_ms = millis(answers, 503, 0.99);
        self.report.target(
            "overload_refused",
            "refused",
            (p99_ms, "ms p99"),
            format!("{} /s, {}", rounded(refused as f64 / seconds), times(answers, 503)),
            "p99 < 50 ms",
            p99_ms < 50.0 && refused > 0,
        );
    }

    fn flat(&mut self, memory: &[f64]) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let warm = memory[(memory.len() as f64 * WARM_SHARE) as usize];
        let (first, last) = (memory[0], memory[memory.len() - 1]);
        let most = memory.iter().copied().fold(0.0, f64::max);
        self.report.target(
            "overload_memory",
            "memory at its end",
            (last, "MiB"),
            format!("{} before, {} after a third, {} at most", rounded(first), rounded(warm), rounded(most)),
            "flat: 10 % and 5 MiB",
            last <= warm * 1.1 + 5.0,
        );
    }
}

/// Clients that ask for the first pages of lists, no two alike.
fn lists(server: &Server, account: &Account, connections: u32) -> Arc<Flood> {
    const SORTS: [&str; 4] = ["-created_at", "due_at", "priority", "-updated_at"];
    let (run, token) = (u64::from(next_run()), account.token.clone());
    let request = move |n: u64| {
        let micros = (run * 70_001 + n) % 1_000_000;
        let sort = SORTS[(n % 4) as usize];
        format!(
            "GET /api/v1/tasks?limit=200&sort={sort}&due_after=2030-01-01T00:00:0{}.{micros:06}Z&tag=t3 HTTP/1.1\r\n\
             Host: x\r\nAuthorization: Bearer {token}\r\n\r\n",
            run % 10
        )
    };
    Arc::new(Flood { address: server.address(), connections, request: Box::new(request) })
}

/// Of the process, in MiB, from the beginning to the end.
async fn memory_during(server: &Server, time: Duration) -> Vec<f64> {
    let mut looks = interval(Duration::from_millis(MEMORY_LOOK_MS));
    let mut seen = Vec::new();
    for _ in 0..=time.as_millis() / u128::from(MEMORY_LOOK_MS) {
        looks.tick().await;
        seen.push(mebibytes(server));
    }
    seen
}

fn millis(answers: &[Answered], status: u16, share: f64) -> f64 {
    let of = answers.iter().filter(|answered| answered.status == status);
    percentile(of.map(|answered| answered.took), share).as_secs_f64() * 1_000.0
}

fn times(answers: &[Answered], status: u16) -> String {
    let at = |share| rounded(millis(answers, status, share));
    format!("p50 {} p90 {} p99 {} max {} ms", at(0.5), at(0.9), at(0.99), at(1.0))
}
