//! Export and import together, on a real Postgres: random histories go back into their own account without effect, and
//! come back where they, or parts of them, are missing.

use backends::database::{self, Pool};
use commands::{Caller, CommandIdentity, CommandRequest, Executor, ExpectedVersion};
use domain::{
    Actor, ActorType, CommandId, Description, NewTask, OwnerId, Priority, Tag, Tags, TaskCommand, TaskId, TaskPatch,
    Time, Title,
};
use event_store::{EventStore, TailReader};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use task_files::{ExportFormat, Format};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::import::{Import, Summary};
use crate::output::{Progress, Unit};

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

const HISTORIES: usize = 40;
const TASKS: u128 = 4;

/// A command of a history.
#[derive(Debug, Clone)]
struct Step {
    task: u128,
    command: TaskCommand,
    /// Whether it has an id of its own.
    identified: bool,
    /// None: now. Else so many minutes after the one before, often none: a coarse clock.
    minutes: Option<i64>,
}

fn step() -> impl Strategy<Value = Step> {
    let title = || "[a-c ]{0,3}[a-c]".prop_map(|text| Title::parse(&text).unwrap());
    let description = || prop::option::of("[a-c\n\"]{0,4}".prop_map(|text| Description::parse(&text).unwrap()));
    let priority = || prop::sample::select(Priority::ALL);
    let due_at = || prop::option::of((0_i64..9).prop_map(|day| Time::UNIX_EPOCH + chrono::TimeDelta::days(day)));
    let tags = || {
        prop::collection::btree_set("[a-dé]", 0..3)
            .prop_map(|tags| tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect::<Tags>())
    };
    let rank = || prop::option::of("[a-d]".prop_map(|rank| domain::Rank::parse(&rank).unwrap()));
    let create = (title(), description(), priority(), due_at(), tags(), rank()).prop_map(
        |(title, description, priority, due_at, tags, rank)| {
            TaskCommand::Create(Box::new(NewTask { title, description, priority, due_at, tags, rank }))
        },
    );
    let patch = (
        prop::option::of(title()),
        prop::option::of(description()),
        prop::option::of(priority()),
        prop::option::of(due_at()),
        prop::option::of(tags()),
        prop::option::of(rank()),
    )
        .prop_map(|(title, description, priority, due_at, tags, rank)| {
            TaskCommand::Patch(Box::new(TaskPatch { title, description, priority, due_at, tags, rank }))
        });
    let command = prop_oneof![
        4 => create,
        6 => patch,
        2 => tags().prop_map(TaskCommand::Tag),
        1 => tags().prop_map(TaskCommand::Untag),
        2 => Just(TaskCommand::Start),
        2 => Just(TaskCommand::Complete),
        2 => Just(TaskCommand::Reopen),
        1 => Just(TaskCommand::Cancel),
        1 => Just(TaskCommand::Delete),
    ];
    (0..TASKS, command, any::<bool>(), prop::option::of(0_i64..2))
        .prop_map(|(task, command, identified, minutes)| Step { task, command, identified, minutes })
}

struct World {
    pool: PgPool,
    executor: Executor,
}

impl World {
    async fn new(pool: PgPool) -> Self {
        event_store::migrate(&shared(&pool)).await.unwrap();
        let executor = Self::executor(&pool).await;
        Self { pool, executor }
    }

    /// With caches of its own.
    async fn executor(pool: &PgPool) -> Executor {
        let (store, mut tasks) = EventStore::start(shared(pool)).await.unwrap();
        tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        Executor::new(store)
    }

    /// Carries out what the rules take of it: two commands at a time, as a batch does.
    async fn live(&self, owner: OwnerId, history: Vec<Step>) {
        let caller = Caller {
            owner,
            shard: 0,
            actor: Actor { actor_type: ActorType::User, id: Some(owner.0) },
            correlation_id: "test".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: Uuid::new_v4(),
            history: false,
        };
        let mut at = Time::UNIX_EPOCH;
        let requests: Vec<CommandRequest> = history
            .into_iter()
            .map(|Step { task, command, identified, minutes }| CommandRequest {
                task_id: TaskId(Uuid::from_u128(task)),
                command,
                identity: identified
                    .then(|| CommandIdentity { command_id: CommandId(Uuid::new_v4()), fingerprint: Uuid::new_v4() }),
                expected: ExpectedVersion::Any,
                occurred_at: minutes.map(|minutes| {
                    at += chrono::TimeDelta::minutes(minutes);
                    at
                }),
            })
            .collect();
        for pair in requests.chunks(2) {
            self.executor.execute_all(&caller, pair.to_vec()).await;
        }
    }

    async fn export(&self, owner: OwnerId) -> String {
        let mut out = Vec::new();
        let tail = TailReader::new(shared(&self.pool), None);
        task_files::export(&tail, owner, 0, ExportFormat::Ndjson, false, &mut out, |_, _| {}).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    async fn import(&self, owner: OwnerId, lines: &str) -> Summary {
        let import = Import { owner, shard: 0, format: Format::Ndjson, history: false };
        let progress = Progress::new(None, Unit::Bytes);
        let input = std::io::Cursor::new(lines.to_owned());
        import.run(input, Some(self.executor.clone()), progress, CancellationToken::new()).await.unwrap()
    }
}

#[track_caller]
fn took(summary: Summary, lines: usize, events: usize, what: &str) {
    let expected = (lines as u64, lines as u64, 0, events as u64);
    assert_eq!((summary.lines, summary.succeeded, summary.failed, summary.events), expected, "{what}");
}

#[sqlx::test(migrations = false)]
async fn an_export_has_an_effect_only_where_something_is_missing(pool: PgPool) {
    let mut world = World::new(pool).await;
    let mut runner = TestRunner::deterministic();
    let mut exported_lines = 0;
    for _ in 0..HISTORIES {
        let history = prop::collection::vec(step(), 0..40).new_tree(&mut runner).unwrap().current();
        let [own, other, part] = std::array::from_fn(|_| OwnerId(Uuid::new_v4()));
        world.live(own, history.clone()).await;
        let exported = world.export(own).await;
        let lines: Vec<&str> = exported.lines().collect();
        let count = lines.len();
        exported_lines += count;

        took(world.import(own, &exported).await, count, 0, "into its own account");
        assert_eq!(world.export(own).await, exported);
        took(world.import(other, &exported).await, count, count, "into another");
        assert_eq!(world.export(other).await, exported, "the same tasks, from the same commands");
        took(world.import(other, &exported).await, count, 0, "into another, again");
        took(world.import(own, &world.export(other).await).await, count, 0, "back");

        // Of each task's lines the first few.
        let kept: Vec<usize> =
            prop::collection::vec(0_usize..12, TASKS as usize).new_tree(&mut runner).unwrap().current();
        let mut seen = [0; TASKS as usize];
        let copied: Vec<&str> = lines
            .iter()
            .copied()
            .filter(|line| {
                let task = (0..TASKS).position(|task| line.contains(&Uuid::from_u128(task).to_string())).unwrap();
                seen[task] += 1;
                seen[task] <= kept[task]
            })
            .collect();
        let copied = copied.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>();
        took(world.import(part, &copied.concat()).await, copied.len(), copied.len(), "a part");
        took(world.import(part, &exported).await, count, count - copied.len(), "and the rest");
        assert_eq!(world.export(part).await, exported);

        // The loss of a task.
        let lost = TaskId(Uuid::from_u128(1));
        let of_lost = lines.iter().filter(|line| line.contains(&lost.to_string())).count();
        for statement in [
            "delete from event_store.event where owner_id = $1 and task_id = $2",
            "delete from event_store.command where owner_id = $1 and task_id = $2",
        ] {
            sqlx::query(statement).bind(own.0).bind(lost.0).execute(&world.pool).await.unwrap();
        }
        world.executor = World::executor(&world.pool).await;
        took(world.import(own, &exported).await, count, of_lost, "after a loss");
        assert_eq!(world.export(own).await, exported);
    }
    assert!(exported_lines > HISTORIES * 4, "{exported_lines} lines say something");
}

#[sqlx::test(migrations = false)]
async fn what_is_not_the_same_is_still_refused(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let (task, command) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let line = |kind: &str, expected: i64, at: &str, more: &str| {
        format!(
            r#"{{"type":"{kind}","task_id":"{task}","command_id":"{command}","expected_version":{expected},"occurred_at":"2020-01-0{at}T00:00:00Z"{more}}}"#
        )
    };
    took(world.import(owner, &line("CreateTask", 0, "1", r#","title":"a""#)).await, 1, 1, "made");
    for other in [
        line("CreateTask", 0, "1", r#","title":"b""#),
        line("CreateTask", 0, "2", r#","title":"a""#),
        line("CreateTask", 1, "1", r#","title":"a""#),
        line("StartTask", 0, "1", ""),
    ] {
        let summary = world.import(owner, &other).await;
        assert_eq!((summary.failed, summary.events), (1, 0), "{other}");
    }
}

/// What a program of before made: ids by the bytes of a line.
#[sqlx::test(migrations = false)]
async fn an_import_of_an_earlier_version_is_recognised(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let line = r#"{"type":"CreateTask","task_id":"00000000-0000-4000-8000-000000000001","title":"a"}"#;
    let earlier = task_files::made_command_id(owner, 1, line.as_bytes());
    let with_id = line.replacen('{', &format!(r#"{{"command_id":"{earlier}","#), 1);
    took(world.import(owner, &with_id).await, 1, 1, "as it was then");
    took(world.import(owner, line).await, 1, 0, "again");
    took(world.import(owner, &format!("\n{line}")).await, 1, 0, "the same task, on another line");
}

#[sqlx::test(migrations = false)]
async fn rows_are_the_same_whatever_the_order_of_their_columns(pool: PgPool) {
    let world = World::new(pool).await;
    let owner = OwnerId(Uuid::new_v4());
    let import = async |text: &'static str| {
        let import = Import { owner, shard: 0, format: Format::Csv, history: false };
        let progress = Progress::new(None, Unit::Bytes);
        import.run(text.as_bytes(), Some(world.executor.clone()), progress, CancellationToken::new()).await
    };
    let first = import("title,tags,description\na,x,\nb,\"x,y\",d\na,x,\n").await.unwrap();
    took(first, 3, 3, "equal rows on two lines are two tasks");
    took(import("description,status,title,tags\n,pending,a,x\nd,,b,\"x,y\"\n,,a,x\n").await.unwrap(), 3, 0, "swapped");
    for (text, named) in [
        ("", "empty"),
        ("titel,description\na,b\n", "\"titel\""),
        ("title,tags,title\na,b,c\n", "more than once"),
        ("tags\na\n", "title"),
        ("a,b\nc,d\n", "\"a\""),
    ] {
        let error = import(text).await.unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("Nothing was imported"), "{error}");
    }
    assert_eq!(world.export(owner).await.lines().count(), 3);
}
