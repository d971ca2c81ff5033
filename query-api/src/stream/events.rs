//! Pages of events, ready to send.

use std::collections::HashMap;

use backends::database::Pool;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::error::ReadError;
use crate::fold::Fold;
use crate::owner_version::{Owner, version_row};
use crate::reads::{ReadSource, Reads};
use crate::task_columns::task_in;
use crate::task_json::{self, write_number};

/// Events in a page.
const EVENTS_MAX: i64 = 100;
/// Bytes sent at once, roughly.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the tasks that are remembered from one page to the next, roughly; beyond that, only those of the page.
const FOLDS_BYTES_MAX: usize = 1024 * 1024;
/// Tries where a rebuild has just switched, or a task was purged.
const TRIES_MAX: u32 = 5;

/// The events of one account in a range of positions.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Positions beyond this one …
    after: i64,
    /// … up to this one are all here.
    until: i64,
    /// By position, as they are sent.
    events: Vec<(i64, Bytes)>,
}

/// Tasks as they were at the end of the page before, where that was not their last state: the next page is folded from
/// there, not from the task's beginning.
#[derive(Debug, Default)]
pub(super) struct Folds {
    /// Of which log and generation.
    of: (Option<Uuid>, i32),
    tasks: HashMap<Uuid, Fold>,
}

/// An event of the history, before its task's state is known.
struct Event {
    position: i64,
    task_id: Uuid,
    version: i64,
    event_type: String,
    /// Its task is purged by now.
    is_purged: bool,
}

impl Page {
    /// Whether it has what comes after a position.
    pub fn has_after(&self, position: i64) -> bool {
        self.after <= position && position < self.until
    }

    /// What to send to a client that has everything up to `position`, and up to where it has everything then.
    pub fn after(&self, position: i64) -> (Bytes, i64) {
        let mut chunk = BytesMut::new();
        for (at, event) in self.events.iter().filter(|(at, _)| *at > position) {
            if !chunk.is_empty() && chunk.len() + event.len() > CHUNK_BYTES_MAX {
                return (chunk.freeze(), at - 1);
            }
            chunk.extend_from_slice(event);
        }
        (chunk.freeze(), position.max(self.until))
    }

    /// Reads the events after a position, as far as there is no parked one before them.
    pub async fn read(reads: &Reads, owner: Owner, after: i64, folds: &mut Folds) -> Result<Self, ReadError> {
        let mut version = reads.owner_versions().now(owner).await?;
        let mut source = reads.nearest();
        for _ in 0..TRIES_MAX {
            let generation = version.row.generation;
            let read = Self::read_from(reads, source, owner.id, generation, after, folds);
            match (reads.in_time(source, read).await, source) {
                (Ok(Some(page)), _) => return Ok(page),
                (Ok(None), _) => version = reads.owner_versions().look_up(owner).await?,
                (Err(_), ReadSource::Replica) => source = ReadSource::Primary,
                (Err(error), ReadSource::Primary) => return Err(error),
            }
        }
        Err(ReadError::Unavailable)
    }

    /// None: another generation is live now, or a task was purged in between. Then it is to be read again.
    async fn read_from(
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        generation: i32,
        after: i64,
        folds: &mut Folds,
    ) -> Result<Option<Self>, ReadError> {
        let rows = sqlx::query!(
            r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
                   o.change_counter as "change_counter?", o.parked_position as "parked_position?",
                   h.position as "position?", h.task_id as "task_id?", h.version as "version?", h.type as "event_type?",
                   -- a deleted task without a title is purged
                   exists (
                       select from read_model.task t where t.generation = $1 and t.owner_id = $2 and t.task_id = h.task_id
                         and t.deleted and t.title = ''
                   ) as "is_purged!",
                   t.title as "title?", t.description, t.status as "status?", t.priority as "priority?", t.due_at,
                   t.tags as "tags?", t.rank, t.created_at as "created_at?", t.updated_at as "updated_at?", t.started_at, t.completed_at
               from read_model.projection p
               left join read_model.owner o on o.generation = $1 and o.owner_id = $2
               left join lateral (
                   select * from read_model.history h
                   where h.generation = $1 and h.owner_id = $2 and h.position > $3
                     and h.position < coalesce(o.parked_position, 9223372036854775807)
                   order by h.position limit $4
               ) h on true
               left join read_model.task t on t.generation = $1 and t.owner_id = $2 and t.task_id = h.task_id
                   and t.version = h.version and not t.deleted
               order by h.position"#,
            generation,
            owner,
            after,
            EVENTS_MAX
        )
        .fetch_all(reads.pool(source))
        .await?;
        let first = rows.first().ok_or(ReadError::Unavailable)?;
        if first.live_generation != generation {
            return Ok(None);
        }
        let of = (first.log_id, generation);
        if folds.of != of {
            *folds = Folds { of, tasks: HashMap::new() };
        }
        let complete_until = version_row!(first, generation: generation).complete_until();
        let mut states = HashMap::new();
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let (Some(position), Some(task_id), Some(version), Some(event_type)) =
                (row.position, row.task_id, row.version, row.event_type)
            else {
                continue;
            };
            // Where the event is its task's last, the task's row is the state after it.
            let current = task_in!(row, id: Some(task_id), version: row.title.is_some().then_some(version))?;
            if let Some(task) = current {
                states.insert((task_id, version), task_json::to_json(&task));
            }
            if row.is_purged {
                folds.tasks.remove(&task_id);
            }
            events.push(Event { position, task_id, version, event_type, is_purged: row.is_purged });
        }
        if !fold_missing(reads.pool(source), owner, &events, &mut states, folds).await? {
            return Ok(None);
        }
        let whole = events.len() < usize::try_from(EVENTS_MAX).unwrap_or(usize::MAX);
        if whole {
            // What comes now comes one by one: a stream that waits keeps nothing.
            folds.tasks = HashMap::new();
        }
        let last = events.last().map_or(after, |event| event.position);
        let until = if whole { complete_until.max(last).max(after) } else { last };
        let events = events.into_iter().filter(|event| event.is_deletion() || !event.is_purged);
        let events = events.map(|event| Some((event.position, event.to_bytes(&states)?))).collect::<Option<_>>();
        let events = events.ok_or(ReadError::Unavailable)?;
        Ok(Some(Self { after, until, events }))
    }
}

impl Event {
    /// Of a purged task these are all that is told: what it was is gone.
    fn is_deletion(&self) -> bool {
        matches!(self.event_type.as_str(), "TaskDeleted" | "TaskPurged")
    }

    fn to_bytes(&self, states: &HashMap<(Uuid, i64), Vec<u8>>) -> Option<Bytes> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"id: ");
        write_number(&mut out, self.position);
        out.extend_from_slice(b"\nevent: ");
        out.extend_from_slice(self.event_type.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        if self.is_deletion() {
            out.extend_from_slice(format!("{{\"id\":\"{}\",\"version\":{}}}", self.task_id, self.version).as_bytes());
        } else {
            // JSON without line breaks, so one line of data.
            out.extend_from_slice(states.get(&(self.task_id, self.version))?);
        }
        out.extend_from_slice(b"\n\n");
        Some(Bytes::from(out))
    }
}

/// Adds the states that are not the task's last, from its history. False: one of the tasks was purged in between.
async fn fold_missing(
    pool: &Pool,
    owner: Uuid,
    events: &[Event],
    states: &mut HashMap<(Uuid, i64), Vec<u8>>,
    folds: &mut Folds,
) -> Result<bool, ReadError> {
    let missing = |event: &&Event| {
        !event.is_deletion() && !event.is_purged && !states.contains_key(&(event.task_id, event.version))
    };
    let mut versions: HashMap<Uuid, Vec<i64>> = HashMap::new();
    for event in events.iter().filter(missing) {
        versions.entry(event.task_id).or_default().push(event.version);
    }
    if versions.is_empty() {
        return Ok(true);
    }
    if folds.tasks.values().map(Fold::bytes).sum::<usize>() > FOLDS_BYTES_MAX {
        folds.tasks.retain(|task, _| versions.contains_key(task));
    }
    let (mut tasks, mut known, mut until) = (Vec::new(), Vec::new(), Vec::new());
    for (task, versions) in &versions {
        let fold = folds.tasks.entry(*task).or_insert_with(|| Fold::of(*task));
        if versions.iter().any(|version| *version <= fold.version()) {
            // The page begins before the end of the one before.
            *fold = Fold::of(*task);
        }
        tasks.push(*task);
        known.push(fold.version());
        until.push(versions.iter().copied().max().unwrap_or(0));
    }
    let mut connection = pool.acquire().await?;
    // Each task's in order: the fold takes no other.
    let mut rows = sqlx::query!(
        r#"select w.task_id as "task_id!", h.version as "version!", h.occurred_at as "occurred_at!", h.changes as "changes!"
           from unnest($3::uuid[], $4::bigint[], $5::bigint[]) as w (task_id, known, until)
           cross join lateral (
               select h.version, h.occurred_at, h.changes from read_model.history h
               where h.generation = $1 and h.owner_id = $2 and h.task_id = w.task_id
                 and h.version > w.known and h.version <= w.until
               order by h.version
           ) h"#,
        folds.of.1,
        owner,
        &tasks,
        &known,
        &until
    )
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        let Some(fold) = folds.tasks.get_mut(&row.task_id) else { continue };
        let version = row.version;
        let task = fold.apply(version, row.occurred_at, &row.changes)?;
        if task.title.is_empty() {
            folds.tasks.remove(&row.task_id);
            return Ok(false);
        }
        if versions.get(&row.task_id).is_some_and(|wanted| wanted.contains(&version)) {
            states.insert((row.task_id, version), task_json::to_json(task));
        }
    }
    Ok(true)
}
