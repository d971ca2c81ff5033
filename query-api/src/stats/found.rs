//! Statistics, as they are answered.

use std::collections::HashMap;
use std::io::Write;

use chrono::NaiveDate;
use domain::{Priority, Status, Time};

use crate::days::Period;
use crate::task_json::{write_counts, write_list, write_number};

pub(super) struct Found {
    /// (status, priority, tasks)
    pub counts: Vec<(i16, i16, i64)>,
    /// (day, created, completed)
    pub days: HashMap<NaiveDate, (i64, i64)>,
    pub overdue: i64,
    /// When the next task is due that is pending or in progress.
    pub next_due_at: Option<Time>,
    pub last_event_at: Option<Time>,
    /// p50, p90, p99; empty where nothing is completed.
    pub completion_times_us: Vec<i64>,
}

impl Found {
    pub fn write(&self, period: Period) -> Vec<u8> {
        let mut out = Vec::with_capacity(400 + self.days.len() * 80);
        out.extend_from_slice(b"{\"by_status\":");
        let by_status = Status::ALL.iter().map(|s| (s.as_str(), self.sum(|status, _| status == s.code())));
        write_counts(&mut out, by_status);
        out.extend_from_slice(b",\"by_priority\":");
        let by_priority = Priority::ALL.iter().map(|p| (p.as_str(), self.sum(|_, priority| priority == p.code())));
        write_counts(&mut out, by_priority);
        out.extend_from_slice(b",\"overdue\":");
        write_number(&mut out, self.overdue);
        out.extend_from_slice(b",\"created_per_day\":");
        self.write_days(&mut out, period, |(created, _)| created);
        out.extend_from_slice(b",\"completed_per_day\":");
        self.write_days(&mut out, period, |(_, completed)| completed);
        out.extend_from_slice(b",\"completion_time_seconds\":{");
        for (n, name) in ["p50", "p90", "p99"].into_iter().enumerate() {
            let _ = write!(out, "{}\"{name}\":", if n > 0 { "," } else { "" });
            match self.completion_times_us.get(n) {
                Some(time_us) => write_seconds(&mut out, *time_us),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"}}");
        out
    }

    fn sum(&self, wanted: impl Fn(i16, i16) -> bool) -> i64 {
        self.counts.iter().filter(|(status, priority, _)| wanted(*status, *priority)).map(|(_, _, count)| count).sum()
    }

    fn write_days(&self, out: &mut Vec<u8>, period: Period, count: impl Fn((i64, i64)) -> i64) {
        write_list(out, period.from.iter_days().take_while(|day| *day <= period.to), |out, day| {
            let count = self.days.get(&day).copied().map_or(0, &count);
            // Writing into a vector cannot fail.
            let _ = write!(out, "{{\"date\":\"{}\",\"count\":{count}}}", day.format("%Y-%m-%d"));
        });
    }
}

/// Seconds with as many digits as it needs, exactly.
fn write_seconds(out: &mut Vec<u8>, time_us: i64) {
    let (whole, rest) = (time_us / 1_000_000, time_us.rem_euclid(1_000_000));
    let _ = write!(out, "{whole}");
    if rest > 0 {
        let digits = format!(".{rest:06}");
        out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (time_us, text) in [(0, "0"), (1_500_000, "1.5"), (60_000_001, "60.000001"), (86_400_000_000, "86400")] {
            let mut out = Vec::new();
            write_seconds(&mut out, time_us);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
