//! Records of a range of a partition, looked at one by one, without a group.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::KafkaSettings;

/// A broker has so long for one answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Why records cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The brokers do not answer, or refuse.
    #[error("Kafka cannot be asked which events it has: {0}")]
    Kafka(#[from] KafkaError),
    /// There is too much to look through.
    #[error("it takes too long to find in partition {0} which events Kafka has")]
    TooLong(i32),
    /// The process ends.
    #[error("interrupted")]
    Interrupted,
}

/// A topic that is looked through.
pub(crate) struct Scan {
    consumer: BaseConsumer,
    topic: String,
    deadline: Instant,
}

impl Scan {
    /// `name` is told to the brokers. All of it may take so long.
    pub(crate) fn of(settings: &KafkaSettings, name: &str, time_max: Duration) -> Result<Self, ScanError> {
        let topic = settings.topic.clone();
        let mut config = settings.client_config();
        // needed, and not joined: partitions are not shared out
        config.set("group.id", format!("{topic}.{name}")).set("enable.auto.commit", "false");
        Ok(Self { consumer: config.create()?, topic, deadline: Instant::now() + time_max })
    }

    /// The topic's partitions; none where there is no such topic.
    pub(crate) fn partitions(&self) -> Result<Vec<i32>, ScanError> {
        // All topics are asked for: a broker may make the one that it is asked for.
        let metadata = self.consumer.fetch_metadata(None, ANSWER)?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        Ok(found.map_or(&[][..], |found| found.partitions()).iter().map(|partition| partition.id()).collect())
    }

    /// The offsets that a partition has.
    pub(crate) fn offsets(&self, partition: i32) -> Result<Range<i64>, ScanError> {
        let (begin, end) = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER)?;
        Ok(begin..end)
    }

    /// The first offset of a partition whose record is not older; `None`: all are.
    pub(crate) fn offset_since(&self, partition: i32, since_ms: i64) -> Result<Option<i64>, ScanError> {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&self.topic, partition, Offset::Offset(since_ms))?;
        let found = self.consumer.offsets_for_times(times, ANSWER)?;
        Ok(match found.find_partition(&self.topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        })
    }

    /// Shows each record at these offsets to `see`.
    pub(crate) fn each<E: From<ScanError>>(
        &self,
        partition: i32,
        offsets: Range<i64>,
        mut see: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let kafka = |error: KafkaError| E::from(ScanError::Kafka(error));
        if offsets.is_empty() {
            return Ok(());
        }
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, partition, Offset::Offset(offsets.start)).map_err(kafka)?;
        self.consumer.assign(&place).map_err(kafka)?;
        let mut next = offsets.start;
        while next < offsets.end {
            if Instant::now() >= self.deadline {
                return Err(ScanError::TooLong(partition).into());
            }
            let Some(record) = self.consumer.poll(Duration::from_millis(100)) else {
                // Its last offsets may be marks of transactions, which are no messages.
                let at = self.consumer.position().map_err(kafka)?;
                if let Some(Offset::Offset(offset)) = at.find_partition(&self.topic, partition).map(|at| at.offset()) {
                    next = next.max(offset);
                }
                continue;
            };
            let record = record.map_err(kafka)?;
            next = record.offset() + 1;
            if offsets.contains(&record.offset()) {
                see(&record)?;
            }
        }
        Ok(())
    }
}
