//! A real log through the command line, and what the queries then say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{Datelike, Months, NaiveTime, SecondsFormat, TimeDelta};
use serde_json::{Value, json};
use system_tests::check::{everything_holds, read_model_rows};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool};
use system_tests::kafka::Kafka;
use system_tests::redis::Redis;
use system_tests::server::{Config, Server, command};
use system_tests::services::{Parts, Services};
use system_tests::wait::until;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

/// A log of commands and what is true after it.
struct Log {
    file: PathBuf,
    commands: u64,
    expected: Value,
}

impl Log {
    fn events(&self) -> u64 {
        let tasks = self.expected["tasks"].as_object().expect("tasks");
        tasks.values().map(|task| task["version"].as_u64().expect("version")).sum()
    }
}

/// The car maker's log where it is at hand, else one of about the same shape.
fn log(dir: &Path) -> Log {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let file = data.join("problems-2013.commands.ndjson");
    if file.exists() {
        let expected = std::fs::read_to_string(data.join("problems-2013.expected.json")).expect("expected.json");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let commands = expected["commands"].as_u64().expect("commands");
        return Log { file, commands, expected };
    }
    println!("no ../shared/data: a generated log instead");
    generated(dir)
}

fn generated(dir: &Path) -> Log {
    let mut lines = String::new();
    let mut commands = 0;
    let mut tasks = BTreeMap::new();
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for n in 0..1_500_u64 {
        let id = Uuid::from_u64_pair(n, n);
        let (status, priority) =
            (["completed", "cancelled", "pending", "in_progress"][n as usize % 4], ["low", "urgent"][n as usize % 2]);
        let mut tell = |day: u64, mut command: Value| {
            command["task_id"] = json!(id);
            command["occurred_at"] = json!(format!("2013-{:02}-{:02}T12:00:00Z", 1 + n % 11, 1 + day));
            writeln!(lines, "{command}").expect("string");
            commands += 1;
        };
        tell(
            1,
            json!({"type": "CreateTask", "title": format!("PROD{n}: problem"), "priority": priority, "tags": ["a"]}),
        );
        tell(2, json!({"type": "TagTask", "tag": "waiting"}));
        let mut version = 2;
        if n % 2 == 0 {
            tell(3, json!({"type": "UntagTask", "tag": "waiting"}));
            version += 1;
        }
        let last = match status {
            "completed" => Some("CompleteTask"),
            "cancelled" => Some("CancelTask"),
            "in_progress" => Some("StartTask"),
            _ => None,
        };
        if let Some(last) = last {
            tell(4, json!({"type": last}));
            version += 1;
        }
        let tags = if n % 2 == 0 { json!(["a"]) } else { json!(["a", "waiting"]) };
        tasks.insert(id.to_string(), json!({"priority": priority, "status": status, "tags": tags, "version": version}));
        *by_status.entry(status).or_default() += 1;
    }
    let file = dir.join("log.ndjson");
    std::fs::write(&file, lines).expect("log");
    Log { file, commands, expected: json!({"by_status": by_status, "commands": commands, "tasks": tasks}) }
}

async fn started() -> (Server, Account) {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    (server, account)
}

async fn import(server: &Server, account: &Account, file: &Path, more: &[&str]) -> (i32, Value) {
    let file = file.to_str().expect("path");
    let arguments = [&["import", file, "--owner", &account.email, "--json"], more].concat();
    let run = server.cli(&arguments).await;
    (run.code, run.json())
}

/// The file of an export that is asked for over HTTP.
async fn exported(account: &Account, format: &str) -> Vec<u8> {
    let asked = account.request("POST", "/api/v1/exports").json(&json!({"format": format})).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    let href = job["result"]["href"].as_str().unwrap_or_else(|| panic!("{job}"));
    account.read(href).await.expect(200).body
}

async fn rows_of(server: &Server) -> BTreeMap<String, Vec<String>> {
    let pool = pool(server.database_url()).await;
    let rows = read_model_rows(&pool).await;
    pool.close().await;
    rows
}

/// List, history and statistics agree with what is expected of the log.
async fn agrees(account: &Account, expected: &Value) {
    let tasks = expected["tasks"].as_object().expect("tasks");
    let listed = account.walk(&format!("{TASKS}?limit=200")).await;
    assert_eq!(listed.len(), tasks.len());
    for task in &listed {
        let id = task["id"].as_str().expect("id");
        for (field, value) in tasks[id].as_object().expect("task") {
            assert_eq!(&task[field], value, "{field} of {id}");
        }
    }
    for task in listed.iter().step_by(listed.len() / 25) {
        let id = task["id"].as_str().expect("id");
        let history = account.walk(&format!("{TASKS}/{id}/history?limit=200")).await;
        assert_eq!(history.len() as u64, tasks[id]["version"].as_u64().unwrap());
        let at = |item: &Value| system_tests::client::time(item["occurred_at"].as_str().unwrap());
        assert!(history.windows(2).all(|pair| at(&pair[0]) <= at(&pair[1])), "{id}");
        let created: Value = history[0]["changes"].clone();
        assert_eq!(created["title"]["to"], task["title"]);
    }
    let stats = account.read("/api/v1/stats").await.expect(200).json();
    for status in ["pending", "in_progress", "completed", "cancelled"] {
        let count = expected["by_status"][status].as_u64().unwrap_or(0);
        assert_eq!(stats["by_status"][status].as_u64(), Some(count), "{status}");
        let listed = account.walk(&format!("{TASKS}?status={status}&limit=200")).await;
        assert_eq!(listed.len() as u64, count);
    }
    for priority in ["low", "medium", "high", "urgent"] {
        let count = tasks.values().filter(|task| task["priority"] == priority).count();
        assert_eq!(stats["by_priority"][priority], count, "{priority}");
    }
}

/// As of the end of each month, the list is what the commands up to then have made.
async fn agrees_with_the_times(account: &Account, file: &Path) {
    let text = std::fs::read_to_string(file).expect("log");
    let commands: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let time = |command: &Value| system_tests::client::time(command["occurred_at"].as_str().expect("occurred_at"));
    let first = commands.iter().map(time).min().expect("commands").date_naive().with_day(1).expect("a first");
    let last = commands.iter().map(time).max().expect("commands").date_naive();
    for month in (1..).map(|n| first + Months::new(n)).take_while(|month| *month <= last + Months::new(1)) {
        let end = month.and_time(NaiveTime::MIN).and_utc() - TimeDelta::microseconds(1);
        let mut expected: BTreeMap<&str, (&str, &str, BTreeSet<&str>)> = BTreeMap::new();
        for command in commands.iter().filter(|command| time(command) <= end) {
            let text = |field: &str| command[field].as_str().unwrap_or_default();
            let task = expected.entry(text("task_id")).or_insert(("pending", "medium", BTreeSet::new()));
            let tags =
                command["tags"].as_array().into_iter().flatten().chain([&command["tag"]]).filter_map(Value::as_str);
            match text("type") {
                "CreateTask" => {
                    task.1 = text("priority");
                    task.2 = tags.collect();
                }
                "TagTask" => task.2.extend(tags),
                "UntagTask" => {
                    let gone: BTreeSet<&str> = tags.collect();
                    task.2.retain(|tag| !gone.contains(tag));
                }
                "ReprioritizeTask" => task.1 = text("priority"),
                "StartTask" => task.0 = "in_progress",
                "CompleteTask" => task.0 = "completed",
                "ReopenTask" => task.0 = "pending",
                "CancelTask" => task.0 = "cancelled",
                other => panic!("{other} in the log"),
            }
        }
        let at = end.to_rfc3339_opts(SecondsFormat::Micros, true);
        let listed = account.walk(&format!("{TASKS}?limit=200&as_of={at}")).await;
        assert_eq!(listed.len(), expected.len(), "{at}");
        for task in &listed {
            let text = |field: &str| task[field].as_str().expect(field);
            let tags: BTreeSet<&str> =
                task["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
            let found = (text("status"), text("priority"), tags);
            assert_eq!(Some(&found), expected.get(text("id")), "{} as of {at}", text("id"));
        }
    }
}

#[tokio::test]
async fn a_log_goes_in_once() {
    let (server, account) = started().await;
    let log = log(server.dir());
    let (code, dry) = import(&server, &account, &log.file, &["--dry-run"]).await;
    assert_eq!((code, dry["lines"].as_u64()), (0, Some(log.commands)), "{dry}");
    assert_eq!(account.read("/api/v1/stats").await.json()["by_status"]["pending"], 0, "a dry run changes nothing");

    let (code, first) = import(&server, &account, &log.file, &[]).await;
    assert_eq!(code, 0, "{first}");
    let number = |object: &Value, field: &str| object[field].as_u64().unwrap_or_else(|| panic!("{field} in {object}"));
    assert_eq!(number(&first, "lines"), log.commands);
    assert_eq!((number(&first, "succeeded"), number(&first, "failed")), (log.commands, 0));
    assert_eq!(number(&first, "events"), log.events());
    assert!(first["seconds"].is_number());
    server.caught_up().await;
    agrees(&account, &log.expected).await;
    agrees_with_the_times(&account, &log.file).await;

    // a second import changes nothing
    let before = rows_of(&server).await;
    let (code, second) = import(&server, &account, &log.file, &[]).await;
    assert_eq!(code, 0, "{second}");
    assert_eq!((number(&second, "succeeded"), number(&second, "events")), (log.commands, 0));
    server.caught_up().await;
    assert_eq!(rows_of(&server).await, before);

    // a rebuild gives the same, row for row
    let rebuilt = server.cli(&["rebuild", "--expect-same", "--json"]).await.expect(0).json();
    assert_eq!(rebuilt["differences"], 0, "{rebuilt}");
    assert_eq!(number(&rebuilt, "events"), log.events());
    assert_eq!(rows_of(&server).await, before);
    agrees(&account, &log.expected).await;

    // what is exported rebuilds the same tasks in another account
    let lines = server.dir().join("export.ndjson");
    let path = lines.to_str().unwrap();
    server.cli(&["export", path, "--owner", &account.email]).await.expect(0);
    assert!(std::fs::read(&lines).unwrap() == exported(&account, "ndjson").await, "another file over HTTP");
    let other = server.api().account().await;
    let (code, copied) = import(&server, &other, &lines, &[]).await;
    assert_eq!((code, number(&copied, "failed")), (0, 0), "{copied}");
    server.caught_up().await;
    let (mine, theirs) =
        (account.walk(&format!("{TASKS}?limit=200")).await, other.walk(&format!("{TASKS}?limit=200")).await);
    assert_eq!(mine, theirs);

    // and as a table, where every row is a CreateTask
    let table = server.dir().join("export.csv");
    let path = table.to_str().unwrap();
    server.cli(&["export", path, "--owner", &account.email, "--format", "csv"]).await.expect(0);
    assert!(std::fs::read(&table).unwrap() == exported(&account, "csv").await, "another file over HTTP");
    let third = server.api().account().await;
    let (code, rows) = import(&server, &third, &table, &["--format", "csv"]).await;
    assert_eq!((code, number(&rows, "failed")), (0, 0), "{rows}");
    server.caught_up().await;
    let titles = |tasks: &[Value]| {
        let mut titles: Vec<String> =
            tasks.iter().map(|task| format!("{} {} {}", task["title"], task["tags"], task["priority"])).collect();
        titles.sort();
        titles
    };
    assert_eq!(titles(&third.walk(&format!("{TASKS}?limit=200")).await), titles(&mine));
    everything_holds(&server, &[]).await;
}

/// The same log into the store of the services, by way of Kafka into the read models, and from both copies of query-api.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_through_the_services() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let account = services.api().account().await;
    let log = log(services.commands[0].dir());
    let arguments = ["import", log.file.to_str().expect("path"), "--owner", &account.email, "--json"];
    for events_of_second in [None, Some(0)] {
        let report = services.cli(&arguments, "").await.expect(0).json();
        assert_eq!(
            (report["succeeded"].as_u64(), report["failed"].as_u64()),
            (Some(log.commands), Some(0)),
            "{report}"
        );
        assert_eq!(report["events"].as_u64(), events_of_second.or(Some(log.events())), "{report}");
        services.everything_is_read().await;
        for query in &services.queries {
            let account = account.at(query.api());
            // without a token a copy may be a moment behind
            until("it shows the last event", Duration::from_secs(20), || async {
                let page = account.read(&format!("{TASKS}?limit=1")).await.expect(200).json();
                (page["revision"].as_u64() == Some(log.events())).then_some(())
            })
            .await;
            agrees(&account, &log.expected).await;
        }
    }
    services.everything_holds(&[]).await;
}

#[tokio::test]
async fn an_interrupted_import_is_started_again() {
    let (server, account) = started().await;
    let mut lines = String::new();
    for n in 0..30_000 {
        let command = json!({"type": "CreateTask", "task_id": Uuid::from_u64_pair(7, n), "title": format!("t{n}")});
        writeln!(lines, "{command}").unwrap();
    }
    let file = server.dir().join("long.ndjson");
    std::fs::write(&file, lines).unwrap();
    let pool = pool(server.database_url()).await;
    for round in 0..2 {
        let arguments = ["import", file.to_str().unwrap(), "--owner", &account.email];
        let run = server.cli(&arguments);
        let events = || async {
            sqlx::query_scalar::<_, i64>("select coalesce(max(position), 0) from event_store.event")
                .fetch_one(&pool)
                .await
                .ok()
        };
        let before = events().await.unwrap();
        let some_in = system_tests::wait::until("some are in", std::time::Duration::from_secs(60), || async {
            (events().await? > before + 2_000).then_some(())
        });
        // dropping a run kills it
        tokio::select! {
            run = run => assert!(round > 0 || run.code == 0, "it ended by itself: {run:?}"),
            () = some_in => {}
        }
    }
    let (code, whole) = import(&server, &account, &file, &[]).await;
    assert_eq!((code, whole["succeeded"].as_u64()), (0, Some(30_000)), "{whole}");
    let count: i64 = sqlx::query_scalar("select count(*) from event_store.event").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 30_000);
    everything_holds(&server, &[]).await;
}

#[tokio::test]
async fn an_import_is_not_undone_before_its_end() {
    const LINES: u64 = 1_000;
    let (server, account) = started().await;
    // so long that all three workers begin before the end
    let description = "x".repeat(9_000);
    let lines = (0..LINES).fold(String::new(), |mut lines, n| {
        let id = Uuid::from_u64_pair(7, n);
        let create = json!({"type": "CreateTask", "task_id": id, "title": "a", "description": description});
        writeln!(lines, "{create}").unwrap();
        lines
    });
    let mut importing = command(server.dir(), &["import", "-", "--owner", &account.email, "--json"]);
    importing.env("PRIMETRADE_DATABASE_URL", server.database_url());
    let mut importing = tokio::process::Command::from(importing).kill_on_drop(true).spawn().expect("primetrade");
    let mut input = importing.stdin.take().expect("piped");
    input.write_all(lines.as_bytes()).await.expect("it reads");
    let change: Uuid = until("some of it is in", Duration::from_secs(60), || async {
        let changes = account.read("/api/v1/changes").await.expect(200).json();
        changes["items"][0]["id"].as_str()?.parse().ok()
    })
    .await;
    let undo = async || account.request("POST", &format!("/api/v1/changes/{change}/undo")).send().await;
    assert_eq!(undo().await.problem(409)["code"], "change-in-progress");
    drop(input);
    let report = importing.wait_with_output().await.expect("an end");
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    assert_eq!(undo().await.expect(200).number("/succeeded"), LINES);
    server.caught_up().await;
    assert!(account.walk(TASKS).await.is_empty());
}

/// By whichever way a file came first: its lines get the same ids.
#[tokio::test]
async fn a_file_that_came_by_one_way_is_recognised_by_the_other() {
    let (server, account) = started().await;
    let pool = pool(server.database_url()).await;
    let events = async || -> i64 {
        sqlx::query_scalar("select count(*) from event_store.event").fetch_one(&pool).await.unwrap()
    };
    let lines = |task: u128| {
        let id = Uuid::from_u128(task);
        [
            json!({"type": "CreateTask", "task_id": id, "title": "a"}),
            json!({"type": "TagTask", "task_id": id, "tag": "b"}),
            json!({"type": "UntagTask", "task_id": id, "tag": "b"}),
        ]
        .map(|line| line.to_string())
        .join("\n")
    };
    let rows = |title: &str| format!("title,tags\n{title},\"b,c\"\n{title},b\n{title},\n");
    const EVENTS: i64 = 3;
    for (format, media_type, file, http_first) in [
        ("ndjson", "application/x-ndjson", lines(1), false),
        ("ndjson", "application/x-ndjson", lines(2), true),
        ("csv", "text/csv", rows("one"), false),
        ("csv", "text/csv", rows("two"), true),
    ] {
        let path = server.dir().join("file");
        std::fs::write(&path, &file).expect("a file");
        let come = async |over_http: bool| {
            let (succeeded, failed) = if over_http {
                let request = account.request("POST", "/api/v1/imports").body(media_type, file.as_str());
                let job = account.job_ended(&request.send().await.expect(202)).await;
                (job["succeeded"].as_i64(), job["failed"].as_i64())
            } else {
                let (_, report) = import(&server, &account, &path, &["--format", format]).await;
                (report["succeeded"].as_i64(), report["failed"].as_i64())
            };
            assert_eq!((succeeded, failed), (Some(EVENTS), Some(0)), "{format}, over HTTP: {over_http}");
        };
        let before = events().await;
        come(http_first).await;
        assert_eq!(events().await - before, EVENTS, "{format}, over HTTP: {http_first}");
        come(!http_first).await;
        assert_eq!(events().await - before, EVENTS, "{format} again, over HTTP: {}", !http_first);
    }
    pool.close().await;
}

#[tokio::test]
async fn it_works_while_the_server_does_not_run() {
    let (server, account) = started().await;
    server.kill();
    let log = generated(server.dir());
    let (code, report) = import(&server, &account, &log.file, &[]).await;
    assert_eq!((code, report["failed"].as_u64()), (0, Some(0)), "{report}");
    server.cli(&["rebuild", "--json"]).await.expect(0);
    server.cli(&["doctor", "--json"]).await.expect(0);
    server.restart().await;
    server.caught_up().await;
    agrees(&account, &log.expected).await;
    everything_holds(&server, &[]).await;
}
