//! Consistency tokens, several processes, generations, parked events: with each process's own cache alone, and with a
//! Redis between them.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::wait::eventually;
use uuid::Uuid;

use crate::world::{Task, World};

const TOKEN: &str = "consistency-token";

macro_rules! with_each_cache {
    ($($test:ident),* $(,)?) => {
        mod own_caches_alone {
            use crate::world::World;

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(World::new().await).await;
                }
            )*
        }

        mod with_redis {
            use crate::world::World;

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(World::with_redis(&system_tests::redis::Redis::shared().url()).await).await;
                }
            )*
        }
    };
}

with_each_cache! {
    a_read_with_a_token_waits_for_what_it_stands_for,
    two_seconds_is_the_longest_wait,
    tokens_of_others_and_of_other_logs_are_refused,
    every_read_hands_out_a_token_that_holds_at_every_copy,
    a_process_never_shows_less_than_before,
    the_same_etag_means_the_same_bytes,
    simultaneous_reads_get_the_same_answer,
    a_token_at_or_past_a_parked_event_is_refused_at_once,
}

async fn a_read_with_a_token_waits_for_what_it_stands_for(world: World) {
    let owner = Uuid::new_v4();
    for hinted in [true, false] {
        let router = world.another_process(hinted);
        world.create(owner, &Task::new("before")).await;
        world.send(&router, owner, "/api/v1/tasks", &[]).await.ok();
        let position = world.next_position();
        let token = world.token(owner, position);
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.event_at(owner, &Task::new("after"), "TaskCreated", json!({}), position).await;
        };
        let headers = [(TOKEN, token.as_str())];
        let began = Instant::now();
        let ((), answer) = tokio::join!(late, world.send(&router, owner, "/api/v1/tasks?limit=1&q=after", &headers));
        let body = answer.ok().json();
        assert_eq!(body["items"].as_array().unwrap().len(), 1);
        assert_eq!(body["revision"], position);
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    }
}

async fn two_seconds_is_the_longest_wait(world: World) {
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("x")).await;
    let token = world.token(owner, 1000);
    let began = Instant::now();
    for path in ["/api/v1/tasks", "/api/v1/stats"] {
        let answer = world.send(&world.router, owner, path, &[(TOKEN, &token)]).await.refused(503, "not-caught-up");
        assert!(!answer.header("retry-after").is_empty());
    }
    assert!((4000..8000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // An account of which nothing was ever applied waits as well.
    let nobody = Uuid::new_v4();
    let token = world.token(nobody, 7);
    world.send(&world.router, nobody, "/api/v1/tasks", &[(TOKEN, &token)]).await.refused(503, "not-caught-up");
}

async fn tokens_of_others_and_of_other_logs_are_refused(world: World) {
    let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
    world.create(owner, &Task::new("x")).await;
    let of_other = world.token(other, 1);
    let of_other_log = world.sealer.consistency_token(Uuid::new_v4(), domain::OwnerId(owner), 0, 1);
    let good = world.token(owner, 1);
    let mut forged = good.clone();
    forged.replace_range(26..27, if &good[26..27] == "A" { "B" } else { "A" });
    for token in [of_other.as_str(), &of_other_log, &forged, "x"] {
        for path in ["/api/v1/tasks", "/api/v1/stats"] {
            world.send(&world.router, owner, path, &[(TOKEN, token)]).await.refused(400, "invalid-consistency-token");
        }
    }
    world.send(&world.router, owner, "/api/v1/tasks", &[(TOKEN, &good)]).await.ok();
    world
        .send(&world.router, owner, "/api/v1/tasks", &[(TOKEN, &good), (TOKEN, &good)])
        .await
        .refused(400, "invalid-parameter");
}

async fn every_read_hands_out_a_token_that_holds_at_every_copy(world: World) {
    let owner = Uuid::new_v4();
    let copies = [world.another_process(true), world.another_process(false)];
    // Of an account that has nothing yet, too.
    let mut token = world.send(&copies[0], owner, "/api/v1/tasks", &[]).await.ok().header(TOKEN).to_owned();
    let mut task = Task::new("0");
    world.create(owner, &task).await;
    let mut shown = 0;
    for n in 1..60 {
        world.rename(owner, &mut task, &n.to_string()).await;
        let copy = &copies[n % 2];
        let paths = [
            "/api/v1/tasks".to_owned(),
            format!("/api/v1/tasks/{}", task.id),
            "/api/v1/stats".to_owned(),
            format!("/api/v1/tasks/{}/history", task.id),
        ];
        let answer = world.send(copy, owner, &paths[n % 4], &[(TOKEN, &token)]).await.ok();
        token = answer.header(TOKEN).to_owned();
        let body = world.send(&copies[(n + 1) % 2], owner, "/api/v1/tasks", &[(TOKEN, &token)]).await.ok().json();
        let version = body["items"][0]["version"].as_i64().unwrap();
        assert!(version >= shown, "{version} after {shown}");
        shown = version;
    }
}

/// Without a token, too, a process does not take back what it has shown.
async fn a_process_never_shows_less_than_before(world: World) {
    let owner = Uuid::new_v4();
    let mut task = Task::new("0");
    world.create(owner, &task).await;
    let id = task.id;
    let writing = async {
        for n in 0..200 {
            world.rename(owner, &mut task, &n.to_string()).await;
        }
    };
    let reading = async {
        let mut shown = 0;
        for n in 0..400 {
            // A new request each time is loaded anew; the others come from the cache.
            let path =
                if n % 2 == 0 { format!("/api/v1/tasks?limit={}", 1 + n % 200) } else { "/api/v1/tasks".to_owned() };
            let body = world.get(owner, &path).await.ok().json();
            let version = body["items"][0]["version"].as_i64().unwrap();
            assert!(version >= shown, "{version} after {shown}");
            shown = version;
            let version =
                world.get(owner, &format!("/api/v1/tasks/{id}")).await.ok().json()["version"].as_i64().unwrap();
            assert!(version >= shown, "{version} after {shown}");
            shown = version;
        }
    };
    tokio::join!(writing, reading);
}

/// A body and its ETag are of one snapshot: what has the same ETag is the same.
async fn the_same_etag_means_the_same_bytes(world: World) {
    let owner = Uuid::new_v4();
    let copies = [world.another_process(true), world.another_process(false)];
    let mut task = Task::new("0");
    world.create(owner, &task).await;
    let writing = async {
        for n in 0..150 {
            world.rename(owner, &mut task, &n.to_string()).await;
        }
    };
    let reading = async {
        let mut seen = std::collections::HashMap::new();
        for n in 0..600 {
            let answer = world.send(&copies[n % 2], owner, "/api/v1/tasks", &[]).await.ok();
            let body = answer.body.clone();
            let before = seen.entry(answer.header("etag").to_owned()).or_insert_with(|| body.clone());
            assert_eq!(String::from_utf8_lossy(before), String::from_utf8_lossy(&body));
        }
        assert!(seen.len() > 10);
    };
    tokio::join!(writing, reading);
}

async fn simultaneous_reads_get_the_same_answer(world: World) {
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("x")).await;
    let answers = futures_util::future::join_all((0..200).map(|_| world.get(owner, "/api/v1/tasks?limit=3"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
}

async fn a_token_at_or_past_a_parked_event_is_refused_at_once(world: World) {
    let owner = Uuid::new_v4();
    let before = world.create(owner, &Task::new("a")).await;
    let parked = world.next_position();
    let after = world.create(owner, &Task::new("b")).await;
    world.park(owner, Some(parked)).await;
    let send = async |token: &str| world.send(&world.router, owner, "/api/v1/tasks", &[(TOKEN, token)]).await;
    let began = Instant::now();
    for position in [parked, after, after + 10] {
        let answer = send(&world.token(owner, position)).await.refused(503, "projection-parked");
        assert!(!answer.header("retry-after").is_empty());
    }
    assert!(began.elapsed() < Duration::from_millis(1000));
    send(&world.token(owner, before)).await.ok();
    // Other reads go on, also those of who sends back what a read gave out.
    let answer = world.get(owner, "/api/v1/tasks").await.ok();
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(answer.json()["revision"], before, "to resume a stream from: nothing is missing up to there");
    send(answer.header(TOKEN)).await.ok();
    world.park(owner, None).await;
    send(&world.token(owner, after)).await.ok();
    send(answer.header(TOKEN)).await.ok();
    assert_eq!(world.get(owner, "/api/v1/tasks").await.ok().json()["revision"], after);
}

#[tokio::test]
async fn a_switch_of_generations_changes_the_etag_and_nothing_else() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("x")).await;
    let before = world.get(owner, "/api/v1/tasks?limit=7").await.ok();
    let token = before.header(TOKEN).to_owned();
    world.switch_generation(2).await;
    eventually("the other generation", async || {
        let after = world.send(&world.router, owner, "/api/v1/tasks?limit=7", &[(TOKEN, &token)]).await.ok();
        assert_eq!(before.json(), after.json());
        assert_eq!(after.header(TOKEN), token, "tokens carry no generation");
        before.header("etag") != after.header("etag")
    })
    .await;
}

/// What most reads need is planned before there is a read.
#[tokio::test]
async fn sessions_are_made_ready_before_the_first_read() {
    let world = World::new().await;
    eventually("four sessions that have planned the last of it", async || {
        let ready = sqlx::query_scalar!(
            r#"select count(*) as "ready!" from pg_stat_activity
               where datname = current_database() and application_name = 'primetrade query-api' and state = 'idle'
                 and query like '%with ordinality as w%'"#
        );
        ready.fetch_one(&world.db).await.unwrap() == 4
    })
    .await;
    world.get(Uuid::new_v4(), "/api/v1/tasks").await.ok();
}
