//! What is to be done with the messages that wait: which events are applied next, and what is stored as read then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use domain::StoredEvent;
use uuid::Uuid;

use super::applier::Source;
use super::chain::{Hole, Link, Next, Place, Positions};
use super::kafka::{Partition, Pending};
use crate::batch::At;
use crate::fence::{Mark, PartitionMark};

/// The next messages, up to the first that is something special.
pub(super) struct Plan<'a> {
    pub(super) topic: Arc<str>,
    pub(super) steps: Vec<Step>,
    pub(super) events: Vec<&'a StoredEvent>,
    /// What comes then.
    pub(super) then: Then,
}

pub(super) enum Then {
    /// More of the same, if anything.
    More,
    /// A message that nobody can read.
    Unreadable,
    /// Messages of this partition are missing.
    Hole(i32, Hole),
}

/// What is stored as read once a message is done.
pub(super) struct Step {
    pub(super) partition: i32,
    pub(super) turn: i64,
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

    pub(super) fn marks(&self, events: usize) -> Vec<PartitionMark> {
        let mut marks: BTreeMap<i32, (&Step, Positions)> = BTreeMap::new();
        for step in self.steps.iter().take(self.steps_of(events)) {
            let (last, positions) = marks.entry(step.partition).or_insert_with(|| (step, Positions::new()));
            *last = step;
            positions.extend(step.position);
        }
        let marks = marks.into_iter().map(|(partition, (last, positions))| PartitionMark {
            partition,
            turn: last.turn,
            next_offset: last.next_offset,
            publication: last.publication,
            positions: positions.into_iter().collect(),
        });
        marks.collect()
    }
}

impl Source for Plan<'_> {
    fn mark(&self, generation: i32, at: At, events: usize) -> Option<Mark> {
        let is_live = at.live_generation == generation && !at.is_fed_from_store;
        is_live.then(|| Mark::Partitions { topic: self.topic.clone(), partitions: self.marks(events) })
    }
}

/// What is to be done with the pending messages.
pub(super) fn plan<'a>(
    pending: &'a VecDeque<Pending>,
    partitions: &BTreeMap<i32, Partition>,
    base: &Positions,
    log_id: Uuid,
    topic: &Arc<str>,
    events_max: usize,
) -> Plan<'a> {
    let mut places: BTreeMap<i32, Place> = BTreeMap::new();
    let mut plan = Plan { topic: topic.clone(), steps: Vec::new(), events: Vec::new(), then: Then::More };
    for Pending { partition: number, offset, message } in pending {
        let Some(partition) = partitions.get(number) else { break };
        let place = places.entry(*number).or_insert_with(|| partition.place.clone());
        // Of a log that was restored from a backup since, or of another installation's; whether it can be read is theirs.
        let of = message.as_ref().map_or_else(|unreadable| unreadable.log_id, |message| Some(message.log_id));
        let foreign = of.filter(|of| *of != log_id);
        let step = Step {
            partition: *number,
            turn: partition.turn,
            next_offset: offset + 1,
            publication: place.publication,
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
        let next = place.next(&link, base);
        let is_event = match next {
            Next::New => true,
            Next::Duplicate => false,
            Next::After(hole) => {
                plan.then = Then::Hole(*number, hole);
                break;
            }
        };
        if is_event {
            if plan.events.len() == events_max {
                break;
            }
            plan.events.push(&message.event);
        }
        let position = place.positions.get(&link.shard).map(|position| (link.shard, *position));
        plan.steps.push(Step { publication: place.publication, position, is_event, ..step });
    }
    plan
}
