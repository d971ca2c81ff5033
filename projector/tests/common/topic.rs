//! A topic of its own on the broker for tests, and a relay for it that does as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backends::database::Pool;
use domain::StoredEvent;
use event_store::TailReader;
use kafka::KafkaSettings;
use kafka::producer::Producer;
use messaging::{Message, partition_of};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use settings::Source;
use uuid::Uuid;

const SEND_MS_MAX: u64 = 20_000;

#[derive(Clone)]
pub struct Topic {
    pub settings: KafkaSettings,
    producer: Arc<Mutex<Arc<Producer>>>,
}

impl Topic {
    /// Makes a topic, and says so in the event store, as the relay would.
    pub async fn create(pool: &Pool, partitions: i32) -> Self {
        let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS names a broker for tests");
        Self::create_on(&brokers, pool, partitions).await
    }

    /// The same on a broker of the test's own.
    pub async fn create_on(brokers: &str, pool: &Pool, partitions: i32) -> Self {
        let topic = format!("test-{}", Uuid::new_v4().simple());
        let partitions = partitions.to_string();
        let source = Source::from_pairs([
            ("PRIMETRADE_KAFKA_BROKERS", brokers),
            ("PRIMETRADE_KAFKA_TOPIC", &topic),
            ("PRIMETRADE_KAFKA_PARTITIONS", &partitions),
        ]);
        let settings = KafkaSettings::read(&source).unwrap().unwrap();
        kafka::topic::ensure(&settings).await.unwrap();
        let producer = Arc::new(Mutex::new(Arc::new(Producer::new(&settings).unwrap())));
        Self { settings, producer }.shared_with(pool).await
    }

    /// The same topic for another log.
    pub async fn shared_with(&self, pool: &Pool) -> Self {
        let settings = &self.settings;
        sqlx::query("update event_store.relay set topic = $1, partitions = $2")
            .bind(&settings.topic)
            .bind(settings.partitions)
            .execute(pool)
            .await
            .unwrap();
        sqlx::query("insert into event_store.relay_cursor values (0, 0, 0) on conflict do nothing")
            .execute(pool)
            .await
            .unwrap();
        self.clone()
    }

    /// Publishes what is past the cursor.
    pub async fn publish(&self, pool: &Pool) {
        self.publish_but(pool, |_| false).await;
    }

    /// The same, but what is `lost` only seems to be published.
    pub async fn publish_but(&self, pool: &Pool, lost: impl Fn(&StoredEvent) -> bool) {
        let producer = self.producer.lock().unwrap().clone();
        let tail = TailReader::new(pool.clone(), None);
        let log_id = tail.log_id().await.unwrap();
        loop {
            let (publication, cursor, base): (i64, i64, i64) =
                sqlx::query_as("select publication, position, base from event_store.relay, event_store.relay_cursor")
                    .fetch_one(pool)
                    .await
                    .unwrap();
            let mut last: BTreeMap<i32, i64> =
                sqlx::query_as("select partition, position from event_store.relay_partition")
                    .fetch_all(pool)
                    .await
                    .unwrap()
                    .into_iter()
                    .collect();
            let events = tail.read_after(0, cursor, 5_000).await.unwrap();
            let Some(end) = events.last().map(|event| event.position) else { return };
            let mut deliveries = Vec::new();
            for event in events {
                let is_lost = lost(&event);
                let partition = partition_of(event.owner_id, self.settings.partitions);
                let position = event.position;
                let previous_position = last.insert(partition, position).unwrap_or(base);
                let message = Message { event, log_id, publication, previous_position };
                if !is_lost {
                    deliveries.push(producer.send(&message).unwrap());
                }
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
            let (partitions, positions): (Vec<i32>, Vec<i64>) = last.into_iter().unzip();
            sqlx::query(
                "insert into event_store.relay_partition (shard, partition, position)
                select 0, * from unnest($1::int[], $2::bigint[])
                on conflict (shard, partition) do update set position = excluded.position",
            )
            .bind(&partitions)
            .bind(&positions)
            .execute(pool)
            .await
            .unwrap();
            sqlx::query("update event_store.relay_cursor set position = $1").bind(end).execute(pool).await.unwrap();
        }
    }

    /// As `primetrade republish` does.
    pub async fn republish(&self, pool: &Pool, from: i64) {
        event_store::Publication::new(pool.clone()).republish(from, None).await.unwrap();
        projector::forget_offsets(pool, &self.settings.topic).await.unwrap();
        self.publish(pool).await;
    }

    /// The topic is gone, with all that is in it, and there is another one of its name.
    pub async fn make_anew(&self) {
        let admin: AdminClient<DefaultClientContext> = self.settings.client_config().create().unwrap();
        let gone = admin.delete_topics(&[&self.settings.topic], &AdminOptions::new()).await.unwrap();
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        super::until("the topic is there again", || async { kafka::topic::ensure(&self.settings).await.is_ok() }).await;
        *self.producer.lock().unwrap() = Arc::new(Producer::new(&self.settings).unwrap());
    }

    /// Puts something into the topic.
    pub async fn put(&self, partition: i32, key: &str, headers: OwnedHeaders, payload: &[u8]) {
        let producer: FutureProducer = self.settings.client_config().create().unwrap();
        let record =
            FutureRecord::to(&self.settings.topic).partition(partition).key(key).headers(headers).payload(payload);
        producer.send(record, Duration::from_millis(SEND_MS_MAX)).await.unwrap();
    }
}
