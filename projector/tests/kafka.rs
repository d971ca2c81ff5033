//! What only a projection that is fed from Kafka has to stand: messages that come twice, too late, not at all, or that
//! nobody can read; copies that come and go.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use common::admin::Admin;
use common::topic::Topic;
use common::{
    CREATED, Database, Event, Feed, Histories, Running, append, assert_equals_the_log, caught_up, event, rows, until,
};
use domain::OwnerId;
use messaging::{Message, partition_of};
use projector::Projector;
use projector::rebuild::Options;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rustix::process::Signal;
use sqlx::AssertSqlSafe;
use system_tests::kafka::Kafka;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const WAITING: &str = "select count(*) from pg_stat_activity where datname = current_database()
    and application_name = 'primetrade projector' and wait_event_type = 'Lock'";

/// An owner by number whose events are in this partition.
fn owner_in(partition: i32, partitions: i32) -> u128 {
    (1..).find(|n| partition_of(OwnerId(Uuid::from_u128(*n)), partitions) == partition).unwrap()
}

fn renamed(owner: u128, task: u128, title: &str) -> Event {
    event(owner, task, "TaskRenamed", &format!("{{\"title\":\"{title}\"}}"))
}

/// Each event of the log had one effect, and the read models are what the log says.
async fn assert_exactly_once(database: &Database) {
    let events = database.number("select position from event_store.head").await;
    let live = "(select live_generation from read_model.projection)";
    for (what, of) in [("change_counter", "sum(change_counter)::bigint"), ("revision", "max(revision)")] {
        let sql = format!("select {of} from read_model.owner where generation = {live}");
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&database.pool).await.unwrap();
        assert_eq!(found, events, "{what}");
    }
    assert_eq!(database.number("select count(*) from read_model.parked").await, 0);
    assert_equals_the_log(database).await;
}

/// What the stopped partitions say: from where the log is to be published again.
fn mend_of(running: &Running) -> Option<i64> {
    let partitions = running.projector.partitions();
    let said: Vec<String> = partitions.borrow().troubles.values().cloned().collect();
    said.iter().map(|text| text.split("--from ").nth(1).unwrap().split('`').next().unwrap().parse().unwrap()).min()
}

/// The same, once there is something.
async fn mend(running: &Running) -> i64 {
    until("a hole is noticed", || async { mend_of(running).is_some() }).await;
    mend_of(running).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_read_again_from_its_beginning_has_no_effect() {
    let database = Database::create_for(Feed::Kafka).await;
    database.append(&Histories::new(11, 6).next(3_000)).await;
    // one that is parked, and one behind it
    database.append(&[event(1, 1, "TaskPainted", "{}"), event(1, 1, "TaskStarted", "{}")]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    let before = rows(&database, 1).await;
    let all = database.number("select sum(next_offset)::bigint from read_model.kafka_partition").await;
    assert!(all >= 3_002);
    let read_again = || async {
        database.number("select coalesce(sum(next_offset), 0)::bigint from read_model.kafka_partition").await == all
    };
    // while it runs
    projector::forget_offsets(&database.pool, &database.topic().settings.topic).await.unwrap();
    until("all is read again", read_again).await;
    assert_eq!(rows(&database, 1).await, before);
    running.stop().await;
    // as if nothing were known of what is read
    for forget in ["delete from read_model.kafka_partition", "delete from read_model.kafka_position"] {
        database.execute(forget).await;
    }
    database.execute("update read_model.checkpoint set position = 0").await;
    let running = Running::start(&database, None).await;
    until("all is read again", read_again).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(rows(&database, 1).await, before);
    assert_eq!(database.number("select count(*) from read_model.parked").await, 2);
    assert_equals_the_log(&database).await;
}

/// Until some hundred events more are in the read models.
async fn more_is_applied(database: &Database) {
    const EVENTS: i64 = 400;
    let applied = "select count(*) from read_model.history";
    let before = database.number(applied).await;
    until("more is applied", || async { database.number(applied).await >= before + EVENTS }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_come_and_go_under_load_and_each_event_has_one_effect() {
    let database = Database::create_for(Feed::Kafka).await;
    let (log, stop) = (database.log(), CancellationToken::new());
    let stopped = stop.clone();
    let appending = tokio::spawn(async move {
        let mut histories = Histories::new(12, 20);
        while !stopped.is_cancelled() {
            log.append(&histories.next(200)).await;
        }
    });
    let mut copies = VecDeque::new();
    copies.push_back(Running::start(&database, None).await);
    copies.push_back(Running::start(&database, None).await);
    for _ in 0..8 {
        more_is_applied(&database).await;
        copies.push_back(Running::start(&database, None).await);
        more_is_applied(&database).await;
        copies.pop_front().unwrap().stop().await;
    }
    stop.cancel();
    appending.await.unwrap();
    caught_up(&database).await;
    for copy in copies {
        copy.stop().await;
    }
    assert!(database.number("select min(turn) from read_model.kafka_partition").await > 1);
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_flight_for_a_partition_that_was_taken_away_is_fenced_off() {
    let database = Database::create_for(Feed::Kafka).await;
    let running = Running::start(&database, None).await;
    database.append(&[event(1, 1, "TaskCreated", CREATED)]).await;
    caught_up(&database).await;
    // another copy has begun with the partition and applies the next event …
    let mut elsewhere = database.pool.begin().await.unwrap();
    sqlx::query("update read_model.kafka_partition set turn = turn + 1").execute(&mut *elsewhere).await.unwrap();
    sqlx::query("update read_model.task set version = 2, title = 'by another copy'")
        .execute(&mut *elsewhere)
        .await
        .unwrap();
    // … which this one has read and folded, too
    database.append(&[renamed(1, 1, "by this copy")]).await;
    until("the batch waits for the fence", || async { database.number(WAITING).await > 0 }).await;
    elsewhere.commit().await.unwrap();
    database.append(&[renamed(1, 2, "x"), event(2, 1, "TaskCreated", CREATED)]).await;
    until("it goes on", || async {
        database.number("select coalesce(max(revision), 0) from read_model.owner where owner_id::text like '%2'").await
            == 4
    })
    .await;
    running.stop().await;
    let by_another = "select count(*) from read_model.task where title = 'by another copy' and version = 2";
    assert_eq!(database.number(by_another).await, 1);
    assert_eq!(database.number("select count(*) from read_model.history where version = 2").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cut_off_between_applying_and_committing_leaves_nothing() {
    let database = Database::create_for(Feed::Kafka).await;
    let running = Running::start(&database, None).await;
    let mut histories = Histories::new(13, 6);
    database.append(&histories.next(300)).await;
    caught_up(&database).await;
    let before = rows(&database, 1).await;
    for _ in 0..3 {
        // held at its last statement, with all that it has written before
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("select from read_model.owner for update").execute(&mut *held).await.unwrap();
        append(&database.pool, &histories.next(300)).await;
        database.log().publish().await;
        until("the batch waits", || async { database.number(WAITING).await > 0 }).await;
        database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and application_name = 'primetrade projector'",
            )
            .await;
        held.rollback().await.unwrap();
    }
    caught_up(&database).await;
    running.stop().await;
    assert!(rows(&database, 1).await.len() > before.len());
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_stops_its_partition_only_and_says_what_mends_it() {
    let database = Database::create_for(Feed::Kafka).await;
    let (cut, whole) = (owner_in(0, 5), owner_in(1, 5));
    append(
        &database.pool,
        &[
            event(cut, 1, "TaskCreated", CREATED),   // 1
            event(whole, 1, "TaskCreated", CREATED), // 2
            event(cut, 1, "TaskStarted", "{}"),      // 3: lost
            event(cut, 2, "TaskCreated", CREATED),   // 4
            event(whole, 1, "TaskStarted", "{}"),    // 5
        ],
    )
    .await;
    database.topic().publish_but(&database.pool, |event| event.position == 3).await;
    let running = Running::start(&database, None).await;
    let from = mend(&running).await;
    database.append(&[event(whole, 1, "TaskCompleted", "{}"), event(cut, 3, "TaskCreated", CREATED)]).await; // 6, 7
    until("the other partition goes on", || async {
        database.number("select max(revision) from read_model.owner").await == 6
    })
    .await;
    let applied = "select count(*) from read_model.history";
    assert_eq!(database.number(applied).await, 4);
    let admin = Admin::of(&database);
    let seen = admin.get("/api/v1/admin/projections").await;
    assert_eq!(seen["items"][0]["feed"], "kafka");
    assert!(seen["items"][0]["lag_events"].as_i64().unwrap() >= 3, "{seen}");
    let troubles: Vec<_> =
        seen["partitions"].as_array().unwrap().iter().filter(|partition| !partition["trouble"].is_null()).collect();
    assert_eq!(troubles.len(), 1, "{seen}");
    assert_eq!(troubles[0]["partition"], 0);
    assert!(from <= 3, "{from}");
    // it stays so, however often the partition is begun with again
    let fence = "select turn from read_model.kafka_partition where partition = 0";
    let before = database.number(fence).await;
    until("it was looked at again", || async { database.number(fence).await >= before + 2 }).await;
    assert_eq!(database.number(applied).await, 4);
    // from no sooner than what has come everywhere meanwhile, and from no later than the hole
    let from_now = mend(&running).await;
    assert!((from..=3).contains(&from_now), "{from} {from_now}");

    database.topic().republish(&database.pool, from).await;
    caught_up(&database).await;
    let partitions = running.projector.partitions();
    until("nothing is wrong any more", || async { partitions.borrow().troubles.is_empty() }).await;
    assert_eq!(database.number("select count(*) from read_model.kafka_partition where trouble is not null").await, 0);
    database.append(&[event(cut, 1, "TaskCompleted", "{}"), event(whole, 2, "TaskCreated", CREATED)]).await;
    caught_up(&database).await;
    running.stop().await;
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_lost_are_noticed_also_when_none_comes_after_them() {
    let database = Database::create_for(Feed::Kafka).await;
    let owner = owner_in(4, 5);
    database.append(&[event(owner, 1, "TaskCreated", CREATED)]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    append(&database.pool, &[event(owner, 1, "TaskStarted", "{}"), event(owner, 1, "TaskCompleted", "{}")]).await;
    database.topic().publish_but(&database.pool, |_| true).await;
    assert_eq!(mend(&running).await, 2);
    database.topic().republish(&database.pool, 2).await;
    caught_up(&database).await;
    let partitions = running.projector.partitions();
    until("nothing is wrong any more", || async { partitions.borrow().troubles.is_empty() }).await;
    running.stop().await;
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_lost_is_noticed_also_when_the_new_one_has_grown_past_the_old_offsets() {
    for more in [60, 1_500] {
        let database = Database::create_for(Feed::Kafka).await;
        let mut histories = Histories::new(14, 12);
        database.append(&histories.next(400)).await;
        let running = Running::start(&database, None).await;
        caught_up(&database).await;
        running.stop().await;
        database.append(&histories.next(300)).await; // nobody reads them …
        database.topic().make_anew().await; // … and they are gone
        database.append(&histories.next(more)).await;
        let running = Running::start(&database, None).await;
        let from = mend(&running).await;
        let mut mended = (from, Instant::now());
        database.topic().republish(&database.pool, from).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        while database.number("select count(*) from read_model.history").await
            < database.number("select position from event_store.head").await
        {
            assert!(Instant::now() < deadline, "it is mended");
            // what a mend from there did not mend asks for another one
            if let Some(from) = mend_of(&running)
                && (from < mended.0 || mended.1.elapsed() > Duration::from_secs(8))
            {
                mended = (from, Instant::now());
                database.topic().republish(&database.pool, from).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
        caught_up(&database).await;
        running.stop().await;
        assert_exactly_once(&database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_with_nothing_missing_is_followed_without_a_mend() {
    let database = Database::create_for(Feed::Kafka).await;
    let mut histories = Histories::new(15, 12);
    database.append(&histories.next(600)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    database.topic().make_anew().await;
    database.append(&histories.next(40)).await;
    caught_up(&database).await;
    assert!(running.projector.partitions().borrow().troubles.is_empty());
    running.stop().await;
    assert_exactly_once(&database).await;
}

/// Two installations that were given the same topic: each has all of its own events, and says that there is another.
#[tokio::test(flavor = "multi_thread")]
async fn two_installations_on_one_topic_are_both_whole_and_say_so() {
    let one = Database::create_for(Feed::Kafka).await;
    let mut other = Database::create().await;
    other.topic = Some(one.topic().shared_with(&other.pool).await);
    let databases = [&one, &other];
    let log_ids = [one.tail().log_id().await.unwrap(), other.tail().log_id().await.unwrap()];
    let running = [Running::start(&one, None).await, Running::start(&other, None).await];
    let mut histories = [Histories::new(16, 12), Histories::new(17, 12)];
    for _ in 0..5 {
        for (database, histories) in databases.iter().zip(&mut histories) {
            database.append(&histories.next(60)).await;
        }
    }
    // what only the other one has to be able to read
    append(&one.pool, &histories[0].next(1)).await;
    let (partition, key, headers, payload) = broken(&one, "ce_type", None).await;
    one.topic().put(partition, &key, headers, payload.as_bytes()).await;
    one.topic().publish(&one.pool).await;
    one.topic().publish(&other.pool).await;
    for database in databases {
        caught_up(database).await;
    }
    let said = |of: &Running| of.projector.foreign().borrow().check("the topic");
    for (running, foreign) in running.iter().zip([log_ids[1], log_ids[0]]) {
        until("it says so", || async { said(running).detail.contains(&foreign.to_string()) }).await;
        let said = said(running);
        assert!(!said.is_ok() && said.detail.contains("PRIMETRADE_KAFKA_TOPIC"), "{said:?}");
    }
    for running in running {
        running.stop().await;
    }
    assert_eq!(one.number("select count(*) from read_model.parked").await, 1, "its own");
    assert_exactly_once(&other).await;
}

/// The next message of the log, as the relay would send it, and without one of its headers.
async fn broken(database: &Database, without: &str, log_id: Option<Uuid>) -> (i32, String, OwnedHeaders, String) {
    let (publication, cursor): (i64, i64) =
        sqlx::query_as("select publication, position from event_store.relay, event_store.relay_cursor")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    let event = database.tail().read_after(0, cursor, 1).await.unwrap().remove(0);
    let partition = partition_of(event.owner_id, 5);
    let previous_position = sqlx::query_scalar("select position from event_store.relay_partition where partition = $1")
        .bind(partition)
        .fetch_optional(&database.pool)
        .await
        .unwrap();
    let log_id = match log_id {
        Some(log_id) => log_id,
        None => database.tail().log_id().await.unwrap(),
    };
    let message = Message { event, log_id, publication, previous_position: previous_position.unwrap_or(0) };
    let headers = kafka::record::headers(&message);
    let kept = headers.iter().filter(|header| header.key != without);
    let kept = kept.fold(OwnedHeaders::new(), |kept, header| kept.insert(Header { ..header }));
    (partition, message.key(), kept, message.event.data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_read_is_parked_and_everything_else_goes_on() {
    let database = Database::create_for(Feed::Kafka).await;
    let topic = database.topic();
    let running = Running::start(&database, None).await;
    let (owner, other) = (owner_in(2, 5), owner_in(3, 5));
    database.append(&[event(owner, 1, "TaskCreated", CREATED)]).await; // 1
    topic.put(2, "?", OwnedHeaders::new(), b"\xff\0 garbage").await;
    // of another log: nothing is known of it, and nothing is missing without it
    append(&database.pool, &[renamed(owner, 1, "second")]).await; // 2
    let (partition, key, headers, payload) = broken(&database, "", Some(Uuid::from_u128(7))).await;
    topic.put(partition, &key, headers, payload.replace("second", "foreign").as_bytes()).await;
    // an event whose message is broken, though it says which one it is
    let (partition, key, headers, payload) = broken(&database, "ce_type", None).await;
    topic.put(partition, &key, headers, payload.as_bytes()).await;
    topic.publish_but(&database.pool, |_| true).await;
    database
        .append(&[
            renamed(owner, 1, "third"),              // 3: waits
            event(owner, 2, "TaskCreated", CREATED), // 4
            event(other, 1, "TaskCreated", CREATED), // 5
        ])
        .await;
    caught_up(&database).await;
    assert_eq!(database.number("select count(*) from read_model.history").await, 3);
    let admin = Admin::of(&database);
    let parked = admin.get("/api/v1/admin/parked").await;
    let items = parked["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{parked}");
    let (event, message) = (&items[0], &items[1]);
    assert_eq!((event["position"].as_i64(), event["waiting"].as_i64()), (Some(2), Some(1)), "{parked}");
    assert!(event["reason"].as_str().unwrap().contains("ce_type"), "{parked}");
    assert_eq!((message["position"].as_i64(), message["partition"].as_i64()), (None, Some(2)), "{parked}");
    assert_eq!(message["offset"], 1, "{parked}");
    assert_eq!(admin.get("/api/v1/admin/projections").await["unreadable_messages"], 1);
    assert_equals_the_log_but_for_what_is_parked(&database).await;

    for _ in 0..2 {
        admin.retry_first().await;
        until("the retry was made", || async {
            database.number("select count(*) from read_model.parked where retry_at is not null").await == 0
        })
        .await;
    }
    assert_eq!(database.number("select count(*) from read_model.parked").await, 0);
    assert_eq!(database.number("select version from read_model.task where title = 'third'").await, 3);
    database.append(&[renamed(owner, 1, "fourth")]).await; // 6
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_of_an_event_that_is_there_holds_nobody_up_and_is_parked_once() {
    let database = Database::create_for(Feed::Kafka).await;
    let running = Running::start(&database, None).await;
    let owner = owner_in(2, 5);
    append(&database.pool, &[event(owner, 1, "TaskCreated", CREATED)]).await; // 1
    let (partition, key, headers, payload) = broken(&database, "ce_type", None).await;
    database.topic().publish(&database.pool).await;
    caught_up(&database).await;
    // as a relay sends it that has lost its lease and begins again, and broken this time
    database.topic().put(partition, &key, headers, payload.as_bytes()).await;
    database.append(&[renamed(owner, 1, "goes on")]).await; // 2
    caught_up(&database).await;
    let parked = "select count(*) from read_model.parked";
    let of_no_task = "select count(*) from read_model.parked where position is null and message_offset = 1";
    assert_eq!((database.number(parked).await, database.number(of_no_task).await), (1, 1));
    assert_eq!(database.number("select version from read_model.task where title = 'goes on'").await, 2);
    let before = rows(&database, 1).await;
    // from the beginning once more
    let read = "select coalesce(sum(next_offset), 0)::bigint from read_model.kafka_partition";
    let all = database.number(read).await;
    projector::forget_offsets(&database.pool, &database.topic().settings.topic).await.unwrap();
    until("all is read again", || async { database.number(read).await == all }).await;
    running.stop().await;
    assert_eq!(database.number(parked).await, 1);
    assert_eq!(rows(&database, 1).await, before);
}

/// A rebuild, which reads the log itself, would have nothing parked.
async fn assert_equals_the_log_but_for_what_is_parked(database: &Database) {
    let report = projector::rebuild::verify(&database.pool, &database.tail(), |_| {}).await.unwrap();
    assert_eq!(report.parked, 0);
    assert!(report.differences.total > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_feed_is_started_last_has_the_read_models_alone() {
    let database = Database::create_for(Feed::Kafka).await;
    let mut histories = Histories::new(16, 8);
    let from_kafka = Running::start(&database, None).await;
    database.append(&histories.next(200)).await;
    caught_up(&database).await;
    // one process, on the same database
    let stop = CancellationToken::new();
    let from_store = Projector::start(database.pool.clone(), database.tail(), stop.clone()).await.unwrap();
    for _ in 0..30 {
        database.append(&histories.next(100)).await;
    }
    caught_up(&database).await;
    assert_exactly_once(&database).await;
    stop.cancel();
    from_store.stopped().await;
    from_kafka.stop().await;
    let from_kafka = Running::start(&database, None).await;
    for _ in 0..10 {
        database.append(&histories.next(100)).await;
    }
    caught_up(&database).await;
    from_kafka.stop().await;
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_versions_are_sent_after_each_transaction() {
    let database = Database::create_for(Feed::Kafka).await;
    let (sender, mut owner_versions) = mpsc::channel(100);
    let stop = CancellationToken::new();
    let subscription = kafka::subscription(database.topic().settings.clone());
    let pool = database.pool.clone();
    let projector =
        Projector::start_from_kafka(pool, database.tail(), subscription, Some(sender), stop.clone()).await.unwrap();
    let (one, two) = (owner_in(0, 5), owner_in(4, 5));
    database
        .append(&[
            event(one, 1, "TaskCreated", CREATED),
            event(two, 1, "TaskCreated", CREATED),
            event(one, 1, "TaskStarted", "{}"),
            event(two, 1, "TaskPainted", "{}"),
        ])
        .await;
    caught_up(&database).await;
    let mut told = std::collections::BTreeMap::new();
    while told.len() < 2 || !told.values().any(|of: &read_model::OwnerRow| of.parked_position.is_some()) {
        let applied = owner_versions.recv().await.unwrap();
        assert_eq!(
            (applied.read_model.generation, applied.read_model.log_id),
            (1, database.tail().log_id().await.unwrap())
        );
        told.extend(applied.owners.into_iter().map(|owner| (owner.owner_id, owner)));
    }
    // nothing that Redis holds is to be believed: another name
    let name = "update read_model.projection set cache_id = gen_random_uuid() returning cache_id";
    let name: Uuid = sqlx::query_scalar(name).fetch_one(&database.pool).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    for version in 1.. {
        database.append(&[renamed(one, 1, &version.to_string())]).await;
        let applied = owner_versions.recv().await.unwrap();
        let is_named = applied.read_model.cache_id == name;
        told.extend(applied.owners.into_iter().map(|owner| (owner.owner_id, owner)));
        if is_named {
            break;
        }
        assert!(Instant::now() < deadline, "the new name is used");
    }
    caught_up(&database).await;
    stop.cancel();
    projector.stopped().await;
    while let Ok(applied) = owner_versions.try_recv() {
        told.extend(applied.owners.into_iter().map(|owner| (owner.owner_id, owner)));
    }
    let stored: Vec<(Uuid, i64, i64, Option<i64>)> = sqlx::query_as(
        "select owner_id, revision, change_counter, parked_position from read_model.owner order by owner_id",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let told: Vec<_> =
        told.values().map(|of| (of.owner_id.0, of.revision, of.change_counter, of.parked_position)).collect();
    assert_eq!(told, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_mended_by_publishing_from_the_beginning() {
    let mut database = Database::create_for(Feed::Kafka).await;
    let mut histories = Histories::new(17, 12);
    database.append(&histories.next(500)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    database.topic = Some(Topic::create(&database.pool, 3).await);
    // the same name, so to say
    let (old, new) = ("update read_model.kafka_partition set topic = '", &database.topic().settings.topic);
    for table in [old, "update read_model.kafka_position set topic = '"] {
        sqlx::query(AssertSqlSafe(format!("{table}{new}'"))).execute(&database.pool).await.unwrap();
    }
    append(&database.pool, &histories.next(300)).await;
    database.topic().republish(&database.pool, 1).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    assert_exactly_once(&database).await;
}

/// Of two copies, the one that got the new partition knows how many there are; the other one must not undo that.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_not_heard_of_another_number_of_partitions_takes_it_from_who_has() {
    let database = Database::create_for(Feed::Kafka).await;
    let mut histories = Histories::new(18, 12);
    database.append(&histories.next(200)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    database.execute("update read_model.kafka_partition set partitions = 6, turn = turn + 1").await;
    let fences = "select sum(turn)::bigint from read_model.kafka_partition";
    let before = database.number(fences).await;
    database.append(&histories.next(200)).await;
    caught_up(&database).await;
    until("all are begun with again", || async { database.number(fences).await >= before + 5 }).await;
    assert_eq!(database.number("select count(*) from read_model.kafka_partition where partitions <> 6").await, 0);
    running.stop().await;
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_restored_from_before_it_was_published_again_is_followed_after_a_rebuild() {
    let database = Database::create_for(Feed::Kafka).await;
    let mut histories = Histories::new(19, 12);
    database.append(&histories.next(200)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    // the read models were not restored, and had seen two publications more
    database.execute("update read_model.kafka_partition set publication = 3").await;
    database.execute("update event_store.log set log_id = gen_random_uuid()").await;
    let report = projector::rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    let running = Running::start(&database, None).await;
    database.append(&histories.next(200)).await;
    caught_up(&database).await;
    running.stop().await;
    assert_exactly_once(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_lost_are_not_missed_any_more_after_a_rebuild() {
    let database = Database::create_for(Feed::Kafka).await;
    let owner = owner_in(4, 5);
    database.append(&[event(owner, 1, "TaskCreated", CREATED)]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    append(&database.pool, &[event(owner, 1, "TaskStarted", "{}")]).await;
    database.topic().publish_but(&database.pool, |_| true).await;
    assert_eq!(mend(&running).await, 2);
    let troubles = "select count(*) from read_model.kafka_partition where trouble is not null";
    until("it is written down", || async { database.number(troubles).await == 1 }).await;
    let report = projector::rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    until("nothing is wrong any more", || async {
        running.projector.partitions().borrow().troubles.is_empty() && database.number(troubles).await == 0
    })
    .await;
    running.stop().await;
    assert_exactly_once(&database).await;
}

/// Whether something is lost only the broker can say: what it has acknowledged may just not have been fetched yet.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_nothing_is_said_to_be_lost() {
    let broker = Kafka::start();
    let mut database = Database::create().await;
    database.topic = Some(Topic::create_on(&broker.brokers(), &database.pool, 5).await);
    let owner = owner_in(4, 5);
    database.append(&[event(owner, 1, "TaskCreated", CREATED)]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    broker.signal(Signal::STOP);
    append(&database.pool, &[event(owner, 1, "TaskStarted", "{}")]).await;
    database.topic().publish_but(&database.pool, |_| true).await;
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(14) {
        assert_eq!(mend_of(&running), None, "after {:?}", away.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    broker.signal(Signal::CONT);
    assert_eq!(mend(&running).await, 2);
    running.stop().await;
}
