//! `GET /api/v1/stream`.

use std::time::Duration;

use crate::here::api;
use serde_json::json;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn events_as_they_happen() {
    let account = api().await.account().await;
    let earlier = account.create(json!({"title": "earlier"})).await;
    account.task(earlier).await;
    let mut stream = account.stream(None).await;
    assert_eq!(stream.status, 200);
    assert!(stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    // it starts now, with an id-only message at once
    let first = stream.next(SOON).await.expect("a message");
    assert!(!first.id.is_empty() && first.event.is_empty() && first.data.is_empty(), "{first:?}");

    let id = account.create(json!({"title": "live", "tags": ["a"]})).await;
    account.patch(id, json!({"title": "lively", "priority": "high"})).await.expect(200);
    account.act(id, "start").await.expect(200);
    account.delete(id).await.expect(204);
    let mut last = 0;
    for (event, version) in
        [("TaskCreated", 1), ("TaskRenamed", 2), ("TaskReprioritized", 3), ("TaskStarted", 4), ("TaskDeleted", 5)]
    {
        let message = stream.next_event(SOON).await;
        assert_eq!(message.event, event);
        let data = message.json();
        assert_eq!((&data["id"], &data["version"]), (&json!(id), &json!(version)));
        match event {
            "TaskDeleted" => assert_eq!(data, json!({"id": id, "version": 5})),
            // the task's state after that event, not after a later one
            "TaskCreated" => assert_eq!((&data["title"], &data["status"]), (&json!("live"), &json!("pending"))),
            "TaskRenamed" => assert_eq!((&data["title"], &data["priority"]), (&json!("lively"), &json!("medium"))),
            "TaskStarted" => assert_eq!(data["status"], "in_progress"),
            _ => {}
        }
        if event != "TaskDeleted" {
            assert_eq!(data["tags"], json!(["a"]));
            assert!(data["created_at"].is_string());
        }
        let revision: u64 = message.id.parse().expect("a revision");
        assert!(revision > last);
        last = revision;
    }
}

#[tokio::test]
async fn jobs_as_they_go_on() {
    let (account, stranger) = (api().await.account().await, api().await.account().await);
    let (mut stream, mut other) = (account.stream(None).await, stranger.stream(None).await);
    let export = account.request("POST", "/api/v1/exports").json(&json!({"format": "csv"}));
    let asked = export.send().await.expect(202);
    loop {
        let message = stream.next(SOON).await.expect("a message");
        if message.event != "job" {
            assert!(message.event.is_empty(), "{message:?}");
            continue;
        }
        assert!(message.id.is_empty(), "{message:?}");
        let job = message.json();
        assert_eq!(job["id"], asked.string("/id"));
        if job["state"] == "succeeded" {
            assert_eq!(job, account.read(asked.must("Location")).await.expect(200).json());
            break;
        }
    }
    let id = stranger.create(json!({"title": "a"})).await;
    let message = other.next_event(SOON).await;
    assert_eq!((&*message.event, message.json()["id"].as_str()), ("TaskCreated", Some(&*id.to_string())));
}

#[tokio::test]
async fn resumes_without_a_gap() {
    let account = api().await.account().await;
    let since = account.read("/api/v1/tasks").await.expect(200).number("/revision");
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(account.create(json!({"title": format!("t{n}")})).await);
    }
    account.task(ids[29]).await;
    // from any past id, as a list's revision
    let mut seen = Vec::new();
    let mut last = since.to_string();
    while seen.len() < 30 {
        let mut stream = account.stream(Some(&last)).await;
        assert_eq!(stream.status, 200);
        for _ in 0..7.min(30 - seen.len()) {
            let message = stream.next_event(SOON).await;
            seen.push(message.json()["id"].as_str().unwrap().parse::<Uuid>().unwrap());
            last = message.id;
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn nothing_of_others() {
    let api = api().await;
    let (mine, theirs) = (api.account().await, api.account().await);
    let mut stream = mine.stream(None).await;
    stream.next(SOON).await;
    for _ in 0..20 {
        theirs.create(json!({"title": "theirs"})).await;
        mine.create(json!({"title": "mine"})).await;
    }
    for _ in 0..20 {
        assert_eq!(stream.next_event(SOON).await.json()["title"], "mine");
    }
}

#[tokio::test]
async fn a_comment_every_15_seconds() {
    let account = api().await.account().await;
    let mut stream = account.stream(None).await;
    stream.next(SOON).await.expect("the id");
    let started = std::time::Instant::now();
    let heartbeat = stream.next(Duration::from_secs(25)).await.expect("a heartbeat");
    assert!(heartbeat.comment.is_some(), "{heartbeat:?}");
    assert!((13..20).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn ten_for_an_account() {
    let account = api().await.account().await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = account.stream(None).await;
        assert_eq!(stream.status, 200);
        stream.next(SOON).await;
        open.push(stream);
    }
    let refused = account.stream(None).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    let problem: serde_json::Value = serde_json::from_slice(&refused.into_body().await).unwrap();
    system_tests::client::check_problem(&problem, 429).unwrap();
    open.pop();
    system_tests::wait::until("a place is free again", SOON, || async {
        (account.stream(None).await.status == 200).then_some(())
    })
    .await;
    // another account has places of its own
    let other = account.api.account().await;
    assert_eq!(other.stream(None).await.status, 200);
}

#[tokio::test]
async fn ends_with_the_session() {
    let account = api().await.account().await;
    let mut stream = account.stream(None).await;
    stream.next(SOON).await.expect("the id");
    account.request("POST", "/api/v1/auth/logout").send().await.expect(204);
    assert_eq!(stream.next(SOON).await, None);
}
