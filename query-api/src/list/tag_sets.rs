//! Sets of tags, each once: tasks have few different ones.

use std::collections::HashMap;
use std::sync::Arc;

/// Tags and sets of tags, each once.
#[derive(Default, Clone)]
pub(crate) struct TagSets {
    pub tags: Vec<Arc<str>>,
    tag_numbers: HashMap<Arc<str>, u32>,
    pub sets: Vec<Arc<[u32]>>,
    numbers: HashMap<Arc<[u32]>, u32>,
    pub bytes: usize,
}

impl TagSets {
    /// That of the tag; `None`: no set has it.
    pub fn number_of(&self, tag: &str) -> Option<u32> {
        self.tag_numbers.get(tag).copied()
    }

    /// That of the set, which is added if it is new.
    pub fn number(&mut self, tags: Vec<String>) -> u32 {
        let set: Vec<u32> = tags.into_iter().map(|tag| self.tag_number(tag)).collect();
        if let Some(number) = self.numbers.get(set.as_slice()) {
            return *number;
        }
        self.bytes += 100 + 4 * set.len();
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let set: Arc<[u32]> = set.into();
        self.sets.push(set.clone());
        self.numbers.insert(set, number);
        number
    }

    /// Each of [`Self::tags`], and how many tasks of these sets have it. (The counts are by set of tags.)
    pub fn count_tags(&self, by_set: &[i64]) -> impl Iterator<Item = (&str, i64)> {
        let mut counts = vec![0; self.tags.len()];
        for (set, count) in self.sets.iter().zip(by_set) {
            set.iter().for_each(|tag| counts[*tag as usize] += count);
        }
        self.tags.iter().map(AsRef::as_ref).zip(counts)
    }

    fn tag_number(&mut self, tag: String) -> u32 {
        if let Some(number) = self.tag_numbers.get(tag.as_str()) {
            return *number;
        }
        self.bytes += 100 + tag.len();
        let number = u32::try_from(self.tags.len()).unwrap_or(u32::MAX);
        let tag: Arc<str> = tag.into();
        self.tags.push(tag.clone());
        self.tag_numbers.insert(tag, number);
        number
    }
}
