use super::tokens::{Token, tokens};

/// Code points of `q`.
pub const CHARACTERS_MAX: usize = 200;
/// Terms of `q`; a phrase counts as one.
pub const TERMS_MAX: usize = 16;

/// Letters from which on a term may have a typing mistake.
const SIMILAR_LETTERS_MIN: usize = 5;

/// What `q` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// As it was sent.
    text: String,
    /// All of them must occur.
    pub(super) required: Vec<Term>,
    /// None of them may occur.
    pub(super) excluded: Vec<Term>,
}

/// Parts that must be neighbours: a word or run alone, a run that is cut where the script class changes, or a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Folded.
    Word {
        folded: String,
        is_prefix: bool,
        /// It may have a typing mistake ([`is_similar`]).
        is_similar: bool,
    },
    Run(Vec<char>),
}

/// Why `q` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It has a NUL.
    #[error("must not contain NUL")]
    Nul,
    /// Over [`CHARACTERS_MAX`].
    #[error("must have at most {CHARACTERS_MAX} characters")]
    TooLong,
    /// Over [`TERMS_MAX`].
    #[error("must have at most {TERMS_MAX} terms")]
    TooManyTerms,
}

impl Query {
    /// Reads `q`.
    ///
    /// # Errors
    /// It has a NUL, is too long, or has too many terms.
    pub fn parse(q: &str) -> Result<Self, QueryError> {
        if q.contains('\0') {
            return Err(QueryError::Nul);
        }
        if q.chars().count() > CHARACTERS_MAX {
            return Err(QueryError::TooLong);
        }
        let mut query = Self { text: q.to_owned(), required: Vec::new(), excluded: Vec::new() };
        let mut ends_with_prefix = false;
        for element in (Elements { rest: q, is_after_space: true }) {
            let tokens = tokens(element.text);
            if tokens.is_empty() {
                continue;
            }
            if element.is_excluded {
                query.excluded.push(Term::of(&tokens));
            } else if element.is_phrase {
                query.required.push(Term::of(&tokens));
            } else {
                query.required.extend(tokens.chunk_by(are_one_term).map(Term::of));
            }
            ends_with_prefix = !element.is_excluded && !element.is_phrase;
        }
        if query.required.len() + query.excluded.len() > TERMS_MAX {
            return Err(QueryError::TooManyTerms);
        }
        if ends_with_prefix
            && !q.ends_with(char::is_whitespace)
            && let Some(Part::Word { is_prefix, .. }) = query.required.last_mut().and_then(|term| term.parts.last_mut())
        {
            *is_prefix = true;
        }
        Ok(query)
    }

    /// As it was sent.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing in it can be searched for. It matches no task.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.excluded.is_empty()
    }

    /// Whether a term is long enough to have a typing mistake.
    #[must_use]
    pub fn may_have_mistakes(&self) -> bool {
        self.required.iter().any(|term| term.long_word().is_some())
    }
}

/// What stands in quotes, or up to the next space or quote.
struct Element<'q> {
    text: &'q str,
    is_excluded: bool,
    is_phrase: bool,
}

struct Elements<'q> {
    rest: &'q str,
    /// Or at the start of `q`.
    is_after_space: bool,
}

impl<'q> Iterator for Elements<'q> {
    type Item = Element<'q>;

    fn next(&mut self) -> Option<Element<'q>> {
        let trimmed = self.rest.trim_start();
        let is_after_space = self.is_after_space || trimmed.len() < self.rest.len();
        let excluded = trimmed.strip_prefix('-').filter(|_| is_after_space);
        let rest = excluded.unwrap_or(trimmed);
        let is_excluded = excluded.is_some();
        self.is_after_space = false;
        if trimmed.is_empty() {
            return None;
        }
        if let Some(phrase) = rest.strip_prefix('"') {
            let (text, rest) = phrase.split_once('"').unwrap_or((phrase, ""));
            self.rest = rest;
            return Some(Element { text, is_excluded, is_phrase: true });
        }
        let end = rest.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (text, rest) = rest.split_at(end);
        self.rest = rest;
        Some(Element { text, is_excluded, is_phrase: false })
    }
}

/// Whether nothing stands between two neighbours, of which one is a run.
fn are_one_term(one: &Token, next: &Token) -> bool {
    let is_run = |token: &Token| matches!(token, Token::Run(_));
    one.to() == next.from() && (is_run(one) || is_run(next))
}

impl Term {
    fn of(tokens: &[Token]) -> Self {
        let part = |token: &Token| match token {
            Token::Word(word) => Part::Word { folded: word.folded.clone(), is_prefix: false, is_similar: false },
            Token::Run(run) => Part::Run(run.iter().map(|character| character.c).collect()),
        };
        Self { parts: tokens.iter().map(part).collect() }
    }

    /// The word that it is alone, if that is long enough to have a typing mistake.
    pub fn long_word(&self) -> Option<&str> {
        let [Part::Word { folded, .. }] = self.parts.as_slice() else { return None };
        let letters = folded.chars().filter(|c| c.is_alphabetic()).count();
        (letters >= SIMILAR_LETTERS_MIN).then_some(folded)
    }

    /// From now on it may have a mistake.
    pub fn tolerate(&mut self) {
        for part in &mut self.parts {
            if let Part::Word { is_similar, .. } = part {
                *is_similar = true;
            }
        }
    }
}

/// Whether the form differs from the term by one letter that is missing, more or other, or by two neighbours that are
/// swapped; or, where the term is a prefix, begins with what differs so: then it is longer (`Some(true)`).
pub(super) fn is_similar(term: &str, form: &str, is_prefix: bool) -> Option<bool> {
    let equal: usize = term.chars().zip(form.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let (mut term, mut form) = (term[equal..].chars(), form[equal..].chars());
    let (term_rest, form_rest) = (term.as_str(), form.as_str());
    let (of_term, of_form) = (term.next(), form.next());
    let (term_after, form_after) = (term.as_str(), form.as_str());
    let is_swapped = of_term.is_some() && of_term == form.next() && of_form == term.next();
    let rests = [
        Some((term_rest, form_after)),
        Some((term_after, form_rest)),
        Some((term_after, form_after)),
        is_swapped.then_some((term.as_str(), form.as_str())),
    ];
    let rests = || rests.into_iter().flatten();
    if rests().any(|(term, form)| term == form) {
        return Some(false);
    }
    (is_prefix && rests().any(|(term, form)| form.starts_with(term))).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms in the order required, excluded; a prefix with `*`, a run in brackets, neighbours joined by `+`.
    fn shown(q: &str) -> String {
        let part = |part: &Part| match part {
            Part::Word { folded, is_prefix, .. } => format!("{folded}{}", if *is_prefix { "*" } else { "" }),
            Part::Run(run) => format!("[{}]", run.iter().collect::<String>()),
        };
        let term = |term: &Term| term.parts.iter().map(part).collect::<Vec<_>>().join("+");
        let query = Query::parse(q).unwrap();
        let required = query.required.iter().map(term);
        required
            .chain(query.excluded.iter().map(|excluded| format!("-{}", term(excluded))))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn q_is_read() {
        for (q, expected) in [
            ("one two", "one two*"),
            ("One TWO ", "one two"),
            ("one,two!", "one two*"),
            (r#"one "two three""#, "one two+three"),
            (r#""two three" one"#, "two+three one*"),
            (r#"one "two thr"#, "one two+thr"),
            (r#"one"two three"four"#, "one two+three four*"),
            (r#""one" -two"#, "one -two"),
            (r#""one"-two"#, "one two*"),
            ("one -two", "one -two"),
            ("-one", "-one"),
            ("  -one", "-one"),
            (r#"-"one two" three"#, "three* -one+two"),
            (r#"-"one two"#, "-one+two"),
            ("-one-two", "-one+two"),
            ("one-two", "one two*"),
            ("one -", "one*"),
            ("- one", "one*"),
            ("--one", "-one"),
            ("-", ""),
            (" ", ""),
            (r#"" "#, ""),
            ("?!… - \"\"", ""),
            ("東京2020", "[東京]+2020*"),
            ("2020年 会議", "2020+[年] [会議]"),
            ("東京 2020", "[東京] 2020*"),
            ("東京-2020", "[東京] 2020*"),
            ("\"東京 2020\"", "[東京]+2020"),
            ("c++", "c + +*"),
            ("🚀", "🚀*"),
            ("a.b", "a.b*"),
            ("one\u{3000}two\u{a0}", "one two"),
        ] {
            assert_eq!(shown(q), expected, "{q}");
        }
    }

    #[test]
    fn a_term_may_have_one_mistake() {
        for (term, form, is_prefix, expected) in [
            ("plan", "plan", false, Some(false)),
            ("plans", "plan", false, Some(false)),
            ("plan", "plans", false, Some(false)),
            ("plan", "xplan", false, Some(false)),
            ("plän", "plon", false, Some(false)),
            ("pnal", "plan", false, None),
            ("paln", "plan", false, Some(false)),
            ("lpan", "plan", false, Some(false)),
            ("plna", "plan", false, Some(false)),
            ("plna", "planes", false, None),
            ("plna", "planes", true, Some(true)),
            ("plaet", "planets", true, Some(true)),
            ("plxx", "plan", true, None),
            ("plan", "pl", true, None),
        ] {
            assert_eq!(is_similar(term, form, is_prefix), expected, "{term} and {form}");
        }
    }

    #[test]
    fn q_has_limits() {
        let terms = |count: usize| vec!["a"; count].join(" ");
        assert!(Query::parse(&terms(TERMS_MAX)).is_ok());
        assert_eq!(Query::parse(&terms(TERMS_MAX + 1)), Err(QueryError::TooManyTerms));
        assert!(Query::parse(&"ä".repeat(CHARACTERS_MAX)).is_ok());
        assert_eq!(Query::parse(&"ä".repeat(CHARACTERS_MAX + 1)), Err(QueryError::TooLong));
        assert!(Query::parse(&"- ".repeat(CHARACTERS_MAX / 2)).unwrap().is_empty());
    }
}
