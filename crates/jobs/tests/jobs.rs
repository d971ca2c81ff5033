//! Jobs on a real Postgres: who may carry one out, and that each line has one effect whoever dies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backends::database::{self, Pool};
use bytes::Bytes;
use commands::Executor;
use commands::executor::BATCHES_AT_ONCE_MAX;
use domain::OwnerId;
use event_store::EventStore;
use futures_util::{TryStreamExt, stream};
use jobs::{
    AccountRecords, Added, Explain, Files, Filters, Job, Jobs, NewJob, QUEUED_EACH_MAX, RUNNING_EACH_MAX, Request,
    State, Upload, UploadError, Worker,
};
use process::budget::Budget;
use process::clock;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use task_files::{ExportFormat, Format};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
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
    folder: TempDir,
}

impl World {
    async fn new(pool: PgPool) -> Self {
        event_store::migrate(&shared(&pool)).await.unwrap();
        jobs::migrate(&shared(&pool)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = Files::folder(folder.path()).unwrap();
        Self { jobs: Jobs::new(shared(&pool)), pool, files, folder }
    }

    /// A copy of the service, with caches of its own.
    async fn worker(&self) -> Worker {
        let (store, mut tasks) = EventStore::start(shared(&self.pool)).await.unwrap();
        tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Worker {
            reads: store.tail(),
            jobs: Jobs::new(shared(&self.pool)),
            files: self.files.clone(),
            executor: Executor::new(store),
            account: AccountRecords {
                profile: Arc::new(|_| Box::pin(std::future::ready(Ok("{}".to_owned())))),
                audit: Arc::new(|_, _| Box::pin(std::future::ready(Ok(Vec::new())))),
            },
            permits: Budget::new(BATCHES_AT_ONCE_MAX, BATCHES_AT_ONCE_MAX),
            explain: Explain { line: |error| error.to_string(), failure: |failure| failure.to_string() },
        }
    }

    async fn add(&self, owner: OwnerId, file: &str) -> Added {
        let id = clock::new_id();
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(file.as_bytes()))]);
        Upload { job_id: id, is_gzip: false }.store(&self.files, body).await.unwrap();
        self.add_request(owner, id, Request::Import { format: Format::Ndjson }).await
    }

    async fn add_request(&self, owner: OwnerId, id: Uuid, request: Request) -> Added {
        let new = NewJob {
            id,
            owner,
            shard: 0,
            request,
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

    /// The position of the last event.
    async fn head(&self) -> i64 {
        sqlx::query_scalar("select position from event_store.head").fetch_one(&self.pool).await.unwrap()
    }

    /// Carried out without a disturbance.
    async fn calm(&self, owner: OwnerId, id: Uuid) -> Job {
        let stop = CancellationToken::new();
        let working = tokio::spawn(self.worker().await.run(stop.clone()));
        let job = self.ended(owner, id).await;
        stop.cancel();
        working.await.unwrap();
        job
    }

    /// Carried out by workers that die, the later the longer they live. How many did.
    async fn disturbed(&self, owner: OwnerId, id: Uuid) -> (Job, u64) {
        let mut deaths = 0;
        while !self.job(owner, id).await.state.has_ended() {
            let worker = self.worker().await;
            let dying = tokio::spawn(worker.run(CancellationToken::new()));
            sleep(Duration::from_millis(40 + 25 * deaths)).await;
            dying.abort();
            let _ = dying.await;
            self.expire_leases().await;
            deaths += 1;
        }
        (self.job(owner, id).await, deaths)
    }

    async fn result(&self, job: &Job) -> Vec<u8> {
        let bytes = job.result_bytes.unwrap().unsigned_abs();
        self.files.result(job.id, 0..bytes).await.unwrap().map_ok(Vec::from).try_concat().await.unwrap()
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
    let id = world.queued(calm, &file).await;
    let expected = world.calm(calm, id).await;
    assert_eq!((expected.state, expected.total), (State::Succeeded, Some(20_000)));
    assert_eq!((expected.succeeded, expected.failed), (15_428, 4_572));

    let id = world.queued(disturbed, &file).await;
    let (job, deaths) = world.disturbed(disturbed, id).await;
    assert!(deaths > 2, "only {deaths} deaths");
    assert_eq!((job.state, job.succeeded, job.failed), (expected.state, expected.succeeded, expected.failed));
    assert_eq!(world.outcome(disturbed, &job).await, world.outcome(calm, &expected).await);
}

#[sqlx::test(migrations = false)]
async fn an_export_and_a_change_of_many_tasks_are_whole_whoever_dies(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let id = world.queued(owner, &file(20_000)).await;
    world.calm(owner, id).await;
    let until = world.head().await;
    // Asked for before, so it is in none of them.
    let later =
        r#"{"type":"CreateTask","task_id":"00000000-0000-0000-0000-0000000f4240","title":"later","tags":["a"]}"#;
    let id = world.queued(owner, later).await;
    assert_eq!(world.calm(owner, id).await.succeeded, 1);
    let asked = async |request: Request| match world.add_request(owner, clock::new_id(), request).await {
        Added::Queued(job) => job.id,
        other => panic!("{other:?}"),
    };
    let export = || Request::Export { format: ExportFormat::Csv, filters: Filters::new(), until };
    let expected = world.calm(owner, asked(export()).await).await;
    assert_eq!((expected.state, expected.total, expected.succeeded), (State::Succeeded, Some(4_000), 4_000));
    let expected = world.result(&expected).await;
    assert_eq!(expected.iter().filter(|byte| **byte == b'\n').count(), 4_001);

    let command = r#"{"type":"StartTask","task_id":"00000000-0000-0000-0000-000000000000"}"#.to_owned();
    let filters = Filters::from([("tag".to_owned(), "a".to_owned()), ("status".to_owned(), "pending".to_owned())]);
    let id = asked(Request::Bulk { filters, command, until }).await;
    let (job, deaths) = world.disturbed(owner, id).await;
    assert!(deaths > 2, "only {deaths} deaths");
    let tagged = 4_000 - (0..4_000).step_by(7).count() as i64;
    assert_eq!((job.state, job.total, job.succeeded, job.failed), (State::Succeeded, Some(tagged), tagged, 0));
    let started = "select count(*), count(distinct task_id) from event_store.event where type = 'TaskStarted'";
    let started: (i64, i64) = sqlx::query_as(started).fetch_one(&world.pool).await.unwrap();
    assert_eq!(started, (tagged, tagged));

    // as of before that change
    let (job, deaths) = world.disturbed(owner, asked(export()).await).await;
    assert!(deaths > 2, "only {deaths} deaths");
    assert_eq!((job.state, job.succeeded), (State::Succeeded, 4_000));
    assert!(world.result(&job).await == expected, "another file");
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

/// After the lines that are under way, and what is done stays.
#[sqlx::test(migrations = false)]
async fn a_change_of_many_tasks_ends_when_it_is_cancelled_and_so_does_an_undo(pool: PgPool) {
    let world = World::new(pool).await;
    let file = (1..=2_500_u128).fold(String::new(), |mut file, n| {
        writeln!(file, r#"{{"type":"CreateTask","task_id":"{}","title":"{n}"}}"#, Uuid::from_u128(n)).unwrap();
        file
    });
    for is_undo in [false, true] {
        let owner = OwnerId(Uuid::new_v4());
        let change_id = world.queued(owner, &file).await;
        assert_eq!(world.calm(owner, change_id).await.succeeded, 2_500);
        let request = if is_undo {
            Request::Undo { change_id }
        } else {
            let command = r#"{"type":"StartTask","task_id":"00000000-0000-0000-0000-000000000000"}"#.to_owned();
            let filters = Filters::from([("status".to_owned(), "pending".to_owned())]);
            Request::Bulk { filters, command, until: world.head().await }
        };
        let worker = world.worker().await;
        let mut lock = world.pool.begin().await.unwrap();
        sqlx::query("select from event_store.head for update").execute(&mut *lock).await.unwrap();
        let Added::Queued(Job { id, .. }) = world.add_request(owner, clock::new_id(), request).await else {
            panic!("not queued")
        };
        let stop = CancellationToken::new();
        let working = tokio::spawn(worker.run(stop.clone()));
        let begun = async {
            let waiting = "select count(*) from pg_stat_activity
                           where datname = current_database() and wait_event_type = 'Lock'";
            while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.pool).await.unwrap() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), begun).await.unwrap();
        world.jobs.cancel(owner, id).await.unwrap();
        lock.rollback().await.unwrap();
        let job = world.ended(owner, id).await;
        stop.cancel();
        working.await.unwrap();
        assert_eq!((job.state, job.total), (State::Cancelled, Some(2_500)), "undo: {is_undo}");
        assert_eq!((job.succeeded, job.failed), (2_000, 0), "undo: {is_undo}");
        let events = "select count(*) from event_store.event where owner_id = $1 and change_id = $2";
        let events: i64 = sqlx::query_scalar(events).bind(owner.0).bind(id).fetch_one(&world.pool).await.unwrap();
        assert_eq!(events, 2_000, "undo: {is_undo}");
    }
}

#[sqlx::test(migrations = false)]
async fn one_that_waited_long_is_carried_out_and_one_that_was_begun_long_ago_fails(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let (waited, begun) = (world.queued(owner, &file(10)).await, world.queued(owner, &file(10)).await);
    let days_ago = "update jobs.job set created_at = now() - interval '2 days'";
    sqlx::query(days_ago).execute(&world.pool).await.unwrap();
    let abandoned = "update jobs.job set state = 'running', epoch = 1, started_at = now() - interval '25 hours',
                         lease_expires_at = '-infinity' where id = $1";
    sqlx::query(abandoned).bind(begun).execute(&world.pool).await.unwrap();
    let stop = CancellationToken::new();
    let working = tokio::spawn(world.worker().await.run(stop.clone()));
    let (waited, begun) = (world.ended(owner, waited).await, world.ended(owner, begun).await);
    stop.cancel();
    working.await.unwrap();
    assert_eq!((waited.state, waited.succeeded, waited.failed), (State::Succeeded, 7, 3));
    assert_eq!((begun.state, begun.succeeded), (State::Failed, 0));
    assert_eq!(begun.problem.as_deref(), Some("it could not be carried out within a day"));
}

/// The file is written only when its writer is shut down: what fails then is an error as any other.
#[sqlx::test(migrations = false)]
async fn an_upload_that_cannot_be_closed_is_an_error(pool: PgPool) {
    let world = World::new(pool).await;
    std::fs::write(world.folder.path().join("imports"), "where the folder would be").unwrap();
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{}"))]);
    let stored = Upload { job_id: clock::new_id(), is_gzip: false }.store(&world.files, body).await;
    assert!(matches!(stored, Err(UploadError::Store(_))), "{stored:?}");
}

#[sqlx::test(migrations = false)]
async fn an_archive_that_cannot_be_closed_is_written_later(pool: PgPool) {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, hook) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        hook(panic);
    }));
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let results = world.folder.path().join("results");
    std::fs::write(&results, "where the folder would be").unwrap();
    let id = clock::new_id();
    assert!(matches!(world.add_request(owner, id, Request::Archive { until: 0 }).await, Added::Queued(_)));
    let stop = CancellationToken::new();
    let working = tokio::spawn(world.worker().await.run(stop.clone()));
    let is_tried_again = async || {
        let epoch = sqlx::query_scalar::<_, i64>("select epoch from jobs.job where id = $1").bind(id);
        epoch.fetch_one(&world.pool).await.unwrap() > 1
    };
    let tried_again = async {
        while !is_tried_again().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), tried_again).await.unwrap();
    std::fs::remove_file(&results).unwrap();
    assert_eq!(world.ended(owner, id).await.state, State::Succeeded);
    stop.cancel();
    working.await.unwrap();
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}

#[sqlx::test(migrations = false)]
async fn files_that_no_job_has_are_removed(pool: PgPool) {
    let world = World::new(pool).await;
    let id = world.queued(OwnerId(Uuid::new_v4()), &file(10)).await;
    let imports = world.folder.path().join("imports");
    let (old, new) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let drafts = [&old, &new].map(|id| format!("{id}#1"));
    for name in [&old, &new, &drafts[0], &drafts[1]] {
        std::fs::write(imports.join(name), "x").unwrap();
    }
    let hours_ago = std::time::SystemTime::from(clock::now()) - Duration::from_secs(7_200);
    for name in [&id.to_string(), &old, &drafts[0]] {
        std::fs::File::options().write(true).open(imports.join(name)).unwrap().set_modified(hours_ago).unwrap();
    }
    // the job's own file would be removed with its end
    sqlx::query("update jobs.job set state = 'running', lease_expires_at = 'infinity'")
        .execute(&world.pool)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let working = tokio::spawn(world.worker().await.run(stop.clone()));
    let left = || -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(&imports).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    };
    let mut expected = vec![id.to_string(), new, drafts[1].clone()];
    expected.sort_unstable();
    for _ in 0..500 {
        if left() == expected {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left(), expected);
    stop.cancel();
    working.await.unwrap();
}
