//! Which tasks match the filters of a list, in memory.

use std::sync::Arc;

use domain::Time;
use read_model::TaskFilters;
use read_model::search::{Relevance, Relevances};

use super::task_set::{TaskSet, UNDATED};

/// Filters, worked out for one set of tasks.
pub(crate) struct Matcher {
    /// Bits of a [`Stage`](super::task_set::Stage), as the next.
    statuses: u8,
    priorities: u8,
    /// From, and earlier than.
    due_us: Option<(i64, i64)>,
    /// By number of the set.
    tag_sets: Option<Vec<bool>>,
    /// How well the texts match `q`.
    relevances: Option<Relevances>,
}

impl Matcher {
    /// `q` is looked for where texts are kept; otherwise only tasks that match it are there.
    pub fn of(tasks: &impl TaskSet, filters: &TaskFilters) -> Self {
        let mask = |codes: &[i16], shift: u32| match codes {
            [] => 15 << shift,
            codes => codes.iter().fold(0_u8, |mask, code| mask | 1 << (u32::from(code.unsigned_abs() & 3) + shift)),
        };
        let dated = filters.due_after.is_some() || filters.due_before.is_some();
        let sets = tasks.sets();
        let wanted: Vec<u32> = filters.tags.iter().filter_map(|tag| sets.number_of(tag)).collect();
        let has = |set: &Arc<[u32]>| set.iter().any(|tag| wanted.contains(tag));
        Self {
            statuses: mask(&filters.statuses, 0),
            priorities: mask(&filters.priorities, 4),
            due_us: dated.then(|| {
                let us = |time: Time| time.timestamp_micros();
                (filters.due_after.map_or(i64::MIN, us), filters.due_before.map_or(UNDATED, us))
            }),
            tag_sets: (!filters.tags.is_empty()).then(|| sets.sets.iter().map(has).collect()),
            relevances: filters.q.as_ref().and_then(|q| tasks.relevances(q)),
        }
    }

    pub fn matches(&self, tasks: &impl TaskSet, at: usize) -> bool {
        let stage = tasks.stage(at);
        let is_of_stage = stage.is_among(self.statuses) && stage.is_among(self.priorities);
        is_of_stage && self.is_due(tasks, at) && self.has_tag(tasks, at) && self.has_q(tasks, at)
    }

    /// Which filters the task does not match.
    pub fn misses(&self, tasks: &impl TaskSet, at: usize) -> Misses {
        let stage = tasks.stage(at);
        Misses {
            status: !stage.is_among(self.statuses),
            priority: !stage.is_among(self.priorities),
            tags: !self.has_tag(tasks, at),
            due: !self.is_due(tasks, at),
            q: !self.has_q(tasks, at),
        }
    }

    /// How well the task matches `q`.
    pub fn relevance(&self, tasks: &impl TaskSet, at: usize) -> Option<Relevance> {
        self.relevances.as_ref()?.get(tasks.text(at))
    }

    fn has_q(&self, tasks: &impl TaskSet, at: usize) -> bool {
        self.relevances.as_ref().is_none_or(|relevances| relevances.get(tasks.text(at)).is_some())
    }

    fn is_due(&self, tasks: &impl TaskSet, at: usize) -> bool {
        self.due_us.is_none_or(|(from, until)| (from..until).contains(&tasks.due_us(at)))
    }

    fn has_tag(&self, tasks: &impl TaskSet, at: usize) -> bool {
        let has = |sets: &Vec<bool>| sets.get(tasks.tag_set(at) as usize).copied().unwrap_or(false);
        self.tag_sets.as_ref().is_none_or(has)
    }
}

/// Which filters a task does not match.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Misses {
    pub status: bool,
    pub priority: bool,
    pub tags: bool,
    pub due: bool,
    pub q: bool,
}

impl Misses {
    pub fn count(self) -> u8 {
        let Self { status, priority, tags, due, q } = self;
        [status, priority, tags, due, q].map(u8::from).iter().sum()
    }
}
