//! A rebuild equals the live generation row for row, can be stopped and goes on, finds what is wrong, and switches.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{CREATED, Database, Feed, Histories, Running, assert_equals_the_log, caught_up, event, rows};
use projector::RebuildError;
use projector::rebuild::{self, Options, Phase};
use tokio::sync::Notify;

async fn live(database: &Database) -> i64 {
    database.number("select live_generation::bigint from read_model.projection").await
}

async fn filled(seed: u64, events: usize) -> Database {
    filled_from(Feed::Store, seed, events).await
}

async fn filled_from(feed: Feed, seed: u64, events: usize) -> Database {
    let database = Database::create_for(feed).await;
    database.append(&Histories::new(seed, 5).next(events)).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    database
}

with_both_feeds!(
    it_equals_the_live_generation_row_for_row_and_is_switched_to,
    events_may_be_appended_meanwhile,
    what_is_wrong_in_the_live_generation_is_named_and_mended,
);

async fn it_equals_the_live_generation_row_for_row_and_is_switched_to(feed: Feed) {
    let database = filled_from(feed, 1, 3_000).await;
    let report = rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
    assert_eq!((report.switched, report.differences.total, report.resumed), (true, 0, false));
    assert_eq!(report.events, database.number("select position from event_store.head").await);
    assert_eq!(report.events_filled, report.events);
    assert_eq!(live(&database).await, i64::from(report.generation));
    assert_eq!(rows(&database, report.generation).await, rows(&database, 1).await);
    assert_eq!(database.number("select count(*) from read_model.generation where state = 'kept'").await, 1);

    // the live projection goes on with the new one
    let running = Running::start(&database, None).await;
    database.append(&[event(1, 77, "TaskCreated", CREATED)]).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(
        database
            .number("select count(*) from read_model.task where task_id = '00000000-0000-0000-0000-00000000004d'")
            .await,
        1
    );

    // back to the one before, which catches up first
    assert_eq!(rebuild::go_back(&database.pool, &database.tail()).await.unwrap(), 1);
    assert_eq!(live(&database).await, 1);
    assert_eq!(rows(&database, report.generation).await, rows(&database, 1).await);
    assert_equals_the_log(&database).await;

    // only one is kept
    for _ in 0..2 {
        assert!(rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap().switched);
    }
    assert_eq!(database.number("select count(*) from read_model.generation").await, 2);
    assert_eq!(
        database.number("select count(*) from pg_inherits where inhparent = 'read_model.task'::regclass").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_events_can_be_rebuilt() {
    let database = Database::create().await;
    let report = rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    let running = Running::start(&database, None).await;
    database.append(&Histories::new(1, 1).next(50)).await;
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_anywhere_it_goes_on() {
    let database = filled(2, 9_000).await;
    // a stream longer than a chunk, some that cannot be read, and more after them
    let mut events = vec![event(3, 500, "TaskCreated", CREATED)];
    events.extend((0..25_000).map(|n| event(3, 500, "TaskRenamed", &format!("{{\"title\":\"title {n}\"}}"))));
    events.extend([event(3, 501, "TaskPainted", "{}"), event(3, 501, "TaskStarted", "{}")]);
    events.extend((600..8_600).map(|task| event(9, task, "TaskCreated", CREATED)));
    database.append(&events).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;

    let total = database.number("select position from event_store.head").await;
    let mut runs = 0;
    let mut filled = 0;
    let report = loop {
        // stopped once it has written something more
        let seen = Arc::new(Notify::new());
        let so_far = filled;
        let (pool, tail, told) = (database.pool.clone(), database.tail(), seen.clone());
        let done = Arc::new(std::sync::atomic::AtomicI64::new(0));
        let counted = done.clone();
        let run = tokio::spawn(async move {
            rebuild::run(&pool, &tail, Options { expect_same: true }, move |progress| {
                counted.store(progress.events_done, Ordering::Relaxed);
                if progress.phase == Phase::Fill && progress.events_done > so_far {
                    told.notify_one();
                }
            })
            .await
        });
        tokio::select! {
            () = seen.notified() => {}
            () = async { while !run.is_finished() { tokio::task::yield_now().await } } => {}
        }
        if run.is_finished() {
            break run.await.unwrap().unwrap();
        }
        run.abort();
        let _ = run.await;
        filled = done.load(Ordering::Relaxed);
        runs += 1;
        // the connection's lock goes with its backend
        common::until("the stopped run is gone", || async {
            database
                .number(
                    "select count(*) from pg_stat_activity
                    where datname = current_database() and application_name = 'primetrade rebuild'",
                )
                .await
                == 0
        })
        .await;
    };
    assert!(runs >= 2, "it was stopped {runs} times");
    assert!(report.resumed && report.switched, "{report:?}");
    assert_eq!(report.events, total);
    assert!(report.events_filled < total);
    assert_eq!(report.parked, 2);
    assert_eq!(database.number("select events_done from read_model.generation where state = 'live'").await, total);
    assert_eq!(
        database
            .number(
                "select count(*) from read_model.history h join read_model.projection on live_generation = generation"
            )
            .await,
        total - 2
    );
    assert_equals_the_log(&database).await;
}

async fn events_may_be_appended_meanwhile(feed: Feed) {
    let database = filled_from(feed, 3, 8_000).await;
    let running = Running::start(&database, None).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (log, stopped) = (database.log(), stop.clone());
    let appending = tokio::spawn(async move {
        let mut histories = Histories::new(33, 5);
        while !stopped.load(Ordering::Relaxed) {
            log.append(&histories.next(20)).await;
        }
    });
    // whoever reads the live generation never goes back
    let (pool, stopped) = (database.pool.clone(), stop.clone());
    let reading = tokio::spawn(async move {
        let (mut generations, mut last) = (std::collections::BTreeSet::new(), 0);
        while !stopped.load(Ordering::Relaxed) {
            let (generation, position): (i32, i64) = sqlx::query_as(
                "select live_generation, position from read_model.projection
                join read_model.checkpoint on generation = live_generation",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            assert!(position >= last, "went back from {last} to {position} in generation {generation}");
            generations.insert(generation);
            last = position;
        }
        generations.len()
    });
    for _ in 0..3 {
        let report =
            rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
        assert!(report.switched, "{:#?}", report.differences);
    }
    rebuild::go_back(&database.pool, &database.tail()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    appending.await.unwrap();
    assert_eq!(reading.await.unwrap(), 4);
    caught_up(&database).await;
    running.stop().await;
    assert_equals_the_log(&database).await;
    let events = database.number("select position from event_store.head").await;
    let history =
        "select count(*) from read_model.history h join read_model.projection on live_generation = generation";
    assert_eq!(database.number(history).await, events);
}

async fn what_is_wrong_in_the_live_generation_is_named_and_mended(feed: Feed) {
    let database = filled_from(feed, 4, 2_000).await;
    let same = rows(&database, 1).await;
    // How far another shard has come says nothing about this one.
    database.execute("insert into event_store.head (shard, position) values (1, 0)").await;
    // as an earlier fold would have made them
    let wrongs: [(&str, &'static str); 14] = [
        (
            "task",
            "update read_model.task set priority = (priority + 1) % 4 where ctid = (select min(ctid) from read_model.task where not deleted)",
        ),
        ("task", "update read_model.task set description = 'x' where ctid = (select min(ctid) from read_model.task)"),
        ("task", "delete from read_model.task where ctid = (select max(ctid) from read_model.task)"),
        ("history", "update read_model.history set changes = '{}' where position = 7"),
        ("history", "delete from read_model.history where position = 8"),
        (
            "search",
            "update read_model.search set lexemes = array_to_tsvector(array['tx']) where ctid = (select min(ctid) from read_model.search)",
        ),
        ("search", "delete from read_model.search where ctid = (select max(ctid) from read_model.search)"),
        (
            "change",
            "update read_model.change set tasks = tasks + 1 where ctid = (select min(ctid) from read_model.change)",
        ),
        ("change", "delete from read_model.change where ctid = (select max(ctid) from read_model.change)"),
        (
            "change",
            "insert into read_model.change select generation, tasks, owner_id, gen_random_uuid(), position, last_position, undoes, types from read_model.change limit 1",
        ),
        (
            "owner",
            "update read_model.owner set parked_position = 1 where ctid = (select min(ctid) from read_model.owner)",
        ),
        (
            "task_count",
            "update read_model.task_count set count = count + 1 where ctid = (select min(ctid) from read_model.task_count)",
        ),
        (
            "day_count",
            "update read_model.day_count set completed = completed + 1 where ctid = (select min(ctid) from read_model.day_count)",
        ),
        (
            "parked",
            "insert into read_model.parked (id, generation, shard, position, reason, parked_at, event) values (gen_random_uuid(), 1, 0, 5, 'x', now(), '')",
        ),
    ];
    for (kind, wrong) in wrongs {
        let mut transaction = database.pool.begin().await.unwrap();
        let changed = sqlx::query(wrong).execute(&mut *transaction).await.unwrap().rows_affected();
        transaction.commit().await.unwrap();
        assert_eq!(changed, 1, "{wrong}");
        let report =
            rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
        assert!(!report.switched && report.differences.total > 0, "not found: {wrong}");
        assert!(
            report.differences.examples.iter().any(|difference| difference.kind == kind),
            "{wrong}: {:#?}",
            report.differences.examples
        );
        assert_eq!(live(&database).await, 1);
        assert_eq!(database.number("select count(*) from read_model.generation").await, 1, "nothing is left behind");
    }
    let report = rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched && report.differences.total >= 9, "{:#?}", report.differences);
    assert_eq!(rows(&database, report.generation).await, same);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time() {
    let database = filled(5, 300).await;
    let (pool, tail) = (database.pool.clone(), database.tail());
    let (again_pool, again_tail) = (pool.clone(), tail.clone());
    let second = Arc::new(std::sync::Mutex::new(None));
    let found = second.clone();
    // while the first one waits in its callback, the second one is refused
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(rebuild::run(&pool, &tail, Options::default(), move |_| {
            let mut found = found.lock().unwrap();
            if found.is_none() {
                let (pool, tail) = (again_pool.clone(), again_tail.clone());
                let attempt = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async { rebuild::run(&pool, &tail, Options::default(), |_| {}).await })
                });
                *found = Some(attempt.join().unwrap());
            }
        }))
    })
    .await
    .unwrap()
    .unwrap();
    let second = second.lock().unwrap().take();
    assert!(matches!(second, Some(Err(RebuildError::Running))), "{second:?}");
    assert!(matches!(rebuild::go_back(&database.pool, &database.tail()).await, Ok(1)));
    let database = filled(6, 10).await;
    assert!(matches!(rebuild::go_back(&database.pool, &database.tail()).await, Err(RebuildError::NothingKept)));
}

/// Broken off while it counts: nobody waits for that statement any more, and it would go on all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_that_was_broken_off_has_made_can_be_dropped() {
    let database = filled(11, 1_000).await;
    let same = rows(&database, 1).await;
    let least = rebuild::bytes_min(&database.pool).await.unwrap();
    let takes =
        "select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('read_model.task') where isleaf";
    assert!(least.cast_signed() * 2 > database.number(takes).await, "{least} bytes");

    let mut holder = database.pool.begin().await.unwrap();
    // where it looks while it counts
    sqlx::query("lock table read_model.parked in access exclusive mode").execute(&mut *holder).await.unwrap();
    let (pool, tail) = (database.pool.clone(), database.tail());
    let run = tokio::spawn(async move { rebuild::run(&pool, &tail, Options::default(), |_| {}).await.map(drop) });
    let counts = "select coalesce(max(pid), 0)::bigint from pg_stat_activity
        where datname = current_database() and application_name = 'primetrade rebuild' and wait_event_type = 'Lock'";
    common::until("it counts", || async { database.number(counts).await != 0 }).await;
    let pid = i32::try_from(database.number(counts).await).unwrap();
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    let ended = async {
        common::until("what it did was ended", || async {
            let lives = sqlx::query_scalar("select exists (select from pg_stat_activity where pid = $1)").bind(pid);
            let lives: bool = lives.fetch_one(&database.pool).await.unwrap();
            !lives
        })
        .await;
        holder.rollback().await.unwrap();
    };
    let (discarded, ()) = tokio::join!(rebuild::discard(&database.pool), ended);
    discarded.unwrap();
    let left = "select (select count(*) from read_model.generation where state = 'building')
        + (select count(*) from pg_class where relkind = 'r' and relname ~ '_building$')";
    assert_eq!(database.number(left).await, 0);

    let report = rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
    assert!(report.switched && !report.resumed, "{:#?}", report.differences);
    assert_eq!(rows(&database, report.generation).await, same);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_the_live_projection_go_on_while_the_tables_are_held_by_a_dump() {
    let database = filled(7, 500).await;
    let mut dump = database.pool.begin().await.unwrap();
    sqlx::query("lock table read_model.task, read_model.history in access share mode")
        .execute(&mut *dump)
        .await
        .unwrap();
    let running = Running::start(&database, None).await;
    let report = rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    database.append(&Histories::new(77, 2).next(100)).await;
    caught_up(&database).await;
    dump.rollback().await.unwrap();
    running.stop().await;
    assert_equals_the_log(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_projector_has_run_yet_nothing_is_different() {
    let database = Database::create().await;
    database.append(&Histories::new(8, 2).next(200)).await;
    let report = rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
    assert!(report.switched, "{:#?}", report.differences);
    assert_eq!(database.number("select count(*) from read_model.history").await, report.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_progress_is_told_and_stored() {
    let database = filled(9, 3_000).await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    rebuild::run(&database.pool, &database.tail(), Options::default(), move |progress| {
        telling.lock().unwrap().push(*progress);
    })
    .await
    .unwrap();
    let told = told.lock().unwrap().clone();
    assert!(told.is_sorted_by_key(|progress| progress.events_done));
    assert!(
        told.iter().any(|progress| progress.events_done == progress.events_total && progress.events_per_second > 0)
    );
    let phases: Vec<_> = told.iter().map(|progress| progress.phase.as_str()).collect();
    for phase in ["fill", "index", "catch up", "compare", "switch"] {
        assert!(phases.contains(&phase), "{phase}: {phases:?}");
    }
    assert_eq!(
        database.number("select count(*) from read_model.generation where state = 'live' and events_done = events_total and events_per_second > 0").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_is_made_counted_indexed_and_dropped_with_the_others() {
    let database = filled(10, 500).await;
    rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    for ddl in [
        "create table read_model.toy (generation int not null, owner_id uuid not null, events bigint not null)
            partition by list (generation)",
        "create function read_model.index_toy(suffix text) returns void language plpgsql as $$ begin
            execute format('create unique index on read_model.toy%s (owner_id)', suffix);
        end $$",
        "create function read_model.count_toy(g int) returns void language plpgsql as $$ begin
            insert into read_model.toy_building
            select g, owner_id, count(*) from read_model.history_building group by owner_id;
        end $$",
        "select read_model.add_projected_table('toy')",
    ] {
        database.execute(ddl).await;
    }
    // in the live generation and in the one that is kept
    let indexes = "select count(*) from pg_indexes where tablename in ('toy_1', 'toy_2')";
    assert_eq!(database.number(indexes).await, 2);
    assert_eq!(database.number("select count(*) from read_model.toy").await, 0);

    let report = rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap();
    assert!(report.switched);
    assert_eq!(report.generation, 3);
    let counted = "select count(*) from read_model.toy t join read_model.owner o using (generation, owner_id)
        where generation = 3 and t.events = o.change_counter";
    assert_eq!(
        database.number(counted).await,
        database.number("select count(*) from read_model.owner where generation = 3").await
    );
    assert_eq!(database.number("select count(*) from pg_indexes where tablename = 'toy_3'").await, 1);
    assert_eq!(database.number("select count(*) from pg_class where relname = 'toy_1'").await, 0, "dropped");
    assert_equals_the_log(&database).await;
}

/// Generation 1 is as all migrations have left it, generation 2 as their functions make it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_generation_has_the_indexes_of_one_that_is_made_anew() {
    let database = filled(4, 300).await;
    assert!(rebuild::run(&database.pool, &database.tail(), Options::default(), |_| {}).await.unwrap().switched);
    let differing = r"select count(*) from (
            select made from (
                select right(tablename, 1) as generation,
                    regexp_replace(regexp_replace(indexdef, 'INDEX \S+ ON', 'INDEX ON'), '_[12] USING', ' USING') as made
                from pg_indexes where schemaname = 'read_model' and tablename ~ '_[12]$'
                union all
                select right(relname, 1), left(relname, -1) || coalesce(reloptions::text, '')
                from pg_class where relnamespace = 'read_model'::regnamespace and relkind = 'r' and relname ~ '_[12]$'
            ) as each group by made having count(distinct generation) <> 2
        ) as differing";
    assert_eq!(database.number(differing).await, 0);
}

/// A read has locked one table and asks for another one meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_an_upgrade_waits_to_drop_indexes() {
    const UPGRADE: [&str; 3] = [
        include_str!("../../migrations/read-model/0024_fewer_indexes.sql"),
        include_str!("../../migrations/read-model/0025_drop_task_indexes.sql"),
        include_str!("../../migrations/read-model/0026_drop_search_indexes.sql"),
    ];
    let database = filled(12, 100).await;
    let mut read = database.pool.begin().await.unwrap();
    sqlx::query("set local lock_timeout = '5s'").execute(&mut *read).await.unwrap();
    sqlx::query("select count(*) from read_model.search").execute(&mut *read).await.unwrap();
    let upgrade = async {
        for migration in UPGRADE {
            let mut transaction = database.pool.begin().await.unwrap();
            sqlx::raw_sql(migration).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    };
    let reading = async {
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and query like '-- compatible-since%'";
        common::until("the upgrade waits", || async { database.number(waits).await == 1 }).await;
        sqlx::query("select count(*) from read_model.task").execute(&mut *read).await.unwrap();
        read.commit().await.unwrap();
    };
    tokio::join!(upgrade, reading);
}

/// Else each such change adds an entry to every index of the table.
#[tokio::test(flavor = "multi_thread")]
async fn completing_a_task_changes_no_column_that_an_index_of_tasks_has() {
    let database = Database::create().await;
    // In keys and conditions.
    let others =
        "select count(*) filter (where attname not in ('owner_id', 'task_id', 'created_at', 'deleted', 'title'))
            + abs(count(distinct attname) - 5)
        from pg_depend as d
        join pg_index on indexrelid = d.objid
        join pg_attribute on attrelid = d.refobjid and attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.refobjid = 'read_model.task_1'::regclass";
    assert_eq!(database.number(others).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn which_change_an_event_is_of_is_compared_where_the_live_generation_was_made_with_changes() {
    let database = filled(9, 300).await;
    let compared =
        async || rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
    for (wrong, named) in [
        ("update read_model.history set change_id = gen_random_uuid() where position = 7", "change id"),
        ("update read_model.history set undoes = gen_random_uuid() where position = 8", "undoes"),
    ] {
        database.execute(wrong).await;
        let report = compared().await;
        let examples = &report.differences.examples;
        assert!(!report.switched);
        assert!(examples.iter().any(|found| found.kind == "history" && found.detail.ends_with(named)), "{examples:#?}");
    }
    // as an upgrade finds and leaves it
    database.execute("update read_model.history set change_id = null, undoes = null").await;
    database.execute("update read_model.projected_table set complete_from = 2 where name = 'change'").await;
    let report = compared().await;
    assert!(report.switched, "{:#?}", report.differences);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_live_generation_was_made_without_is_filled_and_not_compared() {
    let database = filled(2, 500).await;
    let complete = rows(&database, 1).await;
    // as an upgrade finds and leaves it
    database.execute("truncate read_model.search_1").await;
    database.execute("update read_model.projected_table set complete_from = 2 where name = 'search'").await;
    let report = rebuild::run(&database.pool, &database.tail(), Options { expect_same: true }, |_| {}).await.unwrap();
    assert!(report.switched, "{:#?}", report.differences);
    assert_eq!(rows(&database, 2).await, complete);
}
