//! An executor on the database of a test, and who asks it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use backends::database::{self, Pool};
use commands::{Caller, Executor};
use domain::{Actor, ActorType, NewTask, OwnerId, Priority, Tags, TaskCommand, Title};
use event_store::EventStore;
use process::clock::new_id;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

/// A copy with a store and caches of its own.
pub async fn executor(pool: &PgPool) -> Executor {
    event_store::migrate(&shared(pool)).await.expect("migrations run");
    let (store, mut tasks) = EventStore::start(shared(pool)).await.expect("the store starts");
    tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
    Executor::new(store)
}

/// A request of its own, and so a change.
pub fn caller(owner: OwnerId) -> Caller {
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

/// Creates a task, whichever.
pub fn create() -> TaskCommand {
    let title = Title::parse("a").expect("a title");
    let (tags, priority) = (Tags::new(), Priority::Medium);
    TaskCommand::Create(Box::new(NewTask { title, description: None, priority, due_at: None, tags, rank: None }))
}
