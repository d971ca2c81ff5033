//! A database of its own for each test (and a topic, where the test is fed from Kafka), a log that is written by hand,
//! and random histories.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::time::Duration;

use backends::database::{self, Pool};
use chrono::{TimeDelta, TimeZone, Utc};
use domain::{
    Description, NewTask, OwnerId, Priority, State, Tag, TaskCommand, TaskEvent, TaskId, TaskPatch, Time, Title,
    decide, encode, evolve,
};
use event_store::TailReader;
use projector::Projector;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use system_tests::wait::until_true;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub mod admin;
pub mod topic;

use topic::Topic;

/// What the projection is fed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    Store,
    Kafka,
}

/// Runs each of these tests with either feed.
#[macro_export]
macro_rules! with_both_feeds {
    ($($name:ident),* $(,)?) => {
        mod fed_from_the_store {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::common::Feed::Store).await;
            })*
        }
        mod fed_from_kafka {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::common::Feed::Kafka).await;
            })*
        }
    };
}

/// A database that is dropped with it.
pub struct Database {
    pub pool: Pool,
    /// Where the projection is fed from Kafka.
    pub topic: Option<Topic>,
    server: PgConnectOptions,
    name: String,
}

impl Database {
    pub async fn create_for(feed: Feed) -> Self {
        let mut database = Self::create().await;
        if feed == Feed::Kafka {
            database.topic = Some(Topic::create(&database.pool, 5).await);
        }
        database
    }

    pub fn topic(&self) -> &Topic {
        self.topic.as_ref().unwrap()
    }

    /// Appends to the log, and publishes it.
    pub async fn append(&self, events: &[Event]) {
        self.log().append(events).await;
    }

    pub fn log(&self) -> Log {
        Log { pool: self.pool.clone(), topic: self.topic.clone() }
    }

    pub async fn create() -> Self {
        let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL names a Postgres for tests");
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("test_projector_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        let options = server.clone().database(&name).disable_statement_logging();
        let pool = database::pool(10, options);
        event_store::migrate(&pool).await.unwrap();
        read_model::migrate(&mut pool.acquire().await.unwrap()).await.unwrap();
        Self { pool, topic: None, server, name }
    }

    pub fn tail(&self) -> TailReader {
        TailReader::new(self.pool.clone(), None)
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }
}

/// Where events are appended.
#[derive(Clone)]
pub struct Log {
    pool: Pool,
    topic: Option<Topic>,
}

impl Log {
    /// Appends to the log, and publishes it.
    pub async fn append(&self, events: &[Event]) {
        append(&self.pool, events).await;
        self.publish().await;
    }

    pub async fn publish(&self) {
        if let Some(topic) = &self.topic {
            topic.publish(&self.pool).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&server).await.unwrap();
                let sql = format!("drop database if exists {name} with (force)");
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            });
        });
        dropped.join().unwrap();
    }
}

/// A projector that can be stopped.
pub struct Running {
    pub projector: Projector,
    stop: CancellationToken,
}

impl Running {
    pub async fn start(database: &Database, wake: Option<watch::Receiver<u64>>) -> Self {
        let stop = CancellationToken::new();
        let tail = TailReader::new(database.pool.clone(), wake);
        let pool = database.pool.clone();
        let started = match &database.topic {
            None => Projector::start(pool, tail, stop.clone()).await,
            Some(topic) => {
                Projector::start_from_kafka(pool, tail, kafka::subscription(topic.settings.clone()), None, stop.clone())
                    .await
            }
        };
        Self { projector: started.unwrap(), stop }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.projector.stopped().await;
    }
}

/// Waits until the live generation has all that the log has.
pub async fn caught_up(database: &Database) {
    until("the projector catches up", || async {
        projector::lag::advance_checkpoints(&database.pool, &database.tail()).await.unwrap();
        database
            .number(
                "select (select sum(position) from event_store.head)::bigint - coalesce((
                    select sum(position) from read_model.checkpoint c
                    join read_model.projection p on p.live_generation = c.generation), 0)::bigint",
            )
            .await
            == 0
    })
    .await;
}

/// Until it holds, for at most a minute: the time that Kafka takes for a group whose members die.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_true(what, Duration::from_secs(60), condition).await;
}

/// An event to be appended.
pub struct Event {
    pub owner: OwnerId,
    pub task: TaskId,
    pub event_type: String,
    pub schema_version: i16,
    pub data: String,
    pub occurred_at: Time,
}

/// Appends to shard 0, as the event store would: head row first, versions in order. One event of five is a change of its
/// own, as old ones are; the others make changes of many tasks, three at a time, every other one the undo of the one before.
pub async fn append(pool: &Pool, events: &[Event]) {
    let mut transaction = pool.begin().await.unwrap();
    let head: i64 = sqlx::query_scalar("select position from event_store.head where shard = 0 for update")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let mut versions: HashMap<(OwnerId, TaskId), i64> = HashMap::new();
    for event in events {
        if let std::collections::hash_map::Entry::Vacant(entry) = versions.entry((event.owner, event.task)) {
            let version: Option<i64> =
                sqlx::query_scalar("select max(version) from event_store.event where owner_id = $1 and task_id = $2")
                    .bind(event.owner.0)
                    .bind(event.task.0)
                    .fetch_one(&mut *transaction)
                    .await
                    .unwrap();
            entry.insert(version.unwrap_or(0));
        }
    }
    let (mut owners, mut tasks, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut times, mut types, mut forms, mut data) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for event in events {
        let version = versions.get_mut(&(event.owner, event.task)).unwrap();
        *version += 1;
        owners.push(event.owner.0);
        tasks.push(event.task.0);
        numbers.push(*version);
        times.push(event.occurred_at);
        types.push(event.event_type.clone());
        forms.push(event.schema_version);
        data.push(event.data.clone());
    }
    sqlx::query(
        "insert into event_store.event (position, version, occurred_at, recorded_at, owner_id, task_id, event_id,
            command_id, actor_id, shard, schema_version, type, actor_type, correlation_id, traceparent, data, change_id,
            undoes)
        select $1 + n, version, occurred_at, now(), owner_id, task_id, gen_random_uuid(), gen_random_uuid(), owner_id,
            0, schema_version, type, 'user', 'test', '', data, md5(owner_id::text || change)::uuid,
            case when change % 2 = 1 then md5(owner_id::text || (change - 3))::uuid end
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[], $7::smallint[], $8::text[])
            with ordinality as e (owner_id, task_id, version, occurred_at, type, schema_version, data, n),
            lateral (select case when n % 5 > 0 then ($1 + n) / 100 * 3 + n % 3 end) as c (change)",
    )
    .bind(head)
    .bind(&owners)
    .bind(&tasks)
    .bind(&numbers)
    .bind(&times)
    .bind(&types)
    .bind(&forms)
    .bind(&data)
    .execute(&mut *transaction)
    .await
    .unwrap();
    sqlx::query("update event_store.head set position = $1 where shard = 0")
        .bind(head + i64::try_from(events.len()).unwrap())
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// Random histories that the domain has decided, the same ones for the same seed.
pub struct Histories {
    seed: u64,
    clock: Time,
    streams: Vec<((OwnerId, TaskId), State)>,
    owners: u64,
}

impl Histories {
    pub fn new(seed: u64, owners: u64) -> Self {
        let clock = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        Self { seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, clock, streams: Vec::new(), owners }
    }

    fn below(&mut self, n: u64) -> u64 {
        // xorshift
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % n
    }

    fn priority(&mut self) -> Priority {
        Priority::ALL[usize::try_from(self.below(4)).unwrap()]
    }

    fn text(&mut self) -> String {
        format!("wörd{} And more{}", self.below(7), self.below(5))
    }

    fn tags(&mut self) -> std::collections::BTreeSet<Tag> {
        (0..self.below(4)).map(|_| Tag::parse(&format!("tag{}", self.below(9))).unwrap()).collect()
    }

    fn due(&mut self) -> Option<Time> {
        let days = i64::try_from(self.below(30)).unwrap();
        (days > 9).then(|| self.clock + TimeDelta::days(days))
    }

    fn rank(&mut self) -> Option<domain::Rank> {
        domain::Rank::parse(["", "1", "aZ", "zz1"][usize::try_from(self.below(4)).unwrap()]).ok()
    }

    fn command(&mut self) -> TaskCommand {
        match self.below(12) {
            0 | 1 => TaskCommand::Start,
            2 | 3 => TaskCommand::Complete,
            4 => TaskCommand::Reopen,
            5 => TaskCommand::Cancel,
            6 if self.below(4) == 0 => TaskCommand::Delete,
            // Of what is deleted.
            6 if self.below(3) == 0 => TaskCommand::Purge,
            6 => TaskCommand::Restore,
            7 => TaskCommand::Tag(self.tags()),
            8 => TaskCommand::Untag(self.tags()),
            _ => {
                let description = Description::parse(&self.text()).unwrap();
                let patch = TaskPatch {
                    title: (self.below(3) == 0).then(|| Title::parse(&self.text()).unwrap()),
                    description: (self.below(3) == 0).then(|| (self.below(2) == 0).then_some(description)),
                    priority: (self.below(3) == 0).then(|| self.priority()),
                    due_at: (self.below(3) == 0).then(|| self.due()),
                    tags: (self.below(5) == 0).then(|| self.tags()),
                    rank: (self.below(5) == 0).then(|| self.rank()),
                };
                TaskCommand::Patch(Box::new(patch))
            }
        }
    }

    /// The next events, at least this many.
    pub fn next(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let seconds = i64::try_from(self.below(20_000)).unwrap();
            self.clock += TimeDelta::seconds(seconds);
            let streams = u64::try_from(self.streams.len()).unwrap();
            let (stream, decided) = if streams < 3 || self.below(4) == 0 {
                let owner = OwnerId(Uuid::from_u128(u128::from(self.below(self.owners)) + 1));
                let task = TaskId(Uuid::from_u128(u128::from(self.below(u64::MAX))));
                let new = NewTask {
                    title: Title::parse(&self.text()).unwrap(),
                    description: (self.below(2) == 0).then(|| Description::parse(&self.text()).unwrap()),
                    priority: self.priority(),
                    due_at: self.due(),
                    tags: self.tags(),
                    rank: self.rank(),
                };
                self.streams.push(((owner, task), State::default()));
                (self.streams.len() - 1, TaskCommand::Create(Box::new(new)))
            } else {
                (usize::try_from(self.below(streams)).unwrap(), self.command())
            };
            let ((owner, task), state) = self.streams[stream].clone();
            let mut state = state;
            for event in decide(&state, &decided).unwrap_or_default() {
                state = evolve(state, &event);
                events.push(event_of(owner, task, &event, self.clock));
            }
            self.streams[stream].1 = state;
        }
        events
    }
}

pub fn event_of(owner: OwnerId, task: TaskId, event: &TaskEvent, occurred_at: Time) -> Event {
    let (event_type, schema_version, data) = encode(event);
    Event { owner, task, event_type: event_type.to_owned(), schema_version, data, occurred_at }
}

/// An event by type and data, of owner and task by number.
pub fn event(owner: u128, task: u128, event_type: &str, data: &str) -> Event {
    Event {
        owner: OwnerId(Uuid::from_u128(owner)),
        task: TaskId(Uuid::from_u128(task)),
        event_type: event_type.to_owned(),
        schema_version: 1,
        data: data.to_owned(),
        occurred_at: Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap(),
    }
}

pub const CREATED: &str = r#"{"title":"A title","priority":"medium","tags":["x"]}"#;

/// All rows of a generation as text, but for its number; what the log alone determines.
pub async fn rows(database: &Database, generation: i32) -> Vec<String> {
    let tables: Vec<String> =
        sqlx::query_scalar("select name from read_model.projected_table").fetch_all(&database.pool).await.unwrap();
    let mut rows = Vec::new();
    for table in tables {
        // A counter that has come back to nothing is as good as none.
        let sql = format!(
            r#"select '{table} ' || row::text
            from (select to_jsonb(t) - 'generation' as row from read_model.{table} as t where generation = $1) as r
            where not row @> '{{"count": 0}}' and not row @> '{{"created": 0, "completed": 0}}'"#
        );
        let found: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(generation).fetch_all(&database.pool).await.unwrap();
        rows.extend(found);
    }
    rows.sort();
    rows
}

/// The rows of the live generation, and those of one that is made anew from the log, are the same.
pub async fn assert_equals_the_log(database: &Database) {
    let report = projector::rebuild::verify(&database.pool, &database.tail(), |_| {}).await.unwrap();
    assert_eq!(report.differences.total, 0, "{:#?}", report.differences.examples);
}
