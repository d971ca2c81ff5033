//! How far a feed has been read, and where owners stand: the first statement of the transaction that writes a batch. It
//! moves both, and only where the mark's turn is still the one that is known. Who has lost that race writes nothing;
//! who has won it holds the rows until the transaction ends, so that nobody else writes for the same owners.
//!
//! `read_model.owner` is no projection: its change counter is raised by whatever any of them changes, and by parking.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{OwnerId, StoredEvent, Time};
use sqlx::PgConnection;
use uuid::Uuid;

/// Added to an owner's change counter when an event is parked, or a parked one applied: see the migration.
const PARKING_STEP: i64 = 1 << 32;

/// What says how far a feed has been read. It moves together with the effect, and only if nobody else has moved it.
#[derive(Debug)]
pub(crate) enum Mark {
    /// Of the store: a shard's checkpoint.
    Checkpoint {
        shard: i16,
        /// As it was loaded.
        turn: i64,
        position: i64,
        recorded_at: Option<Time>,
    },
    /// Of Kafka: all of these partitions, or none.
    Partitions { topic: Arc<str>, partitions: Vec<PartitionMark> },
    /// The transaction that is open has raised the turn already.
    Held,
}

/// How far a partition is read.
#[derive(Debug)]
pub(crate) struct PartitionMark {
    pub partition: i32,
    /// As it is known.
    pub turn: i64,
    pub next_offset: i64,
    pub publication: i64,
    /// Of each shard that has moved.
    pub positions: Vec<(i16, i64)>,
}

/// What a batch does to owners.
#[derive(Debug, Default)]
pub(crate) struct OwnerChanges(BTreeMap<OwnerId, OwnerChange>);

#[derive(Debug)]
struct OwnerChange {
    shard: i16,
    revision: i64,
    counter: i64,
    parked_position: Option<i64>,
}

impl OwnerChanges {
    fn of(&mut self, event: &StoredEvent) -> &mut OwnerChange {
        self.0.entry(event.owner_id).or_insert(OwnerChange {
            shard: event.shard,
            revision: 0,
            counter: 0,
            parked_position: None,
        })
    }

    /// The event was applied.
    pub(crate) fn applied(&mut self, event: &StoredEvent) {
        let owner = self.of(event);
        owner.revision = owner.revision.max(event.position);
        owner.counter += 1;
    }

    /// An event was parked, or one that was parked is applied.
    pub(crate) fn parking(&mut self, event: &StoredEvent) {
        self.of(event).counter += PARKING_STEP;
    }

    /// The event is put aside.
    pub(crate) fn put_aside(&mut self, event: &StoredEvent) {
        let owner = self.of(event);
        owner.parked_position = Some(owner.parked_position.map_or(event.position, |first| first.min(event.position)));
    }
}

/// The two numbers of an owner, and what is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerStanding {
    /// Whose.
    pub owner_id: OwnerId,
    /// Position of the last event applied for this owner.
    pub revision: i64,
    /// Raised by every change of this owner's rows.
    pub change_counter: i64,
    /// Position of the first event of this owner that is parked.
    pub parked_position: Option<i64>,
}

/// Moves the mark and where owners stand. Returns where those that have changed stand now; `None`: the mark has been moved
/// by somebody else, and nothing was written.
pub(crate) async fn advance(
    mark: &Mark,
    owners: &OwnerChanges,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<Option<Vec<OwnerStanding>>, sqlx::Error> {
    let mark = MarkColumns::of(mark);
    let owners = OwnerColumns::of(owners);
    let written = sqlx::query!(
        r#"
        with moved_checkpoint as (
            update read_model.checkpoint
            set position = $4, turn = turn + 1, recorded_at = coalesce($5, recorded_at)
            where generation = $1 and shard = $2 and turn = $3
            returning 1
        ),
        still_ours as (
            select p.partition
            from unnest($7::int[], $8::bigint[]) as k (partition, turn)
            join read_model.kafka_partition as p
                on p.topic = $6 and p.partition = k.partition and p.turn = k.turn
            order by p.partition
            for update of p
        ),
        moved_partitions as (
            update read_model.kafka_partition as p
            set next_offset = k.next_offset, publication = k.publication, turn = p.turn + 1, trouble = null
            from unnest($7::int[], $8::bigint[], $9::bigint[], $10::bigint[])
                as k (partition, turn, next_offset, publication)
            where p.topic = $6 and p.partition = k.partition and p.turn = k.turn
                and (select count(*) from still_ours) = cardinality($7::int[])
            returning 1
        ),
        moved as (
            select 1 from moved_checkpoint union all select 1 from moved_partitions union all select 1 where $14
        ),
        positions as (
            insert into read_model.kafka_position (topic, partition, shard, position)
            select $6, n.partition, n.shard, n.position
            from unnest($11::int[], $12::smallint[], $13::bigint[]) as n (partition, shard, position)
            where exists (select from moved)
            on conflict (topic, partition, shard) do update set position = excluded.position
        ),
        owners as (
            select o.owner_id, o.revision, o.counter, o.parked_position, o.shard
            from unnest($15::uuid[], $16::bigint[], $17::bigint[], $18::bigint[], $19::smallint[])
                as o (owner_id, revision, counter, parked_position, shard)
            where exists (select from moved)
        ),
        old_owners as (
            update read_model.owner as o
            set revision = greatest(o.revision, n.revision), change_counter = o.change_counter + n.counter,
                parked_position = least(o.parked_position, n.parked_position)
            from owners as n
            where o.generation = $1 and o.owner_id = n.owner_id
            returning o.owner_id, o.revision, o.change_counter, o.parked_position
        ),
        new_owners as (
            insert into read_model.owner (generation, owner_id, shard, revision, change_counter, parked_position)
            select $1, n.owner_id, n.shard, n.revision, n.counter, n.parked_position
            from owners as n
            where not exists (
                select from read_model.owner as o where o.generation = $1 and o.owner_id = n.owner_id
            )
            returning owner_id, revision, change_counter, parked_position
        )
        select m.moved as "moved!", o.owner_id as "owner_id?", o.revision as "revision?",
            o.change_counter as "change_counter?", o.parked_position as "parked_position?"
        from (select count(*) as moved from moved) as m
        left join (select * from old_owners union all select * from new_owners) as o on true
        "#,
        generation,
        mark.shard,
        mark.turn,
        mark.position,
        mark.recorded_at,
        mark.topic,
        &mark.partitions.partition,
        &mark.partitions.turn,
        &mark.partitions.next_offset,
        &mark.partitions.publication,
        &mark.positions.partition,
        &mark.positions.shard,
        &mark.positions.position,
        mark.held,
        &owners.owner,
        &owners.revision,
        &owners.counter,
        &owners.parked as &[Option<i64>],
        &owners.shard,
    )
    .fetch_all(connection)
    .await?;
    if written.first().is_none_or(|row| row.moved == 0) {
        return Ok(None);
    }
    let standings = written.into_iter().filter_map(|row| {
        Some(OwnerStanding {
            owner_id: OwnerId(row.owner_id?),
            revision: row.revision?,
            change_counter: row.change_counter?,
            parked_position: row.parked_position,
        })
    });
    Ok(Some(standings.collect()))
}

#[derive(Default)]
struct OwnerColumns {
    owner: Vec<Uuid>,
    shard: Vec<i16>,
    revision: Vec<i64>,
    counter: Vec<i64>,
    parked: Vec<Option<i64>>,
}

impl OwnerColumns {
    fn of(changes: &OwnerChanges) -> Self {
        let mut columns = Self::default();
        for (owner, change) in &changes.0 {
            columns.owner.push(owner.0);
            columns.shard.push(change.shard);
            columns.revision.push(change.revision);
            columns.counter.push(change.counter);
            columns.parked.push(change.parked_position);
        }
        columns
    }
}

/// One kind of mark; what the others need is null or empty.
#[derive(Default)]
struct MarkColumns<'a> {
    shard: Option<i16>,
    turn: Option<i64>,
    position: Option<i64>,
    recorded_at: Option<Time>,
    topic: Option<&'a str>,
    partitions: PartitionColumns,
    positions: PositionColumns,
    held: bool,
}

#[derive(Default)]
struct PartitionColumns {
    partition: Vec<i32>,
    turn: Vec<i64>,
    next_offset: Vec<i64>,
    publication: Vec<i64>,
}

#[derive(Default)]
struct PositionColumns {
    partition: Vec<i32>,
    shard: Vec<i16>,
    position: Vec<i64>,
}

impl<'a> MarkColumns<'a> {
    fn of(mark: &'a Mark) -> Self {
        let mut columns = Self::default();
        match mark {
            Mark::Checkpoint { shard, turn, position, recorded_at } => {
                (columns.shard, columns.turn, columns.position) = (Some(*shard), Some(*turn), Some(*position));
                columns.recorded_at = *recorded_at;
            }
            Mark::Partitions { topic, partitions } => {
                columns.topic = Some(topic);
                for mark in partitions {
                    columns.partitions.partition.push(mark.partition);
                    columns.partitions.turn.push(mark.turn);
                    columns.partitions.next_offset.push(mark.next_offset);
                    columns.partitions.publication.push(mark.publication);
                    for (shard, position) in &mark.positions {
                        columns.positions.partition.push(mark.partition);
                        columns.positions.shard.push(*shard);
                        columns.positions.position.push(*position);
                    }
                }
            }
            Mark::Held => columns.held = true,
        }
        columns
    }
}
