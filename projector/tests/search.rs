//! The search projection: what is stored finds what the text rules find.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use common::{Database, Event, Running, caught_up, event};
use read_model::search::{Query, Relevance, Texts};
use serde_json::json;

const TITLES: [&str; 8] = [
    "Plan the trip",
    "Planning: trips, 東京2020年",
    "会議の準備をする",
    "Straße im Gesamt\u{ad}konzept",
    "🚀 don't.stop_now 👍🏽",
    "a\\b 'quoted' c++",
    "trip plan パン",
    "ハン",
];
const TAGS: [&[&str]; 4] = [&[], &["trip"], &["plan b", "準備"], &["planned"]];
const QUERIES: [&str; 22] = [
    "plan",
    "plan ",
    "plan trip",
    "\"the trip\"",
    "\"trip plan\"",
    "準備",
    "会議の準備",
    "議",
    "東京2020",
    "パン",
    "ハン",
    "🚀",
    "👍",
    "strasse",
    "gesamtk",
    "don't ",
    "stop ",
    "b",
    "c+ ",
    "plan -trip",
    "trip -\"the trip\"",
    "-準備",
];

fn texts(task: usize) -> (&'static str, &'static [&'static str], Option<&'static str>) {
    let description = (!task.is_multiple_of(3)).then(|| TITLES[task / 4 % TITLES.len()]);
    (TITLES[task % TITLES.len()], TAGS[task / 8 % TAGS.len()], description)
}

/// Half of the tasks are made with their texts at once, the others get them one by one.
fn events(task: usize) -> Vec<Event> {
    let (title, tags, description) = texts(task);
    let id = u128::try_from(task).unwrap() + 1;
    if task.is_multiple_of(2) {
        let created = json!({"title": title, "description": description, "priority": "medium", "tags": tags});
        return vec![event(1, id, "TaskCreated", &created.to_string())];
    }
    let mut events = vec![
        event(1, id, "TaskCreated", &json!({"title": "plan", "priority": "medium", "tags": ["plan", "x"]}).to_string()),
        event(1, id, "TaskRenamed", &json!({"title": title}).to_string()),
        event(1, id, "TaskDescribed", &json!({"description": description}).to_string()),
        event(1, id, "TaskUntagged", &json!({"tags": ["plan", "x"]}).to_string()),
    ];
    if !tags.is_empty() {
        events.push(event(1, id, "TaskTagged", &json!({"tags": tags}).to_string()));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn lexemes_find_what_the_text_rules_find() {
    const TASKS: usize = 256;
    let database = Database::create().await;
    let running = Running::start(&database, None).await;
    for task in 0..TASKS {
        // In batches of their own: rows are updated, not only inserted.
        for event in events(task) {
            database.append(&[event]).await;
        }
    }
    caught_up(&database).await;
    running.stop().await;
    common::assert_equals_the_log(&database).await;
    for q in QUERIES {
        let query = Query::parse(q).unwrap();
        let mut found = 0;
        for weakest in Relevance::ALL {
            let candidates: Vec<i64> = sqlx::query_scalar(
                "select ('x' || right(task_id::text, 12))::bit(48)::bigint - 1 from read_model.search
                 where generation = 1 and ($1::text is null or lexemes @@ $1::tsquery) order by 1",
            )
            .bind(query.tsquery(weakest))
            .fetch_all(&database.pool)
            .await
            .unwrap();
            for task in 0..TASKS {
                let (title, tags, description) = texts(task);
                let relevance = query.relevance(&Texts::of(title, tags.iter().copied(), description));
                let matches = relevance.is_some_and(|relevance| relevance <= weakest);
                let is_candidate = candidates.contains(&i64::try_from(task).unwrap());
                assert!(
                    is_candidate || !matches,
                    "{q} misses {title:?} {tags:?} {description:?} of {relevance:?} up to {weakest:?}"
                );
                assert!(matches || !is_candidate || !query.is_exact(), "{q} finds {title:?} {tags:?} {description:?}");
                found += usize::from(matches);
            }
        }
        assert!(found > 0, "{q} finds something");
    }
}
