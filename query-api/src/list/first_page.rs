//! The first tasks of a list, found in memory.

use std::cmp::Reverse;

use uuid::Uuid;

use super::matcher::Matcher;
use super::request::{ListRequest, SortBy, SortKey, SortPosition, relevance_key};
use super::task_set::{TaskSet, UNDATED};

/// The ids of the first tasks that match, in order.
pub(crate) fn first<'r>(tasks: &impl TaskSet, request: &'r ListRequest, wanted: usize) -> Vec<Uuid> {
    let matcher = Matcher::of(tasks, &request.filters);
    let (by, descending) = (request.sort.by, request.sort.descending);
    let number = |at: usize| {
        let number = match by {
            SortBy::CreatedAt => Some(tasks.created_us(at)),
            SortBy::UpdatedAt => Some(tasks.updated_us(at)),
            SortBy::Priority => tasks.stage(at).priority().and_then(|priority| i64::try_from(priority).ok()),
            SortBy::DueAt => Some(tasks.due_us(at)).filter(|due_us| *due_us != UNDATED),
            SortBy::Relevance => {
                let relevance = matcher.relevance(tasks, at);
                relevance.map(|relevance| relevance_key(relevance, tasks.created_us(at)))
            }
            SortBy::Title | SortBy::Rank => None,
        };
        number.map(|number| if descending { !number } else { number })
    };
    let number_after = |key: &SortKey| match key {
        SortKey::Number(number) => Some(if descending { !number } else { *number }),
        SortKey::Text(_) => None,
    };
    let text = |at: usize| if by == SortBy::Title { tasks.title(at) } else { tasks.rank(at) };
    let text_after = |key: &'r SortKey| match key {
        SortKey::Number(_) => None,
        SortKey::Text(text) => Some(text.as_str()),
    };
    match (by, descending) {
        (SortBy::Title | SortBy::Rank, false) => first_by(tasks, request, &matcher, wanted, text, text_after),
        (SortBy::Title | SortBy::Rank, true) => {
            let text = |at| text(at).map(Reverse);
            first_by(tasks, request, &matcher, wanted, text, |key| text_after(key).map(Reverse))
        }
        _ => first_by(tasks, request, &matcher, wanted, number, number_after),
    }
}

/// The ids of the first tasks that match, by keys of which a smaller one comes first in the sort's direction.
fn first_by<'r, K: Ord + Copy>(
    tasks: &impl TaskSet,
    request: &'r ListRequest,
    matcher: &Matcher,
    wanted: usize,
    key: impl Fn(usize) -> Option<K>,
    key_after: impl Fn(&'r SortKey) -> Option<K>,
) -> Vec<Uuid> {
    let descending = request.sort.descending;
    let position = |key: Option<K>, id: Uuid| {
        let id = id.as_u128();
        (key.is_none(), key, if descending { !id } else { id })
    };
    let after = request.after.as_ref();
    let after = after.map(|SortPosition { key, id }| position(key.as_ref().and_then(&key_after), *id));
    let mut found = Vec::with_capacity((8 * wanted).min(tasks.places_max()));
    let mut worst: Option<(bool, Option<K>, u128)> = None;
    for at in tasks.places() {
        if !matcher.matches(tasks, at) {
            continue;
        }
        let key = key(at);
        // Here it ends for most, before their ids are looked at.
        if worst.is_some_and(|(is_none, worst, _)| (key.is_none(), key) > (is_none, worst)) {
            continue;
        }
        let position = position(key, tasks.id(at));
        if after.is_some_and(|after| position <= after) || worst.is_some_and(|worst| position >= worst) {
            continue;
        }
        found.push(position);
        if found.len() == 8 * wanted {
            let (_, last, _) = found.select_nth_unstable(wanted - 1);
            worst = Some(*last);
            found.truncate(wanted);
        }
    }
    found.sort_unstable();
    found.truncate(wanted);
    let id = |id: u128| Uuid::from_u128(if descending { !id } else { id });
    found.into_iter().map(|(_, _, number)| id(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::columns::tests::columns;
    use super::super::request::Sort;
    use super::*;

    #[test]
    fn ties_are_decided_by_id_however_many_there_are() {
        let mut ids: Vec<Uuid> = (0..1_000).map(Uuid::from_u128).collect();
        for descending in [false, true] {
            let request = ListRequest::first_page(Sort { by: SortBy::Priority, descending });
            assert_eq!(first(&columns(1_000), &request, 5), ids[..5]);
            ids.reverse();
        }
    }
}
