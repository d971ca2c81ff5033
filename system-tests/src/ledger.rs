//! What clients were told: every attempt of a load, with its outcome, so that it can be held against the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::client::{Account, Answer};
use crate::wait::until;

const PROGRESS_MS_MAX: u64 = 60_000;

/// What an attempt was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A 2xx: it is in the store.
    Done,
    /// A 4xx: it is not.
    Refused(u16),
    /// A 5xx or a broken connection: nobody knows, but the key tells.
    Unknown,
}

/// How an attempt goes out.
#[derive(Clone, Debug)]
enum Form {
    Single {
        method: &'static str,
        path: String,
        body: Value,
    },
    /// A command of a batch, with a command id of its own.
    Batched(Value),
}

/// One attempt. `marker` is a text that stands in the data of its event and in no other.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The text that its event, if any, carries as the task's title.
    pub marker: String,
    /// What came of it.
    pub outcome: Outcome,
    key: String,
    form: Form,
}

/// All attempts of one account.
#[derive(Debug)]
pub struct Ledger {
    account: Account,
    attempts: Mutex<Vec<Attempt>>,
}

impl Ledger {
    /// An empty one.
    pub fn new(account: Account) -> Arc<Ledger> {
        Arc::new(Ledger { account, attempts: Mutex::new(Vec::new()) })
    }

    /// Whose attempts these are.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A copy of all attempts.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().expect("ledger").clone()
    }

    /// How many attempts were answered 2xx.
    pub fn done(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Done)
    }

    /// Waits until this many more attempts were answered 2xx.
    pub async fn progress(&self, more: usize) {
        let target = self.done() + more;
        until("the load makes progress", Duration::from_millis(PROGRESS_MS_MAX), || async {
            (self.done() >= target).then_some(())
        })
        .await;
    }

    /// How many have an unknown outcome.
    pub fn unknown(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Unknown)
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        let attempts = self.attempts.lock().expect("ledger");
        attempts.iter().filter(|a| which(&a.outcome)).count()
    }

    fn record(&self, attempt: Attempt) {
        self.attempts.lock().expect("ledger").push(attempt);
    }

    /// Sends every attempt of unknown outcome again with its key until it is known, and gives how many there were.
    pub async fn settle(&self) -> usize {
        let mut attempts = self.attempts();
        let mut settled = 0;
        for attempt in attempts.iter_mut().filter(|a| a.outcome == Outcome::Unknown) {
            attempt.outcome = until("a definite answer", Duration::from_secs(30), || async {
                let outcome = send(&self.account, &attempt.form, &attempt.key).await;
                (outcome != Outcome::Unknown).then_some(outcome)
            })
            .await;
            settled += 1;
        }
        *self.attempts.lock().expect("ledger") = attempts;
        settled
    }

    /// Sends every attempt that was answered 2xx once more with its key: each has to be recognised.
    pub async fn replay(&self, at_most: usize) {
        for attempt in self.attempts().iter().filter(|a| a.outcome == Outcome::Done).take(at_most) {
            let outcome = send(&self.account, &attempt.form, &attempt.key).await;
            assert_eq!(outcome, Outcome::Done, "replay of {attempt:?}");
        }
    }
}

/// A load that goes on until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts `workers` clients of the ledger's account: creates, renames, completes, refused ones, batches.
    pub fn start(ledger: &Arc<Ledger>, workers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..workers).map(|_| tokio::spawn(work(Arc::clone(ledger), Arc::clone(&stop)))).collect();
        Load { stop, workers }
    }

    /// Lets the attempts under way come back, and ends.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.expect("load");
        }
    }
}

async fn work(ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let mut pause = interval(Duration::from_millis(20));
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = Uuid::now_v7();
    let mut turn = 0_u32;
    while !stop.load(Ordering::SeqCst) {
        let went_well = match turn % 8 {
            0 => {
                task = Uuid::now_v7();
                let outcome = create(&ledger, task).await;
                if outcome != Outcome::Done {
                    // without its task, the rest of the round says nothing
                    turn = 7;
                }
                outcome
            }
            1 => rename(&ledger, task, None).await,
            2 => create_again_differently(&ledger, task).await,
            3 => rename(&ledger, task, Some(99_999)).await,
            4 => complete(&ledger, task).await,
            5 => batch(&ledger).await,
            6 => overlong(&ledger, task).await,
            _ => rename(&ledger, task, None).await,
        };
        turn += 1;
        if went_well == Outcome::Unknown {
            pause.tick().await;
        }
    }
}

fn marker() -> String {
    format!("m-{}", Uuid::new_v4().simple())
}

async fn attempt(ledger: &Ledger, marker: String, form: Form) -> Outcome {
    let key = format!("key-{}", Uuid::new_v4());
    let outcome = send(&ledger.account, &form, &key).await;
    ledger.record(Attempt { marker, outcome: outcome.clone(), key, form });
    outcome
}

async fn create(ledger: &Ledger, task: Uuid) -> Outcome {
    let marker = marker();
    let body = json!({"id": task, "title": marker, "priority": "high", "tags": ["load"]});
    single(ledger, marker, "POST", "/api/v1/tasks".to_owned(), body).await
}

async fn create_again_differently(ledger: &Ledger, task: Uuid) -> Outcome {
    let marker = marker();
    let body = json!({"id": task, "title": marker});
    single(ledger, marker, "POST", "/api/v1/tasks".to_owned(), body).await
}

async fn rename(ledger: &Ledger, task: Uuid, expected: Option<u64>) -> Outcome {
    let marker = marker();
    let Some(expected) = expected else {
        let path = format!("/api/v1/tasks/{task}");
        return single(ledger, marker.clone(), "PATCH", path, json!({"title": marker})).await;
    };
    let command = json!({"type": "RenameTask", "task_id": task, "title": marker,
        "expected_version": expected, "command_id": Uuid::new_v4()});
    attempt(ledger, marker, Form::Batched(command)).await
}

async fn overlong(ledger: &Ledger, task: Uuid) -> Outcome {
    let marker = marker();
    let title = format!("{marker}{}", "x".repeat(200));
    let path = format!("/api/v1/tasks/{task}");
    single(ledger, marker, "PATCH", path, json!({ "title": title })).await
}

async fn complete(ledger: &Ledger, task: Uuid) -> Outcome {
    // no text of its own: the task's id stands for it, a task is completed once
    let path = format!("/api/v1/tasks/{task}/complete");
    single(ledger, format!("completed:{task}"), "POST", path, json!({})).await
}

async fn batch(ledger: &Ledger) -> Outcome {
    let attempts: Vec<Attempt> = (0..5)
        .map(|_| {
            let marker = marker();
            let command = json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": marker,
                "command_id": Uuid::new_v4()});
            Attempt { marker, outcome: Outcome::Unknown, key: String::new(), form: Form::Batched(command) }
        })
        .collect();
    let commands: Vec<&Value> = attempts
        .iter()
        .filter_map(|attempt| match &attempt.form {
            Form::Batched(command) => Some(command),
            Form::Single { .. } => None,
        })
        .collect();
    let request = ledger.account.request("POST", "/api/v1/commands").key(&Uuid::new_v4().to_string());
    let answer = request.json(&json!({ "commands": commands })).try_send().await;
    let mut all = Outcome::Done;
    for (index, mut attempt) in attempts.into_iter().enumerate() {
        attempt.outcome = answer.as_ref().map_or(Outcome::Unknown, |answer| item_outcome(answer, index));
        if attempt.outcome == Outcome::Unknown {
            all = Outcome::Unknown;
        }
        ledger.record(attempt);
    }
    all
}

async fn single(ledger: &Ledger, marker: String, method: &'static str, path: String, body: Value) -> Outcome {
    attempt(ledger, marker, Form::Single { method, path, body }).await
}

async fn send(account: &Account, form: &Form, key: &str) -> Outcome {
    match form {
        Form::Single { method, path, body } => {
            let request = account.request(method, path).key(key).json(body);
            match request.try_send().await {
                Ok(answer) => outcome_of(answer.status),
                Err(_) => Outcome::Unknown,
            }
        }
        Form::Batched(command) => {
            let request = account.request("POST", "/api/v1/commands");
            match request.json(&json!({"commands": [command]})).try_send().await {
                Ok(answer) => item_outcome(&answer, 0),
                Err(_) => Outcome::Unknown,
            }
        }
    }
}

fn item_outcome(answer: &Answer, index: usize) -> Outcome {
    if answer.status != 200 {
        return outcome_of(answer.status);
    }
    let status = answer.json()["results"][index]["status"].as_u64();
    outcome_of(status.and_then(|s| u16::try_from(s).ok()).unwrap_or(500))
}

fn outcome_of(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Done,
        // 409 also says "the same key is in flight": then it is not known yet, but nothing in a load sends one twice
        400..=499 => Outcome::Refused(status),
        _ => Outcome::Unknown,
    }
}
