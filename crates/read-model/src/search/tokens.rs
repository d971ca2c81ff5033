use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup, Script};
use icu_properties::script::ScriptWithExtensions;
use unicode_segmentation::UnicodeSegmentation;

use super::characters::{Character, ZERO_WIDTH_JOINER, characters};
use super::folding::{folded, is_mark, is_skin_tone};

/// Scripts that are searched by runs: of some, words have no spaces between them, and of Hangul, particles are written to
/// the word.
const RUN_SCRIPTS: [Script; 8] = [
    Script::Han,
    Script::Hiragana,
    Script::Katakana,
    Script::Hangul,
    Script::Thai,
    Script::Lao,
    Script::Khmer,
    Script::Myanmar,
];
const ENCLOSING_KEYCAP: char = '\u{20e3}';

/// What can be searched for in a text. Tokens with nothing that can be searched for between them are neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// Characters of [`RUN_SCRIPTS`] in a row.
    Run(Vec<Character>),
}

/// A word as UAX #29 has it, or a symbol or emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub folded: String,
    /// Under what it is found beside: its parts, and an emoji's form without skin tone.
    pub also: Vec<String>,
    pub from: usize,
    pub to: usize,
}

impl Token {
    pub fn from(&self) -> usize {
        match self {
            Self::Word(word) => word.from,
            Self::Run(characters) => characters.first().map_or(0, |first| first.from),
        }
    }

    pub fn to(&self) -> usize {
        match self {
            Self::Word(word) => word.to,
            Self::Run(characters) => characters.last().map_or(0, |last| last.to),
        }
    }
}

/// The tokens of a text, in its order.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let characters = characters(text);
    let mut tokens = Vec::new();
    for stretch in stretches(&characters) {
        if is_of_run(stretch[0].c) {
            let run = stretch.iter().copied().filter(|character| character.c != ZERO_WIDTH_JOINER);
            tokens.push(Token::Run(run.collect()));
        } else {
            tokens.extend(words(stretch).map(Token::Word));
        }
    }
    tokens
}

/// Cuts where the script class changes. A mark belongs to what it follows.
fn stretches(characters: &[Character]) -> impl Iterator<Item = &[Character]> {
    let joins = |c: char| is_mark(c) || c == ZERO_WIDTH_JOINER;
    characters.chunk_by({
        let mut is_run = characters.first().is_some_and(|first| is_of_run(first.c));
        move |_, next| {
            let was_run = is_run;
            if !joins(next.c) {
                is_run = is_of_run(next.c);
            }
            is_run == was_run
        }
    })
}

fn is_of_run(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_searched =
        GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Mark).union(GeneralCategoryGroup::Number);
    // Below are Latin, Greek, Cyrillic, Hebrew, Arabic and the scripts of India.
    c >= '\u{e00}'
        && is_searched.contains(category)
        && RUN_SCRIPTS.into_iter().any(|script| ScriptWithExtensions::new().has_script(c, script))
}

fn words(stretch: &[Character]) -> impl Iterator<Item = Word> {
    let text: String = stretch.iter().map(|character| character.c).collect();
    let lengths: Vec<usize> = text.split_word_bounds().map(|segment| segment.chars().count()).collect();
    let mut rest = stretch;
    lengths.into_iter().filter_map(move |length| {
        let (segment, after) = rest.split_at(length);
        rest = after;
        word(segment)
    })
}

/// None: a separator.
fn word(segment: &[Character]) -> Option<Word> {
    let is_term = |c: char| {
        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        let terms =
            GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Number).union(GeneralCategoryGroup::Symbol);
        terms.contains(category) || c == ENCLOSING_KEYCAP
    };
    let first = segment.first()?.c;
    if !is_mark(first) && !segment.iter().any(|character| is_term(character.c)) {
        return None;
    }
    let text: String = segment.iter().map(|character| character.c).collect();
    let folded_text = folded(&text);
    let mut also: Vec<String> = parts(&text).into_iter().filter(|part| part.contains(is_term)).map(folded).collect();
    if !is_skin_tone(first) && text.contains(is_skin_tone) {
        also.push(folded(&text.replace(is_skin_tone, "")));
    }
    also.retain(|form| *form != folded_text);
    also.sort_unstable();
    also.dedup();
    let from = segment.iter().map(|character| character.from).min()?;
    let to = segment.iter().map(|character| character.to).max()?;
    (!folded_text.is_empty()).then_some(Word { folded: folded_text, also, from, to })
}

/// What full stops cut, what low lines cut of that, and what apostrophes cut of that in turn.
fn parts(word: &str) -> Vec<&str> {
    let joints: [&[char]; 3] = [&['.'], &['_'], &['\'', '’']];
    let (mut parts, mut cut) = (Vec::new(), vec![word]);
    for joint in joints.into_iter().filter(|joint| word.contains(*joint)) {
        cut = cut.into_iter().flat_map(|part| part.split(joint)).collect();
        parts.extend_from_slice(&cut);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens' text, words folded with what they are found by beside, runs in brackets.
    fn shown(text: &str) -> String {
        let of_run = |run: &[Character]| run.iter().map(|character| character.c).collect::<String>();
        let shown = tokens(text).into_iter().map(|token| match token {
            Token::Word(Word { folded, also, .. }) if also.is_empty() => folded,
            Token::Word(Word { folded, also, .. }) => format!("{folded}={}", also.join("=")),
            Token::Run(run) => format!("[{}]", of_run(&run)),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn texts_are_cut_into_words_and_runs() {
        for (text, expected) in [
            ("", ""),
            ("One, two-three (four)!", "one two three four"),
            ("a.b_c'd d'e d’e", "a.b_c'd=a=b=b_c'd=c=c'd=d d'e=d=e d'e=d=e"),
            ("_foo_ __ 3.14 3,14 x.", "_foo_=foo 3.14=14=3 3,14 x"),
            ("Gesamt\u{ad}konzept a\u{200b}b \u{feff}c محمـد", "gesamtkonzept a b c محمد"),
            ("会議の準備をする。パン", "[会議の準備をする] [パン]"),
            ("東京2020年 iPhone手机 3월", "[東京] 2020 [年] iphone [手机] 3 [월]"),
            ("ﾊﾟﾝ ラーメン 々〇", "[パン] [ラーメン] [々〇]"),
            ("ภาษาไทย ๑๒ ខ្មែរ မြန်မာ ລາວ", "[ภาษาไทย] [๑๒] [ខ្មែរ] [မြန်မာ] [ລາວ]"),
            ("ㅋㅋ 한국어", "[ᄏᄏ] [한국어]"),
            ("हिन्दी भाषा", "हिन्दी भाषा"),
            ("🚀🚀", "🚀 🚀"),
            ("👍🏽 ❤\u{fe0f} 🇩🇪🇫🇷", "👍🏽=👍 ❤ 🇩🇪 🇫🇷"),
            ("👨\u{200d}👩\u{200d}👧 👩🏽\u{200d}🚀", "👨👩👧 👩🏽🚀=👩🚀"),
            ("1\u{fe0f}\u{20e3} #\u{fe0f}\u{20e3}", "1\u{20e3} #\u{20e3}"),
            ("c++ 5€ a=b", "c + + 5 € a = b"),
            ("´ ¨ … — ? \u{200d}", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn tokens_have_their_ranges_in_the_original_text() {
        let ranges = |text: &str| tokens(text).iter().map(|token| (token.from(), token.to())).collect::<Vec<_>>();
        assert_eq!(ranges("ﬁx Cafe\u{301}s, 東京2020"), [(0, 2), (3, 9), (11, 13), (13, 17)]);
        assert_eq!(ranges("❤\u{fe0f} Gesamt\u{ad}konzept"), [(0, 2), (3, 17)]);
        assert_eq!(ranges("👨\u{200d}👩 a"), [(0, 3), (4, 5)]);
    }
}
