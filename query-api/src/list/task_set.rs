//! Tasks in memory that lists and facets can be made of.

use read_model::search::{Query, Relevances};
use uuid::Uuid;

use super::tag_sets::TagSets;

/// The due date of a task that has none: later than any end.
pub(crate) const UNDATED: i64 = i64::MAX;

/// Bits 0 to 3: status, none where the task is deleted; bits 4 to 7: priority, none where it is purged; else one set of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage(u8);

impl Stage {
    pub fn of(status: Option<i16>, priority: Option<i16>) -> Self {
        let bit = |code: Option<i16>| code.map_or(0, |code| 1 << (code & 3));
        Self(bit(status) | bit(priority) << 4)
    }

    /// Whether a bit of it is among these.
    pub fn is_among(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Whether a list may show the task: it is neither deleted nor purged.
    pub fn is_listed(self) -> bool {
        self.0 & 15 != 0 && self.0 >> 4 != 0
    }

    /// Its code; `None` where the task is deleted.
    pub fn status(self) -> Option<usize> {
        let status = self.0 & 15;
        (status != 0).then_some(status.trailing_zeros() as usize)
    }

    /// Its code; `None` where the task is purged.
    pub fn priority(self) -> Option<usize> {
        let priority = self.0 >> 4;
        (priority != 0).then_some(priority.trailing_zeros() as usize)
    }
}

/// An owner's tasks, or those that held at a time. Each is at a place; what it has is asked for one by one, since each answer is
/// another cache line.
pub(crate) trait TaskSet {
    /// Where there is a task that a list may show.
    fn places(&self) -> impl Iterator<Item = usize>;

    /// No more places than that.
    fn places_max(&self) -> usize;

    fn id(&self, at: usize) -> Uuid;

    fn stage(&self, at: usize) -> Stage;

    fn created_us(&self, at: usize) -> i64;

    fn updated_us(&self, at: usize) -> i64;

    /// [`UNDATED`] where it has none.
    fn due_us(&self, at: usize) -> i64;

    /// Which of [`Self::sets`].
    fn tag_set(&self, at: usize) -> u32;

    fn sets(&self) -> &TagSets;

    /// The title as it is compared; `None`: it is not kept.
    fn title(&self, _at: usize) -> Option<&str> {
        None
    }

    /// `None`: it has none, or it is not kept.
    fn rank(&self, _at: usize) -> Option<&str> {
        None
    }

    /// How well each task matches, by [`Self::text`]. `None`: texts are not kept, and only tasks that match are here.
    fn relevances(&self, _query: &Query) -> Option<Relevances> {
        None
    }

    /// Which texts it has, where they are kept.
    fn text(&self, _at: usize) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_a_status_and_a_priority_or_is_not_listed() {
        for (status, priority) in (0..4).flat_map(|status| (0..4).map(move |priority| (status, priority))) {
            let stage = Stage::of(Some(status), Some(priority));
            assert!(stage.is_listed());
            assert_eq!(stage.status(), usize::try_from(status).ok());
            assert_eq!(stage.priority(), usize::try_from(priority).ok());
        }
        let (deleted, purged) = (Stage::of(None, Some(3)), Stage::of(Some(2), None));
        assert!(!deleted.is_listed() && !purged.is_listed());
        assert_eq!((deleted.status(), deleted.priority()), (None, Some(3)));
        assert_eq!((purged.status(), purged.priority()), (Some(2), None));
    }
}
