//! Undo on a log: by several copies at once, of what is older than changes, and begun again.

use backends::database::{self, Pool};
use commands::{Caller, CommandIdentity, CommandRequest, Executor, ExpectedVersion, Touched, Undone};
use domain::{Actor, ActorType, CommandId, NewTask, OwnerId, Priority, Tags, TaskCommand, TaskId, TaskPatch, Title};
use event_store::EventStore;
use process::clock::new_id;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

async fn executor(pool: &PgPool) -> Executor {
    event_store::migrate(&shared(pool)).await.expect("migrations run");
    let (store, mut tasks) = EventStore::start(shared(pool)).await.expect("the store starts");
    tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
    Executor::new(store)
}

/// A request of its own, and so a change.
fn caller(owner: OwnerId) -> Caller {
    Caller {
        owner,
        shard: 0,
        actor: Actor { actor_type: ActorType::User, id: Some(owner.0) },
        correlation_id: "test".into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        change_id: new_id(),
        history: false,
    }
}

fn create() -> TaskCommand {
    let title = Title::parse("a").expect("a title");
    let (tags, priority) = (Tags::new(), Priority::Medium);
    TaskCommand::Create(Box::new(NewTask { title, description: None, priority, due_at: None, tags, rank: None }))
}

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
async fn copies_that_undo_the_same_lead_each_task_back_once(pool: PgPool) {
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
    assert_eq!(store.tasks_of_change(owner, created_two, 10).await.expect("an answer"), [two]);
    assert_eq!(store.tasks_of_change(stranger, renamed, 10).await.expect("an answer"), []);
    // What is older than changes is one of its command.
    let command: Uuid =
        sqlx::query_scalar("update event_store.event set change_id = null where change_id = $1 returning command_id")
            .bind(renamed)
            .fetch_one(&pool)
            .await
            .expect("an event");
    assert_eq!(store.tasks_of_change(owner, renamed, 10).await.expect("an answer"), []);
    assert_eq!(store.tasks_of_change(owner, command, 10).await.expect("an answer"), [two]);
    let undone = executor.undo(&caller(owner), command, touched(&[two])).await;
    assert!(matches!(undone.as_slice(), [Ok(Undone { already: false, .. })]), "{undone:?}");
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
