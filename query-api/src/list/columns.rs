//! What lists filter and sort by, of owners with many tasks, in memory.
//!
//! No set of indexes answers every combination of filters quickly: where matches are neither rare nor spread evenly
//! along the sort (old tasks are done, due dates follow creation), Postgres has to look at tens of thousands of rows
//! for a page. Looking at 53 bytes a task in memory takes a fraction of a millisecond instead. The ids found are then
//! read from the table, and the page counts only if the owner's change counter is the one that the columns are at:
//! they are a faster way to find the same page, never a source of truth.

use std::collections::HashSet;
use std::ops::ControlFlow;

use backends::database::Pool;
use chrono::DateTime;
use domain::Time;
use read_model::search::{Query, Relevances, Texts};
use sqlx::PgConnection;
use uuid::Uuid;

use super::column_rows::{Changes, Task, TaskWithTexts, changes_since, read};
use super::first_page::first;
use super::indexed_texts::IndexedTexts;
use super::request::ListRequest;
use super::tag_sets::TagSets;
use super::task_set::{Stage, TaskSet, UNDATED};
use crate::owner_version::VersionRow;

/// Owners with more would take too much memory.
pub(super) const TASKS_MAX: i64 = 500_000;
/// Bytes of all columns together, their texts among them, and so of each.
pub(super) const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of a task in all columns.
pub(super) const TASK_BYTES: usize = 16 + 4 * 8 + 1 + 4;

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
    stages: Vec<Stage>,
    /// Which set of tags.
    tag_sets: Vec<u32>,
    sets: TagSets,
    /// Where they are kept.
    texts: Option<IndexedTexts>,
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
            sets: TagSets::default(),
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

    /// Whether each tag, in the order of [`TagSets::tags`], matches `q`.
    pub(crate) fn matching_tags(&self, query: &Query) -> Vec<bool> {
        match &self.texts {
            Some(texts) => texts.matching_tags(query),
            None => self.sets.tags.iter().map(|tag| query.relevance(&Texts::of(tag, [], None)).is_some()).collect(),
        }
    }

    /// `q` with the mistakes that it may have ([`TextIndex::tolerating`](read_model::search::TextIndex::tolerating)).
    pub(crate) fn tolerating(&self, query: &Query) -> Query {
        self.texts.as_ref().map_or_else(|| query.clone(), |texts| texts.tolerating(query))
    }

    /// What is counted of each task.
    pub(crate) fn facts(&self) -> impl Iterator<Item = Facts> {
        (0..self.ids.len()).filter_map(|at| {
            let dated = |us: i64| Some(us).filter(|us| *us != UNDATED);
            Some(Facts {
                status: self.stages[at].status()?,
                priority: self.stages[at].priority()?,
                created_us: self.created_us[at],
                updated_us: self.updated_us[at],
                completed_us: dated(self.completed_us[at]),
                due_us: dated(self.due_us[at]),
            })
        })
    }

    /// When the next task is due that is pending or in progress, from then on.
    pub(super) fn next_due(&self, from: Time) -> Option<Time> {
        let from_us = from.timestamp_micros();
        let is_open = |stage: Stage| stage.status().is_some_and(|status| status < 2);
        let due = self.due_us.iter().zip(&self.stages);
        let next = due.filter(|(due_us, stage)| **due_us >= from_us && **due_us != UNDATED && is_open(**stage));
        next.map(|(due_us, _)| *due_us).min().and_then(DateTime::from_timestamp_micros)
    }

    fn push(&mut self, task: Task) {
        self.ids.push(task.id);
        self.created_us.push(task.created_at.timestamp_micros());
        self.updated_us.push(task.updated_at.timestamp_micros());
        self.completed_us.push(task.completed_at.map_or(UNDATED, |time| time.timestamp_micros()));
        self.due_us.push(task.due_at.map_or(UNDATED, |due| due.timestamp_micros()));
        self.stages.push(Stage::of(Some(task.status), Some(task.priority)));
        self.tag_sets.push(self.sets.number(task.tags));
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
        first(self, request, usize::from(request.limit) + 1)
    }
}

impl TaskSet for Columns {
    fn places(&self) -> impl Iterator<Item = usize> {
        0..self.ids.len()
    }

    fn places_max(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, at: usize) -> Uuid {
        self.ids[at]
    }

    fn stage(&self, at: usize) -> Stage {
        self.stages[at]
    }

    fn created_us(&self, at: usize) -> i64 {
        self.created_us[at]
    }

    fn updated_us(&self, at: usize) -> i64 {
        self.updated_us[at]
    }

    fn due_us(&self, at: usize) -> i64 {
        self.due_us[at]
    }

    fn tag_set(&self, at: usize) -> u32 {
        self.tag_sets[at]
    }

    fn sets(&self) -> &TagSets {
        &self.sets
    }

    fn relevances(&self, query: &Query) -> Option<Relevances> {
        self.texts.as_ref().map(|texts| texts.relevances(query))
    }

    fn text(&self, at: usize) -> u32 {
        self.texts.as_ref().map_or(0, |texts| texts.number(at))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use domain::{Priority, Status};
    use read_model::TaskFilters;

    use super::*;
    use crate::list::request::{Sort, SortBy};

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
                status: 0,
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
    fn filters_mean_in_columns_what_they_mean_of_a_task() {
        const TAGS: [&[&str]; 4] = [&[], &["a"], &["a", "b"], &["c"]];
        let at = |us: i64| DateTime::from_timestamp_micros(us).unwrap();
        let (now, mut columns, mut tasks) = (at(20), columns(0), Vec::new());
        for (status, priority) in Status::ALL.iter().flat_map(|status| Priority::ALL.iter().map(move |p| (*status, *p)))
        {
            for due_at in [None, Some(at(10)), Some(at(19)), Some(at(20)), Some(at(30))] {
                for tags in TAGS {
                    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
                    let blank = read_model::Task::blank(Uuid::from_u128(tasks.len() as u128), at(0));
                    let task = read_model::Task { status, priority, due_at, tags, ..blank };
                    columns.push(Task {
                        id: task.id,
                        status: status.code(),
                        priority: priority.code(),
                        created_at: task.created_at,
                        updated_at: task.updated_at,
                        completed_at: None,
                        due_at,
                        tags: task.tags.clone(),
                    });
                    tasks.push(task);
                }
            }
        }
        let (tenth, twentieth) = ("1970-01-01T00:00:00.00001Z", "1970-01-01T00:00:00.00002Z");
        let all: [&[(&str, &str)]; 13] = [
            &[],
            &[("status", "pending,completed")],
            &[("priority", "high")],
            &[("tag", "b,c")],
            &[("tag", "z")],
            &[("due_after", tenth)],
            &[("due_before", twentieth)],
            &[("due_after", tenth), ("due_before", twentieth), ("tag", "a")],
            &[("overdue", "true")],
            &[("overdue", "true"), ("due_before", "2030-01-01T00:00:00Z"), ("priority", "low,urgent")],
            &[("overdue", "true"), ("due_before", tenth)],
            &[("overdue", "true"), ("status", "in_progress,completed")],
            &[("overdue", "true"), ("status", "completed,cancelled")],
        ];
        for asked in all {
            let mut filters = TaskFilters::default();
            asked.iter().for_each(|(name, value)| filters.set(name, value).unwrap());
            let first = ListRequest::first_page(Sort { by: SortBy::CreatedAt, descending: false });
            let find = |request: ListRequest| super::first(&columns, &request, tasks.len());
            let found = filters.at(now).map(|filters| find(ListRequest { filters, ..first }));
            let matching = tasks.iter().filter(|task| filters.matches(task, now)).map(|task| task.id);
            assert_eq!(found.unwrap_or_default(), matching.collect::<Vec<_>>(), "{asked:?}");
        }
    }

    #[test]
    fn the_next_due_date_is_that_of_an_open_task() {
        let at = |us: i64| DateTime::from_timestamp_micros(us).unwrap();
        let mut columns = columns(1);
        for (status, due_us) in [(2, 20), (3, 21), (1, 30), (0, 40), (0, 10)] {
            let task = Task {
                id: Uuid::nil(),
                status,
                priority: 1,
                created_at: at(0),
                updated_at: at(0),
                completed_at: None,
                due_at: Some(at(due_us)),
                tags: Vec::new(),
            };
            columns.push(task);
        }
        for (from, next) in [(0, Some(10)), (10, Some(10)), (11, Some(30)), (31, Some(40)), (41, None)] {
            assert_eq!(columns.next_due(at(from)), next.map(at), "from {from}");
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
            let _ = columns.sets.number(tags(n));
        }
        assert!(!columns.fit(), "tags");
    }
}
