//! An owner's rows of `read_model.task_version`, in memory, each with the interval in which it held.
//!
//! No index answers "all that held at T" quickly for every T: about as many rows began before it as ended after it. Looking
//! at two times of each of a million rows takes a few milliseconds. What held then becomes [`Columns`], and from there on a
//! list as of a time is a list like any other.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use chrono::DateTime;
use domain::Time;
use futures_util::{Stream, TryStreamExt};
use sqlx::PgConnection;
use uuid::Uuid;

use super::moments::MomentCounts;
use crate::answer::Etag;
use crate::as_of::AsOf;
use crate::list::column_rows::Task;
use crate::list::columns::{Columns, TASK_BYTES, leads_to};
use crate::owner_version::VersionRow;

/// Events to catch up with; beyond that, all rows are loaded anew.
const CATCH_UP_EVENTS_MAX: i64 = 50_000;
/// Bytes of a row beside those of its columns, and of the last row of a task.
const ROW_BYTES: usize = TASK_BYTES + 8;
const LAST_BYTES: usize = 32;
/// A row that still holds.
const HOLDS: i64 = i64::MAX;

/// The tasks that held at a time.
pub(crate) struct Held {
    pub tasks: Columns,
    /// When the first of those events will have happened that a clock has written which ran ahead; where there are some, and
    /// they count as having happened.
    pub ahead_until: Option<Time>,
}

impl Held {
    /// The ETag of what is made from them: of a past that is over, it does not hang on the clock.
    pub fn etag(&self, as_of: AsOf) -> Etag {
        self.ahead_until.map_or(Etag::OwnerVersion, |until| Etag::OwnerVersionUntil(until.min(as_of.is_now_until())))
    }
}

/// The versions of one owner's tasks.
pub(super) struct Versions {
    pub version: VersionRow,
    /// Each row's task; `updated_at` is when it began to hold. That of a deletion has no status.
    rows: Columns,
    /// When each ceased to hold.
    until_us: Vec<i64>,
    /// The last row of each task.
    last: HashMap<Uuid, usize>,
}

impl Versions {
    /// Bytes of so many rows, about.
    pub fn bytes_of(rows: usize) -> usize {
        rows * ROW_BYTES
    }

    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.until_us.capacity() * 8 + self.last.capacity() * LAST_BYTES
    }

    /// All rows of the owner, of the snapshot of that version.
    pub async fn load(connection: &mut PgConnection, owner: Uuid, version: VersionRow) -> Result<Self, sqlx::Error> {
        let mut versions = Self { version, rows: Columns::empty(version), until_us: Vec::new(), last: HashMap::new() };
        let mut rows = pin!(rows(connection, owner, version));
        while let Some(task) = rows.try_next().await? {
            versions.push(task);
        }
        Ok(versions)
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
        let rows = sqlx::query_as!(
            Task,
            r#"select v.task_id as id, v.status, v.priority, v.created_at, v.held_from as updated_at, v.completed_at, v.due_at, v.tags
               from (
                   select h.task_id, h.version, h.position from read_model.history h
                   where h.generation = $1 and h.owner_id = $2 and h.position > $3 order by h.position limit $4
               ) h
               cross join lateral (
                   select * from read_model.task_version v
                   where v.generation = $1 and v.owner_id = $2 and v.task_id = h.task_id and v.version = h.version limit 1
               ) v
               order by h.position"#,
            version.generation,
            owner,
            self.version.revision.unwrap_or(0),
            CATCH_UP_EVENTS_MAX
        )
        .fetch_all(connection)
        .await?;
        if i64::try_from(rows.len()).is_ok_and(|rows| rows >= CATCH_UP_EVENTS_MAX) {
            return Ok(false);
        }
        rows.into_iter().for_each(|task| self.push(task));
        self.version = version;
        Ok(true)
    }

    /// The next row of its task.
    fn push(&mut self, task: Task) {
        let row = self.until_us.len();
        if let Some(before) = self.last.insert(task.id, row) {
            self.until_us[before] = task.updated_at.timestamp_micros();
        }
        self.rows.push(task);
        self.until_us.push(HOLDS);
    }

    /// The tasks as they were then.
    pub fn at(&self, as_of: AsOf) -> Held {
        let at_us = as_of.at.timestamp_micros();
        let ahead = as_of.now.map_or_else(Vec::new, |now| self.ahead(now));
        let ids: HashSet<Uuid> = ahead.iter().map(|row| self.rows.id(*row)).collect();
        let mut tasks = self.rows.with_the_same_sets();
        for (row, (from_us, until_us)) in self.rows.updated_us().iter().zip(&self.until_us).enumerate() {
            let holds = *from_us <= at_us && at_us < *until_us;
            if holds && self.rows.status(row).is_some() && (ids.is_empty() || !ids.contains(&self.rows.id(row))) {
                tasks.copy(&self.rows, row);
            }
        }
        for row in &ahead {
            if self.rows.status(*row).is_some() {
                tasks.copy(&self.rows, *row);
            }
        }
        let first_us = ahead.iter().map(|row| self.rows.updated_us()[*row]).min();
        Held { tasks, ahead_until: first_us.and_then(DateTime::from_timestamp_micros) }
    }

    /// Counts each row where it held.
    pub fn count(&self, counts: &mut MomentCounts) {
        for (row, (from_us, until_us)) in self.rows.updated_us().iter().zip(&self.until_us).enumerate() {
            if let Some(status) = self.rows.status(row) {
                counts.add(status, *from_us, *until_us);
            }
        }
    }

    /// The last rows of tasks whose last event a clock has written that ran ahead.
    fn ahead(&self, now: Time) -> Vec<usize> {
        let now_us = now.timestamp_micros();
        let rows = self.rows.updated_us().iter().zip(&self.until_us).enumerate();
        rows.filter(|(_, (from_us, until_us))| **until_us == HOLDS && **from_us > now_us).map(|(row, _)| row).collect()
    }
}

/// All rows of the owner, by task and version.
fn rows(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
) -> impl Stream<Item = Result<Task, sqlx::Error>> {
    sqlx::query_as!(
        Task,
        r#"select task_id as id, status, priority, created_at, held_from as updated_at, completed_at, due_at, tags
           from read_model.task_version
           where generation = $1 and owner_id = $2
           order by task_id, version"#,
        version.generation,
        owner
    )
    .fetch(connection)
}

/// The tasks as they were then, straight from the table: for owners with more rows than are kept in memory. `None`: more
/// than may be held even so.
pub(super) async fn tasks_at(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
    as_of: AsOf,
    tasks_max: usize,
) -> Result<Option<Held>, sqlx::Error> {
    let mut tasks = Columns::empty(version);
    let mut ahead_until: Option<Time> = None;
    let mut add = |held: Option<Task>, last: Task| {
        let is_ahead = as_of.now.is_some_and(|now| last.updated_at > now);
        if is_ahead {
            ahead_until = Some(ahead_until.map_or(last.updated_at, |until| until.min(last.updated_at)));
        }
        let held = if is_ahead { Some(last) } else { held };
        held.filter(|task| task.status.is_some()).into_iter().for_each(|task| tasks.push(task));
        tasks.len() <= tasks_max
    };
    let mut rows = pin!(rows(connection, owner, version));
    // Of the task that is being read: what held then, and the last row so far.
    let mut held = None;
    let mut last: Option<Task> = None;
    while let Some(task) = rows.try_next().await? {
        if let Some(last) = last.take_if(|last| last.id != task.id)
            && !add(held.take(), last)
        {
            return Ok(None);
        }
        if task.updated_at <= as_of.at {
            held = Some(task.clone());
        }
        last = Some(task);
    }
    let fits = last.is_none_or(|last| add(held, last));
    Ok(fits.then_some(Held { tasks, ahead_until }))
}

/// Counts each row where it held, straight from the table.
pub(super) async fn count_at(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
    counts: &mut MomentCounts,
) -> Result<(), sqlx::Error> {
    let mut add = |row: &Task, until_us: i64| {
        if let Some(status) = row.status.and_then(|status| usize::try_from(status).ok()) {
            counts.add(status, row.updated_at.timestamp_micros(), until_us);
        }
    };
    let mut rows = pin!(rows(connection, owner, version));
    let mut before: Option<Task> = None;
    while let Some(row) = rows.try_next().await? {
        if let Some(before) = &before {
            let until_us = if before.id == row.id { row.updated_at.timestamp_micros() } else { HOLDS };
            add(before, until_us);
        }
        before = Some(row);
    }
    before.iter().for_each(|last| add(last, HOLDS));
    Ok(())
}
