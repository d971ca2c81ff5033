//! What a list is asked for, in one form however it was spelled: that form is the cache's key and what a cursor is
//! bound to.

use access::token::Sealer;
use chrono::DateTime;
use domain::{OwnerId, Priority, Status, Tag, Time, format_time, parse_time};
use http_api::page::{LIMIT_DEFAULT, Limit, encode_onto};
use read_model::search::Rank;
use serde::Deserialize;
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfd};
use uuid::Uuid;

use crate::as_of::AsOf;
use crate::error::ReadError;
use crate::search::Search;

/// What ends the key of a list as of a time that is now.
const AS_OF_NOW: u8 = 5;
/// Tags in one filter at most.
const TAGS_MAX: usize = 50;

/// The query string of a list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    pub status: Option<String>,
    pub priority: Option<String>,
    pub tag: Option<String>,
    pub due_after: Option<String>,
    pub due_before: Option<String>,
    pub overdue: Option<String>,
    pub q: Option<String>,
    pub as_of: Option<String>,
    pub sort: Option<String>,
    #[serde(default)]
    pub limit: Limit,
    pub cursor: Option<String>,
}

/// A list's filters, sort and page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListRequest {
    /// Filters and sort in bytes, the same for equal ones.
    pub binding: Vec<u8>,
    pub filters: Filters,
    /// Now, if not given.
    pub as_of: Option<AsOf>,
    pub sort: Sort,
    pub limit: u16,
    /// Where the page before ended.
    pub after: Option<SortPosition>,
}

/// What tasks must match; empty lists ask for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Codes, sorted, each once.
    pub statuses: Vec<i16>,
    /// Codes, sorted, each once.
    pub priorities: Vec<i16>,
    /// Sorted, each once, as it is kept and as older programs kept it.
    pub tags: Vec<String>,
    /// From then on.
    pub due_after: Option<Time>,
    /// Earlier than then.
    pub due_before: Option<Time>,
    /// Only what is pending or in progress and was due before now.
    pub overdue: bool,
    /// What must be found in the texts.
    pub q: Option<Search>,
}

impl Filters {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same filters at a moment, without `overdue`. `None`: nothing can match.
    pub fn at(&self, now: Time) -> Option<Self> {
        if !self.overdue {
            return Some(self.clone());
        }
        let mut statuses = OPEN.to_vec();
        statuses.retain(|code| self.statuses.is_empty() || self.statuses.contains(code));
        let due_before = Some(self.due_before.map_or(now, |before| before.min(now)));
        (!statuses.is_empty()).then(|| Self { statuses, due_before, overdue: false, ..self.clone() })
    }
}

/// The statuses of a task that can be overdue.
const OPEN: [i16; 2] = [Status::Pending.code(), Status::InProgress.code()];

/// A sort and its direction; ties by id in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    pub by: SortBy,
    pub descending: bool,
}

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    CreatedAt,
    UpdatedAt,
    Priority,
    /// No due date: last in both directions.
    DueAt,
    /// How well `q` is found, then the newest first; ascending alone.
    Relevance,
}

impl SortBy {
    /// Those that an index has.
    pub const INDEXED: [Self; 4] = [Self::CreatedAt, Self::UpdatedAt, Self::Priority, Self::DueAt];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Priority => "priority",
            Self::DueAt => "due_at",
            Self::Relevance => "relevance",
        }
    }
}

/// A position in a sorted list: a task's sort key and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SortPosition {
    /// Microseconds, the priority's code, or [`relevance_key`]; None: no due date.
    pub key: Option<i64>,
    pub id: Uuid,
}

/// The sort key of a task that is found with a rank: ascending, the better rank first, then the newest. [`super::query`]
/// has it in SQL.
pub(crate) fn relevance_key(rank: Rank, created_us: i64) -> i64 {
    // Times of the API lie between -0.07 and 0.26 · 10^18 microseconds.
    i64::from(rank.code()) * 1_000_000_000_000_000_000 + (300_000_000_000_000_000 - created_us)
}

impl SortPosition {
    pub fn to_bytes(self) -> [u8; 25] {
        let mut bytes = [0; 25];
        bytes[0] = u8::from(self.key.is_some());
        bytes[1..9].copy_from_slice(&self.key.unwrap_or_default().to_be_bytes());
        bytes[9..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 25] = bytes.try_into().ok()?;
        let key = i64::from_be_bytes(bytes[1..9].try_into().ok()?);
        // Authenticated, so only what `to_bytes` wrote; a time that cannot be one would still be refused here.
        DateTime::from_timestamp_micros(key)?;
        Some(Self { key: (bytes[0] == 1).then_some(key), id: Uuid::from_slice(&bytes[9..]).ok()? })
    }
}

impl ListRequest {
    /// Reads the parameters of a list.
    ///
    /// # Errors
    /// [`ReadError::Parameter`] names what is not understood; [`ReadError::ForeignCursor`].
    pub fn parse(parameters: Parameters, owner: Uuid, sealer: &Sealer, now: Time) -> Result<Self, ReadError> {
        let Parameters { status, priority, tag, due_after, due_before, overdue, q, as_of, sort, limit, cursor } =
            parameters;
        let status_code = |name: &str| Status::parse(name).map(Status::code);
        let priority_code = |name: &str| Priority::parse(name).map(Priority::code);
        let statuses = status.map(|value| codes("status", &value, Status::ALL, status_code)).transpose()?;
        let priorities = priority.map(|value| codes("priority", &value, Priority::ALL, priority_code)).transpose()?;
        let filters = Filters {
            statuses: statuses.unwrap_or_default(),
            priorities: priorities.unwrap_or_default(),
            tags: tag.map(|value| tags(&value)).transpose()?.unwrap_or_default(),
            due_after: due_after.map(|value| time("due_after", &value)).transpose()?,
            due_before: due_before.map(|value| time("due_before", &value)).transpose()?,
            overdue: overdue.map(|value| only_true("overdue", &value)).transpose()?.is_some(),
            q: q.filter(|value| !value.is_empty()).map(Search::parse).transpose()?,
        };
        let as_of = as_of.map(|value| AsOf::parse(&value, now)).transpose()?;
        let newest_first = Sort { by: SortBy::CreatedAt, descending: true };
        let sort = sort.map_or(Ok(newest_first), |value| parse_sort(&value, filters.q.is_some()))?;
        let binding = binding(&filters, as_of, sort);
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let bytes =
                    sealer.open_cursor(&cursor, OwnerId(owner), &binding).map_err(|_| ReadError::ForeignCursor)?;
                Some(SortPosition::from_bytes(&bytes).ok_or(ReadError::ForeignCursor)?)
            }
        };
        Ok(Self { binding, filters, as_of, sort, limit: limit.get(), after })
    }

    /// The first page of everything.
    pub fn first_page(sort: Sort) -> Self {
        let filters = Filters::default();
        Self { binding: binding(&filters, None, sort), filters, as_of: None, sort, limit: LIMIT_DEFAULT, after: None }
    }

    /// The tasks that match `q` best.
    pub fn most_relevant(q: Search, limit: u16) -> Self {
        let filters = Filters { q: Some(q), ..Filters::default() };
        let sort = Sort { by: SortBy::Relevance, descending: false };
        Self { binding: binding(&filters, None, sort), filters, as_of: None, sort, limit, after: None }
    }

    /// The whole request in bytes, the same for equal ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.binding.len() + 28);
        key.push(b'L');
        key.extend_from_slice(&self.limit.to_be_bytes());
        if let Some(after) = self.after {
            key.extend_from_slice(&after.to_bytes());
        }
        // Its first byte tells it from a position's.
        key.extend_from_slice(&self.binding);
        // What has happened by now is not what had happened by then.
        if self.as_of.is_some_and(|as_of| as_of.now.is_some()) {
            key.push(AS_OF_NOW);
        }
        key
    }

    /// The same list's page that begins at `cursor`, relative to the host.
    pub fn link(&self, cursor: &str) -> String {
        let mut link = String::from("/api/v1/tasks?");
        let mut push = |name: &str, values: &mut dyn Iterator<Item = String>| {
            for (n, value) in values.enumerate() {
                if n == 0 {
                    link.push_str(name);
                    link.push('=');
                } else {
                    link.push(',');
                }
                encode_onto(&mut link, &value);
            }
            if !link.ends_with(['?', '&']) {
                link.push('&');
            }
        };
        let Filters { statuses, priorities, tags, due_after, due_before, overdue, q } = &self.filters;
        let named = |code: &i16, names: &[&str]| {
            usize::try_from(*code).ok().and_then(|at| names.get(at)).map(|n| (*n).to_owned())
        };
        push("status", &mut statuses.iter().filter_map(|code| named(code, &STATUSES)));
        push("priority", &mut priorities.iter().filter_map(|code| named(code, &PRIORITIES)));
        push("tag", &mut tags.iter().filter(|tag| is_nfc(tag)).cloned());
        push("due_after", &mut due_after.iter().map(|time| format_time(*time)));
        push("due_before", &mut due_before.iter().map(|time| format_time(*time)));
        push("overdue", &mut overdue.then(|| "true".to_owned()).into_iter());
        push("q", &mut q.iter().map(|q| q.text.clone()));
        push("as_of", &mut self.as_of.iter().map(|as_of| format_time(as_of.at)));
        let sign = if self.sort.descending { "-" } else { "" };
        push("sort", &mut std::iter::once(format!("{sign}{}", self.sort.by.as_str())));
        push("limit", &mut std::iter::once(self.limit.to_string()));
        push("cursor", &mut std::iter::once(cursor.to_owned()));
        link.pop();
        link
    }
}

const STATUSES: [&str; 4] =
    [Status::Pending.as_str(), Status::InProgress.as_str(), Status::Completed.as_str(), Status::Cancelled.as_str()];
const PRIORITIES: [&str; 4] =
    [Priority::Low.as_str(), Priority::Medium.as_str(), Priority::High.as_str(), Priority::Urgent.as_str()];

fn codes<T>(
    name: &str,
    value: &str,
    all: &[T],
    code: impl Fn(&str) -> Result<i16, domain::Invalid>,
) -> Result<Vec<i16>, ReadError> {
    let mut codes = Vec::new();
    for word in value.split(',') {
        codes.push(code(word).map_err(|invalid| ReadError::parameter(name, invalid))?);
    }
    codes.sort_unstable();
    codes.dedup();
    // All of them is no filter.
    if codes.len() == all.len() {
        codes.clear();
    }
    Ok(codes)
}

fn tags(value: &str) -> Result<Vec<String>, ReadError> {
    let mut tags = Vec::new();
    for word in value.split(',') {
        let tag = Tag::parse(word).map_err(|invalid| ReadError::parameter("tag", invalid))?;
        tags.push(tag.as_str().to_owned());
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(ReadError::Parameter(format!("tag must name at most {TAGS_MAX} tags")));
    }
    // Rows that an older program wrote hold tags as they were typed, until the next rebuild: mostly like this.
    let decomposed: Vec<String> = tags.iter().filter(|tag| !is_nfd(tag)).map(|tag| tag.nfd().collect()).collect();
    tags.extend(decomposed);
    tags.sort_unstable();
    Ok(tags)
}

/// A flag of a query that can only be set.
fn only_true(name: &str, value: &str) -> Result<(), ReadError> {
    if value == "true" { Ok(()) } else { Err(ReadError::parameter(name, "must be true")) }
}

/// A time of a query.
pub(crate) fn time(name: &str, value: &str) -> Result<Time, ReadError> {
    parse_time(value).map_err(|invalid| ReadError::parameter(name, invalid))
}

fn parse_sort(value: &str, by_q: bool) -> Result<Sort, ReadError> {
    let (descending, field) = value.strip_prefix('-').map_or((false, value), |field| (true, field));
    if field == SortBy::Relevance.as_str() {
        return match (by_q, descending) {
            (true, false) => Ok(Sort { by: SortBy::Relevance, descending }),
            (true, true) => Err(ReadError::parameter("sort", "by relevance has the best first; -relevance is none")),
            (false, _) => Err(ReadError::parameter("sort", "by relevance needs a q")),
        };
    }
    let by = SortBy::INDEXED.into_iter().find(|by| by.as_str() == field);
    let by = by.ok_or_else(|| {
        ReadError::parameter(
            "sort",
            "must be one of created_at, due_at, priority, updated_at, with - before it for descending, or relevance",
        )
    })?;
    Ok(Sort { by, descending })
}

fn binding(filters: &Filters, as_of: Option<AsOf>, sort: Sort) -> Vec<u8> {
    let Filters { statuses, priorities, tags, due_after, due_before, overdue, q } = filters;
    let mask = |codes: &[i16]| codes.iter().fold(0_u8, |mask, code| mask | 1 << (code & 7));
    let mut bytes = vec![b'b', sort.by as u8, u8::from(sort.descending), mask(statuses), mask(priorities)];
    for time in [due_after, due_before] {
        bytes.extend_from_slice(&time.map_or(i64::MIN, |time| time.timestamp_micros()).to_be_bytes());
    }
    // No tag has a control character.
    for tag in tags {
        bytes.push(1);
        bytes.extend_from_slice(tag.as_bytes());
    }
    if *overdue {
        bytes.push(3);
    }
    if let Some(as_of) = as_of {
        bytes.push(4);
        bytes.extend_from_slice(&as_of.at.timestamp_micros().to_be_bytes());
    }
    if let Some(q) = q {
        bytes.push(6);
        bytes.extend_from_slice(&q.text.len().to_be_bytes());
        bytes.extend_from_slice(q.text.as_bytes());
    }
    bytes
}
