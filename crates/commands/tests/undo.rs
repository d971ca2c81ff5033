//! Undo on a log: by several copies at once, of what is older than changes, and begun again.

mod common;

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use commands::{CommandIdentity, CommandRequest, Executor, ExpectedVersion, Touched, Undone};
use common::{caller, create, executor};
use domain::{CommandId, OwnerId, TaskCommand, TaskId, TaskPatch, Title};
use sqlx::PgPool;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Longer than anything takes that is bound to happen.
const SURELY: Duration = Duration::from_secs(20);

fn rename(title: &str) -> TaskCommand {
    TaskCommand::Patch(Box::new(TaskPatch { title: Title::parse(title).ok(), ..TaskPatch::default() }))
}

/// One change of all these tasks.
async fn change(executor: &Executor, owner: OwnerId, tasks: &[TaskId], command: &TaskCommand) -> Uuid {
    let caller = caller(owner);
    let requests = tasks.iter().map(|task_id| CommandRequest {
        task_id: *task_id,
        command: command.clone(),
        identity: None,
        expected: ExpectedVersion::Any,
        occurred_at: None,
    });
    for outcome in executor.execute_all(&caller, requests.collect()).await {
        outcome.expect("accepted");
    }
    caller.change_id
}

fn touched(tasks: &[TaskId]) -> Vec<Touched> {
    tasks.iter().map(|task_id| Touched { task_id: *task_id, identity: None }).collect()
}

async fn count_events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from event_store.event").fetch_one(pool).await.expect("a count")
}

#[sqlx::test(migrations = false)]
async fn copies_that_undo_the_same_revert_each_task_once(pool: PgPool) {
    let copies = [executor(&pool).await, executor(&pool).await];
    let owner = OwnerId(Uuid::new_v4());
    let tasks: Vec<TaskId> = (0..50).map(|_| TaskId(Uuid::new_v4())).collect();
    change(&copies[0], owner, &tasks, &create()).await;
    let renamed = change(&copies[1], owner, &tasks, &rename("b")).await;
    let callers = [caller(owner), caller(owner)];
    let (here, there) = tokio::join!(
        copies[0].undo(&callers[0], renamed, touched(&tasks)),
        copies[1].undo(&callers[1], renamed, touched(&tasks)),
    );
    for (here, there) in here.into_iter().zip(there) {
        let (here, there) = (here.expect("undone"), there.expect("undone"));
        assert_eq!(here.accepted.version, 3);
        assert!(here.already != there.already, "one of both: {here:?} {there:?}");
    }
    assert_eq!(count_events(&pool).await, 150);
    assert_eq!(copies[0].is_undone(&callers[0], renamed, &tasks).await, Ok(true));
    // What a copy still has in its cache is no obstacle.
    change(&copies[0], owner, &tasks, &rename("c")).await;
    assert_eq!(count_events(&pool).await, 200);
}

#[sqlx::test(migrations = false)]
async fn the_tasks_of_a_change_are_found_in_its_order(pool: PgPool) {
    let executor = executor(&pool).await;
    let (owner, stranger) = (OwnerId(Uuid::new_v4()), OwnerId(Uuid::new_v4()));
    let [one, two] = [TaskId(Uuid::from_u128(1)), TaskId(Uuid::from_u128(2))];
    let created_two = change(&executor, owner, &[two], &create()).await;
    change(&executor, owner, &[one], &create()).await;
    let store = executor.store();
    let renamed = change(&executor, owner, &[two], &rename("b")).await;
    let tasks = async |owner, change| store.tasks_of_change(owner, change, 10).await.expect("an answer").task_ids;
    assert_eq!(tasks(owner, created_two).await, [two]);
    assert_eq!(tasks(stranger, renamed).await, []);
    // What is older than changes is one of its command.
    let command: Uuid =
        sqlx::query_scalar("update event_store.event set change_id = null where change_id = $1 returning command_id")
            .bind(renamed)
            .fetch_one(&pool)
            .await
            .expect("an event");
    assert_eq!(tasks(owner, renamed).await, []);
    assert_eq!(tasks(owner, command).await, [two]);
    let undone = executor.undo(&caller(owner), command, touched(&[two])).await;
    assert!(matches!(undone.as_slice(), [Ok(Undone { already: false, .. })]), "{undone:?}");
}

#[sqlx::test(migrations = false)]
async fn a_change_counts_as_being_made_until_it_is_whole(pool: PgPool) {
    let executor = executor(&pool).await;
    let caller = caller(OwnerId(Uuid::new_v4()));
    let of = async |owner| {
        let looked = executor.store().tasks_of_change(owner, caller.change_id, 10).await;
        looked.expect("an answer").is_being_made
    };
    let until_it_is = async || {
        while !of(caller.owner).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let work = async {
        assert!(of(caller.owner).await);
        assert!(!of(OwnerId(Uuid::new_v4())).await, "nothing of a stranger's");
        // as after a crash of the database, which keeps no lease
        sqlx::query("delete from event_store.batch_lease").execute(&pool).await.expect("deleted");
        until_it_is().await;
    };
    assert_eq!(timeout(SURELY, executor.make_change(&caller, work)).await, Ok(Ok(())));
    assert!(!of(caller.owner).await);
    // as if the process had died with it
    tokio::select! {
        never = executor.make_change(&caller, pending::<Infallible>()) => panic!("{never:?}"),
        began = timeout(SURELY, until_it_is()) => assert_eq!(began, Ok(())),
    }
    assert!(of(caller.owner).await);
    sqlx::query("update event_store.batch_lease set expires_at = now()").execute(&pool).await.expect("expired");
    assert!(!of(caller.owner).await);
}

#[sqlx::test(migrations = false)]
async fn changes_are_found_in_the_order_of_their_first_events(pool: PgPool) {
    let executor = executor(&pool).await;
    let (owner, stranger) = (OwnerId(Uuid::new_v4()), OwnerId(Uuid::new_v4()));
    let [one, two] = [TaskId(Uuid::from_u128(1)), TaskId(Uuid::from_u128(2))];
    let created = change(&executor, owner, &[one, two], &create()).await;
    change(&executor, stranger, &[one], &create()).await;
    let renamed = change(&executor, owner, &[two], &rename("b")).await;
    let last = change(&executor, owner, &[one, two], &rename("c")).await;
    // As if the first one had come in two parts, and the second one were older than changes.
    let later_part = "update event_store.event set change_id = $1 where change_id = $2 and task_id = $3";
    sqlx::query(later_part).bind(created).bind(last).bind(two.0).execute(&pool).await.expect("moved");
    let command = "update event_store.event set change_id = null where change_id = $1 returning command_id";
    let command: Uuid = sqlx::query_scalar(command).bind(renamed).fetch_one(&pool).await.expect("an event");

    let store = executor.store();
    let (mut ids, mut after) = (Vec::new(), 0);
    while let [(id, position)] = store.change_ids_after(owner, after, i64::MAX, 1).await.expect("an answer")[..] {
        assert!(position > after);
        ids.push(id);
        after = position;
    }
    assert_eq!(ids, [created, command, last]);
    let found = async |until| {
        let changes = store.changes(owner, &ids, until).await.expect("an answer");
        changes.into_iter().map(|change| (change.id, change.tasks, change.events, change.types)).collect::<Vec<_>>()
    };
    let change = |id, tasks, events, types: &str| (id, tasks, events, types.to_owned());
    let expected = [
        change(created, 2, 3, r#"{"TaskCreated": 2, "TaskRenamed": 1}"#),
        change(command, 1, 1, r#"{"TaskRenamed": 1}"#),
        change(last, 1, 1, r#"{"TaskRenamed": 1}"#),
    ];
    assert_eq!(found(i64::MAX).await, expected);
    assert_eq!(found(2).await, [change(created, 2, 2, r#"{"TaskCreated": 2}"#)]);
}

#[sqlx::test(migrations = false)]
async fn an_undo_that_was_begun_is_carried_on(pool: PgPool) {
    let executor = executor(&pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let tasks: Vec<TaskId> = (0..4).map(|_| TaskId(Uuid::new_v4())).collect();
    change(&executor, owner, &tasks, &create()).await;
    let renamed = change(&executor, owner, &tasks, &rename("b")).await;
    let caller = caller(owner);
    let keyed: Vec<Touched> = tasks
        .iter()
        .map(|task_id| {
            let identity = CommandIdentity { command_id: CommandId(Uuid::new_v4()), fingerprint: Uuid::nil() };
            Touched { task_id: *task_id, identity: Some(identity) }
        })
        .collect();
    let first = executor.undo(&caller, renamed, keyed[..2].to_vec()).await;
    let all = executor.undo(&caller, renamed, keyed).await;
    for (first, again) in first.into_iter().zip(&all[..2]) {
        let (first, again) = (first.expect("undone"), again.clone().expect("replayed"));
        assert!(again.accepted.replayed && !again.already);
        assert_eq!(
            (again.accepted.version, again.accepted.revision),
            (first.accepted.version, first.accepted.revision)
        );
        assert_eq!(again.accepted.change_id, first.accepted.change_id);
    }
    assert!(all.iter().all(|undone| undone.as_ref().is_ok_and(|undone| undone.accepted.change_id.is_some())));
    assert_eq!(count_events(&pool).await, 12);
}
