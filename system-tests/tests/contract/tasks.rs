use crate::here::api;
use chrono::{Duration as Time, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

/// A task with a past, on the first five days of 2020.
async fn with_a_past(account: &system_tests::client::Account) -> Uuid {
    let id = Uuid::now_v7();
    let day = |n: u32, mut command: Value| {
        command["task_id"] = json!(id);
        command["occurred_at"] = json!(format!("2020-01-0{n}T00:00:00Z"));
        command
    };
    let body = account
        .batch(&[
            day(1, json!({"type": "CreateTask", "title": "one", "tags": ["a"]})),
            day(2, json!({"type": "RenameTask", "title": "two"})),
            day(3, json!({"type": "StartTask"})),
            day(3, json!({"type": "TagTask", "tag": "b"})),
            day(4, json!({"type": "CompleteTask"})),
            day(5, json!({"type": "ReopenTask"})),
        ])
        .await
        .expect(200)
        .json();
    assert_eq!(body["succeeded"], 6, "{body}");
    id
}

#[tokio::test]
async fn as_of() {
    let account = api().await.account().await;
    let id = with_a_past(&account).await;
    let at = |time: &'static str| {
        let path = format!("{TASKS}/{id}?as_of={time}");
        let account = &account;
        async move { account.read(&path).await }
    };
    at("2019-12-31T23:59:59Z").await.problem(404);
    for (time, version, title, status, tags) in [
        ("2020-01-01T00:00:00Z", 1, "one", "pending", json!(["a"])),
        ("2020-01-01T23:59:59.999999Z", 1, "one", "pending", json!(["a"])),
        ("2020-01-02T01:00:00%2B01:00", 2, "two", "pending", json!(["a"])),
        ("2020-01-03T00:00:00Z", 4, "two", "in_progress", json!(["a", "b"])),
        ("2020-01-04T12:00:00Z", 5, "two", "completed", json!(["a", "b"])),
        ("2020-01-05T00:00:00Z", 6, "two", "pending", json!(["a", "b"])),
        ("2026-01-01T00:00:00Z", 6, "two", "pending", json!(["a", "b"])),
    ] {
        let task = at(time).await.expect(200).json();
        assert_eq!(task["version"], version, "{time}");
        assert_eq!((&task["title"], &task["status"]), (&json!(title), &json!(status)), "{time}");
        assert_eq!(task["tags"], tags, "{time}");
        assert_eq!(task["created_at"], "2020-01-01T00:00:00Z");
    }
    let completed = at("2020-01-04T00:00:00Z").await.expect(200).json();
    assert_eq!(completed["started_at"], "2020-01-03T00:00:00Z");
    assert_eq!(completed["completed_at"], "2020-01-04T00:00:00Z");
    assert_eq!(completed["updated_at"], "2020-01-04T00:00:00Z");
    // now, as of now, is the task; a minute ahead is near enough
    let soon = (Utc::now() + Time::seconds(30)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let now = account.read(&format!("{TASKS}/{id}?as_of={soon}")).await.expect(200).json();
    assert_eq!(now, account.task(id).await);
}

#[tokio::test]
async fn history() {
    let account = api().await.account().await;
    let id = with_a_past(&account).await;
    let path = format!("{TASKS}/{id}/history");
    let whole = account.read(&path).await.expect(200).json();
    assert_eq!(whole["next_cursor"], json!(null));
    let items = whole["items"].as_array().unwrap();
    let types: Vec<_> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["TaskCreated", "TaskRenamed", "TaskStarted", "TaskTagged", "TaskCompleted", "TaskReopened"]);
    for (index, item) in items.iter().enumerate() {
        assert_eq!(item["version"], index + 1);
        assert_eq!(item["actor"], json!({"type": "user", "id": account.id}));
        for field in ["occurred_at", "recorded_at"] {
            system_tests::client::time(item[field].as_str().unwrap());
        }
    }
    assert_eq!(items[1]["changes"], json!({"title": {"from": "one", "to": "two"}}));
    assert_eq!(items[3]["changes"], json!({"tags": {"from": ["a"], "to": ["a", "b"]}}));
    assert_eq!(items[2]["changes"]["status"], json!({"from": "pending", "to": "in_progress"}));
    assert_eq!(items[5]["changes"]["completed_at"], json!({"from": "2020-01-04T00:00:00Z", "to": null}));
    // in pages
    assert_eq!(account.walk(&format!("{path}?limit=1")).await, *items);
    assert_eq!(account.walk(&format!("{path}?limit=4")).await, *items);
}

#[tokio::test]
async fn one_owner_never_sees_another() {
    let api = api().await;
    let (mine, theirs) = (api.account().await, api.account().await);
    let id = mine.create(json!({"title": "private", "tags": ["secret"]})).await;
    mine.task(id).await;
    let task = format!("{TASKS}/{id}");
    let unknown = format!("{TASKS}/{}", Uuid::now_v7());
    for (method, rest, body) in [
        ("GET", "", None),
        ("GET", "/history", None),
        ("GET", "?as_of=2026-06-01T00:00:00Z", None),
        ("PATCH", "", Some(json!({"title": "x"}))),
        ("POST", "/start", None),
        ("POST", "/complete", None),
        ("POST", "/reopen", None),
        ("POST", "/cancel", None),
        ("DELETE", "", None),
    ] {
        let ask = |path: &str| {
            let request = theirs.request(method, &format!("{path}{rest}"));
            match &body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let mut foreign = ask(&task).send().await.problem(404);
        let mut missing = ask(&unknown).send().await.problem(404);
        foreign["trace_id"] = json!(null);
        missing["trace_id"] = json!(null);
        let text = foreign.to_string().replace(&id.to_string(), "");
        let other = missing.to_string().replace(&unknown[TASKS.len() + 1..], "");
        assert_eq!(text, other, "{method} {rest}");
    }
    for path in [TASKS, "/api/v1/stats", &format!("{TASKS}?tag=secret"), &format!("{TASKS}?q=private")] {
        let text = theirs.read(path).await.expect(200).text();
        assert!(!text.contains("private") && !text.contains(&id.to_string()), "{path}: {text}");
    }
    let stats = theirs.read("/api/v1/stats").await.json();
    assert_eq!(stats["by_status"]["pending"], 0);
    let batch = [json!({"type": "StartTask", "task_id": id})];
    assert_eq!(theirs.batch(&batch).await.expect(200).json()["results"][0]["status"], 404);
    assert_eq!(mine.task(id).await["version"], 1);
}
