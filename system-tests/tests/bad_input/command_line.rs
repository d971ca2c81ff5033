//! Bad input wherever input is taken: a clear error that names the place, and nothing lost. (HTTP bodies, paths, queries and
//! headers: see contract/refusals.rs and contract/values.rs.)

use std::fs;

use serde_json::json;
use system_tests::check::everything_holds;
use system_tests::client::Account;
use system_tests::cluster::{Cluster, free_port, temp_dir};
use system_tests::process::{SECRET, binary, clean_environment};
use system_tests::server::{CliRun, Config, Server, cli};
use uuid::Uuid;

async fn started() -> (Server, Account) {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    (server, account)
}

/// A clear error: on standard error, not a panic, without the secret.
#[track_caller]
fn clear(run: &CliRun, code: i32, names: &str) {
    assert_eq!(run.code, code, "{run:?}");
    assert!(run.err.contains(names), "does not name {names}: {run:?}");
    assert!(!run.err.contains("panicked") && !run.err.contains(SECRET), "{run:?}");
}

#[tokio::test]
async fn import_lines() {
    let (server, account) = started().await;
    let id = Uuid::now_v7();
    let good = json!({"type": "CreateTask", "task_id": id, "title": "good"});
    let lines = [
        good.to_string(),
        "not json".to_owned(),
        json!({"type": "PaintTask", "task_id": id}).to_string(),
        json!({"type": "RenameTask", "task_id": id, "title": "nul\u{0}"}).to_string(),
        json!({"type": "RenameTask", "task_id": id, "title": ""}).to_string(),
        String::new(),
        json!({"type": "StartTask", "task_id": id, "occurred_at": "2999-01-01T00:00:00Z"}).to_string(),
        json!({"type": "ReopenTask", "task_id": Uuid::now_v7()}).to_string(),
        format!("{{\"type\":\"StartTask\",\"task_id\":\"{id}\",\"title\":\"{}\"}}", "x".repeat(3_000_000)),
        json!({"type": "StartTask", "task_id": id}).to_string(),
    ];
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend_from_slice(b"\n{\"type\":\"\xff\xfe\"}\n");
    bytes.extend_from_slice(json!({"type": "CompleteTask", "task_id": id}).to_string().as_bytes());
    let file = server.dir().join("bad.ndjson");
    fs::write(&file, bytes).unwrap();
    let run = server.cli(&["import", file.to_str().unwrap(), "--owner", &account.email, "--json"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    let report = run.json();
    assert_eq!(report["succeeded"], 3, "{run:?}");
    assert!(report["failed"].as_u64().unwrap() >= 8, "{report}");
    // each rejected line by number
    for line in [2, 3, 4, 5, 7, 8, 9, 11] {
        let named =
            run.err.lines().any(|text| text.split(|c: char| !c.is_ascii_digit()).any(|n| n == line.to_string()));
        assert!(named, "line {line} is not named: {}", run.err);
    }
    server.caught_up().await;
    assert_eq!(account.task(id).await["status"], json!("completed"));
    everything_holds(&server, &[]).await;
}

#[tokio::test]
async fn import_tables() {
    let (server, account) = started().await;
    let file = server.dir().join("table.csv");
    fs::write(
        &file,
        "title,description,priority,due_at,tags,id\n\
         good,,high,,\"a,b\",\n\
         '=1+1,'@x,,,,\n\
         ,no title,,,,\n\
         bad date,,,2026-02-30T00:00:00Z,,\n\
         too,many,low,,,,,,,,\n",
    )
    .unwrap();
    let run =
        server.cli(&["import", file.to_str().unwrap(), "--owner", &account.email, "--format", "csv", "--json"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!((&run.json()["succeeded"], &run.json()["failed"]), (&json!(2), &json!(3)), "{run:?}");
    server.caught_up().await;
    let tasks = account.walk("/api/v1/tasks").await;
    let titles: Vec<_> = tasks.iter().map(|task| task["title"].as_str().unwrap()).collect();
    assert!(titles.contains(&"good") && titles.contains(&"=1+1"), "{titles:?}");
    // and an export guards what a spreadsheet would run
    let out = server.dir().join("out.csv");
    server.cli(&["export", out.to_str().unwrap(), "--owner", &account.email, "--format", "csv"]).await.expect(0);
    let text = fs::read_to_string(out).unwrap();
    assert!(text.contains("'=1+1") && text.contains("'@x"), "{text}");
}

#[tokio::test]
async fn command_line() {
    let (server, account) = started().await;
    let missing = server.dir().join("missing.ndjson");
    let missing = missing.to_str().unwrap();
    for (arguments, code, names) in [
        (vec!["fly"], 2, "fly"),
        (vec!["serve", "--lisen", "x"], 2, "--lisen"),
        (vec!["import", missing, "--owner", &account.email], 2, "missing.ndjson"),
        (vec!["import", "-", "--owner", "nobody@example.com"], 2, "nobody@example.com"),
        (vec!["import", "-"], 2, "--owner"),
        (vec!["import", "-", "--owner", &account.email, "--format", "xml"], 2, "xml"),
        (vec!["export", "/nowhere/at/all.ndjson", "--owner", &account.email], 2, "/nowhere/at/all.ndjson"),
        (vec!["user", "create", "--email", "no-at-sign", "--password-stdin"], 2, "address"),
        (vec!["user", "create", "--email", &account.email, "--password-stdin"], 2, "address"),
        (vec!["user", "disable", "--email", "nobody@example.com"], 2, "nobody@example.com"),
    ] {
        let run = server.cli_with_input(&arguments, "a long enough password").await;
        // "could not run", or "wrong": never a panic, never a 0
        assert!(run.code == code || run.code == 1, "{arguments:?}: {run:?}");
        clear(&run, run.code, names);
    }
    let help = server.cli(&["--help"]).await.expect(0);
    for command in ["serve", "migrate", "import", "export", "rebuild", "doctor", "user"] {
        assert!(help.out.contains(command), "{}", help.out);
    }
}

#[tokio::test]
async fn configuration() {
    let dir = temp_dir("config");
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    for (name, value) in [
        ("PRIMETRADE_LISTEN", "nowhere"),
        ("PRIMETRADE_LISTEN", "127.0.0.1:99999"),
        ("PRIMETRADE_OPS_LISTEN", "x"),
        ("PRIMETRADE_DATABASE_URL", "mysql://x/y"),
        ("PRIMETRADE_READ_DATABASE_URL", "not a url"),
        ("PRIMETRADE_RATE_LIMITS", "maybe"),
        ("PRIMETRADE_LOG_FORMAT", "xml"),
        ("PRIMETRADE_SECRET", "short"),
        ("PRIMETRADE_SECRET_FILE", "/nowhere/secret"),
    ] {
        let mut command = std::process::Command::new(binary("primetrade"));
        clean_environment(&mut command);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .env("PRIMETRADE_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("PRIMETRADE_DATABASE_URL", &url)
            .current_dir(&dir)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        if name == "PRIMETRADE_SECRET_FILE" {
            command.env_remove("PRIMETRADE_SECRET");
        }
        command.env(name, value);
        let run = system_tests::server::run(command, "").await;
        clear(&run, 2, name.trim_end_matches("_FILE"));
    }
}

/// Each program by itself: an unknown setting, one that cannot be taken also where this program has no use for it, one in a
/// file, and what is not fit to be reached by others.
#[tokio::test]
async fn configuration_of_the_services() {
    let dir = temp_dir("services-config");
    let file = dir.join("settings");
    fs::write(&file, "PRIMETRADE_LISTN=127.0.0.1:1\n").unwrap();
    for program in ["command-api", "query-api", "projector", "primetrade"] {
        for (name, value, names) in [
            ("PRIMETRADE_LISTN", "127.0.0.1:1", "PRIMETRADE_LISTN"),
            ("PRIMETRADE_LISTEN", "nowhere", "PRIMETRADE_LISTEN"),
            ("PRIMETRADE_KAFKA_PARTITIONS", "many", "PRIMETRADE_KAFKA_PARTITIONS"),
            ("PRIMETRADE_CONFIG_FILE", file.to_str().unwrap(), "PRIMETRADE_LISTN"),
            ("PRIMETRADE_CONFIG_FILE", "/nowhere/settings", "/nowhere/settings"),
            ("PRIMETRADE_ALLOW_INSECURE", "everything", "PRIMETRADE_ALLOW_INSECURE"),
            ("PRIMETRADE_LISTEN", "0.0.0.0:0", "plain-http"),
        ] {
            let mut command = std::process::Command::new(binary(program));
            clean_environment(&mut command);
            if program == "primetrade" {
                command.arg("serve");
            }
            command
                .env("PRIMETRADE_DATABASE_URL", format!("postgres://primetrade@127.0.0.1:{}/x", free_port()))
                .env(name, value)
                .current_dir(&dir)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            clear(&system_tests::server::run(command, "").await, 2, names);
        }
    }
}

#[tokio::test]
async fn what_is_in_the_way_of_a_start() {
    let (server, _account) = started().await;
    let listen = server.address().to_string();
    let dir = temp_dir("start");
    let url = server.database_url();
    let data = dir.join("data").display().to_string();
    // port in use
    let run = cli(&dir, Some(url), &["serve", "--listen", &listen, "--data-dir", &data], "").await;
    clear(&run, 2, &listen);
    // a database that does not answer, after a bounded retry
    let free = format!("127.0.0.1:{}", free_port());
    let nobody = format!("postgres://primetrade@127.0.0.1:{}/x", free_port());
    let started = std::time::Instant::now();
    let run = cli(&dir, Some(&nobody), &["serve", "--listen", &free, "--data-dir", &data], "").await;
    clear(&run, 2, "");
    assert!(!run.err.is_empty() && started.elapsed().as_secs() < 90, "{run:?}");
    // a folder that is none
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let file = file.display().to_string();
    let run = cli(&dir, None, &["serve", "--listen", &free, "--data-dir", &file], "").await;
    clear(&run, 2, &file);
    // a migration from a newer version of the program
    let pool = system_tests::cluster::pool(url).await;
    let tables: Vec<(String, String)> =
        sqlx::query_as("select table_schema::text, table_name::text from information_schema.tables where table_name like '%migrations'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert!(!tables.is_empty(), "migrations are recorded");
    let (schema, table) = &tables[0];
    let newer = format!(
        "insert into {schema}.{table} (version, description, success, checksum, execution_time) values (9999, 'from the future', true, '\\x00', 0)"
    );
    sqlx::query(sqlx::AssertSqlSafe(newer)).execute(&pool).await.unwrap();
    let run = cli(&dir, Some(url), &["serve", "--listen", &free, "--data-dir", &data], "").await;
    clear(&run, 2, "newer");
}
