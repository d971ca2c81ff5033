//! The lease of the relay: one process publishes at a time, until its lease expires by the database's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use backends::database::Pool;
use sqlx::Connection;
use uuid::Uuid;

use crate::dedicated_connection::DedicatedConnection;

/// The right to publish, until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Tells this holder from all before it.
    pub epoch: i64,
    /// Number of the publication.
    pub publication: i64,
    /// Where each shard stands.
    pub shards: Vec<ShardCursor>,
}

/// Where the publication of a shard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCursor {
    /// Which shard.
    pub shard: i16,
    /// Everything up to here is published.
    pub position: i64,
    /// The last published position of each partition, but for those where it is `base`.
    pub last_positions: BTreeMap<i32, i64>,
    /// What stands for the last position of the other partitions.
    pub base: i64,
}

/// Who asks for the lease does not get it.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The log goes elsewhere.
    #[error(
        "the log is published to {topic} with {partitions} partitions, not to {wanted_topic} with {wanted_partitions}: \
         set PRIMETRADE_KAFKA_TOPIC and PRIMETRADE_KAFKA_PARTITIONS so, or move it with `primetrade republish --from 1`"
    )]
    Elsewhere {
        /// Where it goes.
        topic: String,
        /// How many partitions that has.
        partitions: i32,
        /// Where it was to go.
        wanted_topic: String,
        /// And to how many.
        wanted_partitions: i32,
    },
    /// The database does not answer.
    #[error("the event store: {0}")]
    Database(#[from] sqlx::Error),
}

/// The lease of the relay.
pub struct Lease {
    connection: DedicatedConnection,
    holder: Uuid,
}

impl Lease {
    pub(crate) fn new(pool: &Pool, holder: Uuid) -> Self {
        Self { connection: DedicatedConnection::new(pool), holder }
    }

    /// Takes the lease for so long, where nobody else has it; also from itself. The epoch is a new one each time.
    /// `None`: somebody else has it.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn acquire(
        &mut self,
        lease: Duration,
        wanted_topic: &str,
        wanted_partitions: i32,
    ) -> Result<Option<Term>, LeaseError> {
        let holder = self.holder;
        let elsewhere = |topic, partitions| LeaseError::Elsewhere {
            topic,
            partitions,
            wanted_topic: wanted_topic.to_owned(),
            wanted_partitions,
        };
        self.connection.look().await;
        self.connection
            .run(async |connection| {
                let mut transaction = connection.begin().await?;
                let relay = sqlx::query!(
                    r#"
                    update event_store.relay
                    set epoch = epoch + 1, holder = $1, expires_at = clock_timestamp() + make_interval(secs => $2),
                        topic = case when may_move or topic is null then $3 else topic end,
                        partitions = case when may_move or topic is null then $4 else partitions end,
                        may_move = false
                    where holder is null or holder = $1 or expires_at < clock_timestamp()
                    returning epoch, publication, topic as "topic!", partitions as "partitions!"
                    "#,
                    holder,
                    lease.as_secs_f64(),
                    wanted_topic,
                    wanted_partitions,
                )
                .fetch_optional(&mut *transaction)
                .await?;
                let Some(relay) = relay else {
                    transaction.rollback().await?;
                    return Ok(Ok(None));
                };
                if relay.topic != wanted_topic || relay.partitions != wanted_partitions {
                    transaction.rollback().await?;
                    return Ok(Err(elsewhere(relay.topic, relay.partitions)));
                }
                sqlx::query!(
                    r#"
                    insert into event_store.relay_cursor (shard, position, base)
                    select shard, 0, 0 from event_store.head
                    on conflict do nothing
                    "#
                )
                .execute(&mut *transaction)
                .await?;
                let shards = sqlx::query!("select shard, position, base from event_store.relay_cursor order by shard")
                    .fetch_all(&mut *transaction)
                    .await?;
                let partitions = sqlx::query!("select shard, partition, position from event_store.relay_partition")
                    .fetch_all(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                let last_positions = |shard| {
                    let of_shard = partitions.iter().filter(|row| row.shard == shard);
                    of_shard.map(|row| (row.partition, row.position)).collect()
                };
                let shards = shards.iter().map(|row| ShardCursor {
                    shard: row.shard,
                    position: row.position,
                    last_positions: last_positions(row.shard),
                    base: row.base,
                });
                Ok(Ok(Some(Term { epoch: relay.epoch, publication: relay.publication, shards: shards.collect() })))
            })
            .await?
    }

    /// Keeps the lease for so long from now on. `false`: it is somebody else's, or was ended.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn renew(&mut self, epoch: i64, lease: Duration) -> Result<bool, sqlx::Error> {
        self.connection.look().await;
        self.connection
            .run(async |connection| {
                let renewed = sqlx::query!(
                    r#"
                    update event_store.relay set expires_at = clock_timestamp() + make_interval(secs => $2)
                    where epoch = $1
                    "#,
                    epoch,
                    lease.as_secs_f64(),
                );
                Ok(renewed.execute(connection).await?.rows_affected() == 1)
            })
            .await
    }

    /// Gives the lease back, so that another need not wait for its end. Nothing happens where it is somebody else's.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn release(&mut self, epoch: i64) -> Result<(), sqlx::Error> {
        self.connection.look().await;
        self.connection
            .run(async |connection| {
                sqlx::query!(
                    r#"
                    update event_store.relay set holder = null, expires_at = '-infinity', epoch = epoch + 1
                    where epoch = $1
                    "#,
                    epoch,
                )
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}
