//! Lists as of a time.

use std::collections::HashMap;

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use system_tests::wait::eventually;
use uuid::Uuid;

use crate::lists::{FILTERS, SORTS, expected, walk};
use crate::world::{Task, Time, World, at, rfc};

/// What a task went through: each version, the first one its creation. Some are deleted and restored on the way.
type Life = Vec<Task>;

fn life() -> impl Strategy<Value = Life> {
    let due = || prop_oneof![1 => Just(None), 2 => (0_i64..5).prop_map(|n| Some(at(n * 1000)))];
    // Seconds since the version before: often none.
    let rank = || proptest::option::of("[Aa][1z]");
    let tags = || proptest::collection::btree_set("[ab]|c d", 0..3);
    // After how many seconds it was deleted, and after how many more restored.
    let away = || proptest::option::weighted(0.3, (0_i64..2, 0_i64..3));
    let version = (0_i64..3, 0_i16..4, 0_i16..4, due(), tags(), 0..3_u8, rank(), away());
    (any::<u128>(), 0_i64..8, proptest::collection::vec(version, 1..6), 0..4_u8).prop_map(
        |(id, born, versions, fate)| {
            let mut time = at(born);
            let mut life: Life = Vec::new();
            for (seconds, status, priority, due_at, tags, word, rank, away) in versions {
                time += TimeDelta::seconds(seconds);
                life.push(Task {
                    id: Uuid::from_u128(id),
                    version: i64::try_from(life.len()).unwrap() + 1,
                    title: ["Red apple", "green pear", "green peach"][usize::from(word)].to_owned(),
                    rank,
                    status: if life.is_empty() { 0 } else { status },
                    priority,
                    due_at,
                    tags: tags.into_iter().collect(),
                    created_at: at(born),
                    updated_at: time,
                    ..Task::new("")
                });
                if let Some((until, seconds)) = away {
                    let before = life.last().unwrap().clone();
                    for (deleted, seconds) in [(true, until), (false, seconds)] {
                        time += TimeDelta::seconds(seconds);
                        let version = i64::try_from(life.len()).unwrap() + 1;
                        life.push(Task { version, deleted, updated_at: time, ..before.clone() });
                    }
                }
            }
            if fate == 0 {
                let last = life.last().unwrap().clone();
                life.push(Task { version: last.version + 1, deleted: true, ..last });
            }
            life
        },
    )
}

async fn live(world: &World, owner: Uuid, life: &Life) {
    let mut before: Option<&Task> = None;
    for task in life {
        let mut changes = json!({});
        // The title only where it is another one: that of a version is to be looked for in the ones before.
        if before.is_none_or(|before| before.title != task.title) {
            changes["title"] = json!({"from": before.map(|before| &before.title), "to": task.title});
        }
        world.event(owner, task, if before.is_none() { "TaskCreated" } else { "TaskChanged" }, changes).await;
        before = Some(task);
    }
}

/// The tasks as they were then.
fn at_time(lives: &[Life], time: Time) -> HashMap<Uuid, Task> {
    let last = |life: &Life| life.iter().rfind(|task| task.updated_at <= time).cloned();
    lives.iter().filter_map(last).filter(|task| !task.deleted).map(|task| (task.id, task)).collect()
}

#[tokio::test]
async fn lists_as_of_each_time_are_what_the_versions_were() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut runner = TestRunner::new(Config::default());
    let lives = proptest::collection::vec(life(), 60).new_tree(&mut runner).unwrap().current();
    // Half of them while the versions are in memory already.
    for life in &lives[..30] {
        live(&world, owner, life).await;
    }
    assert_eq!(walk(&world, owner, &format!("as_of={}", rfc(at(99)))).await.len(), at_time(&lives[..30], at(99)).len());
    for life in &lives[30..] {
        live(&world, owner, life).await;
    }
    live(&world, Uuid::new_v4(), &lives[0]).await;
    for time in [-1, 0, 1, 3, 6, 9, 99].map(at) {
        let tasks = at_time(&lives, time);
        let now_apart = FILTERS.into_iter().filter(|(query, _)| !query.contains("overdue"));
        let overdue = |task: &Task| task.status < 2 && task.due_at.is_some_and(|due| due < time);
        let filters = now_apart.map(|(query, filter)| (query, Box::new(filter) as Box<dyn Fn(&Task) -> bool>));
        for (query, filter) in filters.chain([("&overdue=true", Box::new(overdue) as _)]) {
            let path = format!("/api/v1/tasks/facets?as_of={}{query}", rfc(time));
            let facets = world.get(owner, &path).await.ok().json();
            let matching = tasks.values().filter(|task| filter(task));
            assert_eq!(facets["total"], matching.clone().count(), "{path}");
            assert_eq!(facets["by_priority"]["urgent"], matching.filter(|task| task.priority == 3).count(), "{path}");
            for sort in SORTS {
                for (sign, descending) in [("", false), ("-", true)] {
                    let query = format!("as_of={}&sort={sign}{sort}&limit=7{query}", rfc(time));
                    let found = walk(&world, owner, &query).await;
                    assert_eq!(found, expected(&tasks, &filter, sort, descending), "{query}");
                }
            }
        }
    }
}

/// While a replica is away, the versions of none are kept in memory: they are read from the table of the primary.
#[tokio::test]
async fn a_past_that_is_not_kept_in_memory_is_the_same() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut runner = TestRunner::new(Config::default());
    let lives = proptest::collection::vec(life(), 20).new_tree(&mut runner).unwrap().current();
    for life in &lives {
        live(&world, owner, life).await;
    }
    // Nobody listens there.
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let away = world.with_replica_untried(query_api::connect(nowhere, 4));
    let flow = "/api/v1/stats/flow?from=2026-05-27&to=2026-05-29".to_owned();
    let mut paths = vec![flow];
    for time in [-1, 0, 3, 6, 99].map(at).map(rfc) {
        paths.push(format!("/api/v1/tasks/facets?as_of={time}&status=pending,completed"));
        paths.push(format!("/api/v1/tasks/facets?as_of={time}&q=green"));
        for sort in SORTS {
            paths.push(format!("/api/v1/tasks?as_of={time}&limit=200&sort=-{sort}"));
            paths.push(format!("/api/v1/tasks?as_of={time}&limit=200&sort={sort}&q=green%20p"));
        }
    }
    for path in paths {
        let kept = world.get(owner, &path).await.ok().json();
        let unkept = world.send(&away, owner, &path, &[]).await.ok().json();
        assert_eq!(unkept, kept, "{path}");
    }
}

/// Reads whose statements have waited longer for a lock than texts of then may be searched.
const WAITED_TOO_LONG: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and clock_timestamp() - query_start > interval '2.1 s'";

#[tokio::test]
async fn texts_of_then_are_searched_for_two_seconds_at_most() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("apple")).await;
    // from here on the versions are in memory, and the texts are all that is read
    world.get(owner, &format!("/api/v1/tasks?as_of={}", rfc(at(98)))).await.ok();
    let as_of = rfc(at(99));
    let [list, facets] = ["", "/facets"].map(|of| format!("/api/v1/tasks{of}?as_of={as_of}&q=app"));
    let without_q = format!("/api/v1/tasks?as_of={as_of}");

    let mut lock = world.db.begin().await.unwrap();
    sqlx::raw_sql("lock table read_model.history in access exclusive mode").execute(&mut *lock).await.unwrap();
    let unlocked = async {
        eventually("all three have waited too long", async || {
            let waiting: i64 = sqlx::query_scalar(WAITED_TOO_LONG).fetch_one(&world.db).await.unwrap();
            waiting == 3
        })
        .await;
        lock.rollback().await.unwrap();
    };
    let (listed, counted, all, ()) =
        tokio::join!(world.get(owner, &list), world.get(owner, &facets), world.get(owner, &without_q), unlocked);
    for answer in [listed, counted] {
        let answer = answer.refused(503, "search-too-slow");
        assert_ne!(answer.header("retry-after"), "");
    }
    all.ok();
    // nothing is left of it
    assert_eq!(world.get(owner, &list).await.ok().json()["items"][0]["title"], "apple");
    assert_eq!(world.get(owner, &facets).await.ok().json()["total"], 1);
}
