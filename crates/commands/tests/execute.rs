//! The executor on a real Postgres: several copies with caches of their own, equal commands at once, collisions.

mod common;

use std::collections::HashSet;

use commands::{Accepted, Caller, CommandIdentity, CommandRequest, Effect, ExecuteError, ExpectedVersion};
use common::executor;
use domain::{CommandId, NewTask, OwnerId, Priority, Tag, Tags, TaskCommand, TaskId, TaskPatch, Title};
use futures_util::future::join_all;
use sqlx::PgPool;
use uuid::Uuid;

fn caller() -> Caller {
    common::caller(OwnerId(Uuid::new_v4()))
}

fn title(text: &str) -> Title {
    Title::parse(text).expect("a title")
}

fn tag(text: &str) -> Tags {
    Tags::from([Tag::parse(text).expect("a tag")])
}

fn create(text: &str) -> TaskCommand {
    TaskCommand::Create(Box::new(NewTask {
        title: title(text),
        description: None,
        priority: Priority::Medium,
        due_at: None,
        tags: Tags::new(),
        rank: None,
    }))
}

fn rename(text: &str) -> TaskCommand {
    TaskCommand::Patch(Box::new(TaskPatch { title: Some(title(text)), ..TaskPatch::default() }))
}

fn request(task_id: TaskId, command: TaskCommand) -> CommandRequest {
    CommandRequest { task_id, command, identity: None, expected: ExpectedVersion::Any, occurred_at: None }
}

fn new_task_id() -> TaskId {
    TaskId(Uuid::new_v4())
}

fn identity(fingerprint: u128) -> Option<CommandIdentity> {
    Some(CommandIdentity { command_id: CommandId(Uuid::new_v4()), fingerprint: Uuid::from_u128(fingerprint) })
}

async fn count_events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from event_store.event").fetch_one(pool).await.expect("a count")
}

async fn versions(pool: &PgPool, task_id: TaskId) -> Vec<i64> {
    sqlx::query_scalar("select version from event_store.event where task_id = $1 order by position")
        .bind(task_id.0)
        .fetch_all(pool)
        .await
        .expect("versions")
}

#[sqlx::test(migrations = false)]
async fn a_thousand_equal_requests_at_once_have_one_effect_and_one_answer(pool: PgPool) {
    let copies = [executor(&pool).await, executor(&pool).await];
    let caller = caller();
    let identity = identity(1);
    let requests = (0..1_000).map(|number| {
        // As HTTP does it: each request of the thousand is given a task id of its own.
        let request = CommandRequest { identity, ..request(new_task_id(), create("once")) };
        copies[number % 2].execute_new(&caller, request)
    });
    let answers: Vec<Accepted> = join_all(requests).await.into_iter().map(|answer| answer.expect("accepted")).collect();
    let distinct: HashSet<_> =
        answers.iter().map(|answer| (answer.effect, answer.task_id, answer.version, answer.revision)).collect();
    assert_eq!(distinct.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert_eq!(count_events(&pool).await, 1);
}

#[sqlx::test(migrations = false)]
async fn fifty_writers_on_one_task_all_succeed(pool: PgPool) {
    let copies = [executor(&pool).await, executor(&pool).await];
    let (caller, task_id) = (caller(), new_task_id());
    copies[0].execute(&caller, request(task_id, create("shared"))).await.expect("created");
    let writers = (0..50).map(|number| {
        let rename = request(task_id, rename(&format!("name {number}")));
        copies[usize::from(number >= 40)].execute(&caller, rename)
    });
    for answer in join_all(writers).await {
        answer.expect("accepted");
    }
    assert_eq!(versions(&pool, task_id).await, (1..=51).collect::<Vec<i64>>());
}

#[sqlx::test(migrations = false)]
async fn a_stale_cache_never_gives_a_wrong_answer(pool: PgPool) {
    let [here, there] = [executor(&pool).await, executor(&pool).await];
    let (caller, task_id) = (caller(), new_task_id());
    here.execute(&caller, request(task_id, create("shared"))).await.expect("created");
    there.execute(&caller, request(task_id, TaskCommand::Start)).await.expect("started");
    // `here` still holds the task as pending, version 1.
    let started = here.execute(&caller, request(task_id, TaskCommand::Start)).await.expect("nothing to do");
    assert_eq!((started.version, started.events), (2, 0));
    there.execute(&caller, request(task_id, TaskCommand::Complete)).await.expect("completed");
    let refused = here.execute(&caller, request(task_id, TaskCommand::Cancel)).await;
    assert!(matches!(refused, Err(ExecuteError::Refused(_))), "{refused:?}");
    there.execute(&caller, request(task_id, TaskCommand::Reopen)).await.expect("reopened");
    // Refused on what `here` holds (completed), allowed on what is.
    here.execute(&caller, request(task_id, TaskCommand::Start)).await.expect("started again");
    let stale = CommandRequest { expected: ExpectedVersion::OneOf(vec![4]), ..request(task_id, rename("x")) };
    assert_eq!(there.execute(&caller, stale).await, Err(ExecuteError::StaleVersion { version: 5 }));
    there.execute(&caller, request(task_id, TaskCommand::Delete)).await.expect("deleted");
    assert_eq!(here.execute(&caller, request(task_id, rename("x"))).await, Err(ExecuteError::NotFound));
    let again = here.execute(&caller, request(task_id, TaskCommand::Delete)).await.expect("deleted again");
    assert_eq!((again.effect, again.events), (Effect::Deleted, 0));
    assert_eq!(versions(&pool, task_id).await, [1, 2, 3, 4, 5, 6]);
}

#[sqlx::test(migrations = false)]
async fn a_known_key_replays_whatever_has_happened_since(pool: PgPool) {
    let [here, there] = [executor(&pool).await, executor(&pool).await];
    let (caller, task_id) = (caller(), new_task_id());
    here.execute(&caller, request(task_id, create("shared"))).await.expect("created");
    let complete = CommandRequest { identity: identity(1), ..request(task_id, TaskCommand::Complete) };
    let noop = CommandRequest { identity: identity(2), ..request(task_id, TaskCommand::Complete) };
    let first = here.execute(&caller, complete.clone()).await.expect("completed");
    let nothing = here.execute(&caller, noop.clone()).await.expect("nothing to do");
    assert_eq!((nothing.version, nothing.revision, nothing.events), (first.version, first.revision, 0));
    here.execute(&caller, request(task_id, TaskCommand::Delete)).await.expect("deleted");
    for executor in [&here, &there] {
        for (sent, answer) in [(&complete, first), (&noop, nothing)] {
            let replayed = executor.execute(&caller, sent.clone()).await.expect("replayed, though it is 404 by now");
            assert_eq!(replayed, Accepted { replayed: true, events: 0, ..answer });
        }
        let other = complete.identity.map(|identity| CommandIdentity { fingerprint: Uuid::from_u128(9), ..identity });
        let reused = CommandRequest { identity: other, ..complete.clone() };
        assert_eq!(executor.execute(&caller, reused).await, Err(ExecuteError::IdentityReused));
    }
}

#[sqlx::test(migrations = false)]
async fn a_refused_command_leaves_its_key_free(pool: PgPool) {
    let executor = executor(&pool).await;
    let (caller, task_id) = (caller(), new_task_id());
    let start = CommandRequest { identity: identity(1), ..request(task_id, TaskCommand::Start) };
    assert_eq!(executor.execute(&caller, start.clone()).await, Err(ExecuteError::NotFound));
    executor.execute(&caller, request(task_id, create("now it is there"))).await.expect("created");
    let started = executor.execute(&caller, start).await.expect("started");
    assert_eq!((started.version, started.replayed), (2, false));
}

#[sqlx::test(migrations = false)]
async fn an_id_may_be_used_again_with_the_same_content_only(pool: PgPool) {
    let executor = executor(&pool).await;
    let (caller, task_id) = (caller(), new_task_id());
    let created = executor.execute(&caller, request(task_id, create("mine"))).await.expect("created");
    assert_eq!(created.effect, Effect::Created);
    executor.execute(&caller, request(task_id, rename("changed"))).await.expect("renamed");
    let same = executor.execute(&caller, request(task_id, create("mine"))).await.expect("the same task");
    assert_eq!((same.effect, same.version, same.events), (Effect::Changed, 2, 0));
    let other = executor.execute(&caller, request(task_id, create("changed"))).await;
    assert_eq!(other, Err(ExecuteError::Refused(domain::Refusal::IdTaken)));
    // The same id under another owner is another task.
    let elsewhere = self::caller();
    assert_eq!(
        executor.execute(&elsewhere, request(task_id, create("theirs"))).await.expect("created").effect,
        Effect::Created
    );
}

#[sqlx::test(migrations = false)]
async fn a_batch_decides_each_command_on_its_own_and_in_order(pool: PgPool) {
    let executor = executor(&pool).await;
    let caller = caller();
    let [a, b] = [new_task_id(), new_task_id()];
    let twice = identity(5);
    let requests = vec![
        request(a, create("a")),
        request(b, TaskCommand::Start),
        request(a, TaskCommand::Complete),
        request(b, create("b")),
        request(a, TaskCommand::Start),
        CommandRequest { identity: twice, ..request(b, TaskCommand::Tag(tag("x"))) },
        request(a, TaskCommand::Complete),
        CommandRequest { identity: twice, ..request(b, TaskCommand::Tag(tag("x"))) },
        request(b, TaskCommand::Untag(tag("x"))),
        CommandRequest { expected: ExpectedVersion::OneOf(vec![1]), ..request(b, TaskCommand::Start) },
    ];
    let outcomes = executor.execute_all(&caller, requests).await;
    let short: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map(|accepted| (accepted.effect, accepted.version, accepted.replayed)))
        .collect();
    assert_eq!(short[0], Ok((Effect::Created, 1, false)));
    assert_eq!(short[1], Err(&ExecuteError::NotFound));
    assert_eq!(short[2], Ok((Effect::Changed, 2, false)));
    assert_eq!(short[3], Ok((Effect::Created, 1, false)));
    assert!(matches!(short[4], Err(ExecuteError::Refused(_))));
    assert_eq!(short[5], Ok((Effect::Changed, 2, false)));
    assert_eq!(short[6], Ok((Effect::Changed, 2, false)));
    assert_eq!(short[7], Ok((Effect::Changed, 2, true)));
    assert_eq!(short[8], Ok((Effect::Changed, 3, false)));
    assert_eq!(short[9], Err(&ExecuteError::StaleVersion { version: 3 }));
    // Each accepted revision is the position of that version's event.
    for accepted in outcomes.iter().flatten() {
        let position: i64 =
            sqlx::query_scalar("select position from event_store.event where task_id = $1 and version = $2")
                .bind(accepted.task_id.0)
                .bind(accepted.version)
                .fetch_one(&pool)
                .await
                .expect("the event of the version");
        assert_eq!(accepted.revision, position, "{accepted:?}");
    }
}

#[sqlx::test(migrations = false)]
async fn an_id_used_again_in_its_own_batch_is_decided_in_order(pool: PgPool) {
    let copy = executor(&pool).await;
    let (caller, task_id) = (caller(), new_task_id());
    let [once, other] = [identity(1), identity(2)];
    let reused = once.map(|identity| CommandIdentity { fingerprint: Uuid::from_u128(9), ..identity });
    let with = |identity, command| CommandRequest { identity, ..request(task_id, command) };
    let requests = vec![
        with(once, TaskCommand::Start),
        with(once, TaskCommand::Start),
        with(None, create("now it is there")),
        // what was refused has left its id free
        with(once, TaskCommand::Start),
        with(once, TaskCommand::Start),
        with(reused, rename("b")),
        with(other, TaskCommand::Complete),
        with(other, TaskCommand::Complete),
        // nothing to do, which is an outcome too
        with(None, TaskCommand::Complete),
    ];
    let outcomes = copy.execute_all(&caller, requests.clone()).await;
    assert_eq!(outcomes[..2], [Err(ExecuteError::NotFound), Err(ExecuteError::NotFound)]);
    assert_eq!(outcomes[5], Err(ExecuteError::IdentityReused));
    let accepted: Vec<_> = [2, 3, 4, 6, 7, 8]
        .map(|number| outcomes[number].clone().expect("accepted"))
        .iter()
        .map(|accepted| (accepted.effect, accepted.version, accepted.revision, accepted.replayed, accepted.events))
        .collect();
    let expected = [
        (Effect::Created, 1, 1, false, 1),
        (Effect::Changed, 2, 2, false, 1),
        (Effect::Changed, 2, 2, true, 0),
        (Effect::Changed, 3, 3, false, 1),
        (Effect::Changed, 3, 3, true, 0),
        (Effect::Changed, 3, 3, false, 0),
    ];
    assert_eq!(accepted, expected);
    assert_eq!(count_events(&pool).await, 3);
    // The whole of it again, at a copy that knows nothing: what has an id and succeeded is replayed.
    let again = executor(&pool).await.execute_all(&caller, requests).await;
    let replayed = again.iter().filter(|outcome| outcome.as_ref().is_ok_and(|accepted| accepted.replayed)).count();
    assert_eq!((replayed, count_events(&pool).await), (6, 3));
}

/// A deadline that is far off for what grows with the number of lines, and that its square does not meet.
#[sqlx::test(migrations = false)]
async fn one_id_in_all_lines_of_a_batch_holds_nobody_up(pool: PgPool) {
    const LINES: usize = 10_000;
    let copy = executor(&pool).await;
    let (caller, once) = (caller(), identity(1));
    let refused = (0..LINES).map(|_| CommandRequest { identity: once, ..request(new_task_id(), TaskCommand::Start) });
    let task_id = new_task_id();
    let refused: Vec<_> = refused.map(|request| CommandRequest { task_id, ..request }).collect();
    let twice_each = (0..LINES).map(|number| CommandRequest {
        identity: Some(CommandIdentity {
            command_id: CommandId(Uuid::from_u128(number as u128 / 2 + 1)),
            fingerprint: Uuid::nil(),
        }),
        ..request(new_task_id(), TaskCommand::Delete)
    });
    let created = copy.execute(&caller, request(new_task_id(), create("a"))).await.expect("created").task_id;
    let twice_each: Vec<_> = twice_each
        .enumerate()
        .map(|(number, request)| CommandRequest {
            task_id: created,
            command: rename(&format!("name {}", number / 2)),
            ..request
        })
        .collect();
    let watch = async {
        let mut longest = std::time::Duration::ZERO;
        loop {
            let began = std::time::Instant::now();
            tokio::task::yield_now().await;
            longest = longest.max(began.elapsed());
            if longest > std::time::Duration::from_secs(1) {
                return longest;
            }
        }
    };
    let work = async {
        let outcomes = copy.execute_all(&caller, refused).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Err(ExecuteError::NotFound)));
        for replayed in [LINES / 2, LINES] {
            let outcomes = copy.execute_all(&caller, twice_each.clone()).await;
            let replays = outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|accepted| accepted.replayed));
            assert_eq!(replays.count(), replayed);
        }
        // and where the outcomes come from the store
        let outcomes = executor(&pool).await.execute_all(&caller, twice_each).await;
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|accepted| accepted.replayed)));
    };
    tokio::select! {
        () = work => {}
        longest = watch => panic!("others waited for {longest:?}"),
    }
    assert_eq!(versions(&pool, created).await.len(), 1 + LINES / 2);
}

#[sqlx::test(migrations = false)]
async fn a_large_batch_over_few_tasks_is_gapless(pool: PgPool) {
    let executor = executor(&pool).await;
    let caller = caller();
    let tasks: Vec<TaskId> = (0..7).map(|_| new_task_id()).collect();
    let requests = (0..5_000usize)
        .map(|number| {
            let command = if number < tasks.len() { create("t") } else { rename(&format!("name {number}")) };
            request(tasks[number % tasks.len()], command)
        })
        .collect();
    let outcomes = executor.execute_all(&caller, requests).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(count_events(&pool).await, 5_000);
    for task in tasks {
        let versions = versions(&pool, task).await;
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<i64>>());
    }
}

#[sqlx::test(migrations = false)]
async fn an_unreadable_event_stops_its_own_stream_only(pool: PgPool) {
    let [here, there] = [executor(&pool).await, executor(&pool).await];
    let (caller, [a, b]) = (caller(), [new_task_id(), new_task_id()]);
    for task_id in [a, b] {
        here.execute(&caller, request(task_id, create("t"))).await.expect("created");
    }
    sqlx::query("update event_store.event set type = 'TaskFrobbed' where task_id = $1")
        .bind(a.0)
        .execute(&pool)
        .await
        .expect("broken");
    assert_eq!(there.execute(&caller, request(a, TaskCommand::Start)).await, Err(ExecuteError::Unreadable));
    there.execute(&caller, request(b, TaskCommand::Start)).await.expect("started");
}

#[sqlx::test(migrations = false)]
async fn history_may_be_imported_in_its_own_order_only(pool: PgPool) {
    let executor = executor(&pool).await;
    let (caller, task_id) = (caller(), new_task_id());
    let at = |text: &str| Some(domain::parse_time(text).expect("a time"));
    let dated = |command, occurred_at| CommandRequest { occurred_at, ..request(task_id, command) };
    executor.execute(&caller, dated(create("old"), at("2013-05-01T10:00:00Z"))).await.expect("created");
    let before = executor.execute(&caller, dated(TaskCommand::Start, at("2013-05-01T09:59:59Z"))).await;
    assert!(matches!(before, Err(ExecuteError::Refused(domain::Refusal::OccursBeforePrevious { .. }))), "{before:?}");
    let future = executor.execute(&caller, dated(TaskCommand::Start, at("2999-01-01T00:00:00Z"))).await;
    assert_eq!(future, Err(ExecuteError::Refused(domain::Refusal::OccursInFuture)));
    executor.execute(&caller, dated(TaskCommand::Start, at("2013-05-01T10:00:00Z"))).await.expect("started");
}
