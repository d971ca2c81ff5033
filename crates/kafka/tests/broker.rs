//! Topic and producer on a real broker (TEST_KAFKA_BROKERS). With TLS and SASL where PRIMETRADE_KAFKA_SECURITY_PROTOCOL
//! and what belongs to it are set.

use std::collections::HashMap;
use std::time::Duration;

use domain::{OwnerId, StoredEvent, TaskId};
use futures_util::future::join_all;
use kafka::producer::Producer;
use kafka::topic::{self, TopicError};
use kafka::{KafkaSettings, record};
use messaging::{Message, partition_of};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use settings::Source;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const PARTITIONS: i32 = 5;
const WAIT: Duration = Duration::from_secs(30);

fn settings_of(pairs: &[(&str, &str)]) -> KafkaSettings {
    KafkaSettings::read(&Source::from_pairs(pairs.iter().copied())).expect("good").expect("brokers")
}

/// A topic of this test's own.
fn settings() -> KafkaSettings {
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS: the address of a Kafka to test with");
    let mut source = Source::from_env();
    source.set("PRIMETRADE_KAFKA_BROKERS", brokers);
    source.set("PRIMETRADE_KAFKA_TOPIC", format!("test-{}", Uuid::new_v4()));
    source.set("PRIMETRADE_KAFKA_PARTITIONS", PARTITIONS.to_string());
    KafkaSettings::read(&source).expect("good").expect("brokers")
}

fn message(position: i64) -> Message {
    let now = domain::parse_time("2026-01-31T12:00:00Z").expect("a time");
    Message {
        event: StoredEvent {
            shard: 0,
            position,
            owner_id: OwnerId(Uuid::from_u128(u128::try_from(position % 31).expect("positive"))),
            task_id: TaskId(Uuid::new_v4()),
            version: 1,
            event_id: Uuid::new_v4(),
            event_type: "TaskStarted".into(),
            schema_version: 1,
            occurred_at: now,
            recorded_at: now,
            actor_type: "user".into(),
            actor_id: None,
            command_id: Uuid::new_v4(),
            correlation_id: "test".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: None,
            undoes: None,
            data: "{}".into(),
        },
        log_id: Uuid::nil(),
        publication: 1,
        previous_position: position - 1,
    }
}

fn consume(settings: &KafkaSettings, count: usize) -> Vec<(i32, Message)> {
    let consumer: BaseConsumer = settings.client_config().set("group.id", "none").create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..settings.partitions {
        all.add_partition_offset(&settings.topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let deadline = Instant::now() + WAIT;
    let mut read = Vec::new();
    while read.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} messages within {WAIT:?}", read.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a message");
            read.push((message.partition(), record::read(&message).expect("one of ours")));
        }
    }
    read
}

#[tokio::test]
async fn the_topic_is_made_once_as_configured() {
    let settings = settings();
    tokio::try_join!(topic::ensure(&settings), topic::ensure(&settings)).expect("made by one, found by the other");
    topic::ensure(&settings).await.expect("there");
    let admin: AdminClient<DefaultClientContext> = settings.client_config().create().expect("a client");
    let asked = [ResourceSpecifier::Topic(&settings.topic)];
    let described = admin.describe_configs(&asked, &AdminOptions::new()).await.expect("an answer").remove(0);
    let described = described.expect("a topic");
    let config = described.entry_map();
    assert_eq!(config["min.insync.replicas"].value.as_deref(), Some("1"));
    let wrong = topic::ensure(&KafkaSettings { partitions: PARTITIONS + 1, ..settings }).await.expect_err("5, not 6");
    assert!(matches!(wrong, TopicError::Partitions { found: 5, expected: 6, .. }), "{wrong}");
    assert!(wrong.to_string().contains("PRIMETRADE_KAFKA_PARTITIONS=5"), "{wrong}");
}

#[tokio::test]
async fn messages_come_in_order_to_the_partitions_of_their_owners() {
    for compression in ["zstd", "lz4"] {
        let settings = KafkaSettings { compression, ..settings() };
        topic::ensure(&settings).await.expect("made");
        let producer = Producer::new(&settings).expect("a producer");
        let sent: Vec<Message> = (1..=5_000).map(message).collect();
        let deliveries: Vec<_> = sent.iter().map(|message| producer.send(message).expect("queued")).collect();
        let delivered = timeout(WAIT, join_all(deliveries)).await.expect("in time");
        assert!(delivered.iter().all(Result::is_ok), "{:?}", delivered.iter().find(|one| one.is_err()));
        let (topic, partitions) = (settings.topic.clone(), settings.partitions);
        let read = tokio::task::spawn_blocking(move || consume(&settings, 5_000)).await.expect("read");
        let mut last: HashMap<i32, i64> = HashMap::new();
        for (partition, message) in read {
            assert_eq!(partition, partition_of(message.event.owner_id, partitions), "{topic}");
            let before = last.insert(partition, message.event.position);
            assert!(before.is_none_or(|before| before < message.event.position), "{topic}: in order");
            let at = usize::try_from(message.event.position - 1).expect("positive");
            assert_eq!(message, sent[at]);
        }
        assert_eq!(last.len(), usize::try_from(partitions).expect("positive"));
    }
}

#[tokio::test]
async fn what_is_dropped_fails_at_once() {
    let settings = settings_of(&[("PRIMETRADE_KAFKA_BROKERS", "127.0.0.1:1")]);
    let producer = Producer::new(&settings).expect("a producer");
    let deliveries: Vec<_> = (1..=100).map(|position| producer.send(&message(position)).expect("queued")).collect();
    let mut all = Box::pin(join_all(deliveries));
    assert!(timeout(Duration::from_millis(300), &mut all).await.is_err(), "a message waits for the brokers");
    tokio::task::spawn_blocking(move || producer.purge()).await.expect("purged");
    let ended = timeout(Duration::from_secs(5), all).await.expect("at once");
    assert!(ended.iter().all(Result::is_err));
}

#[tokio::test]
async fn the_library_knows_tls_and_sasl() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let settings = settings_of(&[
            ("PRIMETRADE_KAFKA_BROKERS", "127.0.0.1:1"),
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("PRIMETRADE_KAFKA_SASL_MECHANISM", mechanism),
            ("PRIMETRADE_KAFKA_SASL_USERNAME", "us"),
            ("PRIMETRADE_KAFKA_SASL_PASSWORD", "hush"),
        ]);
        Producer::new(&settings).expect("built with TLS and SASL");
    }
}

#[tokio::test]
async fn brokers_that_are_away_are_told_within_seconds() {
    let settings = settings_of(&[("PRIMETRADE_KAFKA_BROKERS", "127.0.0.1:1")]);
    let away = timeout(Duration::from_secs(20), topic::ensure(&settings)).await.expect("in time");
    assert!(matches!(away, Err(TopicError::Kafka { .. })), "{away:?}");
}
