use crate::here::api;
use serde_json::json;
use system_tests::client::{Account, Answer};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

/// The second answer is the first one again, marked as such.
#[track_caller]
fn replayed(first: &Answer, second: &Answer) {
    assert_eq!(second.status, first.status, "{}", second.text());
    assert_eq!(second.text(), first.text());
    for header in ["ETag", "Location", "Consistency-Token"] {
        assert_eq!(second.header(header), first.header(header), "{header}");
    }
    assert_eq!(first.header("Idempotent-Replayed"), None);
    assert_eq!(second.must("Idempotent-Replayed"), "true");
}

async fn task_count(account: &Account) -> usize {
    account.walk(TASKS).await.len()
}

#[tokio::test]
async fn the_same_request_again_is_one() {
    let account = api().await.account().await;
    let key = format!("key {}", "!~").replace(' ', "-");
    let create = || account.request("POST", TASKS).key(&key).json(&json!({"title": "once", "tags": ["a", "b"]}));
    let first = create().send().await.expect(201);
    replayed(&first, &create().send().await);
    // compared as JSON: another order, other spaces
    let request = account.request("POST", TASKS).key(&key);
    let spaced = request.body("application/json", "{ \"tags\" : [\"a\",\"b\"],\n \"title\":\"onc\\u0065\" }");
    replayed(&first, &spaced.send().await);
    assert_eq!(task_count(&account).await, 1);
    // with another body, method or path it is another request
    let other = account.request("POST", TASKS).key(&key).json(&json!({"title": "twice"}));
    other.send().await.problem(422);
    let id = first.uuid("/id");
    let start = account.request("POST", &format!("{TASKS}/{id}/start")).key(&key);
    start.send().await.problem(422);
    assert_eq!(task_count(&account).await, 1);
    // and under another account it is another key
    let stranger = account.api.account().await;
    let theirs = stranger.request("POST", TASKS).key(&key).json(&json!({"title": "theirs"}));
    theirs.send().await.expect(201);
}

#[tokio::test]
async fn every_write_replays() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}");
    let patch = json!({"title": "b", "priority": "low"});
    for (method, path, body) in [
        ("PATCH", path.clone(), Some(patch)),
        ("POST", format!("{path}/start"), None),
        ("POST", format!("{path}/complete"), None),
        ("POST", format!("{path}/reopen"), None),
        ("POST", format!("{path}/cancel"), None),
        ("DELETE", path.clone(), None),
    ] {
        let key = Uuid::new_v4().to_string();
        let request = || {
            let request = account.request(method, &path).key(&key);
            match &body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let first = request().send().await;
        assert!(first.status < 300, "{method} {path}: {}", first.text());
        replayed(&first, &request().send().await);
        // no body and {} are the same request
        if method == "POST" {
            replayed(&first, &account.request(method, &path).key(&key).json(&json!({})).send().await);
        }
    }
}

#[tokio::test]
async fn an_outcome_without_an_event_is_kept() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}/start");
    account.act(id, "start").await.expect(200);
    let first = account.request("POST", &path).key("no-op").send().await.expect(200);
    assert_eq!(first.number("/version"), 2);
    account.act(id, "complete").await.expect(200);
    // start would be 409 now, but this one was answered already
    replayed(&first, &account.request("POST", &path).key("no-op").send().await);
}

/// Whichever copy answers: a client that keeps the latest token never goes back in time.
#[tokio::test]
async fn a_write_stands_for_at_least_the_token_that_was_sent_with_it() {
    let account = api().await.account().await;
    let one = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{one}");
    let reopen = || account.request("POST", &format!("{path}/reopen"));
    let first = reopen().key("no-op").send().await.expect(200);
    let last = account.request("POST", TASKS).json(&json!({"title": "b"})).send().await.expect(201);
    let token = last.must("Consistency-Token");
    let batch = json!({"commands": [{"type": "ReopenTask", "task_id": one}]});
    let requests = [
        reopen(),
        reopen().key("no-op"),
        reopen().key("another"),
        account.request("PATCH", &path).json(&json!({"title": "a"})),
        account.request("POST", "/api/v1/commands").json(&batch),
        account.request("POST", "/api/v1/commands").json(&batch).key("batch"),
    ];
    for request in requests {
        let answer = request.header("Consistency-Token", token).send().await.expect(200);
        assert_eq!(answer.must("Consistency-Token"), token, "{}", answer.text());
        let seen = account.request("GET", TASKS).header("Consistency-Token", answer.must("Consistency-Token"));
        assert_eq!(seen.send().await.expect(200).json()["items"].as_array().unwrap().len(), 2);
    }
    replayed(&first, &reopen().key("no-op").send().await);
}

#[tokio::test]
async fn replay_wins_over_404_and_412() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}");
    let patch = || account.request("PATCH", &path).key("k").if_version(1).json(&json!({"title": "b"}));
    let first = patch().send().await.expect(200);
    replayed(&first, &patch().send().await);
    account.delete(id).await.expect(204);
    replayed(&first, &patch().send().await);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let path = format!("{TASKS}/{id}");
    let refused = |status: u16| {
        let request = match status {
            404 => account.request("POST", &format!("{TASKS}/{}/start", Uuid::now_v7())),
            409 => {
                let body = json!({"id": id, "title": "other"});
                account.request("POST", TASKS).json(&body)
            }
            412 => account.request("PATCH", &path).if_version(77).json(&json!({"title": "x"})),
            _ => account.request("PATCH", &path).json(&json!({"title": ""})),
        };
        request.key("free")
    };
    for status in [404, 409, 412, 422] {
        refused(status).send().await.problem(status);
    }
    let used = account.request("PATCH", &path).key("free").json(&json!({"title": "b"}));
    let used = used.send().await.expect(200);
    assert_eq!(used.header("Idempotent-Replayed"), None);
}

#[tokio::test]
async fn keys_are_1_to_255_visible_characters() {
    let account = api().await.account().await;
    let create = || account.request("POST", TASKS).json(&json!({"title": "a"}));
    create().key(&"k".repeat(255)).send().await.expect(201);
    create().key("k").send().await.expect(201);
    for bad in ["", &"k".repeat(256), "two words", "Schlüssel", "tab\there"] {
        create().key(bad).send().await.problem(400);
    }
    create().key("one").key("two").send().await.problem(400);
    assert_eq!(task_count(&account).await, 2);
}
