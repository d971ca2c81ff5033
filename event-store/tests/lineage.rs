//! A log that is not where it was last written: nothing is appended until it is known whether events are missing.

mod common;

use std::time::Duration;

use backends::database::DiskSpace;
use event_store::{DecidedCommand, EventStore, Known, Lineage, Settled, StreamAppend, TailReader, Unavailable};
use sqlx::PgPool;
use uuid::Uuid;

use common::{SHARD, command, created, shared, started, unit};

fn new_task() -> StreamAppend {
    let command = DecidedCommand { fingerprint: None, ..command(vec![created()]) };
    unit(Uuid::new_v4(), Uuid::new_v4(), 0, vec![command])
}

/// With five events, published as far as that.
async fn log_with_events(pool: &PgPool) -> Uuid {
    let store = common::store(pool).await;
    for _ in 0..5 {
        store.append(SHARD, new_task()).await.expect("appended");
    }
    execute(pool, "insert into event_store.relay_cursor (shard, position, base) values (0, 5, 0)").await;
    execute(pool, "insert into event_store.relay_partition (shard, partition, position) values (0, 0, 5)").await;
    store.log_id()
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect("executed");
}

/// As it is found after a restore.
async fn moves(pool: &PgPool) {
    execute(pool, "update event_store.log set lineage = 'another server'").await;
}

async fn head(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select position from event_store.head").fetch_one(pool).await.expect("a head")
}

#[sqlx::test(migrations = false)]
async fn nothing_is_appended_until_it_is_settled_and_then_what_waited_is(pool: PgPool) {
    let log_id = log_with_events(&pool).await;
    let lineage = Lineage::new(shared(&pool));
    let nobody_asked = async |_| panic!("there is nothing to ask");
    assert_eq!(lineage.settle(nobody_asked).await.expect("settled"), Settled::AsBefore);

    moves(&pool).await;
    // its connection is made after that
    let store = started(&pool).await;
    let cannot_be_asked = lineage.settle(async |_| Err("Kafka does not answer".to_owned())).await.expect_err("refused");
    assert!(cannot_be_asked.to_string().contains("Kafka does not answer"), "{cannot_be_asked}");
    assert!(!lineage.check().is_ok());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(SHARD, new_task()).await }
    });
    // longer than the first attempts take
    assert!(tokio::time::timeout(Duration::from_secs(1), store.append(SHARD, new_task())).await.is_err());
    assert_eq!(head(&pool).await, 5);

    let known = lineage.settle(async |asked| {
        assert_eq!(asked, log_id);
        Ok(vec![(SHARD, 5)])
    });
    assert_eq!(known.await.expect("settled"), Settled::Kept);
    assert!(lineage.check().is_ok());
    waiting.await.expect("it ends").expect("appended");
    assert_eq!(TailReader::new(shared(&pool), None).log_id().await.expect("a log"), log_id);
}

#[sqlx::test(migrations = false)]
async fn a_log_that_lacks_what_was_seen_gets_another_id_and_is_published_anew(pool: PgPool) {
    let log_id = log_with_events(&pool).await;
    let lineage = Lineage::new(shared(&pool));
    moves(&pool).await;
    assert_eq!(lineage.settle(async |_| Ok(vec![(SHARD, 3), (SHARD, 6)])).await.expect("settled"), Settled::NewId);
    let store = started(&pool).await;
    assert_ne!(store.log_id(), log_id);
    store.append(SHARD, new_task()).await.expect("appended");
    let (cursor, publication): (i64, i64) =
        sqlx::query_as("select position, publication from event_store.relay_cursor, event_store.relay")
            .fetch_one(&pool)
            .await
            .expect("a relay");
    assert_eq!(cursor, 0);
    assert!(publication > 1_000_000, "above any that a former past may have had: {publication}");
    assert_eq!(lineage.settle(async |_| Ok(Vec::new())).await.expect("settled"), Settled::AsBefore);
}

/// Only one of several copies decides.
#[sqlx::test(migrations = false)]
async fn it_is_settled_once(pool: PgPool) {
    let log_id = log_with_events(&pool).await;
    moves(&pool).await;
    let copies = [Lineage::new(shared(&pool)), Lineage::new(shared(&pool)), Lineage::new(shared(&pool))];
    let all = copies.iter().map(|copy| copy.settle(async |_| Ok(vec![(SHARD, 6)])));
    let settled: Vec<_> =
        futures_util::future::join_all(all).await.into_iter().map(|one| one.expect("settled")).collect();
    assert_eq!(settled.iter().filter(|one| **one == Settled::NewId).count(), 1, "{settled:?}");
    let now = TailReader::new(shared(&pool), None).log_id().await.expect("a log");
    assert_ne!(now, log_id);
}

async fn nobody_is_asked(_: Uuid) -> Known {
    Err("nobody need be asked".to_owned())
}

/// By an update; the events may have come from a backup of before that.
#[sqlx::test(migrations = false)]
async fn a_log_that_had_events_before_there_was_a_lineage_is_settled_once(pool: PgPool) {
    let log_id = log_with_events(&pool).await;
    execute(&pool, "alter table event_store.log drop column lineage").await;
    execute(&pool, "drop function event_store.lineage()").await;
    let migration = include_str!("../../migrations/event-store/0006_lineage.sql");
    sqlx::raw_sql(migration).execute(&pool).await.expect("migrated");
    let lineage = Lineage::new(shared(&pool));
    assert!(lineage.settle(nobody_is_asked).await.is_err(), "somebody has to be asked");
    assert_eq!(lineage.settle(async |_| Ok(vec![(SHARD, 5)])).await.expect("settled"), Settled::Kept);
    assert_eq!(lineage.settle(nobody_is_asked).await.expect("settled"), Settled::AsBefore);
    started(&pool).await.append(SHARD, new_task()).await.expect("appended");
    assert_eq!(TailReader::new(shared(&pool), None).log_id().await.expect("a log"), log_id);
}

/// Another copy, which knew no better, has settled a log that had lost its last event, and has gone on.
#[sqlx::test(migrations = false)]
async fn what_a_copy_itself_has_seen_has_to_be_there(pool: PgPool) {
    let log_id = log_with_events(&pool).await;
    let (appended, looked_up) = (started(&pool).await, started(&pool).await);
    let lost = new_task();
    let (owner_id, task_id) = (lost.owner_id, lost.task_id);
    appended.append(SHARD, lost).await.expect("appended");
    let looked = looked_up.look_up(owner_id, task_id, 0, Vec::new()).await.expect("looked up");
    assert_eq!(looked.events.len(), 1);
    let lineage_of = |store: &EventStore| Lineage::new(shared(&pool)).with_seen(store.seen());
    for copy in [&appended, &looked_up] {
        assert_eq!(lineage_of(copy).settle(nobody_is_asked).await.expect("settled"), Settled::AsBefore);
    }

    execute(&pool, "delete from event_store.command where revision > 5").await;
    execute(&pool, "delete from event_store.event where position > 5").await;
    execute(&pool, "update event_store.head set position = 5").await;
    let other = started(&pool).await;
    other.append(SHARD, new_task()).await.expect("appended");
    let later = new_task();
    let (owner_of_later, later_task) = (later.owner_id, later.task_id);
    other.append(SHARD, later).await.expect("appended");
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    execute(&pool, ended).await;
    for copy in [&appended, &looked_up] {
        // what is there now does not take the place of what is lost
        copy.look_up(owner_of_later, later_task, 0, Vec::new()).await.expect_err("not looked up");
        // longer than the first attempts take
        let refused = tokio::time::timeout(Duration::from_secs(1), copy.append(SHARD, new_task())).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(head(&pool).await, 7);
    assert_eq!(lineage_of(&other).settle(nobody_is_asked).await.expect("settled"), Settled::AsBefore);
    for copy in [&appended, &looked_up] {
        assert_eq!(lineage_of(copy).settle(nobody_is_asked).await.expect("settled"), Settled::NewId);
        // of the other log it has seen nothing
        assert_eq!(lineage_of(copy).settle(nobody_is_asked).await.expect("settled"), Settled::AsBefore);
        sqlx::query("update event_store.log set log_id = $1").bind(log_id).execute(&pool).await.expect("as before");
    }
}

async fn has_room(disk_space: &DiskSpace) {
    while disk_space.shortage().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The disk of the former server was full. The connection on which it is found out that there is room leads elsewhere.
#[sqlx::test(migrations = false)]
async fn a_disk_that_has_room_again_is_not_written_before_it_is_settled(pool: PgPool) {
    log_with_events(&pool).await;
    let store = started(&pool).await;
    let no_room = "create function no_room() returns trigger language plpgsql as $$
        begin raise exception 'no room' using errcode = '53100'; end $$";
    execute(&pool, no_room).await;
    execute(&pool, "create trigger no_room before insert on event_store.event for each row execute function no_room()")
        .await;
    assert_eq!(store.append(SHARD, new_task()).await, Err(Unavailable::DiskFull.into()));
    moves(&pool).await;
    execute(&pool, "drop trigger no_room on event_store.event").await;

    let disk_space = store.disk_space();
    // longer than it takes to try it twice
    assert!(tokio::time::timeout(Duration::from_secs(3), has_room(&disk_space)).await.is_err());
    assert_eq!(head(&pool).await, 5);
    let settled = Lineage::new(shared(&pool)).settle(async |_| Ok(vec![(SHARD, 5)])).await;
    assert_eq!(settled.expect("settled"), Settled::Kept);
    tokio::time::timeout(Duration::from_secs(20), has_room(&disk_space)).await.expect("room");
    store.append(SHARD, new_task()).await.expect("appended");
}
