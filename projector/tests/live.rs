//! The live projection: follows the log, exactly once, whatever happens.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use common::{CREATED, Database, Feed, Histories, Running, assert_equals_the_log, caught_up, event, rows, until};
use event_store::TailReader;
use projector::Projector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

with_both_feeds!(
    the_read_models_equal_the_fold_of_the_log,
    three_projectors_on_one_database_apply_each_event_once,
    a_lost_connection_is_made_again,
    the_lag_is_told,
    it_ends_where_the_log_is_exchanged_under_it,
);

async fn the_read_models_equal_the_fold_of_the_log(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    let mut applied = running.projector.applied();
    let mut histories = Histories::new(1, 3);
    for size in [1, 2, 700, 1, 40, 2500, 3] {
        database.append(&histories.next(size)).await;
        applied.changed().await.unwrap();
    }
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
    let events = database.number("select position from event_store.head").await;
    assert_eq!(database.number("select count(*) from read_model.history").await, events);
    assert_eq!(database.number("select sum(change_counter)::bigint from read_model.owner").await, events);
    assert_eq!(database.number("select max(revision) from read_model.owner").await, events);
    assert!(database.number("select count(*) from read_model.task where deleted").await > 0, "some were deleted");
    let blank = database.number("select count(*) from read_model.task where deleted and title = ''").await;
    let purged = database.number("select count(*) from event_store.event where type = 'TaskPurged'").await;
    assert!(purged > 0, "some were purged");
    assert_eq!(blank, purged, "what was deleted can be restored");
    let left = "select count(*) from read_model.history h where changes <> '{}' and exists (
        select from event_store.event e where e.type = 'TaskPurged' and e.owner_id = h.owner_id and e.task_id = h.task_id)";
    assert_eq!(database.number(left).await, 0, "nothing is left of what was purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_again_change_nothing() {
    let database = Database::create().await;
    database.append(&Histories::new(2, 2).next(1500)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    let before = rows(&database, 1).await;
    for back_to in [0, 700, 1490] {
        sqlx::query("update read_model.checkpoint set position = $1, turn = turn + 1")
            .bind(i64::from(back_to))
            .execute(&database.pool)
            .await
            .unwrap();
        let running = Running::start(&database, None).await;
        caught_up(&database).await;
        running.stop().await;
        assert_eq!(rows(&database, 1).await, before, "again from {back_to}");
    }
}

async fn three_projectors_on_one_database_apply_each_event_once(feed: Feed) {
    let database = Database::create_for(feed).await;
    // all of them are woken by each append: the worst case
    let (wake, woken) = watch::channel(0);
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(Running::start(&database, Some(woken.clone())).await);
    }
    // the checkpoint never goes back
    let (pool, stop) = (database.pool.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let watching = tokio::spawn(async move {
        let mut last = 0;
        while !stopped.is_cancelled() {
            let position: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from read_model.checkpoint")
                .fetch_one(&pool)
                .await
                .unwrap();
            assert!(position >= last, "from {last} to {position}");
            last = position;
        }
    });
    let mut histories = Histories::new(3, 4);
    for n in 0..150 {
        database.append(&histories.next(if n % 10 == 0 { 300 } else { 3 })).await;
        wake.send_modify(|n| *n += 1);
    }
    caught_up(&database).await;
    stop.cancel();
    watching.await.unwrap();
    for running in running {
        running.stop().await;
    }
    let events = database.number("select position from event_store.head").await;
    assert_eq!(database.number("select sum(change_counter)::bigint from read_model.owner").await, events);
    assert_eq!(database.number("select count(*) from read_model.parked").await, 0);
    assert_equals_the_log(&database).await;
}

async fn a_lost_connection_is_made_again(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    let mut histories = Histories::new(4, 2);
    for _ in 0..5 {
        database.append(&histories.next(500)).await;
        database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and application_name = 'primetrade projector'",
            )
            .await;
    }
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
}

async fn the_lag_is_told(feed: Feed) {
    let database = Database::create_for(feed).await;
    database.append(&Histories::new(5, 1).next(10)).await;
    let at = projector::lag::measure(&database.pool, &database.tail()).await.unwrap();
    let lag = projector::lag::total(&at);
    assert!(lag.events >= 10 && lag.seconds > 0.0, "{lag:?}");
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    let told = running.projector.lag();
    until("the lag is told to be nothing", || async { *told.borrow() == process::health::Lag::default() }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_another_log_are_left_alone_until_they_are_rebuilt() {
    let database = Database::create().await;
    let mut histories = Histories::new(6, 1);
    database.append(&histories.next(20)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    // as after a restore from a backup
    database.execute("update event_store.log set log_id = gen_random_uuid()").await;
    database.append(&histories.next(20)).await;
    let running = Running::start(&database, None).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let checkpoint = "select position from read_model.checkpoint where generation = 1";
    assert!(database.number(checkpoint).await < database.number("select position from event_store.head").await);
    let report = projector::rebuild::run(&database.pool, &database.tail(), Default::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    database.append(&histories.next(20)).await;
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_stops_the_projection_before_it() {
    let database = Database::create().await;
    let events: Vec<_> = (1..=30).map(|task| event(1, task, "TaskCreated", CREATED)).collect();
    database.append(&events).await;
    database.execute("delete from event_store.event where position = 11").await;
    let running = Running::start(&database, None).await;
    let checkpoint = "select coalesce(max(position), 0) from read_model.checkpoint";
    until("what is before the hole is applied", || async { database.number(checkpoint).await == 10 }).await;
    // It has seen what is behind the hole with the same read: it would be there by now.
    running.stop().await;
    assert_eq!(database.number(checkpoint).await, 10);
    assert_eq!(database.number("select count(*) from read_model.history").await, 10);
}

/// As by a restore from a backup: whoever starts it again has the new one.
async fn it_ends_where_the_log_is_exchanged_under_it(feed: Feed) {
    let database = Database::create_for(feed).await;
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(8, 1).next(10)).await;
    caught_up(&database).await;
    database.execute("update event_store.log set log_id = gen_random_uuid()").await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), running.projector.stopped());
    ended.await.expect("it ends by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_in_the_middle_of_a_batch_does_not_hold_the_others_up_for_long() {
    stopped_in_a_batch(
        20,
        "select count(*) from pg_stat_activity where datname = current_database()
            and application_name = 'primetrade projector' and wait_event_type = 'Lock' and query not like 'copy %'",
    )
    .await;
}

/// A large batch is sent by COPY, in which Postgres heeds no time-out.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_while_it_sends_rows_does_not_hold_the_others_up_for_ever() {
    stopped_in_a_batch(
        200,
        "select count(*) from pg_stat_activity where datname = current_database()
            and application_name = 'primetrade projector' and wait_event_type = 'Lock' and query like 'copy %'",
    )
    .await;
}

async fn stopped_in_a_batch(events: usize, waiting: &'static str) {
    let database = Database::create().await;
    database.append(&Histories::new(50, 2).next(events)).await;
    // The first copy has a thread of its own, which is stopped once its transaction has moved the checkpoint and waits
    // for a table.
    let mut held = database.pool.begin().await.unwrap();
    sqlx::query("lock table read_model.history in access exclusive mode").execute(&mut *held).await.unwrap();
    let address = database.pool.address().clone();
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let (stopped, is_stopped) = tokio::sync::oneshot::channel::<()>();
    let (go_on, going_on) = std::sync::mpsc::channel::<()>();
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pool = backends::database::pool(4, address);
            let shutdown = CancellationToken::new();
            let tail = TailReader::new(pool.clone(), None);
            let projector = Projector::start(pool, tail, shutdown.clone()).await.unwrap();
            stopping.await.unwrap();
            stopped.send(()).unwrap();
            going_on.recv().unwrap();
            shutdown.cancel();
            projector.stopped().await;
        });
    });
    until("the first copy waits", || async { database.number(waiting).await == 1 }).await;
    stop.send(()).unwrap();
    is_stopped.await.unwrap();
    held.rollback().await.unwrap();

    let second = Running::start(&database, None).await;
    caught_up(&database).await;
    second.stop().await;
    go_on.send(()).unwrap();
    first.join().unwrap();
    assert_equals_the_log(&database).await;
}
