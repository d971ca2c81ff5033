//! What a list is asked for, in one form however it was spelled: that form is the cache's key and what a cursor is
//! bound to.

use access::token::Sealer;
use chrono::DateTime;
use domain::{Priority, Status, Time, format_time};
use http_api::page::{LIMIT_DEFAULT, Limit, encode_onto};
use read_model::TaskFilters;
use read_model::search::{Query, Relevance};
use serde::Deserialize;
use unicode_normalization::is_nfc;
use uuid::Uuid;

use crate::as_of::AsOf;
use crate::error::ReadError;
use crate::page::Pages;

/// What ends the key of a list as of a time that is now.
const AS_OF_NOW: u8 = 5;

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
    pub filters: TaskFilters,
    /// Now, if not given.
    pub as_of: Option<AsOf>,
    pub sort: Sort,
    pub limit: u16,
    /// Where the page before ended.
    pub after: Option<SortPosition>,
}

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
    /// As it is compared: [`title_key`](read_model::search::title_key).
    Title,
    /// By bytes; none: last in both directions.
    Rank,
    /// How well `q` is found, then the newest first; ascending alone.
    Relevance,
}

impl SortBy {
    /// Those with two directions.
    pub const DIRECTED: [Self; 6] =
        [Self::CreatedAt, Self::UpdatedAt, Self::Priority, Self::DueAt, Self::Title, Self::Rank];

    /// Whether an index has the tasks in this order. Each costs every create an entry, and every change of its column a new
    /// entry in all of them.
    pub fn is_indexed(self) -> bool {
        self == Self::CreatedAt
    }

    /// Whether its keys are texts.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Title | Self::Rank)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Priority => "priority",
            Self::DueAt => "due_at",
            Self::Title => "title",
            Self::Rank => "rank",
            Self::Relevance => "relevance",
        }
    }
}

/// A position in a sorted list: a task's sort key and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortPosition {
    /// None: no due date, or no rank.
    pub key: Option<SortKey>,
    pub id: Uuid,
}

/// What tasks are sorted by, of one of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SortKey {
    /// Microseconds, the priority's code, or [`relevance_key`].
    Number(i64),
    /// A title as it is compared, or a rank.
    Text(String),
}

/// The sort key of a task that is found: ascending, the most relevant first, then the newest. [`super::query`] has it in
/// SQL.
pub(crate) fn relevance_key(relevance: Relevance, created_us: i64) -> i64 {
    // Times of the API lie between -0.07 and 0.26 · 10^18 microseconds.
    i64::from(relevance.code()) * 1_000_000_000_000_000_000 + (300_000_000_000_000_000 - created_us)
}

impl SortPosition {
    /// What kind of key there is, the key (of a text its length and the text: nothing that follows can be taken for a part
    /// of it), the id.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, number, text) = match &self.key {
            None => (0, 0, ""),
            Some(SortKey::Number(number)) => (1, *number, ""),
            Some(SortKey::Text(text)) => (2, i64::try_from(text.len()).unwrap_or(i64::MAX), text.as_str()),
        };
        [&[kind], number.to_be_bytes().as_slice(), text.as_bytes(), self.id.as_bytes()].concat()
    }

    /// Authenticated, so only what `to_bytes` wrote; what cannot be one is still refused here.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (text, id) = rest.split_last_chunk()?;
        let number = i64::from_be_bytes(*number);
        let key = match kind {
            0 if text.is_empty() => None,
            1 if text.is_empty() => {
                DateTime::from_timestamp_micros(number)?;
                Some(SortKey::Number(number))
            }
            2 if usize::try_from(number) == Ok(text.len()) => {
                Some(SortKey::Text(String::from_utf8(text.to_vec()).ok()?))
            }
            _ => return None,
        };
        Some(Self { key, id: Uuid::from_bytes(*id) })
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
        let mut filters = TaskFilters::default();
        for (name, value) in [
            ("status", status),
            ("priority", priority),
            ("tag", tag),
            ("due_after", due_after),
            ("due_before", due_before),
            ("overdue", overdue),
            ("q", q),
        ] {
            if let Some(value) = value {
                filters.set(name, &value).map_err(|invalid| ReadError::parameter(name, invalid))?;
            }
        }
        let as_of = as_of.map(|value| AsOf::parse(&value, now)).transpose()?;
        let newest_first = Sort { by: SortBy::CreatedAt, descending: true };
        let sort = sort.map_or(Ok(newest_first), |value| parse_sort(&value, filters.q.is_some()))?;
        let binding = binding(&filters, as_of, sort);
        let pages = Pages { sealer, owner, binding: &binding };
        let after = pages.begins_behind(cursor.as_deref(), SortPosition::from_bytes)?;
        Ok(Self { binding, filters, as_of, sort, limit: limit.get(), after })
    }

    /// The first page of everything.
    pub fn first_page(sort: Sort) -> Self {
        let filters = TaskFilters::default();
        Self { binding: binding(&filters, None, sort), filters, as_of: None, sort, limit: LIMIT_DEFAULT, after: None }
    }

    /// The tasks that match `q` best.
    pub fn most_relevant(q: Query, limit: u16) -> Self {
        let filters = TaskFilters { q: Some(q), ..TaskFilters::default() };
        let sort = Sort { by: SortBy::Relevance, descending: false };
        Self { binding: binding(&filters, None, sort), filters, as_of: None, sort, limit, after: None }
    }

    /// The whole request in bytes, the same for equal ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.binding.len() + 28);
        key.push(b'L');
        key.extend_from_slice(&self.limit.to_be_bytes());
        if let Some(after) = &self.after {
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
        let TaskFilters { statuses, priorities, tags, due_after, due_before, overdue, q } = &self.filters;
        let named = |code: &i16, names: &[&str]| {
            usize::try_from(*code).ok().and_then(|at| names.get(at)).map(|n| (*n).to_owned())
        };
        push("status", &mut statuses.iter().filter_map(|code| named(code, &STATUSES)));
        push("priority", &mut priorities.iter().filter_map(|code| named(code, &PRIORITIES)));
        push("tag", &mut tags.iter().filter(|tag| is_nfc(tag)).cloned());
        push("due_after", &mut due_after.iter().map(|time| format_time(*time)));
        push("due_before", &mut due_before.iter().map(|time| format_time(*time)));
        push("overdue", &mut overdue.then(|| "true".to_owned()).into_iter());
        push("q", &mut q.iter().map(|q| q.text().to_owned()));
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

fn parse_sort(value: &str, by_q: bool) -> Result<Sort, ReadError> {
    let (descending, field) = value.strip_prefix('-').map_or((false, value), |field| (true, field));
    if field == SortBy::Relevance.as_str() {
        return match (by_q, descending) {
            (true, false) => Ok(Sort { by: SortBy::Relevance, descending }),
            (true, true) => Err(ReadError::parameter("sort", "by relevance has the best first; -relevance is none")),
            (false, _) => Err(ReadError::parameter("sort", "by relevance needs a q")),
        };
    }
    let by = SortBy::DIRECTED.into_iter().find(|by| by.as_str() == field);
    let by = by.ok_or_else(|| {
        ReadError::parameter(
            "sort",
            "must be one of created_at, due_at, priority, updated_at, title, rank, with - before it for descending, or \
             relevance",
        )
    })?;
    Ok(Sort { by, descending })
}

fn binding(filters: &TaskFilters, as_of: Option<AsOf>, sort: Sort) -> Vec<u8> {
    let TaskFilters { statuses, priorities, tags, due_after, due_before, overdue, q } = filters;
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
        bytes.extend_from_slice(&q.text().len().to_be_bytes());
        bytes.extend_from_slice(q.text().as_bytes());
    }
    bytes
}
