//! The services, two copies of each, on a Postgres, a Kafka and a Redis of the test's choice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::{PgPool, Row};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::catch_up::checkpoints_at_heads;
use crate::check::{events, everything_holds_in};
use crate::client::{Account, Api, Routes};
use crate::cluster::{Cluster, pool};
use crate::ledger::Ledger;
use crate::process::Process;
use crate::redis::keys_and_values;
use crate::server::{CliRun, cli, command, run};
use crate::wait::{until, until_right};

/// Few, so that each has its share of a small load.
pub const PARTITIONS: i32 = 4;
const ANSWER_MS_MAX: u64 = 10_000;
const CAUGHT_UP_MS_MAX: u64 = 60_000;
const REDIS_RIGHT_MS_MAX: u64 = 30_000;

/// What the services run on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Event store, identity and read models.
    pub database_url: String,
    /// `host:port`
    pub brokers: String,
    /// `redis://…`
    pub redis_url: String,
    /// A topic of the test's own.
    pub topic: String,
    /// More variables.
    pub more: Vec<(String, String)>,
    /// Variables of one service, over those of all: its program, name, value.
    pub of_service: Vec<(&'static str, String, String)>,
}

impl Parts {
    /// A new database of the cluster and a new topic.
    pub async fn new(cluster: &Cluster, brokers: String, redis_url: String) -> Parts {
        let database_url = cluster.url(&cluster.create_database().await);
        let topic = format!("t-{}", Uuid::new_v4().simple());
        Parts { database_url, brokers, redis_url, topic, more: Vec::new(), of_service: Vec::new() }
    }

    /// With one more variable, or another value of one.
    pub fn with(mut self, name: &str, value: &str) -> Parts {
        self.more.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more variable of one service, or another value there.
    pub fn with_of(mut self, program: &'static str, name: &str, value: &str) -> Parts {
        self.of_service.push((program, name.to_owned(), value.to_owned()));
        self
    }

    /// For a service.
    pub fn variables_of(&self, program: &str) -> Vec<(String, String)> {
        let own = self.of_service.iter().filter(|(of, ..)| *of == program);
        self.variables().into_iter().chain(own.map(|(_, name, value)| (name.clone(), value.clone()))).collect()
    }

    /// For all programs.
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("PRIMETRADE_DATABASE_URL", self.database_url.clone()),
            ("PRIMETRADE_KAFKA_BROKERS", self.brokers.clone()),
            ("PRIMETRADE_KAFKA_TOPIC", self.topic.clone()),
            ("PRIMETRADE_KAFKA_PARTITIONS", PARTITIONS.to_string()),
            ("PRIMETRADE_REDIS_URL", self.redis_url.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(self.more.iter().cloned())
        .collect()
    }
}

/// Two copies of each service.
pub struct Services {
    /// What they run on.
    pub parts: Parts,
    /// `command-api`
    pub commands: [Process; 2],
    /// `projector`
    pub projectors: [Process; 2],
    /// `query-api`
    pub queries: [Process; 2],
    _turn: Option<MutexGuard<'static, ()>>,
}

/// The services of one test at a time: two cores have six processes, a broker and a database to run.
static TURN: Mutex<()> = Mutex::const_new(());

fn base(process: &Process) -> String {
    format!("http://{}", process.address())
}

/// Of a service that has its keys from this copy of `command-api`.
fn reading_variables(parts: &Parts, program: &str, keys: &Process) -> Vec<(String, String)> {
    let mut variables = parts.variables_of(program);
    variables.push(("PRIMETRADE_JWKS_URL".to_owned(), format!("{}/.well-known/jwks.json", base(keys))));
    variables
}

impl Services {
    /// Migrates the database, starts all and waits until all are ready.
    pub async fn start(parts: Parts) -> Services {
        let turn = TURN.lock().await;
        Services { _turn: Some(turn), ..Self::started(parts).await }
    }

    /// Another installation in the turn of this one.
    pub async fn start_beside(_: &Services, parts: Parts) -> Services {
        Self::started(parts).await
    }

    async fn started(parts: Parts) -> Services {
        cli(Path::new("/"), Some(&parts.database_url), &["migrate"], "").await.expect(0);
        let start = |program, variables: Vec<(String, String)>| Process::start(program, Vec::new(), variables);
        let commands = [(); 2].map(|()| start("command-api", parts.variables_of("command-api")));
        let reading = |program| start(program, reading_variables(&parts, program, &commands[0]));
        let projectors = [(); 2].map(|()| reading("projector"));
        let queries = [(); 2].map(|()| reading("query-api"));
        let services = Services { parts, commands, projectors, queries, _turn: None };
        for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
            process.ready().await;
        }
        services
    }

    /// A client of all copies, in turn.
    pub fn api(&self) -> Api {
        self.api_by(&self.commands)
    }

    /// A client of these copies of `command-api`, and of all of the others.
    pub fn api_by(&self, commands: &[Process]) -> Api {
        Api::routed(Routes {
            commands: commands.iter().map(base).collect(),
            queries: self.queries.iter().map(base).collect(),
            admin: self.projectors.iter().map(base).collect(),
            turn: AtomicUsize::new(0),
        })
    }

    /// A run of `primetrade` against them.
    pub async fn cli(&self, arguments: &[&str], input: &str) -> CliRun {
        let mut command = command(self.commands[0].dir(), arguments);
        command.envs(self.parts.variables());
        run(command, input).await
    }

    /// An account that is an admin.
    pub async fn admin(&self) -> Account {
        let email = format!("admin-{}@example.com", Uuid::new_v4().simple());
        let password = "the admin's own password";
        let create = ["user", "create", "--email", &email, "--name", "An Admin", "--admin", "--password-stdin"];
        self.cli(&create, password).await.expect(0);
        self.api().log_in(Uuid::nil(), &email, password).await
    }

    /// The copy of `command-api` that publishes now.
    pub async fn relay_leader(&self) -> usize {
        until("a relay leads", Duration::from_millis(ANSWER_MS_MAX), || async {
            for (number, copy) in self.commands.iter().enumerate() {
                let Ok(metrics) = copy.api().get("/metrics").try_send().await else { continue };
                if metrics.text().lines().any(|line| line.starts_with("relay_is_leader") && line.ends_with(" 1")) {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Waits until all that was appended is in the read model.
    pub async fn everything_is_read(&self) {
        let pool = pool(&self.parts.database_url).await;
        checkpoints_at_heads(&pool).await;
        pool.close().await;
    }

    /// Everything that always holds, in the store, in Kafka, in the read models, and as both copies of `query-api` show
    /// it.
    pub async fn everything_holds(&self, ledgers: &[&Ledger]) {
        // it waits until all is applied, and so was published
        self.everything_is_whole(ledgers).await;
        self.topic_is_the_log().await;
    }

    /// The same but for Kafka, for a topic that another installation has too.
    pub async fn everything_is_whole(&self, ledgers: &[&Ledger]) {
        everything_holds_in(&self.parts.database_url, self.commands[0].dir(), ledgers).await;
        for ledger in ledgers {
            for query in &self.queries {
                self.reads_are_the_tables(ledger.account(), query).await;
            }
        }
        self.redis_is_the_tables(ledgers).await;
        until("no lag", Duration::from_millis(CAUGHT_UP_MS_MAX), || async {
            for projector in &self.projectors {
                if projector.lag_events().await? > 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// The first occurrence of each event in the topic, since the last publication began, is in the order of its stream,
    /// and none is missing.
    async fn topic_is_the_log(&self) {
        let Parts { database_url, brokers, topic, .. } = self.parts.clone();
        let pool = pool(&database_url).await;
        let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for event in events(&pool).await {
            expected.entry(format!("{}/{}", event.owner, event.task)).or_default().push(event.version);
        }
        pool.close().await;
        let found = tokio::task::spawn_blocking(move || first_occurrences(&brokers, &topic)).await.expect("consumer");
        let other = expected.iter().find(|(stream, versions)| found.get(*stream) != Some(versions));
        assert!(
            found == expected,
            "topic and log differ: {other:?}, in the topic {:?}; streams {} and {}",
            other.and_then(|(stream, _)| found.get(stream)),
            expected.len(),
            found.len(),
        );
    }

    /// What a client reads is what the tables of the live generation say.
    async fn reads_are_the_tables(&self, account: &Account, query: &Process) {
        let pool = pool(&self.parts.database_url).await;
        let rows = sqlx::query(
            "select t.task_id, t.version from read_model.task t, read_model.projection p \
             where t.generation = p.live_generation and t.owner_id = $1 and not t.deleted",
        )
        .bind(account.id)
        .fetch_all(&pool)
        .await
        .expect("tasks");
        pool.close().await;
        let tables: HashMap<String, i64> =
            rows.iter().map(|row| (row.get::<Uuid, _>(0).to_string(), row.get::<i64, _>(1))).collect();
        let account = account.at(query.api());
        let shown: HashMap<String, i64> = account
            .walk("/api/v1/tasks?limit=200")
            .await
            .iter()
            .map(|task| (task["id"].as_str().expect("id").to_owned(), task["version"].as_i64().expect("version")))
            .collect();
        assert_eq!(shown.len(), tables.len(), "tasks shown, and in the tables");
        assert!(shown == tables, "{:?}", tables.iter().find(|(id, version)| shown.get(*id) != Some(*version)));
        let stats: Value = account.read("/api/v1/stats").await.expect(200).json();
        let counted: i64 = stats["by_status"].as_object().expect("by_status").values().filter_map(Value::as_i64).sum();
        assert_eq!(usize::try_from(counted).expect("a count"), tables.len(), "{stats}");
    }

    /// Where owners stand by Redis is where they stand by the tables, and what it keeps of their answers is what a copy
    /// answers that has no Redis. (It may be behind, or lack something, for some seconds: then it is looked at again.
    /// It may not say anything else.)
    async fn redis_is_the_tables(&self, ledgers: &[&Ledger]) {
        let pool = pool(&self.parts.database_url).await;
        let account = self.api().account().await;
        // by the projector: nobody reads for this account
        until_right(Duration::from_millis(REDIS_RIGHT_MS_MAX), || async {
            account.create(serde_json::json!({"title": "told to Redis"})).await;
            checkpoints_at_heads(&pool).await;
            redis_says(&self.parts.redis_url, &pool, &[account.id], &[]).await
        })
        .await;
        let mut variables = reading_variables(&self.parts, "query-api", &self.commands[0]);
        variables.retain(|(name, _)| name != "PRIMETRADE_REDIS_URL");
        let without = Process::start("query-api", Vec::new(), variables);
        without.ready().await;
        // asked by nobody before: a copy does not offer again what it has kept itself, and Redis may have been emptied
        let random = i32::from(Uuid::new_v4().as_bytes()[0]) + 1;
        let from: String =
            sqlx::query_scalar("select (current_date - $1)::text").bind(random).fetch_one(&pool).await.expect("a day");
        let paths = [format!("/api/v1/tasks?limit={}", 100 + random % 101), format!("/api/v1/stats?from={from}")];
        until_right(Duration::from_millis(REDIS_RIGHT_MS_MAX), || async {
            let mut answers = Vec::new();
            for account in ledgers.iter().map(|ledger| ledger.account()) {
                for (number, path) in paths.iter().enumerate() {
                    for query in &self.queries {
                        account.at(query.api()).read(path).await.expect(200);
                    }
                    answers.push((account.id, number, account.at(without.api()).read(path).await.expect(200).body));
                }
            }
            let owners: Vec<Uuid> = ledgers.iter().map(|ledger| ledger.account().id).collect();
            redis_says(&self.parts.redis_url, &pool, &owners, &answers).await
        })
        .await;
        pool.close().await;
    }
}

/// What Redis does not say yet of where these owners stand, and of these answers (owner, which, body). What it says of
/// anybody and is wrong fails the test.
async fn redis_says(
    url: &str,
    pool: &PgPool,
    owners: &[Uuid],
    answers: &[(Uuid, usize, Vec<u8>)],
) -> Result<(), String> {
    let (cache, live): (Uuid, i32) = sqlx::query_as("select cache_id, live_generation from read_model.projection")
        .fetch_one(pool)
        .await
        .expect("the projection");
    let rows = sqlx::query(
        "select owner_id, change_counter, revision, parked_position from read_model.owner where generation = $1",
    );
    let rows = rows.bind(live).fetch_all(pool).await.expect("owners");
    let number = |number: i64| u64::try_from(number).expect("not negative");
    // as in migrations/redis/owner-versions.lua, but for when it was so
    let tables: HashMap<Uuid, (i64, [u64; 3])> = rows
        .iter()
        .map(|row| {
            let parked = row.get::<Option<i64>, _>("parked_position").map_or(u64::MAX, number);
            let counter = row.get::<i64, _>("change_counter");
            let version = [number(counter) + 1, number(row.get("revision")), parked];
            (row.get("owner_id"), (counter, version))
        })
        .collect();
    let kept = |what: &str| keys_and_values(url, &format!("primetrade:{}:*:{what}", cache.simple()));
    let mut cached = HashSet::new();
    for (key, value) in kept("standing:*") {
        let (line, owner) = key.split_once(":standing:").expect("as it was asked for");
        let owner: Uuid = owner.parse().expect("an owner's id");
        // who has no row stands nowhere
        let expected = tables.get(&owner).map_or([0, 0, u64::MAX], |(_, version)| *version);
        let value = String::from_utf8_lossy(&value);
        let digits = |at: usize| u64::from_str_radix(value.get(16 * at..16 * (at + 1)).unwrap_or_default(), 16).ok();
        let found = [digits(0), digits(2), digits(3)];
        if !line.ends_with(&format!(":{live}")) || found[0] < Some(expected[0]) {
            return Err(format!("{key} is behind: {found:?}, in the tables {expected:?}"));
        }
        assert_eq!(found, expected.map(Some), "{key} is {value}");
        assert_eq!(value.get(64..), Some(owner.simple().to_string().as_str()), "{key} is {value}");
        cached.insert(owner);
    }
    if let Some(owner) = owners.iter().find(|owner| !cached.contains(*owner)) {
        return Err(format!("Redis does not know where {owner} stands"));
    }
    for (owner, which, body) in answers {
        let Some((counter, _)) = tables.get(owner) else { return Err(format!("{owner} is in no table")) };
        let of_now = kept(&format!("answer:*:{}:{counter:x}:*", owner.simple()));
        if !of_now.iter().any(|(_, value)| value.ends_with(body)) {
            let body = String::from_utf8_lossy(body);
            return Err(format!("Redis does not keep answer {which} of {owner} as it is read: {body:.300}"));
        }
    }
    Ok(())
}

/// Reads a topic from its beginning to its end: the versions of each stream in the last publication, each as it first
/// comes.
fn first_occurrences(brokers: &str, topic: &str) -> BTreeMap<String, Vec<i64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()
        .expect("consumer");
    let timeout = Duration::from_millis(ANSWER_MS_MAX);
    let metadata = consumer.fetch_metadata(Some(topic), timeout).expect("metadata");
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut ends: HashMap<i32, i64> = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, timeout).expect("watermarks");
        if high > low {
            ends.insert(partition, high);
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("assignment");
        }
    }
    consumer.assign(&assignment).expect("assign");
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut last_publication = 0;
    while !ends.is_empty() {
        let message = consumer.poll(timeout).expect("a message in time").expect("a message");
        if let Some((publication, stream, version)) =
            identity(&message).filter(|(number, ..)| *number >= last_publication)
        {
            if publication > last_publication {
                found.clear();
                last_publication = publication;
            }
            let versions = found.entry(stream).or_default();
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        if ends.get(&message.partition()) == Some(&(message.offset() + 1)) {
            ends.remove(&message.partition());
        }
    }
    found
}

/// Publication, stream and version of a message; `None` of one that is not ours.
fn identity(message: &impl Message) -> Option<(i64, String, i64)> {
    let text = |name: &str| {
        let header = message.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok().map(str::to_owned)
    };
    let stream = format!("{}/{}", text("ce_owner")?, text("ce_subject")?);
    Some((text("ce_publication")?.parse().ok()?, stream, text("ce_taskversion")?.parse().ok()?))
}
