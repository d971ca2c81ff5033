//! The events of a log that the topic has beyond its head: what is left of them where the log's disk is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{StoredEvent, Time};
use messaging::Message;
use uuid::Uuid;

use crate::scan::{Scan, ScanError};
use crate::{KafkaSettings, record};

/// All of it may take so long.
const READ_TIME_MAX: Duration = Duration::from_secs(3_600);
/// A message may have been sent by a clock that is so much behind the one by which its event was recorded.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(600);

/// Why the events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The brokers do not answer, or there is too much.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Two events claim the same place.
    #[error("the topic has two different events at position {position} of shard {shard}: {first} and {second}")]
    Differ {
        /// The shard.
        shard: i16,
        /// The position.
        position: i64,
        /// One event's id.
        first: Uuid,
        /// The other's.
        second: Uuid,
    },
    /// A message of this log that cannot be read.
    #[error("a message of this log in partition {partition}, offset {offset}, cannot be read: {reason}")]
    Unreadable {
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A range of positions of one shard.
#[derive(Debug, Clone, Copy)]
pub struct PositionRange {
    /// The log.
    pub log_id: Uuid,
    /// Its shard.
    pub shard: i16,
    /// Its first position.
    pub from: i64,
    /// When the event there was recorded: what comes after it was sent later. `None`: whenever.
    pub since: Option<Time>,
    /// How many positions.
    pub length: i64,
    /// About so many bytes of events are held in memory at most: where there is more, the range is shorter.
    pub bytes_max: usize,
}

/// What the topic has of a range.
#[derive(Debug)]
pub struct Found {
    /// By position; each once, though it was published more often.
    pub events: BTreeMap<i64, StoredEvent>,
    /// All that the topic has of the range before this position is among them, and nothing from it on: where the range
    /// ends, or what there was no room for begins.
    pub until: i64,
    /// The last position of the shard that the topic has, beyond the range too.
    pub last_position: Option<i64>,
    /// The highest publication of the log, whatever shard it is of: readers of the topic take a lower one for repeated.
    pub publication: Option<i64>,
    /// Another log that the topic has messages of.
    pub other_log_id: Option<Uuid>,
    /// What the events take.
    bytes: usize,
}

/// Reads what the topic has of a range of the log.
///
/// # Errors
/// See [`TailError`].
pub async fn read(settings: KafkaSettings, range: PositionRange) -> Result<Found, TailError> {
    let reading = tokio::task::spawn_blocking(move || read_all(&settings, range));
    reading.await.map_err(|_| ScanError::Interrupted)?
}

fn read_all(settings: &KafkaSettings, range: PositionRange) -> Result<Found, TailError> {
    let scan = Scan::of(settings, "tail", READ_TIME_MAX)?;
    let mut found = Found::of(range);
    for partition in scan.partitions()? {
        let mut offsets = scan.offsets(partition)?;
        if let Some(since) = range.since {
            let since = since.timestamp_millis() - CLOCKS_APART_MAX.as_millis() as i64;
            let Some(first) = scan.offset_since(partition, since)? else { continue };
            offsets.start = offsets.start.max(first);
        }
        scan.each(partition, offsets, |message| match record::read(message) {
            Ok(read) if read.log_id == range.log_id => found.take(read, range),
            Err(unreadable) if unreadable.log_id == Some(range.log_id) => {
                let (partition, offset) = (partition, rdkafka::Message::offset(message));
                Err(TailError::Unreadable { partition, offset, reason: unreadable.reason })
            }
            Ok(read) => {
                found.other_log_id = Some(read.log_id);
                Ok(())
            }
            Err(unreadable) => {
                found.other_log_id = unreadable.log_id.or(found.other_log_id);
                Ok(())
            }
        })?;
    }
    Ok(found)
}

/// About what an event takes in memory.
fn bytes_of(event: &StoredEvent) -> usize {
    let texts = [&event.data, &event.event_type, &event.actor_type, &event.correlation_id, &event.traceparent];
    size_of::<StoredEvent>() + texts.iter().map(|text| text.len()).sum::<usize>()
}

impl Found {
    fn of(range: PositionRange) -> Self {
        let until = range.from + range.length;
        let (last_position, publication, other_log_id) = (None, None, None);
        Self { events: BTreeMap::new(), until, last_position, publication, other_log_id, bytes: 0 }
    }

    fn take(&mut self, message: Message, range: PositionRange) -> Result<(), TailError> {
        self.publication = self.publication.max(Some(message.publication));
        let event = message.event;
        let StoredEvent { shard, position, event_id, .. } = event;
        if shard != range.shard {
            return Ok(());
        }
        self.last_position = self.last_position.max(Some(position));
        if !(range.from..self.until).contains(&position) {
            return Ok(());
        }
        if let Some(first) = self.events.get(&position) {
            let first = first.event_id;
            return if first == event_id {
                Ok(())
            } else {
                Err(TailError::Differ { shard, position, first, second: event_id })
            };
        }
        self.bytes += bytes_of(&event);
        self.events.insert(position, event);
        // The first one and the one after it stay, however long they are: so each range leads further.
        while self.bytes > range.bytes_max && self.events.len() > 2 {
            let Some((last, event)) = self.events.pop_last() else { break };
            self.bytes -= bytes_of(&event);
            self.until = last;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use domain::{OwnerId, TaskId};

    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);

    fn message(position: i64, bytes: usize) -> Message {
        let at = domain::parse_time("2026-01-31T12:00:00Z").expect("a time");
        let event = StoredEvent {
            shard: 0,
            position,
            owner_id: OwnerId(Uuid::from_u128(2)),
            task_id: TaskId(Uuid::from_u128(3)),
            version: position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            event_type: String::new(),
            schema_version: 1,
            occurred_at: at,
            recorded_at: at,
            actor_type: String::new(),
            actor_id: None,
            command_id: Uuid::from_u128(4),
            correlation_id: String::new(),
            traceparent: String::new(),
            change_id: None,
            undoes: None,
            data: "x".repeat(bytes),
        };
        Message { event, log_id: LOG, publication: 1, previous_position: 0 }
    }

    /// The partitions come one after the other, so positions do not come in order.
    fn found(positions: impl IntoIterator<Item = i64>, bytes: usize, bytes_max: usize) -> Found {
        let range = PositionRange { log_id: LOG, shard: 0, from: 10, since: None, length: 100, bytes_max };
        let mut found = Found::of(range);
        for position in positions {
            found.take(message(position, bytes), range).expect("taken");
            assert!(found.bytes <= bytes_max.max(2 * bytes_of(&message(10, bytes).event)), "{} bytes", found.bytes);
        }
        found
    }

    #[test]
    fn what_there_is_no_room_for_is_left_for_the_next_range() {
        let all = || (10..60).step_by(2).chain((11..60).step_by(2)).chain(10..200);
        let positions = |found: &Found| found.events.keys().copied().collect::<Vec<_>>();
        let whole = found(all(), 1_000, 1 << 20);
        assert_eq!((positions(&whole), whole.until), ((10..110).collect(), 110));
        let part = found(all(), 1_000, 20_000);
        assert!((15..30).contains(&part.until), "{}", part.until);
        assert_eq!(positions(&part), (10..part.until).collect::<Vec<_>>());
        assert_eq!(part.last_position, Some(199));
        let least = found(all(), 1_000, 0);
        assert_eq!((positions(&least), least.until), (vec![10, 11], 12));
    }

    #[test]
    fn two_events_at_one_position_are_told() {
        let range = PositionRange { log_id: LOG, shard: 0, from: 1, since: None, length: 9, bytes_max: 1 << 20 };
        let mut found = Found::of(range);
        for _ in 0..2 {
            found.take(message(1, 1), range).expect("the same one again");
        }
        let mut other = message(1, 1);
        other.event.event_id = Uuid::from_u128(99);
        let refused = found.take(other, range).expect_err("another one");
        assert!(matches!(refused, TailError::Differ { shard: 0, position: 1, .. }), "{refused}");
    }
}
