//! Values on both sides of their limits, and what nobody should be able to break.

use domain::{Description, Priority, Status, Tag, Time, Title, format_time, parse_time};
use proptest::prelude::*;

/// Strings that have broken other programs. Each is kept as it is, or refused; never changed in silence.
const NAUGHTY: &[&str] = &[
    "undefined",
    "null",
    "NaN",
    "-1",
    "1e999",
    "0x0",
    "true",
    "{}",
    "[]",
    "\\",
    "\\u0000",
    "%00",
    "%s%n",
    "$(id)",
    "`id`",
    "'; drop table event; --",
    "\" or \"\"=\"",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "../../etc/passwd",
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-1+1",
    "http://a%20b",
    "Ω≈ç√∫˜µ≤≥÷",
    "田中さんにあげて下さい",
    "사회과학원",
    "הָיְתָה",
    "الكل في المجمو عة",
    "👾 🙇 💁🏽 👨‍👩‍👧‍👦 🏳️‍🌈",
    "Ṱ̺̺̕o͞ ̷i̲̬͇̪͙n̝̗͕v̟̜̘̦͟o̶̙̰̠kè͚̮̺̪̹̱̤",
    "\u{202e}desrever",
    "a\u{200b}b",
    "ﬁ ligature",
    "ß",
    "İstanbul",
    "ΣΊΣΥΦΟΣ",
    "Å vs A\u{30a}",
    "\u{1f1e6}\u{1f1e8}",
    "𐐷𐐷",
    "x\u{fe0f}",
    "\u{fdd0}",
    "\u{10ffff}",
];

#[test]
fn naughty_titles_and_descriptions_come_back_as_they_were() {
    for text in NAUGHTY {
        assert_eq!(Title::parse(text).map(|title| title.as_str().to_owned()).as_deref(), Ok(*text));
        assert_eq!(Description::parse(text).map(|text| text.as_str().to_owned()).as_deref(), Ok(*text));
    }
}

#[test]
fn titles_on_either_side_of_the_limit() {
    for character in ["x", "ä", "田", "👾"] {
        assert!(Title::parse(character).is_ok());
        assert!(Title::parse(&character.repeat(200)).is_ok(), "{character}");
        assert!(Title::parse(&character.repeat(201)).is_err(), "{character}");
        // Trimmed before it is measured, and stored so.
        let padded = format!("  \t{}\u{3000}", character.repeat(200));
        assert_eq!(Title::parse(&padded).unwrap().as_str(), character.repeat(200));
    }
}

#[test]
fn a_title_shows_something() {
    let invisible = [
        "",
        " ",
        "\t\n",
        "\u{a0}",
        "\u{3000}",
        "\u{200b}",
        "\u{200d}\u{200c}",
        "\u{2060}",
        "\u{feff}",
        "\u{ad}",
        "\u{180e}",
        "\u{2800}",
        "\u{3164}",
        "\u{115f}\u{1160}",
        "\u{ffa0}",
        "\u{034f}",
        "\u{202a}\u{202c}",
        "\u{e0020}",
        "\u{fe0f}",
        "\u{2028}",
        "\u{301}",
        " \u{200b} \u{2800} ",
    ];
    for text in invisible {
        assert!(Title::parse(text).is_err(), "{text:?}");
        assert!(Title::parse(&format!("{text}x{text}")).is_ok(), "{text:?} around something visible");
    }
}

#[test]
fn titles_have_no_control_characters() {
    for control in (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32) {
        let inside = format!("a{control}b");
        assert!(Title::parse(&inside).is_err(), "{control:?}");
        assert!(Title::parse(&format!("{inside}ä")).is_err(), "{control:?} beside what is not ASCII");
        assert!(Tag::parse(&inside).is_err(), "{control:?}");
    }
}

#[test]
fn descriptions_on_either_side_of_the_limit() {
    for character in ["x", "ä", "👾"] {
        assert!(Description::parse(&character.repeat(10_000)).is_ok());
        assert!(Description::parse(&character.repeat(10_001)).is_err());
    }
    // Kept to the letter: nothing is trimmed, an empty one is one.
    for text in ["", " ", "\n\tx\r\n ", "\u{1}"] {
        assert_eq!(Description::parse(text).unwrap().as_str(), text);
    }
    assert!(Description::parse("a\0b").is_err());
}

#[test]
fn tags_on_either_side_of_the_limit() {
    for character in ["x", "ä", "👾"] {
        assert!(Tag::parse(character).is_ok());
        assert!(Tag::parse(&character.repeat(50)).is_ok());
        assert!(Tag::parse(&character.repeat(51)).is_err());
    }
    for bad in ["", " ", "a,b", ",", "\u{200b}", "a\nb"] {
        assert!(Tag::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(Tag::parse(" Straße 7 ").unwrap().as_str(), "straße 7");
    // Lower-casing may lengthen: measured is what is stored.
    assert!(Tag::parse(&"İ".repeat(25)).is_ok());
    assert!(Tag::parse(&"İ".repeat(26)).is_err());
}

#[test]
fn names_are_exact() {
    for name in ["low", "medium", "high", "urgent"] {
        assert_eq!(Priority::parse(name).unwrap().as_str(), name);
    }
    for name in ["pending", "in_progress", "completed", "cancelled"] {
        assert_eq!(Status::parse(name).unwrap().as_str(), name);
    }
    for wrong in ["", "Low", " low", "normal", "in progress", "in-progress", "canceled", "deleted"] {
        assert!(Priority::parse(wrong).is_err() && Status::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Priority::ALL.is_sorted_by_key(|priority| priority.code()));
}

#[test]
fn times_are_rfc_3339_and_exist() {
    for (text, utc) in [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+14:00", "2026-01-30T22:00:00Z"),
        ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2026-01-31T12:00:00.1Z", "2026-01-31T12:00:00.100Z"),
        ("2026-01-31T12:00:00.000001Z", "2026-01-31T12:00:00.000001Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(parse_time(text).map(format_time).as_deref(), Ok(utc), "{text}");
    }
    for text in [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:00+25:00",
        "26-01-31T12:00:00Z",
        "+12026-01-31T12:00:00Z",
        "-0001-01-01T00:00:00Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "20260131T120000Z",
        "2026-01-31T12:00:00Z ",
        " 2026-01-31T12:00:00Z",
        "1769860800",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T1２:00:00Z",
    ] {
        assert!(parse_time(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_was_parsed_parses_to_itself(text in any::<String>()) {
        if let Ok(title) = Title::parse(&text) {
            prop_assert_eq!(title.as_str(), text.trim());
            prop_assert_eq!(Title::parse(title.as_str()), Ok(title));
        }
        if let Ok(tag) = Tag::parse(&text) {
            prop_assert!(!tag.as_str().contains(','));
            prop_assert_eq!(Tag::parse(tag.as_str()), Ok(tag));
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
        let time = Time::from_timestamp_micros(micros).unwrap();
        prop_assert_eq!(parse_time(&format_time(time)), Ok(time));
    }

    #[test]
    fn parsing_a_time_never_panics(text in "[0-9TZ:.+-]{0,40}") {
        let _ = parse_time(&text);
    }
}
