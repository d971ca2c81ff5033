use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use system_tests::client::{Account, Answer};
use uuid::Uuid;

use crate::here::api;

const EXPORTS: &str = "/api/v1/exports";
const BULK: &str = "/api/v1/tasks/bulk";

async fn exported(account: &Account, body: Value) -> (Value, Answer) {
    let asked = account.request("POST", EXPORTS).json(&body).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let file = account.read(job["result"]["href"].as_str().unwrap()).await.expect(200);
    assert_eq!(job["result"]["bytes"], file.body.len());
    assert_eq!(file.must("Content-Type"), job["result"]["media_type"].as_str().unwrap());
    (job, file)
}

/// Three tasks, the second one deleted.
async fn tasks(account: &Account) -> [Uuid; 3] {
    let one = account.create(json!({"title": "one", "tags": ["a"], "due_at": "2030-01-02T03:04:05Z"})).await;
    let gone = account.create(json!({"title": "gone"})).await;
    let other = account.create(json!({"title": "=other", "priority": "high"})).await;
    account.act(one, "start").await.expect(200);
    account.delete(gone).await.expect(204);
    [one, gone, other]
}

#[tokio::test]
async fn an_export_goes_into_another_account_and_back_into_its_own() {
    let (account, other) = (api().await.account().await, api().await.account().await);
    let [one, _, last] = tasks(&account).await;
    let (job, file) = exported(&account, json!({"format": "ndjson"})).await;
    assert_eq!((&job["kind"], &job["total"], &job["done"]), (&json!("export"), &json!(2), &json!(2)));
    assert!(job["revision"].as_u64().unwrap() > 0);
    let lines: Vec<Value> = file.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["type"].as_str().unwrap(), line["task_id"].clone())).collect();
    assert_eq!(told, [("CreateTask", json!(one)), ("StartTask", json!(one)), ("CreateTask", json!(last))]);
    for (account, events) in [(&account, 0), (&other, 3)] {
        let import = account.request("POST", "/api/v1/imports").body("application/x-ndjson", file.body.clone());
        let job = account.job_ended(&import.send().await.expect(202)).await;
        assert_eq!((&job["succeeded"], &job["failed"]), (&json!(3), &json!(0)), "{job}");
        assert_eq!(job["change_id"].is_string(), events > 0, "{job}");
        let version = account.task(one).await["version"].as_u64().unwrap();
        assert_eq!(version, 2, "{events} events");
    }
    assert_eq!(other.task(one).await["status"], "in_progress");
    // what is only recognised counts as done, and the job stands for it
    let started = account.request("POST", "/api/v1/imports").body("application/x-ndjson", lines[1].to_string());
    let job = account.job_ended(&started.send().await.expect(202)).await;
    assert_eq!((&job["succeeded"], &job["failed"], &job["change_id"]), (&json!(1), &json!(0), &Value::Null), "{job}");
    assert!(job["revision"].as_u64() > Some(0), "{job}");
}

#[tokio::test]
async fn rows_and_calendars_are_of_the_tasks_that_match() {
    let account = api().await.account().await;
    let [one, _, last] = tasks(&account).await;
    let (_, file) = exported(&account, json!({"format": "csv"})).await;
    let text = file.text();
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("id,title,description,status"), "{text}");
    assert!(rows[1].starts_with(&format!("{one},one,")) && rows[2].starts_with(&format!("{last},'=other,")), "{text}");
    let (job, file) =
        exported(&account, json!({"format": "csv", "filter": {"priority": "high,urgent", "q": "oth"}})).await;
    assert_eq!((job["total"].as_u64(), file.text().lines().count()), (Some(1), 2));
    let (_, file) = exported(&account, json!({"format": "ics", "filter": null})).await;
    let text = file.text();
    assert!(text.starts_with("BEGIN:VCALENDAR\r\n") && text.ends_with("END:VCALENDAR\r\n"), "{text}");
    assert_eq!((text.matches("BEGIN:VTODO").count(), text.matches("BEGIN:VEVENT").count()), (2, 1));
    assert!(text.contains(&format!("UID:{one}@")) && text.contains("DUE:20300102T030405Z\r\n"), "{text}");
    let (job, file) = exported(&account, json!({"format": "ics", "filter": {"status": "cancelled"}})).await;
    assert_eq!(job["total"], 0);
    assert!(file.text().contains("BEGIN:VTIMEZONE\r\n"));
}

/// And not in that in which they came.
#[tokio::test]
async fn an_export_is_in_the_order_of_creation_and_id() {
    let account = api().await.account().await;
    let commands = [(3, "02"), (1, "02"), (4, "01"), (2, "03")].map(|(id, day)| {
        let occurred_at = format!("2020-01-{day}T00:00:00Z");
        json!({"type": "CreateTask", "task_id": Uuid::from_u128(id), "title": "a", "occurred_at": occurred_at})
    });
    assert_eq!(account.batch(&commands).await.expect(200).number("/failed"), 0);
    let expected = [4, 1, 3, 2].map(|id| Uuid::from_u128(id).to_string());
    let (_, file) = exported(&account, json!({"format": "ndjson"})).await;
    let told: Vec<Value> = file.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.iter().map(|line| line["task_id"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    let (_, file) = exported(&account, json!({"format": "csv"})).await;
    let text = file.text();
    assert_eq!(text.lines().skip(1).map(|row| row.split(',').next().unwrap()).collect::<Vec<_>>(), expected);
    let (_, file) = exported(&account, json!({"format": "ics"})).await;
    let text = file.text();
    let uids = text.lines().filter_map(|line| line.strip_prefix("UID:")?.split('@').next());
    assert_eq!(uids.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_result_comes_in_ranges_until_it_is_dropped() {
    let (account, stranger) = (api().await.account().await, api().await.account().await);
    tasks(&account).await;
    let (job, file) = exported(&account, json!({"format": "ndjson"})).await;
    let (path, whole) = (job["result"]["href"].as_str().unwrap().to_owned(), file.body.clone());
    let etag = file.must("ETag").to_owned();
    assert!(etag.starts_with('"') && file.header("Content-Encoding").is_none());
    let part = |range: &str| account.request("GET", &path).header("Range", range);
    let answer = part("bytes=5-9").send().await.expect(206);
    assert_eq!((answer.must("Content-Range"), answer.must("ETag")), (&*format!("bytes 5-9/{}", whole.len()), &*etag));
    assert_eq!(answer.body, whole[5..10]);
    assert_eq!(part("bytes=-4").send().await.expect(206).body, whole[whole.len() - 4..]);
    assert_eq!(part("bytes=7-").header("If-Range", &etag).send().await.expect(206).body, whole[7..]);
    assert_eq!(part("bytes=7-").header("If-Range", "\"other\"").send().await.expect(200).body, whole);
    let has = part("bytes=7-").header("If-None-Match", &etag).send().await.expect(304);
    assert_eq!((has.must("ETag"), has.body.len()), (&*etag, 0));
    assert!(has.header("Consistency-Token").is_some());
    let beyond = part(&format!("bytes={}-", whole.len())).send().await;
    assert_eq!(beyond.problem(416)["code"], "range-not-satisfiable");
    assert_eq!(beyond.must("Content-Range"), format!("bytes */{}", whole.len()));
    stranger.request("GET", &path).send().await.problem(404);
    account.request("DELETE", path.trim_end_matches("/result")).send().await.expect(204);
    account.request("GET", &path).send().await.problem(404);
    assert_eq!(account.read(path.trim_end_matches("/result")).await.expect(200).json()["result"], Value::Null);
}

#[tokio::test]
async fn one_command_changes_the_tasks_that_match() {
    let account = api().await.account().await;
    let [one, _, last] = tasks(&account).await;
    let ask = |body: Value| account.request("POST", BULK).json(&body).key("bulk");
    let start = json!({"filter": {"status": "pending,in_progress"}, "command": {"type": "StartTask"}, "dry_run": true});
    let job = account.job_ended(&account.request("POST", BULK).json(&start).send().await.expect(202)).await;
    assert_eq!((&job["kind"], &job["dry_run"], &job["succeeded"]), (&json!("bulk"), &json!(true), &json!(2)));
    assert_eq!(job["change_id"], Value::Null);
    assert_eq!(account.task(last).await["status"], "pending");

    let complete = json!({"filter": {"tag": "a,b"}, "command": {"type": "CompleteTask"}});
    let asked = ask(complete.clone()).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!((&job["total"], &job["succeeded"], &job["failed"]), (&json!(1), &json!(1), &json!(0)), "{job}");
    assert_eq!(job["change_id"], job["id"], "one change");
    assert_eq!(account.task(one).await["status"], "completed");
    assert_eq!(account.task(last).await["status"], "pending");
    let again = ask(complete).send().await.expect(202);
    assert_eq!((again.must("Idempotent-Replayed"), again.json()), ("true", job));

    // each is decided as it stands, and a refusal is an error of the job
    let all = json!({"filter": {"priority": "low,medium,high,urgent"}, "command": {"type": "StartTask"}});
    let asked = account.request("POST", BULK).json(&all).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!((&job["succeeded"], &job["failed"]), (&json!(1), &json!(1)), "{job}");
    let errors = account.walk(&format!("{}/errors", asked.must("Location"))).await;
    assert_eq!((&errors[0]["line"], &errors[0]["task_id"]), (&Value::Null, &json!(one)));
    assert_eq!(errors[0]["problem"]["code"], "transition-refused");
}

#[tokio::test]
async fn what_cannot_be_exported_or_changed_is_refused() {
    let account = api().await.account().await;
    for (path, body, status) in [
        (EXPORTS, json!({}), 422),
        (EXPORTS, json!({"format": "pdf"}), 422),
        (EXPORTS, json!({"format": 1}), 400),
        (EXPORTS, json!({"format": "csv", "other": 1}), 400),
        (EXPORTS, json!({"format": "csv", "filter": {"owner": "x"}}), 422),
        (EXPORTS, json!({"format": "csv", "filter": {"status": "open"}}), 422),
        (EXPORTS, json!({"format": "csv", "filter": {"overdue": true}}), 400),
        (EXPORTS, json!({"format": "csv", "filter": {"q": "a\0b"}}), 422),
        (EXPORTS, json!({"format": "csv", "filter": {"tag": "a\0b"}}), 422),
        (EXPORTS, json!({"format": "csv\0"}), 422),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "RenameTask", "title": "a\0b"}}), 422),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "RankTask", "rank": "a0"}}), 422),
        (BULK, json!({"command": {"type": "StartTask"}}), 422),
        (BULK, json!({"filter": {}, "command": {"type": "StartTask"}}), 422),
        (BULK, json!({"filter": {"q": "x"}}), 422),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "CreateTask", "title": "a"}}), 422),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "RenameTask", "title": " "}}), 422),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "StartTask", "task_id": Uuid::nil()}}), 400),
        (BULK, json!({"filter": {"q": "x"}, "command": {"type": "StartTask", "expected_version": 1}}), 400),
    ] {
        account.request("POST", path).json(&body).send().await.problem(status);
    }
    let export = json!({"format": "csv"});
    account.request("POST", EXPORTS).json(&export).if_version(1).send().await.problem(400);
    let bulk = json!({"filter": {"q": "x"}, "command": {"type": "StartTask"}});
    account.request("POST", BULK).json(&bulk).if_version(1).send().await.problem(400);
    account.request("POST", EXPORTS).json(&export).key("one").send().await.expect(202);
    let other = json!({"format": "ics"});
    assert_eq!(
        account.request("POST", EXPORTS).json(&other).key("one").send().await.problem(422)["code"],
        "key-reused"
    );
}

/// The files of a compressed tar file, by name.
fn unpacked(archive: &[u8]) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    GzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
    let (mut rest, mut files) = (bytes.as_slice(), BTreeMap::new());
    while rest[0] != 0 {
        let (header, content) = rest.split_at(512);
        let text = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).unwrap().trim_end_matches('\0');
        let length = usize::from_str_radix(text(124, 136), 8).unwrap();
        files.insert(text(0, 100).to_owned(), String::from_utf8(content[..length].to_vec()).unwrap());
        rest = &content[length.next_multiple_of(512)..];
    }
    files
}

fn lines(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_archive_has_everything_of_the_account_and_nothing_of_others() {
    let (account, stranger) = (api().await.account().await, api().await.account().await);
    stranger.create(json!({"title": "of a stranger"})).await;
    let id = account.create(json!({"title": "kept", "tags": ["a"]})).await;
    let renamed = account.patch(id, json!({"title": "renamed"})).await.expect(200).must("Change-Id").to_owned();
    let deleted = account.create(json!({"title": "deleted"})).await;
    account.delete(deleted).await.expect(204);
    let undo = account.request("POST", &format!("/api/v1/changes/{renamed}/undo")).send().await.expect(200);
    let undo = undo.must("Change-Id").to_owned();
    account.task(id).await;
    let asked = account.request("POST", EXPORTS).json(&json!({"format": "archive"})).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!(
        (&job["kind"], &job["state"], &job["total"]),
        (&json!("export"), &json!("succeeded"), &json!(2)),
        "{job}"
    );
    assert_eq!(job["result"]["media_type"], "application/gzip");
    let file = account.read(job["result"]["href"].as_str().unwrap()).await.expect(200);
    assert_eq!(file.must("Content-Type"), "application/gzip");
    assert!(file.must("Content-Disposition").contains("account.tar.gz"));
    let files = unpacked(&file.body);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = ["audit", "changes", "history"].map(|folder| format!("{folder}/000001.ndjson"));
    assert_eq!(names, [&expected[0], &expected[1], &expected[2], "profile.json", "tasks/000001.ndjson"]);
    assert!(!files.values().any(|file| file.contains("of a stranger") || file.contains(&stranger.id.to_string())));

    let profile: Value = serde_json::from_str(&files["profile.json"]).unwrap();
    assert_eq!(profile, account.request("GET", "/api/v1/auth/me").send().await.expect(200).json());
    let tasks = lines(&files["tasks/000001.ndjson"]);
    let [kept, gone] = [id, deleted].map(|id| tasks.iter().find(|task| task["id"] == json!(id)).unwrap().clone());
    let mut shown = account.task(id).await;
    shown["deleted_at"] = Value::Null;
    assert_eq!(kept, shown);
    assert_eq!(gone["title"], "deleted");
    assert_eq!(gone["deleted_at"], account.read("/api/v1/tasks/deleted").await.json()["items"][0]["deleted_at"]);
    let history = lines(&files["history/000001.ndjson"]);
    let types = |id: Uuid| -> Vec<Value> {
        history.iter().filter(|event| event["task_id"] == json!(id)).map(|event| event["type"].clone()).collect()
    };
    assert_eq!(types(id), ["TaskCreated", "TaskRenamed", "TaskRenamed"]);
    assert_eq!(types(deleted), ["TaskCreated", "TaskDeleted"]);
    assert_eq!(
        history.iter().find(|event| event["change_id"] == renamed.as_str()).unwrap()["data"]["title"],
        "renamed"
    );
    let changes = lines(&files["changes/000001.ndjson"]);
    assert_eq!(changes.len(), 5);
    for id in [&renamed, &undo] {
        let of_archive = changes.iter().find(|change| change["id"] == id.as_str()).unwrap();
        assert_eq!(*of_archive, account.read(&format!("/api/v1/changes/{id}")).await.expect(200).json());
    }
    let audit = lines(&files["audit/000001.ndjson"]);
    let acts: Vec<&str> = audit.iter().map(|event| event["act"].as_str().unwrap()).collect();
    assert!(acts.contains(&"account-created") && acts.contains(&"login-succeeded"), "{acts:?}");

    for (filter, status) in [(json!({"status": "pending"}), 422), (json!({}), 422), (Value::Null, 202)] {
        let body = json!({"format": "archive", "filter": filter});
        assert_eq!(account.request("POST", EXPORTS).json(&body).send().await.status, status, "{body}");
    }
}
