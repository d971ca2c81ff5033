use super::query::{Part, Query, Term, is_similar};
use super::tokens::{Token, tokens};

/// Marks of one task at most.
const MARKS_MAX: usize = 20;

/// The texts of a task in which terms are searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    title: Vec<Token>,
    tags: Vec<Vec<Token>>,
    description: Vec<Token>,
}

/// How well a task matches: the best first.
///
/// It is the best field of the query's weakest term. Titles come before tags and these before descriptions, then whole
/// words before prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relevance(
    pub(super) Field,
    /// Found by a prefix.
    pub(super) bool,
);

/// A field of a task that is searched, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The title.
    Title,
    /// Its tags.
    Tags,
    /// The description.
    Description,
}

impl Field {
    pub(super) const ALL: [Self; 3] = [Self::Title, Self::Tags, Self::Description];

    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Tags => "tags",
            Self::Description => "description",
        }
    }
}

impl Relevance {
    /// The best first.
    pub const ALL: [Self; 6] = [
        Self(Field::Title, false),
        Self(Field::Title, true),
        Self(Field::Tags, false),
        Self(Field::Tags, true),
        Self(Field::Description, false),
        Self::WEAKEST,
    ];
    /// Any match has it or a better one.
    pub const WEAKEST: Self = Self(Field::Description, true);

    /// Its index in [`Self::ALL`].
    #[must_use]
    pub fn code(self) -> u8 {
        self.0 as u8 * 2 + u8::from(self.1)
    }
}

/// A range of a field in which a term was found, in code points of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Title or description: tags are not marked.
    pub field: Field,
    /// The first code point.
    pub from: usize,
    /// The one after the last.
    pub to: usize,
}

impl Texts {
    /// Cuts the texts of a task.
    pub fn of<'t>(title: &str, tags: impl IntoIterator<Item = &'t str>, description: Option<&str>) -> Self {
        Self {
            title: tokens(title),
            tags: tags.into_iter().map(tokens).collect(),
            description: description.map(tokens).unwrap_or_default(),
        }
    }

    /// Each of the texts; a phrase does not run on from one to the other.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Field, &[Token])> {
        let tags = self.tags.iter().map(|tag| (Field::Tags, tag.as_slice()));
        std::iter::once((Field::Title, self.title.as_slice()))
            .chain(tags)
            .chain(std::iter::once((Field::Description, self.description.as_slice())))
    }
}

impl Query {
    /// How well the texts match. None: they do not, or nothing in the query can be searched for.
    #[must_use]
    pub fn relevance(&self, texts: &Texts) -> Option<Relevance> {
        let is_found = |term: &Term| term.relevance(texts).is_some();
        if self.is_empty() || self.excluded.iter().any(is_found) {
            return None;
        }
        let best = Relevance(Field::Title, false);
        self.required.iter().try_fold(best, |weakest, term| Some(weakest.max(term.relevance(texts)?)))
    }

    /// Where terms were found, in the order of the texts, the first 20. Ranges that overlap are one.
    #[must_use]
    pub fn marks(&self, texts: &Texts) -> Vec<Mark> {
        let mut marks = Vec::new();
        for (field, text) in [(Field::Title, &texts.title), (Field::Description, &texts.description)] {
            for occurrence in self.required.iter().flat_map(|term| term.occurrences(text)) {
                marks.extend(occurrence.ranges.into_iter().map(|(from, to)| Mark { field, from, to }));
            }
        }
        marks.sort_unstable();
        marks.dedup_by(|next, before| {
            let overlaps = before.field == next.field && next.from < before.to;
            if overlaps {
                before.to = before.to.max(next.to);
            }
            overlaps
        });
        marks.truncate(MARKS_MAX);
        marks
    }
}

/// Where a term stands in a text.
struct Occurrence {
    /// Of the words and runs, those that touch as one.
    ranges: Vec<(usize, usize)>,
    by_prefix: bool,
}

/// Before a token, or within a run before one of its characters.
#[derive(Clone, Copy)]
struct Position {
    token: usize,
    character: usize,
}

/// Where one part of a term stands.
struct FoundPart {
    range: (usize, usize),
    by_prefix: bool,
    end: Position,
}

impl Term {
    fn relevance(&self, texts: &Texts) -> Option<Relevance> {
        let relevances = texts.fields().flat_map(|(field, text)| {
            self.occurrences(text).map(move |occurrence| Relevance(field, occurrence.by_prefix))
        });
        relevances.min()
    }

    fn occurrences(&self, text: &[Token]) -> impl Iterator<Item = Occurrence> {
        positions(text).filter_map(|position| self.at(text, position))
    }

    fn at(&self, text: &[Token], mut position: Position) -> Option<Occurrence> {
        let mut occurrence = Occurrence { ranges: Vec::new(), by_prefix: false };
        for part in &self.parts {
            let FoundPart { range, by_prefix, end } = part.at(text, position)?;
            match occurrence.ranges.last_mut() {
                Some(before) if before.1 == range.0 => before.1 = range.1,
                _ => occurrence.ranges.push(range),
            }
            occurrence.by_prefix |= by_prefix;
            position = end;
        }
        Some(occurrence)
    }
}

/// Each token and each character of a run.
fn positions(text: &[Token]) -> impl Iterator<Item = Position> {
    text.iter().enumerate().flat_map(|(token, of)| {
        let characters = match of {
            Token::Word(_) => 1,
            Token::Run(run) => run.len(),
        };
        (0..characters).map(move |character| Position { token, character })
    })
}

impl Part {
    fn at(&self, text: &[Token], position: Position) -> Option<FoundPart> {
        let next_token = Position { token: position.token + 1, character: 0 };
        match (self, text.get(position.token)?) {
            (Self::Word { folded, is_prefix, is_similar: true }, Token::Word(word)) => {
                let forms = std::iter::once(&word.folded).chain(&word.also);
                let by_prefix = forms.filter_map(|form| is_similar(folded, form, *is_prefix)).min()?;
                Some(FoundPart { range: (word.from, word.to), by_prefix, end: next_token })
            }
            (Self::Word { folded, is_prefix, is_similar: false }, Token::Word(word)) => {
                let has = |is: &dyn Fn(&str) -> bool| is(&word.folded) || word.also.iter().any(|form| is(form));
                let is_whole = has(&|form| form == folded);
                let by_prefix = !is_whole && *is_prefix && has(&|form| form.starts_with(folded.as_str()));
                (is_whole || by_prefix).then_some(FoundPart { range: (word.from, word.to), by_prefix, end: next_token })
            }
            (Self::Run(searched), Token::Run(run)) => {
                let rest = &run[position.character..];
                let found = rest.get(..searched.len())?;
                let is_same = found.iter().map(|character| character.c).eq(searched.iter().copied());
                let range = (found.first()?.from, found.last()?.to);
                let end = Position { token: position.token, character: position.character + searched.len() };
                let end = if rest.len() == searched.len() { next_token } else { end };
                is_same.then_some(FoundPart { range, by_prefix: false, end })
            }
            (Self::Word { .. }, Token::Run(_)) | (Self::Run(_), Token::Word(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(q: &str) -> Query {
        Query::parse(q).unwrap()
    }

    fn finds(q: &str, title: &str) -> bool {
        query(q).relevance(&Texts::of(title, [], None)).is_some()
    }

    #[test]
    fn queries_find() {
        for (q, title) in [
            ("ΟΔΟΣ", "Οδός"),
            ("οδός", "ΟΔΟΣ"),
            ("STRASSE", "Straße"),
            ("straße ", "STRASSE"),
            ("準備", "会議の準備をする"),
            ("gesamtkonzept", "Gesamt\u{ad}konzept"),
            ("🚀", "Start 🚀!"),
            ("lodz", "Łódź"),
            ("istanbul", "İSTANBUL"),
            ("ﾊﾟﾝ", "メロンパン"),
            ("plan", "Planning"),
            ("example", "see www.example.com"),
            ("www.exam", "see www.example.com"),
            ("foo", "_foo_bar"),
            ("my_file ", "my_file.txt"),
            ("o'reilly ", "www.o’reilly.com"),
            ("don’t ", "don't"),
            ("t ", "don't"),
            ("東京2020", "新東京2020年"),
            ("東京20", "東京2020"),
            ("の準 備", "会議の準備"),
            ("\"会議 の準\"", "会議の準備"),
            ("한국", "나는한국에"),
            ("ไทย", "ภาษาไทย"),
            ("👍", "👍🏽 done"),
            ("👩🚀", "👩 and 🚀"),
            ("👩\u{200d}🚀", "👩🏽\u{200d}🚀"),
            ("🇩🇪 ", "🇫🇷🇩🇪"),
            ("\"two words\"", "these two, words!"),
            ("words two", "two words"),
            ("one -two", "one three"),
            ("one -tw", "one two"),
            ("-two", "anything"),
            ("one -\"two three\"", "one three two"),
            ("c++", "C++ for all"),
        ] {
            assert!(finds(q, title), "{q} in {title}");
        }
    }

    #[test]
    fn queries_do_not_find() {
        for (q, title) in [
            ("パン", "ハン"),
            ("はん", "ハン"),
            ("🚀", "Start"),
            ("plan ", "Planning"),
            ("\"plan\"", "Planning"),
            ("plan two", "Planning two"),
            ("lanning", "Planning"),
            ("가", "각"),
            ("и", "й"),
            ("東京2020", "東京の2020"),
            ("東京2020", "2020東京"),
            ("👍🏽", "👍"),
            ("👍🏽 ", "👍🏿"),
            ("👩 ", "👩\u{200d}🚀"),
            ("🇫🇷", "🇩🇪"),
            ("1\u{20e3}", "1"),
            ("\"two words\"", "two other words"),
            ("\"two words\"", "words two"),
            ("one -two", "one two"),
            ("-two", "one Two"),
            ("-準備", "会議の準備をする"),
            ("-\"one two\"", "one two"),
            ("one two", "one"),
            (" ", "one"),
            ("-", "one - two"),
            ("?", "one?"),
        ] {
            assert!(!finds(q, title), "{q} in {title}");
        }
    }

    #[test]
    fn terms_occur_in_any_field_and_phrases_in_one() {
        let texts = Texts::of("one two", ["three four", "five"], Some("six"));
        let is_found = |q: &str| query(q).relevance(&texts).is_some();
        assert!(is_found("one three five six"));
        assert!(is_found("\"three four\" si"));
        for q in ["\"two three\"", "\"four five\"", "\"five six\"", "\"two six\"", "one seven", "one -five"] {
            assert!(!is_found(q), "{q}");
        }
    }

    #[test]
    fn the_weakest_terms_best_field_is_the_relevance() {
        let title = |title: &'static str| Texts::of(title, [], None);
        let tag = |tag: &'static str| Texts::of("-", [tag], None);
        let description = |description: &'static str| Texts::of("-", [], Some(description));
        let relevances =
            [title("plan"), title("planning"), tag("plan"), tag("planned"), description("plan"), description("plans")]
                .map(|texts| query("plan").relevance(&texts).unwrap());
        assert!(relevances.is_sorted() && relevances.windows(2).all(|pair| pair[0] != pair[1]), "{relevances:?}");
        let both = Texts::of("plan trip", ["trips"], Some("trip, planning"));
        assert_eq!(query("plan trip").relevance(&both), Some(relevances[0]));
        assert_eq!(query("trip planni").relevance(&both), Some(relevances[5]));
        assert_eq!(query("-other").relevance(&both), Some(relevances[0]));
    }

    #[test]
    fn matches_are_marked_in_the_original_text() {
        for (q, title, description, expected) in [
            ("plan", "Planning a ﬁne plan", "", "0-8 15-19"),
            ("fine", "Planning a ﬁne plan", "", "11-14"),
            ("cafe one", "Cafe\u{301}: one", "One", "0-5 7-10 d0-3"),
            ("gesamtkonzept", "x Gesamt\u{ad}konzept", "", "2-16"),
            ("準備", "会議の準備を準備する", "", "3-5 6-8"),
            ("準備 備を", "会議の準備を", "", "3-6"),
            ("東京2020", "新東京2020年", "", "1-7"),
            ("\"two words\"", "two words, two", "", "0-3 4-9"),
            ("example", "www.example.com", "", "0-15"),
            ("one -two", "one", "one three", "0-3 d0-3"),
            ("-two", "one", "", ""),
            ("tagged", "one", "", ""),
        ] {
            let texts = Texts::of(title, ["tagged"], Some(description));
            let marks = query(q)
                .marks(&texts)
                .into_iter()
                .map(|Mark { field, from, to }| format!("{}{from}-{to}", if field == Field::Title { "" } else { "d" }));
            assert_eq!(marks.collect::<Vec<_>>().join(" "), expected, "{q} in {title}");
        }
        assert_eq!(query("a").marks(&Texts::of(&"a ".repeat(30), [], None)).len(), MARKS_MAX);
    }
}
