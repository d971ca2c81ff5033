//! The counts.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::DateTime;
use domain::{Priority, Status, Time};
use read_model::TaskFilters;

use crate::list::matcher::{Matcher, Misses};
use crate::list::task_set::{TaskSet, UNDATED};
use crate::task_json::{write_counts, write_list, write_number, write_tag_count};

/// Tags in an answer at most.
pub(super) const TAGS_MAX: usize = 50;
/// When tasks are due, in the order of the counts.
pub(super) const DUE: [&str; 4] = ["overdue", "next_24_hours", "later", "none"];
const DAY_US: i64 = 86_400_000_000;

pub(super) struct Tally<'a> {
    filters: &'a TaskFilters,
    now_us: i64,
    total: i64,
    by_status: [i64; 4],
    by_priority: [i64; 4],
    by_tag: HashMap<String, i64>,
    by_due: [i64; 4],
    changes_us: Option<i64>,
}

impl<'a> Tally<'a> {
    pub fn new(filters: &'a TaskFilters, now: Time) -> Self {
        Self {
            filters,
            now_us: now.timestamp_micros(),
            total: 0,
            by_status: [0; 4],
            by_priority: [0; 4],
            by_tag: HashMap::new(),
            by_due: [0; 4],
            changes_us: None,
        }
    }

    pub fn add(&mut self, tasks: &impl TaskSet) {
        let matcher = Matcher::of(tasks, self.filters);
        let sets = tasks.sets();
        // By number of the set of tags.
        let mut by_tags = vec![0; sets.sets.len()];
        for at in tasks.places() {
            let stage = tasks.stage(at);
            let (Some(status), Some(priority)) = (stage.status(), stage.priority()) else { continue };
            let due_us = Some(tasks.due_us(at)).filter(|due_us| *due_us != UNDATED);
            let is_open = status < 2;
            let is_overdue = is_open && due_us.is_some_and(|due_us| due_us < self.now_us);
            let misses = matcher.misses(tasks, at);
            let misses = Misses { due: misses.due || self.filters.overdue && !is_overdue, ..misses };
            let missed = misses.count();
            // Whether it matches all filters but this one.
            let counts = |own: bool| missed == u8::from(own);
            self.total += i64::from(missed == 0);
            self.by_status[status] += i64::from(counts(misses.status));
            self.by_priority[priority] += i64::from(counts(misses.priority));
            by_tags[tasks.tag_set(at) as usize] += i64::from(counts(misses.tags));
            if is_open {
                self.by_due[self.due(due_us)] += i64::from(counts(misses.due));
            }
        }
        for (tag, count) in sets.count_tags(&by_tags).filter(|(_, count)| *count > 0) {
            match self.by_tag.get_mut(tag) {
                Some(sum) => *sum += count,
                None => _ = self.by_tag.insert(tag.to_owned(), count),
            }
        }
    }

    /// Which of [`DUE`] it is, and when it will be another.
    fn due(&mut self, due_us: Option<i64>) -> usize {
        let Some(due_us) = due_us else { return 3 };
        if due_us < self.now_us {
            return 0;
        }
        let (due, until_us) = if due_us - DAY_US < self.now_us { (1, due_us) } else { (2, due_us - DAY_US) };
        self.changes_us = Some(self.changes_us.map_or(until_us, |changes_us| changes_us.min(until_us)));
        due
    }

    /// When the clock changes them next.
    pub fn changes_at(&self) -> Option<Time> {
        self.changes_us.and_then(|us| DateTime::from_timestamp_micros(us + 1))
    }

    pub fn to_json(&self, revision: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(2_000);
        out.extend_from_slice(b"{\"total\":");
        write_number(&mut out, self.total);
        out.extend_from_slice(b",\"by_status\":");
        write_counts(&mut out, Status::ALL.iter().map(|status| status.as_str()).zip(self.by_status));
        out.extend_from_slice(b",\"by_priority\":");
        write_counts(&mut out, Priority::ALL.iter().map(|priority| priority.as_str()).zip(self.by_priority));
        out.extend_from_slice(b",\"by_tag\":");
        write_list(&mut out, self.most_frequent_tags(), |out, (tag, count)| write_tag_count(out, tag, count));
        out.extend_from_slice(b",\"by_due\":");
        write_counts(&mut out, DUE.into_iter().zip(self.by_due));
        out.extend_from_slice(b",\"revision\":");
        write_number(&mut out, revision);
        out.push(b'}');
        out
    }

    fn most_frequent_tags(&self) -> Vec<(&str, i64)> {
        let mut tags: Vec<(&str, i64)> = self.by_tag.iter().map(|(tag, count)| (tag.as_str(), *count)).collect();
        tags.sort_unstable_by_key(|(tag, count)| (Reverse(*count), *tag));
        tags.truncate(TAGS_MAX);
        tags
    }
}
