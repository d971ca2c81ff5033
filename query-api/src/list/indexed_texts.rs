//! The texts of an owner's tasks in memory, as one more column.

use read_model::search::{Query, Relevances, TextIndex};

/// The texts of the tasks of columns.
#[derive(Default)]
pub(super) struct IndexedTexts {
    index: TextIndex,
    /// Which texts of the index a task has.
    numbers: Vec<u32>,
    /// The tags, numbered as those of the tasks' sets.
    tags: TextIndex,
}

impl IndexedTexts {
    /// Those of the next task.
    pub fn push(&mut self, title: &str, tags: &[String], description: Option<&str>) {
        self.numbers.push(self.index.add(title, tags.iter().map(String::as_str), description));
    }

    /// The next tag.
    pub fn push_tag(&mut self, tag: &str) {
        self.tags.add(tag, [], None);
    }

    /// As [`Vec::swap_remove`].
    pub fn swap_remove(&mut self, at: usize) {
        self.index.remove(self.numbers.swap_remove(at));
    }

    /// How many there are in memory, those of former tasks among them.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.tags.bytes() + 4 * self.numbers.capacity()
    }

    /// By which [`Relevances`] names the task.
    pub fn number(&self, at: usize) -> u32 {
        self.numbers[at]
    }

    /// How well each task matches.
    pub fn relevances(&self, query: &Query) -> Relevances {
        self.index.relevances(query)
    }

    /// As [`TextIndex::tolerating`].
    pub fn tolerating(&self, query: &Query) -> Query {
        self.index.tolerating(query)
    }

    /// Whether each tag matches.
    pub fn matching_tags(&self, query: &Query) -> Vec<bool> {
        let relevances = self.tags.relevances(query);
        (0..self.tags.len()).map(|tag| u32::try_from(tag).is_ok_and(|tag| relevances.get(tag).is_some())).collect()
    }
}
