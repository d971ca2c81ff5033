//! The text rules of search: how texts and `q` are cut into tokens, when two are the same, and what matches.
//!
//! A text is brought to NFKC ([`characters`]) and cut into words (UAX #29) and runs, the stretches of scripts without
//! spaces ([`tokens`]). Words are compared folded ([`folding`]); a run is searched for character by character. `q` is read
//! by [`query`] and held against the texts of a task by [`matching`]. Every token knows its range in the original text, in
//! code points.
//!
//! Properties and case folding are ICU4X's, normalisation is of `unicode-normalization` (its per-character functions keep
//! the ranges), UAX #29 of `unicode-segmentation`: ICU4X's segmenter has CLDR's tailoring and brings dictionaries for
//! scripts that are searched by runs here. `charabia` does without ranges in the original text, and folds by rules of its
//! own (Han by pronunciation, kana by each other).

/// Characters of a text in NFKC, each with its range in the original.
mod characters;

/// Which words are the same.
mod folding;

/// Words and runs of a text.
mod tokens;

/// What is searched for.
mod query;

/// Which texts match, how well, and where.
mod matching;

/// What is stored of texts, so that an index finds the tasks that can match.
mod lexemes;

/// Which tasks can match by their lexemes.
mod candidates;

/// The texts of many tasks in memory.
mod text_index;

pub use folding::title_key;
pub use lexemes::Lexemes;
pub use matching::{Field, Mark, Relevance, Texts};
pub use query::{CHARACTERS_MAX, Query, QueryError, TERMS_MAX};
pub use text_index::{Relevances, TextIndex};
