//! What every answer carries.

use crate::here::api;
use serde_json::{Value, json};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
/// Needs no token.
const KEYS: &str = "/.well-known/jwks.json";

#[tokio::test]
async fn security_headers_on_every_answer() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    for (method, path) in [
        ("GET", TASKS.to_owned()),
        ("GET", format!("{TASKS}/{id}")),
        ("GET", KEYS.to_owned()),
        ("GET", "/nowhere".to_owned()),
        ("PUT", TASKS.to_owned()),
        ("POST", TASKS.to_owned()),
        ("DELETE", format!("{TASKS}/{id}")),
    ] {
        let answer = account.request(method, &path).send().await;
        assert_eq!(answer.must("X-Content-Type-Options"), "nosniff", "{method} {path}");
        assert_eq!(answer.must("X-Frame-Options"), "DENY", "{method} {path}");
        assert_eq!(answer.must("Referrer-Policy"), "no-referrer", "{method} {path}");
        assert!(!answer.must("X-Request-Id").is_empty(), "{method} {path}");
        if path.starts_with("/api/") && answer.status < 300 {
            let cache = answer.must("Cache-Control");
            assert!(cache.contains("private") && cache.contains("no-cache"), "{method} {path}: {cache}");
        }
    }
}

#[tokio::test]
async fn request_ids_are_taken_or_made() {
    let api = api().await;
    let ask = |id: &str| api.get(KEYS).header("X-Request-Id", id).send();
    for good in ["a", "A-b_c.9", &"x".repeat(128)] {
        assert_eq!(ask(good).await.must("X-Request-Id"), good);
    }
    // a bad one is replaced, not refused
    for bad in ["", "two words", &"x".repeat(129), "a/b"] {
        let answer = ask(bad).await.expect(200);
        assert_ne!(answer.must("X-Request-Id"), bad);
    }
}

#[tokio::test]
async fn a_problem_carries_the_trace_id() {
    let account = api().await.account().await;
    let path = format!("{TASKS}/{}", Uuid::now_v7());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |parent: &str| account.request("GET", &path).header("traceparent", parent).send();
    let problem = ask(&format!("00-{trace}-00f067aa0ba902b7-01")).await.problem(404);
    assert_eq!(problem["trace_id"], trace);
    for bad in ["00-xyz-1-01", "", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
        let problem = ask(bad).await.problem(404);
        assert_ne!(problem["trace_id"], trace, "{bad}");
    }
}

#[tokio::test]
async fn lists_are_compressed_and_strong_etags_are_not() {
    let account = api().await.account().await;
    for n in 0..20 {
        account.create(json!({"title": format!("task number {n}"), "description": "x".repeat(2_000)})).await;
    }
    // what every copy has to show
    let token = account.read(TASKS).await.expect(200).must("Consistency-Token").to_owned();
    let get = |path: &str| account.request("GET", path).header("Consistency-Token", &token);
    let list = || get(TASKS);
    assert_eq!(list().send().await.expect(200).header("Content-Encoding"), None);
    for coding in ["gzip", "br", "zstd"] {
        let answer = list().header("Accept-Encoding", coding).send().await.expect(200);
        assert_eq!(answer.must("Content-Encoding"), coding);
        assert!(answer.body.len() < 20 * 2_000);
        assert!(answer.must("Vary").to_lowercase().contains("accept-encoding"));
    }
    let id = account.read(TASKS).await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    let task = get(&format!("{TASKS}/{id}")).header("Accept-Encoding", "gzip").send().await.expect(200);
    assert_eq!(task.header("Content-Encoding"), None);
    assert_eq!(task.must("ETag"), "\"1\"");
    let small = get(&format!("{TASKS}/{id}/history")).header("Accept-Encoding", "gzip").send().await.expect(200);
    assert_eq!(small.header("Content-Encoding").is_some(), small.headers.contains_key("Content-Encoding"));
}

#[tokio::test]
async fn etags_of_reads() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let history = format!("{TASKS}/{id}/history");
    for path in [TASKS, &history, "/api/v1/stats", &format!("{TASKS}?status=pending")] {
        let first = account.read(path).await.expect(200);
        let etag = first.must("ETag").to_owned();
        assert!(etag.starts_with("W/\""), "{path}: {etag}");
        let ask = |etags: &str| account.request("GET", path).header("If-None-Match", etags).send();
        for etags in [etag.clone(), format!("\"x\", {etag}"), "*".to_owned()] {
            let unchanged = ask(&etags).await.expect(304);
            assert!(unchanged.body.is_empty(), "{path}");
            assert_eq!(unchanged.must("ETag"), etag);
            assert!(!unchanged.must("Consistency-Token").is_empty());
        }
        ask("W/\"another\"").await.expect(200);
        account.patch(id, json!({"description": path})).await.expect(200);
        let seen = account.read(path).await.expect(200);
        assert_ne!(seen.must("ETag"), etag, "{path}");
    }
    let task = format!("{TASKS}/{id}");
    let version = account.read(&task).await.expect(200).must("ETag").to_owned();
    assert!(version.starts_with('"'));
    account.request("GET", &task).header("If-None-Match", &version).send().await.expect(304);
    account.request("GET", &task).header("If-None-Match", "\"1\"").send().await.expect(200);
}

#[tokio::test]
async fn a_read_with_a_token_shows_the_write() {
    let account = api().await.account().await;
    for n in 0..50 {
        let id = account.create(json!({"title": format!("t{n}")})).await;
        // Account::read sends the token of the write before it
        assert_eq!(account.task(id).await["title"], format!("t{n}"));
        let list = account.read(&format!("{TASKS}?limit=1")).await.expect(200).json();
        assert_eq!(list["items"][0]["id"], id.to_string());
        let stats = account.read("/api/v1/stats").await.expect(200).json();
        assert_eq!(stats["by_status"]["pending"], n + 1);
        let history = account.read(&format!("{TASKS}/{id}/history")).await.expect(200).json();
        assert_eq!(history["items"].as_array().unwrap().len(), 1);
    }
}

/// So whoever keeps the latest token, and sends it with everything, never goes back in time.
#[tokio::test]
async fn every_read_takes_a_token_and_gives_one_that_stands_for_no_less() {
    let account = api().await.account().await;
    let import = account.request("POST", "/api/v1/imports").body("application/x-ndjson", "nonsense");
    let import = account.job_ended(&import.send().await.expect(202)).await;
    let export = account.request("POST", "/api/v1/exports").json(&json!({"format": "csv"}));
    let export = account.job_ended(&export.send().await.expect(202)).await;
    let id = account.create(json!({"title": "a"})).await;
    let last = account.patch(id, json!({"title": "b"})).await.expect(200);
    let (token, change) = (last.must("Consistency-Token"), last.must("Change-Id"));
    let created = account.task(id).await["created_at"].as_str().unwrap().to_owned();
    let job = |job: &Value| format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let stranger_s = account.api.account().await.read(TASKS).await.must("Consistency-Token").to_owned();
    for path in [
        TASKS.to_owned(),
        format!("{TASKS}?q=b&overdue=true"),
        format!("{TASKS}?as_of={created}"),
        format!("{TASKS}/{id}"),
        format!("{TASKS}/{id}?as_of={created}"),
        format!("{TASKS}/{id}/history"),
        format!("{TASKS}/deleted"),
        format!("{TASKS}/facets"),
        format!("{TASKS}/facets?as_of={created}"),
        format!("{TASKS}/suggest?q=b"),
        "/api/v1/stats".to_owned(),
        "/api/v1/stats/flow".to_owned(),
        "/api/v1/changes".to_owned(),
        format!("/api/v1/changes?task_id={id}"),
        format!("/api/v1/changes/{change}"),
        "/api/v1/jobs".to_owned(),
        job(&import),
        format!("{}/errors", job(&import)),
        format!("{}/result", job(&export)),
    ] {
        let read = |token: &str| account.request("GET", &path).header("Consistency-Token", token).send();
        // the same position, so the same token
        assert_eq!(read(token).await.expect(200).must("Consistency-Token"), token, "{path}");
        assert_eq!(read(&stranger_s).await.problem(400)["code"], "invalid-consistency-token", "{path}");
    }
}

#[tokio::test]
async fn no_cors_by_default() {
    let answer = api().await.get(KEYS).header("Origin", "https://example.com").send().await;
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
}
