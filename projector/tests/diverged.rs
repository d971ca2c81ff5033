//! A log that went back, as by a restore or by a standby that was behind: other events stand at positions that were applied.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use common::{CREATED, Database, Feed, Histories, Running, append, assert_equals_the_log, caught_up, event, until};
use projector::rebuild;

with_both_feeds!(
    a_log_that_ends_before_what_was_applied_stops_the_projection,
    another_event_at_an_applied_position_stops_the_projection,
    another_event_that_came_while_nobody_looked_stops_the_projection,
    a_log_that_was_copied_is_the_same_log,
    what_is_lost_is_known_to_be_all_until_the_log_is_written_again,
);

const APPLIED: &str = "select count(*) from read_model.history";

/// The log, and how far it is published, as they were at a position.
async fn goes_back(database: &Database, to: i64) {
    let sql = "with gone as (delete from event_store.event where position > $1),
        head as (update event_store.head set position = $1),
        partitions as (delete from event_store.relay_partition where position > $1)
        update event_store.relay_cursor set position = least(position, $1)";
    sqlx::query(sql).bind(to).execute(&database.pool).await.unwrap();
}

/// What `/readyz` says once the alarm is raised.
async fn alarm(running: &Running) -> String {
    let diverged = running.projector.diverged();
    until("the alarm is raised", || {
        let check = diverged.borrow().check();
        async move { !check.is_ok() }
    })
    .await;
    diverged.borrow().check().detail
}

/// Says that it is stopped, and has applied no more than before.
async fn stopped(database: &Database, running: &Running, applied: i64, told: &str) {
    let detail = alarm(running).await;
    assert!(detail.contains(told) && detail.contains("restore-finish"), "{detail}");
    // what is appended now is seen, and not applied
    let later: Vec<_> = (900..920).map(|task| event(7, task, "TaskCreated", CREATED)).collect();
    database.append(&later).await;
    let (mut lag, mut seen) = (running.projector.lag(), 0);
    while seen < 3 {
        lag.changed().await.unwrap();
        seen += 1;
    }
    assert_eq!(database.number(APPLIED).await, applied);
}

/// A new id, and a rebuild: all is well again.
async fn is_mended(database: &Database, running: Running) {
    running.stop().await;
    database.execute("update event_store.log set log_id = gen_random_uuid()").await;
    if let Some(topic) = &database.topic {
        topic.republish(&database.pool, 1).await;
    }
    let options = rebuild::Options { expect_same: false };
    rebuild::run(&database.pool, &database.tail(), options, |_| ()).await.unwrap();
    let running = Running::start(database, None).await;
    database.append(&[event(7, 950, "TaskCreated", CREATED)]).await;
    caught_up(database).await;
    assert!(running.projector.diverged().borrow().check().is_ok());
    running.stop().await;
    assert_equals_the_log(database).await;
}

async fn a_log_that_ends_before_what_was_applied_stops_the_projection(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(3, 3).next(40)).await;
    caught_up(&database).await;
    goes_back(&database, 30).await;
    stopped(&database, &running, 40, "the log ends at 30").await;
    is_mended(&database, running).await;
}

async fn another_event_at_an_applied_position_stops_the_projection(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(3, 3).next(40)).await;
    caught_up(&database).await;
    // at once: nobody sees a log that is too short
    let replace = "update event_store.event
        set event_id = gen_random_uuid(), recorded_at = recorded_at + interval '1 minute' where position > 30";
    database.execute(replace).await;
    stopped(&database, &running, 40, "another event").await;
    is_mended(&database, running).await;
}

async fn another_event_that_came_while_nobody_looked_stops_the_projection(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(3, 3).next(40)).await;
    caught_up(&database).await;
    running.stop().await;
    goes_back(&database, 30).await;
    let others: Vec<_> = (500..530).map(|task| event(task % 9, task, "TaskCreated", CREATED)).collect();
    database.append(&others).await;
    let running = Running::start(&database, None).await;
    stopped(&database, &running, 40, "another event").await;
    is_mended(&database, running).await;
}

/// By a dump, or a standby that has everything.
async fn a_log_that_was_copied_is_the_same_log(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(3, 3).next(40)).await;
    caught_up(&database).await;
    running.stop().await;
    database.execute("update event_store.event set data = data").await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(4, 3).next(10)).await;
    caught_up(&database).await;
    assert!(running.projector.diverged().borrow().check().is_ok());
    let known = projector::known_positions(&database.pool, database.tail().log_id().await.unwrap()).await.unwrap();
    assert_eq!(known.iter().map(|(_, position)| *position).max(), Some(50));
    running.stop().await;
    assert_equals_the_log(&database).await;
}

async fn what_is_lost_is_known_to_be_all_until_the_log_is_written_again(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(3, 3).next(40)).await;
    caught_up(&database).await;
    running.stop().await;
    let lost = async || {
        let lost = projector::lost(&database.pool, &database.tail()).await.unwrap();
        (lost.events, lost.recorded.is_some(), lost.is_all)
    };
    assert_eq!(lost().await, (0, false, true));
    goes_back(&database, 30).await;
    assert_eq!(lost().await, (10, true, true));
    let others =
        |tasks: std::ops::Range<u128>| tasks.map(|task| event(7, task, "TaskCreated", CREATED)).collect::<Vec<_>>();
    append(&database.pool, &others(900..905)).await;
    assert_eq!(lost().await, (5, true, false), "head 35");
    append(&database.pool, &others(905..930)).await;
    assert_eq!(lost().await, (0, false, false), "head 60");
}

/// A copy of the former primary goes on somewhere, and its relay publishes what this log does not have.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_past_that_is_lost_are_not_taken_for_repeated_ones() {
    let database = Database::create_for(Feed::Kafka).await;
    let running = Running::start(&database, None).await;
    let created: Vec<_> = (1..=20).map(|task| event(1, task, "TaskCreated", CREATED)).collect();
    database.append(&created).await;
    caught_up(&database).await;
    // the same positions again, with other events, under the same publication
    let events = database.tail().read_after(0, 0, 20).await.unwrap();
    database.execute("update event_store.relay_cursor set position = 0").await;
    database.execute("delete from event_store.relay_partition").await;
    let sent_again = "update event_store.event set recorded_at = recorded_at + interval '1 hour' where position = 10";
    database.execute(sent_again).await;
    database.log().publish().await;
    let told = alarm(&running).await;
    assert!(told.contains("position 10 has another event"), "{told}");
    assert_eq!(database.number(APPLIED).await, i64::try_from(events.len()).unwrap());
    running.stop().await;
}
