//! Filters, sorts, pages, cursors, search.

use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use uuid::Uuid;

use crate::world::{Task, Time, World, at, distinct, rfc};

pub const SORTS: [&str; 6] = ["created_at", "due_at", "priority", "updated_at", "title", "rank"];
/// By their keys: 0 to 3 and 4 are the same, though not by bytes; the last two are longer folded than as they are.
pub const TITLES: [&str; 8] =
    ["red apple", "Red apple 2", "green pear", "Äpfel", "RED APPLE", "zebra", "ß\u{fdfa}\u{fdfa}", "①"];

/// Due then: not overdue yet.
fn far() -> Time {
    at(100_000_000_000)
}

fn ids(body: &Value) -> Vec<Uuid> {
    body["items"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// All pages of a list.
pub async fn walk(world: &World, owner: Uuid, query: &str) -> Vec<Uuid> {
    let mut all = Vec::new();
    let mut path = format!("/api/v1/tasks?{query}");
    loop {
        let answer = world.get(owner, &path).await.ok();
        let body = answer.json();
        all.extend(ids(&body));
        if body["next_cursor"].is_null() {
            assert!(answer.headers.get("link").is_none());
            return all;
        }
        let link = answer.header("link");
        path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().to_owned();
    }
}

fn random_task() -> impl Strategy<Value = Task> {
    let due = prop_oneof![1 => Just(None), 2 => (0_i64..5).prop_map(|n| Some(at(n * 1000))), 1 => Just(Some(far()))];
    let tags = proptest::collection::vec(prop_oneof!["a", "b", "c d"], 0..3);
    // Few values, so that there are ties.
    let title = proptest::sample::select(TITLES.as_slice());
    let key = (title, proptest::option::of("[A0az]{0,1}[1Zz]"));
    (any::<u128>(), 0_i64..4, 0_i64..4, 0_i16..4, 0_i16..4, due, tags, key).prop_map(
        |(id, created, updated, priority, status, due_at, mut tags, (title, rank))| {
            tags.sort();
            tags.dedup();
            Task {
                id: Uuid::from_u128(id),
                created_at: at(created),
                updated_at: at(updated),
                priority,
                status,
                due_at,
                tags,
                title: title.to_owned(),
                rank,
                ..Task::new("")
            }
        },
    )
}

fn key(task: &Task, sort: &str) -> (bool, i64, String) {
    let number = |number| (false, number, String::new());
    match sort {
        "created_at" => number(task.created_at.timestamp_micros()),
        "updated_at" => number(task.updated_at.timestamp_micros()),
        "priority" => number(task.priority.into()),
        "title" => (false, 0, read_model::search::title_key(&task.title)),
        "rank" => (task.rank.is_none(), 0, task.rank.clone().unwrap_or_default()),
        _ => (task.due_at.is_none(), task.due_at.map_or(0, |due| due.timestamp_micros()), String::new()),
    }
}

/// What a list should be.
pub fn expected(
    tasks: &HashMap<Uuid, Task>,
    filter: &dyn Fn(&Task) -> bool,
    sort: &str,
    descending: bool,
) -> Vec<Uuid> {
    let mut matching: Vec<&Task> = tasks.values().filter(|task| !task.deleted && filter(task)).collect();
    matching.sort_by(|a, b| {
        let ((a_none, a_key, a_text), (b_none, b_key, b_text)) = (key(a, sort), key(b, sort));
        let order = (a_key, a_text, a.id).cmp(&(b_key, b_text, b.id));
        a_none.cmp(&b_none).then(if descending { order.reverse() } else { order })
    });
    matching.into_iter().map(|task| task.id).collect()
}

pub type Filter = (&'static str, fn(&Task) -> bool);

pub const FILTERS: [Filter; 11] = [
    ("", |_| true),
    ("&status=pending,completed", |task| matches!(task.status, 0 | 2)),
    ("&priority=urgent", |task| task.priority == 3),
    ("&tag=a,c%20d", |task| task.tags.iter().any(|tag| tag == "a" || tag == "c d")),
    ("&due_after=2026-05-28T20:43:20Z", |task| task.due_at.is_some_and(|due| due >= at(1000))),
    ("&due_before=2026-05-28T21:16:40Z", |task| task.due_at.is_some_and(|due| due < at(3000))),
    ("&q=APP", |task| task.title.to_lowercase().contains("app")),
    ("&overdue=true", |task| task.status < 2 && task.due_at.is_some_and(|due| due < far())),
    ("&overdue=true&status=in_progress,completed&due_before=2026-05-28T21:16:40Z", |task| {
        task.status == 1 && task.due_at.is_some_and(|due| due < at(3000))
    }),
    ("&overdue=true&status=completed,cancelled", |_| false),
    ("&status=cancelled&tag=b&due_after=2026-05-28T20:43:20Z&q=green%20p", |task| {
        task.status == 3
            && task.tags.iter().any(|t| t == "b")
            && task.due_at.is_some_and(|d| d >= at(1000))
            && task.title.contains("green")
    }),
];

fn by_id(tasks: &[Task]) -> HashMap<Uuid, Task> {
    tasks.iter().map(|task| (task.id, task.clone())).collect()
}

#[tokio::test]
async fn every_sort_and_filter_lists_what_it_should() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let tasks = proptest::collection::vec(random_task(), 300).new_tree(&mut runner).unwrap().current();
    let owner = Uuid::new_v4();
    world.put(owner, &tasks).await;
    // Somebody else's, which must not show.
    world.put(Uuid::new_v4(), &tasks[..50]).await;
    assert_eq!(at(1000), domain::parse_time("2026-05-28T20:43:20Z").unwrap(), "the times in FILTERS");
    let tasks = by_id(&tasks);
    for (query, filter) in FILTERS {
        for sort in SORTS {
            for (sign, descending) in [("", false), ("-", true)] {
                let expected = expected(&tasks, &filter, sort, descending);
                for limit in [7, 50, 200] {
                    let found = walk(&world, owner, &format!("sort={sign}{sort}&limit={limit}{query}")).await;
                    assert_eq!(found, expected, "sort={sign}{sort} limit={limit} {query}");
                }
            }
        }
    }
}

/// An owner with more tasks than a walk looks at: lists come from the other statements, and must be the same.
#[tokio::test]
async fn rare_matches_among_many_tasks_are_listed_as_well() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let tasks = proptest::collection::vec(random_task(), 2500).new_tree(&mut runner).unwrap().current();
    let owner = Uuid::new_v4();
    world.put(owner, &tasks).await;
    let tasks = by_id(&tasks);
    for round in 0..2 {
        for (query, filter) in FILTERS {
            for sort in SORTS {
                for (sign, descending) in [("", false), ("-", true)] {
                    let expected = expected(&tasks, &filter, sort, descending);
                    let found = walk(&world, owner, &format!("sort={sign}{sort}&limit={}{query}", 200 - round)).await;
                    assert_eq!(found, expected, "sort={sign}{sort} {query}");
                }
            }
        }
    }
}

/// Tasks without a due date come after all that have one, also where a walk has not seen all of those.
#[tokio::test]
async fn undated_tasks_do_not_come_too_early() {
    let world = World::new().await;
    for sign in ["", "-"] {
        let owner = Uuid::new_v4();
        // 1,500 with a due date, every 15th of which matches, and 500 without, every fifth of which does.
        let tasks: Vec<Task> = (0..2000_i64)
            .map(|n| Task {
                due_at: (n < 1500).then(|| at(n)),
                priority: if n % (if n < 1500 { 15 } else { 5 }) == 0 { 3 } else { 0 },
                ..Task::new("x")
            })
            .collect();
        world.put(owner, &tasks).await;
        let body =
            world.get(owner, &format!("/api/v1/tasks?sort={sign}due_at&limit=100&priority=urgent")).await.ok().json();
        let expected = expected(&by_id(&tasks), &|task| task.priority == 3, "due_at", sign == "-");
        assert_eq!(ids(&body), expected[..100]);
    }
}

/// The columns in memory find the same pages as the database, whatever happens in between.
#[tokio::test]
async fn lists_of_many_tasks_keep_up_with_events() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let tasks = proptest::collection::vec(random_task(), 2300).new_tree(&mut runner).unwrap().current();
    let owner = Uuid::new_v4();
    world.put(owner, &tasks).await;
    let mut tasks = by_id(&tasks);
    // Found by no walk: has the columns made.
    world.get(owner, "/api/v1/tasks?status=cancelled&priority=low&tag=b&due_before=2026-05-28T20:43:20Z").await.ok();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // And with texts.
    world.get(owner, "/api/v1/tasks?q=pear").await.ok();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let step = (random_write(), 0..FILTERS.len(), 0_usize..4, any::<bool>(), 0_u8..10);
    for round in 0..150 {
        let (write, filter, sort, descending, special) = step.new_tree(&mut runner).unwrap().current();
        let mut existing: Vec<Uuid> = tasks.values().filter(|task| !task.deleted).map(|task| task.id).collect();
        existing.sort();
        let pick = |n: usize| tasks[&existing[n % existing.len()]].clone();
        let mut task = match write {
            Write::Insert(task) => task,
            Write::Change(n) => {
                let title = if n % 2 == 0 { "red apple" } else { "green pear" }.to_owned();
                let tags = vec![format!("new{}", n % 3), "b".into()];
                Task { status: (pick(n).status + 1) % 4, tags, title, ..pick(n) }
            }
            Write::Move(n, key) => {
                Task { due_at: (key > 0).then(|| at(key * 1000)), priority: i16::try_from(key).unwrap(), ..pick(n) }
            }
            Write::Delete(n) => Task { deleted: true, ..pick(n) },
        };
        task.version += 1;
        match special {
            // Parked first, then mended: it comes with a position that others have passed.
            0 => {
                let parked = world.next_position();
                world.park(owner, Some(parked)).await;
                let other = Task { priority: 3, ..pick(round) };
                world
                    .event(owner, &Task { version: other.version + 1000, ..other.clone() }, "TaskChanged", Value::Null)
                    .await;
                tasks.insert(other.id, other);
                world.get(owner, "/api/v1/tasks?priority=urgent&tag=a").await.ok();
                world.event_at(owner, &task, "TaskChanged", Value::Null, parked).await;
                world.park(owner, None).await;
            }
            1 if round > 100 => {
                world.event(owner, &task, "TaskChanged", Value::Null).await;
                // Time to be made again.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            _ => {
                world.event(owner, &task, "TaskChanged", Value::Null).await;
            }
        }
        tasks.insert(task.id, task);
        let (query, filter) = FILTERS[filter];
        let (sort, sign) = (SORTS[sort], if descending { "-" } else { "" });
        let token = world.token(owner, world.last_position());
        let path = format!("/api/v1/tasks?sort={sign}{sort}&limit=200{query}");
        let body = world.send(&world.router, owner, &path, &[("consistency-token", &token)]).await.ok().json();
        let mut expected = expected(&tasks, &filter, sort, descending);
        expected.truncate(200);
        assert_eq!(ids(&body), expected, "{path}");
    }
}

/// What is done to the tasks between two pages.
#[derive(Debug, Clone)]
enum Write {
    Insert(Task),
    /// Whatever is not the sort's key.
    Change(usize),
    /// The sort's key.
    Move(usize, i64),
    Delete(usize),
}

fn random_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        random_task().prop_map(Write::Insert),
        any::<usize>().prop_map(Write::Change),
        (any::<usize>(), 0_i64..4).prop_map(|(n, key)| Write::Move(n, key)),
        any::<usize>().prop_map(Write::Delete),
    ]
}

/// "A walk shows every task that matches and keeps its sort key throughout exactly once."
#[tokio::test]
async fn a_walk_shows_what_stays_exactly_once_while_others_write() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    for round in 0..40 {
        let owner = Uuid::new_v4();
        let sort = SORTS[round % 4];
        let descending = round % 8 >= 4;
        let case = (
            proptest::collection::vec(random_task(), 5..60),
            proptest::collection::vec((1_u8..9, proptest::collection::vec(random_write(), 0..4)), 1..8),
        );
        let (tasks, steps) = case.new_tree(&mut runner).unwrap().current();
        world.put(owner, &tasks).await;
        let mut now = by_id(&tasks);
        let mut kept: HashMap<Uuid, Task> = now.clone();
        let mut shown = Vec::new();
        let mut cursor = String::new();
        for (limit, writes) in steps.iter().cycle() {
            let sign = if descending { "-" } else { "" };
            let body =
                world.get(owner, &format!("/api/v1/tasks?sort={sign}{sort}&limit={limit}{cursor}")).await.ok().json();
            shown.extend(ids(&body));
            let Some(next) = body["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            for write in writes {
                let existing: Vec<Uuid> = {
                    let mut ids: Vec<_> = now.keys().copied().collect();
                    ids.sort();
                    ids
                };
                let pick = |n: usize| now[&existing[n % existing.len()]].clone();
                let task = match write {
                    Write::Insert(task) => task.clone(),
                    Write::Change(n) => {
                        let mut task = pick(*n);
                        task.title = "changed".into();
                        if sort != "priority" {
                            task.priority = 3 - task.priority;
                        }
                        if sort != "updated_at" {
                            task.updated_at += TimeDelta::seconds(1);
                        }
                        if sort != "due_at" {
                            task.due_at = None;
                        }
                        task
                    }
                    Write::Move(n, key) => {
                        let mut task = pick(*n);
                        kept.remove(&task.id);
                        match sort {
                            "created_at" => task.created_at = at(*key),
                            "updated_at" => task.updated_at = at(*key),
                            "priority" => task.priority = i16::try_from(*key).unwrap(),
                            _ => task.due_at = (*key > 0).then(|| at(*key * 1000)),
                        }
                        task
                    }
                    Write::Delete(n) => {
                        let mut task = pick(*n);
                        kept.remove(&task.id);
                        task.deleted = true;
                        task
                    }
                };
                world.put(owner, std::slice::from_ref(&task)).await;
                now.insert(task.id, task);
            }
        }
        for id in kept.keys() {
            let times = shown.iter().filter(|shown| *shown == id).count();
            assert_eq!(times, 1, "sort={sort} descending={descending}: {:?}", kept[id]);
        }
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_owner_filters_and_sort_only() {
    let world = World::new().await;
    let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
    let tasks: Vec<Task> = (0..5).map(|n| Task { created_at: at(n), ..Task::new("x") }).collect();
    world.put(owner, &tasks).await;
    world.put(other, &tasks).await;
    let cursor = world.get(owner, "/api/v1/tasks?limit=2&status=pending").await.ok().json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let with = |query: &str| format!("/api/v1/tasks?{query}&cursor={cursor}");
    world.get(owner, &with("status=pending&limit=3")).await.ok();
    world.get(owner, &with("status=pending&sort=-created_at")).await.ok();
    for query in [
        "status=completed",
        "status=pending&tag=x",
        "status=pending&sort=created_at",
        "limit=2",
        "status=pending&q=x",
        "status=pending&overdue=true",
    ] {
        world.get(owner, &with(query)).await.refused(400, "invalid-cursor");
    }
    world.get(other, &with("status=pending")).await.refused(400, "invalid-cursor");
    let mut forged = cursor.clone();
    forged.replace_range(30..31, if &cursor[30..31] == "A" { "B" } else { "A" });
    for bad in [forged.as_str(), "", "x", &cursor[1..], &format!("{cursor}A")] {
        world.get(owner, &format!("/api/v1/tasks?status=pending&cursor={bad}")).await.refused(400, "invalid-cursor");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_named() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    for (query, named) in [
        ("status=done", "status"),
        ("status=", "status"),
        ("status=pending,", "status"),
        ("priority=LOW", "priority"),
        ("tag=%20", "tag"),
        ("tag=a,,b", "tag"),
        ("due_after=2026-01-01", "due_after"),
        ("due_before=2026-02-30T00:00:00Z", "due_before"),
        ("overdue=false", "overdue"),
        ("overdue=", "overdue"),
        ("sort=name", "sort"),
        ("sort=--due_at", "sort"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("page=2", "page"),
        ("limit=1&limit=1", "limit"),
        ("q=%ff", "q"),
        (&format!("q={}", "x".repeat(201)), "q"),
    ] {
        let answer = world.get(owner, &format!("/api/v1/tasks?{query}")).await.refused(400, "invalid-parameter");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{query}: {detail}");
    }
}

/// Rows of an older program hold tags as they were typed, until they are touched or made anew.
#[tokio::test]
async fn a_tag_is_found_in_either_form() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let tagged = |tag: &str| Task { tags: vec![tag.to_owned()], ..Task::new("x") };
    let (composed, decomposed, other) = (tagged("caf\u{e9}"), tagged("cafe\u{301}"), tagged("cafe"));
    world.put(owner, &[composed.clone(), decomposed.clone(), other]).await;
    let mut both = [composed.id, decomposed.id];
    both.sort();
    for spelled in ["caf%C3%A9", "cafe%CC%81", "CAFE%CC%81,caf%C3%A9"] {
        let mut found = walk(&world, owner, &format!("tag={spelled}&limit=1")).await;
        found.sort();
        assert_eq!(found, both, "{spelled}");
    }
}

#[tokio::test]
async fn an_owner_without_tasks_has_an_empty_list() {
    let world = World::new().await;
    let body = world.get(Uuid::new_v4(), "/api/v1/tasks").await.ok().json();
    assert_eq!(body, serde_json::json!({"items": [], "next_cursor": null, "revision": 0}));
}

#[tokio::test]
async fn search_takes_all_words_and_the_last_as_a_prefix() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    // As the projector normalises "Überprüfung der Straße" and "Crème brûlée: ﬁne №5".
    let a = Task { title: "uberprufung der straße".into(), ..Task::new("") };
    let b = Task { title: "creme brulee".into(), description: Some("fine no5".into()), ..Task::new("") };
    world.put(owner, &[a.clone(), b.clone()]).await;
    for (q, expected) in [
        ("%C3%9CBERPR%C3%9CFUNG", vec![a.id]),
        ("straße uber", vec![a.id]),
        ("uber straße", vec![]),
        ("u%CC%88berpru", vec![a.id]),
        ("brulee creme fin", vec![b.id]),
        ("CR%C3%88ME", vec![b.id]),
        ("%EF%AC%81ne%20%E2%84%965", vec![b.id]),
        ("der creme", vec![]),
        ("'%20!:*", vec![]),
        ("der'%20%26%20!(straße", vec![a.id]),
    ] {
        let q = q.replace('ß', "%C3%9F").replace(' ', "+");
        let mut found = ids(&world.get(owner, &format!("/api/v1/tasks?q={q}")).await.ok().json());
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(found, expected, "{q}");
    }
}

#[tokio::test]
async fn a_task_shows_all_its_fields() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let task = Task {
        description: Some("say \"hi\"\n".into()),
        status: 2,
        priority: 3,
        tags: vec!["a".into(), "b \\".into()],
        due_at: Some(at(5) + TimeDelta::microseconds(1)),
        started_at: Some(at(1)),
        completed_at: Some(at(2)),
        version: 3,
        updated_at: at(2),
        ..Task::new("Title")
    };
    world.put(owner, std::slice::from_ref(&task)).await;
    let expected = serde_json::json!({
        "id": task.id, "title": "Title", "description": "say \"hi\"\n", "status": "completed", "priority": "urgent",
        "due_at": rfc(task.due_at.unwrap()), "tags": ["a", "b \\"], "version": 3, "created_at": rfc(at(0)),
        "rank": null, "updated_at": rfc(at(2)), "started_at": rfc(at(1)), "completed_at": rfc(at(2)),
    });
    assert_eq!(world.get(owner, "/api/v1/tasks").await.ok().json()["items"], serde_json::json!([expected]));
    assert_eq!(world.get(owner, &format!("/api/v1/tasks/{}", task.id)).await.ok().json(), expected);
    assert!(distinct(&[1, 2]) && !distinct(&[1, 1]));
}
