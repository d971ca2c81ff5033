//! The services behind their gateway: restarted one after the other under load, killed, and told of ended sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::check::everything_holds_in;
use system_tests::client::{Account, Api};
use system_tests::ledger::{Ledger, Load};
use system_tests::stack::{COPIES, Stack};
use system_tests::wait::until;
use tokio::task::JoinHandle;

const TASKS: &str = "/api/v1/tasks";
/// How long an ended session may be known nowhere else.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// Clients that read through the gateway until they are told to stop.
struct Readers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Readers {
    fn start(account: &Account, count: usize) -> Readers {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let reader = |number: usize| {
            let reader = account.at(Api::new(account.api.base()));
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let path = [TASKS, "/api/v1/stats", "/api/v1/auth/me"][number % 3];
                    match reader.request("GET", path).try_send().await {
                        Ok(answer) if answer.status == 200 => {
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(answer) => failed.push(format!("{path}: {} {}", answer.status, answer.text())),
                        Err(error) => failed.push(format!("{path}: {error:?}")),
                    }
                }
                failed
            })
        };
        let tasks = (0..count).map(reader).collect();
        Readers { stop, answered, tasks }
    }

    /// What was not answered 200.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.expect("reader"));
        }
        assert!(self.answered.load(Ordering::SeqCst) > 100, "the readers were answered");
        failed
    }
}

/// Waits until this many more attempts were answered 2xx.
async fn progress(ledger: &Ledger, more: usize) {
    let target = ledger.done() + more;
    until("the load makes progress", Duration::from_secs(60), || async { (ledger.done() >= target).then_some(()) })
        .await;
}

async fn settled(stack: &Stack, ledger: &Ledger) {
    stack.caught_up().await;
    everything_holds_in(&stack.database_url(), stack.dir(), &[ledger]).await;
}

/// Issue 4, test 12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_everything_fails_no_request() {
    let stack = Stack::start().await;
    let ledger = Ledger::new(stack.api().account().await);
    let load = Load::start(&ledger, 6);
    let readers = Readers::start(ledger.account(), 6);
    progress(&ledger, 100).await;
    let before: Vec<String> = COPIES.iter().map(|copy| stack.pid_text(copy)).collect();
    stack.stack(&["restart"], "").await.expect(0);
    for (copy, before) in COPIES.iter().zip(before) {
        assert_ne!(stack.pid_text(copy), before, "{copy} is a new one");
    }
    progress(&ledger, 100).await;
    load.stop().await;
    let failed = readers.stop().await;
    assert!(failed.is_empty(), "{} reads failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert_eq!(ledger.unknown(), 0, "writes failed: {}", stack.log("gateway"));
    settled(&stack, &ledger).await;
}

/// Reads, and writes with a key, do not notice that a copy is killed; nothing of the others is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_copies_are_started_again() {
    let stack = Stack::start().await;
    let ledger = Ledger::new(stack.api().account().await);
    let load = Load::start(&ledger, 6);
    let readers = Readers::start(ledger.account(), 3);
    for copy in COPIES {
        progress(&ledger, 50).await;
        stack.kill(copy).await;
        progress(&ledger, 50).await;
        stack.up().await;
    }
    load.stop().await;
    let failed = readers.stop().await;
    assert!(failed.is_empty(), "{} reads failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    ledger.settle().await;
    ledger.replay(100).await;
    settled(&stack, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_and_status_keys_and_ended_sessions() {
    let stack = Stack::start().await;
    up_twice_changes_nothing(&stack).await;
    ended_sessions_are_known_everywhere(&stack).await;
    keys_are_known_while_nobody_shows_them(&stack).await;
}

async fn up_twice_changes_nothing(stack: &Stack) {
    let parts = ["postgres", "redis", "kafka", "gateway"].iter().chain(&COPIES);
    let pids = || parts.clone().map(|part| stack.pid_text(part)).collect::<Vec<_>>();
    let before = pids();
    stack.up().await;
    assert_eq!(pids(), before);
    let status = stack.stack(&["status"], "").await.expect(0);
    for part in parts.clone() {
        let line = status.out.lines().find(|line| line.starts_with(part)).expect("a line");
        assert!(line.contains("ready"), "{line}");
    }
    stack.stack(&["stop", "query-api-2"], "").await.expect(0);
    let status = stack.stack(&["status"], "").await.expect(1);
    assert!(status.out.lines().any(|line| line.starts_with("query-api-2") && line.contains("stopped")), "{status:?}");
    stack.up().await;
    stack.stack(&["status"], "").await.expect(0);
}

async fn ended_sessions_are_known_everywhere(stack: &Stack) {
    let reads = [("query-api-1", TASKS), ("query-api-2", TASKS), ("projector-1", "/api/v1/admin/parked")];
    for way in ["logout", "password", "disable"] {
        let account = stack.api().account().await;
        let other = stack.api().log_in(account.id, &account.email, &account.password).await;
        let ask = async |copy: &str, path: &str| other.at(stack.copy(copy)).request("GET", path).send().await.status;
        for (copy, path) in reads {
            assert_ne!(ask(copy, path).await, 401, "{way}: before");
        }
        let ended = Instant::now();
        match way {
            "logout" => drop(other.request("POST", "/api/v1/auth/logout").send().await.expect(204)),
            "password" => {
                let change = json!({"current": account.password, "new": "another long password"});
                account.request("POST", "/api/v1/auth/password").json(&change).send().await.expect(204);
            }
            _ => drop(stack.cli(&["user", "disable", "--email", &account.email]).await.expect(0)),
        }
        for (copy, path) in reads {
            until("401", REVOKED_WITHIN, || async { (ask(copy, path).await == 401).then_some(()) }).await;
        }
        assert!(ended.elapsed() < REVOKED_WITHIN, "{way}: {:?}", ended.elapsed());
    }
}

async fn keys_are_known_while_nobody_shows_them(stack: &Stack) {
    let account = stack.api().account().await;
    for copy in ["command-api-1", "command-api-2"] {
        stack.kill(copy).await;
    }
    account.request("GET", TASKS).send().await.expect(200);
    let write = account.request("POST", TASKS).json(&json!({"title": "nobody there"})).send().await.expect(503);
    write.must("Retry-After");
    write.problem(503);
    stack.up().await;
    stack.cli(&["keys", "rotate"]).await.expect(0);
    // the new key signs after its overlap, and is good at once everywhere
    let old = key_of(&account);
    let fresh = until("a token of the new key", Duration::from_secs(30), || async {
        let again = stack.api().log_in(account.id, &account.email, &account.password).await;
        (key_of(&again) != old).then_some(again)
    })
    .await;
    for copy in ["query-api-1", "query-api-2"] {
        fresh.at(stack.copy(copy)).request("GET", TASKS).send().await.expect(200);
        account.at(stack.copy(copy)).request("GET", TASKS).send().await.expect(200);
    }
}

/// The header of a token, which names its key.
fn key_of(account: &Account) -> String {
    account.token.split('.').next().unwrap_or_default().to_owned()
}
