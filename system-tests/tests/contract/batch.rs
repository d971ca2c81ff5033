use std::fmt::Write;
use std::time::Duration;

use crate::here::api;
use serde_json::{Value, json};
use system_tests::client::check_problem;
use system_tests::wait::until;
use uuid::Uuid;

const COMMANDS: &str = "/api/v1/commands";

/// What stands at `results[index]`, which has to be a refusal of this status.
#[track_caller]
fn refused(answer: &Value, index: usize, status: u16) {
    let result = &answer["results"][index];
    assert_eq!(result["status"], status, "{index}: {answer}");
    assert_eq!(result["index"], index);
    check_problem(&result["problem"], status).unwrap_or_else(|e| panic!("{e}: {result}"));
}

#[track_caller]
fn succeeded(answer: &Value, index: usize, status: u16, id: Uuid, version: u64) {
    let result = &answer["results"][index];
    assert_eq!(result["status"], status, "{index}: {result}");
    assert_eq!(result["index"], index);
    assert_eq!(result["id"], id.to_string());
    assert_eq!(result["version"], version);
    assert!(result["revision"].as_u64().unwrap() > 0);
}

fn every_type(id: Uuid) -> Vec<Value> {
    vec![
        json!({"type": "CreateTask", "task_id": id, "title": "t", "priority": "low", "tags": ["a"]}),
        json!({"type": "RenameTask", "task_id": id, "title": "renamed"}),
        json!({"type": "DescribeTask", "task_id": id, "description": "d"}),
        json!({"type": "ReprioritizeTask", "task_id": id, "priority": "high"}),
        json!({"type": "ScheduleTask", "task_id": id, "due_at": "2030-01-01T00:00:00Z"}),
        json!({"type": "ScheduleTask", "task_id": id, "due_at": null}),
        json!({"type": "TagTask", "task_id": id, "tag": "b"}),
        json!({"type": "TagTask", "task_id": id, "tags": ["c", "d"]}),
        json!({"type": "UntagTask", "task_id": id, "tags": ["a", "c"]}),
        json!({"type": "StartTask", "task_id": id}),
        json!({"type": "CompleteTask", "task_id": id}),
        json!({"type": "ReopenTask", "task_id": id}),
        json!({"type": "CancelTask", "task_id": id}),
    ]
}

#[tokio::test]
async fn every_type_in_order() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let commands = every_type(id);
    let answer = account.batch(&commands).await.expect(200);
    assert!(!answer.must("Consistency-Token").is_empty());
    let body = answer.json();
    assert_eq!(body["succeeded"], commands.len(), "{body}");
    assert_eq!(body["failed"], 0);
    for index in 0..commands.len() {
        let status = if index == 0 { 201 } else { 200 };
        succeeded(&body, index, status, id, index as u64 + 1);
    }
    let task = account.task(id).await;
    let expected = json!({"id": id, "title": "renamed", "description": "d", "status": "cancelled", "priority": "high",
        "due_at": null, "tags": ["b", "d"], "version": 13, "created_at": task["created_at"],
        "rank": null, "updated_at": task["updated_at"], "started_at": null, "completed_at": null});
    assert_eq!(task, expected);
    let delete = [json!({"type": "DeleteTask", "task_id": id}), json!({"type": "StartTask", "task_id": id})];
    let body = account.batch(&delete).await.expect(200).json();
    succeeded(&body, 0, 204, id, 14);
    refused(&body, 1, 404);
}

#[tokio::test]
async fn a_command_a_line() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let mut lines = String::new();
    for command in every_type(id) {
        writeln!(lines, "{command}").unwrap();
    }
    let send = |lines: String| account.request("POST", COMMANDS).body("application/x-ndjson", lines);
    let body = send(lines).send().await.expect(200).json();
    assert_eq!(body["succeeded"], 13, "{body}");
    assert_eq!(account.task(id).await["version"], 13);
    // CRLF, and no line break after the last one
    let two = format!(
        "{}\r\n{}",
        json!({"type": "RenameTask", "task_id": id, "title": "x"}),
        json!({"type": "RenameTask", "task_id": id, "title": "y"})
    );
    assert_eq!(send(two).send().await.expect(200).json()["succeeded"], 2);
}

#[tokio::test]
async fn wrong_in_itself_fails_alone() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let create = json!({"type": "CreateTask", "task_id": id, "title": "t"});
    let wrong: Vec<(Value, u16)> = vec![
        (json!({"type": "PaintTask", "task_id": id}), 422),
        (json!({"type": "RenameTask", "task_id": id, "title": "x", "color": 1}), 400),
        (json!({"type": "RenameTask", "task_id": id}), 422),
        (json!({"type": "RenameTask", "task_id": id, "title": ""}), 422),
        (json!({"type": "RenameTask", "task_id": id, "title": "nul\u{0}"}), 422),
        (json!({"type": "RenameTask", "task_id": id, "title": 5}), 400),
        (json!({"type": "RenameTask", "title": "no task"}), 422),
        (json!({"type": "ReprioritizeTask", "task_id": id, "priority": "top"}), 422),
        (json!({"type": "TagTask", "task_id": id}), 422),
        (json!({"type": "StartTask", "task_id": id, "expected_version": 9}), 412),
        (json!({"type": "StartTask", "task_id": Uuid::now_v7()}), 404),
        (json!({"type": "RenameTask", "task_id": id, "title": "x", "occurred_at": "2000-01-01T00:00:00Z"}), 422),
        (json!({"type": "StartTask", "task_id": id, "occurred_at": "2100-01-01T00:00:00Z"}), 422),
        (json!({"type": "CreateTask", "task_id": id, "title": "other"}), 409),
        (json!("no object"), 400),
        (json!(null), 400),
    ];
    let mut commands = vec![create];
    commands.extend(wrong.iter().map(|(command, _)| command.clone()));
    commands.push(json!({"type": "StartTask", "task_id": id, "expected_version": 1}));
    let body = account.batch(&commands).await.expect(200).json();
    succeeded(&body, 0, 201, id, 1);
    for (index, (command, status)) in wrong.iter().enumerate() {
        assert_eq!(body["results"][index + 1]["status"], *status, "{command}: {body}");
        refused(&body, index + 1, *status);
    }
    succeeded(&body, commands.len() - 1, 200, id, 2);
    assert_eq!((&body["succeeded"], &body["failed"]), (&json!(2), &json!(wrong.len())));

    let start = json!({"type": "CompleteTask", "task_id": id});
    let lines = format!("not json\n{start}\n{{\"type\":\"StartTask\",\"type\":\"StartTask\"}}\n\"\\ud800\"\n");
    let body = account.request("POST", COMMANDS).body("application/x-ndjson", lines).send().await;
    let body = body.expect(200).json();
    refused(&body, 0, 400);
    succeeded(&body, 1, 200, id, 3);
    refused(&body, 2, 400);
    refused(&body, 3, 400);
}

#[tokio::test]
async fn what_is_no_list_fails_as_a_whole() {
    let account = api().await.account().await;
    let json_body = |body: &str| account.request("POST", COMMANDS).body("application/json", body);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("{}", 422),
        (r#"{"commands": {}}"#, 400),
        (r#"{"commands": []}"#, 422),
        (r#"{"commands": null}"#, 422),
        (r#"{"commands": [], "more": 1}"#, 400),
    ] {
        let answer = json_body(body).send().await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.problem(status);
    }
    let lines = account.request("POST", COMMANDS).body("application/x-ndjson", "");
    lines.send().await.problem(422);
    account.request("POST", COMMANDS).body("text/plain", "x").send().await.problem(415);
    account.request("POST", COMMANDS).send().await.problem(415);
}

#[tokio::test]
async fn ten_thousand_and_no_more() {
    let account = api().await.account().await;
    let command = |_| json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": "many"});
    let many: Vec<Value> = (0..10_000).map(command).collect();
    let body = account.batch(&many).await.expect(200).json();
    assert_eq!((&body["succeeded"], &body["failed"]), (&json!(10_000), &json!(0)));
    let more: Vec<Value> = (0..10_001).map(command).collect();
    account.batch(&more).await.problem(413);
    let stats = until("they are counted", Duration::from_secs(30), || async {
        let answer = account.read("/api/v1/stats").await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(stats["by_status"]["pending"], 10_000);
    let overlong = " ".repeat(16 * 1024 * 1024 + 1);
    account.request("POST", COMMANDS).body("application/x-ndjson", overlong).send().await.problem(413);
}

#[tokio::test]
async fn a_command_id_is_a_key() {
    let account = api().await.account().await;
    let (id, command_id) = (Uuid::now_v7(), Uuid::new_v4());
    let create = json!({"type": "CreateTask", "task_id": id, "title": "t", "command_id": command_id});
    let first = account.batch(std::slice::from_ref(&create)).await.expect(200).json();
    succeeded(&first, 0, 201, id, 1);
    let patched = account.patch(id, json!({"title": "u"})).await.expect(200);
    // again with the same content it replays, also twice in one batch
    let again = account.batch(&[create.clone(), create.clone()]).await.expect(200).json();
    for index in 0..2 {
        succeeded(&again, index, 201, id, 1);
        assert_eq!(again["results"][index]["replayed"], true);
        assert_eq!(again["results"][index]["revision"], first["results"][0]["revision"]);
    }
    // with other content it does not
    let mut other = create.clone();
    other["title"] = json!("v");
    refused(&account.batch(&[other]).await.expect(200).json(), 0, 422);
    // the token of what was replayed is of its time
    let read = account.request("GET", &format!("/api/v1/tasks/{id}"));
    let read = read.header("Consistency-Token", patched.must("Consistency-Token")).send().await.expect(200).json();
    assert_eq!(read["version"], 2);
}

#[tokio::test]
async fn a_batch_under_a_key_is_one_answer() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let commands = json!({"commands": [
        {"type": "CreateTask", "task_id": id, "title": "t"},
        {"type": "ReopenTask", "task_id": Uuid::now_v7()},
        {"type": "StartTask", "task_id": id}]});
    let send = |body: &Value| account.request("POST", COMMANDS).key("batch").json(body).send();
    let first = send(&commands).await.expect(200);
    account.act(id, "complete").await.expect(200);
    let second = send(&commands).await.expect(200);
    assert_eq!(first.json(), second.json());
    assert_eq!(second.must("Idempotent-Replayed"), "true");
    assert_eq!(account.task(id).await["version"], 3);
    send(&json!({"commands": [{"type": "StartTask", "task_id": id}]})).await.problem(422);
}

#[tokio::test]
async fn occurred_at_drives_the_times() {
    let account = api().await.account().await;
    let id = Uuid::now_v7();
    let at = |text: &str, mut command: Value| {
        command["task_id"] = json!(id);
        command["occurred_at"] = json!(text);
        command
    };
    let body = account
        .batch(&[
            at("2020-01-01T10:00:00+01:00", json!({"type": "CreateTask", "title": "old"})),
            at("2020-01-02T00:00:00Z", json!({"type": "StartTask"})),
            at("2020-01-01T23:59:59Z", json!({"type": "RenameTask", "title": "before"})),
            at("2020-01-03T00:00:00.25Z", json!({"type": "CompleteTask"})),
        ])
        .await
        .expect(200)
        .json();
    refused(&body, 2, 422);
    let task = account.task(id).await;
    assert_eq!(task["created_at"], "2020-01-01T09:00:00Z");
    assert_eq!(task["started_at"], "2020-01-02T00:00:00Z");
    for field in ["completed_at", "updated_at"] {
        let time = system_tests::client::time(task[field].as_str().unwrap());
        assert_eq!(time.timestamp_micros() % 86_400_000_000, 250_000, "{field}");
    }
    let history = account.read(&format!("/api/v1/tasks/{id}/history")).await.expect(200).json();
    let first = &history["items"][0];
    assert_eq!(first["occurred_at"], "2020-01-01T09:00:00Z");
    assert!(first["recorded_at"].as_str().unwrap() > "2026");
}
