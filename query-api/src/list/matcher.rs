//! Which tasks match the filters of a list, in memory.

use std::sync::Arc;

use domain::Time;
use read_model::search::{Rank, Ranks};

use super::request::Filters;
use super::tag_sets::TagSets;

/// The due date of a task that has none: later than any end.
pub(super) const UNDATED: i64 = i64::MAX;

/// What filters ask about a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filterable {
    /// Bits 0 to 3: status, none where it is deleted; bits 4 to 7: priority; one set of each.
    pub stage: u8,
    pub due_us: i64,
    /// Which set of tags.
    pub tag_set: u32,
    /// Which texts, where they are kept.
    pub text: u32,
}

/// Filters, worked out for one owner's columns.
pub(crate) struct Matcher {
    statuses: u8,
    priorities: u8,
    /// From, and earlier than.
    due_us: Option<(i64, i64)>,
    /// By number of the set.
    tag_sets: Option<Vec<bool>>,
    /// How well the texts match `q`.
    ranks: Option<Ranks>,
}

impl Matcher {
    pub(super) fn of(filters: &Filters, sets: &TagSets, ranks: Option<Ranks>) -> Self {
        let mask = |codes: &[i16], shift: u32| match codes {
            [] => 15 << shift,
            codes => codes.iter().fold(0_u8, |mask, code| mask | 1 << (u32::from(code.unsigned_abs() & 3) + shift)),
        };
        let dated = filters.due_after.is_some() || filters.due_before.is_some();
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
            ranks,
        }
    }

    pub(super) fn matches(&self, task: Filterable) -> bool {
        let Filterable { stage, due_us, tag_set, .. } = task;
        let is_of_stage = stage & self.statuses != 0 && stage & self.priorities != 0;
        is_of_stage && self.is_due(due_us) && self.has_tag(tag_set) && self.has_q(task)
    }

    pub(super) fn misses(&self, task: Filterable) -> Misses {
        let Filterable { stage, due_us, tag_set, .. } = task;
        Misses {
            status: stage & self.statuses == 0,
            priority: stage & self.priorities == 0,
            tags: !self.has_tag(tag_set),
            due: !self.is_due(due_us),
            q: !self.has_q(task),
        }
    }

    /// How well the task matches `q`.
    pub(super) fn rank(&self, task: Filterable) -> Option<Rank> {
        self.ranks.as_ref()?.get(task.text)
    }

    fn has_q(&self, task: Filterable) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.get(task.text).is_some())
    }

    fn is_due(&self, due_us: i64) -> bool {
        self.due_us.is_none_or(|(from, until)| from <= due_us && due_us < until)
    }

    fn has_tag(&self, tag_set: u32) -> bool {
        self.tag_sets.as_ref().is_none_or(|sets| sets.get(tag_set as usize).copied().unwrap_or(false))
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
