//! Up to which position the brokers have a log: what a log that was restored is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::scan::{Scan, ScanError};
use crate::{KafkaSettings, record};

/// All of it may take so long.
const LOOK_TIME_MAX: Duration = Duration::from_secs(60);
/// So many messages before the end of a partition are looked at first, and so many times more where they do not tell.
const FIRST_LOOK_MESSAGES: i64 = 16;
const LOOK_GROWTH: i64 = 16;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Sought {
    /// The log.
    pub log_id: Uuid,
    /// Its shards.
    pub shards: Vec<i16>,
    /// A publication that it knows itself: what an earlier one has sent is in the log.
    pub publication: i64,
}

/// The last position of each shard that the topic has.
///
/// # Errors
/// See [`ScanError`].
pub async fn known_positions(settings: KafkaSettings, sought: Sought) -> Result<Vec<(i16, i64)>, ScanError> {
    let looking = tokio::task::spawn_blocking(move || look(&settings, &sought));
    looking.await.map_err(|_| ScanError::Interrupted)?
}

fn look(settings: &KafkaSettings, sought: &Sought) -> Result<Vec<(i16, i64)>, ScanError> {
    let scan = Scan::of(settings, "known", LOOK_TIME_MAX)?;
    let mut known = BTreeMap::new();
    for partition in scan.partitions()? {
        let offsets = scan.offsets(partition)?;
        let mut messages = FIRST_LOOK_MESSAGES;
        loop {
            let from = offsets.start.max(offsets.end - messages);
            // shards of which there is nothing new before these messages
            let mut told = BTreeSet::new();
            scan.each(partition, from..offsets.end, |message| -> Result<(), ScanError> {
                let (log_id, shard, position, publication) = match record::read(message) {
                    Ok(read) => {
                        (Some(read.log_id), Some(read.event.shard), Some(read.event.position), Some(read.publication))
                    }
                    Err(unreadable) => {
                        (unreadable.log_id, unreadable.shard, unreadable.position, unreadable.publication)
                    }
                };
                if let (Some(shard), Some(position)) = (shard, position)
                    && log_id == Some(sought.log_id)
                {
                    let last = known.entry(shard).or_insert(position);
                    *last = position.max(*last);
                    if publication.is_some_and(|publication| publication <= sought.publication) {
                        told.insert(shard);
                    }
                }
                Ok(())
            })?;
            if from == offsets.start || sought.shards.iter().all(|shard| told.contains(shard)) {
                break;
            }
            messages = messages.saturating_mul(LOOK_GROWTH);
        }
    }
    Ok(known.into_iter().collect())
}
