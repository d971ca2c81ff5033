//! Lists and flow as of a time, and a mistaken change of many tasks that is undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::json;
use system_tests::client::Account;

use super::{Bench, latency, mebibytes, next_run};
use crate::load::{batches, task_id};
use crate::report::rounded;

const CONNECTIONS: u32 = 8;
const LIST_MS_MAX: f64 = 50.0;
const FLOW_MS_MAX: f64 = 20.0;
const UNDO_S_MAX: f64 = 10.0;
/// What each task goes through in the course of 2025.
const LIFE: [&str; 10] = [
    "\"CreateTask\",\"title\":\"Task NUMBER\",\"priority\":\"PRIORITY\",\"due_at\":\"2025-12-0DIGITT12:00:00Z\",\"tags\":[\"tDIGIT\"]",
    "\"RenameTask\",\"title\":\"Once renamed\"",
    "\"StartTask\"",
    "\"TagTask\",\"tag\":\"late\"",
    "\"CompleteTask\"",
    "\"ReopenTask\"",
    "\"RenameTask\",\"title\":\"Twice renamed\"",
    "\"UntagTask\",\"tag\":\"late\"",
    "\"StartTask\"",
    "\"CompleteTask\"",
];

impl Bench<'_> {
    pub(super) async fn past(&mut self) {
        let server = self.server(false).await;
        let account = Arc::new(server.api().account().await);
        let (run, tasks) = (next_run(), self.plan.many_tasks);
        let commands: Vec<String> = (0..tasks).flat_map(|n| life(task_id(run, 0, n), n, tasks)).collect();
        batches(&account, &commands).await;
        server.caught_up().await;
        let versions = rounded(commands.len() as f64);
        self.report.part(&format!(
            "The past of {} tasks with {versions} versions, no two requests alike",
            rounded(tasks as f64)
        ));
        for (kind, name, ms_max) in
            [("list", "first pages as of a time", LIST_MS_MAX), ("flow", "flow of a year", FLOW_MS_MAX)]
        {
            let ask = || {
                let variables = vec![("BENCH_KIND", kind.to_owned())];
                let measured = self.wrk("past.lua", server.api().base(), CONNECTIONS, &account.token, variables);
                assert_eq!(measured.bad, 0, "past.lua: answers of 400 and above");
                measured
            };
            // the versions are loaded meanwhile
            ask();
            let measured = ask();
            let beside = format!("{}, {} /s", latency(&measured), rounded(measured.per_second));
            let target = format!("p99 ≤ {ms_max} ms");
            let value = (measured.p99_ms, "ms p99");
            self.report.target(&format!("past_{kind}"), name, value, beside, &target, measured.p99_ms <= ms_max);
        }
        self.report.note("past_memory", "memory of the process", mebibytes(&server), "MiB", String::new());
        let other = server.api().account().await;
        self.undo(&account, other, || mebibytes(&server)).await;
    }

    /// Of half of the tasks, while somebody else writes.
    async fn undo(&mut self, account: &Account, other: Account, memory: impl Fn() -> f64) {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = tokio::spawn({
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    other.create(json!({"title": "meanwhile"})).await;
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let before = memory();
        let mistake = json!({"filter": {"tag": "t1,t2,t3,t4,t5"}, "command": {"type": "TagTask", "tag": "mistake"}});
        let changed = account
            .job_ended(&account.request("POST", "/api/v1/tasks/bulk").json(&mistake).send().await.expect(202))
            .await;
        let began = Instant::now();
        let undo = format!("/api/v1/changes/{}/undo", changed["change_id"].as_str().expect("a change"));
        let undone = account.job_ended(&account.request("POST", &undo).send().await.expect(202)).await;
        let seconds = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        writer.await.expect("the other client");
        assert_eq!((&undone["succeeded"], &undone["failed"]), (&changed["succeeded"], &json!(0)), "{undone}");
        let beside = format!(
            "{} tasks; {} creates of another account meanwhile; memory {} → {} MiB",
            undone["succeeded"],
            written.load(Ordering::Relaxed),
            rounded(before),
            rounded(memory())
        );
        let target = format!("≤ {UNDO_S_MAX} s");
        self.report.target("undo", "a mistaken change undone", (seconds, "s"), beside, &target, seconds <= UNDO_S_MAX);
    }
}

/// The commands of the n-th of so many tasks: created in the course of a month, changed each month after it.
fn life(id: String, n: usize, tasks: usize) -> impl Iterator<Item = String> {
    let month = Duration::days(30);
    let count = |number: usize| i64::try_from(number).expect("a number");
    let created = DateTime::<Utc>::from_timestamp(1_735_689_600, 0).expect("2025-01-01")
        + Duration::seconds(count(n) * month.num_seconds() / count(tasks));
    LIFE.iter().zip(0..).map(move |(command, months)| {
        let occurred_at = (created + month * months).to_rfc3339_opts(SecondsFormat::Micros, true);
        format!("{{\"type\":{command},\"task_id\":\"{id}\",\"occurred_at\":\"{occurred_at}\"}}")
            .replace("NUMBER", &n.to_string())
            .replace("PRIORITY", ["low", "medium", "high", "urgent"][n % 4])
            .replace("DIGIT", &(1 + n % 9).to_string())
    })
}
