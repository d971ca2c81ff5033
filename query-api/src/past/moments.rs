//! How many tasks stood where at each of some moments.

const DAY_US: i64 = 86_400_000_000;

/// How many tasks had which status at each of some moments.
pub(super) struct MomentCounts {
    /// Microseconds, none earlier than the one before.
    moments_us: Vec<i64>,
    /// By status: how many more than at the moment before. One past the last moment is for those that still hold then.
    differences: Vec<[i64; 4]>,
}

impl MomentCounts {
    pub fn new(moments_us: Vec<i64>) -> Self {
        Self { differences: vec![[0; 4]; moments_us.len() + 1], moments_us }
    }

    /// Counts a task that had this status from then on until then.
    pub(super) fn add(&mut self, status: usize, from_us: i64, until_us: i64) {
        let (first, end) = (self.not_before(from_us), self.not_before(until_us));
        self.differences[first][status] += 1;
        self.differences[end][status] -= 1;
    }

    /// Which is the first moment that is not before this time. Moments are about a day apart, so that is guessed first.
    fn not_before(&self, time_us: i64) -> usize {
        let Some(first_us) = self.moments_us.first() else { return 0 };
        let days = time_us.saturating_sub(*first_us) / DAY_US;
        let mut at = usize::try_from(days).unwrap_or(0).min(self.moments_us.len());
        while at > 0 && self.moments_us[at - 1] >= time_us {
            at -= 1;
        }
        while at < self.moments_us.len() && self.moments_us[at] < time_us {
            at += 1;
        }
        at
    }

    /// By moment and status.
    pub fn finish(mut self) -> Vec<[i64; 4]> {
        let mut sum = [0; 4];
        self.differences.truncate(self.moments_us.len());
        for counts in &mut self.differences {
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += *count;
                *count = *sum;
            }
        }
        self.differences
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_task_counts_where_its_interval_holds(
            moments in prop::collection::vec(0..9_i64, 0..9), tasks in prop::collection::vec((0..4_usize, -1..10_i64, 0..10_i64), 0..20),
        ) {
            let mut moments_us: Vec<i64> = moments.iter().map(|half_days| half_days * DAY_US / 2).collect();
            moments_us.sort_unstable();
            let mut counts = MomentCounts::new(moments_us.clone());
            let tasks: Vec<(usize, i64, i64)> = tasks
                .iter()
                .map(|(status, from, half_days)| (*status, from * DAY_US / 2, (from + half_days) * DAY_US / 2))
                .collect();
            for (status, from_us, until_us) in &tasks {
                counts.add(*status, *from_us, *until_us);
            }
            for (moment_us, counts) in moments_us.iter().zip(counts.finish()) {
                for (status, count) in counts.into_iter().enumerate() {
                    let holds = |task: &&(usize, i64, i64)| task.0 == status && task.1 <= *moment_us && *moment_us < task.2;
                    prop_assert_eq!(i64::try_from(tasks.iter().filter(holds).count()).unwrap(), count);
                }
            }
        }
    }
}
