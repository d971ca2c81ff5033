//! The text rule of search: how titles, descriptions and what is searched for are cut into words.
//!
//! NFKD, without combining marks (general category M), each character in lower case by itself (no final-sigma rule), split
//! at whatever is not alphanumeric (Unicode Alphabetic or Numeric); of each word the first 64 characters.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Of a longer word only this many characters are kept.
const WORD_CHARACTERS_MAX: usize = 64;

/// The words of a task, as they stand in `read_model.task.search`.
///
/// A title and a description of the greatest length stay far below the 1 MiB of a tsvector, even where every
/// character becomes eighteen by NFKD.
#[derive(Debug, Default)]
pub struct Words {
    /// With one space between words.
    text: String,
}

impl Words {
    /// Of title and description; a word does not run on from one to the other.
    #[must_use]
    pub fn of(title: &str, description: Option<&str>) -> Self {
        let mut words =
            Self { text: String::with_capacity(title.len() + description.map_or(0, |text| text.len() + 1)) };
        words.add(title);
        if let Some(description) = description {
            words.add(description);
        }
        words
    }

    fn add(&mut self, text: &str) {
        let mut characters = 0;
        let mut push = |c: char| {
            if !c.is_alphanumeric() {
                characters = 0;
                if !self.text.is_empty() && !self.text.ends_with(' ') {
                    self.text.push(' ');
                }
            } else if characters < WORD_CHARACTERS_MAX {
                characters += 1;
                self.text.push(c);
            }
        };
        push(' ');
        if text.is_ascii() {
            text.chars().for_each(|c| push(c.to_ascii_lowercase()));
        } else {
            text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).for_each(push);
        }
    }

    /// In the order of the text.
    pub fn in_order(&self) -> impl Iterator<Item = &str> {
        self.text.split(' ').filter(|word| !word.is_empty())
    }

    /// Each word once, sorted by bytes (the order of a tsvector).
    #[must_use]
    pub fn distinct(&self) -> Vec<&str> {
        let mut words: Vec<&str> = self.in_order().collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// Each word once, with one space between.
    #[must_use]
    pub fn joined(&self) -> String {
        self.distinct().join(" ")
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn words(title: &str, description: Option<&str>) -> String {
        Words::of(title, description).joined()
    }

    #[test]
    fn case_accents_and_compatibility_forms_are_folded() {
        assert_eq!(words("Crème BRÛLÉE", Some("ﬁne Ⅻ ½")), "1 2 brulee creme fine xii");
        assert_eq!(words("İstanbul ΟΔΟΣ Straße", None), "istanbul straße οδοσ");
    }

    #[test]
    fn words_are_split_at_whatever_is_not_alphanumeric_and_counted_once() {
        assert_eq!(words("a-b_c a", Some("x'y\\z:1 \"a\"")), "1 a b c x y z");
        assert_eq!(words("  ", Some("\n")), "");
        assert_eq!(words("One", Some("TWO")), "one two", "a word does not run on from title to description");
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(words(&"x".repeat(100), Some(&format!("{} y", "ä".repeat(100)))), {
            format!("{} {} y", "a".repeat(64), "x".repeat(64))
        });
    }
}
