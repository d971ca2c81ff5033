//! Facets against a recount.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Task, Time, World, rfc};

fn random_task(now: Time) -> impl Strategy<Value = Task> {
    // Far enough from the bounds for a slow machine.
    let due = prop_oneof![Just(None), prop::sample::select(vec![-50_i64, -1, 1, 23, 25, 800]).prop_map(Some)];
    let tags = proptest::collection::vec((0..80_u8).prop_map(|n| format!("t{}", n.min(n / 2 + 20))), 0..4);
    (0_i16..4, 0_i16..4, due, tags, any::<bool>(), 0_u8..10).prop_map(
        move |(status, priority, due_h, mut tags, red, deleted)| {
            tags.sort();
            tags.dedup();
            Task {
                status,
                priority,
                due_at: due_h.map(|hours| now + TimeDelta::hours(hours)),
                tags,
                deleted: deleted == 0,
                ..Task::new(if red { "red apple" } else { "green pear" })
            }
        },
    )
}

/// A filter of each kind; what is not asked for matches.
struct Filters {
    query: String,
    status: Box<dyn Fn(&Task) -> bool>,
    priority: Box<dyn Fn(&Task) -> bool>,
    tag: Box<dyn Fn(&Task) -> bool>,
    due: Box<dyn Fn(&Task) -> bool>,
    q: Box<dyn Fn(&Task) -> bool>,
}

/// With those whose bits are set.
fn filters(bits: usize, now: Time) -> Filters {
    let mut query = String::new();
    let mut asked = |bit: usize, filter: &str| {
        let asked = bits >> bit & 1 == 1;
        if asked {
            query += "&";
            query += filter;
        }
        asked
    };
    let status = asked(0, "status=pending,completed");
    let priority = asked(1, "priority=urgent,low");
    let tag = asked(2, "tag=t1,t21,none");
    let overdue = asked(3, "overdue=true");
    let due_after = asked(4, &format!("due_after={}", rfc(now - TimeDelta::hours(2))));
    let q = asked(5, "q=APP");
    Filters {
        query,
        status: Box::new(move |task| !status || matches!(task.status, 0 | 2)),
        priority: Box::new(move |task| !priority || matches!(task.priority, 0 | 3)),
        tag: Box::new(move |task| !tag || task.tags.iter().any(|tag| tag == "t1" || tag == "t21")),
        due: Box::new(move |task| {
            (!overdue || (task.status < 2 && task.due_at.is_some_and(|due| due < now)))
                && (!due_after || task.due_at.is_some_and(|due| due >= now - TimeDelta::hours(2)))
        }),
        q: Box::new(move |task| !q || task.title.contains("apple")),
    }
}

fn recount(tasks: &[Task], filters: &Filters, now: Time) -> Value {
    let Filters { status, priority, tag, due, q, .. } = filters;
    let there: Vec<&Task> = tasks.iter().filter(|task| !task.deleted && q(task)).collect();
    let count = |matches: &dyn Fn(&Task) -> bool| there.iter().filter(|task| matches(task)).count();
    let names = |names: [&str; 4], matches: &dyn Fn(&Task, usize) -> bool| -> Value {
        let counts = names.into_iter().enumerate();
        counts
            .map(|(n, name)| (name.to_owned(), json!(count(&|task| matches(task, n)))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    for task in there.iter().filter(|task| status(task) && priority(task) && due(task)) {
        task.tags.iter().for_each(|tag| *tags.entry(tag).or_default() += 1);
    }
    let mut tags: Vec<_> = tags.into_iter().collect();
    tags.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tags.truncate(50);
    let in_due = |task: &Task, n: usize| match task.due_at {
        None => n == 3,
        Some(due) => {
            n == if due < now {
                0
            } else if due < now + TimeDelta::hours(24) {
                1
            } else {
                2
            }
        }
    };
    json!({
        "total": count(&|task| status(task) && priority(task) && tag(task) && due(task)),
        "by_status": names(["pending", "in_progress", "completed", "cancelled"], &|task, n| {
            usize::try_from(task.status) == Ok(n) && priority(task) && tag(task) && due(task)
        }),
        "by_priority": names(["low", "medium", "high", "urgent"], &|task, n| {
            usize::try_from(task.priority) == Ok(n) && status(task) && tag(task) && due(task)
        }),
        "by_tag": tags.into_iter().map(|(tag, count)| json!({"tag": tag, "count": count})).collect::<Vec<_>>(),
        "by_due": names(["overdue", "next_24_hours", "later", "none"], &|task, n| {
            task.status < 2 && in_due(task, n) && status(task) && priority(task) && tag(task)
        }),
    })
}

async fn facets_equal_a_recount(world: &World, owner: Uuid, tasks: &[Task], now: Time) {
    for bits in 0..64 {
        let filters = filters(bits, now);
        let path = format!("/api/v1/tasks/facets?{}", filters.query.trim_start_matches('&'));
        let token = world.token(owner, world.last_position());
        let headers = [("consistency-token", token.as_str())];
        let mut facets = world.send(&world.router, owner, &path, &headers).await.ok().json();
        assert_eq!(facets["revision"], world.last_position());
        facets.as_object_mut().unwrap().remove("revision");
        assert_eq!(facets, recount(tasks, &filters, now), "{path}");
    }
}

#[tokio::test]
async fn facets_count_what_lists_show() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    for size in [0, 1, 300] {
        let (owner, now) = (Uuid::new_v4(), process::clock::now());
        let tasks = proptest::collection::vec(random_task(now), size).new_tree(&mut runner).unwrap().current();
        world.put(owner, &tasks).await;
        facets_equal_a_recount(&world, owner, &tasks, now).await;
    }
}

/// Read in parts at first, then from columns in memory that keep up with events.
#[tokio::test]
async fn facets_of_many_tasks_keep_up_with_events() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let (owner, now) = (Uuid::new_v4(), process::clock::now());
    let mut tasks = proptest::collection::vec(random_task(now), 4_500).new_tree(&mut runner).unwrap().current();
    world.put(owner, &tasks).await;
    for round in 0..3 {
        facets_equal_a_recount(&world, owner, &tasks, now).await;
        // Time for the columns to be loaded.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for n in 0..20 {
            let task = &mut tasks[n * 7 + round];
            task.version += 1;
            task.status = (task.status + 1) % 4;
            task.tags = vec![format!("new{n}")];
            task.deleted = n % 5 == 0;
            world.event(owner, task, "TaskChanged", Value::Null).await;
        }
    }
}

#[tokio::test]
async fn only_filters_are_understood() {
    let world = World::new().await;
    for query in ["sort=due_at", "limit=1", "cursor=x", "status=done", "overdue=false", "tag=", "due_after=tomorrow"] {
        world.get(Uuid::new_v4(), &format!("/api/v1/tasks/facets?{query}")).await.refused(400, "invalid-parameter");
    }
}
