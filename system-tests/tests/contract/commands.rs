use crate::here::api;
use serde_json::json;
use system_tests::client::{Answer, time};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

/// A write answers `{id, version, revision}`, its ETag and a token.
#[track_caller]
fn accepted(answer: &Answer, status: u16, id: Uuid, version: u64) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    let fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["id", "revision", "version"]);
    assert_eq!(answer.uuid("/id"), id);
    assert_eq!(answer.number("/version"), version);
    assert_eq!(answer.must("ETag"), format!("\"{version}\""));
    assert!(!answer.must("Consistency-Token").is_empty());
    assert_eq!(answer.must("Content-Type"), "application/json");
}

#[tokio::test]
async fn create_patch_act_delete() {
    let account = api().await.account().await;
    let created = account
        .request("POST", TASKS)
        .json(&json!({"title": "  Buy milk ", "tags": ["Shop", "shop"]}))
        .send()
        .await
        .expect(201);
    let id = created.uuid("/id");
    accepted(&created, 201, id, 1);
    assert_eq!(created.must("Location"), format!("{TASKS}/{id}"));
    let first = created.number("/revision");

    let task = account.task(id).await;
    assert_eq!(task["title"], "Buy milk");
    assert_eq!(task["description"], json!(null));
    assert_eq!(task["status"], "pending");
    assert_eq!(task["priority"], "medium");
    assert_eq!(task["tags"], json!(["shop"]));
    assert_eq!(task["version"], 1);
    for field in ["due_at", "started_at", "completed_at"] {
        assert_eq!(task[field], json!(null), "{field}");
    }
    assert_eq!(task["created_at"], task["updated_at"]);
    time(task["created_at"].as_str().unwrap());

    // one event for each thing that changed
    let patch = json!({"title": "Buy oat milk", "description": "2 litres", "priority": "high",
        "due_at": "2030-01-01T12:00:00+02:00", "tags": ["kitchen"]});
    let patched = account.patch(id, patch.clone()).await;
    accepted(&patched, 200, id, 7);
    assert!(patched.number("/revision") > first);
    // none where nothing did
    accepted(&account.patch(id, patch).await, 200, id, 7);
    let task = account.task(id).await;
    assert_eq!(task["due_at"], "2030-01-01T10:00:00Z");
    assert_eq!(task["tags"], json!(["kitchen"]));
    assert_eq!(task["description"], "2 litres");

    // null empties
    accepted(&account.patch(id, json!({"description": null, "due_at": null, "tags": null})).await, 200, id, 10);
    let task = account.task(id).await;
    assert_eq!((&task["description"], &task["due_at"], &task["tags"]), (&json!(null), &json!(null), &json!([])));

    accepted(&account.act(id, "start").await, 200, id, 11);
    assert!(account.task(id).await["started_at"].is_string());
    accepted(&account.act(id, "complete").await, 200, id, 12);
    let task = account.task(id).await;
    assert_eq!(task["status"], "completed");
    assert!(task["completed_at"].is_string());
    accepted(&account.act(id, "reopen").await, 200, id, 13);
    let task = account.task(id).await;
    assert_eq!((&task["started_at"], &task["completed_at"]), (&json!(null), &json!(null)));
    accepted(&account.act(id, "start").await, 200, id, 14);
    accepted(&account.act(id, "cancel").await, 200, id, 15);
    let task = account.task(id).await;
    assert_eq!(task["status"], "cancelled");
    assert!(task["started_at"].is_string(), "cancel leaves started_at");

    for _ in 0..2 {
        let deleted = account.delete(id).await.expect(204);
        assert!(deleted.body.is_empty());
        assert_eq!(deleted.must("ETag"), "\"16\"");
        assert!(!deleted.must("Consistency-Token").is_empty());
    }
    for path in ["", "/history", "?as_of=2100-01-01T00:00:00Z"] {
        let read = account.read(&format!("{TASKS}/{id}{path}")).await;
        if path.contains("2100") {
            read.problem(400);
        } else {
            read.problem(404);
        }
    }
    account.act(id, "reopen").await.problem(404);
    account.patch(id, json!({"title": "again"})).await.problem(404);
}

#[tokio::test]
async fn merge_patch_media_type_is_taken() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "before"})).await;
    let path = format!("{TASKS}/{id}");
    let request = account.request("PATCH", &path);
    request.body("application/merge-patch+json", r#"{"title":"after"}"#).send().await.expect(200);
    assert_eq!(account.task(id).await["title"], "after");
    let request = account.request("PATCH", &path).body("application/json-patch+json", "[]");
    request.send().await.problem(415);
}

#[tokio::test]
async fn actions_take_no_body_or_an_empty_object() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}/start");
    account.request("POST", &path).send().await.expect(200);
    account.request("POST", &path).json(&json!({})).send().await.expect(200);
    account.request("POST", &path).json(&json!({"why": 1})).send().await.problem(400);
    account.request("POST", &path).json(&json!([])).send().await.problem(400);
}

#[tokio::test]
async fn an_own_id_is_taken() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let body = json!({"id": id, "title": "mine", "due_at": "2031-05-05T00:00:00Z", "tags": ["b", "a"]});
    let created = account.request("POST", TASKS).json(&body).send().await;
    accepted(&created, 201, id, 1);
    account.patch(id, json!({"title": "renamed since"})).await.expect(200);
    // the same id with the content it was created with is the same task, however it is written
    let same = json!({"id": id.to_string().to_uppercase(), "title": " mine ", "due_at": "2031-05-05T02:00:00+02:00", "tags": ["A", "b", "b"], "description": null});
    let again = account.request("POST", TASKS).json(&same).send().await;
    accepted(&again, 200, id, 2);
    assert_eq!(again.must("Location"), format!("{TASKS}/{id}"));
    // with other content it is not
    let other = json!({"id": id, "title": "other"});
    account.request("POST", TASKS).json(&other).send().await.problem(409);
    // an id is its owner's own
    let stranger = account.api.account().await;
    let theirs = stranger.request("POST", TASKS).json(&other).send().await;
    accepted(&theirs, 201, id, 1);
    assert_eq!(account.task(id).await["title"], "renamed since");
    // deleted, it is gone for ever
    account.delete(id).await.expect(204);
    account.request("POST", TASKS).json(&body).send().await.problem(409);
}

#[tokio::test]
async fn if_match() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}");
    let patch = |title: &str| account.request("PATCH", &path).json(&json!({"title": title}));
    accepted(&patch("b").if_version(1).send().await, 200, id, 2);
    patch("c").if_version(1).send().await.problem(412);
    accepted(&patch("c").header("If-Match", "*").send().await, 200, id, 3);
    // a stale one is refused although the command would change nothing
    patch("c").if_version(2).send().await.problem(412);
    accepted(&patch("d").header("If-Match", "\"1\", \"3\"").send().await, 200, id, 4);
    // 412 wins over the rules, 404 over 412
    account.request("POST", &format!("{path}/reopen")).if_version(9).send().await.problem(412);
    account.request("POST", &format!("{path}/reopen")).if_version(4).send().await.expect(200);
    account.request("POST", &format!("{path}/complete")).if_version(4).send().await.expect(200);
    account.request("POST", &format!("{path}/start")).if_version(5).send().await.problem(409);
    let unknown = format!("{TASKS}/{}", Uuid::now_v7());
    account.request("PATCH", &unknown).if_version(1).json(&json!({"title": "x"})).send().await.problem(404);
    for bad in ["5", "\"five\"", "W/\"5\"", "\"5"] {
        let answer = patch("e").header("If-Match", bad).send().await;
        assert!([400, 412].contains(&answer.status), "If-Match: {bad}: {}", answer.status);
        answer.problem(answer.status);
    }
    account.request("DELETE", &path).if_version(1).send().await.problem(412);
    account.request("DELETE", &path).if_version(5).send().await.expect(204);
}
