//! The texts that tasks are sorted by: titles as they are compared, and ranks.

use super::room::make_room;

/// The number of no text.
const NONE: u32 = 0;

/// Those of versions of tasks: the same index is the same version.
pub(super) struct SortTexts {
    /// Numbers of texts.
    titles: Vec<u32>,
    ranks: Vec<u32>,
    /// All texts, one behind the other.
    all: String,
    /// Where each ends: the first one is [`NONE`].
    ends: Vec<usize>,
}

impl SortTexts {
    pub fn new() -> Self {
        Self { titles: Vec::new(), ranks: Vec::new(), all: String::new(), ends: vec![0] }
    }

    pub fn make_room(&mut self, versions: usize) {
        make_room(&mut self.titles, versions);
        make_room(&mut self.ranks, versions);
    }

    pub fn shrink(&mut self) {
        self.titles.shrink_to_fit();
        self.ranks.shrink_to_fit();
        self.all.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// A version that may be the next one of the task at `before`; it has that one's title where none is given.
    pub fn push(&mut self, before: Option<usize>, title_key: Option<&str>, rank: Option<&str>) {
        let title = match title_key {
            Some(title_key) => self.number(title_key),
            None => before.map_or(NONE, |before| self.titles[before]),
        };
        let rank = rank.map_or(NONE, |rank| match before.map(|before| self.ranks[before]) {
            Some(number) if self.get(number) == Some(rank) => number,
            _ => self.number(rank),
        });
        self.titles.push(title);
        self.ranks.push(rank);
    }

    fn number(&mut self, text: &str) -> u32 {
        self.all.push_str(text);
        self.ends.push(self.all.len());
        u32::try_from(self.ends.len() - 1).unwrap_or(NONE)
    }

    /// `None`: it has none, or texts are not kept.
    pub fn title(&self, at: usize) -> Option<&str> {
        self.get(*self.titles.get(at)?)
    }

    /// As [`Self::title`].
    pub fn rank(&self, at: usize) -> Option<&str> {
        self.get(*self.ranks.get(at)?)
    }

    fn get(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let before = number.checked_sub(1)?;
        Some(&self.all[self.ends[before]..self.ends[number]])
    }

    /// Bytes of the texts alone.
    pub fn text_bytes(&self) -> usize {
        self.all.len()
    }

    pub fn bytes(&self) -> usize {
        4 * (self.titles.capacity() + self.ranks.capacity()) + self.all.capacity() + 8 * self.ends.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_title_of_the_one_before() {
        let mut texts = SortTexts::new();
        texts.push(None, Some("a"), None);
        texts.push(Some(0), None, Some("m"));
        texts.push(None, Some(""), Some("m"));
        texts.push(Some(1), Some("b"), Some("m"));
        texts.push(Some(3), None, None);
        let tasks: Vec<_> = (0..5).map(|at| (texts.title(at), texts.rank(at))).collect();
        let (a, b, m) = (Some("a"), Some("b"), Some("m"));
        assert_eq!(tasks, [(a, None), (a, m), (Some(""), m), (b, m), (b, None)]);
        assert_eq!(texts.ends.len(), 1 + 5, "a rank that is as it was is not kept twice");
        assert_eq!((texts.title(5), texts.rank(5)), (None, None));
    }
}
