//! STUB by F until the lead's executor lands: the types that the HTTP side needs from it.

use domain::{Actor, CommandId, OwnerId, TaskCommand, TaskId, Time};
use uuid::Uuid;

/// The identity under which a command takes effect at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The command's own id, or one made from an `Idempotency-Key` (see `identity.rs`).
    pub command_id: CommandId,
    /// The first 16 bytes of the SHA-256 of the request: the same id with another one is refused.
    pub fingerprint: Uuid,
}

/// What `If-Match` or `expected_version` asks of the task's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// No condition.
    Nothing,
    /// `*`: the task exists.
    Existing,
    /// One of these versions (empty: only weak or foreign tags were given, nothing matches).
    OneOf(Vec<i64>),
}

/// One command and the conditions under which it is to be carried out.
#[derive(Debug, Clone)]
pub struct Item {
    /// The task it is about.
    pub task_id: TaskId,
    /// What is asked.
    pub command: TaskCommand,
    /// Present: replay instead of repetition.
    pub identity: Option<Identity>,
    /// The condition on the version.
    pub expected: Expected,
    /// When it happened, for imports of history; absent: now.
    pub occurred_at: Option<Time>,
}

/// On whose behalf and under which trace commands run.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose tasks.
    pub owner: OwnerId,
    /// The owner's shard.
    pub shard: i16,
    /// Who acts.
    pub actor: Actor,
    /// The request id, carried into the events.
    pub correlation_id: String,
    /// The W3C trace context, carried into the events.
    pub traceparent: String,
}

/// A command that took effect (or found nothing to do, or was replayed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The HTTP status that the single request gets: 201, 200, 204.
    pub status: u16,
    /// The task.
    pub task_id: TaskId,
    /// The task's version after the command.
    pub version: i64,
    /// The position of the task's last event.
    pub revision: i64,
    /// Whether this is the answer of an earlier, equal request.
    pub replayed: bool,
    /// How many events were appended now.
    pub events: u32,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// 404.
    NotFound,
    /// 412: `If-Match` or `expected_version` names another version.
    Stale { version: i64 },
    /// 409: the rules refuse it.
    Rules(domain::Refusal),
    /// 422: the id or key was used with another request.
    KeyReused,
    /// 409: an equal request is in flight for longer than 10 s.
    InFlight,
    /// 503: writers collided 20 times.
    Contended,
    /// 503: the queue is full.
    Overloaded,
    /// 503: the stream holds an event that cannot be read.
    Unreadable,
    /// 503: the store cannot be reached, or its answer is unknown.
    Unavailable,
}

/// Carries out commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor;

impl Executor {
    /// Carries out one command.
    pub async fn execute(&self, _caller: Caller, _item: Item) -> Result<Accepted, Refused> {
        Err(Refused::Unavailable)
    }
    /// Carries out many: each on its own, in order per task.
    pub async fn execute_all(&self, _caller: Caller, items: Vec<Item>) -> Vec<Result<Accepted, Refused>> {
        items.iter().map(|_| Err(Refused::Unavailable)).collect()
    }
}
