//! Claims of partitions: the fence of each is raised, so that no other process writes what it has read of them, and reading
//! begins at the stored offset.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection};
use tracing::warn;

use super::assignment::{Partition, State};
use super::chain::ChainPosition;
use crate::feed::follower::Follower;

pub(super) struct Claim {
    /// The live one.
    pub(super) generation: i32,
    /// How many partitions the topic has.
    pub(super) topic_partitions: i32,
    /// Whether the generation has anything parked.
    pub(super) any_parked: bool,
    pub(super) partitions: Vec<(i32, Partition)>,
}

/// Claims partitions that are assigned to us. `topic_partitions`: how many the topic has, as far as this copy knows; where
/// that `is_fresh` it was just asked, else another copy may have stored a newer number.
pub(super) async fn claim(
    connection: &mut PgConnection,
    follower: &Follower,
    topic: &str,
    numbers: &[i32],
    topic_partitions: i32,
    is_fresh: bool,
) -> Result<Claim, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Neither another feed nor another generation comes in between.
    let projection = sqlx::query!("select log_id, live_generation, feed from read_model.projection for share")
        .fetch_one(&mut *transaction)
        .await?;
    follower.check(projection.log_id, &projection.feed)?;
    if is_fresh {
        let moved = sqlx::query!(
            "update read_model.kafka_partition set partitions = $2, turn = turn + 1, trouble = null
                where topic = $1 and partitions <> $2",
            topic,
            topic_partitions,
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if moved > 0 {
            warn!(topic, partitions = topic_partitions, "the number of partitions has changed");
            sqlx::query!("delete from read_model.kafka_position where topic = $1", topic)
                .execute(&mut *transaction)
                .await?;
        }
    }
    let rows = sqlx::query!(
        r#"
            insert into read_model.kafka_partition as p (topic, partition, partitions, turn)
            select $1, n.partition, $2, 1 from unnest($3::int[]) as n (partition) order by n.partition
            on conflict (topic, partition) do update
                set turn = p.turn + 1, trouble = case when $4 then null else p.trouble end
            returning partition, partitions, turn, next_offset, publication
            "#,
        topic,
        topic_partitions,
        numbers,
        // Its new copy finds what is wrong with it, if that still is.
        is_fresh,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let positions = sqlx::query!(
        "select partition, shard, position from read_model.kafka_position
            where topic = $1 and partition = any ($2)",
        topic,
        numbers,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let any_parked = sqlx::query_scalar!(
        r#"select exists (select from read_model.parked where generation = $1) as "any_parked!""#,
        projection.live_generation,
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let topic_partitions = rows.first().map_or(topic_partitions, |row| row.partitions);
    let partitions = rows.into_iter().map(|row| {
        let positions = positions.iter().filter(|position| position.partition == row.partition);
        let chain = ChainPosition {
            publication: row.publication,
            positions: positions.map(|position| (position.shard, position.position)).collect(),
            awaited: BTreeMap::new(),
        };
        let (fence, next_offset, state) = (row.turn, row.next_offset, State::Seeking);
        (row.partition, Partition { fence, next_offset, chain, state, gap: None, asked: None })
    });
    let generation = projection.live_generation;
    Ok(Claim { generation, topic_partitions, any_parked, partitions: partitions.collect() })
}
