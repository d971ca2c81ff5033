//! The filter of an export or a change of many tasks: the members and values of a list's query.

use std::collections::BTreeMap;

use domain::{InvalidFields, Priority, Status, Tag, Time, parse_time};
use read_model::Task;
use read_model::search::{Query, Texts};

/// Tags in one filter at most, as in a list.
const TAGS_MAX: usize = 50;

/// What tasks must match. Nothing that is not given is asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    statuses: Option<Vec<Status>>,
    priorities: Option<Vec<Priority>>,
    tags: Option<Vec<Tag>>,
    due_after: Option<Time>,
    due_before: Option<Time>,
    is_overdue: bool,
    query: Option<Query>,
}

impl Filter {
    /// From members and values as they stand in a list's query.
    ///
    /// # Errors
    /// A member that a list does not have, or a value that it would refuse.
    pub fn parse(members: &BTreeMap<String, String>) -> Result<Self, InvalidFields> {
        let mut filter = Self::default();
        let mut invalid = InvalidFields::default();
        for (name, value) in members {
            let taken = filter.take(name, value);
            if let Err(reason) = taken {
                invalid.breaks_rule(format!("/filter/{name}"), reason);
            }
        }
        invalid.or(Some(filter))
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let time = |value| parse_time(value).map_err(|error| error.to_string());
        match name {
            "status" => self.statuses = Some(each(value, Status::parse)?),
            "priority" => self.priorities = Some(each(value, Priority::parse)?),
            "tag" => {
                let mut tags = each(value, Tag::parse)?;
                tags.sort_unstable();
                tags.dedup();
                if tags.len() > TAGS_MAX {
                    return Err(format!("must name at most {TAGS_MAX} tags"));
                }
                self.tags = Some(tags);
            }
            "due_after" => self.due_after = Some(time(value)?),
            "due_before" => self.due_before = Some(time(value)?),
            "overdue" if value == "true" => self.is_overdue = true,
            "overdue" => return Err("must be true".to_owned()),
            "q" if value.is_empty() => {}
            "q" => self.query = Some(Query::parse(value).map_err(|error| error.to_string())?),
            _ => return Err("is no filter of a list".to_owned()),
        }
        Ok(())
    }

    /// Whether a task is as is asked for, at this time.
    #[must_use]
    pub fn matches(&self, task: &Task, now: Time) -> bool {
        let Self { statuses, priorities, tags, due_after, due_before, is_overdue, query } = self;
        let is_open = matches!(task.status, Status::Pending | Status::InProgress);
        statuses.as_ref().is_none_or(|statuses| statuses.contains(&task.status))
            && priorities.as_ref().is_none_or(|priorities| priorities.contains(&task.priority))
            && tags.as_ref().is_none_or(|tags| tags.iter().any(|tag| task.tags.iter().any(|has| has == tag.as_str())))
            && due_after.is_none_or(|after| task.due_at.is_some_and(|due_at| due_at >= after))
            && due_before.is_none_or(|before| task.due_at.is_some_and(|due_at| due_at < before))
            && (!is_overdue || is_open && task.due_at.is_some_and(|due_at| due_at < now))
            && query.as_ref().is_none_or(|query| {
                let tags = task.tags.iter().map(String::as_str);
                query.rank(&Texts::of(&task.title, tags, task.description.as_deref())).is_some()
            })
    }
}

fn each<T>(value: &str, parse: impl Fn(&str) -> Result<T, domain::Invalid>) -> Result<Vec<T>, String> {
    value.split(',').map(|name| parse(name).map_err(|invalid| invalid.to_string())).collect()
}
