//! The partitions that are assigned to this copy: how far each is read, and which messages wait to be applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use messaging::{Message, Unreadable};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::chain::{ChainPosition, Gap, Positions};
use crate::feed_position::PartitionPosition;

/// The partitions of the topic that are this copy's.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    /// How many; `None`: the group has not said yet.
    pub share: Option<usize>,
    /// What is wrong with some of them, by partition: nothing is read of them until it is mended.
    pub troubles: BTreeMap<i32, String>,
}

/// A message that waits to be applied.
pub(super) struct Pending {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) message: Result<Message, Box<Unreadable>>,
}

/// A partition of ours.
pub(super) struct Partition {
    /// As we raised it last.
    pub(super) fence: i64,
    /// As it is stored.
    pub(super) next_offset: Option<i64>,
    pub(super) chain: ChainPosition,
    pub(super) state: State,
    /// Messages that are missing in it.
    pub(super) gap: Option<Gap>,
    /// What was published and not here when its broker was asked where it ends.
    pub(super) asked: Option<Gap>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Reading,
    /// What comes is from before a seek.
    Seeking,
    /// Not read until then.
    Stopped(Instant),
}

impl Partition {
    /// Up to where it has everything of a shard.
    pub(super) fn complete_until(&self, shard: i16, base: &Positions) -> i64 {
        self.chain.complete_until(shard, base)
    }
}

pub(super) struct Assignment {
    pub(super) topic: Arc<str>,
    /// How many partitions the topic has.
    pub(super) topic_partitions: i32,
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// In the order in which they came; each of a partition that is being read.
    pub(super) pending: VecDeque<Pending>,
    /// The checkpoints: up to there the live generation has everything of a shard.
    pub(super) base: Positions,
    status: watch::Sender<Partitions>,
}

impl Assignment {
    pub(super) fn new(topic: Arc<str>, status: watch::Sender<Partitions>) -> Self {
        Self {
            topic,
            topic_partitions: 1,
            partitions: BTreeMap::new(),
            pending: VecDeque::new(),
            base: Positions::new(),
            status,
        }
    }

    /// The consumer is gone, and its partitions with it.
    pub(super) fn clear(&mut self) {
        self.revoke(&self.partitions.keys().copied().collect::<Vec<_>>());
        self.status.send_modify(|status| status.share = None);
    }

    pub(super) fn revoke(&mut self, revoked: &[i32]) {
        self.partitions.retain(|partition, _| !revoked.contains(partition));
        self.drop_pending(revoked);
        revoked.iter().for_each(|partition| show_lag(*partition, 0));
        self.report_troubles();
        self.report_share();
    }

    /// Partitions begin, or begin again. What was read of them before is dropped.
    pub(super) fn begin(&mut self, claimed: Vec<(i32, Partition)>) {
        self.drop_pending(&claimed.iter().map(|(number, _)| *number).collect::<Vec<_>>());
        for (number, mut partition) in claimed {
            partition.gap = self.partitions.get(&number).and_then(|before| before.gap);
            self.partitions.insert(number, partition);
        }
    }

    pub(super) fn drop_pending(&mut self, of: &[i32]) {
        self.pending.retain(|pending| !of.contains(&pending.partition));
    }

    pub(super) fn has_pending(&self, of: i32) -> bool {
        self.pending.iter().any(|pending| pending.partition == of)
    }

    /// A message has come.
    pub(super) fn receive(&mut self, pending: Pending) {
        if self.partitions.get(&pending.partition).is_some_and(|partition| partition.state == State::Reading) {
            self.pending.push_back(pending);
        }
    }

    /// What comes of a partition from now on is from after the seek.
    pub(super) fn sought(&mut self, number: i32) {
        if let Some(partition) = self.partitions.get_mut(&number)
            && partition.state == State::Seeking
        {
            partition.state = State::Reading;
        }
    }

    /// Where the broker says that a partition ends.
    pub(super) fn fetched(&self, number: i32, end: i64) {
        if let Some(partition) = self.partitions.get(&number) {
            show_lag(number, end - partition.next_offset.unwrap_or(0));
        }
    }

    /// The first pending messages are done, and these positions are stored.
    pub(super) fn done(&mut self, messages: usize, positions: Vec<PartitionPosition>) {
        self.pending.drain(..messages);
        let mut mended = false;
        for position in positions {
            let Some(partition) = self.partitions.get_mut(&position.partition) else { continue };
            partition.fence = position.fence + 1;
            partition.next_offset = Some(position.next_offset);
            partition.chain.publication = position.publication;
            partition.chain.positions.extend(position.positions);
            if partition.gap.take().is_some() {
                info!(topic = %self.topic, partition = position.partition, "the partition is mended");
                mended = true;
            }
        }
        if mended {
            self.report_troubles();
        }
    }

    pub(super) fn report_trouble(&self, number: i32, trouble: String) {
        self.status.send_modify(|status| {
            status.troubles.insert(number, trouble);
        });
        self.report_troubles();
    }

    /// Takes back what is not wrong any more.
    pub(super) fn report_troubles(&self) {
        self.status.send_modify(|status| {
            status.troubles.retain(|partition, _| self.partitions.get(partition).is_some_and(|p| p.gap.is_some()));
        });
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("projector_partitions_stopped").set(self.status.borrow().troubles.len() as f64);
    }

    pub(super) fn report_share(&self) {
        self.status.send_modify(|status| status.share = Some(self.partitions.len()));
    }
}

/// How many messages of a partition of ours are not applied yet.
fn show_lag(partition: i32, messages: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    let lag = messages.max(0) as f64;
    metrics::gauge!("projector_consumer_lag_messages", "partition" => partition.to_string()).set(lag);
}
