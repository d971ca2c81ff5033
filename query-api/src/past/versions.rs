//! An owner's rows of `read_model.task_version`, in memory.
//!
//! No index answers "all that held at T" quickly for every T: about as many rows began before it as ended after it. Here the
//! rows of a task lie one behind the other, and each holds until the next one: which held at T is a binary search among the
//! times of each task, all of them in one column (8 bytes a row). What else a list asks for is read from those rows alone.
//! How many tasks stood where at a moment needs no rows at all: [`Timeline`].
//!
//! Rows that came later are behind all of these, in the order in which they came. There are never many.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use chrono::DateTime;
use domain::Time;
use futures_util::{Stream, TryStreamExt};
use sqlx::PgConnection;
use uuid::Uuid;

use super::room::make_room;
use super::sort_texts::SortTexts;
use super::timeline::{Move, Timeline};
use super::version_rows::{Row, rows, rows_since};
use crate::as_of::AsOf;
use crate::list::columns::leads_to;
use crate::list::tag_sets::TagSets;
use crate::list::task_set::{Stage, UNDATED};
use crate::owner_version::VersionRow;

/// Events to catch up with; beyond that, all rows are loaded anew.
const CATCH_UP_EVENTS_MAX: i64 = 50_000;
/// Rows that may have come later, beside half of the others; beyond that, all are loaded anew.
const LATER_ROWS_MIN: usize = 1_000;
/// Bytes of a row, about: 29 of its columns, 10 of its move, and its share of its task and of titles.
const ROW_BYTES: usize = 64;
/// Bytes of a task's id and number in the map.
const NUMBER_BYTES: usize = 24;
/// The number of no row.
pub(super) const NONE: u32 = u32::MAX;

/// The versions of one owner's tasks. A task has a number, and so has a row.
pub(super) struct Versions {
    pub version: VersionRow,
    /// By number of the task, as the next three.
    pub ids: Vec<Uuid>,
    pub created_us: Vec<i64>,
    /// Its last row.
    last: Vec<u32>,
    /// Where the rows of each of the first tasks end: they begin where those of the task before end.
    ends: Vec<u32>,
    /// When each row began to hold, as the other columns by number of the row.
    pub from_us: Vec<i64>,
    pub due_us: Vec<i64>,
    pub stages: Vec<Stage>,
    /// Which set of tags.
    pub tag_sets: Vec<u32>,
    pub texts: SortTexts,
    pub sets: Arc<TagSets>,
    /// The task of each row that came later: of those behind the last end.
    later: Vec<u32>,
    /// The tasks by id, where rows may follow.
    numbers: HashMap<Uuid, u32>,
    timeline: Timeline,
}

impl Versions {
    pub fn empty(version: VersionRow) -> Self {
        Self {
            version,
            ids: Vec::new(),
            created_us: Vec::new(),
            last: Vec::new(),
            ends: Vec::new(),
            from_us: Vec::new(),
            due_us: Vec::new(),
            stages: Vec::new(),
            tag_sets: Vec::new(),
            texts: SortTexts::new(),
            sets: Arc::default(),
            later: Vec::new(),
            numbers: HashMap::new(),
            timeline: Timeline::new(),
        }
    }

    /// Bytes of so many rows, about.
    pub fn bytes_of(rows: usize) -> usize {
        rows * ROW_BYTES
    }

    pub fn bytes(&self) -> usize {
        let tasks = 16 * self.ids.capacity() + 8 * self.created_us.capacity();
        let numbers = 4 * (self.last.capacity() + self.ends.capacity() + self.later.capacity());
        let times = 8 * (self.from_us.capacity() + self.due_us.capacity());
        let rest = self.stages.capacity() + 4 * self.tag_sets.capacity() + NUMBER_BYTES * self.numbers.capacity();
        tasks + numbers + times + rest + self.texts.bytes() + self.sets.bytes + self.timeline.bytes()
    }

    /// Bytes of titles, ranks and tags.
    pub fn text_bytes(&self) -> usize {
        self.texts.text_bytes() + self.sets.bytes
    }

    /// All rows of the owner, of the snapshot of that version. `None`: their titles, ranks and tags take more than `bytes_max`,
    /// and the rest was not read.
    pub async fn load(
        connection: &mut PgConnection,
        owner: Uuid,
        version: VersionRow,
        bytes_max: usize,
    ) -> Result<Option<Self>, sqlx::Error> {
        Self::of(rows(connection, owner, version), version, bytes_max).await
    }

    async fn of(
        rows: impl Stream<Item = Result<Row, sqlx::Error>>,
        version: VersionRow,
        bytes_max: usize,
    ) -> Result<Option<Self>, sqlx::Error> {
        let mut versions = Self::empty(version);
        let mut moves = Vec::new();
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            moves.extend(versions.push_loaded(row));
            if versions.text_bytes() > bytes_max {
                return Ok(None);
            }
        }
        versions.settle(moves);
        Ok(Some(versions))
    }

    /// Takes in what has happened until that version's snapshot. False: that cannot be done.
    pub async fn catch_up(
        &mut self,
        connection: &mut PgConnection,
        owner: Uuid,
        version: VersionRow,
    ) -> Result<bool, sqlx::Error> {
        if !leads_to(&self.version, &version) {
            return Ok(false);
        }
        let position = self.version.revision.unwrap_or(0);
        let rows = rows_since(connection, owner, version.generation, position, CATCH_UP_EVENTS_MAX).await?;
        let is_long = i64::try_from(rows.len()).is_ok_and(|rows| rows >= CATCH_UP_EVENTS_MAX);
        let are_many = self.later.len() + rows.len() > self.settled() / 2 + LATER_ROWS_MIN;
        // Of a task that was purged, rows from before are other ones now.
        if is_long || are_many || rows.iter().any(|row| row.priority.is_none()) {
            return Ok(false);
        }
        self.push_later(rows);
        self.version = version;
        Ok(true)
    }

    /// The next row, by task and version.
    fn push_loaded(&mut self, row: Row) -> Option<(i64, Move)> {
        let newest = self.ids.last().filter(|id| **id == row.id).map(|_| number(self.ids.len() - 1));
        let (task, moved) = self.push(newest, row);
        let end = number(self.from_us.len());
        match self.ends.get_mut(task as usize) {
            Some(last) => *last = end,
            None => self.ends.push(end),
        }
        moved
    }

    /// All rows are there: these are their moves.
    fn settle(&mut self, moves: Vec<(i64, Move)>) {
        self.timeline.add(moves);
        self.numbers = self.ids.iter().copied().zip(0..).collect();
        self.ids.shrink_to_fit();
        self.created_us.shrink_to_fit();
        self.last.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.from_us.shrink_to_fit();
        self.due_us.shrink_to_fit();
        self.stages.shrink_to_fit();
        self.tag_sets.shrink_to_fit();
        self.texts.shrink();
    }

    /// Rows that came later, in the order of their events.
    fn push_later(&mut self, rows: Vec<Row>) {
        make_room(&mut self.from_us, rows.len());
        make_room(&mut self.due_us, rows.len());
        make_room(&mut self.stages, rows.len());
        make_room(&mut self.tag_sets, rows.len());
        self.texts.make_room(rows.len());
        let mut moves = Vec::new();
        for row in rows {
            let (id, known) = (row.id, self.numbers.get(&row.id).copied());
            let (task, moved) = self.push(known, row);
            if known.is_none() {
                self.numbers.insert(id, task);
            }
            self.later.push(task);
            moves.extend(moved);
        }
        self.timeline.add(moves);
    }

    /// A task of one row, as tasks that cannot be followed by others.
    pub fn push_alone(&mut self, row: Row) {
        let _moved = self.push(None, row);
    }

    /// The next row of a task, or the first one of the next task. Returns which task that is, and the task's move if it makes
    /// one.
    fn push(&mut self, known: Option<u32>, row: Row) -> (u32, Option<(i64, Move)>) {
        let at = number(self.from_us.len());
        let (task, before) = match known {
            Some(task) => (task, Some(std::mem::replace(&mut self.last[task as usize], at) as usize)),
            None => {
                self.ids.push(row.id);
                self.created_us.push(row.created_at.timestamp_micros());
                self.last.push(at);
                (number(self.ids.len() - 1), None)
            }
        };
        let (from_us, stage) = (row.updated_at.timestamp_micros(), Stage::of(row.status, row.priority));
        let moved = Move::between(before.and_then(|before| self.stages[before].status()), stage.status());
        self.texts.push(before, row.title_key.as_deref(), row.rank.as_deref());
        self.from_us.push(from_us);
        self.due_us.push(row.due_at.map_or(UNDATED, |due_at| due_at.timestamp_micros()));
        self.stages.push(stage);
        self.tag_sets.push(Arc::make_mut(&mut self.sets).number(row.tags));
        (task, moved.map(|moved| (from_us, moved)))
    }

    /// These rows, each as the only one of its task, without the texts that lists are sorted by.
    pub fn only(&self, rows: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut only = Self { sets: self.sets.clone(), ..Self::empty(self.version) };
        for (task, row) in rows {
            only.last.push(number(only.ids.len()));
            only.ids.push(self.ids[task]);
            only.created_us.push(self.created_us[task]);
            only.from_us.push(self.from_us[row]);
            only.due_us.push(self.due_us[row]);
            only.stages.push(self.stages[row]);
            only.tag_sets.push(self.tag_sets[row]);
        }
        only
    }

    /// How many rows were loaded together.
    fn settled(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Which row of each task held then, or [`NONE`]; and when the first of those events will have happened that a clock has
    /// written which ran ahead, where there are some and they count as having happened.
    pub fn at(&self, as_of: AsOf) -> (Vec<u32>, Option<Time>) {
        let at_us = as_of.at.timestamp_micros();
        let mut rows = Vec::with_capacity(self.ids.len());
        let mut begin = 0;
        for end in self.ends.iter().map(|end| *end as usize) {
            // Times never decrease within a task. Of several rows with one time the last one holds.
            let held = self.from_us[begin..end].partition_point(|from_us| *from_us <= at_us);
            rows.push(if held == 0 { NONE } else { number(begin + held - 1) });
            begin = end;
        }
        rows.resize(self.ids.len(), NONE);
        let settled = self.settled();
        for ((row, from_us), task) in (number(settled)..).zip(&self.from_us[settled..]).zip(&self.later) {
            if *from_us <= at_us {
                rows[*task as usize] = row;
            }
        }
        let mut ahead_us: Option<i64> = None;
        if let Some(now_us) = as_of.now.map(|now| now.timestamp_micros()) {
            for (row, last) in rows.iter_mut().zip(&self.last) {
                let from_us = self.from_us[*last as usize];
                if from_us > now_us {
                    *row = *last;
                    ahead_us = Some(ahead_us.map_or(from_us, |ahead_us| ahead_us.min(from_us)));
                }
            }
        }
        (rows, ahead_us.and_then(DateTime::from_timestamp_micros))
    }

    /// How many tasks had which status at each of these moments, in microseconds.
    pub fn count(&self, moments_us: &[i64]) -> Vec<[i64; 4]> {
        moments_us.iter().map(|moment_us| self.timeline.at(*moment_us)).collect()
    }
}

/// The number of a task or of a row. There is room for no more than that.
pub(super) fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::{FutureExt, stream};
    use proptest::prelude::*;

    use super::super::moments::MomentCounts;
    use super::super::unkept::{self, HeldMax};
    use super::*;
    use crate::list::task_set::TaskSet;

    fn at(us: i64) -> Time {
        DateTime::from_timestamp_micros(us).unwrap()
    }

    /// Of a task: its rows (after how many microseconds, as what) and how many of them are loaded together.
    type Life = (Vec<(i64, Option<i16>)>, usize);

    fn life() -> impl Strategy<Value = Life> {
        (prop::collection::vec((0..4_i64, prop::option::weighted(0.8, 0..4_i16)), 1..7), 0..8_usize)
    }

    /// The rows of a task, in order: each is told by its due date from all others.
    fn rows_of(task: usize, life: &Life) -> Vec<Row> {
        let mut from_us = 0_i64;
        let row = |(n, (after_us, status)): (usize, &(i64, Option<i16>))| {
            from_us += after_us;
            Row {
                id: Uuid::from_u128(task as u128),
                status: *status,
                priority: Some(1),
                created_at: at(-1),
                updated_at: at(from_us),
                due_at: Some(at((100 * task + n) as i64)),
                tags: vec![format!("t{}", n % 2)],
                title_key: (n % 3 == 0).then(|| format!("{task}, {n}")),
                rank: None,
            }
        };
        life.0.iter().enumerate().map(row).collect()
    }

    const VERSION: VersionRow = VersionRow {
        log_id: None,
        generation: 1,
        shard: Some(0),
        revision: Some(1),
        change_counter: Some(1),
        parked_position: None,
    };

    /// Some rows loaded together, the others afterwards in the order of their times, in two parts.
    fn versions(lives: &[Vec<Row>], loaded: impl Fn(usize) -> usize) -> Versions {
        let (mut versions, mut moves, mut later) = (Versions::empty(VERSION), Vec::new(), Vec::new());
        for (task, rows) in lives.iter().enumerate() {
            for (n, row) in rows.iter().cloned().enumerate() {
                if n < loaded(task) {
                    moves.extend(versions.push_loaded(row));
                } else {
                    later.push(row);
                }
            }
        }
        versions.settle(moves);
        later.sort_by_key(|row| row.updated_at);
        let second = later.split_off(later.len() / 2);
        versions.push_later(later);
        versions.push_later(second);
        versions
    }

    /// What a task was then, by its rows in order.
    fn row_at(rows: &[Row], at_us: i64, now_us: Option<i64>) -> Option<&Row> {
        let last = rows.last().filter(|row| now_us.is_some_and(|now_us| row.updated_at > at(now_us)));
        last.or_else(|| rows.iter().rfind(|row| row.updated_at <= at(at_us)))
    }

    /// That of the last row until this one that says one.
    fn title_of(rows: &[Row], row: &Row) -> Option<String> {
        let at = rows.iter().position(|other| other.due_at == row.due_at)?;
        rows[..=at].iter().rev().find_map(|row| row.title_key.clone())
    }

    fn code(row: &Row) -> Option<usize> {
        row.status.map(|status| usize::try_from(status).unwrap())
    }

    /// All rows, as the table gives them.
    fn in_table(rows: &[Vec<Row>]) -> impl Stream<Item = Result<Row, sqlx::Error>> {
        stream::iter(rows.concat().into_iter().map(Ok))
    }

    fn one_row(task: usize) -> Row {
        rows_of(task, &(vec![(0, Some(0))], 1)).remove(0)
    }

    /// A task of whose texts the title, or a tag, has 100 bytes.
    fn titled(task: usize) -> Row {
        Row { title_key: Some(format!("{task:0100}")), tags: Vec::new(), ..one_row(task) }
    }

    fn tagged(task: usize) -> Row {
        Row { title_key: None, tags: vec![format!("{task:0100}")], ..one_row(task) }
    }

    proptest! {
        #[test]
        fn what_held_is_the_last_row_that_began_however_the_rows_came(
            lives in prop::collection::vec(life(), 0..12), at_us in -1..26_i64, now_us in prop::option::of(-1..26_i64),
        ) {
            let rows: Vec<Vec<Row>> = lives.iter().enumerate().map(|(task, life)| rows_of(task, life)).collect();
            let versions = versions(&rows, |task| lives[task].1);
            let (held, ahead_until) = versions.at(AsOf { at: at(at_us), now: now_us.map(at) });
            let mut found: Vec<_> = (0..held.len())
                .filter(|task| held[*task] != NONE)
                .map(|task| (task, held[task] as usize))
                .map(|(task, row)| {
                    let title = versions.texts.title(row).map(str::to_owned);
                    (versions.ids[task], at(versions.due_us[row]), versions.stages[row].status(), title)
                })
                .collect();
            found.sort_unstable();
            let expected: Vec<_> = rows
                .iter()
                .filter_map(|rows| row_at(rows, at_us, now_us).map(|row| (row, title_of(rows, row))))
                .map(|(row, title)| (row.id, row.due_at.unwrap(), code(row), title))
                .collect();
            prop_assert_eq!(found, expected);
            let lasts = rows.iter().filter_map(|rows| rows.last()).map(|row| row.updated_at);
            prop_assert_eq!(ahead_until, lasts.filter(|last| now_us.is_some_and(|now_us| *last > at(now_us))).min());
        }

        #[test]
        fn what_is_not_kept_is_the_same(
            lives in prop::collection::vec(life(), 0..12), at_us in -1..26_i64, now_us in prop::option::of(-1..26_i64),
        ) {
            let rows: Vec<Vec<Row>> = lives.iter().enumerate().map(|(task, life)| rows_of(task, life)).collect();
            let as_of = AsOf { at: at(at_us), now: now_us.map(at) };
            let versions = versions(&rows, |_| usize::MAX);
            let (held, ahead_until) = versions.at(as_of);
            let expected: Vec<_> = (0..held.len())
                .filter(|task| held[*task] != NONE)
                .map(|task| (task, held[task] as usize))
                .filter(|(_, row)| versions.stages[*row].is_listed())
                .map(|(task, row)| (versions.ids[task], versions.due_us[row], versions.texts.title(row)))
                .collect();
            let max = HeldMax { tasks: 12, text_bytes: 10_000 };
            let unkept = unkept::tasks_of(in_table(&rows), VERSION, as_of, true, max);
            let unkept = unkept.now_or_never().unwrap().unwrap().unwrap();
            let tasks = unkept.tasks();
            let found: Vec<_> = tasks.places().map(|n| (tasks.id(n), tasks.due_us(n), tasks.title(n))).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(unkept.ahead_until, ahead_until);
        }

        #[test]
        fn the_timeline_counts_what_held(lives in prop::collection::vec(life(), 0..12)) {
            let rows: Vec<Vec<Row>> = lives.iter().enumerate().map(|(task, life)| rows_of(task, life)).collect();
            let moments_us: Vec<i64> = (-1..26).collect();
            let mut counts = MomentCounts::new(moments_us.clone());
            for rows in &rows {
                for (n, row) in rows.iter().enumerate() {
                    let until_us = rows.get(n + 1).map_or(i64::MAX, |next| next.updated_at.timestamp_micros());
                    if let Some(status) = code(row) {
                        counts.add(status, row.updated_at.timestamp_micros(), until_us);
                    }
                }
            }
            let counts = counts.finish();
            prop_assert_eq!(versions(&rows, |task| lives[task].1).count(&moments_us), counts.clone());
            let unkept = unkept::count_of(in_table(&rows), moments_us).now_or_never().unwrap().unwrap();
            prop_assert_eq!(unkept, counts);
        }
    }

    #[tokio::test]
    async fn rows_whose_texts_take_too_much_are_not_read_to_their_end() {
        let kinds: [fn(usize) -> Row; 2] = [titled, tagged];
        for row in kinds {
            for (bytes_max, is_whole) in [(1_000_000, true), (10_000, false)] {
                let read = Cell::new(0);
                let rows = (0..1_000).map(|n| {
                    read.set(n + 1);
                    Ok::<_, sqlx::Error>(row(n))
                });
                let versions = Versions::of(stream::iter(rows), VERSION, bytes_max).await.unwrap();
                assert_eq!((versions.is_some(), read.get() == 1_000), (is_whole, is_whole));
            }
        }
    }

    #[tokio::test]
    async fn tasks_whose_texts_take_too_much_are_not_held_for_a_read() {
        let as_of = AsOf { at: at(0), now: None };
        let [titled, tagged]: [fn(usize) -> Row; 2] = [titled, tagged];
        for (row, sorted_by_text, tasks, text_bytes, fits) in [
            (titled, true, 1_000, 1_000_000, true),
            (titled, true, 1_000, 10_000, false),
            // titles are not asked for
            (titled, false, 1_000, 10_000, true),
            (tagged, false, 1_000, 1_000_000, true),
            (tagged, false, 1_000, 10_000, false),
            (titled, true, 999, 1_000_000, false),
        ] {
            let rows: Vec<Vec<Row>> = (0..1_000).map(|task| vec![row(task)]).collect();
            let max = HeldMax { tasks, text_bytes };
            let held = unkept::tasks_of(in_table(&rows), VERSION, as_of, sorted_by_text, max).await.unwrap();
            assert_eq!(held.is_some(), fits, "{sorted_by_text}, {tasks} tasks, {text_bytes} bytes");
            if let Some(held) = held {
                let tasks = held.tasks();
                assert_eq!(tasks.places().filter(|place| tasks.title(*place).is_some()).count() > 0, sorted_by_text);
            }
        }
    }

    #[test]
    fn rows_take_no_more_than_is_said() {
        let lives: Vec<Life> = (0..1_000).map(|_| ((0..10_i16).map(|n| (1, Some(n % 4))).collect(), 10)).collect();
        let rows: Vec<Vec<Row>> = lives.iter().enumerate().map(|(task, life)| rows_of(task, life)).collect();
        let versions = versions(&rows, |_| 10);
        assert!(versions.bytes() <= Versions::bytes_of(10_000), "{} bytes of 10,000 rows", versions.bytes());
    }
}
