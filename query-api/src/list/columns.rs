//! What lists filter and sort by, of owners with many tasks, in memory.
//!
//! No set of indexes answers every combination of filters quickly: where matches are neither rare nor spread evenly
//! along the sort (old tasks are done, due dates follow creation), Postgres has to look at tens of thousands of rows
//! for a page. Looking at 57 bytes a task in memory takes a fraction of a millisecond instead. The ids found are then
//! read from the table, and the page counts only if the owner's change counter is the one that the columns are at:
//! they are a faster way to find the same page, never a source of truth.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use backends::database::Pool;
use domain::Time;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::request::{Filters, ListRequest, Sort, SortBy, SortPosition};
use crate::owner_version::{VersionRow, version_row};

/// Owners with more would take too much memory.
pub(super) const TASKS_MAX: i64 = 500_000;
/// Bytes of all columns together, and so of each.
pub(super) const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events to catch up with; beyond that, columns are loaded anew.
const CATCH_UP_EVENTS_MAX: i64 = 5_000;
/// A task without due date, or not completed.
const UNDATED: i64 = i64::MAX;
/// Bytes of a task in all columns.
pub(crate) const TASK_BYTES: usize = 16 + 4 * 8 + 1 + 4;

/// Tasks that are read at a time where columns are not kept.
const PART_TASKS_MAX: usize = 4_096;

/// Whether all that happened from one version to another is in the history beyond its revision: the counter's upper half
/// counts what is not (events parked and mended).
pub(crate) fn leads_to(row: &VersionRow, later: &VersionRow) -> bool {
    row.same_read_model(later)
        && row.counter() >> 32 == later.counter() >> 32
        && row.counter() <= later.counter()
        && row.revision <= later.revision
}

/// A task as far as lists and counts ask.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub id: Uuid,
    /// None: it is deleted.
    pub status: Option<i16>,
    pub priority: i16,
    pub created_at: Time,
    pub updated_at: Time,
    pub completed_at: Option<Time>,
    pub due_at: Option<Time>,
    pub tags: Vec<String>,
}

/// What is counted of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Their codes.
    pub status: usize,
    pub priority: usize,
    pub created_us: i64,
    pub updated_us: i64,
    pub completed_us: Option<i64>,
    pub due_us: Option<i64>,
}

/// What came of loading columns.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made")]
pub(super) enum Outcome {
    Columns(Columns),
    /// They would take more than columns may.
    TooLarge,
    /// There is no such owner, or another generation is live.
    Nothing,
}

/// The columns of one owner's tasks: the same index is the same task.
pub(crate) struct Columns {
    pub(super) version: VersionRow,
    ids: Vec<Uuid>,
    created_us: Vec<i64>,
    updated_us: Vec<i64>,
    completed_us: Vec<i64>,
    due_us: Vec<i64>,
    /// Bits 0 to 3: status, none where it is deleted; bits 4 to 7: priority; one set of each.
    stages: Vec<u8>,
    /// Which set of tags.
    tag_sets: Vec<u32>,
    sets: Arc<TagSets>,
}

/// Tags and sets of tags, each once.
#[derive(Default, Clone)]
struct TagSets {
    tags: Vec<Arc<str>>,
    tag_numbers: HashMap<Arc<str>, u32>,
    sets: Vec<Arc<[u32]>>,
    numbers: HashMap<Arc<[u32]>, u32>,
    bytes: usize,
}

impl TagSets {
    fn number(&mut self, tags: Vec<String>) -> u32 {
        let set: Vec<u32> = tags.into_iter().map(|tag| self.tag_number(tag)).collect();
        if let Some(number) = self.numbers.get(set.as_slice()) {
            return *number;
        }
        self.bytes += 100 + 4 * set.len();
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let set: Arc<[u32]> = set.into();
        self.sets.push(set.clone());
        self.numbers.insert(set, number);
        number
    }

    fn tag_number(&mut self, tag: String) -> u32 {
        if let Some(number) = self.tag_numbers.get(tag.as_str()) {
            return *number;
        }
        self.bytes += 100 + tag.len();
        let number = u32::try_from(self.tags.len()).unwrap_or(u32::MAX);
        let tag: Arc<str> = tag.into();
        self.tags.push(tag.clone());
        self.tag_numbers.insert(tag, number);
        number
    }
}

/// A task's place in a sort, such that a smaller one comes first in either direction.
type Rank = (bool, i64, u128);

impl Sort {
    fn rank(self, key: Option<i64>, id: Uuid) -> Rank {
        let (key, none, id) = (key.unwrap_or(0), key.is_none(), id.as_u128());
        if self.descending { (none, !key, !id) } else { (none, key, id) }
    }
}

impl Columns {
    pub(crate) fn empty(version: VersionRow) -> Self {
        Self {
            version,
            ids: Vec::new(),
            created_us: Vec::new(),
            updated_us: Vec::new(),
            completed_us: Vec::new(),
            due_us: Vec::new(),
            stages: Vec::new(),
            tag_sets: Vec::new(),
            sets: Arc::default(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.ids.capacity() * TASK_BYTES + self.sets.bytes
    }

    /// Whether they take no more than columns may.
    fn fit(&self) -> bool {
        self.bytes() <= BYTES_MAX && i64::try_from(self.ids.len()).is_ok_and(|tasks| tasks <= TASKS_MAX)
    }

    /// All tasks of the owner.
    pub(super) async fn load(pool: &Pool, generation: i32, owner: Uuid) -> Result<Outcome, sqlx::Error> {
        let mut columns = None;
        let mut fit = true;
        let live_generation = read(pool, generation, owner, |version, task| {
            let columns = columns.get_or_insert_with(|| Self::empty(version));
            task.into_iter().for_each(|task| columns.push(task));
            fit = columns.fit();
            if fit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        let there = |columns: &Self| columns.version.change_counter.is_some();
        Ok(match columns.filter(there) {
            Some(columns) if fit && live_generation == generation => Outcome::Columns(columns),
            Some(_) if !fit => Outcome::TooLarge,
            _ => Outcome::Nothing,
        })
    }

    /// Shows all tasks of the owner to `each`, in parts. Returns what is live, and the snapshot's version.
    pub(super) async fn read_in_parts(
        pool: &Pool,
        generation: i32,
        owner: Uuid,
        mut each: impl FnMut(&Self),
    ) -> Result<(i32, VersionRow), sqlx::Error> {
        let mut part = None;
        let live_generation = read(pool, generation, owner, |version, task| {
            let columns = part.get_or_insert_with(|| Self::empty(version));
            task.into_iter().for_each(|task| columns.push(task));
            if columns.ids.len() == PART_TASKS_MAX {
                each(columns);
                part = Some(Self::empty(version));
            }
            ControlFlow::Continue(())
        })
        .await?;
        let rest = part.ok_or(sqlx::Error::RowNotFound)?;
        each(&rest);
        Ok((live_generation, rest.version))
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// What is counted of each task.
    pub(crate) fn facts(&self) -> impl Iterator<Item = Facts> {
        (0..self.ids.len()).map(|at| {
            let stage = self.stages[at];
            let dated = |us: i64| Some(us).filter(|us| *us != UNDATED);
            Facts {
                status: (stage & 15).trailing_zeros() as usize,
                priority: (stage >> 4).trailing_zeros() as usize,
                created_us: self.created_us[at],
                updated_us: self.updated_us[at],
                completed_us: dated(self.completed_us[at]),
                due_us: dated(self.due_us[at]),
            }
        })
    }

    pub(crate) fn push(&mut self, task: Task) {
        self.ids.push(task.id);
        self.created_us.push(task.created_at.timestamp_micros());
        self.updated_us.push(task.updated_at.timestamp_micros());
        self.completed_us.push(task.completed_at.map_or(UNDATED, |time| time.timestamp_micros()));
        self.due_us.push(task.due_at.map_or(UNDATED, |due| due.timestamp_micros()));
        self.stages.push(stage(task.status, task.priority));
        self.tag_sets.push(Arc::make_mut(&mut self.sets).number(task.tags));
    }

    /// Without tasks, for some of these.
    pub(crate) fn with_the_same_sets(&self) -> Self {
        Self { sets: self.sets.clone(), ..Self::empty(self.version) }
    }

    /// Appends a task of columns that have the same sets.
    pub(crate) fn copy(&mut self, from: &Self, at: usize) {
        self.ids.push(from.ids[at]);
        self.created_us.push(from.created_us[at]);
        self.updated_us.push(from.updated_us[at]);
        self.completed_us.push(from.completed_us[at]);
        self.due_us.push(from.due_us[at]);
        self.stages.push(from.stages[at]);
        self.tag_sets.push(from.tag_sets[at]);
    }

    pub(crate) fn id(&self, at: usize) -> Uuid {
        self.ids[at]
    }

    pub(crate) fn updated_us(&self) -> &[i64] {
        &self.updated_us
    }

    /// Its code; `None` where it is deleted.
    pub(crate) fn status(&self, at: usize) -> Option<usize> {
        let status = self.stages[at] & 15;
        (status != 0).then_some(status.trailing_zeros() as usize)
    }

    fn remove(&mut self, at: usize) {
        self.ids.swap_remove(at);
        self.created_us.swap_remove(at);
        self.updated_us.swap_remove(at);
        self.completed_us.swap_remove(at);
        self.due_us.swap_remove(at);
        self.stages.swap_remove(at);
        self.tag_sets.swap_remove(at);
    }

    /// Takes in what has happened since. False: that cannot be done.
    pub(super) async fn catch_up(&mut self, pool: &Pool, generation: i32, owner: Uuid) -> Result<bool, sqlx::Error> {
        let rows = sqlx::query!(
            r#"with events as materialized (
                   select distinct task_id from (
                       select h.task_id from read_model.history h
                       where h.generation = $1 and h.owner_id = $2 and h.position > $3 order by h.position limit $4) h
               )
               select p.log_id, p.live_generation, o.shard, o.revision, o.change_counter, o.parked_position,
                   t.task_id as "task_id?", t.deleted as "deleted?", t.status as "status?", t.priority as "priority?",
                   t.created_at as "created_at?", t.updated_at as "updated_at?", t.completed_at, t.due_at, t.tags as "tags?",
                   (select count(*) from (select 1 from read_model.history h
                       where h.generation = $1 and h.owner_id = $2 and h.position > $3 limit $4) n) as "events!"
               from read_model.projection p
               join read_model.owner o on o.generation = $1 and o.owner_id = $2
               left join events e on true
               left join lateral (
                   select * from read_model.task t where t.generation = $1 and t.owner_id = $2 and t.task_id = e.task_id limit 1
               ) t on true"#,
            generation,
            owner,
            self.version.revision.unwrap_or(0),
            CATCH_UP_EVENTS_MAX
        )
        .fetch_all(pool)
        .await?;
        let Some(first) = rows.first() else { return Ok(false) };
        let later = VersionRow {
            log_id: first.log_id,
            generation,
            shard: Some(first.shard),
            revision: Some(first.revision),
            change_counter: Some(first.change_counter),
            parked_position: first.parked_position,
        };
        let caught_up = first.live_generation == generation && first.events < CATCH_UP_EVENTS_MAX;
        if !caught_up || !leads_to(&self.version, &later) {
            return Ok(false);
        }
        let touched: HashSet<Uuid> = rows.iter().filter_map(|row| row.task_id).collect();
        self.forget(&touched);
        for row in rows {
            let task = || {
                Some(Task {
                    id: row.task_id?,
                    status: Some(row.status?),
                    priority: row.priority?,
                    created_at: row.created_at?,
                    updated_at: row.updated_at?,
                    completed_at: row.completed_at,
                    due_at: row.due_at,
                    tags: row.tags?,
                })
            };
            if let (Some(false), Some(task)) = (row.deleted, task()) {
                self.push(task);
            }
        }
        self.version = later;
        // Sets that no task has any more are not looked for; they only must not grow for ever.
        Ok(self.fit() && self.sets.sets.len() <= self.ids.len() + 10_000)
    }

    fn forget(&mut self, tasks: &HashSet<Uuid>) {
        // Most ids are told by one byte not to be among them.
        let mut last_bytes = [false; 256];
        for task in tasks {
            last_bytes[usize::from(task.as_bytes()[15])] = true;
        }
        let mut at = 0;
        while at < self.ids.len() {
            let id = self.ids[at];
            if last_bytes[usize::from(id.as_bytes()[15])] && tasks.contains(&id) {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The ids of the page's tasks in order, and of one more if there is.
    pub(super) fn find(&self, request: &ListRequest) -> Vec<Uuid> {
        self.first(request, usize::from(request.limit) + 1)
    }

    /// The ids of the first tasks that match, in order.
    pub(super) fn first(&self, request: &ListRequest, wanted: usize) -> Vec<Uuid> {
        let sort = request.sort;
        let after = request.after.map(|SortPosition { key, id }| sort.rank(key, id));
        let matcher = Matcher::of(&request.filters, &self.sets);
        let mut found: Vec<Rank> = Vec::with_capacity((8 * wanted).min(self.ids.len()));
        let mut worst: Option<Rank> = None;
        for at in 0..self.ids.len() {
            if !matcher.matches(self, at) {
                continue;
            }
            let rank = sort.rank(self.key(at, sort.by), self.ids[at]);
            if after.is_some_and(|after| rank <= after) || worst.is_some_and(|worst| rank >= worst) {
                continue;
            }
            found.push(rank);
            if found.len() == 8 * wanted {
                let (_, last, _) = found.select_nth_unstable(wanted - 1);
                worst = Some(*last);
                found.truncate(wanted);
            }
        }
        found.sort_unstable();
        found.truncate(wanted);
        let id = |id: u128| Uuid::from_u128(if sort.descending { !id } else { id });
        found.into_iter().map(|(_, _, number)| id(number)).collect()
    }

    fn key(&self, at: usize, by: SortBy) -> Option<i64> {
        match by {
            SortBy::CreatedAt => Some(self.created_us[at]),
            SortBy::UpdatedAt => Some(self.updated_us[at]),
            SortBy::Priority => Some(i64::from((self.stages[at] >> 4).trailing_zeros())),
            SortBy::DueAt => Some(self.due_us[at]).filter(|due_us| *due_us != UNDATED),
            SortBy::Relevance => None,
        }
    }
}

/// Shows the tasks of the owner to `each`, one after the other, from one snapshot; no task where there is none. Returns what
/// is live.
async fn read(
    pool: &Pool,
    generation: i32,
    owner: Uuid,
    mut each: impl FnMut(VersionRow, Option<Task>) -> ControlFlow<()>,
) -> Result<i32, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut rows = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               t.task_id as "task_id?", t.status as "status?", t.priority as "priority?", t.created_at as "created_at?",
               t.updated_at as "updated_at?", t.completed_at, t.due_at, t.tags as "tags?"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join read_model.task t on t.generation = $1 and t.owner_id = $2 and not t.deleted"#,
        generation,
        owner
    )
    .fetch(&mut *connection);
    let mut live_generation = generation;
    while let Some(row) = rows.try_next().await? {
        live_generation = row.live_generation;
        let version = version_row!(row, generation: generation);
        let task = || {
            Some(Task {
                id: row.task_id?,
                status: Some(row.status?),
                priority: row.priority?,
                created_at: row.created_at?,
                updated_at: row.updated_at?,
                completed_at: row.completed_at,
                due_at: row.due_at,
                tags: row.tags?,
            })
        };
        if each(version, task()).is_break() {
            break;
        }
    }
    Ok(live_generation)
}

fn stage(status: Option<i16>, priority: i16) -> u8 {
    status.map_or(0, |status| 1 << (status & 3)) | 16 << (priority & 3)
}

/// Filters, worked out for one owner's columns.
struct Matcher {
    statuses: u8,
    priorities: u8,
    /// From, and earlier than.
    due_us: Option<(i64, i64)>,
    /// By number of the set.
    tag_sets: Option<Vec<bool>>,
}

impl Matcher {
    fn of(filters: &Filters, sets: &TagSets) -> Self {
        let mask = |codes: &[i16], shift: u32| match codes {
            [] => 15 << shift,
            codes => codes.iter().fold(0_u8, |mask, code| mask | 1 << (u32::from(code.unsigned_abs() & 3) + shift)),
        };
        let dated = filters.due_after.is_some() || filters.due_before.is_some();
        let wanted: Vec<u32> =
            filters.tags.iter().filter_map(|tag| sets.tag_numbers.get(tag.as_str()).copied()).collect();
        let has = |set: &Arc<[u32]>| set.iter().any(|tag| wanted.contains(tag));
        Self {
            statuses: mask(&filters.statuses, 0),
            priorities: mask(&filters.priorities, 4),
            // A task without due date is later than any end.
            due_us: dated.then(|| {
                let us = |time: Time| time.timestamp_micros();
                (filters.due_after.map_or(i64::MIN, us), filters.due_before.map_or(UNDATED, us))
            }),
            tag_sets: (!filters.tags.is_empty()).then(|| sets.sets.iter().map(has).collect()),
        }
    }

    fn matches(&self, columns: &Columns, at: usize) -> bool {
        let (stage, due_us) = (columns.stages[at], columns.due_us[at]);
        let has_tag = |sets: &Vec<bool>| sets.get(columns.tag_sets[at] as usize).copied().unwrap_or(false);
        stage & self.statuses != 0
            && stage & self.priorities != 0
            && self.due_us.is_none_or(|(from, until)| from <= due_us && due_us < until)
            && self.tag_sets.as_ref().is_none_or(has_tag)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::list) fn columns(tasks: usize) -> Columns {
        let mut columns = Columns::empty(VersionRow {
            log_id: None,
            generation: 1,
            shard: Some(0),
            revision: Some(1),
            change_counter: Some(1),
            parked_position: None,
        });
        add(&mut columns, tasks);
        columns
    }

    pub(in crate::list) fn add(columns: &mut Columns, tasks: usize) {
        for _ in 0..tasks {
            let id = Uuid::from_u128(columns.ids.len() as u128);
            let (created_at, updated_at) = (Time::default(), Time::default());
            columns.push(Task {
                id,
                status: Some(0),
                priority: 1,
                created_at,
                updated_at,
                completed_at: None,
                due_at: None,
                tags: Vec::new(),
            });
        }
    }

    #[test]
    fn columns_have_limits() {
        let tasks_max = usize::try_from(TASKS_MAX).unwrap();
        let mut columns = columns(tasks_max);
        assert!(columns.fit());
        add(&mut columns, 1);
        assert!(!columns.fit(), "tasks");
        columns.remove(tasks_max);
        let tags = |n: usize| (0..20).map(|tag| format!("{n:025}{tag:025}")).collect();
        for n in 0..BYTES_MAX / 1_500 {
            let _ = Arc::make_mut(&mut columns.sets).number(tags(n));
        }
        assert!(!columns.fit(), "tags");
    }
}
