//! Jobs where things go wrong: who carries one out is killed, as is who goes on with it, and Postgres. And what others wrote
//! has to do with them: a server of S3 with their files, a reader of their calendars.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use system_tests::calendar;
use system_tests::client::{Account, Api};
use system_tests::cluster::{Cluster, pool, temp_dir};
use system_tests::process::Process;
use system_tests::s3::S3;
use system_tests::server::{Config, Server, cli};
use system_tests::wait::until;
use uuid::Uuid;

const NDJSON: &str = "application/x-ndjson";

/// How many lines the import has whose copies are killed: four for each task, of which one is refused, so that there are
/// more refused ones than are listed. With `TEST_IMPORT_LINES` as many as that says: 100,000 each night (`.ci/nightly`).
fn lines() -> u64 {
    let lines = std::env::var("TEST_IMPORT_LINES");
    let lines: u64 = lines.map_or(40_004, |lines| lines.parse().expect("TEST_IMPORT_LINES is a number"));
    assert!(lines > 40_000 && lines.is_multiple_of(4), "TEST_IMPORT_LINES={lines}");
    lines
}

fn file(tasks: u64) -> String {
    (1..=tasks).fold(String::new(), |mut file, n| {
        let id = Uuid::from_u128(n.into());
        writeln!(file, r#"{{"type":"CreateTask","task_id":"{id}","title":"task {n}"}}"#).expect("text");
        writeln!(file, r#"{{"type":"CompleteTask","task_id":"{id}"}}"#).expect("text");
        // refused now; it would be taken after the next line
        writeln!(file, r#"{{"type":"StartTask","task_id":"{id}"}}"#).expect("text");
        writeln!(file, r#"{{"type":"ReopenTask","task_id":"{id}"}}"#).expect("text");
        file
    })
}

/// Asks any copy that answers.
async fn job(copies: &[Process], account: &Account, path: &str) -> Option<Value> {
    for copy in copies {
        if let Ok(answer) = account.at(copy.api()).request("GET", path).try_send().await
            && answer.status == 200
        {
            return Some(answer.json());
        }
    }
    None
}

async fn done(copies: &[Process], account: &Account, path: &str, lines: u64) -> Value {
    until("more lines are done", Duration::from_secs(240), || async {
        let job = job(copies, account, path).await?;
        (job["done"].as_u64()? >= lines || !job["finished_at"].is_null()).then_some(job)
    })
    .await
}

/// Which copy carries a job out.
async fn holder(copies: &[Process]) -> usize {
    until("a copy carries the job out", Duration::from_secs(60), || async {
        for (number, copy) in copies.iter().enumerate() {
            let Ok(metrics) = copy.api().get("/metrics").try_send().await else { continue };
            if metrics.text().lines().any(|line| line == "jobs_running 1") {
                return Some(number);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn an_import_goes_on_whoever_is_killed() {
    let (lines, tasks) = (lines(), lines() / 4);
    let cluster = Cluster::start(&["max_wal_size=256MB"]);
    let url = cluster.url(&cluster.create_database().await);
    cli(Path::new("/"), Some(&url), &["migrate"], "").await.expect(0);
    let objects = format!("file://{}", temp_dir("objects").display());
    let variables = || {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![pair("PRIMETRADE_DATABASE_URL", &url), pair("PRIMETRADE_OBJECT_STORE_URL", &objects)]
    };
    let copies = [(); 2].map(|()| Process::start("command-api", Vec::new(), variables()));
    for copy in &copies {
        copy.ready().await;
    }
    let api = Api::new(&format!("http://{}", copies[0].address()));
    let account = api.account().await;
    let asked = account.request("POST", "/api/v1/imports").body(NDJSON, file(tasks)).send().await.expect(202);
    let path = asked.must("Location").to_owned();

    let before = done(&copies, &account, &path, lines / 20).await;
    assert!(before["finished_at"].is_null(), "it was too fast to be killed: {before}");
    let first = holder(&copies).await;
    copies[first].kill();
    let second = done(&copies, &account, &path, before["done"].as_u64().expect("a number") + lines / 5).await;
    assert!(second["finished_at"].is_null(), "it was too fast to be killed: {second}");
    copies[1 - first].kill();
    for copy in &copies {
        copy.restart().await;
    }
    let third = done(&copies, &account, &path, second["done"].as_u64().expect("a number") + lines / 5).await;
    assert!(third["finished_at"].is_null(), "it was too fast to be killed: {third}");
    cluster.kill();
    cluster.restart().await;

    // to its end, which comes after the last line
    let job = done(&copies, &account, &path, u64::MAX).await;
    assert_eq!((&job["state"], &job["total"]), (&"succeeded".into(), &lines.into()), "{job}");
    assert_eq!((&job["succeeded"], &job["failed"]), (&(3 * tasks).into(), &tasks.into()), "{job}");
    let errors = account.walk(&format!("{path}/errors?limit=200")).await;
    assert_eq!(errors.len(), 10_000);
    for (number, error) in (0_u64..).zip(&errors) {
        assert_eq!(error["line"], 4 * number + 3);
        assert_eq!(error["problem"]["code"], "transition-refused");
    }
    let pool = pool(&url).await;
    let streams: Vec<(i64, i64)> = sqlx::query_as(
        "select events, count(*) from (select count(*) as events, \
         array_agg(type order by version) = '{TaskCreated,TaskCompleted,TaskReopened}' as is_right \
         from event_store.event where owner_id = $1 group by task_id) t where is_right group by events",
    )
    .bind(account.id)
    .fetch_all(&pool)
    .await
    .expect("streams");
    assert_eq!(streams, [(3, tasks as i64)]);
    let changes = sqlx::query_scalar("select distinct change_id from event_store.event where owner_id = $1");
    let changes: Vec<Option<Uuid>> = changes.bind(account.id).fetch_all(&pool).await.expect("changes");
    let change: Uuid = job["change_id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(changes, [Some(change)]);
    pool.close().await;
}

#[tokio::test]
async fn files_of_jobs_are_in_s3() {
    let (cluster, s3) = (Cluster::shared(), S3::start().await);
    let url = cluster.url(&cluster.create_database().await);
    cli(Path::new("/"), Some(&url), &["migrate"], "").await.expect(0);
    let mut variables = s3.variables("some/where");
    variables.push(("PRIMETRADE_DATABASE_URL".to_owned(), url));
    let copies = [(); 2].map(|()| Process::start("command-api", Vec::new(), variables.clone()));
    for copy in &copies {
        copy.ready().await;
    }
    let account = Api::new(&format!("http://{}", copies[0].address())).account().await;

    // more than is sent to S3 at once
    let file = (1..=4_000_u128).fold(String::new(), |mut file, n| {
        let (id, text) = (Uuid::from_u128(n), "much ado ".repeat(400));
        writeln!(file, r#"{{"type":"CreateTask","task_id":"{id}","title":"task {n}","description":"{text}"}}"#)
            .expect("text");
        file
    });
    assert!(file.len() > 12 << 20);
    let import = |body: Vec<u8>| account.request("POST", "/api/v1/imports").body(NDJSON, body);
    let asked = import(file.clone().into_bytes()).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!((&job["state"], &job["succeeded"], &job["failed"]), (&json!("succeeded"), &json!(4_000), &json!(0)));
    until("the file is removed", Duration::from_secs(10), || async { s3.keys().await.is_empty().then_some(()) }).await;

    let asked = account.request("POST", "/api/v1/exports").json(&json!({"format": "ndjson"})).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(s3.keys().await, [format!("some/where/results/{}", job["id"].as_str().expect("an id"))]);
    let href = job["result"]["href"].as_str().expect("a link");
    for copy in &copies {
        let account = account.at(copy.api());
        let whole = account.request("GET", href).send().await.expect(200).body;
        assert_eq!(
            (job["result"]["bytes"].as_u64(), whole.iter().filter(|byte| **byte == b'\n').count()),
            (Some(whole.len() as u64), 4_000)
        );
        let part = account.request("GET", href).header("Range", "bytes=5242870-5242890").send().await.expect(206).body;
        assert_eq!(part, whole[5_242_870..=5_242_890]);
    }
    account.request("DELETE", asked.must("Location")).send().await.expect(204);
    assert!(s3.keys().await.is_empty());

    // of what is not taken nothing is left
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    std::io::Write::write_all(&mut packed, file.as_bytes()).expect("packed");
    let mut packed = packed.finish().expect("packed");
    packed.truncate(file.len());
    import(packed).header("Content-Encoding", "gzip").send().await.problem(400);
    assert_eq!((s3.keys().await, s3.uploads().await), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_calendar_is_taken_by_a_reader_that_others_wrote() {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    let exported = async || {
        let asked = account.request("POST", "/api/v1/exports").json(&json!({"format": "ics"})).send().await.expect(202);
        let job = account.job_ended(&asked).await;
        account.read(job["result"]["href"].as_str().expect("a link")).await.expect(200).text()
    };
    assert_eq!(calendar::read(&exported().await).await, [json!({"name": "VTIMEZONE"})], "nothing to show");

    // whatever has a meaning in a calendar, and characters of several bytes where lines are folded
    let title = format!("milk; eggs, \\ \"会議\" 🚀 {}", "ü".repeat(80));
    let description = format!("BEGIN:VALARM\r\none, two; \\n three\tfour: {}\nEND:VALARM", "长".repeat(200));
    let task = json!({"title": title, "description": description, "priority": "urgent", "tags": ["a", "b;c"],
        "due_at": "2030-02-03T04:05:06.5+02:00"});
    let due = account.create(task).await;
    account.act(due, "complete").await.expect(200);
    let plain = account.create(json!({"title": "plain"})).await;
    let text = exported().await;
    assert!(text.split("\r\n").all(|line| line.len() <= 75 && !line.contains('\n')), "{text}");
    let read = calendar::read(&text).await;
    let [todo, event, other] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!([todo, event, other].map(|component| &component["name"]), ["VTODO", "VEVENT", "VTODO"]);
    let uid = |component: &Value| component["UID"].as_str().expect("a UID").to_owned();
    let log_id: Uuid = uid(todo).strip_prefix(&format!("{due}@")).and_then(|id| id.parse().ok()).expect("the log's id");
    assert_eq!((uid(event), uid(other)), (format!("{due}.due@{log_id}"), format!("{plain}@{log_id}")));
    for component in [todo, event] {
        assert_eq!(component["SUMMARY"], title);
        assert_eq!(component["DESCRIPTION"], description.replace("\r\n", "\n"));
    }
    assert_eq!([&todo["DUE"], &event["DTSTART"]], ["2030-02-03T02:05:06Z"; 2]);
    assert_eq!(
        (&todo["STATUS"], &todo["PRIORITY"], &todo["CATEGORIES"]),
        (&json!("COMPLETED"), &json!(1), &json!(["a", "b;c"]))
    );
    assert!(todo["COMPLETED"].is_string(), "{todo}");
    assert_eq!((&other["STATUS"], &other["DUE"]), (&json!("NEEDS-ACTION"), &Value::Null));
}
