//! The texts of many tasks in memory, by which a [`Query`] is answered as [`Query::relevance`] answers it for one task.
//!
//! Each word, and each character of a run, has a number, the tasks that have it, and where it occurs in them. A word is found by
//! the former alone; where parts must be neighbours, the numbers of a task's texts are gone through in their order.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::matching::{Field, Relevance, Texts};
use super::query::{Part, Query, Term, is_similar};
use super::tokens::{Token, Word};

/// Bytes of a word beside its text, on the 64-bit machines that there are: in both maps, and its list of tasks.
const WORD_BYTES: usize = 160;
/// Bytes of a number in the order of the texts, and of the field that goes with it.
const TOKEN_BYTES: usize = 12;
/// Before the tokens of a title.
const TITLE: u32 = 0;
/// Before the tokens of each tag.
const TAG: u32 = 1;
/// Before the tokens of a description.
const DESCRIPTION: u32 = 2;
/// Between two runs.
const RUN_END: u32 = 3;
const TOKENS_FROM: u32 = 4;

/// The texts of tasks, numbered from 0 in the order in which they were added.
#[derive(Debug, Default)]
pub struct TextIndex {
    /// The tokens of all texts by their numbers, one task after the other.
    tokens: Vec<u32>,
    /// Where a task's tokens begin.
    starts: Vec<usize>,
    /// False: removed.
    present: Vec<bool>,
    /// Words by all of their forms, NUL between.
    words: HashMap<Box<str>, u32>,
    characters: HashMap<char, u32>,
    /// Each form of each word.
    forms: BTreeSet<(Box<str>, u32)>,
    /// Where a token stands: task and field, ascending. By the token's number, from [`TOKENS_FROM`] on.
    postings: Vec<Vec<Posting>>,
    text_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Posting(u32);

impl Posting {
    fn new(task: usize, field: Field) -> Self {
        Self(u32::try_from(task).unwrap_or(u32::MAX) << 2 | field as u32)
    }

    fn task(self) -> usize {
        (self.0 >> 2) as usize
    }

    fn field(self) -> Field {
        Field::ALL[(self.0 & 3) as usize]
    }
}

/// How well each task matches, by its number.
#[derive(Debug)]
pub struct Relevances(Vec<u8>);

impl Relevances {
    const NONE: u8 = u8::MAX;

    /// `None`: it does not match.
    #[must_use]
    pub fn get(&self, task: u32) -> Option<Relevance> {
        self.0.get(task as usize).and_then(|code| Relevance::ALL.get(usize::from(*code)).copied())
    }

    fn improve(&mut self, task: usize, field: Field, by_prefix: bool) {
        let code = Relevance(field, by_prefix).code();
        self.0[task] = self.0[task].min(code);
    }
}

/// What one token of a text must be.
struct Element {
    /// Numbers, ascending.
    whole: Vec<u32>,
    /// Those that are found by a prefix alone, ascending.
    prefixed: Vec<u32>,
    /// Otherwise the character before it must be of the same run.
    begins_part: bool,
}

impl TextIndex {
    /// Adds the texts of a task, and returns their number.
    pub fn add<'t>(&mut self, title: &str, tags: impl IntoIterator<Item = &'t str>, description: Option<&str>) -> u32 {
        let texts = Texts::of(title, tags, description);
        let task = self.starts.len();
        self.starts.push(self.tokens.len());
        self.present.push(true);
        for (field, text) in texts.fields() {
            self.tokens.push(match field {
                Field::Title => TITLE,
                Field::Tags => TAG,
                Field::Description => DESCRIPTION,
            });
            let mut after_run = false;
            for token in text {
                match token {
                    Token::Word(word) => {
                        let token = self.word(word);
                        self.push(token, task, field);
                    }
                    Token::Run(run) => {
                        if after_run {
                            self.tokens.push(RUN_END);
                        }
                        for character in run {
                            let token = self.character(character.c);
                            self.push(token, task, field);
                        }
                    }
                }
                after_run = matches!(token, Token::Run(_));
            }
        }
        u32::try_from(task).unwrap_or(u32::MAX)
    }

    /// The task is found no longer. Its texts stay in memory.
    pub fn remove(&mut self, task: u32) {
        if let Some(present) = self.present.get_mut(task as usize) {
            *present = false;
        }
    }

    /// How many texts were added, the removed ones among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.postings.len() * WORD_BYTES + self.tokens.len() * TOKEN_BYTES + self.starts.len() * 9
    }

    fn push(&mut self, token: u32, task: usize, field: Field) {
        self.tokens.push(token);
        let posting = Posting::new(task, field);
        let postings = &mut self.postings[(token - TOKENS_FROM) as usize];
        if postings.last() != Some(&posting) {
            postings.push(posting);
        }
    }

    fn word(&mut self, word: &Word) -> u32 {
        let joined;
        let key = if word.also.is_empty() {
            word.folded.as_str()
        } else {
            joined = format!("{}\0{}", word.folded, word.also.join("\0"));
            &joined
        };
        if let Some(token) = self.words.get(key) {
            return *token;
        }
        let token = self.new_token();
        self.text_bytes += 2 * key.len();
        self.words.insert(key.into(), token);
        for form in std::iter::once(&word.folded).chain(&word.also) {
            self.forms.insert((form.as_str().into(), token));
        }
        token
    }

    fn character(&mut self, c: char) -> u32 {
        if let Some(token) = self.characters.get(&c) {
            return *token;
        }
        let token = self.new_token();
        self.characters.insert(c, token);
        token
    }

    fn new_token(&mut self) -> u32 {
        self.postings.push(Vec::new());
        TOKENS_FROM + u32::try_from(self.postings.len() - 1).unwrap_or(u32::MAX - TOKENS_FROM)
    }
}

impl TextIndex {
    /// How well each task matches.
    #[must_use]
    pub fn relevances(&self, query: &Query) -> Relevances {
        let nothing = || Relevances(vec![Relevances::NONE; self.len()]);
        if query.is_empty() {
            return nothing();
        }
        let mut relevances =
            Relevances(self.present.iter().map(|present| if *present { 0 } else { Relevances::NONE }).collect());
        let mut of_term = nothing();
        for term in &query.required {
            of_term.0.fill(Relevances::NONE);
            self.find(term, &mut of_term);
            for (relevance, of_term) in relevances.0.iter_mut().zip(&of_term.0) {
                *relevance = (*relevance).max(*of_term);
            }
        }
        for term in &query.excluded {
            of_term.0.fill(Relevances::NONE);
            self.find(term, &mut of_term);
            for (relevance, of_term) in relevances.0.iter_mut().zip(&of_term.0) {
                if *of_term != Relevances::NONE {
                    *relevance = Relevances::NONE;
                }
            }
        }
        relevances
    }

    /// The query, with every term that no task has, not even as a prefix, tolerating a typing mistake if it is long enough.
    #[must_use]
    pub fn tolerating(&self, query: &Query) -> Query {
        let mut query = query.clone();
        for term in &mut query.required {
            if term.long_word().is_some_and(|word| !self.has(word)) {
                term.tolerate();
            }
        }
        query
    }

    /// Whether a task has a word that begins like this.
    fn has(&self, prefix: &str) -> bool {
        self.with_prefix(prefix)
            .any(|(_, token)| self.postings(*token).iter().any(|posting| self.present[posting.task()]))
    }

    fn find(&self, term: &Term, found: &mut Relevances) {
        let elements: Vec<Element> = term.parts.iter().flat_map(|part| self.elements(part)).collect();
        if let [element] = elements.as_slice() {
            for (tokens, by_prefix) in [(&element.whole, false), (&element.prefixed, true)] {
                for posting in tokens.iter().flat_map(|token| self.postings(*token)) {
                    found.improve(posting.task(), posting.field(), by_prefix);
                }
            }
            return;
        }
        let count = |element: &&Element| element.tokens().map(|token| self.postings(token).len()).sum::<usize>();
        let Some(rarest) = elements.iter().min_by_key(count) else { return };
        let mut candidates: Vec<Posting> = rarest.tokens().flat_map(|token| self.postings(token)).copied().collect();
        candidates.sort_unstable();
        // Most of those that do not have the others too are told by the postings, without their texts.
        for other in elements.iter().filter_map(Element::only) {
            let mut others = self.postings(other).iter().peekable();
            candidates.retain(|candidate| {
                while others.next_if(|posting| *posting < candidate).is_some() {}
                others.peek() == Some(&candidate)
            });
        }
        let mut tasks: Vec<usize> = candidates.into_iter().map(Posting::task).collect();
        tasks.dedup();
        for task in tasks {
            self.find_neighbours(&elements, task, found);
        }
    }

    fn find_neighbours(&self, elements: &[Element], task: usize, found: &mut Relevances) {
        let end = self.starts.get(task + 1).copied().unwrap_or(self.tokens.len());
        let tokens = &self.tokens[self.starts[task]..end];
        let Some(first) = elements.first() else { return };
        let mut field = Field::Title;
        for (at, token) in tokens.iter().enumerate() {
            match *token {
                TITLE => field = Field::Title,
                TAG => field = Field::Tags,
                DESCRIPTION => field = Field::Description,
                RUN_END => {}
                // Most tokens are told here.
                token if first.by_prefix(token).is_none() => {}
                _ => {
                    if let Some(by_prefix) = stand_at(elements, &tokens[at..]) {
                        found.improve(task, field, by_prefix);
                    }
                }
            }
        }
    }

    fn elements(&self, part: &Part) -> Vec<Element> {
        match part {
            Part::Word { folded, is_prefix, is_similar: similar } => {
                let (mut whole, mut prefixed) = (Vec::new(), Vec::new());
                if *similar {
                    for (form, token) in &self.forms {
                        if let Some(is_longer) = is_similar(folded, form, *is_prefix) {
                            if is_longer { prefixed.push(*token) } else { whole.push(*token) }
                        }
                    }
                } else {
                    for (form, token) in self.with_prefix(folded) {
                        if form.len() == folded.len() {
                            whole.push(*token);
                        } else if *is_prefix {
                            prefixed.push(*token);
                        } else {
                            break;
                        }
                    }
                }
                for tokens in [&mut whole, &mut prefixed] {
                    tokens.sort_unstable();
                    tokens.dedup();
                }
                vec![Element { whole, prefixed, begins_part: true }]
            }
            Part::Run(run) => {
                let element = |(at, c)| Element {
                    whole: self.characters.get(c).copied().into_iter().collect(),
                    prefixed: Vec::new(),
                    begins_part: at == 0,
                };
                run.iter().enumerate().map(element).collect()
            }
        }
    }

    /// The forms that begin like this, in order.
    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = &(Box<str>, u32)> {
        let from = (Box::<str>::from(prefix), 0);
        self.forms
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(form, _)| form.starts_with(prefix))
    }

    fn postings(&self, token: u32) -> &[Posting] {
        &self.postings[(token - TOKENS_FROM) as usize]
    }
}

impl Element {
    fn tokens(&self) -> impl Iterator<Item = u32> {
        self.whole.iter().chain(&self.prefixed).copied()
    }

    /// `None`: it may be one of several, or nobody has it.
    fn only(&self) -> Option<u32> {
        match (self.whole.as_slice(), self.prefixed.as_slice()) {
            ([only], []) => Some(*only),
            _ => None,
        }
    }

    /// Whether the token is one that is found by a prefix alone. `None`: it is none of them.
    fn by_prefix(&self, token: u32) -> Option<bool> {
        let has = |tokens: &[u32]| match tokens {
            [only] => *only == token,
            tokens => tokens.binary_search(&token).is_ok(),
        };
        if has(&self.whole) { Some(false) } else { has(&self.prefixed).then_some(true) }
    }
}

/// Whether the elements stand at the beginning of the tokens, one after the other, and whether one only by a prefix.
fn stand_at(elements: &[Element], tokens: &[u32]) -> Option<bool> {
    let mut tokens = tokens.iter().copied().peekable();
    let mut is_by_prefix = false;
    for element in elements {
        if element.begins_part {
            tokens.next_if_eq(&RUN_END);
        }
        let token = tokens.next()?;
        is_by_prefix |= element.by_prefix(token)?;
    }
    Some(is_by_prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Task {
        title: String,
        tags: Vec<String>,
        description: Option<String>,
    }

    fn add(index: &mut TextIndex, task: &Task) -> u32 {
        index.add(&task.title, task.tags.iter().map(String::as_str), task.description.as_deref())
    }

    /// Few words, so that some are found.
    fn text() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "plan", "planning", "trip", "a.b", "b", "会議", "議会", "会", "の", "2020", "👍🏽", "👍", "don't", "t",
            "ΟΔΟΣ",
        ]);
        let gap = prop::sample::select(vec![" ", ", ", "", "-", "\u{ad}"]);
        prop::collection::vec((word, gap), 0..6)
            .prop_map(|parts| parts.into_iter().flat_map(|(word, gap)| [word, gap]).collect::<String>())
    }

    fn task() -> impl Strategy<Value = Task> {
        (text(), prop::collection::vec(text(), 0..3), prop::option::of(text()))
            .prop_map(|(title, tags, description)| Task { title, tags, description })
    }

    fn q() -> impl Strategy<Value = String> {
        let term = (prop::sample::select(vec!["", "-"]), prop::bool::ANY, text());
        let term = term.prop_map(
            |(sign, quoted, text)| if quoted { format!("{sign}\"{text}\"") } else { format!("{sign}{text}") },
        );
        prop::collection::vec(term, 1..3).prop_map(|terms| terms.join(" "))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn it_ranks_as_the_text_rules_do(tasks in prop::collection::vec(task(), 1..5), q in q(), removed in prop::bool::ANY) {
            let Ok(query) = Query::parse(&q) else { return Ok(()) };
            let mut index = TextIndex::default();
            for task in &tasks {
                add(&mut index, task);
            }
            if removed {
                index.remove(0);
            }
            let relevances = index.relevances(&query);
            for (number, task) in (0_u32..).zip(&tasks) {
                let texts = Texts::of(&task.title, task.tags.iter().map(String::as_str), task.description.as_deref());
                let expected = query.relevance(&texts).filter(|_| !(removed && number == 0));
                prop_assert_eq!(relevances.get(number), expected, "{} in {:?}", q, task);
            }
        }
    }

    #[test]
    fn a_term_that_no_task_has_may_have_a_mistake() {
        let titles = ["Planning", "quarterly report", "Plan B", "kitchens"];
        let mut index = TextIndex::default();
        for title in titles {
            index.add(title, [], None);
        }
        let found = |q: &str| {
            let query = index.tolerating(&Query::parse(q).unwrap());
            let relevances = index.relevances(&query);
            let found: Vec<&str> = (0_u32..)
                .zip(titles)
                .filter(|(task, _)| relevances.get(*task).is_some())
                .map(|(_, title)| title)
                .collect();
            for (number, title) in (0_u32..).zip(titles) {
                assert_eq!(relevances.get(number), query.relevance(&Texts::of(title, [], None)), "{q} in {title}");
            }
            found.join("|")
        };
        for (q, expected) in [
            ("planing ", "Planning"),
            ("plannning ", "Planning"),
            ("plamning ", "Planning"),
            ("plannign ", "Planning"),
            ("lpanning ", "Planning"),
            ("palnning report", ""),
            ("qaurterly report", "quarterly report"),
            ("quartrely rep", "quarterly report"),
            ("quatrer", "quarterly report"),
            ("plna", ""),
            ("plaxxing ", ""),
            ("planni", "Planning"),
            ("plann ", ""),
            ("kitchen ", ""),
            ("\"planing\"", "Planning"),
            ("\"planing b\"", ""),
        ] {
            assert_eq!(found(q), expected, "{q}");
        }
    }

    #[test]
    fn texts_that_are_removed_are_not_what_tasks_have() {
        let mut index = TextIndex::default();
        let old = index.add("planing", [], None);
        index.add("planning", [], None);
        let query = Query::parse("planing ").unwrap();
        assert_eq!(index.relevances(&index.tolerating(&query)).get(1), None);
        index.remove(old);
        assert!(index.relevances(&index.tolerating(&query)).get(1).is_some());
    }
}
