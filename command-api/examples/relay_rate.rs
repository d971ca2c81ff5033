//! How many messages a second the relay publishes with acks=all, beside a bare producer of the same messages.
//!
//! `DATABASE_URL=… TEST_KAFKA_BROKERS=… cargo run --release -p command-api --example relay_rate`, with an empty database;
//! its event store is filled first.

use std::env;
use std::time::{Duration, Instant};

use command_api::relay::Relay;
use event_store::Publication;
use futures_util::future::join_all;
use messaging::producer::{IN_FLIGHT_MESSAGES_MAX, Producer};
use messaging::{KafkaSettings, Message, topic};
use service_kit::config::Source;
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVENTS: i32 = 300_000;
const OWNERS: i32 = 1_000;
const POLL: Duration = Duration::from_millis(5);

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let pool = PgPool::connect(&env::var("DATABASE_URL")?).await?;
    event_store::migrate(&pool).await?;
    fill(&pool).await?;
    let brokers = env::var("TEST_KAFKA_BROKERS")?;
    let compression = env::var("PRIMETRADE_KAFKA_COMPRESSION").unwrap_or_default();
    let settings = |name: &str| {
        KafkaSettings::read(&Source::from_pairs([
            ("PRIMETRADE_KAFKA_BROKERS", brokers.as_str()),
            ("PRIMETRADE_KAFKA_TOPIC", name),
            ("PRIMETRADE_KAFKA_COMPRESSION", &compression),
        ]))
    };
    let name = format!("rate-{}", Uuid::new_v4());
    let (Some(bare), Some(relayed)) = (settings(&format!("{name}-bare"))?, settings(&name)?) else {
        return Err("no brokers".into());
    };
    println!("bare producer: {:.0} messages/s", bare_rate(&pool, &bare).await?);
    println!("relay:         {:.0} messages/s", relay_rate(&pool, relayed).await?);
    Ok(())
}

/// Events as the API would append them: about 150 bytes of data each.
async fn fill(pool: &PgPool) -> Result<(), Failure> {
    sqlx::query(
        "insert into event_store.event (shard, position, recorded_at, owner_id, task_id, version, event_id, type,
             schema_version, occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data)
         select 0, n, now(), md5((n % $2)::text)::uuid, gen_random_uuid(), 1, gen_random_uuid(), 'TaskCreated', 1, now(),
             'user', md5((n % $2)::text)::uuid, gen_random_uuid(), gen_random_uuid()::text,
             '00-' || md5(n::text) || '-' || left(md5(n::text), 16) || '-01',
             '{\"title\":\"Call the plumber about ' || n || '\",\"priority\":\"high\",\"due_at\":\"2026-01-31T12:00:00Z\",'
             || '\"tags\":[\"home\",\"' || left(md5(n::text), 8) || '\"]}'
         from generate_series(1, $1) as n",
    )
    .bind(EVENTS)
    .bind(OWNERS)
    .execute(pool)
    .await?;
    sqlx::query("update event_store.head set position = $1").bind(EVENTS).execute(pool).await?;
    sqlx::raw_sql("vacuum analyze event_store.event").execute(pool).await?;
    Ok(())
}

async fn relay_rate(pool: &PgPool, settings: KafkaSettings) -> Result<f64, Failure> {
    let stop = CancellationToken::new();
    let publication = Publication::new(pool.clone());
    let tail = publication.tail();
    let relay = Relay::start(publication, settings, stop.clone()).await?;
    let cursor = async || Ok::<_, Failure>(tail.published().await?.first().map_or(0, |published| published.cursor));
    let mut begun = None;
    loop {
        let position = cursor().await?;
        // without what it takes to begin
        let (from, at) = *begun.get_or_insert((position, Instant::now()));
        if position == 0 {
            begun = None;
        } else if position == i64::from(EVENTS) {
            stop.cancel();
            relay.stopped().await;
            return Ok((position - from) as f64 / at.elapsed().as_secs_f64());
        }
        sleep(POLL).await;
    }
}

async fn bare_rate(pool: &PgPool, settings: &KafkaSettings) -> Result<f64, Failure> {
    let tail = Publication::new(pool.clone()).tail();
    let messages: Vec<Message> = tail
        .read_after(0, 0, i64::from(EVENTS))
        .await?
        .into_iter()
        .map(|event| Message { event, log_id: Uuid::nil(), publication: 1, previous_position: 0 })
        .collect();
    topic::ensure(settings).await?;
    let producer = Producer::new(settings)?;
    let at = Instant::now();
    for batch in messages.chunks(IN_FLIGHT_MESSAGES_MAX) {
        let deliveries: Result<Vec<_>, _> = batch.iter().map(|message| producer.send(message)).collect();
        for delivered in join_all(deliveries?).await {
            delivered?;
        }
    }
    Ok(messages.len() as f64 / at.elapsed().as_secs_f64())
}
