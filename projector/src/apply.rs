//! One batch of events into one generation, in one transaction.
//!
//! Two round trips: [`load`] reads the rows that the batch touches, [`Batch::fold`] folds in memory, [`write`] writes
//! everything back in one statement whose first part moves the [`Mark`] (a checkpoint, or offsets), and only if its
//! turn is still the one that is known. Who loses that race has written nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::{OwnerId, Priority, Status, StoredEvent, TaskId, Time, composed};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::fold::{Contribution, FoldError, Folded, TaskRow, fold, touches_text};
use columns::Columns;

/// What it writes, as columns.
mod columns;

/// Added to an owner's change counter when an event is parked, or a parked one applied: see the migration.
pub(crate) const PARKING_STEP: i64 = 1 << 32;

/// Between tags in a parameter; no tag contains a control character.
const TAG_SEPARATOR: &str = "\u{1f}";

/// A task's stream.
pub(crate) type Stream = (OwnerId, TaskId);

/// What is in the tables before a batch.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Which generation.
    pub generation: i32,
    /// Where the read models stand.
    pub at: At,
    /// The rows that the batch touches.
    pub rows: HashMap<Stream, TaskRow>,
    /// The streams of the batch that have events parked, with the position of the last of these.
    pub parked: HashMap<Stream, i64>,
}

/// Where the read models stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The generation that queries read.
    pub live_generation: i32,
    /// It is fed from the store.
    pub is_fed_from_store: bool,
    /// The checkpoint that was asked for: the last event applied, and its turn.
    pub checkpoint: Option<(i64, i64)>,
}

/// Loads what the events touch, and a shard's checkpoint.
pub(crate) async fn load(
    connection: &mut PgConnection,
    generation: i32,
    checkpoint_of: Option<i16>,
    events: &[&StoredEvent],
) -> Result<Loaded, sqlx::Error> {
    // Each stream once, and whether its text is needed.
    let mut streams: HashMap<Stream, bool> = HashMap::with_capacity(events.len());
    for event in events {
        *streams.entry((event.owner_id, event.task_id)).or_default() |= touches_text(&event.event_type);
    }
    let (mut owners, mut tasks, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for ((owner_id, task_id), text) in &streams {
        owners.push(owner_id.0);
        tasks.push(task_id.0);
        texts.push(*text);
    }
    let found = sqlx::query!(
        r#"
        select c.position as "checkpoint?", c.turn as "turn?", p.live_generation,
            p.feed = 'store' as "is_fed_from_store!",
            exists (select from read_model.parked as k where k.generation = $1) as "any_parked!",
            t.owner_id as "owner_id?", t.task_id as "task_id?", t.position as "position?", t.version as "version?",
            t.deleted as "deleted?", t.status as "status?", t.priority as "priority?", t.title as "title?",
            t.description, t.tags as "tags?", t.due_at as "due_at: Time", t.created_at as "created_at?: Time",
            t.updated_at as "updated_at?: Time", t.started_at as "started_at: Time",
            t.completed_at as "completed_at: Time"
        from read_model.projection as p
        left join read_model.checkpoint as c on c.generation = $1 and c.shard = $2
        left join lateral (
            select t.owner_id, t.task_id, t.position, t.version, t.deleted, t.status, t.priority, t.title,
                case when k.needs_text then t.description end as description, t.tags, t.due_at, t.created_at,
                t.updated_at, t.started_at, t.completed_at
            from unnest($3::uuid[], $4::uuid[], $5::boolean[]) as k (owner_id, task_id, needs_text)
            join read_model.task as t
                on t.generation = $1 and t.owner_id = k.owner_id and t.task_id = k.task_id
        ) as t on true
        "#,
        generation,
        checkpoint_of,
        &owners,
        &tasks,
        &texts,
    )
    .fetch_all(&mut *connection)
    .await?;
    let first = found.first().ok_or(sqlx::Error::RowNotFound)?;
    let any_parked = first.any_parked;
    let mut loaded = Loaded {
        generation,
        at: At {
            live_generation: first.live_generation,
            is_fed_from_store: first.is_fed_from_store,
            checkpoint: first.checkpoint.zip(first.turn),
        },
        rows: HashMap::with_capacity(found.len()),
        parked: HashMap::new(),
    };
    for row in found {
        let (Some(owner_id), Some(task_id)) = (row.owner_id, row.task_id) else { continue };
        let stream = (OwnerId(owner_id), TaskId(task_id));
        let row = TaskRow {
            owner_id: stream.0,
            task_id: stream.1,
            position: not_null(row.position)?,
            version: not_null(row.version)?,
            deleted: not_null(row.deleted)?,
            status: by_code(Status::ALL, not_null(row.status)?)?,
            priority: by_code(Priority::ALL, not_null(row.priority)?)?,
            title: not_null(row.title)?,
            description: row.description,
            // Rows that an older program wrote hold tags as they were typed.
            tags: not_null(row.tags)?.into_iter().map(|tag| composed(&tag).into_owned()).collect(),
            due_at: row.due_at,
            created_at: not_null(row.created_at)?,
            updated_at: not_null(row.updated_at)?,
            started_at: row.started_at,
            completed_at: row.completed_at,
        };
        loaded.rows.insert(stream, row);
    }
    if any_parked {
        let parked = sqlx::query!(
            r#"
            select p.owner_id as "owner_id!", p.task_id as "task_id!", max(p.position) as "last!"
            from unnest($2::uuid[], $3::uuid[]) as k (owner_id, task_id)
            join read_model.parked as p
                on p.generation = $1 and p.owner_id = k.owner_id and p.task_id = k.task_id and p.position is not null
            group by p.owner_id, p.task_id
            "#,
            generation,
            &owners,
            &tasks,
        )
        .fetch_all(connection)
        .await?;
        loaded.parked =
            parked.into_iter().map(|row| ((OwnerId(row.owner_id), TaskId(row.task_id)), row.last)).collect();
    }
    Ok(loaded)
}

fn not_null<T>(value: Option<T>) -> Result<T, sqlx::Error> {
    value.ok_or_else(|| sqlx::Error::Decode("null in a column that cannot be null".into()))
}

fn by_code<T: Copy>(all: &[T], code: i16) -> Result<T, sqlx::Error> {
    usize::try_from(code)
        .ok()
        .and_then(|code| all.get(code).copied())
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown code {code}").into()))
}

/// A task that a batch touches.
struct Touched {
    row: Option<TaskRow>,
    before: Option<Contribution>,
    /// It has no row in the table yet.
    is_new: bool,
    changed: bool,
    text_changed: bool,
}

/// What a batch does to an owner.
struct OwnerChange {
    shard: i16,
    revision: i64,
    counter: i64,
    parked_position: Option<i64>,
}

struct HistoryRow {
    owner_id: Uuid,
    task_id: Uuid,
    version: i64,
    position: i64,
    occurred_at: Time,
    recorded_at: Time,
    event_type: String,
    actor_type: String,
    actor_id: Option<Uuid>,
    changes: String,
}

struct ToPark {
    shard: i16,
    position: i64,
    stream: Stream,
    version: i64,
    event_type: String,
    /// `None`: it waits behind another one.
    reason: Option<String>,
    json: String,
}

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

/// A batch that is being folded.
pub(crate) struct Batch {
    generation: i32,
    touched: HashMap<Stream, Touched>,
    /// In the order of first touch, so that rows are written in the order of the log.
    order: Vec<Stream>,
    history: Vec<HistoryRow>,
    owners: BTreeMap<OwnerId, OwnerChange>,
    to_park: Vec<ToPark>,
    parked: HashMap<Stream, i64>,
    rows: HashMap<Stream, TaskRow>,
    /// How long the tasks took that were completed.
    completion_seconds: Vec<f64>,
    /// Something happens that would not happen again in the same way.
    must_be_durable: bool,
    events: usize,
}

impl Batch {
    pub(crate) fn new(loaded: Loaded) -> Self {
        Self {
            generation: loaded.generation,
            touched: HashMap::with_capacity(loaded.rows.len()),
            order: Vec::new(),
            history: Vec::new(),
            owners: BTreeMap::new(),
            to_park: Vec::new(),
            parked: loaded.parked,
            rows: loaded.rows,
            completion_seconds: Vec::new(),
            must_be_durable: false,
            events: 0,
        }
    }

    /// Without an event: only the mark is moved.
    pub(crate) fn empty(generation: i32) -> Self {
        let at = At { live_generation: generation, is_fed_from_store: false, checkpoint: None };
        Self::new(Loaded { generation, at, rows: HashMap::new(), parked: HashMap::new() })
    }

    /// How many events were folded or parked.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    fn touch(&mut self, stream: Stream) -> &mut Touched {
        match self.touched.entry(stream) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.order.push(stream);
                let row = self.rows.remove(&stream);
                entry.insert(Touched {
                    before: row.as_ref().and_then(TaskRow::contribution),
                    is_new: row.is_none(),
                    row,
                    changed: false,
                    text_changed: false,
                })
            }
        }
    }

    fn owner(&mut self, event: &StoredEvent) -> &mut OwnerChange {
        self.owners.entry(event.owner_id).or_insert(OwnerChange {
            shard: event.shard,
            revision: 0,
            counter: 0,
            parked_position: None,
        })
    }

    /// Folds the next event. On an error the batch is as it was.
    pub(crate) fn fold(&mut self, event: &StoredEvent) -> Result<(), FoldError> {
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.put_aside(event, None),
            None => self.fold_in(event)?,
        }
        self.events += 1;
        Ok(())
    }

    /// How long the tasks took, from creation, that were completed.
    pub(crate) fn take_completion_seconds(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.completion_seconds)
    }

    /// Folds an event that is parked.
    pub(crate) fn fold_parked(&mut self, event: &StoredEvent) -> Result<(), FoldError> {
        self.fold_in(event)?;
        self.must_be_durable = true;
        self.owner(event).counter += PARKING_STEP;
        self.events += 1;
        Ok(())
    }

    fn fold_in(&mut self, event: &StoredEvent) -> Result<(), FoldError> {
        let stream = (event.owner_id, event.task_id);
        let touched = self.touch(stream);
        match fold(&mut touched.row, event)? {
            Folded::Skipped => {}
            Folded::Applied(changes) => {
                touched.changed = true;
                touched.text_changed |= touched.is_new || touches_text(&event.event_type);
                if event.event_type == "TaskCompleted"
                    && let Some(row) = &touched.row
                {
                    let took = event.occurred_at - row.created_at;
                    self.completion_seconds.push(took.as_seconds_f64().max(0.0));
                }
                let owner = self.owner(event);
                owner.revision = owner.revision.max(event.position);
                owner.counter += 1;
                self.history.push(HistoryRow {
                    owner_id: event.owner_id.0,
                    task_id: event.task_id.0,
                    version: event.version,
                    position: event.position,
                    occurred_at: event.occurred_at,
                    recorded_at: event.recorded_at,
                    event_type: event.event_type.clone(),
                    actor_type: event.actor_type.clone(),
                    actor_id: event.actor_id,
                    changes,
                });
            }
        }
        Ok(())
    }

    /// Parks the next event, and all that follow it in its stream.
    pub(crate) fn park(&mut self, event: &StoredEvent, reason: String) {
        self.events += 1;
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.put_aside(event, None),
            None => {
                self.owner(event).counter += PARKING_STEP;
                self.must_be_durable = true;
                self.put_aside(event, Some(reason));
            }
        }
    }

    fn put_aside(&mut self, event: &StoredEvent, reason: Option<String>) {
        let stream = (event.owner_id, event.task_id);
        self.parked.insert(stream, event.position);
        let owner = self.owner(event);
        owner.parked_position = Some(owner.parked_position.map_or(event.position, |first| first.min(event.position)));
        #[expect(clippy::expect_used, reason = "a struct of strings, numbers and times always serialises")]
        let json = serde_json::to_string(event).expect("an event serialises");
        self.to_park.push(ToPark {
            shard: event.shard,
            position: event.position,
            stream,
            version: event.version,
            event_type: event.event_type.clone(),
            reason,
            json,
        });
    }
}

/// Whether a batch was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it; where the owners whose rows it changed stand now.
    Yes(Vec<OwnerStanding>),
    /// None of it: the mark has moved since it was loaded.
    LostRace,
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

/// What a transaction has made visible in the live generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The log.
    pub log_id: Uuid,
    /// The name of the read models in Redis.
    pub cache_id: Uuid,
    /// The generation that was written to: the live one.
    pub generation: i32,
    /// When they stood there, or earlier: before the transaction's last statement was sent.
    pub as_of: Time,
    /// Where the owners whose rows have changed stand now.
    pub owners: Vec<OwnerStanding>,
}

/// The id of a parked event: the same each time it is parked in the same generation.
pub(crate) fn parked_id(generation: i32, shard: i16, position: i64) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("parked {generation} {shard} {position}").as_bytes())
}

/// Writes a batch in a transaction of its own.
pub(crate) async fn commit(connection: &mut PgConnection, batch: Batch, mark: Mark) -> Result<Written, sqlx::Error> {
    if !batch.must_be_durable {
        return write(connection, batch, mark).await;
    }
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    let written = write(&mut transaction, batch, mark).await?;
    transaction.commit().await?;
    Ok(written)
}

/// Writes a batch and moves its mark: in the transaction that is open, else in one of its own.
#[expect(clippy::too_many_lines, reason = "one statement, and its parameters")]
pub(crate) async fn write(connection: &mut PgConnection, batch: Batch, mark: Mark) -> Result<Written, sqlx::Error> {
    let generation = batch.generation;
    let Columns { mark, history, tasks, task_counts, day_counts, owners, parked } = Columns::of(batch, mark);
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
            from unnest($55::int[], $56::bigint[]) as k (partition, turn)
            join read_model.kafka_partition as p
                on p.topic = $54 and p.partition = k.partition and p.turn = k.turn
            order by p.partition
            for update of p
        ),
        moved_partitions as (
            update read_model.kafka_partition as p
            set next_offset = k.next_offset, publication = k.publication, turn = p.turn + 1, trouble = null
            from unnest($55::int[], $56::bigint[], $57::bigint[], $58::bigint[])
                as k (partition, turn, next_offset, publication)
            where p.topic = $54 and p.partition = k.partition and p.turn = k.turn
                and (select count(*) from still_ours) = cardinality($55::int[])
            returning 1
        ),
        moved as (
            select 1 from moved_checkpoint union all select 1 from moved_partitions union all select 1 where $62
        ),
        positions as (
            insert into read_model.kafka_position (topic, partition, shard, position)
            select $54, n.partition, n.shard, n.position
            from unnest($59::int[], $60::smallint[], $61::bigint[]) as n (partition, shard, position)
            where exists (select from moved)
            on conflict (topic, partition, shard) do update set position = excluded.position
        ),
        history as (
            insert into read_model.history (generation, owner_id, task_id, version, position, occurred_at, recorded_at,
                type, actor_type, actor_id, changes)
            select $1, h.*
            from unnest($6::uuid[], $7::uuid[], $8::bigint[], $9::bigint[], $10::timestamptz[], $11::timestamptz[],
                $12::text[], $13::text[], $14::uuid[], $15::text[]) as h
            where exists (select from moved)
        ),
        touched as (
            select t.owner_id, t.task_id, t.position, t.version, t.deleted, t.status, t.priority, t.title,
                t.description, string_to_array(t.tags, e'\x1f') as tags, t.due_at, t.created_at, t.updated_at,
                t.started_at, t.completed_at, array_to_tsvector(string_to_array(t.words, ' ')) as search, t.is_new
            from unnest($16::uuid[], $17::uuid[], $18::bigint[], $19::bigint[], $20::boolean[], $21::smallint[],
                $22::smallint[], $23::text[], $24::text[], $25::text[], $26::timestamptz[], $27::timestamptz[],
                $28::timestamptz[], $29::timestamptz[], $30::timestamptz[], $31::text[], $32::boolean[])
                as t (owner_id, task_id, position, version, deleted, status, priority, title, description, tags,
                    due_at, created_at, updated_at, started_at, completed_at, words, is_new)
            where exists (select from moved)
        ),
        new_tasks as (
            insert into read_model.task (generation, owner_id, task_id, position, version, deleted, status, priority,
                title, description, tags, due_at, created_at, updated_at, started_at, completed_at, search)
            select $1, owner_id, task_id, position, version, deleted, status, priority, title, description, tags,
                due_at, created_at, updated_at, started_at, completed_at, search
            from touched
            where is_new
        ),
        old_tasks as (
            update read_model.task as t
            set position = n.position, version = n.version, deleted = n.deleted, status = n.status,
                priority = n.priority, title = n.title, tags = n.tags, due_at = n.due_at, updated_at = n.updated_at,
                started_at = n.started_at, completed_at = n.completed_at,
                description = case when n.search is null then t.description else n.description end,
                search = coalesce(n.search, t.search)
            from touched as n
            where t.generation = $1 and t.owner_id = n.owner_id and t.task_id = n.task_id and not n.is_new
        ),
        task_differences as (
            select c.owner_id, c.status, c.priority, c.difference
            from unnest($33::uuid[], $34::smallint[], $35::smallint[], $36::bigint[])
                as c (owner_id, status, priority, difference)
            where exists (select from moved)
        ),
        old_task_counts as (
            update read_model.task_count as c
            set count = c.count + d.difference
            from task_differences as d
            where c.generation = $1 and c.owner_id = d.owner_id and c.status = d.status and c.priority = d.priority
        ),
        new_task_counts as (
            insert into read_model.task_count (generation, owner_id, status, priority, count)
            select $1, d.owner_id, d.status, d.priority, d.difference
            from task_differences as d
            where not exists (
                select from read_model.task_count as c
                where c.generation = $1 and c.owner_id = d.owner_id and c.status = d.status
                    and c.priority = d.priority
            )
        ),
        day_differences as (
            select d.owner_id, d.day, d.created, d.completed
            from unnest($37::uuid[], $38::date[], $39::bigint[], $40::bigint[]) as d (owner_id, day, created, completed)
            where exists (select from moved)
        ),
        old_day_counts as (
            update read_model.day_count as c
            set created = c.created + d.created, completed = c.completed + d.completed
            from day_differences as d
            where c.generation = $1 and c.owner_id = d.owner_id and c.day = d.day
        ),
        new_day_counts as (
            insert into read_model.day_count (generation, owner_id, day, created, completed)
            select $1, d.owner_id, d.day, d.created, d.completed
            from day_differences as d
            where not exists (
                select from read_model.day_count as c
                where c.generation = $1 and c.owner_id = d.owner_id and c.day = d.day
            )
        ),
        owners as (
            select o.owner_id, o.revision, o.counter, o.parked_position, o.shard
            from unnest($41::uuid[], $42::bigint[], $43::bigint[], $44::bigint[], $45::smallint[])
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
        ),
        parked as (
            insert into read_model.parked (id, generation, shard, position, owner_id, task_id, version, type, reason,
                parked_at, event)
            select p.id, $1, p.shard, p.position, p.owner_id, p.task_id, p.version, p.type, p.reason, now(), p.event
            from unnest($46::uuid[], $47::bigint[], $48::uuid[], $49::uuid[], $50::bigint[], $51::text[], $52::text[],
                $53::text[], $63::smallint[]) as p (id, position, owner_id, task_id, version, type, reason, event, shard)
            where exists (select from moved)
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
        &history.owner,
        &history.task,
        &history.version,
        &history.position,
        &history.occurred,
        &history.recorded,
        &history.event_type,
        &history.actor_type,
        &history.actor as &[Option<Uuid>],
        &history.changes,
        &tasks.owner,
        &tasks.task,
        &tasks.position,
        &tasks.version,
        &tasks.deleted,
        &tasks.status,
        &tasks.priority,
        &tasks.title,
        &tasks.description as &[Option<String>],
        &tasks.tags,
        &tasks.due as &[Option<Time>],
        &tasks.created,
        &tasks.updated,
        &tasks.started as &[Option<Time>],
        &tasks.completed as &[Option<Time>],
        &tasks.words as &[Option<String>],
        &tasks.is_new,
        &task_counts.owner,
        &task_counts.status,
        &task_counts.priority,
        &task_counts.difference,
        &day_counts.owner,
        &day_counts.day,
        &day_counts.created,
        &day_counts.completed,
        &owners.owner,
        &owners.revision,
        &owners.counter,
        &owners.parked as &[Option<i64>],
        &owners.shard,
        &parked.id,
        &parked.position,
        &parked.owner,
        &parked.task,
        &parked.version,
        &parked.event_type,
        &parked.reason as &[Option<String>],
        &parked.event,
        mark.topic,
        &mark.partitions.partition,
        &mark.partitions.turn,
        &mark.partitions.next_offset,
        &mark.partitions.publication,
        &mark.positions.partition,
        &mark.positions.shard,
        &mark.positions.position,
        mark.held,
        &parked.shard,
    )
    .fetch_all(connection)
    .await?;
    if written.first().is_none_or(|row| row.moved == 0) {
        return Ok(Written::LostRace);
    }
    let standings = written.into_iter().filter_map(|row| {
        Some(OwnerStanding {
            owner_id: OwnerId(row.owner_id?),
            revision: row.revision?,
            change_counter: row.change_counter?,
            parked_position: row.parked_position,
        })
    });
    Ok(Written::Yes(standings.collect()))
}
