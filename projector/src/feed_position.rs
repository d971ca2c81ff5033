//! How far a feed has been read: stored by the first statement of the transaction that writes a batch, together with the
//! versions of its owners, and only if the fence ([`crate::fence`]) is the one that this process knows. The statement then
//! holds the rows until the transaction ends, so that nobody else writes for the same owners.

use std::sync::Arc;

use domain::{OwnerId, Time};
use read_model::OwnerRow;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::checkpoint::Checkpoint;
use crate::columns::columns;
use crate::owners::OwnerChanges;

/// How far a feed has been read once a batch is written.
#[derive(Debug)]
pub(crate) enum FeedPosition {
    /// Of the store: a shard's checkpoint.
    Checkpoint {
        shard: i16,
        /// As it is known. Its position is compared, too: a crash of Postgres may set both back.
        known: Checkpoint,
        position: i64,
        /// Of the last event.
        recorded_at: Option<Time>,
    },
    /// Of Kafka: all of these partitions, or none.
    Partitions { topic: Arc<str>, partitions: Vec<PartitionPosition> },
    /// As far as before: the open transaction has raised the fence already.
    Unmoved,
}

/// How far a partition is read.
#[derive(Debug)]
pub(crate) struct PartitionPosition {
    pub partition: i32,
    /// As it is known.
    pub fence: i64,
    pub next_offset: i64,
    pub publication: i64,
    /// Of each shard that has moved.
    pub positions: Vec<(i16, i64)>,
}

columns!(PartitionColumns for<'r> of position: &'r PartitionPosition {
    partition: i32 = position.partition,
    fence: i64 = position.fence,
    next_offset: i64 = position.next_offset,
    publication: i64 = position.publication,
});

columns!(ShardColumns of (partition, (shard, position)): (i32, (i16, i64)) {
    partition: i32 = partition,
    shard: i16 = shard,
    position: i64 = position,
});

/// A row for each owner whose row was changed, or one without.
struct Advanced {
    moved: i64,
    owner_id: Option<Uuid>,
    revision: Option<i64>,
    change_counter: Option<i64>,
    parked_position: Option<i64>,
}

/// Changes the rows of owners where the CTE `moved`, which comes first, has a row. Its arguments are `$6` and on.
macro_rules! advance {
    ($moved:literal, $connection:ident, $generation:ident, $owners:ident $(, $argument:expr)*) => {
        sqlx::query_as!(
            Advanced,
            "with " + $moved + r#",
            changed as (
                update read_model.owner as o
                set revision = greatest(o.revision, n.revision), change_counter = o.change_counter + n.counter,
                    parked_position = least(o.parked_position, n.parked_position)
                from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
                    as n (owner_id, revision, counter, parked_position)
                where o.generation = $1 and o.owner_id = n.owner_id and exists (select from moved)
                returning o.owner_id, o.revision, o.change_counter, o.parked_position
            )
            select m.moved as "moved!", o.owner_id as "owner_id?", o.revision as "revision?",
                o.change_counter as "change_counter?", o.parked_position as "parked_position?"
            from (select count(*) as moved from moved) as m
            left join changed as o on true
            "#,
            $generation,
            &$owners.owner_id,
            &$owners.revision,
            &$owners.counter,
            &$owners.parked_position as &[Option<i64>],
            $($argument,)*
        )
        .fetch_all(&mut *$connection)
    };
}

impl FeedPosition {
    /// Stores it, and changes the owners. Returns the rows of these; `None`: another process has raised the fence, and
    /// nothing was written.
    pub(crate) async fn advance(
        &self,
        changes: &OwnerChanges,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<Option<Vec<OwnerRow>>, sqlx::Error> {
        let owners = changes.columns();
        let advanced = match self {
            Self::Checkpoint { shard, known, position, recorded_at } => {
                advance!(
                    "moved as (
                        update read_model.checkpoint
                        set position = $6, turn = turn + 1, recorded_at = coalesce($7, recorded_at)
                        where generation = $1 and shard = $8 and turn = $9 and position = $10
                        returning 1
                    )",
                    connection,
                    generation,
                    owners,
                    *position,
                    *recorded_at,
                    *shard,
                    known.fence,
                    known.position
                )
                .await?
            }
            Self::Partitions { topic, partitions } => {
                let columns = PartitionColumns::of(partitions);
                let positions = partitions.iter().flat_map(|of| of.positions.iter().map(|at| (of.partition, *at)));
                let positions = ShardColumns::of(positions);
                advance!(
                    "still_ours as (
                        select p.partition
                        from unnest($7::int[], $8::bigint[]) as k (partition, turn)
                        join read_model.kafka_partition as p
                            on p.topic = $6 and p.partition = k.partition and p.turn = k.turn
                        order by p.partition
                        for update of p
                    ),
                    moved as (
                        update read_model.kafka_partition as p
                        set next_offset = k.next_offset, publication = k.publication, turn = p.turn + 1, trouble = null
                        from unnest($7::int[], $8::bigint[], $9::bigint[], $10::bigint[])
                            as k (partition, turn, next_offset, publication)
                        where p.topic = $6 and p.partition = k.partition and p.turn = k.turn
                            and (select count(*) from still_ours) = cardinality($7::int[])
                        returning 1
                    ),
                    positions as (
                        insert into read_model.kafka_position (topic, partition, shard, position)
                        select $6, n.partition, n.shard, n.position
                        from unnest($11::int[], $12::smallint[], $13::bigint[]) as n (partition, shard, position)
                        where exists (select from moved)
                        on conflict (topic, partition, shard) do update set position = excluded.position
                    )",
                    connection,
                    generation,
                    owners,
                    &**topic,
                    &columns.partition,
                    &columns.fence,
                    &columns.next_offset,
                    &columns.publication,
                    &positions.partition,
                    &positions.shard,
                    &positions.position
                )
                .await?
            }
            Self::Unmoved => advance!("moved as (select 1)", connection, generation, owners).await?,
        };
        if advanced.first().is_none_or(|row| row.moved == 0) {
            return Ok(None);
        }
        let rows = advanced.into_iter().filter_map(|row| {
            Some(OwnerRow {
                owner_id: OwnerId(row.owner_id?),
                revision: row.revision?,
                change_counter: row.change_counter?,
                parked_position: row.parked_position,
            })
        });
        let mut rows = rows.collect();
        changes.insert_new(&mut rows, generation, connection).await?;
        Ok(Some(rows))
    }
}
