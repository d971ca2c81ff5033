//! Values, parsed once at the edge. "Characters" are Unicode code points.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use uuid::Uuid;

use crate::invalid::Invalid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The account that owns a task.
    OwnerId
);
id!(
    /// A task's id: its owner's own. The same id under two owners is two tasks.
    TaskId
);
id!(
    /// A command's id: its owner's own, with at most one effect.
    CommandId
);

/// Parses a UUID in its usual form, 8-4-4-4-12 hexadecimal digits: one id has one form.
///
/// # Errors
/// Any other text, the other spellings of a UUID included.
pub fn parse_uuid(text: &str) -> Result<Uuid, Invalid> {
    let parsed = if text.len() == uuid::fmt::Hyphenated::LENGTH { Uuid::try_parse(text).ok() } else { None };
    parsed.ok_or(Invalid::because("must be a UUID, such as 01932c6e-7d3b-7cc1-a5ad-0242ac120002"))
}

/// A point in time, UTC, kept to the microsecond (what Postgres keeps).
pub type Time = DateTime<Utc>;

/// Parses an RFC 3339 time with any offset; finer than a microsecond is cut off.
///
/// # Errors
/// Not RFC 3339, no such date, or outside of the years 1 to 9999 (in UTC).
pub fn parse_time(text: &str) -> Result<Time, Invalid> {
    let parsed = DateTime::parse_from_rfc3339(text)
        .map_err(|_| Invalid::because("must be a time in RFC 3339, such as 2026-01-31T12:00:00Z"))?;
    // By way of the count of microseconds, so that a leap second becomes an ordinary one.
    let time = DateTime::from_timestamp_micros(parsed.timestamp_micros())
        .filter(|time| (1..=9999).contains(&time.year()))
        .ok_or(Invalid::because("must lie in the years 0001 to 9999"))?;
    Ok(time.trunc_subsecs(6))
}

/// RFC 3339 in `Z`, with as many digits of the second as it needs (0, 3 or 6).
#[must_use]
pub fn format_time(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The form of every text that is compared: Unicode normalisation form C, so that it does not matter on which keyboard or
/// file system it was made.
#[must_use]
pub fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Whether a character leaves something to see. Unassigned ones count as visible: fonts are newer than tables.
fn is_visible(c: char) -> bool {
    // Letters by category that fonts draw as nothing: Hangul fillers, the Braille blank, and the grapheme joiner.
    const BLANK: [char; 6] = ['\u{034f}', '\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];
    !c.is_whitespace()
        && !BLANK.contains(&c)
        && !matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::NonspacingMark
                | GeneralCategory::EnclosingMark
                | GeneralCategory::SpaceSeparator
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
}

/// Trims, and checks what titles and tags have in common.
fn one_line(text: &str, characters_max: usize) -> Result<&str, Invalid> {
    let trimmed = text.trim();
    if trimmed.is_ascii() {
        // The usual case, without a table.
        if trimmed.is_empty() {
            return Err(Invalid::because("must not be blank"));
        }
        if trimmed.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Invalid::because("must not contain control characters"));
        }
        if trimmed.len() > characters_max {
            return Err(too_long(characters_max));
        }
        return Ok(trimmed);
    }
    if trimmed.chars().any(char::is_control) {
        return Err(Invalid::because("must not contain control characters"));
    }
    if !trimmed.chars().any(is_visible) {
        return Err(Invalid::because("must not be blank"));
    }
    if trimmed.chars().count() > characters_max {
        return Err(too_long(characters_max));
    }
    Ok(trimmed)
}

fn too_long(characters_max: usize) -> Invalid {
    let (thousands, rest) = (characters_max / 1_000, characters_max % 1_000);
    let most = if thousands == 0 { rest.to_string() } else { format!("{thousands},{rest:03}") };
    Invalid(Cow::Owned(format!("must have at most {most} characters")))
}

/// Of a title, in characters.
pub const TITLE_CHARACTERS_MAX: usize = 200;
/// Of a description, in characters.
pub const DESCRIPTION_CHARACTERS_MAX: usize = 10_000;
/// Of a tag, in characters.
pub const TAG_CHARACTERS_MAX: usize = 50;

/// What is to be done, in a line: 1 to 200 characters after trimming, something visible among them, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Title(Box<str>);

impl Title {
    /// Trims and checks.
    ///
    /// # Errors
    /// Blank or invisible, over 200 characters, or with a control character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        one_line(text, TITLE_CHARACTERS_MAX).map(|title| Self(title.into()))
    }

    /// The trimmed text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Free text of at most 10,000 characters, kept as it came. No NUL (Postgres cannot store it).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Description(Box<str>);

impl Description {
    /// Checks; changes nothing.
    ///
    /// # Errors
    /// Over 10,000 characters, or with a NUL.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return Err(Invalid::because("must not contain NUL"));
        }
        if text.len() > DESCRIPTION_CHARACTERS_MAX && text.chars().count() > DESCRIPTION_CHARACTERS_MAX {
            return Err(too_long(DESCRIPTION_CHARACTERS_MAX));
        }
        Ok(Self(text.into()))
    }

    /// The text as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A label: 1 to 50 characters after trimming, lower-casing and composing, no comma, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Tag(Box<str>);

impl Tag {
    /// Trims, lower-cases, composes and checks. Older programs stored tags as they were typed: what is read is composed.
    ///
    /// # Errors
    /// Blank, over 50 characters, with a comma or a control character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // Small letters may compose where capitals did not.
        let lower = composed(text.trim()).to_lowercase();
        let lower = composed(&lower);
        let tag = one_line(&lower, TAG_CHARACTERS_MAX)?;
        if tag.contains(',') {
            return Err(Invalid::because("must not contain a comma"));
        }
        Ok(Self(tag.into()))
    }

    /// The text, trimmed, composed and in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Of a rank, in characters.
pub const RANK_CHARACTERS_MAX: usize = 64;

/// A place in the order that people give by hand: 1 to 64 of `0-9A-Za-z`, not ending in `0`, compared as bytes. Between any
/// two of them there is another, unless that would be too long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Rank(Box<str>);

impl Rank {
    /// Checks; changes nothing.
    ///
    /// # Errors
    /// Empty, over 64 characters, with another character, or ending in `0`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > RANK_CHARACTERS_MAX {
            return Err(Invalid(Cow::Owned(format!("must have 1 to {RANK_CHARACTERS_MAX} characters"))));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Invalid::because("must consist of 0-9, A-Z and a-z"));
        }
        if text.ends_with('0') {
            return Err(Invalid::because("must not end in 0"));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! parsed_from_string {
    ($($name:ident),+) => {$(
        /// What is read is parsed, so that no wrong value comes in by this way.
        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }
    )+};
}

parsed_from_string!(Title, Description, Tag, Rank);

/// A task's tags: sorted, each once.
pub type Tags = BTreeSet<Tag>;

/// How many tags a task may have.
pub const TAGS_MAX: usize = 20;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $expected:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As it stands in requests, answers and events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            /// As it stands in the read models: its place in the order, from 0.
            #[must_use]
            pub const fn code(self) -> i16 {
                self as i16
            }

            /// From its exact name.
            ///
            /// # Errors
            /// Any other text.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Invalid::because($expected)),
                }
            }
        }
    };
}

named!(
    /// How much it matters, from low to urgent.
    Priority, "must be one of low, medium, high, urgent" {
        /// Can wait.
        Low = "low",
        /// Where nothing is said.
        Medium = "medium",
        /// Before others.
        High = "high",
        /// Now.
        Urgent = "urgent",
    }
);

named!(
    /// Where a task stands in its life.
    Status, "must be one of pending, in_progress, completed, cancelled" {
        /// Not begun.
        Pending = "pending",
        /// Begun.
        InProgress = "in_progress",
        /// Done.
        Completed = "completed",
        /// Not to be done.
        Cancelled = "cancelled",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_one_form() {
        assert_eq!(parse_uuid("01932C6E-7d3b-7cc1-a5ad-0242ac120002").unwrap().as_bytes()[0], 1);
        for text in [
            "",
            "01932c6e7d3b7cc1a5ad0242ac120002",
            "{01932c6e-7d3b-7cc1-a5ad-0242ac120002}",
            "urn:uuid:01932c6e-7d3b-7cc1-a5ad-0242ac120002",
            "01932c6e-7d3b-7cc1-a5ad-0242ac12000g",
            "01932c6e_7d3b_7cc1_a5ad_0242ac120002",
            " 01932c6e-7d3b-7cc1-a5ad-0242ac12000",
            "01932c6e-7d3b-7cc1-a5ad-0242ac12000\u{ff12}",
        ] {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_keep_microseconds_and_answer_in_utc() {
        let time = parse_time("2026-01-31T13:00:00.1234567+01:00").unwrap();
        assert_eq!(format_time(time), "2026-01-31T12:00:00.123456Z");
        assert_eq!(format_time(parse_time("2016-12-31T23:59:60Z").unwrap()), "2017-01-01T00:00:00Z");
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in ["2026-02-30T00:00:00Z", "2026-01-01", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", ""] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn titles_need_something_to_see() {
        for blank in ["", "  ", "\u{200b}", "\u{2800}\u{3164}", "\u{feff}\u{202e}", "\u{0301}"] {
            assert!(Title::parse(blank).is_err(), "{blank:?}");
        }
        assert_eq!(Title::parse("  a\u{200d}b ").unwrap().as_str(), "a\u{200d}b");
        assert!(Title::parse(&"ä".repeat(200)).is_ok());
        assert!(Title::parse(&"ä".repeat(201)).is_err());
        assert!(Title::parse("a\u{85}b").is_err());
    }

    #[test]
    fn a_wrong_value_is_not_read() {
        assert_eq!(serde_json::from_str::<Title>("\"a\"").unwrap(), Title::parse("a").unwrap());
        assert_eq!(serde_json::to_string(&Title::parse("a").unwrap()).unwrap(), "\"a\"");
        assert!(serde_json::from_str::<Title>("\" \"").is_err());
        assert!(serde_json::from_str::<Description>("\"a\\u0000\"").is_err());
        assert!(serde_json::from_str::<Tag>("\"a,b\"").is_err());
    }

    #[test]
    fn ranks_leave_room_before_each_other() {
        for rank in ["1", "a", "Zz", "0001", &"z".repeat(64)] {
            assert_eq!(Rank::parse(rank).unwrap().as_str(), rank);
        }
        for wrong in ["", "0", "a0", " a", "a-b", "ä", &"z".repeat(65)] {
            assert!(Rank::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Rank::parse("Z").unwrap() < Rank::parse("a").unwrap());
    }

    #[test]
    fn tags_are_folded() {
        assert_eq!(Tag::parse("  Über ").unwrap().as_str(), "über");
        assert!(Tag::parse("a,b").is_err());
        assert!(Tag::parse(&"x".repeat(51)).is_err());
    }

    #[test]
    fn tags_that_look_the_same_are_the_same() {
        for (one, other) in [
            ("caf\u{e9}", "cafe\u{301}"),
            ("\u{c9}t\u{e9}", "E\u{301}te\u{301}"),
            ("\u{212b}ngstr\u{f6}m", "a\u{30a}ngstro\u{308}m"),
            ("\u{d55c}", "\u{1112}\u{1161}\u{11ab}"),
            ("s\u{323}\u{307}", "s\u{307}\u{323}"),
            ("\u{130}", "I\u{307}"),
        ] {
            let (one, other) = (Tag::parse(one).unwrap(), Tag::parse(other).unwrap());
            assert_eq!(one, other);
            assert!(is_nfc(one.as_str()), "{one:?}");
        }
        assert!(Tag::parse(&"e\u{301}".repeat(50)).is_ok(), "counted as they are kept");
        assert_ne!(Tag::parse("cafe"), Tag::parse("caf\u{e9}"));
    }
}
