//! Events that only others still have are appended as they were, or not at all.

mod common;

use domain::{CommandId, OwnerId, StoredEvent, TaskEvent, TaskId};
use event_store::salvage::{self, Head, SalvageError};
use event_store::{DecidedCommand, Effect, TailReader, is_same_request};
use sqlx::PgPool;
use uuid::Uuid;

use common::{SHARD, command, created, shared, started, unit};

const OWNER: OwnerId = OwnerId(Uuid::from_u128(1));

/// Five events: four tasks are created, the second one is started after that. As it is after a restore that has but the
/// first two; and all of them, as others have seen them.
async fn restored(pool: &PgPool) -> Vec<StoredEvent> {
    let store = common::store(pool).await;
    for (task, version) in [(1, 0), (2, 0), (3, 0), (2, 1), (4, 0)] {
        let (event, effect) = match version {
            0 => (created(), Effect::Created),
            _ => (TaskEvent::TaskStarted {}, Effect::Changed),
        };
        let command = DecidedCommand { effect, ..command(vec![event]) };
        store.append(SHARD, unit(OWNER.0, Uuid::from_u128(task), version, vec![command])).await.expect("appended");
    }
    let seen = TailReader::new(shared(pool), None).read_after(SHARD, 0, 10).await.expect("read");
    for lost in [
        "delete from event_store.command where revision > 2",
        "delete from event_store.event where position > 2",
        "update event_store.head set position = 2",
    ] {
        sqlx::query(lost).execute(pool).await.expect("lost");
    }
    seen
}

async fn log(pool: &PgPool) -> Vec<StoredEvent> {
    TailReader::new(shared(pool), None).read_after(SHARD, 0, 10).await.expect("read")
}

async fn refused(pool: &PgPool, events: &[StoredEvent]) -> SalvageError {
    let error = salvage::append(&shared(pool), SHARD, events).await.expect_err("refused");
    assert_eq!(log(pool).await.len(), 2, "nothing was appended: {error}");
    let head: i64 = sqlx::query_scalar("select position from event_store.head").fetch_one(pool).await.expect("a head");
    assert_eq!(head, 2);
    error
}

#[sqlx::test(migrations = false)]
async fn what_others_have_seen_is_appended_as_it_was(pool: PgPool) {
    let seen = restored(&pool).await;
    let heads = salvage::heads(&shared(&pool)).await.expect("heads");
    let [Head { shard: SHARD, position: 2, last: Some((id, _)) }] = heads[..] else { panic!("{heads:?}") };
    assert_eq!(id, seen[1].event_id);
    salvage::append(&shared(&pool), SHARD, &seen[2..]).await.expect("appended");
    assert_eq!(log(&pool).await, seen);

    let store = started(&pool).await;
    let started = &seen[3];
    let ids = vec![CommandId(started.command_id)];
    let looked = store.look_up(OWNER, started.task_id, 0, ids).await.expect("looked up");
    let (_, outcome) = looked.outcomes[0];
    assert_eq!((outcome.version, outcome.revision, outcome.effect), (2, 4, Effect::Changed));
    assert!(is_same_request(outcome.fingerprint, Uuid::from_u128(77)), "whatever the request was");
}

#[sqlx::test(migrations = false)]
async fn a_command_whose_events_come_in_two_parts_has_the_outcome_of_all(pool: PgPool) {
    let mut seen = restored(&pool).await;
    let (task_id, command_id) = (seen[2].task_id, seen[2].command_id);
    seen[3] = StoredEvent { task_id, command_id, version: 2, ..seen[3].clone() };
    for part in [&seen[2..3], &seen[3..]] {
        salvage::append(&shared(&pool), SHARD, part).await.expect("appended");
    }
    let store = started(&pool).await;
    let looked = store.look_up(OWNER, task_id, 0, vec![CommandId(command_id)]).await.expect("looked up");
    let (_, outcome) = looked.outcomes[0];
    assert_eq!((outcome.version, outcome.revision, outcome.effect), (2, 4, Effect::Created));
}

#[sqlx::test(migrations = false)]
async fn nothing_is_appended_that_does_not_follow(pool: PgPool) {
    let seen = restored(&pool).await;
    let mut hole = seen[2..].to_vec();
    hole.remove(1);
    for events in [&seen[1..], &seen[3..], &hole] {
        let error = refused(&pool, events).await;
        assert!(matches!(error, SalvageError::NotNext { shard: SHARD, head: 2, .. }), "{error}");
    }
    // the start of a task that was never created
    let mut other = seen[2..].to_vec();
    other[1].task_id = TaskId(Uuid::from_u128(9));
    let error = refused(&pool, &other).await;
    assert!(matches!(error, SalvageError::NotNextOfTask(4)), "{error}");
    // a second first version of a task
    let mut other = seen[2..].to_vec();
    other[1].version = 1;
    let error = refused(&pool, &other).await;
    assert!(matches!(error, SalvageError::Database(_)), "{error}");
}

#[sqlx::test(migrations = false)]
async fn nothing_is_published_under_a_lower_number_than_others_have_seen(pool: PgPool) {
    event_store::migrate(&shared(&pool)).await.expect("migrations run");
    let publication = async || {
        sqlx::query_scalar::<_, i64>("select publication from event_store.relay")
            .fetch_one(&pool)
            .await
            .expect("a relay")
    };
    sqlx::query("update event_store.relay set publication = 3, epoch = 7").execute(&pool).await.expect("a backup");
    for (seen, now) in [(2, 3), (3, 3), (5, 5)] {
        salvage::publish_at_least_under(&shared(&pool), seen).await.expect("raised");
        assert_eq!(publication().await, now);
    }
    let epoch: i64 = sqlx::query_scalar("select epoch from event_store.relay").fetch_one(&pool).await.expect("a relay");
    assert_eq!(epoch, 8, "whoever publishes at the moment has to begin anew");
}
