use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use system_tests::client::{Account, Request, check_problem};
use system_tests::wait::until;
use uuid::Uuid;

use crate::here::api;

const IMPORTS: &str = "/api/v1/imports";
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn import(account: &Account, query: &str, media_type: &str, file: impl Into<Vec<u8>>) -> Request {
    account.request("POST", &format!("{IMPORTS}{query}")).body(media_type, file)
}

async fn imported(account: &Account, query: &str, media_type: &str, file: impl Into<Vec<u8>>) -> Value {
    let asked = import(account, query, media_type, file).send().await.expect(202);
    account.job_ended(&asked).await
}

async fn errors(account: &Account, job: &Value) -> Vec<Value> {
    account.walk(&format!("/api/v1/jobs/{}/errors?limit=2", job["id"].as_str().unwrap())).await
}

#[track_caller]
fn counts(job: &Value, state: &str, succeeded: u64, failed: u64) {
    assert_eq!(job["state"], state, "{job}");
    assert_eq!((&job["succeeded"], &job["failed"]), (&json!(succeeded), &json!(failed)), "{job}");
    assert_eq!(job["done"], succeeded + failed, "{job}");
}

fn created(id: Uuid, title: &str) -> Value {
    json!({"type": "CreateTask", "task_id": id, "title": title})
}

fn gzip(file: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(file).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn an_import_carries_each_line_out_on_its_own() {
    let account = api().await.account().await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let lines = [
        created(one, "one").to_string(),
        String::new(),
        "nonsense".to_owned(),
        json!({"type": "StartTask", "task_id": one}).to_string(),
        json!({"type": "StartTask", "task_id": other}).to_string(),
        json!({"type": "CompleteTask", "task_id": one, "occurred_at": "2001-01-01T00:00:00Z"}).to_string(),
        created(other, " ").to_string(),
    ];
    let asked = import(&account, "", NDJSON, lines.join("\r\n")).send().await.expect(202);
    let queued = asked.json();
    assert_eq!((&queued["kind"], &queued["dry_run"]), (&json!("import"), &json!(false)));
    assert_eq!(queued["result"], Value::Null);
    let job = account.job_ended(&asked).await;
    counts(&job, "succeeded", 2, 4);
    assert_eq!(job["total"], 6);
    assert_eq!(job["problem"], Value::Null);
    for time in ["created_at", "started_at", "finished_at", "expires_at"] {
        system_tests::client::time(job[time].as_str().unwrap_or_else(|| panic!("{time}: {job}")));
    }
    let errors = errors(&account, &job).await;
    let expected = [(3, Value::Null, 400), (5, json!(other), 404), (6, json!(one), 422), (7, Value::Null, 422)];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, (line, task_id, status)) in errors.iter().zip(expected) {
        assert_eq!((&error["line"], &error["task_id"]), (&json!(line), &task_id), "{error}");
        check_problem(&error["problem"], status).unwrap_or_else(|e| panic!("{e}: {error}"));
    }
    // the job's token covers what it counts as done
    let token =
        account.read(&format!("/api/v1/jobs/{}", asked.string("/id"))).await.must("Consistency-Token").to_owned();
    let task = account.request("GET", &format!("/api/v1/tasks/{one}")).header("Consistency-Token", &token).send().await;
    assert_eq!(task.expect(200).json()["status"], "in_progress");
    // the same file again has no second effect
    let again = imported(&account, "", NDJSON, lines.join("\r\n")).await;
    counts(&again, "succeeded", 2, 4);
    assert_eq!(account.task(one).await["version"], 2);
    let listed = account.walk("/api/v1/jobs?limit=1").await;
    assert_eq!(listed, [again, job]);
}

#[tokio::test]
async fn rows_of_csv_are_tasks() {
    let account = api().await.account().await;
    let file = "\u{feff}title,tags,created_at,status\r\nwater,\"a,b\",2020-01-02T03:04:05Z,completed\r\n\r\n\"two\r\nlines\",,,\r\n\"'=1\",,,\r\nlate,,2.1.2020,\r\n";
    let job = imported(&account, "?format=csv", CSV, file).await;
    counts(&job, "succeeded", 2, 2);
    let lines: Vec<_> = errors(&account, &job).await.iter().map(|error| error["line"].clone()).collect();
    assert_eq!(lines, [json!(4), json!(7)], "a record's first line");
    let tasks = account.walk("/api/v1/tasks?sort=created_at").await;
    assert_eq!((&tasks[0]["title"], &tasks[0]["tags"]), (&json!("water"), &json!(["a", "b"])));
    assert_eq!((&tasks[0]["created_at"], &tasks[0]["status"]), (&json!("2020-01-02T03:04:05Z"), &json!("pending")));
    assert_eq!(tasks[1]["title"], "=1");
    let file = "title;due_at;tags\r\none;2030-01-02T03:04:05Z;a,b\r\ntwo;02.01.2030;\r\n";
    for file in [file.to_owned(), file.replace(';', "\t")] {
        let job = imported(&account, "", CSV, file).await;
        counts(&job, "succeeded", 1, 1);
        let errors = errors(&account, &job).await;
        assert_eq!((&errors[0]["line"], &errors[0]["problem"]["errors"][0]["pointer"]), (&json!(3), &json!("/due_at")));
        let detail = errors[0]["problem"]["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("such as 2026-01-31T12:00:00Z"), "{detail}");
    }
    assert_eq!(account.walk("/api/v1/tasks?q=one&tag=b").await.len(), 1, "separators make no difference");
    for header in ["titel,tags\na,b\n", "title,title\na,b\n", "description\na\n", ""] {
        let job = imported(&account, "", CSV, header).await;
        counts(&job, "failed", 0, 0);
        check_problem(&job["problem"], 422).unwrap_or_else(|e| panic!("{e}: {job}"));
    }
}

#[tokio::test]
async fn a_file_may_be_packed_and_a_bomb_is_refused() {
    let account = api().await.account().await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let mut packed = gzip(format!("{}\n", created(one, "one")).as_bytes());
    packed.extend(gzip(created(other, "other").to_string().as_bytes()));
    let asked =
        import(&account, "", NDJSON, packed.clone()).header("Content-Encoding", "gzip").send().await.expect(202);
    counts(&account.job_ended(&asked).await, "succeeded", 2, 0);
    packed.truncate(packed.len() - 9);
    for broken in [packed, b"no gzip".to_vec()] {
        let refused = import(&account, "", NDJSON, broken).header("Content-Encoding", "gzip").send().await;
        assert_eq!(refused.problem(400)["code"], "malformed-body");
    }
    // 272 MiB of blank lines in as many KiB
    let bomb = gzip(&vec![b'\n'; 16 << 20]).repeat(17);
    let refused = import(&account, "", NDJSON, bomb).header("Content-Encoding", "gzip").send().await;
    assert_eq!(refused.problem(413)["code"], "body-too-large");
    let refused = import(&account, "", NDJSON, "{}").header("Content-Encoding", "br").send().await;
    assert_eq!(refused.problem(415)["code"], "unsupported-content-encoding");
    assert_eq!(account.walk("/api/v1/jobs").await.len(), 1, "a refused file leaves no job behind");
}

#[tokio::test]
async fn a_dry_run_checks_every_rule_and_changes_nothing() {
    let account = api().await.account().await;
    let there = account.create(json!({"title": "there"})).await;
    let new = Uuid::now_v7();
    let lines = [
        created(new, "new"),
        json!({"type": "CompleteTask", "task_id": new}),
        json!({"type": "StartTask", "task_id": new}),
        json!({"type": "StartTask", "task_id": there}),
        json!({"type": "StartTask", "task_id": Uuid::now_v7()}),
        json!({"type": "RenameTask", "task_id": new, "title": "renamed", "expected_version": 2}),
        json!({"type": "RenameTask", "task_id": new, "title": "again", "expected_version": 2}),
    ];
    let file = lines.iter().fold(String::new(), |mut file, line| {
        writeln!(file, "{line}").unwrap();
        file
    });
    let job = imported(&account, "?dry_run=true", NDJSON, file.clone()).await;
    assert_eq!(job["dry_run"], true);
    let tried = errors(&account, &job).await;
    let (lines, statuses): (Vec<_>, Vec<_>) = tried
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["problem"]["status"].as_u64().unwrap()))
        .unzip();
    assert_eq!((lines, statuses), (vec![3, 5, 7], vec![409, 404, 412]));
    counts(&job, "succeeded", 4, 3);
    account.request("GET", &format!("/api/v1/tasks/{new}")).send().await.problem(404);
    assert_eq!(account.task(there).await["version"], 1);
    // carried out, it comes to the same
    let job = imported(&account, "?dry_run=false", NDJSON, file).await;
    counts(&job, "succeeded", 4, 3);
    let carried_out = errors(&account, &job).await;
    let essence = |errors: &[Value]| -> Vec<_> {
        errors.iter().map(|error| (error["line"].clone(), error["problem"]["code"].clone())).collect()
    };
    assert_eq!(essence(&tried), essence(&carried_out));
}

/// Else a client that keeps the latest token would go back in time.
#[tokio::test]
async fn a_job_that_nobody_has_begun_stands_for_what_was_done_before() {
    let account = api().await.account().await;
    let created = account.request("POST", "/api/v1/tasks").json(&json!({"title": "a"})).send().await.expect(201);
    let (id, token) = (created.uuid("/id"), created.must("Consistency-Token"));
    // the token is that of the same event: nothing was written meanwhile
    let ask = |path: &str, body: &Value| account.request("POST", path).json(body).header("Consistency-Token", token);
    let asked = ask("/api/v1/exports", &json!({"format": "csv"})).send().await.expect(202);
    assert_eq!(asked.must("Consistency-Token"), token);
    assert_eq!(account.task(id).await["title"], "a");
    let bulk = json!({"filter": {"status": "pending"}, "command": {"type": "StartTask"}});
    let asked = ask("/api/v1/tasks/bulk", &bulk).send().await.expect(202);
    // by now somebody may have begun it
    let shown = account.request("GET", &format!("/api/v1/tasks/{id}"));
    shown.header("Consistency-Token", asked.must("Consistency-Token")).send().await.expect(200);
    account.job_ended(&asked).await;
    assert_eq!(account.task(id).await["status"], "in_progress");
}

#[tokio::test]
async fn a_key_stands_for_one_job() {
    let account = api().await.account().await;
    let file = created(Uuid::now_v7(), "one").to_string();
    let ask = |query: &str, file: &str| import(&account, query, NDJSON, file).key("job-1");
    let first = ask("", &file).send().await.expect(202);
    assert_eq!(first.header("Idempotent-Replayed"), None);
    let job = account.job_ended(&first).await;
    let again = ask("", &file).send().await.expect(202);
    assert_eq!(again.must("Idempotent-Replayed"), "true");
    assert_eq!(again.json(), job, "in its present state");
    assert_eq!(ask("", &format!("{file} ")).send().await.problem(422)["code"], "key-reused");
    assert_eq!(ask("?dry_run=true", &file).send().await.problem(422)["code"], "key-reused");
    let create = account.request("POST", "/api/v1/tasks").json(&json!({"title": "a"}));
    assert_eq!(create.key("job-1").send().await.problem(422)["code"], "key-reused");
    let create = account.request("POST", "/api/v1/tasks").json(&json!({"title": "a"}));
    create.key("task-1").send().await.expect(201);
    assert_eq!(import(&account, "", NDJSON, file).key("task-1").send().await.problem(422)["code"], "key-reused");
    assert_eq!(account.walk("/api/v1/jobs").await.len(), 1);
}

#[tokio::test]
async fn a_job_is_its_owner_s_and_can_be_dropped() {
    let (account, stranger) = (api().await.account().await, api().await.account().await);
    let job = imported(&account, "", NDJSON, "nonsense\n").await;
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/errors"))] {
        stranger.request(method, &path).send().await.problem(404);
        account.request(method, &format!("/api/v1/jobs/{}", Uuid::now_v7())).send().await.problem(404);
    }
    assert!(stranger.walk("/api/v1/jobs").await.is_empty());
    assert_eq!(errors(&account, &job).await.len(), 1);
    for _ in 0..2 {
        account.request("DELETE", &path).send().await.expect(204);
        assert_eq!(account.read(&path).await.expect(200).json(), job);
        assert!(errors(&account, &job).await.is_empty());
    }
}

#[tokio::test]
async fn cursors_of_jobs_are_good_for_their_owner_and_list_only() {
    let (account, stranger) = (api().await.account().await, api().await.account().await);
    let file = "nonsense\n".repeat(3);
    let (one, other) = (imported(&account, "", NDJSON, &*file).await, imported(&account, "", NDJSON, &*file).await);
    let errors_of = |job: &Value| format!("/api/v1/jobs/{}/errors?limit=2", job["id"].as_str().unwrap());
    let of_jobs = account.read("/api/v1/jobs?limit=1").await.expect(200).string("/next_cursor");
    let of_errors = account.read(&errors_of(&one)).await.expect(200).string("/next_cursor");
    let path = |path: &str, cursor: &str| format!("{path}&cursor={cursor}");
    account.read(&path("/api/v1/jobs?limit=1", &of_jobs)).await.expect(200);
    account.read(&path(&errors_of(&one), &of_errors)).await.expect(200);
    for (asks, path) in [
        (&stranger, path("/api/v1/jobs?limit=1", &of_jobs)),
        (&account, path("/api/v1/jobs?limit=1", &of_errors)),
        (&account, path(&errors_of(&one), &of_jobs)),
        (&account, path(&errors_of(&other), &of_errors)),
    ] {
        assert_eq!(asks.read(&path).await.problem(400)["code"], "invalid-cursor", "{path}");
    }
}

#[tokio::test]
async fn the_first_ten_thousand_errors_are_kept_and_all_are_counted() {
    let account = api().await.account().await;
    let job = imported(&account, "", NDJSON, "nonsense\n".repeat(10_001)).await;
    counts(&job, "succeeded", 0, 10_001);
    let errors = account.walk(&format!("/api/v1/jobs/{}/errors?limit=200", job["id"].as_str().unwrap())).await;
    assert_eq!((errors.len(), &errors[9_999]["line"]), (10_000, &json!(10_000)));
}

#[tokio::test]
async fn a_line_that_is_too_long_fails_alone() {
    let account = api().await.account().await;
    let (one, long, other) = (Uuid::now_v7(), created(Uuid::now_v7(), &"a".repeat(1 << 20)), Uuid::now_v7());
    let nul = created(Uuid::now_v7(), "a\0b");
    let lines = [&created(one, "one"), &long, &nul, &created(other, "other")].map(Value::to_string);
    let job = imported(&account, "", NDJSON, lines.join("\n")).await;
    counts(&job, "succeeded", 2, 2);
    let errors = errors(&account, &job).await;
    let told = errors.iter().map(|error| (error["line"].clone(), error["problem"]["status"].clone()));
    assert_eq!(told.collect::<Vec<_>>(), [(json!(2), json!(413)), (json!(3), json!(422))]);
}

#[tokio::test]
async fn a_job_that_is_cancelled_keeps_what_is_done() {
    let account = api().await.account().await;
    let file = (0..60_000).fold("nonsense\n".to_owned(), |mut file, n| {
        writeln!(file, r#"{{"type":"CreateTask","task_id":"{}","title":"{n}"}}"#, Uuid::now_v7()).unwrap();
        file
    });
    let asked = import(&account, "", NDJSON, file).send().await.expect(202);
    let path = asked.must("Location").to_owned();
    until("some of it is done", Duration::from_secs(60), || async {
        (account.read(&path).await.expect(200).number("/done") > 0).then_some(())
    })
    .await;
    let cancel = || account.request("DELETE", &path).key("cancel");
    let cancelled = cancel().send().await.expect(204);
    let job = account.job_ended(&asked).await;
    let done = job["done"].as_u64().unwrap();
    counts(&job, "cancelled", done - 1, 1);
    assert!(done < 60_001 && job["total"] == 60_001, "{job}");
    // what is done shows, by either token
    for answer in [&cancelled, &account.read(&path).await] {
        let stats =
            account.request("GET", "/api/v1/stats").header("Consistency-Token", answer.must("Consistency-Token"));
        assert_eq!(stats.send().await.expect(200).number("/by_status/pending"), done - 1);
    }
    // again it is no second request, which would drop the errors
    let again = cancel().send().await.expect(204);
    assert_eq!(again.must("Idempotent-Replayed"), "true");
    assert_eq!(again.header("Consistency-Token"), cancelled.header("Consistency-Token"));
    assert_eq!(errors(&account, &job).await.len(), 1);
    account.request("DELETE", &path).send().await.expect(204);
    assert!(errors(&account, &job).await.is_empty());
}

#[tokio::test]
async fn what_is_no_file_of_tasks_is_refused() {
    let account = api().await.account().await;
    for (query, media_type, status) in [
        ("?format=csv", NDJSON, 415),
        ("?format=ndjson", CSV, 415),
        ("", "application/json", 415),
        ("?format=ics", NDJSON, 400),
        ("?dry_run=yes", NDJSON, 400),
        ("?other=1", NDJSON, 400),
    ] {
        import(&account, query, media_type, "{}").send().await.problem(status);
    }
    import(&account, "", NDJSON, "{}").if_version(1).send().await.problem(400);
    let stranger_s = api().await.account().await.read("/api/v1/jobs").await.must("Consistency-Token").to_owned();
    for path in ["/api/v1/jobs", "/api/v1/jobs?cursor=x", "/api/v1/jobs?limit=0"] {
        let answer = account.request("GET", path).header("Consistency-Token", &stranger_s).send().await;
        answer.problem(400);
    }
    api().await.request("POST", IMPORTS).body(NDJSON, "{}").send().await.problem(401);
    assert!(account.walk("/api/v1/jobs").await.is_empty());
}

#[tokio::test]
async fn a_change_of_very_many_tasks_is_undone_by_a_job() {
    const TASKS: u64 = 10_001;
    let account = api().await.account().await;
    let changed = Uuid::now_v7();
    let file = (0..TASKS).fold(String::new(), |mut file, n| {
        let id = if n == 0 { changed } else { Uuid::now_v7() };
        writeln!(file, "{}", created(id, &n.to_string())).unwrap();
        file
    });
    let job = imported(&account, "", NDJSON, file).await;
    counts(&job, "succeeded", TASKS, 0);
    let path = format!("/api/v1/changes/{}/undo", job["change_id"].as_str().unwrap());
    let ask = |key: &str| account.request("POST", &path).key(key);
    account.act(changed, "start").await.expect(200);
    let asked = ask("undo").send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!((&job["kind"], &job["total"], &job["change_id"]), (&json!("undo"), &json!(TASKS), &job["id"]));
    counts(&job, "succeeded", TASKS - 1, 1);
    let refused = errors(&account, &job).await;
    assert_eq!((&refused[0]["task_id"], &refused[0]["line"]), (&json!(changed), &Value::Null));
    assert_eq!(refused[0]["problem"]["code"], "changed-since");
    let again = ask("undo").send().await.expect(202);
    assert_eq!((again.must("Idempotent-Replayed"), again.json()), ("true", job.clone()));
    let token = account.read(asked.must("Location")).await.must("Consistency-Token").to_owned();
    let left = account.request("GET", "/api/v1/tasks").header("Consistency-Token", &token).send().await.expect(200);
    assert_eq!(left.json()["items"].as_array().unwrap().len(), 1);
}
