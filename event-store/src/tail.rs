//! The log in order. Positions are gapless and commit order is position order, so `position > last` misses nothing.

use std::time::Duration;

use backends::database::Pool;
use domain::{OwnerId, StoredEvent, TaskId, Time};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::error;
use uuid::Uuid;

use crate::dedicated_connection::{in_time, page_in_time};

/// How often it is looked whether it is still the same log.
const REPLACED_LOOK_MS: u64 = 1_000;

/// Settings of connections that read the log page by page, in the order of an index. Plans are made for that: on the
/// statistics of a fresh table the planner would rather sort all of it for each page.
pub const IN_INDEX_ORDER: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_custom_plan"),
];

/// Reads the log. Cheap to clone. A database that hangs is an error after some seconds.
#[derive(Clone)]
pub struct TailReader {
    pool: Pool,
    wake: Option<watch::Receiver<u64>>,
}

/// How far a shard is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which shard.
    pub shard: i16,
    /// Everything up to here is on the brokers.
    pub cursor: i64,
    /// Number of the publication.
    pub publication: i64,
    /// The topic.
    pub topic: String,
    /// Each partition with the position of its last event up to the cursor; where this publication has put none there
    /// yet, the position that it began after.
    pub last_positions: Vec<(i32, i64)>,
}

/// An event from a row of a statement that selects these columns.
macro_rules! stored_event {
    ($row:expr) => {{
        let row = $row;
        let (correlation_id, traceparent) =
            crate::trace_columns::as_given(row.correlation_id, row.traceparent, row.change_id);
        domain::StoredEvent {
            shard: row.shard,
            position: row.position,
            owner_id: domain::OwnerId(row.owner_id),
            task_id: domain::TaskId(row.task_id),
            version: row.version,
            event_id: row.event_id,
            event_type: row.event_type,
            schema_version: row.schema_version,
            occurred_at: row.occurred_at,
            recorded_at: row.recorded_at,
            actor_type: row.actor_type,
            actor_id: row.actor_id,
            command_id: row.command_id,
            correlation_id,
            traceparent,
            change_id: row.change_id,
            undoes: row.undoes,
            data: row.data,
        }
    }};
}
pub(crate) use stored_event;

/// The events of a statement that goes on so after `from event_store.event`.
macro_rules! events {
    ($which:literal, $($argument:expr),+ $(,)?) => {
        sqlx::query!(
            r#"
            select shard, position, owner_id, task_id, version, event_id, type as event_type, schema_version,
                occurred_at as "occurred_at: Time", recorded_at as "recorded_at: Time", actor_type, actor_id,
                command_id, correlation_id, traceparent, data, change_id, undoes
            from event_store.event
            "# + $which,
            $($argument),+
        )
        .map(|row| stored_event!(row))
    };
}

impl TailReader {
    /// Reads by way of `pool`; `wake` is changed by appends of this process.
    #[must_use]
    pub fn new(pool: Pool, wake: Option<watch::Receiver<u64>>) -> Self {
        Self { pool, wake }
    }

    /// Identity of the log.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn log_id(&self) -> Result<Uuid, sqlx::Error> {
        in_time(sqlx::query_scalar!("select log_id from event_store.log").fetch_one(&self.pool)).await
    }

    /// Returns once the log has another id than this one: it was restored from a backup, or is another one altogether,
    /// and what this process knows of it is of no use any more. Looked at every second; a database that is away says
    /// nothing.
    pub async fn replaced(&self, known: Uuid) {
        loop {
            sleep(Duration::from_millis(REPLACED_LOOK_MS)).await;
            if let Ok(now) = self.log_id().await
                && now != known
            {
                error!(%known, %now, "the log was replaced by another one; this process ends, and has to be started again");
                return;
            }
        }
    }

    /// Each shard with the position of its last event.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn heads(&self) -> Result<Vec<(i16, i64)>, sqlx::Error> {
        let rows = sqlx::query!("select shard, position from event_store.head order by shard").fetch_all(&self.pool);
        Ok(in_time(rows).await?.into_iter().map(|row| (row.shard, row.position)).collect())
    }

    /// How far each shard is published, as the relay has it at this moment. Shards that are not published are left out.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn published(&self) -> Result<Vec<Published>, sqlx::Error> {
        // one statement, one snapshot
        let published = sqlx::query!(
            r#"
            select c.shard, c.position, r.publication, r.topic as "topic!",
                array(
                    select coalesce(p.position, c.base)
                    from generate_series(0, r.partitions - 1) as n (partition)
                    left join event_store.relay_partition p on p.shard = c.shard and p.partition = n.partition
                    order by n.partition
                ) as "last_positions!"
            from event_store.relay_cursor c, event_store.relay r
            where r.topic is not null
            order by c.shard
            "#
        )
        .fetch_all(&self.pool);
        let published = in_time(published).await?.into_iter().map(|row| Published {
            shard: row.shard,
            cursor: row.position,
            publication: row.publication,
            topic: row.topic,
            last_positions: (0..).zip(row.last_positions).collect(),
        });
        Ok(published.collect())
    }

    /// The events of a shard past `position`, in order, at most `events_max`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_after(
        &self,
        shard: i16,
        position: i64,
        events_max: i64,
    ) -> Result<Vec<StoredEvent>, sqlx::Error> {
        let events = events!(
            "where shard = $1 and position > $2
             order by position
             limit $3",
            shard,
            position,
            events_max,
        );
        in_time(events.fetch_all(&self.pool)).await
    }

    /// The events of a shard at these positions, in order, as far as there are some.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_at(&self, shard: i16, positions: &[i64]) -> Result<Vec<StoredEvent>, sqlx::Error> {
        let events = events!(
            "where shard = $1 and position = any ($2)
             order by position",
            shard,
            positions,
        );
        in_time(events.fetch_all(&self.pool)).await
    }

    /// The events of a shard stream by stream, in the order of (owner, task, version), past `after`, at most
    /// `events_max`, and only those up to `position_until`: what is there does not change any more.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_streams_after(
        &self,
        shard: i16,
        after: Option<(OwnerId, TaskId, i64)>,
        position_until: i64,
        events_max: i64,
    ) -> Result<Vec<StoredEvent>, sqlx::Error> {
        let (owner_id, task_id, version) = after.map_or((Uuid::nil(), Uuid::nil(), -1), |(o, t, v)| (o.0, t.0, v));
        let page = events!(
            "where (owner_id, task_id, version) > ($2, $3, $4) and shard = $1 and position <= $5
             order by owner_id, task_id, version
             limit $6",
            shard,
            owner_id,
            task_id,
            version,
            position_until,
            events_max,
        );
        page_in_time(page.fetch_all(&self.pool)).await
    }

    /// The events of one owner stream by stream, in the order of (task, version), past `after`, at most `events_max`,
    /// and only those up to `position_until`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_owner_streams_after(
        &self,
        owner_id: OwnerId,
        after: Option<(TaskId, i64)>,
        position_until: i64,
        events_max: i64,
    ) -> Result<Vec<StoredEvent>, sqlx::Error> {
        let (task_id, version) = after.map_or((Uuid::nil(), -1), |(task_id, version)| (task_id.0, version));
        let page = events!(
            "where owner_id = $1 and (task_id, version) > ($2, $3) and position <= $4
             order by owner_id, task_id, version
             limit $5",
            owner_id.0,
            task_id,
            version,
            position_until,
            events_max,
        );
        page_in_time(page.fetch_all(&self.pool)).await
    }

    /// The events of these streams of one owner, in the order of (task, version), past `after`, at most `events_max`, and
    /// only those up to `position_until`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_streams_of(
        &self,
        owner_id: OwnerId,
        task_ids: &[TaskId],
        after: Option<(TaskId, i64)>,
        position_until: i64,
        events_max: i64,
    ) -> Result<Vec<StoredEvent>, sqlx::Error> {
        let (task_id, version) = after.map_or((Uuid::nil(), -1), |(task_id, version)| (task_id.0, version));
        let task_ids: Vec<Uuid> = task_ids.iter().map(|task_id| task_id.0).collect();
        let page = events!(
            "where owner_id = $1 and task_id = any ($2) and (task_id, version) > ($3, $4) and position <= $5
             order by owner_id, task_id, version
             limit $6",
            owner_id.0,
            &task_ids,
            task_id,
            version,
            position_until,
            events_max,
        );
        page_in_time(page.fetch_all(&self.pool)).await
    }

    /// Returns after an append of this process, or after `wait_ms_max`: the wake-up is a hint, polling the guarantee.
    pub async fn changed(&mut self, wait_ms_max: u64) {
        let wait = Duration::from_millis(wait_ms_max);
        match &mut self.wake {
            // The appender may have ended, as in a shutdown: then there is only the time.
            Some(wake) => match timeout(wait, wake.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => sleep(wait).await,
            },
            None => sleep(wait).await,
        }
    }
}
