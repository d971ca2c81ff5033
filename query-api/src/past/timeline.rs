//! When tasks moved from one status to another, in the order of time: how many stood where at a moment.

use super::room::make_room;

/// A sum is kept before each so many moves, and this many are looked at for a moment at most.
const BLOCK_MOVES: usize = 256;
/// A task that is not there: not yet, or deleted. (The others are the codes of statuses.)
const AWAY: u8 = 4;

/// Where a task was, and where it is from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    from: u8,
    to: u8,
}

impl Move {
    /// `None`: it stays where it is.
    pub fn between(from: Option<usize>, to: Option<usize>) -> Option<Self> {
        let place = |status: Option<usize>| status.and_then(|code| u8::try_from(code).ok()).unwrap_or(AWAY);
        let moved = Self { from: place(from), to: place(to) };
        (moved.from != moved.to).then_some(moved)
    }

    fn add_to(self, counts: &mut Counts) {
        counts[usize::from(self.from)] -= 1;
        counts[usize::from(self.to)] += 1;
    }
}

/// By status, and [`AWAY`].
type Counts = [i32; 5];

/// The moves of all tasks of an owner.
pub(super) struct Timeline {
    /// When each was.
    times_us: Vec<i64>,
    moves: Vec<Move>,
    /// Before the first move of each block, one that has yet to begin among them.
    sums: Vec<Counts>,
}

impl Timeline {
    pub fn new() -> Self {
        Self { times_us: Vec::new(), moves: Vec::new(), sums: vec![[0; 5]] }
    }

    pub fn bytes(&self) -> usize {
        let moves = 8 * self.times_us.capacity() + size_of::<Move>() * self.moves.capacity();
        moves + size_of::<Counts>() * self.sums.capacity()
    }

    /// Adds moves, in any order. It costs as much as what lies after the first of them.
    pub fn add(&mut self, mut moves: Vec<(i64, Move)>) {
        let Some(first_us) = moves.iter().map(|(time_us, _)| *time_us).min() else { return };
        let kept = self.times_us.partition_point(|time_us| *time_us <= first_us);
        moves.extend(self.times_us.drain(kept..).zip(self.moves.drain(kept..)));
        moves.sort_by_key(|(time_us, _)| *time_us);
        make_room(&mut self.times_us, moves.len());
        make_room(&mut self.moves, moves.len());
        for (time_us, moved) in moves {
            self.times_us.push(time_us);
            self.moves.push(moved);
        }
        self.sums.truncate(kept / BLOCK_MOVES + 1);
        let mut sum = self.sums.last().copied().unwrap_or_default();
        for block in self.moves.chunks_exact(BLOCK_MOVES).skip(self.sums.len() - 1) {
            block.iter().for_each(|moved| moved.add_to(&mut sum));
            self.sums.push(sum);
        }
    }

    /// How many tasks had which status at that moment, in microseconds: that instant included.
    pub fn at(&self, moment_us: i64) -> [i64; 4] {
        let end = self.times_us.partition_point(|time_us| *time_us <= moment_us);
        let block = end / BLOCK_MOVES;
        let mut counts = self.sums[block];
        self.moves[block * BLOCK_MOVES..end].iter().for_each(|moved| moved.add_to(&mut counts));
        let [pending, in_progress, completed, cancelled, _] = counts.map(i64::from);
        [pending, in_progress, completed, cancelled]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Task n comes at 7n as pending, moves on at 7n + 3 and goes at 7n + 5.
    fn moves(tasks: impl Iterator<Item = i64>) -> Vec<(i64, Move)> {
        let moved = |from, to| Move::between(from, to).unwrap();
        let lives = [(0, moved(None, Some(0))), (3, moved(Some(0), Some(2))), (5, moved(Some(2), None))];
        tasks.flat_map(|n| lives.map(|(after_us, moved)| (7 * n + after_us, moved))).collect()
    }

    fn assert_right(timeline: &Timeline, tasks: impl Fn(i64) -> bool, last: i64) {
        for moment_us in -1..7 * (last + 1) {
            let is_there = moment_us >= 0 && moment_us / 7 <= last && tasks(moment_us / 7);
            let expected = match moment_us.rem_euclid(7) {
                0..3 if is_there => [1, 0, 0, 0],
                3..5 if is_there => [0, 0, 1, 0],
                _ => [0; 4],
            };
            assert_eq!(timeline.at(moment_us), expected, "at {moment_us}");
        }
        assert_eq!(timeline.at(i64::MAX), [0; 4]);
    }

    #[test]
    fn moves_count_from_their_time_on_in_whatever_order_they_came() {
        let mut timeline = Timeline::new();
        assert_eq!(timeline.at(0), [0; 4]);
        timeline.add(Vec::new());
        timeline.add(moves((0..300).rev().filter(|n| n % 3 == 0)));
        assert_right(&timeline, |n| n % 3 == 0, 299);
        // Behind all others, before them, and between.
        timeline.add(moves((300..600).filter(|n| n % 3 == 0)));
        timeline.add(moves((0..600).filter(|n| n % 3 == 1)));
        assert_right(&timeline, |n| n % 3 != 2, 599);
        timeline.add(moves((0..600).filter(|n| n % 3 == 2)));
        assert_right(&timeline, |_| true, 599);
        assert_eq!(timeline.sums.len(), 1_800 / BLOCK_MOVES + 1);
    }

    #[test]
    fn what_stays_where_it_is_is_no_move() {
        assert_eq!(Move::between(Some(3), Some(3)), None);
        assert_eq!(Move::between(None, None), None);
    }
}
