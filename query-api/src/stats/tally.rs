//! Statistics from the tasks themselves: their days may be any zone's.

use std::collections::HashMap;

use chrono::{DateTime, Days};
use chrono_tz::Tz;
use domain::Time;

use super::found::Found;
use crate::days::{DayNumbers, Period};
use crate::list::{Columns, Facts};

pub(super) struct Tally {
    period: Period,
    numbers: DayNumbers,
    now_us: i64,
    /// By status and priority.
    counts: [[i64; 4]; 4],
    /// Created and completed, by number of the day.
    days: Vec<(i64, i64)>,
    overdue: i64,
    next_due_us: Option<i64>,
    last_event_us: Option<i64>,
    completion_times_us: Vec<i64>,
}

impl Tally {
    pub fn new(zone: Tz, period: Period, now: Time) -> Self {
        let days = (period.to - period.from).num_days() + 1;
        Self {
            period,
            numbers: DayNumbers::new(zone, period.from),
            now_us: now.timestamp_micros(),
            counts: [[0; 4]; 4],
            days: vec![(0, 0); usize::try_from(days).unwrap_or(0)],
            overdue: 0,
            next_due_us: None,
            last_event_us: None,
            completion_times_us: Vec::new(),
        }
    }

    pub fn add(&mut self, columns: &Columns) {
        for Facts { status, priority, created_us, updated_us, completed_us, due_us } in columns.facts() {
            self.counts[status][priority] += 1;
            self.last_event_us = self.last_event_us.max(Some(updated_us));
            if let Some(due_us) = due_us.filter(|_| status < 2) {
                if due_us < self.now_us {
                    self.overdue += 1;
                } else {
                    self.next_due_us = Some(self.next_due_us.map_or(due_us, |next| next.min(due_us)));
                }
            }
            if let Some((created, _)) = self.day(created_us) {
                *created += 1;
            }
            if let Some(completed_us) = completed_us {
                if let Some((_, completed)) = self.day(completed_us) {
                    *completed += 1;
                }
                self.completion_times_us.push(completed_us - created_us);
            }
        }
    }

    fn day(&mut self, time_us: i64) -> Option<&mut (i64, i64)> {
        self.days.get_mut(self.numbers.of(time_us)?)
    }

    pub fn finish(mut self) -> Found {
        let counts = (0_i16..)
            .zip(self.counts)
            .flat_map(|(status, counts)| (0_i16..).zip(counts).map(move |(priority, count)| (status, priority, count)));
        let from = self.period.from;
        let days: HashMap<_, _> = (0_u64..)
            .zip(self.days)
            .filter_map(|(n, counts)| Some((from.checked_add_days(Days::new(n))?, counts)))
            .collect();
        Found {
            counts: counts.collect(),
            days,
            overdue: self.overdue,
            next_due_at: self.next_due_us.and_then(DateTime::from_timestamp_micros),
            last_event_at: self.last_event_us.and_then(DateTime::from_timestamp_micros),
            completion_times_us: nearest_ranks(&mut self.completion_times_us),
        }
    }
}

/// p50, p90, p99; nothing of nothing.
fn nearest_ranks(values: &mut [i64]) -> Vec<i64> {
    if values.is_empty() {
        return Vec::new();
    }
    let rank = |percent: usize| (percent * values.len()).div_ceil(100).max(1) - 1;
    [50, 90, 99].map(rank).map(|rank| *values.select_nth_unstable(rank).1).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_day_is_there() {
        let (from, to) = ("2026-02-28".parse().unwrap(), "2026-03-01".parse().unwrap());
        let body = Tally::new(Tz::UTC, Period { from, to }, Time::UNIX_EPOCH).finish().write(Period { from, to });
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({
                "by_status": {"pending": 0, "in_progress": 0, "completed": 0, "cancelled": 0},
                "by_priority": {"low": 0, "medium": 0, "high": 0, "urgent": 0},
                "overdue": 0,
                "created_per_day": [{"date": "2026-02-28", "count": 0}, {"date": "2026-03-01", "count": 0}],
                "completed_per_day": [{"date": "2026-02-28", "count": 0}, {"date": "2026-03-01", "count": 0}],
                "completion_time_seconds": {"p50": null, "p90": null, "p99": null},
            })
        );
    }
}
