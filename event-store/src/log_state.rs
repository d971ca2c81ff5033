//! The log as a connection finds it: whether it is where it was last written, and has what this process has seen of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgConnection;
use uuid::Uuid;

/// The log is not to be written on this connection.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database was restored, or a standby was promoted, and it is not known yet whether events are missing; nothing is \
     appended until that is checked"
)]
pub(crate) struct Unsettled;

/// What this process has seen of a log: the last event of each shard that it appended or looked up. It has answered by it,
/// and keeps streams and outcomes up to there. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    log_id: Uuid,
    /// By shard: the event's position and id.
    last: Arc<Mutex<BTreeMap<i16, (i64, Uuid)>>>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn of(log_id: Uuid) -> Self {
        Self { log_id, ..Self::default() }
    }

    /// Events that are in the log: shard, position, id.
    pub(crate) fn note(&self, events: impl IntoIterator<Item = (i16, i64, Uuid)>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (shard, position, event_id) in events {
            let seen = last.entry(shard).or_insert((position, event_id));
            if position > seen.0 {
                *seen = (position, event_id);
            }
        }
    }

    /// Of which log.
    pub(crate) fn log_id(&self) -> Uuid {
        self.log_id
    }

    fn columns(&self) -> (Vec<i16>, Vec<i64>, Vec<Uuid>) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = last.values().map(|(position, _)| *position).collect();
        let event_ids = last.values().map(|(_, event_id)| *event_id).collect();
        (last.keys().copied().collect(), positions, event_ids)
    }
}

/// The log as it is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogState {
    pub(crate) log_id: Uuid,
    /// Whether it is where it was last written.
    pub(crate) is_settled: bool,
    /// Shard and position of an event that was seen and is not there.
    pub(crate) lacking: Option<(i16, i64)>,
}

/// How this connection finds the log.
pub(crate) async fn look(connection: &mut PgConnection, seen: &Seen) -> Result<LogState, sqlx::Error> {
    let (shards, positions, event_ids) = seen.columns();
    let log = sqlx::query!(
        r#"
        select log_id, lineage is not distinct from event_store.lineage() as "is_settled!",
            array(
                select s.shard
                from unnest($1::smallint[], $2::bigint[], $3::uuid[]) as s (shard, position, event_id)
                where not exists (
                    select from event_store.event e
                    where e.shard = s.shard and e.position = s.position and e.event_id = s.event_id
                )
            ) as "lacking!"
        from event_store.log
        "#,
        &shards,
        &positions,
        &event_ids,
    )
    .fetch_one(connection)
    .await?;
    let lacking = shards.into_iter().zip(positions).find(|(shard, _)| log.lacking.contains(shard));
    Ok(LogState { log_id: log.log_id, is_settled: log.is_settled, lacking })
}

/// Refuses a connection that leads to another line of history than the one on which the log was last written, or to a log
/// without what was seen of it: another copy, which had not seen it, may have settled it.
pub(crate) async fn check(connection: &mut PgConnection, seen: &Seen) -> Result<(), sqlx::Error> {
    let log = look(connection, seen).await?;
    if log.is_settled && log.lacking.is_none() {
        return Ok(());
    }
    Err(sqlx::Error::Configuration(Box::new(Unsettled)))
}
