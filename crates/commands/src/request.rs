use std::sync::Arc;

use domain::{Actor, OwnerId, TaskCommand, TaskId, Time};
use uuid::Uuid;

use crate::identity::CommandIdentity;

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
    pub correlation_id: Arc<str>,
    /// The W3C trace context, carried into the events.
    pub traceparent: Arc<str>,
    /// The change that all its events are of: what the request, import or job does.
    pub change_id: Uuid,
    /// Whether what happened in the future is taken as it is: an operator's, for what a wrong clock wrote.
    pub history: bool,
}

/// One command and the conditions under which it is to be carried out.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// The task it is about.
    pub task_id: TaskId,
    /// What is asked.
    pub command: TaskCommand,
    /// Present: replay instead of repetition.
    pub identity: Option<CommandIdentity>,
    /// The condition on the version.
    pub expected: ExpectedVersion,
    /// When it happened, for imports of history; absent: now.
    pub occurred_at: Option<Time>,
}

/// The condition on the task's version, from `If-Match` or `expected_version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// No condition.
    Any,
    /// The task exists.
    Exists,
    /// One of these (empty: nothing matches).
    OneOf(Vec<i64>),
}

impl ExpectedVersion {
    /// Whether a task at `version` (0: no event yet) meets it.
    #[must_use]
    pub fn is_met_by(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Exists => version > 0,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

/// Exactly this version, where one is given.
impl From<Option<i64>> for ExpectedVersion {
    fn from(version: Option<i64>) -> Self {
        version.map_or(Self::Any, |version| Self::OneOf(vec![version]))
    }
}
