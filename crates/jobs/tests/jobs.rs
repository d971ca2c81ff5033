//! Jobs on a real Postgres: who may carry one out, and that each line has one effect whoever dies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use backends::database::{self, Pool};
use bytes::Bytes;
use commands::Executor;
use commands::executor::BATCHES_AT_ONCE_MAX;
use domain::OwnerId;
use event_store::EventStore;
use futures_util::stream;
use jobs::{
    Added, Explain, Files, Job, Jobs, NewJob, QUEUED_EACH_MAX, RUNNING_EACH_MAX, Request, State, Upload, Worker,
};
use process::budget::Budget;
use process::clock;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use task_files::Format;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

struct World {
    pool: PgPool,
    jobs: Jobs,
    files: Files,
    _folder: TempDir,
}

impl World {
    async fn new(pool: PgPool) -> Self {
        event_store::migrate(&shared(&pool)).await.unwrap();
        jobs::migrate(&shared(&pool)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = Files::folder(folder.path()).unwrap();
        Self { jobs: Jobs::new(shared(&pool)), pool, files, _folder: folder }
    }

    /// A copy of the service, with caches of its own.
    async fn worker(&self) -> Worker {
        let (store, mut tasks) = EventStore::start(shared(&self.pool)).await.unwrap();
        tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Worker {
            jobs: Jobs::new(shared(&self.pool)),
            files: self.files.clone(),
            executor: Executor::new(store),
            permits: Budget::new(BATCHES_AT_ONCE_MAX, BATCHES_AT_ONCE_MAX),
            explain: Explain { line: |error| error.to_string(), failure: |failure| failure.to_string() },
        }
    }

    async fn add(&self, owner: OwnerId, file: &str) -> Added {
        let id = clock::new_id();
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(file.as_bytes()))]);
        Upload { job_id: id, is_gzip: false }.store(&self.files, body).await.unwrap();
        let new = NewJob {
            id,
            owner,
            shard: 0,
            request: Request::Import { format: Format::Ndjson },
            dry_run: false,
            identity: None,
            correlation_id: "test".to_owned(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        };
        self.jobs.add(new).await.unwrap()
    }

    async fn queued(&self, owner: OwnerId, file: &str) -> Uuid {
        match self.add(owner, file).await {
            Added::Queued(job) => job.id,
            other => panic!("{other:?}"),
        }
    }

    async fn job(&self, owner: OwnerId, id: Uuid) -> Job {
        self.jobs.find(owner, id).await.unwrap().expect("the job")
    }

    /// As if the holders had died five seconds ago.
    async fn expire_leases(&self) {
        let expired = "update jobs.job set lease_expires_at = '-infinity' where state = 'running'";
        sqlx::query(expired).execute(&self.pool).await.unwrap();
    }

    async fn ended(&self, owner: OwnerId, id: Uuid) -> Job {
        for _ in 0..3_000 {
            let job = self.job(owner, id).await;
            if job.state.has_ended() {
                return job;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("no end");
    }

    /// What is in the log of an owner, by task, and the errors of the job; tasks are numbered, so that two runs compare.
    async fn outcome(&self, owner: OwnerId, job: &Job) -> (BTreeMap<Uuid, Vec<String>>, Vec<(Option<i64>, String)>) {
        let events: Vec<(Uuid, String, String)> =
            sqlx::query_as("select task_id, type, data from event_store.event where owner_id = $1 order by position")
                .bind(owner.0)
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let mut streams: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        for (task_id, kind, data) in events {
            streams.entry(task_id).or_default().push(format!("{kind} {data}"));
        }
        let failures = self.jobs.failures(job.id, 0, 20_000).await.unwrap();
        (streams, failures.into_iter().map(|failure| (failure.line, failure.problem)).collect())
    }
}

/// Lines for a few thousand tasks, of which many are refused and would be taken a little later.
fn file(lines: u128) -> String {
    let mut file = String::new();
    for n in 0..lines / 5 {
        let id = Uuid::from_u128(n + 1);
        writeln!(file, r#"{{"type":"CreateTask","task_id":"{id}","title":"task {n}"}}"#).unwrap();
        writeln!(file, r#"{{"type":"CompleteTask","task_id":"{id}"}}"#).unwrap();
        // refused, as it is completed
        writeln!(file, r#"{{"type":"StartTask","task_id":"{id}"}}"#).unwrap();
        writeln!(file, r#"{{"type":"ReopenTask","task_id":"{id}"}}"#).unwrap();
        writeln!(file, r#"{{"type":"TagTask","task_id":"{id}","tag":{}}}"#, if n % 7 == 0 { "1" } else { "\"a\"" })
            .unwrap();
    }
    file
}

#[sqlx::test(migrations = false)]
async fn whoever_dies_no_line_is_lost_or_doubled(pool: PgPool) {
    let world = World::new(pool).await;
    let (calm, disturbed) = (OwnerId(Uuid::new_v4()), OwnerId(Uuid::new_v4()));
    let file = file(20_000);
    let stop = CancellationToken::new();
    let id = world.queued(calm, &file).await;
    let working = tokio::spawn(world.worker().await.run(stop.clone()));
    let expected = world.ended(calm, id).await;
    stop.cancel();
    working.await.unwrap();
    assert_eq!((expected.state, expected.total), (State::Succeeded, Some(20_000)));
    assert_eq!((expected.succeeded, expected.failed), (15_428, 4_572));

    let id = world.queued(disturbed, &file).await;
    let mut deaths = 0;
    while !world.job(disturbed, id).await.state.has_ended() {
        let worker = world.worker().await;
        let dying = tokio::spawn(worker.run(CancellationToken::new()));
        // Not always at the same place.
        sleep(Duration::from_millis(60 + 37 * (deaths % 11))).await;
        dying.abort();
        let _ = dying.await;
        world.expire_leases().await;
        deaths += 1;
        assert!(deaths < 500, "it never ends");
    }
    assert!(deaths > 2, "only {deaths} deaths");
    let job = world.job(disturbed, id).await;
    assert_eq!((job.state, job.succeeded, job.failed), (expected.state, expected.succeeded, expected.failed));
    assert_eq!(world.outcome(disturbed, &job).await, world.outcome(calm, &expected).await);
}

#[sqlx::test(migrations = false)]
async fn an_account_has_so_many_jobs_and_others_are_not_kept_waiting(pool: PgPool) {
    let world = World::new(pool).await;
    let (busy, other) = (OwnerId(Uuid::new_v4()), OwnerId(Uuid::new_v4()));
    for _ in 0..QUEUED_EACH_MAX {
        world.queued(busy, &file(500)).await;
    }
    assert!(matches!(world.add(busy, "").await, Added::TooMany));
    let id = world.queued(other, &file(500)).await;
    let stop = CancellationToken::new();
    let copies = [world.worker().await, world.worker().await].map(|worker| tokio::spawn(worker.run(stop.clone())));
    let mut most = 0;
    while !world.job(other, id).await.state.has_ended() {
        let running = world.jobs.list(busy, None, 100).await.unwrap();
        most = most.max(running.iter().filter(|job| job.state == State::Running).count());
        sleep(Duration::from_millis(5)).await;
    }
    assert!(most as i64 <= RUNNING_EACH_MAX, "{most} at a time");
    let left = world.jobs.list(busy, None, 100).await.unwrap();
    assert!(left.iter().any(|job| job.state == State::Queued), "the other account had to wait for all of them");
    stop.cancel();
    for copy in copies {
        copy.await.unwrap();
    }
}

#[sqlx::test(migrations = false)]
async fn one_that_waits_is_cancelled_at_once(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let id = world.queued(owner, &file(100)).await;
    world.jobs.cancel(OwnerId(Uuid::new_v4()), id).await.unwrap();
    assert_eq!(world.job(owner, id).await.state, State::Queued);
    world.jobs.cancel(owner, id).await.unwrap();
    let job = world.job(owner, id).await;
    assert_eq!((job.state, job.started_at), (State::Cancelled, None));
    assert!(job.expires_at.is_some());
}
