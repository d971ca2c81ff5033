//! The services, with what they stand on killed, paused, wiped and brought back under load. Each test ends with the same
//! question: does everything hold that always holds?

#[cfg(target_os = "linux")]
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{PgPool, Row};
use system_tests::address::Address;
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool, temp_dir};
use system_tests::kafka::Kafka;
use system_tests::ledger::{Ledger, Load};
use system_tests::process::Process;
use system_tests::proxy::Proxy;
use system_tests::redis::Redis;
use system_tests::server::cli;
use system_tests::services::{PARTITIONS, Parts, Services};
use system_tests::slowness::Slowness;
#[cfg(target_os = "linux")]
use system_tests::sockets::{Silence, connections};
use system_tests::wait::until;
#[cfg(target_os = "linux")]
use system_tests::wait::until_right;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
const WORKERS: usize = 8;
const SECOND: Duration = Duration::from_secs(1);
/// Longer than a lease of the relay.
const LEASE_MS_MAX: u64 = 20_000;

/// Services on parts that all tests share.
async fn services() -> Services {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await
}

async fn loaded(services: &Services) -> (Arc<Ledger>, Load) {
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(100).await;
    (ledger, load)
}

async fn ledger_at_rest(ledger: &Ledger, load: Load) {
    ledger.progress(100).await;
    load.stop().await;
    ledger.settle().await;
}

async fn settled(services: &Services, ledger: &Ledger, load: Load) {
    ledger_at_rest(ledger, load).await;
    ledger.replay(100).await;
    services.everything_holds(&[ledger]).await;
}

/// The answer to a read, as soon as it shows what the account wrote last.
async fn shown(account: &Account, path: &str) -> Value {
    until("the last write is shown", Duration::from_secs(60), || async {
        let answer = account.read(path).await;
        if answer.status == 503 {
            answer.must("Retry-After");
            return None;
        }
        Some(answer.expect(200).json())
    })
    .await
}

/// Takes less than `limit`, as far as it is not the machine that takes longer.
async fn in_time<T>(limit: Duration, machine: &Slowness, what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    let (took, allowed) = (began.elapsed(), machine.allowed(limit, began));
    assert!(took < allowed, "{what}: {took:?}, allowed {allowed:?}");
    done
}

async fn rest(time_ms: u64) {
    // Not for a condition: the fault itself lasts so long.
    tokio::time::sleep(Duration::from_millis(time_ms)).await;
}

/// Until what is written is seen soon, for a while: the copies of the projector share out the partitions when they start.
async fn keeps_up(account: &Account) {
    let mut since = Instant::now();
    let deadline = since + Duration::from_secs(60);
    while since.elapsed() < Duration::from_secs(5) {
        assert!(Instant::now() < deadline, "reads do not keep up");
        let id = account.create(json!({"title": "seen"})).await;
        let written = Instant::now();
        let seen = account.read(&format!("{TASKS}/{id}")).await;
        if seen.status != 200 || written.elapsed() > Duration::from_secs(1) {
            since = Instant::now();
        }
    }
}

/// How many messages the topic holds.
async fn messages(parts: &Parts) -> i64 {
    let (brokers, topic) = (parts.brokers.clone(), parts.topic.clone());
    let count = move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("client");
        let ends = (0..PARTITIONS).map(|partition| {
            let ends = producer.client().fetch_watermarks(&topic, partition, Duration::from_secs(10));
            ends.map_or(0, |(_, high)| high)
        });
        ends.sum()
    };
    tokio::task::spawn_blocking(count).await.expect("count")
}

async fn log_id(parts: &Parts) -> Uuid {
    let pool = pool(&parts.database_url).await;
    let log_id = sqlx::query_scalar("select log_id from event_store.log").fetch_one(&pool).await.expect("a log");
    pool.close().await;
    log_id
}

async fn waiting_for_a_lock(pool: &PgPool) -> bool {
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from pg_locks where not granted").fetch_one(pool).await.expect("locks");
    waiting > 0
}

/// 1. Killed when its messages are on the broker and its cursor does not say so yet.
#[tokio::test]
async fn the_relay_is_killed_between_produce_and_cursor() {
    let services = services().await;
    let (ledger, load) = loaded(&services).await;
    let pool = pool(&services.parts.database_url).await;
    for _ in 0..3 {
        let leader = services.relay_leader().await;
        let before = messages(&services.parts).await;
        let mut lock = pool.begin().await.expect("transaction");
        sqlx::query("lock table event_store.relay_cursor in share row exclusive mode")
            .execute(&mut *lock)
            .await
            .expect("lock");
        until("it has produced and waits for its cursor", Duration::from_secs(20), || async {
            (messages(&services.parts).await > before && waiting_for_a_lock(&pool).await).then_some(())
        })
        .await;
        services.commands[leader].kill();
        lock.rollback().await.expect("rollback");
        ledger.progress(50).await;
        services.commands[leader].restart().await;
    }
    pool.close().await;
    let events = ledger.done();
    settled(&services, &ledger, load).await;
    assert!(messages(&services.parts).await > events as i64, "nothing came twice: the kill was not where it should be");
}

/// 2. A relay that sleeps through its lease finds another one in its place when it wakes.
#[tokio::test]
async fn a_relay_is_paused_and_another_elected() {
    let services = services().await;
    let first = services.relay_leader().await;
    let (sleeper, other) = (&services.commands[first], &services.commands[1 - first]);
    // as a gateway would, once it has noticed
    let ledger = Ledger::new(services.api_by(std::slice::from_ref(other)).account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(100).await;
    sleeper.signal(Signal::STOP);
    until("the other one leads", Duration::from_millis(LEASE_MS_MAX), || async { leads(other).await.then_some(()) })
        .await;
    ledger.progress(100).await;
    sleeper.signal(Signal::CONT);
    until("the first one knows", Duration::from_millis(LEASE_MS_MAX), || async {
        (!leads(sleeper).await && leads(other).await).then_some(())
    })
    .await;
    settled(&services, &ledger, load).await;
}

async fn leads(copy: &Process) -> bool {
    let Ok(metrics) = copy.api().get("/metrics").try_send().await else { return false };
    metrics.text().lines().any(|line| line.starts_with("relay_is_leader") && line.ends_with(" 1"))
}

/// 3. Commands do not need Kafka; what they did is caught up with.
#[tokio::test]
async fn the_broker_is_killed_and_stopped() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::start(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let (ledger, load) = loaded(&services).await;
    kafka.kill();
    ledger.progress(100).await;
    kafka.restart().await;
    ledger.progress(100).await;
    kafka.stop().await;
    let refused = ledger.unknown();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        ledger.progress(20).await;
    }
    assert_eq!(ledger.unknown(), refused, "commands need the broker");
    // whoever leads or does not
    let behind = services.commands[0].api().get("/metrics").send().await.expect(200);
    let lag = behind.text().lines().find_map(|line| line.strip_prefix("relay_lag_events ")?.parse::<f64>().ok());
    assert!(lag.is_some_and(|lag| lag > 0.0), "the relay's lag is shown: {lag:?}");
    for process in services.commands.iter().chain(&services.projectors) {
        let said = process.log().lines().filter(|line| line.contains("librdkafka")).count();
        assert!((1..100).contains(&said), "what is wrong is said, and not again and again: {said} lines");
    }
    kafka.restart().await;
    settled(&services, &ledger, load).await;
}

/// Accounts in each partition, all but certainly.
async fn accounts_everywhere(services: &Services) -> Vec<Account> {
    let api = services.api();
    let mut accounts = Vec::new();
    for _ in 0..4 * PARTITIONS {
        accounts.push(api.account().await);
    }
    accounts
}

/// How long it takes until what each of them writes now is read by its token.
async fn all_are_seen(accounts: &[Account]) -> Duration {
    let began = Instant::now();
    let seen = accounts.iter().map(|account| async {
        let id = account.create(json!({"title": "seen"})).await;
        shown(account, &format!("{TASKS}/{id}")).await;
    });
    futures_util::future::join_all(seen).await;
    began.elapsed()
}

/// What both copies of `command-api` say of the relay, once they say that nobody publishes; and all the while none says
/// that requests should go elsewhere.
async fn both_say_that_nobody_publishes(services: &Services) {
    until("both say that nobody publishes", Duration::from_secs(60), || async {
        for copy in &services.commands {
            let ready = copy.api().get("/readyz").send().await.expect(200).json();
            assert!(ready["lag"]["events"].is_u64() && ready["lag"]["seconds"].is_number(), "{ready}");
            let relay = &ready["checks"]["relay"];
            if relay["status"] != "degraded" || !relay["detail"].as_str()?.contains("nobody has published") {
                return None;
            }
        }
        Some(())
    })
    .await;
    for copy in &services.commands {
        let metrics = copy.api().get("/metrics").send().await.expect(200).text();
        let stalled = metrics.lines().find_map(|line| line.strip_prefix("relay_stalled_seconds ")?.parse::<f64>().ok());
        assert!(stalled.is_some_and(|seconds| seconds >= 3.0), "{stalled:?}");
        assert!(copy.log().contains("nobody publishes"), "{}", copy.log_tail());
    }
}

/// Whoever has nothing to do with ours is served: a message of a producer that is idempotent as ours is acknowledged, and
/// a group that nobody was in before has a member. A broker that was started again answers some time before that, as long
/// as the machine takes for it.
async fn others_are_served(brokers: &str, topic: &str) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("retry.backoff.max.ms", "250");
    let topic = topic.to_owned();
    let served = move || {
        let consumer: BaseConsumer =
            client.clone().set("group.id", format!("others-{}", Uuid::new_v4())).create().expect("consumer");
        consumer.subscribe(&[&topic]).expect("subscribed");
        let producer: BaseProducer = client.set("enable.idempotence", "true").create().expect("producer");
        let message = BaseRecord::<(), [u8]>::to(&topic).payload(b"others");
        producer.send(message).map_err(|(error, _)| error).expect("room for one");
        producer.flush(Duration::from_secs(60)).expect("acknowledged");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !consumer.assignment().is_ok_and(|share| share.count() > 0) {
            assert!(Instant::now() < deadline, "the group has no member");
            let _passed_over = consumer.poll(Duration::from_millis(20));
        }
    };
    tokio::task::spawn_blocking(served).await.expect("served");
}

/// When the copies said last what they say of Kafka, for whoever looks into a failure.
fn last_of_kafka(services: &Services) -> String {
    let mut said = String::new();
    for copy in services.commands.iter().chain(&services.projectors) {
        for what in
            ["leads the relay", "PID", "the log is published again", "session timed out", "partitions are assigned"]
        {
            if let Some(line) = copy.log().lines().rfind(|line| line.contains(what)) {
                said.extend(["\n", line]);
            }
        }
    }
    said
}

/// Reads are where writes are within 5 s after Kafka goes on: it was killed and is started again, or was frozen for longer
/// than its members' sessions last. While it is frozen it is said within 5 s that nobody publishes.
#[tokio::test]
async fn kafka_is_back_and_so_are_the_partitions() {
    let (cluster, redis) = (Cluster::shared(), Redis::shared());
    let began = Instant::now();
    let kafka = Kafka::start();
    let first_start = began.elapsed();
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let machine = Slowness::watch(&services.parts.database_url).await;
    let accounts = accounts_everywhere(&services).await;
    // ready is who has its share of the partitions
    in_time(2 * SECOND, &machine, "reads by a token in the first second", all_are_seen(&accounts)).await;
    let (ledger, load) = loaded(&services).await;
    let of_others = format!("others-{}", Uuid::new_v4());
    let one = NewTopic::new(&of_others, 1, TopicReplication::Fixed(1));
    let made = kafka_admin(&kafka.brokers()).create_topics([&one], &AdminOptions::new()).await.expect("a topic");
    assert_eq!(made, [Ok(of_others.clone())]);
    others_are_served(&kafka.brokers(), &of_others).await;

    kafka.kill();
    rest(1_000).await;
    let began = Instant::now();
    kafka.restart().await;
    let up = began.elapsed();
    // the first start had its folder made besides, and no former registration; this one recovers what was written, beside the load
    let allowed = machine.allowed(first_start.mul_f64(1.5) + 3 * SECOND, began);
    assert!(up < allowed, "its former registration is waited for: {up:?}, the first start took {first_start:?}");
    others_are_served(&kafka.brokers(), &of_others).await;
    // a broker that has just been started is slow to everybody
    let with_kafka = machine.and_kafka(&kafka.brokers()).await;
    let others = Instant::now();
    let back = all_are_seen(&accounts).await;
    let allowed = with_kafka.allowed(5 * SECOND, others);
    drop(with_kafka);
    println!(
        "killed: its own broker was back after {up:?}, others were served after {:?}, ours {back:?} later",
        others - began
    );
    assert!(back < allowed, "killed and back: {back:?}, allowed {allowed:?}{}", last_of_kafka(&services));

    kafka.signal(Signal::STOP);
    let frozen = Instant::now();
    in_time(5 * SECOND, &machine, "said", both_say_that_nobody_publishes(&services)).await;
    println!("frozen: said after {:?}", frozen.elapsed());
    rest(7_000_u64.saturating_sub(frozen.elapsed().as_millis() as u64)).await;
    kafka.signal(Signal::CONT);
    let began = Instant::now();
    in_time(5 * SECOND, &machine, "frozen and back", all_are_seen(&accounts)).await;
    println!("frozen: back after {:?}", began.elapsed());
    for copy in services.commands.iter().chain(&services.projectors) {
        assert!(!copy.log().contains("experimental"), "{}", copy.log_tail());
    }
    let follows_nothing = services.queries[0].api().get("/readyz").send().await.expect(200).json();
    assert!(follows_nothing.get("lag").is_none(), "{follows_nothing}");
    settled(&services, &ledger, load).await;
}

fn kafka_admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("admin client")
}

async fn recreate_topic(parts: &Parts) {
    let admin = kafka_admin(&parts.brokers);
    admin.delete_topics(&[&parts.topic], &AdminOptions::new()).await.expect("delete");
    until("the topic is made again", Duration::from_secs(30), || async {
        let topic = NewTopic::new(&parts.topic, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("create");
        // by this test or by the relay
        matches!(made.first(), Some(Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists))))
            .then_some(())
    })
    .await;
}

/// What a projector says of a partition that it cannot go on with.
async fn trouble(services: &Services) -> Option<String> {
    for projector in &services.projectors {
        let said = projector.api().get("/readyz").try_send().await.ok()?.text();
        if said.contains("primetrade republish") {
            return Some(said);
        }
    }
    None
}

/// 4. Messages are lost with their topic: noticed, named, mended.
#[tokio::test]
async fn the_topic_is_recreated() {
    for grown_past_the_old_offsets in [false, true] {
        let services = services().await;
        let (ledger, load) = loaded(&services).await;
        for projector in &services.projectors {
            projector.kill();
        }
        ledger.progress(100).await;
        recreate_topic(&services.parts).await;
        let more = if grown_past_the_old_offsets { ledger.done() + 100 } else { 20 };
        ledger.progress(more).await;
        for projector in &services.projectors {
            projector.restart_unready();
        }
        let said = until("the hole is noticed", Duration::from_secs(40), || trouble(&services)).await;
        assert!(said.contains("--from"), "{said}");
        let report = services.cli(&["republish", "--from", "1", "--json"], "").await.expect(0).json();
        assert!(report.is_object(), "{report}");
        for projector in &services.projectors {
            projector.ready().await;
        }
        settled(&services, &ledger, load).await;
    }
}

/// 5. Killed with everything folded and nothing committed.
#[tokio::test]
async fn a_projector_is_killed_before_its_commit() {
    let services = services().await;
    let (ledger, load) = loaded(&services).await;
    let pool = pool(&services.parts.database_url).await;
    for round in 0..3 {
        let mut lock = pool.begin().await.expect("transaction");
        sqlx::query("lock table read_model.history in share mode").execute(&mut *lock).await.expect("lock");
        until("a projector waits to write", Duration::from_secs(20), || async {
            waiting_for_a_lock(&pool).await.then_some(())
        })
        .await;
        services.projectors[round % 2].kill();
        lock.rollback().await.expect("rollback");
        ledger.progress(50).await;
        services.projectors[round % 2].restart().await;
    }
    pool.close().await;
    settled(&services, &ledger, load).await;
}

/// How often a projector was told which partitions are its own: once for each rebalance.
fn rebalances(services: &Services) -> usize {
    let told = |copy: &Process| copy.log().matches("partitions are assigned").count();
    services.projectors.iter().map(told).max().unwrap_or(0)
}

/// A thread must end also where its test fails.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A member of the projectors' group that takes its share of the partitions, does nothing with them and leaves, and is
/// back after a second, until it is told to stop.
fn joining_consumer(parts: &Parts, log_id: Uuid, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let joining_consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &parts.brokers)
            .set("group.id", format!("{}.projector.{log_id}", parts.topic))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .create()
            .expect("consumer");
        joining_consumer.subscribe(&[&parts.topic]).expect("subscribed");
        let until = Instant::now() + Duration::from_secs(60);
        // who leaves while it joins is waited for as if it were dead
        while Instant::now() < until && !joining_consumer.assignment().is_ok_and(|share| share.count() > 0) {
            let _passed_over = joining_consumer.poll(Duration::from_millis(20));
        }
        drop(joining_consumer);
        std::thread::park_timeout(SECOND);
    }
}

/// 6. Partitions are assigned anew all the time: as often as the group can do it, another consumer joins and leaves, and so
/// do the copies.
#[tokio::test]
async fn a_rebalance_every_second() {
    const REBALANCES: usize = 30;
    let services = services().await;
    let (ledger, load) = loaded(&services).await;
    let stop = StopOnDrop::default();
    let (parts, stopping) = (services.parts.clone(), Arc::clone(&stop.0));
    let log_id = log_id(&services.parts).await;
    let joining_consumer = tokio::task::spawn_blocking(move || joining_consumer(&parts, log_id, &stopping));
    let (before, began) = (rebalances(&services), Instant::now());
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(30) || rebalances(&services) < before + REBALANCES {
        assert!(began.elapsed() < Duration::from_secs(300), "{} rebalances", rebalances(&services) - before);
        let copy = &services.projectors[round % 2];
        copy.terminate().await;
        copy.restart().await;
        round += 1;
        let target = rebalances(&services) + 3;
        until("rebalances go on", Duration::from_secs(60), || async {
            (rebalances(&services) >= target).then_some(())
        })
        .await;
    }
    println!("{} rebalances in {:?}", rebalances(&services) - before, began.elapsed());
    drop(stop);
    joining_consumer.await.expect("the joining consumer");
    settled(&services, &ledger, load).await;
}

async fn numbers(pool: &PgPool) -> Vec<(Uuid, i64, i64)> {
    let rows = sqlx::query(
        "select o.owner_id, o.revision, o.change_counter from read_model.owner o, read_model.projection p \
         where o.generation = p.live_generation order by 1",
    );
    let rows = rows.fetch_all(pool).await.expect("owners");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Up to which offset each partition is applied.
async fn offsets(pool: &PgPool, topic: &str) -> Vec<(i32, i64)> {
    sqlx::query_as(
        "select partition, coalesce(next_offset, 0) from read_model.kafka_partition where topic = $1 order by 1",
    )
    .bind(topic)
    .fetch_all(pool)
    .await
    .expect("offsets")
}

/// 7. Everything once more has no effect; what comes meanwhile has the one that it should have.
#[tokio::test]
async fn the_topic_is_read_again_from_the_beginning() {
    let services = services().await;
    let (quiet, load) = loaded(&services).await;
    ledger_at_rest(&quiet, load).await;
    let (busy, load) = loaded(&services).await;
    let pool = pool(&services.parts.database_url).await;
    shown(quiet.account(), TASKS).await;
    let of_quiet = async || {
        let all = numbers(&pool).await;
        all.into_iter().find(|(owner, ..)| *owner == quiet.account().id)
    };
    let before = of_quiet().await.expect("a row");
    for projector in &services.projectors {
        projector.kill();
    }
    let topic = &services.parts.topic;
    let read_once = offsets(&pool, topic).await;
    assert!(read_once.iter().map(|(_, next)| next).sum::<i64>() > 200, "{read_once:?}");
    sqlx::query("update read_model.kafka_partition set next_offset = null, publication = 0, turn = turn + 1")
        .execute(&pool)
        .await
        .expect("forgotten");
    sqlx::query("delete from read_model.kafka_position").execute(&pool).await.expect("forgotten");
    for projector in &services.projectors {
        projector.restart().await;
    }
    until("all is read again", Duration::from_secs(60), || async {
        let again = offsets(&pool, topic).await;
        let is_read = |((_, again), (_, once)): (&(i32, i64), &(i32, i64))| again >= once;
        again.iter().zip(&read_once).all(is_read).then_some(())
    })
    .await;
    assert_eq!(of_quiet().await.expect("a row"), before);
    settled(&services, &busy, load).await;
    assert_eq!(of_quiet().await.expect("a row"), before);
    pool.close().await;
    services.everything_holds(&[&quiet]).await;
}

async fn parked(admin: &Account, count: usize) -> Value {
    until("it is parked", Duration::from_secs(30), || async {
        let page = admin.request("GET", "/api/v1/admin/parked").try_send().await.ok()?.json();
        (page["items"].as_array()?.len() == count).then_some(page)
    })
    .await
}

/// 8. What cannot be folded waits, with what comes behind it, and nobody else does; nor for a message nobody can read.
#[tokio::test]
async fn one_task_waits_and_all_others_go_on() {
    let services = services().await;
    let admin = services.admin().await;
    let (ledger, load) = loaded(&services).await;
    let pool = pool(&services.parts.database_url).await;
    let refuse =
        r#"alter table read_model.history add constraint no_poison check (changes not like '%"to":"poison"%')"#;
    sqlx::query(refuse).execute(&pool).await.expect("constraint");
    let other = services.api().account().await;
    let stuck = other.create(json!({"title": "before"})).await;
    let free = other.create(json!({"title": "free"})).await;
    other.patch(stuck, json!({"title": "poison"})).await.expect(200);
    other.patch(stuck, json!({"title": "after"})).await.expect(200);
    other.act(free, "start").await.expect(200);
    let page = parked(&admin, 1).await;
    let item = &page["items"][0];
    assert_eq!((&item["task_id"], &item["version"]), (&json!(stuck), &json!(2)), "{item}");
    until("the other task goes on", Duration::from_secs(10), || async {
        let task = other.request("GET", &format!("{TASKS}/{free}")).try_send().await.ok()?.json();
        (task["status"] == "in_progress").then_some(())
    })
    .await;
    ledger.progress(50).await;
    sqlx::query("alter table read_model.history drop constraint no_poison").execute(&pool).await.expect("mended");
    let retry = format!("/api/v1/admin/parked/{}/retry", item["id"].as_str().expect("id"));
    admin.request("POST", &retry).send().await.expect(202);
    parked(&admin, 0).await;
    let task = other.task(stuck).await;
    assert_eq!((&task["title"], &task["version"]), (&json!("after"), &json!(3)));
    pool.close().await;
    load.stop().await;
    ledger.settle().await;
    services.everything_holds(&[&ledger]).await;

    // last, since it stays
    let brokers = services.parts.brokers.clone();
    let topic = services.parts.topic.clone();
    let garbage = move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("producer");
        let record = BaseRecord::<str, [u8]>::to(&topic).partition(0).key("nobody").payload(b"\xff\x00 nonsense");
        producer.send(record).map_err(|(error, _)| error).expect("sent");
        producer.flush(Duration::from_secs(10)).expect("flushed");
    };
    tokio::task::spawn_blocking(garbage).await.expect("garbage");
    let page = parked(&admin, 1).await;
    assert!(page["items"][0]["reason"].is_string(), "{page}");
    let id = other.create(json!({"title": "after it"})).await;
    assert_eq!(other.task(id).await["title"], "after it");
}

/// 9. Redis may be anything but right: answers stay right, and quick.
#[tokio::test]
async fn redis_is_flushed_killed_emptied_aged_and_paused() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::start());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let (ledger, load) = loaded(&services).await;
    let machine = Slowness::watch_with_kafka(&services.parts.database_url, &services.parts.brokers).await;
    let reader = services.api().account().await;
    keeps_up(&reader).await;
    let id = reader.create(json!({"title": "0"})).await;
    redis.ask(&["SAVE"]);
    let mut count = 0;
    let steps: [(&str, &dyn Fn()); 7] = [
        ("as it should be", &|| {}),
        ("flushed", &|| drop(redis.ask(&["FLUSHALL"]))),
        ("killed", &|| redis.kill()),
        ("back with old data", &|| redis.restart()),
        ("emptied", &|| redis.restart_empty()),
        ("paused", &|| redis.signal(Signal::STOP)),
        ("woken", &|| redis.signal(Signal::CONT)),
    ];
    for (what, step) in steps {
        step();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            count += 1;
            let change = reader.patch(id, json!({"title": count.to_string()}));
            in_time(SECOND, &machine, &format!("{what}: a write"), change).await.expect(200);
            let path = format!("{TASKS}/{id}");
            let read = in_time(SECOND, &machine, &format!("{what}: a read"), shown(&reader, &path)).await;
            let list = in_time(SECOND, &machine, &format!("{what}: a list"), shown(&reader, TASKS)).await;
            assert_eq!(read["title"], count.to_string(), "{what}");
            assert_eq!(list["items"][0]["title"], count.to_string(), "{what}");
        }
    }
    settled(&services, &ledger, load).await;
}

/// 9b. A failover of Redis behind one address: what is open stays with the one that is a replica now and refuses to write.
#[tokio::test]
async fn redis_becomes_a_replica() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), [Redis::start(), Redis::start()]);
    let address = Address::of(&redis[0].address());
    let url = format!("redis://{address}");
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), url).await).await;
    let (ledger, load) = loaded(&services).await;
    let machine = Slowness::watch_with_kafka(&services.parts.database_url, &services.parts.brokers).await;
    let reader = services.api().account().await;
    keeps_up(&reader).await;
    let id = reader.create(json!({"title": "0"})).await;
    let mut count = 0;
    for (old, new) in [(&redis[0], &redis[1]), (&redis[1], &redis[0])] {
        new.ask(&["REPLICAOF", "NO", "ONE"]);
        let host_and_port = new.address();
        let (host, port) = host_and_port.split_once(':').expect("host:port");
        old.ask(&["REPLICAOF", host, port]);
        address.lead_to(&host_and_port);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            count += 1;
            let change = reader.patch(id, json!({"title": count.to_string()}));
            in_time(SECOND, &machine, "a write", change).await.expect(200);
            let path = format!("{TASKS}/{id}");
            let read = in_time(SECOND, &machine, "a read", shown(&reader, &path)).await;
            assert_eq!(read["title"], count.to_string());
        }
        // who writes has noticed, and has found the new one
        let account = services.api().account().await;
        let key = format!("primetrade:*:standing:{}", account.id.simple());
        until("the new one is written to", Duration::from_secs(30), || async {
            account.create(json!({"title": "told to Redis"})).await;
            (!new.ask(&["KEYS", &key]).trim().is_empty()).then_some(())
        })
        .await;
    }
    settled(&services, &ledger, load).await;
}

/// 10. 503 with Retry-After while Postgres is away, and all is well again by itself.
#[tokio::test]
async fn postgres_is_stopped() {
    let (cluster, kafka, redis) = (Cluster::start(&[]), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let (ledger, load) = loaded(&services).await;
    cluster.kill();
    let began = Instant::now();
    for (method, path) in [("POST", TASKS), ("GET", "/api/v1/stats?from=2026-01-01&to=2026-01-02")] {
        let answer = until("503", Duration::from_secs(20), || async {
            let request = ledger.account().request(method, path);
            let request = if method == "POST" { request.json(&json!({"title": "away"})) } else { request };
            let answer = request.try_send().await.ok()?;
            (answer.status == 503).then_some(answer)
        })
        .await;
        answer.must("Retry-After");
    }
    rest(20_000_u64.saturating_sub(began.elapsed().as_millis() as u64)).await;
    cluster.restart().await;
    settled(&services, &ledger, load).await;
}

/// The pools of all services, those of identity, of jobs and of the sessions that have ended among them, lose their
/// connections silently: within half a minute people log in, write, read, have jobs carried out and log out everywhere
/// again, by themselves.
#[tokio::test]
async fn connections_of_the_services_die_without_a_word() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let proxy = Proxy::start(cluster.address()).await;
    let objects = format!("file://{}", temp_dir("objects").display());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let mut parts = parts.with("PRIMETRADE_OBJECT_STORE_URL", &objects);
    let direct = parts.database_url.clone();
    parts.database_url = proxy.url(direct.rsplit('/').next().expect("a database"));
    let mut services = Services::start(parts).await;
    let (ledger, load) = loaded(&services).await;
    let person = services.api().account().await;
    proxy.freeze();
    let frozen = Instant::now();
    let all_is_well = async {
        until("people log in", Duration::from_secs(60), || async {
            let login = json!({"email": person.email, "password": person.password});
            let answer = services.api().post("/api/v1/auth/login", &login).try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        let session = services.api().log_in(person.id, &person.email, &person.password).await;
        let id = session.create(json!({"title": "seen"})).await;
        assert_eq!(shown(&session, &format!("{TASKS}/{id}")).await["title"], "seen");
        // by the connections of whoever carries jobs out
        let job = until("a job is taken", Duration::from_secs(60), || async {
            let asked = session
                .request("POST", "/api/v1/exports")
                .key("while-frozen")
                .json(&json!({"format": "csv"}))
                .try_send()
                .await;
            asked.ok().filter(|asked| asked.status == 202).map(|asked| asked.must("Location").to_owned())
        })
        .await;
        until("the job is carried out", Duration::from_secs(60), || async {
            let job = session.request("GET", &job).try_send().await.ok()?;
            (job.status == 200 && job.json()["state"] == "succeeded").then_some(())
        })
        .await;
        session.request("POST", "/api/v1/auth/logout").send().await.expect(204);
        for query in &services.queries {
            until("the session has ended everywhere", Duration::from_secs(60), || async {
                let answer = session.at(query.api()).request("GET", TASKS).try_send().await.ok()?;
                (answer.status == 401).then_some(())
            })
            .await;
        }
    };
    all_is_well.await;
    assert!(frozen.elapsed() < Duration::from_secs(35), "all is well after {:?}", frozen.elapsed());
    services.parts.database_url = direct;
    settled(&services, &ledger, load).await;
}

/// What the kernel does about an end of each of the services' connections that is silent: by program, what it leads to,
/// and the end where that is decided. Postgres' end of those to Postgres, since the client library gives no access to ours
/// (`crates/backends/src/database/address.rs`); none where it has ended meanwhile.
#[cfg(target_os = "linux")]
fn watched_ends(services: &Services) -> std::io::Result<Vec<(&'static str, &'static str, Option<Silence>)>> {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let port = |address: String| address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let ports = [cluster.port(), port(redis.address()), port(kafka.brokers())];
    let mut ours = Vec::new();
    for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        let of_process = connections(process.pid(), |of| ports.contains(&of.there))?;
        ours.extend(of_process.into_iter().map(|(of, silence)| (process.program(), of, silence)));
    }
    let mut of_postgres = HashMap::new();
    for pid in cluster.pids() {
        let of_process = connections(pid, |of| of.here == cluster.port())?;
        of_postgres.extend(of_process.into_iter().map(|(of, silence)| (of.there, silence)));
    }
    let ends = ours.into_iter().map(|(program, of, silence)| {
        let number = ports.iter().position(|port| *port == of.there).expect("it was asked for");
        let silence = if number == 0 { of_postgres.get(&of.here).copied() } else { Some(silence) };
        (program, ["Postgres", "Redis", "Kafka"][number], silence)
    });
    Ok(ends.collect())
}

/// Whether each connection to Postgres, Redis and Kafka ends by itself once its other end is silently gone, and
/// whether there are some of all that are expected.
#[cfg(target_os = "linux")]
fn all_are_watched(ends: &[(&'static str, &'static str, Option<Silence>)]) -> Result<(), String> {
    for (program, to, silence) in ends {
        let Some(is) = silence else { return Err(format!("{to}'s end of a connection of {program} is not found")) };
        let (idle, unconfirmed) = (is.idle_max.as_secs(), is.unconfirmed_max.as_secs());
        let is_right = match *to {
            "Postgres" => is.keepalive && (idle, unconfirmed) == (5, 10),
            "Redis" => is.keepalive && (idle, unconfirmed) == (10, 10),
            // the rest is up to the library (`crates/kafka/src/settings.rs`)
            _ => is.keepalive,
        };
        if !is_right {
            return Err(format!("a connection of {program} to {to} has {is:?}"));
        }
    }
    let expected = [
        ("command-api", "Postgres"),
        ("command-api", "Kafka"),
        ("projector", "Postgres"),
        ("projector", "Kafka"),
        ("projector", "Redis"),
        ("query-api", "Postgres"),
        ("query-api", "Redis"),
    ];
    match expected.iter().find(|expected| !ends.iter().any(|(program, to, _)| (*program, *to) == **expected)) {
        Some((program, to)) => Err(format!("{program} has no connection to {to}")),
        None => Ok(()),
    }
}

/// Every connection of the services, whatever it is for: those of pools, of the appender, the projector, the relay and the
/// consumer, those by which ended sessions and limits travel.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_connection_has_keepalive_and_a_limit_to_silence() {
    let services = services().await;
    services.relay_leader().await;
    let account = services.api().account().await;
    let id = account.create(json!({"title": "seen"})).await;
    assert_eq!(shown(&account, &format!("{TASKS}/{id}")).await["title"], "seen");
    if let Err(error) = watched_ends(&services)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        println!("skipped: the kernel lets nobody have a socket of another process here (pidfd_getfd: {error})");
        return;
    }
    // one that is just being made has not got everything yet
    until_right(Duration::from_secs(30), || async {
        all_are_watched(&watched_ends(&services).map_err(|error| error.to_string())?)
    })
    .await;
    println!("{} connections", watched_ends(&services).expect("as before").len());
}

/// The longest time from a command to where it is visible, in so long.
async fn slowest_visible(account: &Account, time: Duration) -> Duration {
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < time {
        let id = account.create(json!({"title": "seen"})).await;
        let written = Instant::now();
        assert_eq!(shown(account, &format!("{TASKS}/{id}")).await["title"], "seen");
        slowest = slowest.max(written.elapsed());
    }
    slowest
}

/// 11. Somebody else's open transaction stops nobody: under the same load, nothing takes a second longer than without.
#[tokio::test]
async fn a_transaction_is_left_open() {
    let services = services().await;
    let (ledger, load) = loaded(&services).await;
    let machine = Slowness::watch_with_kafka(&services.parts.database_url, &services.parts.brokers).await;
    let account = services.api().account().await;
    keeps_up(&account).await;
    let without = slowest_visible(&account, Duration::from_secs(10)).await;
    let pool = pool(&services.parts.database_url).await;
    let mut open = pool.begin().await.expect("transaction");
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *open).await.expect("set");
    let look = "select txid_current(), (select count(*) from event_store.event)";
    sqlx::query(look).execute(&mut *open).await.expect("open");
    let began = Instant::now();
    let slowest = slowest_visible(&account, Duration::from_secs(30)).await;
    let allowed = machine.allowed(SECOND, began) + without;
    println!("slowest visible: {slowest:?}, without the transaction {without:?}, allowed {allowed:?}");
    assert!(slowest < allowed, "{slowest:?} until a command was visible; without {without:?}, allowed {allowed:?}");
    open.rollback().await.expect("rollback");
    pool.close().await;
    settled(&services, &ledger, load).await;
}

/// 13. Both copies of the command API append to the one shard; one of them dies now and then.
#[tokio::test]
async fn two_copies_append_to_one_shard() {
    let services = services().await;
    let (here, one) = loaded(&services).await;
    let (there, other) = loaded(&services).await;
    for round in 0..3 {
        here.progress(50).await;
        services.commands[round % 2].kill();
        there.progress(50).await;
        services.commands[round % 2].restart().await;
    }
    one.stop().await;
    other.stop().await;
    here.settle().await;
    there.settle().await;
    a_batch_goes_on_where_its_copy_was_killed(&services).await;
    services.everything_holds(&[&here, &there]).await;
}

/// An equal request waits for the lease of a process that has died: at most 3 s. What both have done is one change.
async fn a_batch_goes_on_where_its_copy_was_killed(services: &Services) {
    const COMMANDS: usize = 10_000;
    let (killed, other) = (&services.commands[0], &services.commands[1]);
    let account = services.api_by(std::slice::from_ref(other)).account().await;
    let machine = Slowness::watch(&services.parts.database_url).await;
    let pool = pool(&services.parts.database_url).await;
    let commands: Vec<Value> = (0..COMMANDS)
        .map(|n| json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": format!("number {n}")}))
        .collect();
    let batch = json!({ "commands": commands });
    let send = |api| account.at(api).request("POST", "/api/v1/commands").key("killed").json(&batch).try_send();
    let holder = || async {
        let holder = sqlx::query_scalar("select holder from event_store.batch_lease where owner_id = $1");
        holder.bind(account.id).fetch_optional(&pool).await.expect("leases") as Option<Uuid>
    };
    let stored = || async {
        let changes = "select change_id, count(*) from event_store.event where owner_id = $1 group by change_id";
        let changes = sqlx::query_as::<_, (Option<Uuid>, i64)>(changes).bind(account.id);
        changes.fetch_all(&pool).await.expect("changes")
    };
    // Meanwhile nobody can keep an answer: it is killed with some of it done, and is not through.
    let mut lock = pool.begin().await.expect("a transaction");
    let no_answers = sqlx::query("lock table event_store.batch_answer in share mode");
    no_answers.execute(&mut *lock).await.expect("the lock");
    let first = tokio::spawn(send(killed.api()));
    until("the first copy has done some of it", Duration::from_secs(30), || async {
        (!stored().await.is_empty()).then_some(())
    })
    .await;
    let held = holder().await.expect("the first copy has the lease");
    killed.kill();
    assert!(first.await.expect("sent").is_err(), "it was done before it was killed");
    let second = tokio::spawn(send(other.api()));
    let taken_over = until("the other copy has the lease", Duration::from_secs(30), || async {
        (holder().await? != held).then_some(())
    });
    in_time(3 * SECOND, &machine, "the lease of a killed copy", taken_over).await;
    lock.commit().await.expect("unlocked");
    let answer = second.await.expect("sent").expect("answered").expect(200);
    assert_eq!(answer.number("/succeeded"), COMMANDS as u64);
    let change: Uuid = answer.must("Change-Id").parse().expect("a UUID");
    assert_eq!(stored().await, [(Some(change), COMMANDS as i64)]);
    killed.restart().await;
    pool.close().await;
}

/// A log that was restored from a backup has another id. A copy that knew the former one ends, for it would go on naming
/// that in tokens and messages; started anew it knows this one.
#[tokio::test]
async fn the_log_is_replaced() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    cli(Path::new("/"), Some(&url), &["migrate"], "").await.expect(0);
    let copy = Process::start("command-api", Vec::new(), vec![("PRIMETRADE_DATABASE_URL".to_owned(), url.clone())]);
    copy.ready().await;
    let account = copy.api().account().await;
    let create = async || {
        let create = account.request("POST", TASKS).json(&json!({"title": "kept"}));
        create.send().await.expect(201).must("Consistency-Token").to_owned()
    };
    let before = create().await;
    // it begins with the log's id: 16 bytes, in base64
    assert_eq!(create().await[..21], before[..21]);
    let pool = pool(&url).await;
    sqlx::query("update event_store.log set log_id = gen_random_uuid()").execute(&pool).await.expect("another log");
    assert_eq!(copy.ended().await.code(), Some(1), "not as if it had been asked to");
    assert!(copy.log().contains("the log was replaced"), "{}", copy.log_tail());
    copy.restart().await;
    assert_ne!(create().await[..21], before[..21]);
    pool.close().await;
}

/// Two installations that were given the same topic and the same Redis, and one secret (a file that was copied): both are
/// whole. A service of the one that is led to the keys of the other does not start, and says why.
#[tokio::test]
async fn two_installations_share_what_is_around_them() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let mut others = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    others.topic.clone_from(&parts.topic);
    let services = Services::start(parts).await;
    let neighbour = Services::start_beside(&services, others).await;
    let (here, load_here) = loaded(&services).await;
    let (there, load_there) = loaded(&neighbour).await;
    // where partitions were shared out among all, half of the accounts would stand still
    for of in [&services, &neighbour] {
        for _ in 0..8 {
            let account = of.api().account().await;
            let id = account.create(json!({"title": "seen"})).await;
            assert_eq!(shown(&account, &format!("{TASKS}/{id}")).await["title"], "seen");
        }
    }
    ledger_at_rest(&here, load_here).await;
    ledger_at_rest(&there, load_there).await;
    services.everything_is_whole(&[&here]).await;
    neighbour.everything_is_whole(&[&there]).await;
    for (of, foreign) in [(&services, &neighbour), (&neighbour, &services)] {
        let foreign = log_id(&foreign.parts).await.to_string();
        let (mut ready, mut logged) = (0, 0);
        for projector in &of.projectors {
            let answer = projector.api().get("/readyz").send().await.expect(200).json();
            ready += usize::from(answer["checks"]["topic"]["detail"].as_str().expect("a detail").contains(&foreign));
            logged += usize::from(projector.log().contains("messages of another log are passed over"));
        }
        assert!(ready > 0 && logged > 0, "passed over, and not said: {ready} in /readyz, {logged} in the log");
    }

    let url = format!("http://{}/.well-known/jwks.json", neighbour.commands[0].address());
    let mut variables = services.parts.variables();
    variables.push(("PRIMETRADE_JWKS_URL".to_owned(), url));
    for (program, secret, named) in [
        ("query-api", None, "its log is"),
        ("projector", None, "its log is"),
        ("query-api", Some("another secret, which is as long as one has to be"), "PRIMETRADE_SECRET"),
    ] {
        let secret = secret.map(|secret| ("PRIMETRADE_SECRET".to_owned(), secret.to_owned()));
        let process = Process::start(program, Vec::new(), [variables.clone(), secret.into_iter().collect()].concat());
        assert_eq!(process.ended().await.code(), Some(2), "{}", process.log_tail());
        let log = process.log();
        assert!(log.contains("PRIMETRADE_JWKS_URL") && log.contains(named), "{log}");
    }
    let mut variables = services.parts.variables();
    variables.push(("PRIMETRADE_READ_DATABASE_URL".to_owned(), neighbour.parts.database_url.clone()));
    let commands = Process::start("command-api", Vec::new(), variables);
    commands.ready().await;
    let ready = commands.api().get("/readyz").send().await.expect(200).json();
    let check = &ready["checks"]["read_models"];
    assert_eq!(check["status"], "degraded", "{ready}");
    assert!(check["detail"].as_str().expect("a detail").contains("PRIMETRADE_READ_DATABASE_URL"), "{ready}");
}
