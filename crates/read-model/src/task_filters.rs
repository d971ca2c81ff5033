//! The filters of a list, of an export and of a change of many tasks: how they are written, and what they mean of a task.

use domain::{Invalid, Priority, Status, Tag, Time, parse_time};
use unicode_normalization::{UnicodeNormalization, is_nfd};

use crate::search::Query;
use crate::task::Task;

/// Tags in one filter at most.
const TAGS_MAX: usize = 50;
/// The statuses of a task that can be overdue.
const OPEN: [i16; 2] = [Status::Pending.code(), Status::InProgress.code()];

/// What tasks must match; empty lists ask for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilters {
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
    pub q: Option<Query>,
}

impl TaskFilters {
    /// Takes in a filter by its name and its value in a list's query. An empty `q` asks for nothing.
    ///
    /// # Errors
    /// There is no such filter, or the value is none of its.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Invalid> {
        match name {
            "status" => self.statuses = codes(value, Status::ALL, |name| Status::parse(name).map(Status::code))?,
            "priority" => {
                self.priorities = codes(value, Priority::ALL, |name| Priority::parse(name).map(Priority::code))?;
            }
            "tag" => self.tags = tags(value)?,
            "due_after" => self.due_after = Some(parse_time(value)?),
            "due_before" => self.due_before = Some(parse_time(value)?),
            "overdue" if value == "true" => self.overdue = true,
            "overdue" => return Err(Invalid("must be true".into())),
            "q" if value.is_empty() => {}
            "q" => self.q = Some(Query::parse(value).map_err(|error| Invalid(error.to_string().into()))?),
            _ => return Err(Invalid("is no filter of a list".into())),
        }
        Ok(())
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same filters at a moment, without `overdue`. `None`: nothing can match.
    #[must_use]
    pub fn at(&self, now: Time) -> Option<Self> {
        if !self.overdue {
            return Some(self.clone());
        }
        let mut statuses = OPEN.to_vec();
        statuses.retain(|code| self.statuses.is_empty() || self.statuses.contains(code));
        let due_before = Some(self.due_before.map_or(now, |before| before.min(now)));
        (!statuses.is_empty()).then(|| Self { statuses, due_before, overdue: false, ..self.clone() })
    }

    /// Whether a task that is not deleted matches, at this time.
    #[must_use]
    pub fn matches(&self, task: &Task, now: Time) -> bool {
        let Self { statuses, priorities, tags, due_after, due_before, overdue, q } = self;
        let is_of = |codes: &[i16], code: i16| codes.is_empty() || codes.contains(&code);
        let is_due_before = |until: Time| task.due_at.is_some_and(|due_at| due_at < until);
        is_of(statuses, task.status.code())
            && is_of(priorities, task.priority.code())
            && (tags.is_empty() || task.tags.iter().any(|tag| tags.contains(tag)))
            && due_after.is_none_or(|from| task.due_at.is_some_and(|due_at| due_at >= from))
            && due_before.is_none_or(is_due_before)
            && (!overdue || OPEN.contains(&task.status.code()) && is_due_before(now))
            && q.as_ref().is_none_or(|q| q.relevance(&task.texts()).is_some())
    }
}

/// The codes of names, sorted, each once. All of them is no filter.
fn codes<T>(value: &str, all: &[T], code: impl Fn(&str) -> Result<i16, Invalid>) -> Result<Vec<i16>, Invalid> {
    let mut codes = value.split(',').map(code).collect::<Result<Vec<_>, _>>()?;
    codes.sort_unstable();
    codes.dedup();
    if codes.len() == all.len() {
        codes.clear();
    }
    Ok(codes)
}

fn tags(value: &str) -> Result<Vec<String>, Invalid> {
    let parsed = value.split(',').map(|tag| Tag::parse(tag).map(|tag| tag.as_str().to_owned()));
    let mut tags = parsed.collect::<Result<Vec<_>, _>>()?;
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(Invalid(format!("must name at most {TAGS_MAX} tags").into()));
    }
    // Rows that an older program wrote hold tags as they were typed, until the next rebuild: mostly like this.
    let decomposed: Vec<String> = tags.iter().filter(|tag| !is_nfd(tag)).map(|tag| tag.nfd().collect()).collect();
    tags.extend(decomposed);
    tags.sort_unstable();
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_filters_are_refused() {
        let tags: Vec<String> = (0..=TAGS_MAX).map(|tag| tag.to_string()).collect();
        let (tags, too_many) = (tags[1..].join(","), tags.join(","));
        for (name, value, reason) in [
            ("status", "pending,done", "must be one of pending, in_progress, completed, cancelled"),
            ("priority", "", "must be one of low, medium, high, urgent"),
            ("tag", too_many.as_str(), "must name at most 50 tags"),
            ("overdue", "false", "must be true"),
            ("q", "a\0b", "must not contain NUL"),
            ("title", "a", "is no filter of a list"),
        ] {
            assert_eq!(TaskFilters::default().set(name, value), Err(Invalid(reason.into())), "{name}={value}");
        }
        assert_eq!(TaskFilters::default().set("tag", &tags), Ok(()));
    }

    #[test]
    fn what_asks_for_nothing_is_no_filter() {
        let mut filters = TaskFilters::default();
        for (name, value) in
            [("status", "completed,cancelled,pending,in_progress"), ("priority", "low,high,medium,urgent"), ("q", "")]
        {
            filters.set(name, value).unwrap();
        }
        assert!(filters.is_empty());
        filters.set("status", "pending,pending").unwrap();
        assert_eq!(filters, TaskFilters { statuses: vec![0], ..TaskFilters::default() });
    }
}
