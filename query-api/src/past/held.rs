//! An owner's tasks as they were at a time.

use domain::Time;
use tokio::sync::OwnedRwLockReadGuard;
use uuid::Uuid;

use super::versions::{NONE, Versions, number};
use crate::answer::Etag;
use crate::as_of::AsOf;
use crate::list::tag_sets::TagSets;
use crate::list::task_set::{Stage, TaskSet};

/// The tasks that held at a time.
pub(crate) struct Held {
    source: Source,
    /// Which row of each task held, or [`NONE`].
    rows: Vec<u32>,
    /// As of [`Versions::at`].
    pub(super) ahead_until: Option<Time>,
}

/// Where their rows are.
enum Source {
    /// In memory. Nobody else can bring them up to date meanwhile.
    Kept(OwnedRwLockReadGuard<Option<Versions>, Versions>),
    /// Here: those rows alone.
    Own(Box<Versions>),
}

impl Held {
    pub(super) fn of(versions: OwnedRwLockReadGuard<Option<Versions>, Versions>, as_of: AsOf) -> Self {
        let (rows, ahead_until) = versions.at(as_of);
        Self { source: Source::Kept(versions), rows, ahead_until }
    }

    /// Tasks of one row each, which held.
    pub(super) fn all(versions: Versions, ahead_until: Option<Time>) -> Self {
        let rows = (0..number(versions.ids.len())).collect();
        Self { source: Source::Own(Box::new(versions)), rows, ahead_until }
    }

    /// With rows of its own, but without what lists are sorted by: it may be kept for long.
    pub(super) fn apart(self) -> Self {
        if let Source::Kept(versions) = &self.source {
            let tasks = self.tasks();
            return Self::all(versions.only(tasks.places().map(|task| (task, tasks.row(task)))), self.ahead_until);
        }
        self
    }

    pub(super) fn leave_out(&mut self, at: usize) {
        self.rows[at] = NONE;
    }

    /// What lists and facets are made of.
    pub fn tasks(&self) -> HeldTasks<'_> {
        let versions: &Versions = match &self.source {
            Source::Kept(versions) => versions,
            Source::Own(versions) => versions,
        };
        HeldTasks { versions, rows: &self.rows }
    }

    /// The ETag of what is made from them: of a past that is over, it does not hang on the clock.
    pub fn etag(&self, as_of: AsOf) -> Etag {
        self.ahead_until.map_or(Etag::OwnerVersion, |until| Etag::OwnerVersionUntil(until.min(as_of.is_now_until())))
    }
}

/// The tasks that held at a time, each at its number.
pub(crate) struct HeldTasks<'a> {
    versions: &'a Versions,
    rows: &'a [u32],
}

impl HeldTasks<'_> {
    fn row(&self, at: usize) -> usize {
        self.rows[at] as usize
    }
}

impl TaskSet for HeldTasks<'_> {
    fn places(&self) -> impl Iterator<Item = usize> {
        let stages = &self.versions.stages;
        let is_listed = move |row: u32| row != NONE && stages[row as usize].is_listed();
        self.rows.iter().enumerate().filter(move |(_, row)| is_listed(**row)).map(|(task, _)| task)
    }

    fn places_max(&self) -> usize {
        self.rows.len()
    }

    fn id(&self, at: usize) -> Uuid {
        self.versions.ids[at]
    }

    fn stage(&self, at: usize) -> Stage {
        self.versions.stages[self.row(at)]
    }

    fn created_us(&self, at: usize) -> i64 {
        self.versions.created_us[at]
    }

    fn updated_us(&self, at: usize) -> i64 {
        self.versions.from_us[self.row(at)]
    }

    fn due_us(&self, at: usize) -> i64 {
        self.versions.due_us[self.row(at)]
    }

    fn tag_set(&self, at: usize) -> u32 {
        self.versions.tag_sets[self.row(at)]
    }

    fn sets(&self) -> &TagSets {
        &self.versions.sets
    }

    fn title(&self, at: usize) -> Option<&str> {
        self.versions.texts.title(self.row(at))
    }

    fn rank(&self, at: usize) -> Option<&str> {
        self.versions.texts.rank(self.row(at))
    }
}
