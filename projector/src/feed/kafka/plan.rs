//! What is to be done with the messages that wait: which events are applied next, and what is stored as read then.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::StoredEvent;
use uuid::Uuid;

use super::assignment::{Assignment, Pending};
use super::chain::{ChainPosition, Gap, Link, Next, Positions};
use crate::feed_position::{FeedPosition, PartitionPosition};

/// The next messages, up to the first that is something special.
pub(super) struct Plan<'a> {
    pub(super) topic: Arc<str>,
    pub(super) steps: Vec<Step>,
    pub(super) events: Vec<&'a StoredEvent>,
    /// Events that came again: they were applied.
    pub(super) again: Vec<&'a StoredEvent>,
    /// What comes then.
    pub(super) then: Then,
}

pub(super) enum Then {
    /// More of the same, if anything.
    More,
    /// A message that nobody can read.
    Unreadable,
    /// Messages of this partition are missing.
    Gap(i32, Gap),
    /// The next message of this partition is of this shard, and another log than the one that was applied; or of a shard of
    /// which that is known.
    OtherLog(i32, i16, &'static str),
}

/// What is stored as read once a message is done.
pub(super) struct Step {
    pub(super) partition: i32,
    pub(super) fence: i64,
    pub(super) next_offset: i64,
    pub(super) publication: i64,
    pub(super) position: Option<(i16, i64)>,
    pub(super) is_event: bool,
    /// The log that the message is of, where that is another one: it is passed over.
    pub(super) foreign: Option<Uuid>,
}

impl Plan<'_> {
    /// How many messages are done once so many events are applied: those after the last one that do nothing, too.
    pub(super) fn steps_of(&self, events: usize) -> usize {
        let mut left = events;
        let to = self.steps.iter().position(|step| match (step.is_event, left) {
            (true, 0) => true,
            (true, _) => {
                left -= 1;
                false
            }
            (false, _) => false,
        });
        to.unwrap_or(self.steps.len())
    }

    /// The logs of messages that are passed over, of the first so many messages.
    pub(super) fn foreign(&self, messages: usize) -> Vec<Uuid> {
        self.steps.iter().take(messages).filter_map(|step| step.foreign).collect()
    }

    /// How far each partition is read once so many events are applied.
    pub(super) fn positions_after(&self, events: usize) -> Vec<PartitionPosition> {
        let mut partitions: BTreeMap<i32, (&Step, Positions)> = BTreeMap::new();
        for step in self.steps.iter().take(self.steps_of(events)) {
            let (last, positions) = partitions.entry(step.partition).or_insert_with(|| (step, Positions::new()));
            *last = step;
            positions.extend(step.position);
        }
        let partitions = partitions.into_iter().map(|(partition, (last, positions))| PartitionPosition {
            partition,
            fence: last.fence,
            next_offset: last.next_offset,
            publication: last.publication,
            positions: positions.into_iter().collect(),
        });
        partitions.collect()
    }

    pub(super) fn position_after(&self, events: usize) -> FeedPosition {
        FeedPosition::Partitions { topic: self.topic.clone(), partitions: self.positions_after(events) }
    }
}

/// What is to be done with the pending messages. `is_stopped`: of which shards nothing is applied any more.
pub(super) fn plan(
    assignment: &Assignment,
    log_id: Uuid,
    events_max: usize,
    is_stopped: impl Fn(i16) -> bool,
) -> Plan<'_> {
    let Assignment { topic, partitions, pending, base, .. } = assignment;
    let mut chains: BTreeMap<i32, ChainPosition> = BTreeMap::new();
    let mut plan =
        Plan { topic: topic.clone(), steps: Vec::new(), events: Vec::new(), again: Vec::new(), then: Then::More };
    for Pending { partition: number, offset, message } in pending {
        let Some(partition) = partitions.get(number) else { break };
        let chain = chains.entry(*number).or_insert_with(|| partition.chain.clone());
        // Of a log that was restored from a backup since, or of another installation's; whether it can be read is theirs.
        let of = message.as_ref().map_or_else(|unreadable| unreadable.log_id, |message| Some(message.log_id));
        let foreign = of.filter(|of| *of != log_id);
        let step = Step {
            partition: *number,
            fence: partition.fence,
            next_offset: offset + 1,
            publication: chain.publication,
            position: None,
            is_event: false,
            foreign,
        };
        if foreign.is_some() {
            plan.steps.push(step);
            continue;
        }
        let Ok(message) = message else {
            plan.then = Then::Unreadable;
            break;
        };
        let link = Link::from(message);
        if is_stopped(link.shard) {
            plan.then = Then::OtherLog(*number, link.shard, "it is stopped");
            break;
        }
        // by what is stored: what stands before it in this plan is not there yet
        let is_applied = link.position <= partition.complete_until(link.shard, base);
        let next = chain.next(&link, base);
        let is_event = match next {
            Next::New => true,
            Next::Duplicate => {
                if is_applied {
                    plan.again.push(&message.event);
                }
                false
            }
            Next::Skips => {
                let told = "a message follows on one before the last that was applied";
                plan.then = Then::OtherLog(*number, link.shard, told);
                break;
            }
            Next::Gap(gap) => {
                plan.then = Then::Gap(*number, gap);
                break;
            }
        };
        if is_event {
            if plan.events.len() == events_max {
                break;
            }
            plan.events.push(&message.event);
        }
        let position = chain.positions.get(&link.shard).map(|position| (link.shard, *position));
        plan.steps.push(Step { publication: chain.publication, position, is_event, ..step });
    }
    plan
}
