//! Salvage: events of this log that only others still have, after its disk was lost, appended as they were; and published on
//! under a number that they know.

use std::collections::BTreeMap;

use backends::database::Pool;
use domain::{OwnerId, StoredEvent, Time};
use uuid::Uuid;

use crate::effect::Effect;
use crate::trace_columns::{stored_correlation_id, stored_traceparent};

/// The end of a shard's log.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The shard.
    pub shard: i16,
    /// The position of its last event; 0: it has none.
    pub position: i64,
    /// That event's id, and when it was recorded.
    pub last: Option<(Uuid, Time)>,
}

/// Why events cannot be appended. Nothing was appended then.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The database does not answer, or has some of it already.
    #[error("the event store: {0}")]
    Database(#[from] sqlx::Error),
    /// They do not follow what is there: somebody else appends.
    #[error("the log of shard {shard} ends at position {head}, and the events begin at {first}: does somebody append?")]
    NotNext {
        /// The shard.
        shard: i16,
        /// Where it ends.
        head: i64,
        /// Where they begin.
        first: i64,
    },
    /// A stream is not as far as they expect it.
    #[error("the event at position {0} does not follow the events of its task that the log has")]
    NotNextOfTask(i64),
}

/// Where the log ends, by shard.
///
/// # Errors
/// The database does not answer.
pub async fn heads(pool: &Pool) -> Result<Vec<Head>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select h.shard, h.position, e.event_id as "event_id?", e.recorded_at as "recorded_at?"
        from event_store.head h
        left join event_store.event e on e.shard = h.shard and e.position = h.position
        order by h.shard
        "#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Head { shard: row.shard, position: row.position, last: row.event_id.zip(row.recorded_at) })
        .collect())
}

/// Appends events of one shard that follow its head without a gap, with the positions and the times that they had. That a
/// command was carried out is remembered by its id, without the fingerprint of its request, which nobody knows any more. Its
/// events may come in two parts.
///
/// # Errors
/// See [`SalvageError`].
pub async fn append(pool: &Pool, shard: i16, events: &[StoredEvent]) -> Result<(), SalvageError> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
    let mut transaction = pool.begin().await?;
    let head = sqlx::query_scalar!("select position from event_store.head where shard = $1 for update", shard)
        .fetch_one(&mut *transaction)
        .await?;
    let is_next = |(event, position): (&StoredEvent, i64)| event.shard == shard && event.position == position;
    if !events.iter().zip(head + 1..).all(is_next) {
        return Err(SalvageError::NotNext { shard, head, first: first.position });
    }
    let commands = Commands::of(events);
    let columns = Columns::of(events);
    let stray = sqlx::query_scalar!(
        r#"
        with given as materialized (
            select * from unnest($2::bigint[], $3::timestamptz[], $4::uuid[], $5::uuid[], $6::bigint[], $7::uuid[], $8::text[],
                $9::smallint[], $10::timestamptz[], $11::text[], $12::uuid[], $13::uuid[], $14::text[], $15::text[],
                $16::text[], $17::uuid[], $18::uuid[])
                as e (position, recorded_at, owner_id, task_id, version, event_id, type, schema_version, occurred_at,
                    actor_type, actor_id, command_id, correlation_id, traceparent, data, change_id, undoes)
        ), stored as (
            insert into event_store.event (shard, position, recorded_at, owner_id, task_id, version, event_id, type,
                schema_version, occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data, change_id,
                undoes)
            select $1, given.* from given
        )
        select min(position) from given
        where version > 1
            and not exists (
                select from event_store.event e
                where (e.owner_id, e.task_id, e.version) = (given.owner_id, given.task_id, given.version - 1)
            )
            and not exists (
                select from given e
                where (e.owner_id, e.task_id, e.version) = (given.owner_id, given.task_id, given.version - 1)
                    and e.position < given.position
            )
        "#,
        shard,
        &columns.position,
        &columns.recorded_at,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.event_id,
        &columns.event_type as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.actor_type as _,
        &columns.actor_id as _,
        &columns.command_id,
        &columns.correlation_id as _,
        &columns.traceparent as _,
        &columns.data as _,
        &columns.change_id as _,
        &columns.undoes as _,
    )
    .fetch_one(&mut *transaction)
    .await?;
    if let Some(position) = stray {
        return Err(SalvageError::NotNextOfTask(position));
    }
    sqlx::query!(
        r#"
        insert into event_store.command as k (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint,
            status, change_id)
        select owner_id, command_id, task_id, version, revision, recorded_at, $1, status, change_id
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::smallint[],
            $9::uuid[]) as c (owner_id, command_id, task_id, version, revision, recorded_at, status, change_id)
        on conflict (owner_id, command_id) do update set version = excluded.version, revision = excluded.revision
            where k.fingerprint = excluded.fingerprint and k.task_id = excluded.task_id
        "#,
        Uuid::nil(),
        &commands.owner_id,
        &commands.command_id,
        &commands.task_id,
        &commands.version,
        &commands.revision,
        &commands.recorded_at,
        &commands.status,
        &commands.change_id as _,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!("update event_store.head set position = $2 where shard = $1", shard, last.position)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// From now on nothing is published under a lower number than this, which readers of the topic have seen: they would take it
/// for repeated. Who publishes at the moment loses the lease.
///
/// # Errors
/// The database does not answer.
pub async fn publish_at_least_under(pool: &Pool, publication: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update event_store.relay
        set publication = $1, epoch = epoch + 1, holder = null, expires_at = '-infinity'
        where publication < $1",
        publication
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns<'a> {
    position: Vec<i64>,
    recorded_at: Vec<Time>,
    owner_id: Vec<Uuid>,
    task_id: Vec<Uuid>,
    version: Vec<i64>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    schema_version: Vec<i16>,
    occurred_at: Vec<Time>,
    actor_type: Vec<&'a str>,
    actor_id: Vec<Option<Uuid>>,
    command_id: Vec<Uuid>,
    correlation_id: Vec<&'a str>,
    traceparent: Vec<&'a str>,
    data: Vec<&'a str>,
    change_id: Vec<Option<Uuid>>,
    undoes: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    fn of(events: &'a [StoredEvent]) -> Self {
        let mut columns = Self::default();
        for event in events {
            columns.position.push(event.position);
            columns.recorded_at.push(event.recorded_at);
            columns.owner_id.push(event.owner_id.0);
            columns.task_id.push(event.task_id.0);
            columns.version.push(event.version);
            columns.event_id.push(event.event_id);
            columns.event_type.push(&event.event_type);
            columns.schema_version.push(event.schema_version);
            columns.occurred_at.push(event.occurred_at);
            columns.actor_type.push(&event.actor_type);
            columns.actor_id.push(event.actor_id);
            columns.command_id.push(event.command_id);
            columns.correlation_id.push(stored_correlation_id(&event.correlation_id, event.change_id));
            columns.traceparent.push(stored_traceparent(&event.traceparent, &event.correlation_id));
            columns.data.push(&event.data);
            columns.change_id.push(event.change_id);
            columns.undoes.push(event.undoes);
        }
        columns
    }
}

/// What commands have come to, as their events show it.
#[derive(Default)]
struct Commands {
    owner_id: Vec<Uuid>,
    command_id: Vec<Uuid>,
    task_id: Vec<Uuid>,
    version: Vec<i64>,
    revision: Vec<i64>,
    recorded_at: Vec<Time>,
    status: Vec<i16>,
    change_id: Vec<Option<Uuid>>,
}

impl Commands {
    fn of(events: &[StoredEvent]) -> Self {
        let mut last: BTreeMap<(OwnerId, Uuid), &StoredEvent> = BTreeMap::new();
        for event in events {
            last.insert((event.owner_id, event.command_id), event);
        }
        let mut commands = Self::default();
        for ((owner_id, command_id), event) in last {
            let effect = match event.event_type.as_str() {
                "TaskCreated" => Effect::Created,
                "TaskDeleted" => Effect::Deleted,
                _ => Effect::Changed,
            };
            commands.owner_id.push(owner_id.0);
            commands.command_id.push(command_id);
            commands.task_id.push(event.task_id.0);
            commands.version.push(event.version);
            commands.revision.push(event.position);
            commands.recorded_at.push(event.recorded_at);
            commands.status.push(effect.stored());
            commands.change_id.push(event.change_id);
        }
        commands
    }
}
