//! `docs/asyncapi.yaml` beside what is really sent: a message of every type, made by commands, published by the relay,
//! read from Kafka as bytes (TEST_KAFKA_BROKERS).

use backends::database::{self, Pool};
use sqlx::postgres::PgConnectOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use commands::{Caller, CommandRequest, Executor, ExpectedVersion};
use domain::{
    Actor, ActorType, Description, NewTask, OwnerId, Priority, Status, Tag, Tags, TaskCommand, TaskId, TaskPatch, Title,
};
use event_store::EventStore;
use jsonschema::Validator;
use kafka::KafkaSettings;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{Message, Offset, TopicPartitionList};
use relay::Relay;
use serde_json::{Map, Value, json};
use settings::Source;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

const WAIT: Duration = Duration::from_secs(60);

/// A message as it came.
struct Raw {
    key: String,
    headers: Map<String, Value>,
    payload: Value,
}

fn document() -> Value {
    serde_saphyr::from_str(include_str!("../../../docs/asyncapi.yaml")).expect("YAML")
}

/// A validator of what stands at this place of the document.
fn validator(document: &Value, place: &str) -> Validator {
    let schema = json!({ "$ref": format!("#{place}"), "components": document["components"] });
    jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema")
}

fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{value}: {errors:?}");
}

fn commands() -> Vec<TaskCommand> {
    let due = domain::parse_time("2027-01-31T12:00:00.000123Z").expect("a time");
    let tags = Tags::from([Tag::parse("home").expect("a tag"), Tag::parse("äpfel").expect("a tag")]);
    let filled = NewTask {
        title: Title::parse("Ring \"Zoë\" 🔔").expect("a title"),
        description: Some(Description::parse("two\nlines").expect("a description")),
        priority: Priority::High,
        due_at: Some(due),
        tags: tags.clone(),
        rank: domain::Rank::parse("m").ok(),
    };
    let emptied = TaskPatch {
        title: Some(Title::parse("Ring Zoë").expect("a title")),
        description: Some(None),
        priority: Some(Priority::Urgent),
        due_at: Some(None),
        tags: None,
        rank: Some(None),
    };
    let described = Description::parse("one line").expect("a description");
    let again = TaskPatch { description: Some(Some(described)), due_at: Some(Some(due)), ..TaskPatch::default() };
    vec![
        TaskCommand::Create(Box::new(filled)),
        TaskCommand::Patch(Box::new(emptied)),
        TaskCommand::Patch(Box::new(again)),
        TaskCommand::Untag(tags.clone()),
        TaskCommand::Tag(tags),
        TaskCommand::Start,
        TaskCommand::Complete,
        TaskCommand::Reopen,
        TaskCommand::Cancel,
        TaskCommand::RevertStage {
            from: Status::Cancelled,
            to: Status::Completed,
            started_at: None,
            completed_at: Some(due),
        },
        TaskCommand::Delete,
        TaskCommand::Restore,
        TaskCommand::Delete,
        TaskCommand::Purge,
    ]
}

fn read(settings: &KafkaSettings, count: usize) -> Vec<Raw> {
    let consumer: BaseConsumer = settings.client_config().set("group.id", "none").create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..settings.partitions {
        all.add_partition_offset(&settings.topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let deadline = Instant::now() + WAIT;
    let mut read = Vec::new();
    while read.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} messages", read.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a message");
        let headers = message.headers().expect("headers").iter();
        let headers =
            headers.map(|header| (header.key.to_owned(), Value::String(text(header.value.expect("a value")))));
        read.push(Raw {
            key: text(message.key().expect("a key")),
            headers: headers.collect(),
            payload: serde_json::from_slice(message.payload().expect("a payload")).expect("JSON"),
        });
    }
    read
}

#[sqlx::test(migrations = false)]
async fn what_is_sent_is_what_the_document_says(pool: PgPool) {
    event_store::migrate(&shared(&pool)).await.expect("migrations run");
    let (store, mut tasks) = EventStore::start(shared(&pool)).await.expect("the store starts");
    tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
    let owner = Uuid::new_v4();
    for (actor_type, id) in [(ActorType::User, Some(owner)), (ActorType::System, None)] {
        let caller = Caller {
            owner: OwnerId(owner),
            shard: 0,
            actor: Actor { actor_type, id },
            correlation_id: "a request of the test".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: Uuid::new_v4(),
            history: false,
        };
        let (executor, task_id) = (Executor::new(store.clone()), TaskId(process::clock::new_id()));
        for command in commands() {
            let request =
                CommandRequest { task_id, command, identity: None, expected: ExpectedVersion::Any, occurred_at: None };
            executor.execute(&caller, request).await.expect("accepted");
        }
    }
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS: the address of a Kafka to test with");
    let topic = format!("test-{}", Uuid::new_v4());
    let source = Source::from_pairs([("PRIMETRADE_KAFKA_BROKERS", &brokers), ("PRIMETRADE_KAFKA_TOPIC", &topic)]);
    let settings = KafkaSettings::read(&source).expect("good").expect("brokers");
    let stop = CancellationToken::new();
    let relay = Relay::start(store.publication(), settings.clone(), stop.clone()).await.expect("it starts");
    let count = usize::try_from(store.tail().heads().await.expect("an answer")[0].1).expect("few");
    let sent = tokio::task::spawn_blocking(move || read(&settings, count)).await.expect("read");
    stop.cancel();
    relay.stopped().await;

    let document = document();
    let messages = document["components"]["messages"].as_object().expect("messages");
    let headers = validator(&document, "/components/schemas/headers");
    let documented = document["components"]["schemas"]["headers"]["properties"].as_object().expect("properties");
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for Raw { key, headers: found, payload } in &sent {
        assert_valid(&headers, &Value::Object(found.clone()));
        for name in found.keys() {
            assert!(documented.contains_key(name), "the header {name} is not in the document");
        }
        assert_eq!(found["ce_owner"], json!(key));
        let name = found["ce_type"].as_str().expect("a type");
        let schema = messages[name]["payload"]["$ref"].as_str().expect("a schema").trim_start_matches('#');
        assert_valid(&validator(&document, schema), payload);
        let members = document.pointer(schema).expect("a schema")["properties"].as_object().expect("properties");
        for member in payload.as_object().expect("an object").keys() {
            assert!(members.contains_key(member), "{member} of {name} is not in the document");
        }
        seen.entry(name).or_default().extend(payload.as_object().expect("an object").keys().cloned());
    }
    assert!(seen.keys().copied().eq(messages.keys().map(String::as_str)), "a message of each type: {:?}", seen.keys());
    assert_eq!(seen["TaskCreated"].len(), 6, "with all its members");
    let without_actor = sent.iter().filter(|message| !message.headers.contains_key("ce_actorid")).count();
    assert_eq!(without_actor * 2, count, "the system's own have no account");
}

#[test]
fn the_document_is_complete_in_itself() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["asyncapi"], "3.0.0");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 40);
    for reference in found {
        let place = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(place).is_some(), "{reference} points at nothing");
    }
    let settings = KafkaSettings::read(&Source::from_pairs([("PRIMETRADE_KAFKA_BROKERS", "x:1")]));
    let settings = settings.expect("good").expect("brokers");
    let channel = &document["channels"]["taskEvents"];
    assert_eq!(channel["address"], settings.topic);
    assert_eq!(channel["bindings"]["kafka"]["partitions"], settings.partitions);
    let names = |place: &str| -> BTreeSet<String> {
        document.pointer(place).and_then(Value::as_object).expect("an object").keys().cloned().collect()
    };
    assert_eq!(names("/channels/taskEvents/messages"), names("/components/messages"));
}
