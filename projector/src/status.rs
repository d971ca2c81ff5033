//! What the tables say of the projection: its feed, its rebuild, what is parked.

use std::collections::HashMap;

use backends::database::Pool;
use domain::Time;

use crate::rebuild::LOCK;

/// Of the live generation, but for its rebuild.
pub(crate) struct Status {
    /// `store` or `kafka`.
    pub feed: String,
    /// Where it is fed from Kafka.
    pub partitions: Vec<PartitionStatus>,
    /// Events by shard; messages of Kafka that nobody can read have none.
    pub parked: HashMap<Option<i16>, i64>,
    pub rebuild: Option<RebuildStatus>,
}

/// How far a partition is read.
pub(crate) struct PartitionStatus {
    pub topic: String,
    pub partition: i32,
    /// `None`: nothing is read yet.
    pub next_offset: Option<i64>,
    pub publication: i64,
    /// Why nothing is read of it, and what mends it.
    pub trouble: Option<String>,
}

/// A generation that is being made.
pub(crate) struct RebuildStatus {
    pub generation: i32,
    pub phase: String,
    pub events_done: i64,
    pub events_total: i64,
    pub events_per_second: i64,
    pub started_at: Time,
    /// False: it was stopped.
    pub running: bool,
}

pub(crate) async fn load(pool: &Pool) -> Result<Status, sqlx::Error> {
    let rebuild = sqlx::query_as!(
        RebuildStatus,
        r#"
        select generation, phase, events_done, events_total, events_per_second, started_at as "started_at: Time",
            exists (
                select from pg_locks
                where locktype = 'advisory' and granted and classid = $1::int::oid and objid = $2::int::oid
                    and database = (select oid from pg_database where datname = current_database())
            ) as "running!"
        from read_model.generation where state = 'building' order by generation desc limit 1
        "#,
        LOCK.0,
        LOCK.1,
    )
    .fetch_optional(pool)
    .await?;
    let parked = sqlx::query!(
        r#"
        select k.shard, count(*) as "count!"
        from read_model.parked as k join read_model.projection as p on k.generation = p.live_generation
        group by k.shard
        "#,
    )
    .fetch_all(pool)
    .await?;
    let feed = sqlx::query_scalar!("select feed from read_model.projection").fetch_one(pool).await?;
    let partitions = sqlx::query_as!(
        PartitionStatus,
        r#"
        select topic, partition, next_offset, publication, trouble
        from read_model.kafka_partition
        where exists (select from read_model.projection where feed = 'kafka')
        order by topic, partition
        "#,
    )
    .fetch_all(pool)
    .await?;
    let parked = parked.into_iter().map(|row| (row.shard, row.count)).collect();
    Ok(Status { feed, partitions, parked, rebuild })
}
