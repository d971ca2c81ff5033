//! The stored form of an event: type, schema version and data. What stands in the log must be readable for ever:
//! a type's data may only change together with its schema version, and [`StoredEvent::decode`] upcasts the old form.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::event::TaskEvent;
use crate::values::{Description, OwnerId, Priority, Rank, Status, Tags, TaskId, Time, Title};

/// An event with its envelope, as the store, Kafka and the projector carry it: `data` is not yet understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The shard of its owner.
    pub shard: i16,
    /// Its place in the shard: 1, 2, 3 …, gapless.
    pub position: i64,
    /// Whose task.
    pub owner_id: OwnerId,
    /// Which task.
    pub task_id: TaskId,
    /// Its place in the stream (owner, task): 1, 2, 3 …, gapless.
    pub version: i64,
    /// UUID version 7.
    pub event_id: Uuid,
    /// Such as `TaskCreated`.
    pub event_type: String,
    /// The version of the form of `data`.
    pub schema_version: i16,
    /// When it happened; never decreases in a stream.
    pub occurred_at: Time,
    /// When it was stored.
    pub recorded_at: Time,
    /// `user` or `system`.
    pub actor_type: String,
    /// The account that did it.
    pub actor_id: Option<Uuid>,
    /// The command that it came from.
    pub command_id: Uuid,
    /// The request that the command came with.
    pub correlation_id: String,
    /// W3C trace context of that request.
    pub traceparent: String,
    /// The change that it is of: see [`Self::change`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_id: Option<Uuid>,
    /// The change that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<Uuid>,
    /// JSON object.
    pub data: String,
}

/// Why a stored event could not be read. It is never skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer program, or not by this one.
    #[error("unknown event type {event_type} version {schema_version}")]
    UnknownType {
        /// The type's name.
        event_type: String,
        /// Its schema version.
        schema_version: i16,
    },
    /// The data is not what the type says.
    #[error("the data of a {event_type} cannot be read: {reason}")]
    BrokenData {
        /// The type's name.
        event_type: String,
        /// What the parser said, nothing of the data itself.
        reason: String,
    },
}

/// The stored form of an event: its type, schema version and data (JSON).
#[must_use]
pub fn encode(event: &TaskEvent) -> (&'static str, i16, String) {
    #[expect(clippy::expect_used, reason = "structs of strings, times and sets of strings always serialise")]
    let data = serde_json::to_string(event).expect("a task event serialises");
    // The first form of a TaskCreated has no rank.
    let schema_version = if matches!(event, TaskEvent::TaskCreated { rank: Some(_), .. }) { 2 } else { 1 };
    (event.event_type(), schema_version, data)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatedV1 {
    title: Title,
    description: Option<Description>,
    priority: Priority,
    due_at: Option<Time>,
    tags: Tags,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatedV2 {
    title: Title,
    description: Option<Description>,
    priority: Priority,
    due_at: Option<Time>,
    tags: Tags,
    rank: Rank,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankedV1 {
    #[serde(deserialize_with = "present")]
    rank: Option<Rank>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenamedV1 {
    title: Title,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedV1 {
    #[serde(deserialize_with = "present")]
    description: Option<Description>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReprioritizedV1 {
    priority: Priority,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduledV1 {
    #[serde(deserialize_with = "present")]
    due_at: Option<Time>,
}

/// `null` is a value; that the member is missing is not the same as `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagsV1 {
    tags: Tags,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageRevertedV1 {
    from: Status,
    to: Status,
    #[serde(deserialize_with = "present")]
    started_at: Option<Time>,
    #[serde(deserialize_with = "present")]
    completed_at: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NothingV1 {}

impl StoredEvent {
    /// The change that it is of: what one request did. Of events from before changes had ids it is the command.
    #[must_use]
    pub fn change(&self) -> Uuid {
        self.change_id.unwrap_or(self.command_id)
    }

    /// The event, brought to its current form.
    ///
    /// # Errors
    /// A type or schema version that this program does not know, or data that is not of its form.
    pub fn decode(&self) -> Result<TaskEvent, Unreadable> {
        fn read<T: DeserializeOwned>(stored: &StoredEvent) -> Result<T, Unreadable> {
            serde_json::from_str(&stored.data).map_err(|error| Unreadable::BrokenData {
                event_type: stored.event_type.clone(),
                // Its own words may quote the data.
                reason: format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()),
            })
        }
        Ok(match (self.event_type.as_str(), self.schema_version) {
            ("TaskCreated", 1) => {
                let CreatedV1 { title, description, priority, due_at, tags } = read(self)?;
                TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank: None }
            }
            ("TaskCreated", 2) => {
                let CreatedV2 { title, description, priority, due_at, tags, rank } = read(self)?;
                TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank: Some(rank) }
            }
            ("TaskRenamed", 1) => TaskEvent::TaskRenamed { title: read::<RenamedV1>(self)?.title },
            ("TaskDescribed", 1) => TaskEvent::TaskDescribed { description: read::<DescribedV1>(self)?.description },
            ("TaskReprioritized", 1) => {
                TaskEvent::TaskReprioritized { priority: read::<ReprioritizedV1>(self)?.priority }
            }
            ("TaskScheduled", 1) => TaskEvent::TaskScheduled { due_at: read::<ScheduledV1>(self)?.due_at },
            ("TaskTagged", 1) => TaskEvent::TaskTagged { tags: read::<TagsV1>(self)?.tags },
            ("TaskUntagged", 1) => TaskEvent::TaskUntagged { tags: read::<TagsV1>(self)?.tags },
            ("TaskRanked", 1) => TaskEvent::TaskRanked { rank: read::<RankedV1>(self)?.rank },
            ("TaskStarted", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskStarted {})?,
            ("TaskCompleted", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskCompleted {})?,
            ("TaskReopened", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskReopened {})?,
            ("TaskCancelled", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskCancelled {})?,
            ("TaskStageReverted", 1) => {
                let StageRevertedV1 { from, to, started_at, completed_at } = read(self)?;
                TaskEvent::TaskStageReverted { from, to, started_at, completed_at }
            }
            ("TaskDeleted", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskDeleted {})?,
            ("TaskRestored", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskRestored {})?,
            ("TaskPurged", 1) => read::<NothingV1>(self).map(|_| TaskEvent::TaskPurged {})?,
            _ => {
                return Err(Unreadable::UnknownType {
                    event_type: self.event_type.clone(),
                    schema_version: self.schema_version,
                });
            }
        })
    }
}
