//! Whether the read models are made from the log as it is now. One that went back (it was restored, or a standby was promoted
//! that was behind) gets other events at positions that are applied already; applying what comes after them would hide that.
//! An event is known by its position and the time at which it was recorded: no other one in its stream has both.
//!
//! Where another event is found than the one that was applied, nothing more of that shard is applied to this generation.

use std::collections::BTreeMap;
use std::time::Duration;

use backends::database::Pool;
use domain::{StoredEvent, Time};
use event_store::TailReader;
use process::health::Check;
use process::periodic::Periodic;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;
use uuid::Uuid;

use crate::columns::columns;
use crate::connection::in_time;

const LOOK_MS: u64 = 1_000;

/// Shards whose log is not the one that was applied, with what was found.
#[derive(Debug, Clone, Default)]
pub struct Diverged {
    /// Of these read models.
    generation: i32,
    shards: BTreeMap<i16, String>,
}

impl Diverged {
    /// For `/readyz`.
    #[must_use]
    pub fn check(&self) -> Check {
        match self.shards.values().next() {
            None => Check::ok("is what the read models were made from"),
            Some(found) => Check::failed(found.clone()),
        }
    }
}

/// The alarm. Clones share it.
#[derive(Clone)]
pub(crate) struct Alarm(watch::Sender<Diverged>);

impl Alarm {
    pub(crate) fn new() -> Self {
        show(0);
        Self(watch::channel(Diverged::default()).0)
    }

    pub(crate) fn receiver(&self) -> watch::Receiver<Diverged> {
        self.0.subscribe()
    }

    /// Stops a shard, until another generation is live.
    pub(crate) fn raise(&self, generation: i32, shard: i16, found: &str) {
        self.0.send_if_modified(|diverged| {
            if diverged.generation != generation {
                *diverged = Diverged { generation, ..Diverged::default() };
            }
            if diverged.shards.contains_key(&shard) {
                return false;
            }
            let found = format!(
                "shard {shard}: {found}. The log went back and nothing more of it is applied; `primetrade restore-finish` \
                 mends it"
            );
            error!(shard, generation, "{found}");
            diverged.shards.insert(shard, found);
            show(diverged.shards.len());
            true
        });
    }

    /// Another generation is live: what was found of the one before does not count.
    pub(crate) fn follow(&self, generation: i32) {
        self.0.send_if_modified(|diverged| {
            let is_another = diverged.generation != generation;
            if is_another {
                *diverged = Diverged { generation, ..Diverged::default() };
                show(0);
            }
            is_another
        });
    }

    /// Whether a shard is stopped.
    pub(crate) fn is_raised(&self, generation: i32, shard: i16) -> bool {
        let diverged = self.0.borrow();
        diverged.generation == generation && diverged.shards.contains_key(&shard)
    }
}

fn show(shards: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("projector_diverged_shards").set(shards as f64);
}

columns!(EventColumns for<'r> of event: &'r StoredEvent {
    owner_id: Uuid = event.owner_id.0,
    task_id: Uuid = event.task_id.0,
    version: i64 = event.version,
    shard: i16 = event.shard,
    position: i64 = event.position,
    recorded_at: Time = event.recorded_at,
});

/// Of events whose positions are applied to the live generation, the first that is not what was applied there. `None`
/// also where another generation is live.
pub(crate) async fn other_than_applied(
    connection: &mut PgConnection,
    generation: i32,
    events: &[&StoredEvent],
) -> Result<Option<(i16, String)>, sqlx::Error> {
    if events.is_empty() {
        return Ok(None);
    }
    let columns = EventColumns::of(events.iter().copied());
    let found = sqlx::query!(
        r#"
        select e.shard as "shard!", e.position as "position!"
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::smallint[], $6::bigint[], $7::timestamptz[])
            as e (owner_id, task_id, version, shard, position, recorded_at)
        where exists (select from read_model.projection as p where p.live_generation = $1)
            and not exists (
                select from read_model.history as h
                where h.generation = $1 and h.owner_id = e.owner_id and h.task_id = e.task_id and h.version = e.version
                    and h.position = e.position and h.recorded_at = e.recorded_at
            )
            and not exists (
                select from read_model.parked as k
                where k.generation = $1 and k.shard = e.shard and k.position = e.position
                    and k.owner_id = e.owner_id and k.task_id = e.task_id and k.version = e.version
            )
        order by e.shard, e.position
        limit 1
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.shard,
        &columns.position,
        &columns.recorded_at,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found
        .map(|row| (row.shard, format!("position {} has another event than the one that was applied", row.position))))
}

/// Up to which positions events of this log are known to the read models, by shard.
///
/// # Errors
/// The database does not answer.
pub async fn known_positions(pool: &Pool, log_id: Uuid) -> Result<Vec<(i16, i64)>, sqlx::Error> {
    let known = applied_positions(&mut *pool.acquire().await?).await?;
    let Some(known) = known.filter(|known| known.log_id == log_id) else { return Ok(Vec::new()) };
    Ok(known.positions)
}

/// Events that the read models have and the log has not.
#[derive(Debug, Clone, Default)]
pub struct Lost {
    /// How many.
    pub events: i64,
    /// How many tasks they are of.
    pub tasks: i64,
    /// How many accounts.
    pub owners: i64,
    /// When the first and the last of them were recorded.
    pub recorded: Option<(Time, Time)>,
    /// Whether that is all. Where the log was written since it went back, others of them are at positions that it has again.
    pub is_all: bool,
}

/// What read models that were not restored with the log show of its lost future; to be asked before they are made anew.
/// (The log may have another id by then.)
///
/// # Errors
/// A database does not answer.
pub async fn lost(pool: &Pool, tail: &TailReader) -> Result<Lost, sqlx::Error> {
    let heads = tail.heads().await?;
    let (shards, positions): (Vec<i16>, Vec<i64>) = heads.iter().copied().unzip();
    let lost = sqlx::query!(
        r#"
        select count(*) as "events!", count(distinct (h.owner_id, h.task_id)) as "tasks!",
            count(distinct h.owner_id) as "owners!", min(h.recorded_at) as "first: Time", max(h.recorded_at) as "last: Time"
        from read_model.projection as p
        join read_model.owner as o on o.generation = p.live_generation
        join unnest($1::smallint[], $2::bigint[]) as l (shard, head) on l.shard = o.shard
        join read_model.history as h
            on h.generation = p.live_generation and h.owner_id = o.owner_id and h.position > l.head
        where o.revision > l.head
        "#,
        &shards,
        &positions,
    )
    .fetch_one(pool)
    .await?;
    let recorded = lost.first.zip(lost.last);
    let is_all = !was_written_since(pool, tail, &heads, lost.last).await?;
    Ok(Lost { events: lost.events, tasks: lost.tasks, owners: lost.owners, recorded, is_all })
}

/// Whether a log that went back was written since. `last_lost`: when the last event past its head was recorded.
async fn was_written_since(
    pool: &Pool,
    tail: &TailReader,
    heads: &[(i16, i64)],
    last_lost: Option<Time>,
) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let Some(applied) = applied_positions(&mut connection).await? else { return Ok(false) };
    for (shard, head) in heads.iter().copied() {
        let of_shard = applied.positions.iter().filter(|(of, _)| *of == shard).map(|(_, position)| *position);
        let last = of_shard.max().unwrap_or(0);
        let events = tail.read_at(shard, &[last.min(head)]).await?;
        let is_other = if head < last {
            // It need not be applied, where its partition was behind others; but it was recorded before what is lost.
            events.iter().any(|event| last_lost.is_some_and(|last_lost| event.recorded_at > last_lost))
        } else {
            let events: Vec<&StoredEvent> = events.iter().collect();
            other_than_applied(&mut connection, applied.generation, &events).await?.is_some()
        };
        if is_other {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the live generation has.
struct Applied {
    log_id: Uuid,
    generation: i32,
    /// Of each shard the checkpoint, and the last position of each partition.
    positions: Vec<(i16, i64)>,
}

async fn applied_positions(connection: &mut PgConnection) -> Result<Option<Applied>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select p.log_id as "log_id!", p.live_generation as "generation!", k.shard as "shard!", k.position as "position!"
        from read_model.projection as p, lateral (
            select c.shard, c.position from read_model.checkpoint as c where c.generation = p.live_generation
            union
            select k.shard, k.position from read_model.kafka_position as k where p.feed = 'kafka'
        ) as k
        where p.log_id is not null and k.position > 0
        "#
    )
    .fetch_all(connection)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let (log_id, generation) = (first.log_id, first.generation);
    Ok(Some(Applied { log_id, generation, positions: rows.iter().map(|row| (row.shard, row.position)).collect() }))
}

/// Looks whether the log still has the last events that were applied.
///
/// # Errors
/// A database does not answer.
pub(crate) async fn look(pool: &Pool, tail: &TailReader, log_id: Uuid, alarm: &Alarm) -> Result<(), sqlx::Error> {
    // What is applied first: the log has it then.
    let applied = applied_positions(&mut *pool.acquire().await?).await?;
    let Some(applied) = applied.filter(|applied| applied.log_id == log_id) else { return Ok(()) };
    let generation = applied.generation;
    alarm.follow(generation);
    for (shard, head) in tail.heads().await? {
        let of_shard = applied.positions.iter().filter(|(of, _)| *of == shard).map(|(_, position)| *position);
        let positions: Vec<i64> = of_shard.collect();
        let last = positions.iter().copied().max().unwrap_or(0);
        if last > head {
            alarm.raise(generation, shard, &format!("position {last} was applied, and the log ends at {head}"));
            continue;
        }
        let mut events = tail.read_at(shard, &positions).await?;
        if let Some(position) =
            positions.iter().find(|position| events.iter().all(|event| event.position != **position))
        {
            alarm.raise(generation, shard, &format!("position {position} was applied, and the log has no event there"));
        }
        // In one snapshot: what a crash of Postgres has taken back meanwhile is to be applied again.
        let mut transaction = pool.begin().await?;
        sqlx::query!("set transaction isolation level repeatable read").execute(&mut *transaction).await?;
        let still = applied_positions(&mut transaction).await?;
        events.retain(|event| {
            still.as_ref().is_some_and(|still| still.positions.contains(&(event.shard, event.position)))
        });
        let events: Vec<&StoredEvent> = events.iter().collect();
        let found = other_than_applied(&mut transaction, generation, &events).await?;
        transaction.rollback().await?;
        if let Some((shard, found)) = found {
            alarm.raise(generation, shard, &found);
        }
    }
    Ok(())
}

/// Looks every second, until `stop`.
pub(crate) async fn watch(pool: Pool, tail: TailReader, log_id: Uuid, alarm: Alarm, stop: CancellationToken) {
    let mut looking = Periodic::every(Duration::from_millis(LOOK_MS), "holding the log against what was applied", stop);
    while looking.due().await {
        looking.seen(in_time(look(&pool, &tail, log_id, &alarm)).await);
    }
}
