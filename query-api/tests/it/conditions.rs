//! ETags and 304.

use axum::http::StatusCode;
use serde_json::json;
use system_tests::wait::eventually;
use uuid::Uuid;

use crate::world::{Answer, Task, World, at};

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("x");
    world.create(owner, &task).await;
    let paths = [
        ("/api/v1/tasks".to_owned(), true),
        ("/api/v1/stats?to=2026-05-28".to_owned(), true),
        ("/api/v1/tasks/facets".to_owned(), true),
        ("/api/v1/tasks/suggest?q=x".to_owned(), true),
        (format!("/api/v1/tasks/{}/history", task.id), true),
        (format!("/api/v1/tasks/{}", task.id), false),
    ];
    for (path, weak) in &paths {
        let first = world.get(owner, path).await.ok();
        let etag = first.header("etag").to_owned();
        assert_eq!(etag.starts_with("W/\""), *weak, "{path}: {etag}");
        assert_eq!(first.header("cache-control"), "private, no-cache");
        for sent in
            [etag.clone(), format!("\"other\", {etag}"), "*".to_owned(), etag.trim_start_matches("W/").to_owned()]
        {
            let again = world.send(&world.router, owner, path, &[("if-none-match", &sent)]).await;
            assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path} {sent}");
            assert_eq!(again.header("etag"), etag);
            assert_eq!(again.header("consistency-token"), first.header("consistency-token"));
        }
        world.send(&world.router, owner, path, &[("if-none-match", "\"other\"")]).await.ok();
        world
            .send(&world.router, owner, path, &[("if-none-match", "nothing quoted")])
            .await
            .refused(400, "invalid-parameter");

        let token = world.token(owner, world.rename(owner, &mut task, "y").await);
        let headers = [("if-none-match", etag.as_str()), ("consistency-token", token.as_str())];
        let changed = world.send(&world.router, owner, path, &headers).await.ok();
        assert_ne!(changed.header("etag"), etag);
    }
}

#[tokio::test]
async fn nobody_shares_an_etag_or_an_answer() {
    let world = World::new().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    // The same position, as on two shards.
    let position = world.next_position();
    world.event_at(one, &Task::new("one's"), "TaskCreated", json!({}), position).await;
    world.event_at(two, &Task::new("two's"), "TaskCreated", json!({}), position).await;
    // The same counters, the same request, the same process.
    for (owner, title) in [(one, "one's"), (two, "two's"), (one, "one's")] {
        assert_eq!(world.get(owner, "/api/v1/tasks").await.ok().json()["items"][0]["title"], title);
    }
}

/// Overdue comes by itself: the ETag carries the moment.
/// A task that was deleted longer ago than that cannot be restored, though nothing has happened.
#[tokio::test]
async fn the_trash_changes_with_the_clock() {
    const TRASH: &str = "/api/v1/tasks/deleted";
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let days = chrono::TimeDelta::days;
    // far enough away for a slow machine to put it there before
    let until = process::clock::now() + chrono::TimeDelta::seconds(5);
    let deleted = |title: &str, days_before: i64| Task {
        deleted: true,
        created_at: until - days(40),
        updated_at: until - days(days_before),
        ..Task::new(title)
    };
    world.put(owner, &[deleted("gone", 31), deleted("old", 30), deleted("new", 1)]).await;
    let titles = |answer: &Answer| -> Vec<String> {
        let body = answer.json();
        let items = body["items"].as_array().unwrap();
        items.iter().map(|item| item["title"].as_str().unwrap().to_owned()).collect()
    };
    let first = world.get(owner, TRASH).await.ok();
    assert_eq!(titles(&first), ["new", "old"]);
    let etag = first.header("etag").to_owned();
    let same = world.send(&world.router, owner, TRASH, &[("if-none-match", &etag)]).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    eventually("it is not listed", async || {
        let answer = world.send(&world.router, owner, TRASH, &[("if-none-match", &etag)]).await;
        if answer.status == StatusCode::NOT_MODIFIED {
            return false;
        }
        assert!(process::clock::now() > until);
        assert_eq!(titles(&answer), ["new"]);
        true
    })
    .await;
}

#[tokio::test]
async fn an_etag_ends_when_the_clock_changes_the_answer() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    // far enough away for a slow machine to put it there before
    let due_at = process::clock::now() + chrono::TimeDelta::seconds(5);
    let done = Task {
        status: 2,
        completed_at: Some(at(5)),
        due_at: Some(due_at - chrono::TimeDelta::milliseconds(700)),
        ..Task::new("done")
    };
    world.put(owner, &[Task { due_at: Some(due_at), ..Task::new("x") }, done]).await;
    let paths = [
        "/api/v1/stats?from=2026-05-01&to=2026-05-28",
        "/api/v1/tasks?overdue=true",
        "/api/v1/tasks/facets?overdue=true",
    ];
    let overdue = |answer: &Answer| {
        let body = answer.json();
        body["overdue"]
            .as_u64()
            .or(body["total"].as_u64())
            .or_else(|| body["items"].as_array().map(|items| items.len() as u64))
    };
    let mut etags = Vec::new();
    for path in paths {
        let first = world.get(owner, path).await.ok();
        assert_eq!(overdue(&first), Some(0), "{path}");
        let etag = first.header("etag").to_owned();
        let same = world.send(&world.router, owner, path, &[("if-none-match", &etag)]).await;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED, "{path}");
        etags.push(etag);
    }
    for (path, etag) in paths.into_iter().zip(etags) {
        eventually("the task is overdue", async || {
            let asked_at = process::clock::now();
            let answer = world.send(&world.router, owner, path, &[("if-none-match", &etag)]).await;
            if answer.status == StatusCode::NOT_MODIFIED {
                assert!(asked_at <= due_at);
                return false;
            }
            assert!(process::clock::now() > due_at);
            assert_eq!(overdue(&answer), Some(1), "{path}");
            assert_ne!(answer.header("etag"), etag);
            true
        })
        .await;
    }
    let list = world.get(owner, "/api/v1/tasks").await.ok();
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2, "{}", json!(null));
}
