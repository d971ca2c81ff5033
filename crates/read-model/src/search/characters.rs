use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;
use unicode_normalization::char::{canonical_combining_class, compose, decompose_compatible};

/// Separates, although it is ignorable by its property.
const ZERO_WIDTH_SPACE: char = '\u{200b}';
/// Holds emoji together; words are cut with it in place and compared without it.
pub(super) const ZERO_WIDTH_JOINER: char = '\u{200d}';
const TATWEEL: char = '\u{640}';

/// A character in NFKC and the range of the original text that it was made of, in code points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Character {
    pub c: char,
    pub from: usize,
    pub to: usize,
}

/// The characters of a text in NFKC. Ignorable ones are left out; the character before such a one has its range too.
pub(super) fn characters(text: &str) -> Vec<Character> {
    if text.is_ascii() {
        return text.chars().enumerate().map(|(at, c)| Character { c, from: at, to: at + 1 }).collect();
    }
    let mut decomposed: Vec<Character> = Vec::with_capacity(text.len());
    for (at, original) in text.chars().enumerate() {
        decompose_compatible(original, |c| {
            if !is_ignorable(c) {
                decomposed.push(Character { c, from: at, to: at + 1 });
            } else if let Some(before) = decomposed.last_mut() {
                before.to = at + 1;
            }
        });
    }
    order_marks(&mut decomposed);
    composed(decomposed)
}

fn is_ignorable(c: char) -> bool {
    c == TATWEEL
        || (c != ZERO_WIDTH_SPACE
            && c != ZERO_WIDTH_JOINER
            && CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c))
}

/// The canonical ordering of UAX #15.
fn order_marks(characters: &mut [Character]) {
    for marks in characters.split_mut(|character| canonical_combining_class(character.c) == 0) {
        marks.sort_by_key(|mark| canonical_combining_class(mark.c));
    }
}

/// The canonical composition of UAX #15.
fn composed(decomposed: Vec<Character>) -> Vec<Character> {
    let mut characters: Vec<Character> = Vec::with_capacity(decomposed.len());
    let mut starter = None;
    // Of the last character after the starter; 0 where there is none.
    let mut class_before = 0;
    for character in decomposed {
        let class = canonical_combining_class(character.c);
        let is_blocked = class_before != 0 && class_before >= class;
        if let Some(starter) = starter.filter(|_| !is_blocked).map(|at: usize| &mut characters[at])
            && let Some(c) = compose(starter.c, character.c)
        {
            let (from, to) = (starter.from.min(character.from), starter.to.max(character.to));
            *starter = Character { c, from, to };
            continue;
        }
        if class == 0 {
            starter = Some(characters.len());
        }
        class_before = class;
        characters.push(character);
    }
    characters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    fn places(text: &str) -> Vec<(char, usize, usize)> {
        characters(text).into_iter().map(|Character { c, from, to }| (c, from, to)).collect()
    }

    #[test]
    fn characters_keep_their_ranges() {
        assert_eq!(places("ﬁx"), [('f', 0, 1), ('i', 0, 1), ('x', 1, 2)]);
        assert_eq!(places("e\u{301}a"), [('é', 0, 2), ('a', 2, 3)]);
        assert_eq!(places("ﾊﾟ"), [('パ', 0, 2)]);
        assert_eq!(places("ﾡￂ"), [('가', 0, 2)]);
        assert_eq!(places("a\u{ad}b"), [('a', 0, 2), ('b', 2, 3)]);
        assert_eq!(places("\u{feff}a"), [('a', 1, 2)]);
        assert_eq!(places("❤\u{fe0f}!"), [('❤', 0, 2), ('!', 2, 3)]);
    }

    proptest! {
        #[test]
        fn they_are_nfkc_where_nothing_is_ignorable(text in "[\\PCａ-ｚ가-힣ᄀ-ᇿ\u{300}-\u{36f}ぁ-ヿｦ-ﾟ]*") {
            prop_assume!(!text.nfkd().any(is_ignorable));
            let ours: String = characters(&text).into_iter().map(|character| character.c).collect();
            prop_assert_eq!(ours, text.nfkc().collect::<String>());
        }
    }
}
