//! How far the log is published: a cursor, which moves only under the epoch of the [lease](crate::lease), and the last
//! published position of each partition.

use std::collections::BTreeMap;

use backends::database::Pool;
use uuid::Uuid;

use crate::dedicated_connection::{DedicatedConnection, in_time};
use crate::lease::Lease;
use crate::tail::TailReader;

/// How far the log is published, and who may go on with it. Cheap to clone.
#[derive(Clone)]
pub struct Publication {
    pool: Pool,
    tail: TailReader,
}

/// More of a shard is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Which shard.
    pub shard: i16,
    /// Everything up to here.
    pub position: i64,
    /// The last position of each partition that something was added to.
    pub last_positions: BTreeMap<i32, i64>,
}

/// How much of a shard is not published yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unpublished {
    /// Which shard.
    pub shard: i16,
    /// Everything up to here is published.
    pub cursor: i64,
    /// Events past the cursor.
    pub events: i64,
    /// How long ago the first of them was stored, in seconds, by the database's clock.
    pub seconds: f64,
}

/// Where a new publication has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Republished {
    /// Its number.
    pub publication: i64,
    /// Which shard is published again.
    pub shard: i16,
    /// From this position on.
    pub from: i64,
    /// So many events that were published before.
    pub events: i64,
    /// The topic they were published to; `None`: to none yet.
    pub topic: Option<String>,
}

/// A new publication cannot begin there.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// There is more than one shard, and none was named.
    #[error("the log has the shards {0:?}: say which one with --shard")]
    WhichShard(Vec<i16>),
    /// There is no such shard.
    #[error("the log has no shard {0}")]
    NoShard(i16),
    /// What is not published yet would be left out.
    #[error("--from must be 1 to {next}: shard {shard} is published up to {}, and nothing may be left out", next - 1)]
    NotYet {
        /// The shard.
        shard: i16,
        /// The first position that is not published.
        next: i64,
    },
    /// The database does not answer.
    #[error("the event store: {0}")]
    Database(#[from] sqlx::Error),
}

impl Publication {
    /// Of the log in this database.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { tail: TailReader::new(pool.clone(), None), pool }
    }

    pub(crate) fn with_tail(pool: Pool, tail: TailReader) -> Self {
        Self { pool, tail }
    }

    /// The log.
    #[must_use]
    pub fn tail(&self) -> TailReader {
        self.tail.clone()
    }

    /// The lease, on a connection of its own. `holder` is the process that asks for it.
    #[must_use]
    pub fn lease(&self, holder: Uuid) -> Lease {
        Lease::new(&self.pool, holder)
    }

    /// The cursor, on a connection of its own.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        // A cursor that a crash of the server takes back a little means some messages twice.
        Cursor { connection: DedicatedConnection::with(&self.pool, [("synchronous_commit", "off")]) }
    }

    /// What is not published yet, of each shard.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn unpublished(&self) -> Result<Vec<Unpublished>, sqlx::Error> {
        let unpublished = sqlx::query!(
            r#"
            select h.shard, coalesce(c.position, 0) as "cursor!",
                greatest(h.position - coalesce(c.position, 0), 0) as "events!",
                greatest(extract(epoch from clock_timestamp() - e.recorded_at), 0)::float8 as seconds
            from event_store.head h
            left join event_store.relay_cursor c on c.shard = h.shard
            left join event_store.event e on e.shard = h.shard and e.position = coalesce(c.position, 0) + 1
            order by h.shard
            "#
        )
        .fetch_all(&self.pool);
        let unpublished = in_time(unpublished).await?.into_iter().map(|row| Unpublished {
            shard: row.shard,
            cursor: row.cursor,
            events: row.events,
            seconds: row.seconds.unwrap_or(0.0),
        });
        Ok(unpublished.collect())
    }

    /// Begins a new publication, at position `from` of a shard: what is past it is published again. Whoever publishes
    /// at the moment loses the lease, and the next holder may publish to another topic.
    ///
    /// # Errors
    /// See [`RepublishError`].
    pub async fn republish(&self, from: i64, shard: Option<i16>) -> Result<Republished, RepublishError> {
        let mut transaction = self.pool.begin().await?;
        let relay = sqlx::query!(
            r#"
            update event_store.relay
            set epoch = epoch + 1, holder = null, expires_at = '-infinity', publication = publication + 1, may_move = true
            returning publication, topic
            "#
        )
        .fetch_one(&mut *transaction)
        .await?;
        let shards = sqlx::query!(
            r#"
            select h.shard, coalesce(c.position, 0) as "position!"
            from event_store.head h left join event_store.relay_cursor c on c.shard = h.shard
            order by h.shard
            "#
        )
        .fetch_all(&mut *transaction)
        .await?;
        let shard = match (shard, shards.as_slice()) {
            (Some(shard), _) => shard,
            (None, [only]) => only.shard,
            (None, several) => {
                return Err(RepublishError::WhichShard(several.iter().map(|row| row.shard).collect()));
            }
        };
        let Some(cursor) = shards.iter().find(|row| row.shard == shard).map(|row| row.position) else {
            return Err(RepublishError::NoShard(shard));
        };
        if !(1..=cursor + 1).contains(&from) {
            return Err(RepublishError::NotYet { shard, next: cursor + 1 });
        }
        sqlx::query!(
            r#"
            insert into event_store.relay_cursor as c (shard, position, base) values ($1, $2, $2)
            on conflict (shard) do update set position = excluded.position, base = excluded.base
            "#,
            shard,
            from - 1,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("delete from event_store.relay_partition where shard = $1", shard)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Republished { publication: relay.publication, shard, from, events: cursor + 1 - from, topic: relay.topic })
    }
}

/// The cursor of the relay.
pub struct Cursor {
    connection: DedicatedConnection,
}

impl Cursor {
    /// Moves the cursor of some shards, each named once, and the last positions of their partitions: all of it, where
    /// the epoch is the current one. `false`: it is not, and nothing was moved.
    ///
    /// # Errors
    /// The database does not answer: whether something was moved is unknown.
    pub async fn advance(&mut self, epoch: i64, advances: &[Advance]) -> Result<bool, sqlx::Error> {
        let shards: Vec<i16> = advances.iter().map(|advance| advance.shard).collect();
        let positions: Vec<i64> = advances.iter().map(|advance| advance.position).collect();
        let lasts = || {
            let of = |advance: &Advance| (advance.shard, advance.last_positions.clone());
            advances.iter().map(of).flat_map(|(shard, lasts)| lasts.into_iter().map(move |(p, last)| (shard, p, last)))
        };
        let last_shards: Vec<i16> = lasts().map(|(shard, _, _)| shard).collect();
        let last_partitions: Vec<i32> = lasts().map(|(_, partition, _)| partition).collect();
        let last_positions: Vec<i64> = lasts().map(|(_, _, last)| last).collect();
        self.connection.look().await;
        self.connection
            .run(async |connection| {
                sqlx::query_scalar!(
                    r#"
                    with mine as materialized (
                        select from event_store.relay where epoch = $1 for share
                    ), moved as (
                        update event_store.relay_cursor c set position = m.position
                        from unnest($2::smallint[], $3::bigint[]) as m (shard, position), mine
                        where c.shard = m.shard
                    ), noted as (
                        insert into event_store.relay_partition as p (shard, partition, position)
                        select l.shard, l.partition, l.position
                        from unnest($4::smallint[], $5::int[], $6::bigint[]) as l (shard, partition, position), mine
                        on conflict (shard, partition) do update set position = excluded.position
                    )
                    select exists (select from mine) as "moved!"
                    "#,
                    epoch,
                    &shards,
                    &positions,
                    &last_shards,
                    &last_partitions,
                    &last_positions,
                )
                .fetch_one(connection)
                .await
            })
            .await
    }
}
