//! Purge on a log: what was deleted 30 days ago, and nothing else.

mod common;

use std::time::{Duration, Instant};

use commands::{CommandRequest, ExecuteError, Executor, ExpectedVersion};
use common::{caller, create, executor};
use domain::{OwnerId, Refusal, TaskCommand, TaskId};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn execute(executor: &Executor, owner: OwnerId, task: u128, command: TaskCommand) -> Result<(), ExecuteError> {
    let task_id = TaskId(Uuid::from_u128(task));
    let request =
        CommandRequest { task_id, command, identity: None, expected: ExpectedVersion::Any, occurred_at: None };
    executor.execute(&caller(owner), request).await.map(drop)
}

/// As if all of it had been recorded so long ago.
async fn days_ago(pool: &PgPool, days: i32) {
    let age = "update event_store.event set recorded_at = now() - make_interval(days => $1)";
    sqlx::query(age).bind(days).execute(pool).await.expect("aged");
}

/// Lets copies purge until that is done.
async fn purge_until(copies: &[Executor], is_done: impl AsyncFn() -> bool) {
    let stop = CancellationToken::new();
    let running: Vec<_> = copies.iter().map(|copy| tokio::spawn(copy.clone().purge(stop.clone()))).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_done().await {
        assert!(Instant::now() < deadline, "purged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    for copy in running {
        copy.await.expect("ended");
    }
}

/// Up to where all deletions are dealt with.
async fn position(pool: &PgPool) -> i64 {
    let position = "select coalesce(max(position), 0) from event_store.purge";
    sqlx::query_scalar(position).fetch_one(pool).await.expect("a position")
}

/// Lets copies purge until all deletions are dealt with that are old enough, up to that position.
async fn purge(pool: &PgPool, copies: &[Executor], until: i64) {
    purge_until(copies, async || position(pool).await >= until).await;
}

async fn purged(pool: &PgPool) -> Vec<u128> {
    let purged = "select task_id from event_store.event where type = 'TaskPurged' order by task_id";
    let ids: Vec<Uuid> = sqlx::query_scalar(purged).fetch_all(pool).await.expect("ids");
    ids.iter().map(Uuid::as_u128).collect()
}

#[sqlx::test(migrations = false)]
async fn what_was_deleted_thirty_days_ago_is_purged_once(pool: PgPool) {
    let copies = [executor(&pool).await, executor(&pool).await];
    let (owner, other) = (OwnerId(Uuid::from_u128(1)), OwnerId(Uuid::from_u128(2)));
    let here = &copies[0];
    for task in 1..=4 {
        execute(here, owner, task, create()).await.expect("created");
    }
    execute(here, other, 5, create()).await.expect("created");
    for (owner, task) in [(owner, 1), (owner, 2), (owner, 3), (other, 5)] {
        execute(here, owner, task, TaskCommand::Delete).await.expect("deleted");
    }
    execute(here, owner, 3, TaskCommand::Restore).await.expect("restored");
    days_ago(&pool, 31).await;
    // Recorded now: it stays.
    execute(here, owner, 4, TaskCommand::Delete).await.expect("deleted");
    purge(&pool, &copies, 9).await;
    assert_eq!(purged(&pool).await, [1, 2, 5]);
    let restored = execute(&copies[1], owner, 1, TaskCommand::Restore).await;
    assert_eq!(restored, Err(ExecuteError::Refused(Refusal::Purged)));
    let actors: Vec<(String, Option<Uuid>)> =
        sqlx::query_as("select distinct actor_type, actor_id from event_store.event where type = 'TaskPurged'")
            .fetch_all(&pool)
            .await
            .expect("actors");
    assert_eq!(actors, [("system".to_owned(), None)]);
    // The rest of the owner's tasks are as they were.
    execute(here, owner, 3, TaskCommand::Start).await.expect("started");
    execute(here, owner, 4, TaskCommand::Restore).await.expect("restored");
    // A task that was deleted, restored and deleted again is purged for its last deletion.
    execute(here, owner, 3, TaskCommand::Delete).await.expect("deleted");
    days_ago(&pool, 31).await;
    let head: i64 = sqlx::query_scalar("select position from event_store.head").fetch_one(&pool).await.expect("a head");
    purge(&pool, &copies, head).await;
    assert_eq!(purged(&pool).await, [1, 2, 3, 5]);
}

/// What cannot be read may be readable after an update.
#[sqlx::test(migrations = false)]
async fn a_task_that_cannot_be_read_holds_up_no_other_and_is_purged_once_it_can(pool: PgPool) {
    let here = executor(&pool).await;
    let owner = OwnerId(Uuid::from_u128(1));
    for task in 1..=3 {
        execute(&here, owner, task, create()).await.expect("created");
    }
    for task in 1..=3 {
        execute(&here, owner, task, TaskCommand::Delete).await.expect("deleted");
    }
    days_ago(&pool, 31).await;
    let is = async |name: &'static str| {
        let change = "update event_store.event set type = $1 where position = 2";
        sqlx::query(change).bind(name).execute(&pool).await.expect("changed");
    };
    let left = async || {
        let left = "select position from event_store.purge_left order by position";
        sqlx::query_scalar::<_, i64>(left).fetch_all(&pool).await.expect("positions")
    };
    is("TaskFrobbed").await;
    purge(&pool, &[executor(&pool).await], 6).await;
    assert_eq!((purged(&pool).await, left().await), (vec![1, 3], vec![5]), "all is dealt with but the second");
    is("TaskCreated").await;
    purge_until(&[executor(&pool).await, executor(&pool).await], async || left().await.is_empty()).await;
    assert_eq!(purged(&pool).await, [1, 2, 3]);
}
