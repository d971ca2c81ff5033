use icu_casemap::CaseMapper;
use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup, Script};
use unicode_normalization::UnicodeNormalization;

use super::characters::{ZERO_WIDTH_JOINER, characters};

/// Of a longer word no more is compared: Postgres takes lexemes of up to 2,046 bytes.
const WORD_CHARACTERS_MAX: usize = 500;

/// The form in which words are compared: after full case folding, without marks that make no difference.
pub(super) fn folded(word: &str) -> String {
    let mut folded = if word.is_ascii() { word.to_ascii_lowercase() } else { folded_by_unicode(word) };
    if let Some((end, _)) = folded.char_indices().nth(WORD_CHARACTERS_MAX) {
        folded.truncate(end);
    }
    folded
}

fn folded_by_unicode(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    let mut base = None;
    for c in CaseMapper::new().fold_string(word).nfd() {
        if is_mark(c) {
            if !is_ignored(c, base) {
                folded.push(c);
            }
            continue;
        }
        base = Some(c);
        match c {
            ZERO_WIDTH_JOINER => {}
            '’' => folded.push('\''),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ı' => folded.push('i'),
            _ => folded.push(without_stroke(c)),
        }
    }
    folded.nfc().collect()
}

/// A title as `sort=title` compares it, by bytes: in NFKC, folded as words are.
#[must_use]
pub fn title_key(title: &str) -> String {
    folded(&characters(title).into_iter().map(|character| character.c).collect::<String>())
}

/// A skin tone (an emoji modifier).
pub(super) fn is_skin_tone(c: char) -> bool {
    matches!(c, '\u{1f3fb}'..='\u{1f3ff}')
}

pub(super) fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(c))
}

fn is_ignored(mark: char, base: Option<char>) -> bool {
    const BREVE: char = '\u{306}';
    let script = |c| CodePointMapData::<Script>::new().get(c);
    match mark {
        // Harakat and signs of the Koran; not madda and hamza (U+0653 to U+0655), which make other letters.
        '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{652}'
        | '\u{656}'..='\u{65f}'
        | '\u{670}'
        | '\u{6d6}'..='\u{6ed}'
        | '\u{897}'..='\u{89f}'
        | '\u{8ca}'..='\u{8ff}' => true,
        BREVE if matches!(base, Some('и' | 'у')) => false,
        _ if script(mark) == Script::Hebrew => true,
        _ => base.is_some_and(|base| matches!(script(base), Script::Latin | Script::Greek | Script::Cyrillic)),
    }
}

/// Letters with a stroke that Unicode does not decompose, folded to lower case.
fn without_stroke(c: char) -> char {
    match c {
        'ⱥ' => 'a',
        'ƀ' | 'ꞗ' => 'b',
        'ȼ' | 'ꞓ' => 'c',
        'đ' => 'd',
        'ɇ' => 'e',
        'ꞙ' => 'f',
        'ǥ' | 'ꞡ' => 'g',
        'ħ' => 'h',
        'ɨ' => 'i',
        'ɉ' => 'j',
        'ꝁ' | 'ꝃ' | 'ꞣ' => 'k',
        'ł' | 'ƚ' | 'ꝉ' => 'l',
        'ꞥ' => 'n',
        'ø' | 'ɵ' | 'ꝋ' => 'o',
        'ᵽ' | 'ꝑ' => 'p',
        'ꝗ' => 'q',
        'ɍ' | 'ꞧ' => 'r',
        'ꞩ' | 'ꟊ' => 's',
        'ŧ' | 'ⱦ' => 't',
        'ʉ' => 'u',
        'ꝟ' => 'v',
        'ɏ' => 'y',
        'ƶ' => 'z',
        'ϼ' => 'ρ',
        'ғ' => 'г',
        'ҟ' => 'к',
        'ұ' => 'ү',
        'ӿ' => 'х',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_after_folding() {
        for (one, other) in [
            ("ΟΔΟΣ", "Οδός"),
            ("STRASSE", "Straße"),
            ("STRASSE", "STRAẞE"),
            ("İstanbul", "ISTANBUL"),
            ("ılık", "ILIK"),
            ("lodz", "Łódź"),
            ("Tromsø", "TROMSO"),
            ("ǿ", "o"),
            ("Ærø", "aero"),
            ("ǽ", "AE"),
            ("Œuvre", "oeuvre"),
            ("Þór", "thor"),
            ("Đà", "da"),
            ("Ħal", "hal"),
            ("ŧ", "T"),
            ("Київ", "Киів"),
            ("Ёлка", "елка"),
            ("don’t", "don't"),
            ("kr\u{336}a", "kra"),
            ("مُحَمَّد", "محمد"),
            ("שָׁלוֹם", "שלום"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} and {other}");
        }
    }

    #[test]
    fn titles_are_compared_folded() {
        assert_eq!(title_key("É\u{ad}mile ②"), "emile 2");
        assert_eq!(title_key("ÉMILE 2"), title_key("emile ２"));
        assert!(title_key("Zoë a") < title_key("zoe B") && title_key("B") > title_key("a"));
    }

    #[test]
    fn words_stay_apart() {
        for (one, other) in [
            ("й", "и"),
            ("Ў", "У"),
            ("कि", "क"),
            ("パン", "ハン"),
            ("ぱん", "パン"),
            ("آن", "ان"),
            ("ð", "d"),
            ("ñ", "m"),
        ] {
            assert_ne!(folded(one), folded(other), "{one} and {other}");
        }
    }
}
