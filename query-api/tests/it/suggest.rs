//! Suggestions: from the database, and from texts in memory.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use read_model::search::{Query, Texts};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Task, World, at};

fn tagged(title: &str, tags: &[&str]) -> Task {
    Task { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Task::new(title) }
}

async fn suggestions(world: &World, owner: Uuid, query: &str) -> Value {
    let token = world.token(owner, world.last_position());
    let path = format!("/api/v1/tasks/suggest?{query}");
    world.send(&world.router, owner, &path, &[("consistency-token", &token)]).await.ok().json()
}

fn titles(suggestions: &Value) -> Vec<&str> {
    suggestions["tasks"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn tasks_come_by_relevance_and_tags_by_count() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let tasks = [
        Task { created_at: at(1), status: 2, ..tagged("Plan the trip", &["planet", "home"]) },
        Task { created_at: at(2), ..tagged("Planning", &["plant", "planet"]) },
        Task { created_at: at(3), ..tagged("Plan", &["big plan", "airplane"]) },
        Task { description: Some("a plan".into()), ..tagged("Other", &["home"]) },
        Task { deleted: true, ..tagged("Plan no more", &["plant"]) },
    ];
    // Somebody else's, which must not show.
    world.put(Uuid::new_v4(), &[Task::new("Plan of somebody else")]).await;
    world.put(owner, &tasks).await;
    for (version, round) in [(2, "tables"), (4, "memory")] {
        let found = suggestions(&world, owner, "q=plan").await;
        assert_eq!(titles(&found), ["Plan", "Plan the trip", "Planning", "Other"], "{round}");
        let first = json!({
            "id": tasks[0].id, "title": "Plan the trip", "status": "completed",
            "matches": [{"field": "title", "from": 0, "to": 4}],
        });
        assert_eq!(found["tasks"][1], first);
        assert_eq!(found["tasks"][3]["matches"], json!([]));
        let tag = |tag: &str, count: u32| json!({"tag": tag, "count": count});
        assert_eq!(found["tags"], json!([tag("planet", 2), tag("big plan", 1), tag("plant", 1)]), "{round}");
        assert_eq!(found["revision"], world.last_position());
        let fewer = suggestions(&world, owner, "q=plan&limit=2").await;
        assert_eq!((titles(&fewer).len(), fewer["tags"].as_array().unwrap().len()), (2, 2));
        for nothing in ["q=%20", "q=-", "q=plan%20nowhere"] {
            let found = suggestions(&world, owner, nothing).await;
            assert_eq!((&found["tasks"], &found["tags"]), (&json!([]), &json!([])), "{nothing}");
        }
        // Time for the texts to be loaded.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let renamed = Task { title: "Planner".into(), version, ..tasks[3].clone() };
        world.event(owner, &renamed, "TaskRenamed", Value::Null).await;
        assert_eq!(titles(&suggestions(&world, owner, "q=planner").await), ["Planner"], "{round}");
        world.event(owner, &Task { version: version + 1, ..tasks[3].clone() }, "TaskRenamed", Value::Null).await;
    }
}

#[tokio::test]
async fn a_long_term_that_no_task_has_may_have_a_mistake() {
    let world = World::new().await;
    for many in [false, true] {
        let owner = Uuid::new_v4();
        let mut tasks = vec![tagged("Quarterly report", &["reports"]), Task::new("Kitchen"), Task::new("Kitchens")];
        tasks.extend((0..if many { 2_500 } else { 0 }).map(|n| Task::new(&format!("filler {n}"))));
        world.put(owner, &tasks).await;
        for (q, expected) in [
            ("qurterly", vec!["Quarterly report"]),
            ("quarterrly", vec!["Quarterly report"]),
            ("quarterli", vec!["Quarterly report"]),
            ("qaurterly", vec!["Quarterly report"]),
            ("qaurt", vec!["Quarterly report"]),
            ("report+qaurterly", vec!["Quarterly report"]),
            ("qaurtelry", vec![]),
            ("kitchn", vec!["Kitchens", "Kitchen"]),
            // a task has it, or begins with it
            ("kitchen+", vec!["Kitchen"]),
            ("kitche+", vec![]),
            // too short
            ("kict", vec![]),
        ] {
            let found = suggestions(&world, owner, &format!("q={q}")).await;
            let mut titles = titles(&found);
            titles.sort_by_key(|title| expected.iter().position(|of| of == title));
            assert_eq!(titles, expected, "{q}");
        }
        let found = suggestions(&world, owner, "q=repotr").await;
        assert_eq!(found["tasks"][0]["matches"], json!([{"field": "title", "from": 10, "to": 16}]));
        assert_eq!(found["tags"], json!([]), "in tasks only");
    }
}

/// Few words, so that many tasks match.
fn random_task() -> impl Strategy<Value = Task> {
    let word = || prop::sample::select(vec!["plan", "planning", "trip", "会議", "の準備", "two", "words", "a.b"]);
    let text = move || prop::collection::vec(word(), 1..4).prop_map(|words| words.join(" "));
    let tags = prop::collection::vec(text(), 0..3);
    (text(), prop::option::of(text()), tags, 0_i64..50, 0_u8..10).prop_map(
        |(title, description, mut tags, n, deleted)| {
            tags.sort();
            tags.dedup();
            Task { description, tags, created_at: at(n), deleted: deleted == 0, ..Task::new(&title) }
        },
    )
}

/// What the text rules say.
fn expected(tasks: &[Task], q: &str) -> (Vec<Uuid>, Vec<(String, usize)>) {
    let query = Query::parse(q).unwrap();
    let there = || tasks.iter().filter(|task| !task.deleted);
    let mut found: Vec<_> = there()
        .filter_map(|task| {
            let texts = Texts::of(&task.title, task.tags.iter().map(String::as_str), task.description.as_deref());
            Some((query.relevance(&texts)?, std::cmp::Reverse(task.created_at), task.id))
        })
        .collect();
    found.sort();
    let mut tags: Vec<&String> = there().flat_map(|task| &task.tags).collect();
    tags.sort();
    tags.dedup();
    let count = |tag: &String| there().filter(|task| task.tags.contains(tag)).count();
    let mut tags: Vec<(String, usize)> = tags
        .into_iter()
        .filter(|tag| query.relevance(&Texts::of(tag, [], None)).is_some())
        .map(|tag| (tag.clone(), count(tag)))
        .collect();
    tags.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tags.truncate(20);
    (found.into_iter().take(20).map(|(_, _, id)| id).collect(), tags)
}

#[tokio::test]
async fn suggestions_of_many_tasks_keep_up_with_events() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let owner = Uuid::new_v4();
    let mut tasks = prop::collection::vec(random_task(), 2_500).new_tree(&mut runner).unwrap().current();
    world.put(owner, &tasks).await;
    for round in 0..4 {
        for q in [
            "plan",
            "plan ",
            "trip pla",
            "\"two words\"",
            "plan -trip",
            "-plan",
            "会議",
            "議の",
            "a",
            "\"two w",
            "議の準",
        ] {
            let encoded: String = q.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let found = suggestions(&world, owner, &format!("limit=20&q={encoded}")).await;
            let (ids, tags) = expected(&tasks, q);
            let found_ids: Vec<Uuid> = found["tasks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|task| task["id"].as_str().unwrap().parse().unwrap())
                .collect();
            assert_eq!(found_ids, ids, "{q} in round {round}");
            let tags: Vec<Value> = tags.into_iter().map(|(tag, count)| json!({"tag": tag, "count": count})).collect();
            assert_eq!(found["tags"], json!(tags), "{q} in round {round}");
        }
        // Time for the texts to be loaded.
        tokio::time::sleep(Duration::from_millis(700)).await;
        for n in 0..20 {
            let changed = random_task().new_tree(&mut runner).unwrap().current();
            let task = &mut tasks[n * 7 + round];
            *task = Task { id: task.id, version: task.version + 1, created_at: task.created_at, ..changed };
            world.event(owner, task, "TaskChanged", Value::Null).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_named() {
    let world = World::new().await;
    for query in [
        "",
        "q=",
        "q=x&limit=0",
        "q=x&limit=21",
        "q=x&limit=ten",
        "q=x&limit=",
        "q=x&sort=relevance",
        "q=x&status=pending",
    ] {
        world.get(Uuid::new_v4(), &format!("/api/v1/tasks/suggest?{query}")).await.refused(400, "invalid-parameter");
    }
    let words = vec!["a"; 17].join("+");
    world.get(Uuid::new_v4(), &format!("/api/v1/tasks/suggest?q={words}")).await.refused(400, "invalid-parameter");
    let nothing = json!({"tasks": [], "tags": [], "revision": 0});
    assert_eq!(world.get(Uuid::new_v4(), "/api/v1/tasks/suggest?q=mistakes").await.ok().json(), nothing);
}
