//! The columns of the statement that writes a batch: an array each, a row at the same place in all of a table's.

use chrono::NaiveDate;
use domain::{OwnerId, Time};
use uuid::Uuid;

use super::{Batch, HistoryRow, Mark, OwnerChange, TAG_SEPARATOR, ToPark, Touched, parked_id};
use crate::fold::{Counters, TaskRow};
use crate::words::Words;

/// All that a batch writes.
#[derive(Default)]
pub(super) struct Columns {
    pub mark: MarkColumns,
    pub history: HistoryColumns,
    pub tasks: TaskColumns,
    pub task_counts: TaskCountColumns,
    pub day_counts: DayCountColumns,
    pub owners: OwnerColumns,
    pub parked: ParkedColumns,
}

impl Columns {
    pub fn of(batch: Batch, mark: Mark) -> Self {
        let Batch { generation, mut touched, order, history, owners, to_park, .. } = batch;
        let mut columns = Self::default();
        let mut counters = Counters::default();
        for stream in &order {
            let Some(Touched { row: Some(row), before, is_new, changed: true, text_changed }) = touched.remove(stream)
            else {
                continue;
            };
            counters.differ(row.owner_id, before, row.contribution());
            columns.tasks.push(row, is_new, text_changed);
        }
        counters.settle();
        for ((owner, status, priority), difference) in counters.tasks {
            columns.task_counts.push(owner, status, priority, difference);
        }
        for ((owner, day), (created, completed)) in counters.days {
            columns.day_counts.push(owner, day, created, completed);
        }
        for row in history {
            columns.history.push(row);
        }
        for (owner, change) in owners {
            columns.owners.push(owner, &change);
        }
        for row in to_park {
            columns.parked.push(generation, row);
        }
        columns.mark.set(mark);
        columns
    }
}

#[derive(Default)]
pub(super) struct TaskColumns {
    pub owner: Vec<Uuid>,
    pub task: Vec<Uuid>,
    pub position: Vec<i64>,
    pub version: Vec<i64>,
    pub deleted: Vec<bool>,
    pub status: Vec<i16>,
    pub priority: Vec<i16>,
    pub title: Vec<String>,
    pub description: Vec<Option<String>>,
    pub tags: Vec<String>,
    pub due: Vec<Option<Time>>,
    pub created: Vec<Time>,
    pub updated: Vec<Time>,
    pub started: Vec<Option<Time>>,
    pub completed: Vec<Option<Time>>,
    /// Null: the text is as it was and is not written (a long one need not be compressed again).
    pub words: Vec<Option<String>>,
    pub is_new: Vec<bool>,
}

impl TaskColumns {
    fn push(&mut self, row: TaskRow, is_new: bool, text_changed: bool) {
        self.owner.push(row.owner_id.0);
        self.task.push(row.task_id.0);
        self.position.push(row.position);
        self.version.push(row.version);
        self.deleted.push(row.deleted);
        self.status.push(row.status.code());
        self.priority.push(row.priority.code());
        self.words.push(text_changed.then(|| Words::of(&row.title, row.description.as_deref()).joined()));
        self.title.push(row.title);
        self.description.push(row.description);
        self.tags.push(row.tags.join(TAG_SEPARATOR));
        self.due.push(row.due_at);
        self.created.push(row.created_at);
        self.updated.push(row.updated_at);
        self.started.push(row.started_at);
        self.completed.push(row.completed_at);
        self.is_new.push(is_new);
    }
}

#[derive(Default)]
pub(super) struct HistoryColumns {
    pub owner: Vec<Uuid>,
    pub task: Vec<Uuid>,
    pub version: Vec<i64>,
    pub position: Vec<i64>,
    pub occurred: Vec<Time>,
    pub recorded: Vec<Time>,
    pub event_type: Vec<String>,
    pub actor_type: Vec<String>,
    pub actor: Vec<Option<Uuid>>,
    pub changes: Vec<String>,
}

impl HistoryColumns {
    fn push(&mut self, row: HistoryRow) {
        self.owner.push(row.owner_id);
        self.task.push(row.task_id);
        self.version.push(row.version);
        self.position.push(row.position);
        self.occurred.push(row.occurred_at);
        self.recorded.push(row.recorded_at);
        self.event_type.push(row.event_type);
        self.actor_type.push(row.actor_type);
        self.actor.push(row.actor_id);
        self.changes.push(row.changes);
    }
}

#[derive(Default)]
pub(super) struct TaskCountColumns {
    pub owner: Vec<Uuid>,
    pub status: Vec<i16>,
    pub priority: Vec<i16>,
    pub difference: Vec<i64>,
}

impl TaskCountColumns {
    fn push(&mut self, owner: OwnerId, status: i16, priority: i16, difference: i64) {
        self.owner.push(owner.0);
        self.status.push(status);
        self.priority.push(priority);
        self.difference.push(difference);
    }
}

#[derive(Default)]
pub(super) struct DayCountColumns {
    pub owner: Vec<Uuid>,
    pub day: Vec<NaiveDate>,
    pub created: Vec<i64>,
    pub completed: Vec<i64>,
}

impl DayCountColumns {
    fn push(&mut self, owner: OwnerId, day: NaiveDate, created: i64, completed: i64) {
        self.owner.push(owner.0);
        self.day.push(day);
        self.created.push(created);
        self.completed.push(completed);
    }
}

#[derive(Default)]
pub(super) struct OwnerColumns {
    pub owner: Vec<Uuid>,
    pub shard: Vec<i16>,
    pub revision: Vec<i64>,
    pub counter: Vec<i64>,
    pub parked: Vec<Option<i64>>,
}

impl OwnerColumns {
    fn push(&mut self, owner: OwnerId, change: &OwnerChange) {
        self.owner.push(owner.0);
        self.shard.push(change.shard);
        self.revision.push(change.revision);
        self.counter.push(change.counter);
        self.parked.push(change.parked_position);
    }
}

#[derive(Default)]
pub(super) struct ParkedColumns {
    pub id: Vec<Uuid>,
    pub shard: Vec<i16>,
    pub position: Vec<i64>,
    pub owner: Vec<Uuid>,
    pub task: Vec<Uuid>,
    pub version: Vec<i64>,
    pub event_type: Vec<String>,
    pub reason: Vec<Option<String>>,
    pub event: Vec<String>,
}

impl ParkedColumns {
    fn push(&mut self, generation: i32, row: ToPark) {
        self.id.push(parked_id(generation, row.shard, row.position));
        self.shard.push(row.shard);
        self.position.push(row.position);
        self.owner.push(row.stream.0.0);
        self.task.push(row.stream.1.0);
        self.version.push(row.version);
        self.event_type.push(row.event_type);
        self.reason.push(row.reason);
        self.event.push(row.json);
    }
}

/// One kind of mark; what the others need is null or empty.
#[derive(Default)]
pub(super) struct MarkColumns {
    pub shard: Option<i16>,
    pub turn: Option<i64>,
    pub position: Option<i64>,
    pub recorded_at: Option<Time>,
    pub topic: Option<String>,
    pub partitions: PartitionColumns,
    pub positions: PositionColumns,
    pub held: bool,
}

#[derive(Default)]
pub(super) struct PartitionColumns {
    pub partition: Vec<i32>,
    pub turn: Vec<i64>,
    pub next_offset: Vec<i64>,
    pub publication: Vec<i64>,
}

#[derive(Default)]
pub(super) struct PositionColumns {
    pub partition: Vec<i32>,
    pub shard: Vec<i16>,
    pub position: Vec<i64>,
}

impl MarkColumns {
    fn set(&mut self, mark: Mark) {
        match mark {
            Mark::Checkpoint { shard, turn, position, recorded_at } => {
                (self.shard, self.turn, self.position) = (Some(shard), Some(turn), Some(position));
                self.recorded_at = recorded_at;
            }
            Mark::Partitions { topic, partitions } => {
                self.topic = Some(topic.to_string());
                for mark in partitions {
                    self.partitions.partition.push(mark.partition);
                    self.partitions.turn.push(mark.turn);
                    self.partitions.next_offset.push(mark.next_offset);
                    self.partitions.publication.push(mark.publication);
                    for (shard, position) in mark.positions {
                        self.positions.partition.push(mark.partition);
                        self.positions.shard.push(shard);
                        self.positions.position.push(position);
                    }
                }
            }
            Mark::Held => self.held = true,
        }
    }
}
