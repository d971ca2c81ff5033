//! What lists filter and sort by, of owners with many tasks, in memory.
//!
//! No set of indexes answers every combination of filters quickly: where matches are neither rare nor spread evenly
//! along the sort (old tasks are done, due dates follow creation), Postgres has to look at tens of thousands of rows
//! for a page. Looking at 57 bytes a task in memory takes a fraction of a millisecond instead. The ids found are then
//! read from the table, and the page counts only if the owner's change counter is the one that the columns are at:
//! they are a faster way to find the same page, never a source of truth.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use backends::database::Pool;
use read_model::search::{Query, Texts};
use sqlx::PgConnection;
use uuid::Uuid;

use super::column_rows::{Changes, Task, TaskWithTexts, changes_since, read};
use super::indexed_texts::IndexedTexts;
use super::matcher::{Filterable, Matcher, Misses, UNDATED};
use super::request::{Filters, ListRequest, Sort, SortBy, SortPosition, relevance_key};
use super::tag_sets::TagSets;
use crate::owner_version::VersionRow;

/// Owners with more would take too much memory.
pub(super) const TASKS_MAX: i64 = 500_000;
/// Bytes of all columns together, their texts among them, and so of each.
pub(super) const BYTES_MAX: usize = 128 * 1024 * 1024;
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
    /// [`UNDATED`] where it is not completed.
    completed_us: Vec<i64>,
    due_us: Vec<i64>,
    /// As [`Filterable::stage`].
    stages: Vec<u8>,
    /// Which set of tags.
    tag_sets: Vec<u32>,
    sets: Arc<TagSets>,
    /// Where they are kept.
    texts: Option<IndexedTexts>,
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
            texts: None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let texts = self.texts.as_ref().map_or(0, IndexedTexts::bytes);
        self.ids.capacity() * TASK_BYTES + self.sets.bytes + texts
    }

    /// Whether they take no more than columns may.
    fn fit(&self) -> bool {
        self.bytes() <= BYTES_MAX && i64::try_from(self.ids.len()).is_ok_and(|tasks| tasks <= TASKS_MAX)
    }

    /// All tasks of the owner.
    pub(super) async fn load(
        pool: &Pool,
        generation: i32,
        owner: Uuid,
        with_texts: bool,
    ) -> Result<Outcome, sqlx::Error> {
        let mut columns = None;
        let mut fit = true;
        let mut connection = pool.acquire().await?;
        let live_generation = read(&mut connection, generation, owner, None, with_texts, |version, task| {
            let texts = || with_texts.then(IndexedTexts::default);
            let columns = columns.get_or_insert_with(|| Self { texts: texts(), ..Self::empty(version) });
            task.into_iter().for_each(|task| columns.push_with_texts(task));
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

    /// Shows all tasks of the owner, or those that were found, to `each`, in parts. Returns what is live, and the snapshot's version.
    pub(crate) async fn read_in_parts(
        connection: &mut PgConnection,
        generation: i32,
        owner: Uuid,
        found: Option<&[Uuid]>,
        mut each: impl FnMut(&Self),
    ) -> Result<(i32, VersionRow), sqlx::Error> {
        let mut part = None;
        let live_generation = read(connection, generation, owner, found, false, |version, task| {
            let columns = part.get_or_insert_with(|| Self::empty(version));
            task.into_iter().for_each(|task| columns.push(task.task));
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

    /// Which set of tags it has, in the order of [`Self::tag_sets`].
    pub(crate) fn tag_set(&self, at: usize) -> usize {
        self.tag_sets[at] as usize
    }

    /// How many different sets of tags there are.
    pub(crate) fn tag_sets(&self) -> usize {
        self.sets.sets.len()
    }

    /// Each tag, and how many tasks of these sets have it. (The counts are by set of tags.)
    pub(crate) fn count_tags(&self, by_set: &[i64]) -> impl Iterator<Item = (&str, i64)> {
        let mut counts = vec![0; self.sets.tags.len()];
        for (set, count) in self.sets.sets.iter().zip(by_set) {
            set.iter().for_each(|tag| counts[*tag as usize] += count);
        }
        self.sets.tags.iter().map(AsRef::as_ref).zip(counts)
    }

    /// Whether each tag, in the order of [`Self::count_tags`], matches `q`.
    pub(crate) fn matching_tags(&self, query: &Query) -> Vec<bool> {
        match &self.texts {
            Some(texts) => texts.matching_tags(query),
            None => self.sets.tags.iter().map(|tag| query.rank(&Texts::of(tag, [], None)).is_some()).collect(),
        }
    }

    /// `q` with the mistakes that it may have ([`TextIndex::tolerating`](read_model::search::TextIndex::tolerating)).
    pub(crate) fn tolerating(&self, query: &Query) -> Query {
        self.texts.as_ref().map_or_else(|| query.clone(), |texts| texts.tolerating(query))
    }

    /// The filters, worked out for these tasks. `q` is looked for where texts are kept; otherwise only tasks that match it
    /// are here.
    pub(crate) fn matcher(&self, filters: &Filters) -> Matcher {
        let ranks = filters.q.as_ref().zip(self.texts.as_ref()).map(|(q, texts)| texts.ranks(&q.query));
        Matcher::of(filters, &self.sets, ranks)
    }

    /// Which filters the task does not match.
    pub(crate) fn misses(&self, matcher: &Matcher, at: usize) -> Misses {
        matcher.misses(self.filterable(at))
    }

    fn filterable(&self, at: usize) -> Filterable {
        let text = self.texts.as_ref().map_or(0, |texts| texts.number(at));
        Filterable { stage: self.stages[at], due_us: self.due_us[at], tag_set: self.tag_sets[at], text }
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

    fn push_with_texts(&mut self, TaskWithTexts { task, title, description }: TaskWithTexts) {
        let tags = self.sets.tags.len();
        if let Some(texts) = &mut self.texts {
            texts.push(&title.unwrap_or_default(), &task.tags, description.as_deref());
        }
        self.push(task);
        if let Some(texts) = &mut self.texts {
            self.sets.tags[tags..].iter().for_each(|tag| texts.push_tag(tag));
        }
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
        if let Some(texts) = &mut self.texts {
            texts.swap_remove(at);
        }
    }

    /// Takes in what has happened since. False: that cannot be done.
    pub(super) async fn catch_up(&mut self, pool: &Pool, generation: i32, owner: Uuid) -> Result<bool, sqlx::Error> {
        let changes = changes_since(pool, generation, owner, &self.version, self.texts.is_some()).await?;
        let Some(Changes { version, touched, tasks }) =
            changes.filter(|changes| leads_to(&self.version, &changes.version))
        else {
            return Ok(false);
        };
        self.forget(&touched);
        tasks.into_iter().for_each(|task| self.push_with_texts(task));
        self.version = version;
        // What no task has any more is not looked for; it only must not grow for ever.
        let kept = self.texts.as_ref().map_or(0, IndexedTexts::len).max(self.sets.sets.len());
        Ok(self.fit() && kept <= 2 * self.ids.len() + 10_000)
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
    pub(crate) fn find(&self, request: &ListRequest) -> Vec<Uuid> {
        self.first(request, usize::from(request.limit) + 1)
    }

    /// The ids of the first tasks that match, in order.
    pub(super) fn first(&self, request: &ListRequest, wanted: usize) -> Vec<Uuid> {
        let sort = request.sort;
        let after = request.after.map(|SortPosition { key, id }| sort.rank(key, id));
        let matcher = self.matcher(&request.filters);
        let mut found: Vec<Rank> = Vec::with_capacity((8 * wanted).min(self.ids.len()));
        let mut worst: Option<Rank> = None;
        for at in 0..self.ids.len() {
            let task = self.filterable(at);
            if !matcher.matches(task) {
                continue;
            }
            let key = match sort.by {
                SortBy::Relevance => matcher.rank(task).map(|rank| relevance_key(rank, self.created_us[at])),
                by => self.key(at, by),
            };
            let rank = sort.rank(key, self.ids[at]);
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

fn stage(status: Option<i16>, priority: i16) -> u8 {
    status.map_or(0, |status| 1 << (status & 3)) | 16 << (priority & 3)
}

#[cfg(test)]
pub(super) mod tests {
    use domain::Time;

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
        let tags = |n: usize| (0..20).map(|tag| format!("{n:0250}{tag:0250}")).collect();
        for n in 0..BYTES_MAX / 12_000 {
            let _ = Arc::make_mut(&mut columns.sets).number(tags(n));
        }
        assert!(!columns.fit(), "tags");
    }
}
