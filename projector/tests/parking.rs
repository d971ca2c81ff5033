//! Events that cannot be applied: parked with what follows in their stream, while everything else goes on; tried again
//! in order when asked.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use access::Role;
use axum::http::{Method, StatusCode};
use common::admin::Admin;
use common::{CREATED, Database, Feed, Running, append, assert_equals_the_log, caught_up, event, rows, until};
use uuid::Uuid;

with_both_feeds!(
    an_unreadable_event_parks_its_task_and_nothing_else,
    what_the_database_refuses_is_narrowed_down_to_its_event,
    what_the_database_refuses_is_found_at_the_beginning_of_the_log_too,
    a_gap_in_a_stream_parks_the_task,
    the_first_event_of_an_owner_can_be_parked,
    a_long_queue_behind_a_parked_event_is_applied_in_several_transactions,
    the_admin_endpoints_are_for_admins_and_page,
);

async fn parked_position(database: &Database, owner: u128) -> Option<i64> {
    sqlx::query_scalar("select parked_position from read_model.owner where owner_id = $1 and generation = 1")
        .bind(Uuid::from_u128(owner))
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

async fn an_unreadable_event_parks_its_task_and_nothing_else(feed: Feed) {
    let database = Database::create_for(feed).await;
    let admin = Admin::of(&database);
    let running = Running::start(&database, None).await;
    database
        .append(&[
            event(1, 1, "TaskCreated", CREATED),                   // 1
            event(1, 2, "TaskCreated", CREATED),                   // 2
            event(1, 1, "TaskPainted", "{}"),                      // 3: unknown
            event(1, 1, "TaskRenamed", r#"{"title":"after it"}"#), // 4: waits
            event(1, 2, "TaskRenamed", r#"{"title":"goes on"}"#),  // 5
            event(2, 1, "TaskCreated", CREATED),                   // 6: another owner's task of the same id
            event(1, 3, "TaskStarted", "{}"),                      // 7: no beginning
        ])
        .await;
    caught_up(&database).await;
    database.append(&[event(1, 1, "TaskCompleted", "{}")]).await; // 8: waits, from a later batch
    caught_up(&database).await;

    let titles: Vec<(String, i64)> =
        sqlx::query_as("select title, version from read_model.task order by owner_id, task_id")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let expected = [("A title", 1), ("goes on", 2), ("A title", 1)];
    assert_eq!(titles, expected.map(|(title, version)| (title.to_owned(), version)));
    assert_eq!(parked_position(&database, 1).await, Some(3));
    assert_eq!(parked_position(&database, 2).await, None);
    assert_eq!(database.number("select revision from read_model.owner order by owner_id limit 1").await, 5);

    let list = admin.get("/api/v1/admin/parked").await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "only what others wait for is listed: {list}");
    assert_eq!(items[0]["type"], "TaskPainted");
    assert_eq!(items[0]["waiting"], 2);
    assert_eq!(items[0]["version"], 2);
    assert!(items[0]["reason"].as_str().unwrap().contains("TaskPainted"));
    assert_eq!(items[1]["waiting"], 0);
    assert_equals_the_log(&database).await; // a rebuild parks the same

    // a retry without a mend leaves everything as it is
    let before = rows(&database, 1).await;
    admin.retry_first().await;
    until("the retry was made", || async {
        database.number("select count(*) from read_model.parked where retry_at is not null").await == 0
    })
    .await;
    assert_eq!(rows(&database, 1).await, before);
    assert_eq!(database.number("select count(*) from read_model.parked").await, 4);

    // mended, it and those behind it are applied in order
    database
        .execute("update event_store.event set type = 'TaskReprioritized', data = '{\"priority\":\"urgent\"}' where position = 3")
        .await;
    let counter = "select change_counter from read_model.owner order by owner_id limit 1";
    let counter_before = database.number(counter).await;
    admin.retry_first().await;
    until("the parked events are applied", || async { parked_position(&database, 1).await == Some(7) }).await;
    assert!(database.number(counter).await > counter_before, "the owner's pages have changed");
    // for the audit events: each retry, and each look at the list
    let acts = "select count(*) from read_model.admin_act where act = 'parked-retried' and detail is not null";
    assert_eq!(database.number(acts).await, 2);
    assert!(database.number("select count(*) from read_model.admin_act where act = 'parked-read'").await >= 3);
    let versions: Vec<i64> =
        sqlx::query_scalar("select version from read_model.history where owner_id = $1 and task_id = $2 order by ctid")
            .bind(Uuid::from_u128(1))
            .bind(Uuid::from_u128(1))
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(database.number("select max(version) from read_model.task where title = 'after it'").await, 4);
    database.append(&[event(1, 1, "TaskReopened", "{}")]).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(database.number("select max(version) from read_model.task where title = 'after it'").await, 5);
    assert_equals_the_log(&database).await;
}

async fn what_the_database_refuses_is_narrowed_down_to_its_event(feed: Feed) {
    let database = Database::create_for(feed).await;
    database.execute("alter table read_model.task_1 add constraint no_poison check (title <> 'poison')").await;
    let mut events: Vec<_> = (1..=300).map(|task| event(1, task, "TaskCreated", CREATED)).collect();
    events.insert(123, event(1, 1000, "TaskCreated", r#"{"title":"poison","priority":"low","tags":[]}"#));
    events.insert(200, event(1, 1000, "TaskStarted", "{}"));
    database.append(&events).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    assert_eq!(database.number("select count(*) from read_model.task").await, 300);
    assert_eq!(database.number("select count(*) from read_model.parked").await, 2);
    assert_eq!(parked_position(&database, 1).await, Some(124));
    assert_eq!(
        database
            .number("select count(*) from read_model.parked where reason like '%no_poison%' and position = 124")
            .await,
        1
    );
    // a retry that the database refuses again
    let admin = Admin::of(&database);
    admin.retry_first().await;
    until("the retry was made", || async {
        database.number("select count(*) from read_model.parked where retry_at is not null").await == 0
    })
    .await;
    assert_eq!(database.number("select count(*) from read_model.parked").await, 2);
    database.execute("alter table read_model.task_1 drop constraint no_poison").await;
    admin.retry_first().await;
    until("all is applied", || async { parked_position(&database, 1).await.is_none() }).await;
    running.stop().await;
    assert_eq!(database.number("select count(*) from read_model.parked").await, 0);
    assert_equals_the_log(&database).await;
}

async fn what_the_database_refuses_is_found_at_the_beginning_of_the_log_too(feed: Feed) {
    let database = Database::create_for(feed).await;
    database.execute("alter table read_model.task_1 add constraint no_poison check (title <> 'poison')").await;
    let poison = event(1, 1, "TaskCreated", r#"{"title":"poison","priority":"low","tags":[]}"#);
    database.append(&[poison, event(1, 2, "TaskCreated", CREATED), event(1, 3, "TaskCreated", CREATED)]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(parked_position(&database, 1).await, Some(1));
    assert_eq!(database.number("select count(*) from read_model.task").await, 2);
}

async fn a_gap_in_a_stream_parks_the_task(feed: Feed) {
    let database = Database::create_for(feed).await;
    database.append(&[event(1, 1, "TaskCreated", CREATED)]).await;
    append(&database.pool, &[event(1, 1, "TaskStarted", "{}"), event(1, 2, "TaskCreated", CREATED)]).await;
    database.execute("update event_store.event set version = 3 where position = 2").await;
    database.log().publish().await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(database.number("select count(*) from read_model.task where version = 1").await, 2);
    assert_eq!(parked_position(&database, 1).await, Some(2));
    assert_eq!(database.number("select count(*) from read_model.parked where reason like '%version 3%'").await, 1);
}

async fn the_first_event_of_an_owner_can_be_parked(feed: Feed) {
    let database = Database::create_for(feed).await;
    database.append(&[event(1, 1, "TaskPainted", "{}")]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    assert_eq!(parked_position(&database, 1).await, Some(1));
    assert_eq!(database.number("select revision from read_model.owner").await, 0);
    assert_equals_the_log(&database).await;
}

async fn a_long_queue_behind_a_parked_event_is_applied_in_several_transactions(feed: Feed) {
    let database = Database::create_for(feed).await;
    let mut events = vec![event(1, 1, "TaskPainted", "{}")];
    events.extend((0..1400).map(|n| event(1, 1, "TaskRenamed", &format!("{{\"title\":\"{n}\"}}"))));
    database.append(&events).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    let sql: &'static str = "update event_store.event set type = 'TaskCreated',
        data = '{\"title\":\"t\",\"priority\":\"low\",\"tags\":[]}' where position = 1";
    database.execute(sql).await;
    Admin::of(&database).retry_first().await;
    until("all is applied", || async { parked_position(&database, 1).await.is_none() }).await;
    running.stop().await;
    assert_eq!(database.number("select version from read_model.task where title = '1399'").await, 1401);
    assert_equals_the_log(&database).await;
}

async fn the_admin_endpoints_are_for_admins_and_page(feed: Feed) {
    let database = Database::create_for(feed).await;
    let admin = Admin::of(&database);
    for path in ["/api/v1/admin/projections", "/api/v1/admin/parked"] {
        assert_eq!(admin.ask(None, Method::GET, path).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(admin.ask(Some(Role::User), Method::GET, path).await.0, StatusCode::FORBIDDEN);
        let unknown = format!("{path}?what=1");
        assert_eq!(admin.ask(Some(Role::Admin), Method::GET, &unknown).await.0, StatusCode::BAD_REQUEST);
    }
    let path = format!("/api/v1/admin/parked/{}/retry", Uuid::nil());
    assert_eq!(admin.ask(Some(Role::User), Method::POST, &path).await.0, StatusCode::FORBIDDEN);
    assert_eq!(admin.ask(Some(Role::Admin), Method::POST, &path).await.0, StatusCode::NOT_FOUND);
    let path = "/api/v1/admin/parked/x/retry";
    assert_eq!(admin.ask(Some(Role::Admin), Method::POST, path).await.0, StatusCode::BAD_REQUEST);

    let events: Vec<_> = (1..=5).map(|task| event(1, task, "TaskPainted", "{}")).collect();
    database.append(&events).await;
    let at = admin.get("/api/v1/admin/projections").await;
    assert_eq!(at["items"][0]["lag_events"], 5, "{at}");
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    running.stop().await;
    let at = admin.get("/api/v1/admin/projections").await;
    let item = &at["items"][0];
    assert_eq!(
        (item["name"].as_str(), item["generation"].as_i64(), item["position"].as_i64(), item["lag_events"].as_i64()),
        (Some("tasks"), Some(1), Some(5), Some(0))
    );
    assert_eq!(item["rebuild"], serde_json::Value::Null);

    let mut seen = Vec::new();
    let mut path = "/api/v1/admin/parked?limit=2".to_owned();
    for _ in 0..4 {
        let page = admin.get(&path).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["position"].as_i64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/admin/parked?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let bad = admin.ask(Some(Role::Admin), Method::GET, "/api/v1/admin/parked?cursor=AAAA").await;
    assert_eq!(bad.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_folded_before_a_retry_elsewhere_is_folded_again() {
    let database = Database::create().await;
    database.append(&[event(1, 1, "TaskPainted", "{}")]).await;
    let running = Running::start(&database, None).await;
    caught_up(&database).await;
    // another process tries again, and succeeds (here: what was parked is simply gone) …
    let mut elsewhere = database.pool.begin().await.unwrap();
    sqlx::query("update read_model.checkpoint set turn = turn + 1").execute(&mut *elsewhere).await.unwrap();
    sqlx::query("delete from read_model.parked").execute(&mut *elsewhere).await.unwrap();
    // … while this one has seen the task parked, and is about to put the next event behind
    database.append(&[event(1, 1, "TaskStarted", "{}")]).await;
    until("the projector waits for the checkpoint", || async {
        database
            .number(
                "select count(*) from pg_stat_activity where datname = current_database()
                and application_name = 'primetrade projector' and wait_event_type = 'Lock'",
            )
            .await
            > 0
    })
    .await;
    elsewhere.commit().await.unwrap();
    caught_up(&database).await;
    running.stop().await;
    let waiting = "select count(*) from read_model.parked where reason is null";
    assert_eq!(database.number(waiting).await, 0, "it waits behind nothing");
    assert_eq!(database.number("select count(*) from read_model.parked where position = 2").await, 1);
}
