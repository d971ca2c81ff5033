//! The relay on a real Postgres and a real Kafka (TEST_KAFKA_BROKERS): whatever breaks, the topic has every event, the
//! first time in order, each with the position of the one before it.

use backends::database::{self, Pool};
use sqlx::postgres::PgConnectOptions;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::{
    Actor, ActorType, CommandId, NewTask, OwnerId, Priority, Tags, TaskCommand, TaskId, TaskPatch, Title, decide,
    evolve,
};
use event_store::{CommandOrigin, DecidedCommand, Effect, EventStore, NewEvent, Publication, StreamAppend};
use futures_util::future::join_all;
use kafka::{KafkaSettings, record};
use messaging::{Message, partition_of};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use relay::{Relay, RelayLag};
use settings::Source;
use sqlx::PgPool;
use system_tests::kafka::Kafka;
use system_tests::wait::until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

const PARTITIONS: i32 = 4;
const WAIT: Duration = Duration::from_secs(60);
const OWNERS: u128 = 16;

fn settings_at(brokers: &str) -> KafkaSettings {
    let topic = format!("test-{}", Uuid::new_v4());
    let partitions = PARTITIONS.to_string();
    let source = Source::from_pairs([
        ("PRIMETRADE_KAFKA_BROKERS", brokers),
        ("PRIMETRADE_KAFKA_TOPIC", &topic),
        ("PRIMETRADE_KAFKA_PARTITIONS", &partitions),
    ]);
    KafkaSettings::read(&source).expect("good").expect("brokers")
}

/// A topic of this test's own.
fn settings() -> KafkaSettings {
    settings_at(&std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS: the address of a Kafka to test with"))
}

/// A log of the test's own, and the relays on it.
struct World {
    store: EventStore,
    pool: PgPool,
    settings: KafkaSettings,
}

struct Running {
    relay: Relay,
    stop: CancellationToken,
}

impl World {
    async fn new(pool: PgPool, settings: KafkaSettings) -> Self {
        event_store::migrate(&shared(&pool)).await.expect("migrations run");
        let (store, mut tasks) = EventStore::start(shared(&pool)).await.expect("the store starts");
        tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Self { store, pool, settings }
    }

    async fn relay(&self) -> Running {
        let stop = CancellationToken::new();
        let started = Relay::start(self.store.publication(), self.settings.clone(), stop.clone());
        Running { relay: started.await.expect("it starts"), stop }
    }

    /// So many tasks of several owners, three events each.
    async fn append(&self, tasks: u128) {
        let appends = (0..tasks).map(|n| self.store.append(0, three_events(OwnerId(Uuid::from_u128(n % OWNERS + 1)))));
        for appended in join_all(appends).await {
            appended.expect("appended");
        }
    }

    async fn head(&self) -> i64 {
        self.store.tail().heads().await.expect("an answer")[0].1
    }

    async fn cursor(&self) -> i64 {
        self.store.tail().published().await.expect("an answer").first().map_or(0, |published| published.cursor)
    }

    async fn published_up_to(&self, position: i64) {
        let reached = || async move { (self.cursor().await >= position).then_some(()) };
        until(&format!("published up to {position}"), WAIT, reached).await;
    }

    /// What the topic has, partition by partition.
    async fn topic(&self) -> Vec<Vec<Message>> {
        let settings = self.settings.clone();
        tokio::task::spawn_blocking(move || read_all(&settings)).await.expect("read")
    }

    /// The topic has every event up to the head, each in the partition of its owner, the first time in order and
    /// naming the one before it; and nothing else.
    async fn assert_complete(&self) -> Vec<Vec<Message>> {
        let topic = self.topic().await;
        let events = self.store.tail().read_after(0, 0, i64::MAX).await.expect("the log");
        assert_eq!(i64::try_from(events.len()).expect("few"), self.head().await);
        let mut expected: Vec<Vec<Message>> = vec![Vec::new(); topic.len()];
        for event in events {
            let partition = usize::try_from(partition_of(event.owner_id, PARTITIONS)).expect("positive");
            let previous_position = expected[partition].last().map_or(0, |message| message.event.position);
            let log_id = self.store.log_id();
            expected[partition].push(Message { event, log_id, publication: 1, previous_position });
        }
        for (partition, (messages, expected)) in topic.iter().zip(&expected).enumerate() {
            let mut firsts: Vec<&Message> = Vec::new();
            for message in messages {
                match firsts.last() {
                    Some(last) if message.event.position <= last.event.position => {
                        let again = &expected[expected.partition_point(|m| m.event.position < message.event.position)];
                        assert_eq!(message, again, "a duplicate in partition {partition} differs");
                    }
                    _ => firsts.push(message),
                }
            }
            let expected: Vec<&Message> = expected.iter().collect();
            assert_eq!(firsts, expected, "partition {partition}");
        }
        topic
    }
}

impl Running {
    async fn until(&self, what: &str, is: impl Fn(&RelayLag) -> bool) -> RelayLag {
        let mut lag = self.relay.lag();
        let found = tokio::time::timeout(WAIT, lag.wait_for(is)).await;
        found
            .unwrap_or_else(|_| panic!("not within {WAIT:?}: {what}; {:?}", self.relay.lag().borrow()))
            .expect("runs")
            .clone()
    }

    async fn leads(&self) {
        self.until("it leads", |lag| lag.is_leader).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.relay.stopped()).await.expect("stops in time");
    }
}

fn three_events(owner: OwnerId) -> StreamAppend {
    let new = NewTask {
        title: Title::parse("water the plants").expect("a title"),
        description: None,
        priority: Priority::Medium,
        due_at: None,
        tags: Tags::new(),
        rank: None,
    };
    let rename = TaskPatch { title: Some(Title::parse("water all plants").expect("a title")), ..TaskPatch::default() };
    let now = domain::parse_time("2026-01-01T00:00:00Z").expect("a time");
    let mut state = domain::State::default();
    let mut events = Vec::new();
    for command in [TaskCommand::Create(Box::new(new)), TaskCommand::Patch(Box::new(rename)), TaskCommand::Start] {
        for event in decide(&state, &command).expect("allowed") {
            state = evolve(state, &event);
            events.push(NewEvent { event_id: process::clock::new_id(), occurred_at: now, event });
        }
    }
    StreamAppend {
        owner_id: owner,
        task_id: TaskId(Uuid::new_v4()),
        is_new_task: true,
        expected_version: 0,
        expected_revision: 0,
        origin: CommandOrigin {
            actor: Actor { actor_type: ActorType::User, id: Some(owner.0) },
            correlation_id: "test".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: Uuid::from_u128(3),
            undoes: None,
        },
        commands: vec![DecidedCommand {
            command_id: CommandId(Uuid::new_v4()),
            fingerprint: None,
            effect: Effect::Created,
            change_id: None,
            events,
        }],
    }
}

fn read_all(settings: &KafkaSettings) -> Vec<Vec<Message>> {
    let consumer: BaseConsumer = settings.client_config().set("group.id", "none").create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    let mut missing = HashMap::new();
    for partition in 0..settings.partitions {
        all.add_partition_offset(&settings.topic, partition, Offset::Beginning).expect("a partition");
        let (low, high) = consumer.fetch_watermarks(&settings.topic, partition, WAIT).expect("watermarks");
        missing.insert(partition, high - low);
    }
    consumer.assign(&all).expect("assigned");
    let mut read: BTreeMap<i32, Vec<Message>> = (0..settings.partitions).map(|partition| (partition, vec![])).collect();
    let deadline = std::time::Instant::now() + WAIT;
    while missing.values().any(|count| *count > 0) {
        assert!(std::time::Instant::now() < deadline, "still missing: {missing:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a message");
            *missing.get_mut(&message.partition()).expect("assigned") -= 1;
            let partition = read.get_mut(&message.partition()).expect("assigned");
            partition.push(record::read(&message).expect("one of ours"));
        }
    }
    read.into_values().collect()
}

async fn delete_topic(settings: &KafkaSettings) {
    let admin: AdminClient<DefaultClientContext> = settings.client_config().create().expect("a client");
    let deleted = admin.delete_topics(&[&settings.topic], &AdminOptions::new()).await.expect("an answer");
    deleted.into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
}

#[sqlx::test(migrations = false)]
async fn the_log_is_published_in_order_and_what_comes_later_too(pool: PgPool) {
    let world = World::new(pool, settings()).await;
    world.append(700).await;
    let running = world.relay().await;
    world.published_up_to(2_100).await;
    let caught_up = running.until("no lag", |lag| lag.is_leader && lag.events == 0).await;
    assert_eq!(caught_up.trouble, None);
    world.append(1).await;
    world.published_up_to(2_103).await;
    let topic = world.assert_complete().await;
    assert_eq!(topic.iter().map(Vec::len).sum::<usize>(), 2_103, "each once");
    assert!(topic.iter().all(|partition| !partition.is_empty()));
    let last = |partition: &Vec<Message>| partition.last().map_or(0, |message| message.event.position);
    let lasts: Vec<(i32, i64)> = (0..).zip(topic.iter().map(last)).collect();
    assert_eq!(world.store.tail().published().await.expect("an answer")[0].last_positions, lasts);
    running.stop().await;
}

#[sqlx::test(migrations = false)]
async fn one_of_several_publishes_and_another_goes_on_when_it_stops(pool: PgPool) {
    let world = World::new(pool, settings()).await;
    let first = world.relay().await;
    first.leads().await;
    let second = world.relay().await;
    world.append(200).await;
    world.published_up_to(600).await;
    assert!(!second.relay.lag().borrow().is_leader);
    first.stop().await;
    world.append(200).await;
    // It was told: it need not wait until the lease expires.
    tokio::time::timeout(Duration::from_secs(4), second.leads()).await.expect("at once");
    world.published_up_to(1_200).await;
    let topic = world.assert_complete().await;
    assert_eq!(topic.iter().map(Vec::len).sum::<usize>(), 1_200, "each once");
    second.stop().await;
}

#[sqlx::test(migrations = false)]
async fn leaders_that_take_the_lease_from_each_other_lose_and_reorder_nothing(pool: PgPool) {
    let world = World::new(pool, settings()).await;
    let relays = [world.relay().await, world.relay().await, world.relay().await];
    let stop_taking = CancellationToken::new();
    // Each leader in turn is treated as dead while it is in the middle of its work: once it has moved the cursor.
    let taken = Arc::new(AtomicU64::new(0));
    let taking = tokio::spawn({
        let (pool, stop, taken) = (world.pool.clone(), stop_taking.clone(), Arc::clone(&taken));
        async move {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            let mut cursor = 0;
            while !stop.is_cancelled() {
                looks.tick().await;
                let expired = sqlx::query_scalar::<_, i64>(
                    "update event_store.relay set holder = null, epoch = epoch + 1, expires_at = '-infinity'
                     from event_store.relay_cursor where holder is not null and position > $1 returning position",
                );
                if let Some(at) = expired.bind(cursor).fetch_optional(&pool).await.expect("expired") {
                    cursor = at;
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let mut appended = 0;
    while appended < 100 || taken.load(Ordering::Relaxed) < 3 || world.cursor().await < 1_500 {
        assert!(appended < 2_000, "the cursor does not move: {}", world.cursor().await);
        world.append(50).await;
        appended += 1;
    }
    stop_taking.cancel();
    taking.await.expect("no panic");
    world.published_up_to(world.head().await).await;
    world.assert_complete().await;
    for running in relays {
        running.stop().await;
    }
}

#[sqlx::test(migrations = false)]
async fn while_kafka_is_away_commands_go_on_the_lag_is_shown_and_it_catches_up(pool: PgPool) {
    let kafka = Arc::new(tokio::task::spawn_blocking(Kafka::start).await.expect("Kafka"));
    let world = World::new(pool, settings_at(&kafka.brokers())).await;
    let running = world.relay().await;
    world.append(100).await;
    world.published_up_to(300).await;
    kafka.kill();
    world.append(100).await;
    running.until("the lag grows", |lag| lag.events == 300 && lag.seconds > 1.0).await;
    running.until("it says why", |lag| lag.trouble.is_some() && !lag.is_leader).await;
    world.append(100).await;
    running.until("the lag grows", |lag| lag.events == 600).await;
    kafka.restart().await;
    world.published_up_to(900).await;
    running.until("no lag and no trouble", |lag| lag.events == 0 && lag.trouble.is_none()).await;
    world.assert_complete().await;
    running.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_short_absence_of_the_broker_in_the_middle_of_work_loses_nothing(pool: PgPool) {
    let kafka = Arc::new(tokio::task::spawn_blocking(Kafka::start).await.expect("Kafka"));
    let world = World::new(pool, settings_at(&kafka.brokers())).await;
    let running = world.relay().await;
    running.leads().await;
    let appending = async {
        for _ in 0..60 {
            world.append(50).await;
        }
    };
    let breaking = async {
        world.published_up_to(300).await;
        kafka.kill();
        kafka.restart().await;
    };
    tokio::join!(appending, breaking);
    world.published_up_to(9_000).await;
    world.assert_complete().await;
    running.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_transaction_that_somebody_leaves_open_does_not_stall_it(pool: PgPool) {
    let world = World::new(pool.clone(), settings()).await;
    let running = world.relay().await;
    world.append(1).await;
    world.published_up_to(3).await;
    // It has a snapshot, has written something, and holds locks that writers of its own take.
    let mut open = pool.begin().await.expect("begun");
    sqlx::query("create table event_store.somebody_s (x int)").execute(&mut *open).await.expect("created");
    sqlx::query("select count(*) from event_store.event").execute(&mut *open).await.expect("read");
    sqlx::query("lock table event_store.event, event_store.relay_cursor in row exclusive mode")
        .execute(&mut *open)
        .await
        .expect("locked");
    for round in 1..=5 {
        world.append(10).await;
        // What waited for it would wait until the end of this test.
        let published = world.published_up_to(3 + round * 30);
        tokio::time::timeout(Duration::from_secs(10), published).await.expect("it goes on");
    }
    open.rollback().await.expect("rolled back");
    running.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_topic_that_was_deleted_is_made_again_and_refilled_on_command(pool: PgPool) {
    let world = World::new(pool, settings()).await;
    let running = world.relay().await;
    world.append(100).await;
    world.published_up_to(300).await;
    delete_topic(&world.settings).await;
    world.append(100).await;
    world.published_up_to(600).await;

    // What is lost is lost, and can be seen: the first message of each partition names one that is not there.
    let topic = world.topic().await;
    assert_eq!(topic.iter().map(Vec::len).sum::<usize>(), 300);
    for partition in &topic {
        let first = partition.first().expect("some");
        assert!(first.event.position > 300 && (1..=300).contains(&first.previous_position), "{first:?}");
    }

    let begun = Publication::new(shared(&world.pool)).republish(101, None).await.expect("begun");
    assert_eq!((begun.publication, begun.events), (2, 500));
    world.published_up_to(600).await;
    let topic = world.topic().await;
    let again = topic.iter().flatten().filter(|message| message.publication == 2);
    assert_eq!(again.count(), 500);
    for partition in &topic {
        let mut again = partition.iter().filter(|message| message.publication == 2);
        let mut previous = again.next().expect("some");
        assert_eq!(previous.previous_position, 100);
        for message in again {
            assert_eq!(message.previous_position, previous.event.position);
            previous = message;
        }
    }
    running.stop().await;
}

#[sqlx::test(migrations = false)]
async fn it_does_not_publish_past_a_hole_nor_to_a_topic_of_another_size(pool: PgPool) {
    let world = World::new(pool, settings()).await;
    world.append(10).await;
    sqlx::query("delete from event_store.event where position = 6").execute(&world.pool).await.expect("deleted");
    let running = world.relay().await;
    let holed = running.until("it stops at the hole", |lag| lag.trouble.is_some()).await;
    assert!(holed.trouble.as_deref().is_some_and(|said| said.contains("position 6")), "{holed:?}");
    assert_eq!(world.cursor().await, 0);
    running.stop().await;

    let elsewhere = KafkaSettings { partitions: PARTITIONS * 2, ..world.settings.clone() };
    let stop = CancellationToken::new();
    let relay = Relay::start(world.store.publication(), elsewhere, stop.clone()).await.expect("it starts");
    let running = Running { relay, stop };
    let other = running.until("it refuses", |lag| lag.trouble.is_some()).await;
    assert!(other.trouble.as_deref().is_some_and(|said| said.contains("republish --from 1")), "{other:?}");
    running.stop().await;
}
