//! What belongs to somebody else is like what is not there: in every verb, in a batch, on the stream, by whatever cursor,
//! token or tag.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::client::{Account, Answer};
use uuid::Uuid;

use super::table::{Case, family};

const TASKS: &str = "/api/v1/tasks";
const SOON: Duration = Duration::from_secs(20);

/// Every verb on a task's address, and what it sends.
fn verbs(id: Uuid) -> Vec<(&'static str, String, Option<Value>)> {
    let task = format!("{TASKS}/{id}");
    let mut verbs = vec![
        ("GET", task.clone(), None),
        ("GET", format!("{task}?as_of=2030-01-01T00:00:00Z"), None),
        ("GET", format!("{task}/history"), None),
        ("GET", format!("{task}/history?limit=1"), None),
        ("PATCH", task.clone(), Some(json!({"title": "mine now"}))),
        ("PATCH", task.clone(), Some(json!({}))),
        ("DELETE", task.clone(), None),
    ];
    verbs.extend(["start", "complete", "reopen", "cancel"].map(|verb| ("POST", format!("{task}/{verb}"), None)));
    // in the past: as_of of a moment when it was there
    verbs[1].1 = format!("{task}?as_of={}", chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ"));
    verbs
}

#[tokio::test]
async fn foreign_ids() {
    family("owners: ids", async |target| {
        let theirs = target.api.account().await;
        let open = theirs.create(json!({"title": "theirs"})).await;
        let done = theirs.create(json!({"title": "theirs, done"})).await;
        theirs.act(done, "complete").await.expect(200);
        let deleted = theirs.create(json!({"title": "theirs, deleted"})).await;
        theirs.delete(deleted).await.expect(204);
        theirs.task(done).await;
        let mut cases = Vec::new();
        for (whose, id) in [("open", open), ("completed", done), ("deleted", deleted), ("nobody's", Uuid::now_v7())] {
            for (method, path, body) in verbs(id) {
                let request = target.account.request(method, &path);
                let request = match &body {
                    Some(body) => request.json(body),
                    None => request,
                };
                cases.push(Case::new(format!("{whose}: {method} {path}"), request, 404, "not-found"));
            }
        }
        // 404 comes before what would betray that it is there
        let task = format!("{TASKS}/{open}");
        let patch = || target.account.request("PATCH", &task).json(&json!({"title": "x"}));
        cases.extend([
            Case::new("the right version", patch().if_version(1), 404, "not-found"),
            Case::new("a wrong version", patch().if_version(7), 404, "not-found"),
            Case::new("any version", patch().header("If-Match", "*"), 404, "not-found"),
            Case::new("with a key", patch().key("a-key-of-mine"), 404, "not-found"),
            Case::new(
                "its tag for a read",
                target.account.request("GET", &task).header("If-None-Match", "\"1\""),
                404,
                "not-found",
            ),
        ]);
        cases
    })
    .await;
}

/// Forged, or another account's.
#[tokio::test]
async fn cursors_tokens_and_tags() {
    family("owners: cursors, tokens, tags", async |target| {
        let (mine, theirs) = (&target.account, target.api.account().await);
        for n in 0..3 {
            theirs.create(json!({"title": format!("theirs {n}")})).await;
        }
        let task = theirs.create(json!({"title": "theirs"})).await;
        theirs.patch(task, json!({"title": "theirs, renamed"})).await.expect(200);
        let list = theirs.read(&format!("{TASKS}?limit=1")).await.expect(200);
        let cursor = list.string("/next_cursor");
        let history = theirs.read(&format!("{TASKS}/{task}/history?limit=1")).await.expect(200).string("/next_cursor");
        let token = list.must("Consistency-Token").to_owned();
        let own_token = mine.read(TASKS).await.expect(200).must("Consistency-Token").to_owned();
        let flip = |text: &str, at: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).expect("ASCII")
        };
        let by_cursor =
            |account: &Account, cursor: &str| account.request("GET", &format!("{TASKS}?limit=1&cursor={cursor}"));
        let by_token = |token: &str| mine.request("GET", TASKS).header("Consistency-Token", token);
        let mut cases = vec![
            Case::new("another's cursor", by_cursor(mine, &cursor), 400, "invalid-cursor"),
            Case::new(
                "a cursor with another filter",
                theirs.request("GET", &format!("{TASKS}?limit=1&status=pending&cursor={cursor}")),
                400,
                "invalid-cursor",
            ),
            Case::new(
                "a cursor with another sort",
                theirs.request("GET", &format!("{TASKS}?limit=1&sort=due_at&cursor={cursor}")),
                400,
                "invalid-cursor",
            ),
            Case::new("a history's cursor on the list", by_cursor(&theirs, &history), 400, "invalid-cursor"),
            Case::new(
                "a list's cursor on accounts",
                theirs.request("GET", &format!("/api/v1/users?cursor={cursor}")),
                403,
                "forbidden",
            ),
            Case::new("an empty cursor", by_cursor(&theirs, ""), 400, "invalid-cursor"),
            Case::new("a cursor made up", by_cursor(&theirs, &"A".repeat(cursor.len())), 400, "invalid-cursor"),
            Case::new("a consistency token for a cursor", by_cursor(&theirs, &token), 400, "invalid-cursor"),
            Case::new("a cursor of 4 KB", by_cursor(&theirs, &"A".repeat(4096)), 400, "invalid-cursor"),
            Case::new("another's token", by_token(&token), 400, "invalid-consistency-token"),
            Case::new("a cursor for a token", by_token(&cursor), 400, "invalid-consistency-token"),
            Case::new("a token made up", by_token(&"A".repeat(token.len())), 400, "invalid-consistency-token"),
            Case::new("a token of 10 KB", by_token(&"A".repeat(10_000)), 400, "invalid-consistency-token"),
            Case::new(
                "a token with something behind",
                by_token(&format!("{own_token}A")),
                400,
                "invalid-consistency-token",
            ),
            Case::new(
                "a stream id that is none",
                mine.request("GET", "/api/v1/stream").header("Last-Event-ID", "-1"),
                400,
                "invalid-parameter",
            ),
            Case::new(
                "a stream id beyond numbers",
                mine.request("GET", "/api/v1/stream").header("Last-Event-ID", "18446744073709551616"),
                400,
                "invalid-parameter",
            ),
        ];
        for at in [0, cursor.len() / 2, cursor.len() - 2] {
            cases.push(Case::new(
                format!("a cursor changed at {at}"),
                by_cursor(&theirs, &flip(&cursor, at)),
                400,
                "invalid-cursor",
            ));
        }
        for at in [0, own_token.len() / 2, own_token.len() - 2] {
            let changed = flip(&own_token, at);
            cases.push(Case::new(
                format!("a token changed at {at}"),
                by_token(&changed),
                400,
                "invalid-consistency-token",
            ));
        }
        let own = mine.create(json!({"title": "mine"})).await;
        let own = format!("{TASKS}/{own}");
        for tag in ["1", "\"1", "\"one\"", "W/\"1\"", "\"-1\"", "\"99999999999999999999\"", "\"\"", "**"] {
            let patch = mine.request("PATCH", &own).json(&json!({"title": "x"})).header("If-Match", tag);
            let (status, code) = match tag {
                // a tag, but of no version that there is: RFC 9110 compares, and finds none
                "\"one\"" | "\"-1\"" | "\"99999999999999999999\"" | "\"\"" | "W/\"1\"" => (412, "stale-version"),
                _ => (400, "invalid-parameter"),
            };
            cases.push(Case::new(format!("If-Match: {tag}"), patch, status, code));
        }
        cases
    })
    .await;
}

/// Words of an answer that are not the request's own.
fn essence(problem: &Value) -> Value {
    let mut problem = problem.clone();
    problem["trace_id"] = Value::Null;
    problem
}

#[tokio::test]
async fn a_foreign_id_is_answered_word_for_word_like_an_unknown_one() {
    let target = super::table::target().await;
    let (mine, theirs) = (&target.account, target.api.account().await);
    let task = theirs.create(json!({"title": "theirs"})).await;
    theirs.task(task).await;
    let send = async |id: Uuid| {
        let mut answers: Vec<Answer> = Vec::new();
        for (method, path, body) in verbs(id) {
            let request = mine.request(method, &path);
            let request = match &body {
                Some(body) => request.json(body),
                None => request,
            };
            answers.push(request.send().await);
        }
        answers
    };
    for (foreign, unknown) in send(task).await.iter().zip(send(Uuid::now_v7()).await) {
        assert_eq!(essence(&foreign.problem(404)), essence(&unknown.problem(404)));
        let names = |answer: &Answer| {
            let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(foreign), names(&unknown));
    }
    // the same id is free for an own task, and that is another one
    mine.request("POST", TASKS).json(&json!({"id": task, "title": "mine"})).send().await.expect(201);
    assert_eq!(mine.task(task).await["title"], "mine");
    assert_eq!(theirs.task(task).await["title"], "theirs");
}

#[tokio::test]
async fn in_a_batch_and_on_the_stream_too() {
    let target = super::table::target().await;
    let (mine, theirs) = (&target.account, target.api.account().await);
    let task = theirs.create(json!({"title": "theirs"})).await;
    theirs.task(task).await;
    let mut stream = mine.stream(None).await;
    stream.next(SOON).await.expect("the id");
    let commands = |id: Uuid| {
        vec![
            json!({"type": "RenameTask", "task_id": id, "title": "mine now"}),
            json!({"type": "CompleteTask", "task_id": id}),
            json!({"type": "DeleteTask", "task_id": id}),
            json!({"type": "TagTask", "task_id": id, "tag": "x", "expected_version": 1}),
        ]
    };
    let results = async |id: Uuid| -> Vec<Value> {
        let answer = mine.batch(&commands(id)).await.expect(200).json();
        assert_eq!(answer["succeeded"], 0, "{answer}");
        let results = answer["results"].as_array().expect("results");
        results.iter().map(|result| json!([result["status"], essence(&result["problem"])])).collect()
    };
    let foreign = results(task).await;
    assert_eq!(foreign, results(Uuid::now_v7()).await);
    assert!(foreign.iter().all(|result| result[0] == 404), "{foreign:?}");
    theirs.patch(task, json!({"title": "renamed by its owner"})).await.expect(200);
    theirs.task(task).await;
    let own = mine.create(json!({"title": "mine"})).await;
    let first = stream.next_event(SOON).await;
    assert_eq!(first.json()["id"], own.to_string(), "nothing of theirs came before: {first:?}");
    // from another's position, too, a stream shows what is one's own
    let position = theirs.read(TASKS).await.expect(200).number("/revision");
    let mut resumed = mine.stream(Some(&position.saturating_sub(1).to_string())).await;
    assert_eq!(resumed.next_event(SOON).await.json()["id"], own.to_string());
    assert_eq!(theirs.task(task).await["version"], 2);
    // and a tag of theirs saves nothing of ours
    let tag = theirs.read(TASKS).await.must("ETag").to_owned();
    mine.request("GET", TASKS).header("If-None-Match", &tag).send().await.expect(200);
}
