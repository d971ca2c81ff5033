//! What is stored of a task's texts, so that an index finds the tasks that can match.
//!
//! A lexeme is a field and a form of a word, or a field and a piece of a run: two characters, or its last one. A word or a
//! prefix is found exactly; of a run of three characters and more, and of a phrase, the tasks found are held against their
//! texts.

use super::matching::{Field, Texts};
use super::tokens::Token;

/// The lexemes of some texts, sorted by bytes (the order of a `tsvector`), each once. None is empty or has a space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lexemes(Vec<String>);

impl Lexemes {
    /// Of all texts of a task.
    ///
    /// Texts of the greatest length stay below the 1 MiB of a `tsvector`.
    #[must_use]
    pub fn of(title: &str, tags: &[String], description: Option<&str>) -> Self {
        let texts = Texts::of(title, tags.iter().map(String::as_str), description);
        let mut lexemes: Vec<String> = texts
            .fields()
            .flat_map(|(field, text)| text.iter().flat_map(move |token| of_token(field, token)))
            .collect();
        lexemes.sort_unstable();
        lexemes.dedup();
        Self(lexemes)
    }

    /// Of the tags alone.
    #[must_use]
    pub fn of_tags(tags: &[String]) -> Self {
        Self::of("", tags, None)
    }

    /// In order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// In order, a space between.
    #[must_use]
    pub fn joined(&self) -> String {
        self.0.join(" ")
    }
}

/// A field and a form.
pub(super) fn lexeme(field: Field, form: &str) -> String {
    let prefix = match field {
        Field::Title => 't',
        Field::Tags => 'g',
        Field::Description => 'd',
    };
    format!("{prefix}{form}")
}

/// Each character of a run with the next.
pub(super) fn pairs(run: &[char]) -> impl Iterator<Item = String> {
    run.windows(2).map(|pair| pair.iter().collect())
}

fn of_token(field: Field, token: &Token) -> Vec<String> {
    match token {
        Token::Word(word) => std::iter::once(&word.folded).chain(&word.also).map(|form| lexeme(field, form)).collect(),
        Token::Run(run) => {
            let characters: Vec<char> = run.iter().map(|character| character.c).collect();
            let last = characters.last().map(char::to_string);
            pairs(&characters).chain(last).map(|piece| lexeme(field, &piece)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn lexemes_have_a_field_and_a_form() {
        let lexemes = Lexemes::of("Straße, straße a.b", &tags(&["x y", "z"]), Some("会議の 準 👍🏽"));
        assert_eq!(lexemes.joined(), "dの d会議 d準 d議の d👍 d👍🏽 gx gy gz ta ta.b tb tstrasse");
    }

    #[test]
    fn lexemes_of_tags_are_among_those_of_the_task() {
        let all = Lexemes::of("x", &tags(&["x", "y"]), Some("y"));
        assert_eq!(all.joined(), "dy gx gy tx");
        assert_eq!(Lexemes::of_tags(&tags(&["x", "y"])).joined(), "gx gy");
    }

    #[test]
    fn long_words_and_texts_fit_into_a_tsvector() {
        const LEXEME_BYTES_MAX: usize = 2_046;
        const TSVECTOR_BYTES_MAX: usize = 1 << 20;
        let long = |text: &str| text.chars().cycle().take(10_000).collect::<String>();
        for text in ["x", "𐌰", "ﷺ", "a.b_", "会議の", "ﷺ.", "ΐ", "👍🏽", "가나", "1_"] {
            let lexemes = Lexemes::of("", &[], Some(&long(text)));
            assert!(lexemes.iter().all(|lexeme| lexeme.len() <= LEXEME_BYTES_MAX), "{text}");
            assert!(lexemes.iter().map(str::len).sum::<usize>() < TSVECTOR_BYTES_MAX, "{text}");
        }
    }
}
