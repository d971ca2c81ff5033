//! How slow the machine is meanwhile, by itself: so that a test that asks for a time says something about the product
//! also where the machine has something else to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::cluster::pool;

const EVERY: Duration = Duration::from_millis(50);
/// From a command to where it is read: two commits in a row, and as many processes as that takes woken up.
const COMMITS: u32 = 10;
/// And a message that is acknowledged, fetched, and perhaps fetched anew.
const MESSAGES: u32 = 3;
const MESSAGE_MS_MAX: u64 = 60_000;

/// A small commit to a table of the test's own, and a message to a topic of its own, again and again: what each step of
/// ours takes at least, and nothing that ours can delay.
#[derive(Debug)]
pub struct Slowness {
    commits: Arc<Steps>,
    messages: Option<Arc<Steps>>,
    stop: Arc<AtomicBool>,
}

impl Slowness {
    /// Looks at Postgres until it is dropped.
    pub async fn watch(database_url: &str) -> Slowness {
        let pool = pool(database_url).await;
        sqlx::query("create table public.slowness (at timestamptz not null)").execute(&pool).await.expect("a table");
        let slowness = Slowness { commits: Arc::default(), messages: None, stop: Arc::default() };
        tokio::spawn(commit(pool, Arc::clone(&slowness.commits), Arc::clone(&slowness.stop)));
        slowness
    }

    /// And at Kafka, where the test leaves it alone.
    pub async fn watch_with_kafka(database_url: &str, brokers: &str) -> Slowness {
        let mut slowness = Slowness::watch(database_url).await;
        slowness.messages = Some(messages(brokers, &slowness.stop).await);
        slowness
    }

    /// The same, and Kafka too, until this one is dropped: for as long as the test leaves it alone.
    pub async fn and_kafka(&self, brokers: &str) -> Slowness {
        let stop = Arc::default();
        let messages = Some(messages(brokers, &stop).await);
        Slowness { commits: Arc::clone(&self.commits), messages, stop }
    }

    /// What something that takes less than `limit` on an idle machine may have taken that began then.
    ///
    /// # Panics
    /// Where Postgres or Kafka failed meanwhile: then nobody knows.
    pub fn allowed(&self, limit: Duration, began: Instant) -> Duration {
        let message = self.messages.as_ref().map_or(Duration::ZERO, |messages| messages.slowest_since(began));
        limit + COMMITS * self.commits.slowest_since(began) + MESSAGES * message
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Steps {
    /// When each should have begun, and when it was done; the last one is under way.
    times: Mutex<Vec<(Instant, Option<Instant>)>>,
    /// Why there are no more of them.
    failed: OnceLock<String>,
}

impl Steps {
    /// The next one is to begin after [`EVERY`]: that it begins late is the machine's slowness too.
    fn wait(&self) {
        self.times.lock().expect("steps").push((Instant::now() + EVERY, None));
    }

    fn done(&self) {
        if let Some((_, end)) = self.times.lock().expect("steps").last_mut() {
            *end = Some(Instant::now());
        }
    }

    fn slowest_since(&self, began: Instant) -> Duration {
        assert_eq!(self.failed.get(), None, "how slow the machine is cannot be told");
        let now = Instant::now();
        let steps = self.times.lock().expect("steps");
        let meanwhile = steps.iter().rev().take_while(|(_, end)| end.is_none_or(|end| end >= began));
        meanwhile.map(|(start, end)| end.unwrap_or(now).saturating_duration_since(*start)).max().unwrap_or_default()
    }
}

async fn commit(pool: PgPool, steps: Arc<Steps>, stop: Arc<AtomicBool>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::SeqCst) {
        steps.wait();
        tick.tick().await;
        if let Err(error) = sqlx::query("insert into public.slowness values (now())").execute(&pool).await {
            let _ = steps.failed.set(error.to_string());
            return;
        }
        steps.done();
    }
}

/// To a topic that is made for it.
async fn messages(brokers: &str, stop: &Arc<AtomicBool>) -> Arc<Steps> {
    let messages = Arc::<Steps>::default();
    let client = ClientConfig::new().set("bootstrap.servers", brokers).clone();
    let topic = format!("slowness-{}", Uuid::new_v4());
    let admin: AdminClient<DefaultClientContext> = client.create().expect("admin client");
    let one = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&one], &AdminOptions::new()).await.expect("a topic");
    assert_eq!(made, [Ok(topic.clone())]);
    let (steps, stop) = (Arc::clone(&messages), Arc::clone(stop));
    thread::spawn(move || send(&client, &topic, &steps, &stop));
    messages
}

fn send(client: &ClientConfig, topic: &str, steps: &Steps, stop: &AtomicBool) {
    let producer: BaseProducer = client.create().expect("producer");
    while !stop.load(Ordering::SeqCst) {
        steps.wait();
        thread::sleep(EVERY);
        let message = BaseRecord::<(), [u8]>::to(topic).payload(b"now");
        let sent = producer.send(message).map_err(|(error, _)| error);
        if let Err(error) = sent.and_then(|()| producer.flush(Duration::from_millis(MESSAGE_MS_MAX))) {
            let _ = steps.failed.set(error.to_string());
            return;
        }
        steps.done();
    }
}
