//! The services: the relay, the projector from Kafka, lists from Redis, and a command's way through all of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::PgPool;
use system_tests::client::Account;
use system_tests::cluster::pool;
use system_tests::kafka::Kafka;
use system_tests::process::Process;
use system_tests::redis::Redis;
use system_tests::server::{command, run};
use system_tests::services::Parts;
use system_tests::stack::Stack;
use uuid::Uuid;

use super::{Bench, SOME_CONNECTIONS, head, latency, next_run, percent};
use crate::load::{batches, command_to_visible, lives, task_id};
use crate::report::rounded;
use crate::wrk::Measured;

/// Accounts whose log is published: enough of them that each partition has its share.
const OWNERS: usize = 48;
/// As many as a topic has where nothing is said.
const PARTITIONS: i32 = 12;
/// Different requests: ten times as many answers as a process keeps.
const LISTS: u32 = 16_384;
/// Different requests whose answers a process keeps all.
const LISTS_KEPT: u32 = 64;
/// Runs of the load generator until Redis has as good as all answers.
const WARMING_RUNS_MAX: usize = 12;
/// So many of the answers come from Redis where that is measured.
const FROM_REDIS_MIN: f64 = 0.9;
const VISIBLE_PER_SECOND: u64 = 500;
/// Accounts that send commands in the open loop.
const SENDERS: usize = 8;
const WARMING_SECONDS: u64 = 3;
/// Messages that the bare producer has on their way: as many as the relay may have.
const IN_FLIGHT_MESSAGES_MAX: usize = 20_000;
const KAFKA_MS_MAX: u64 = 30_000;
const DONE_MS_MAX: u64 = 300_000;
const POLL_MS: u64 = 5;

impl Bench<'_> {
    pub(super) async fn services(&mut self) {
        self.report.part("Relay and projector, of a log that is there already");
        let (kafka, redis) = (Kafka::start(), Redis::start());
        let parts = Parts::new(&self.cluster, kafka.brokers(), redis.url()).await;
        let parts = parts.with("PRIMETRADE_KAFKA_PARTITIONS", &PARTITIONS.to_string()).with("PRIMETRADE_LOG", "warn");
        let mut backends = Backends { read_url: parts.database_url.clone(), parts, events: 0 };
        backends.migrate().await;
        let accounts = backends.fill(self.plan.published_events).await;
        let commands = self.relay(&backends).await;
        for copies in [1, 2] {
            backends.read_url = self.cluster.url(&self.cluster.create_database().await);
            backends.migrate().await;
            self.projector_from_kafka(&backends, &commands, copies).await;
        }
        self.report.part("Lists that another process has cached in Redis");
        self.lists_from_redis(&backends, &commands, &accounts[0]).await;
    }

    /// Everything that is in the store, at once. Gives the copy that has published it.
    async fn relay(&mut self, backends: &Backends) -> Process {
        let store = pool(&backends.parts.database_url).await;
        let commands = backends.start("command-api", None);
        let cursor = "select coalesce(sum(position), 0)::bigint from event_store.relay_cursor";
        let relayed = rate("all is published", backends.events, async || number(&store, cursor).await).await;
        store.close().await;
        let Parts { brokers, topic, .. } = backends.parts.clone();
        let (consumed, messages) = {
            let brokers = brokers.clone();
            tokio::task::spawn_blocking(move || bare_consumer(&brokers, &topic)).await.expect("consumer")
        };
        assert_eq!(messages.len() as i64, backends.events, "messages, events");
        let produced = bare_producer(&brokers, &messages).await;
        self.report.note(
            "bare_producer",
            "bare producer, acks=all",
            produced,
            "messages/s",
            "the same messages".into(),
        );
        self.report.note("bare_consumer", "bare consumer", consumed, "messages/s", "the same messages".into());
        let beside =
            format!("{} of a bare producer, {} messages", percent(relayed / produced), rounded(backends.events as f64));
        let met = relayed >= 20_000.0;
        self.report.target("relay", "relay, acks=all", (relayed, "messages/s"), beside, "≥ 20,000", met);
        commands
    }

    /// A topic that is full, into read models that are empty.
    async fn projector_from_kafka(&mut self, backends: &Backends, commands: &Process, copies: usize) {
        let read = pool(&backends.read_url).await;
        let projectors: Vec<Process> = (0..copies).map(|_| backends.start("projector", Some(commands))).collect();
        let offsets = "select coalesce(sum(next_offset), 0)::bigint from read_model.kafka_partition";
        let projected = rate("all is projected", backends.events, async || number(&read, offsets).await).await;
        let history = number(&read, "select count(*) from read_model.history").await;
        assert_eq!(history, backends.events, "events in the read model");
        read.close().await;
        let (mut written, mut dropped) = (0.0, 0.0);
        for projector in &projectors {
            let metrics = Metrics::of(projector).await;
            written += metrics.counter("projector_redis_written_total", &[]);
            dropped += metrics.counter("projector_owner_versions_dropped_total", &[]);
            dropped += metrics.counter("projector_redis_dropped_total", &[]);
            // In order, so that the next one has the partitions at once.
            projector.terminate().await;
        }
        assert!(written > 0.0, "nothing was written to Redis");
        let beside = format!(
            "{} events; owner versions: {} to Redis, {} dropped",
            rounded(backends.events as f64),
            rounded(written),
            rounded(dropped)
        );
        let (key, name) = (format!("projector_kafka_{copies}"), format!("projector from Kafka, copies: {copies}"));
        let met = projected >= 20_000.0;
        self.report.target(&key, &name, (projected, "events/s"), beside, "≥ 20,000", met);
    }

    /// One list of 50 in thousands of forms, which no process can keep all, and the same in a few forms, which it can.
    async fn lists_from_redis(&mut self, backends: &Backends, commands: &Process, account: &Account) {
        let query = backends.start("query-api", Some(commands));
        query.ready().await;
        let ask = |forms: u32| {
            let variables = vec![("BENCH_FORMS", forms.to_string())];
            let measured = self.wrk("forms.lua", query.api().base(), SOME_CONNECTIONS, &account.token, variables);
            assert_eq!(measured.bad, 0, "forms.lua: answers of 400 and above");
            measured
        };
        for _ in 0..WARMING_RUNS_MAX {
            let (_, answers) = Metrics::asking(&query, || ask(LISTS)).await;
            if answers.share_of_redis() >= FROM_REDIS_MIN {
                break;
            }
        }
        let (measured, answers) = Metrics::asking(&query, || ask(LISTS)).await;
        ask(LISTS_KEPT);
        let (in_process, _) = Metrics::asking(&query, || ask(LISTS_KEPT)).await;
        self.report.note(
            "list_forms_process",
            "list of 50, 64 forms, in process",
            in_process.per_second,
            "/s",
            latency(&in_process),
        );
        let ratio = measured.per_second / in_process.per_second;
        let beside = format!(
            "{} of in process, {}; {} of the answers from Redis",
            percent(ratio),
            latency(&measured),
            percent(answers.share_of_redis())
        );
        let met = ratio >= 0.6 && answers.share_of_redis() >= FROM_REDIS_MIN;
        let value = (measured.per_second, "/s");
        self.report.target("list_redis", "list of 50, 16,384 forms, from Redis", value, beside, "≥ 60 %", met);
    }

    pub(super) async fn visible_through_services(&mut self) {
        self.report.part("Command to visible in a query, open loop, two copies of each service behind the gateway");
        let stack = Stack::start_with(&[("PRIMETRADE_LOG", "warn")]).await;
        let mut times = None;
        // Once to warm it: plans, connections, caches.
        for seconds in [WARMING_SECONDS, self.plan.visible_seconds] {
            let mut senders = Vec::new();
            for _ in 0..SENDERS {
                senders.push(stack.api().account().await);
            }
            times = Some(command_to_visible(senders, VISIBLE_PER_SECOND, seconds).await);
        }
        let Some((times, failed)) = times else { return };
        let (p50, p99) = (times.percentile(50.0), times.percentile(99.0));
        let beside = format!("p50 {} ms, {} commands, {failed} refused", rounded(p50), rounded(times.len() as f64));
        let met = p99 <= 100.0 && failed == 0;
        let name = format!("{VISIBLE_PER_SECOND} commands/s");
        self.report.target("visible_services", &name, (p99, "ms p99"), beside, "p99 ≤ 100 ms", met);
    }
}

/// What the services run on.
struct Backends {
    parts: Parts,
    read_url: String,
    /// In the log.
    events: i64,
}

impl Backends {
    fn variables(&self) -> Vec<(String, String)> {
        let mut variables = self.parts.variables();
        variables.push(("PRIMETRADE_READ_DATABASE_URL".to_owned(), self.read_url.clone()));
        variables
    }

    async fn migrate(&self) {
        let mut migrate = command(&std::env::temp_dir(), &["migrate"]);
        migrate.envs(self.variables());
        run(migrate, "").await.expect(0);
    }

    /// Without waiting until it is ready. `keys`: who signs tokens.
    fn start(&self, program: &'static str, keys: Option<&Process>) -> Process {
        let mut variables = self.variables();
        if let Some(keys) = keys {
            let url = format!("http://{}/.well-known/jwks.json", keys.address());
            variables.push(("PRIMETRADE_JWKS_URL".to_owned(), url));
        }
        Process::start(program, Vec::new(), variables)
    }

    /// A log of several accounts that nobody has published.
    async fn fill(&mut self, events: usize) -> Vec<Arc<Account>> {
        let mut variables = self.variables();
        variables.retain(|(name, _)| name != "PRIMETRADE_KAFKA_BROKERS");
        let filling = Process::start("command-api", Vec::new(), variables);
        filling.ready().await;
        let mut accounts = Vec::new();
        for _ in 0..OWNERS {
            let account = Arc::new(filling.api().account().await);
            let run = next_run();
            // a life has five events
            batches(&account, &lives((0..events / 5 / OWNERS).map(|n| task_id(run, 0, n)))).await;
            accounts.push(account);
        }
        let store = pool(&self.parts.database_url).await;
        self.events = head(&store).await;
        store.close().await;
        accounts
    }
}

/// How many a second, from when the first are seen to be done until all are.
async fn rate(what: &str, all: i64, done: impl AsyncFn() -> i64) -> f64 {
    let deadline = Instant::now() + Duration::from_millis(DONE_MS_MAX);
    let mut begun = None;
    loop {
        let now = done().await;
        if now > 0 {
            let (before, at) = *begun.get_or_insert((now, Instant::now()));
            if now >= all {
                assert!(before < all / 2, "{what}: too quickly to say anything");
                return (now - before) as f64 / at.elapsed().as_secs_f64();
            }
        }
        assert!(Instant::now() < deadline, "not within {DONE_MS_MAX} ms: {what}: {now} of {all}");
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect(sql)
}

fn kafka_client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Reads a topic from its beginning to its end; how many messages a second, and the messages.
fn bare_consumer(brokers: &str, topic: &str) -> (f64, Vec<OwnedMessage>) {
    let consumer: BaseConsumer =
        kafka_client(brokers).set("group.id", "bench").set("enable.auto.commit", "false").create().expect("consumer");
    let timeout = Duration::from_millis(KAFKA_MS_MAX);
    let mut assignment = TopicPartitionList::new();
    let mut all = 0;
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, timeout).expect("watermarks");
        all += usize::try_from(high - low).expect("a count");
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("assignment");
    }
    consumer.assign(&assignment).expect("assign");
    let mut messages = Vec::with_capacity(all);
    let mut started = None;
    while messages.len() < all {
        let message = consumer.poll(timeout).expect("a message in time").expect("a message");
        started.get_or_insert_with(Instant::now);
        messages.push(message.detach());
    }
    let seconds = started.map_or(f64::NAN, |started| started.elapsed().as_secs_f64());
    (all as f64 / seconds, messages)
}

/// Sends messages into a topic of their own, with the settings of the relay; how many a second.
async fn bare_producer(brokers: &str, messages: &[OwnedMessage]) -> f64 {
    let topic = format!("bare-{}", Uuid::new_v4().simple());
    let admin: AdminClient<DefaultClientContext> = kafka_client(brokers).create().expect("admin client");
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    let made = admin.create_topics([&new], &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let producer: FutureProducer = kafka_client(brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", "1")
        .set("linger.ms", "5")
        .set("batch.num.messages", "10000")
        .set("compression.type", "zstd")
        .set("queue.buffering.max.messages", IN_FLIGHT_MESSAGES_MAX.to_string())
        .create()
        .expect("producer");
    let send = |message: &OwnedMessage| -> DeliveryFuture {
        let record = FutureRecord {
            topic: &topic,
            partition: Some(message.partition()),
            payload: message.payload(),
            key: message.key(),
            timestamp: None,
            headers: message.headers().cloned(),
        };
        producer.send_result(record).unwrap_or_else(|(error, _)| panic!("not queued: {error}"))
    };
    // The first one finds the way.
    send(&messages[0]).await.expect("a delivery").expect("delivered");
    let started = Instant::now();
    for batch in messages.chunks(IN_FLIGHT_MESSAGES_MAX) {
        for delivered in join_all(batch.iter().map(&send)).await {
            delivered.expect("a delivery").expect("delivered");
        }
    }
    messages.len() as f64 / started.elapsed().as_secs_f64()
}

/// What a process says about itself.
struct Metrics(String);

/// Where answers came from.
#[derive(Debug)]
struct Answers {
    process: f64,
    redis: f64,
    database: f64,
}

impl Metrics {
    async fn of(process: &Process) -> Metrics {
        Metrics(process.api().get("/metrics").send().await.expect(200).text())
    }

    /// A run, and where its answers came from.
    async fn asking(query: &Process, ask: impl Fn() -> Measured) -> (Measured, Answers) {
        let before = Metrics::of(query).await;
        let measured = ask();
        let after = Metrics::of(query).await;
        let more = |name, layer| {
            let labels = [format!("layer=\"{layer}\""), "kind=\"answer\"".to_owned()];
            after.counter(name, &labels) - before.counter(name, &labels)
        };
        let answers = Answers {
            process: more("cache_hits_total", "process"),
            redis: more("cache_hits_total", "redis"),
            database: more("cache_misses_total", "redis"),
        };
        (measured, answers)
    }

    /// The sum of the series of this name that have these labels.
    fn counter(&self, name: &str, labels: &[String]) -> f64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let series =
            lines.filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)));
        series.filter_map(|rest| rest.split_whitespace().last()?.parse::<f64>().ok()).sum()
    }
}

impl Answers {
    fn share_of_redis(&self) -> f64 {
        self.redis / (self.process + self.redis + self.database)
    }
}
