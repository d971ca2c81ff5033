//! A store on the database of a test, and what is appended to it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use backends::database::{self, Pool};
use domain::{
    Actor, ActorType, CommandId, NewTask, OwnerId, Priority, State, Tags, TaskCommand, TaskEvent, TaskId, Title, decide,
};
use event_store::{CommandOrigin, DecidedCommand, Effect, EventStore, NewEvent, StreamAppend};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

/// The only one of a new log.
pub const SHARD: i16 = 0;

/// What the programs connect by, to the same database.
pub fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

/// A store on a database that is migrated.
pub async fn started(pool: &PgPool) -> EventStore {
    let (store, mut tasks) = EventStore::start(shared(pool)).await.expect("the store starts");
    tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
    store
}

/// A store on a database that need not be migrated.
pub async fn store(pool: &PgPool) -> EventStore {
    event_store::migrate(&shared(pool)).await.expect("migrations run");
    started(pool).await
}

/// The event of a task that is created.
pub fn created() -> TaskEvent {
    let new = NewTask {
        title: Title::parse("water the plants").expect("a title"),
        description: None,
        priority: Priority::Medium,
        due_at: None,
        tags: Tags::new(),
        rank: None,
    };
    decide(&State::Missing, &TaskCommand::Create(Box::new(new))).expect("a new task").remove(0)
}

/// A command with an id of its own, and these events.
pub fn command(events: Vec<TaskEvent>) -> DecidedCommand {
    let occurred_at = domain::parse_time("2026-01-01T00:00:00Z").expect("a time");
    let new_event = |event| NewEvent { event_id: Uuid::new_v4(), occurred_at, event };
    DecidedCommand {
        command_id: CommandId(Uuid::new_v4()),
        fingerprint: Some(Uuid::from_u128(1)),
        effect: Effect::Changed,
        change_id: Some(Uuid::from_u128(3)),
        events: events.into_iter().map(new_event).collect(),
    }
}

/// Commands to one stream.
pub fn unit(owner: Uuid, task: Uuid, expected_version: i64, commands: Vec<DecidedCommand>) -> StreamAppend {
    StreamAppend {
        owner_id: OwnerId(owner),
        task_id: TaskId(task),
        is_new_task: false,
        expected_version,
        expected_revision: 0,
        origin: CommandOrigin {
            actor: Actor { actor_type: ActorType::User, id: Some(owner) },
            correlation_id: "test".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: Uuid::from_u128(3),
            undoes: None,
        },
        commands,
    }
}
