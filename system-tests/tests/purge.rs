//! What was deleted 30 days ago is gone: from everything that can be read, but not from what is counted.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sqlx::PgPool;
use system_tests::check::{everything_holds, read_model_rows};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool};
use system_tests::kafka::Kafka;
use system_tests::process::Process;
use system_tests::redis::Redis;
use system_tests::server::{Config, Server};
use system_tests::services::{Parts, Services};
use system_tests::wait::until;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
/// Stands in every text of the task that is purged, and nowhere else.
const SECRET: &str = "xylograph";
const THEN: &str = "2021-01-05T12:00:00Z";

fn command(id: Uuid, kind: &str, at: &str, fields: Value) -> Value {
    let mut command = json!({"type": kind, "task_id": id, "occurred_at": at});
    command.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    command
}

/// Two tasks that are alike, but for the texts of the one that will be purged.
async fn live(account: &Account, [gone, kept]: [Uuid; 2]) {
    let mut commands = Vec::new();
    for (id, text) in [(gone, SECRET), (kept, "harmless")] {
        let fields = json!({"title": text, "description": text, "tags": [text], "rank": text, "priority": "urgent",
            "due_at": "2021-01-06T00:00:00Z"});
        commands.push(command(id, "CreateTask", "2021-01-01T00:00:00Z", fields));
        commands.push(command(id, "RenameTask", "2021-01-02T00:00:00Z", json!({"title": format!("{text} again")})));
        commands.push(command(id, "StartTask", "2021-01-03T00:00:00Z", json!({})));
        commands.push(command(id, "DeleteTask", "2021-01-08T00:00:00Z", json!({})));
    }
    assert_eq!(account.batch(&commands).await.expect(200).json()["failed"], 0);
}

/// Only of this task's deletion the time has come. The log and what was made of it agree, as ever.
async fn as_if_recorded_long_ago(pool: &PgPool, task: Uuid) {
    let age = "update event_store.event set recorded_at = now() - interval '30 days 1 minute' where task_id = $1";
    sqlx::query(age).bind(task).execute(pool).await.unwrap();
    let age = "update read_model.history set recorded_at = (select recorded_at from event_store.event e \
        where e.task_id = history.task_id and e.version = history.version) where task_id = $1";
    sqlx::query(age).bind(task).execute(pool).await.unwrap();
}

/// Waits until the read models know of it.
async fn is_purged(pool: &PgPool) {
    until("it is purged", Duration::from_secs(60), || async {
        let purged = "select count(*) from read_model.history where type = 'TaskPurged'";
        (sqlx::query_scalar::<_, i64>(purged).fetch_one(pool).await.unwrap() == 1).then_some(())
    })
    .await;
}

/// All rows of the read models, in none of which anything is left of the task.
async fn rows_without_secrets(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let rows = read_model_rows(pool).await;
    for (table, rows) in &rows {
        assert!(!rows.iter().any(|row| row.contains(SECRET)), "{table}: {rows:?}");
    }
    rows
}

async fn ids(account: &Account, query: &str) -> Vec<Uuid> {
    let tasks = account.walk(&format!("{TASKS}?{query}")).await;
    tasks.iter().map(|task| task["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn what_is_purged_is_in_no_answer_and_in_no_table() {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    let [gone, kept] = [Uuid::now_v7(), Uuid::now_v7()];
    live(&account, [gone, kept]).await;
    let later = account.create(json!({"title": "later"})).await;
    let renamed = account.patch(later, json!({"title": "later still"})).await.expect(200);
    assert!(renamed.header("Change-Id").is_some());
    // The versions are in memory.
    let as_of = format!("as_of={THEN}");
    assert_eq!(ids(&account, &format!("{as_of}&sort=rank")).await, [kept, gone]);
    let flow = account.read("/api/v1/stats/flow?from=2021-01-01&to=2021-01-09").await.expect(200).json();
    server.caught_up().await;
    let changes = account.walk("/api/v1/changes").await;
    let made = changes.iter().find(|change| change["tasks"] == 2).unwrap()["id"].as_str().unwrap().to_owned();
    server.kill();

    let pool = pool(server.database_url()).await;
    as_if_recorded_long_ago(&pool, gone).await;
    server.restart().await;
    is_purged(&pool).await;

    assert_eq!(ids(&account, &as_of).await, [kept]);
    for sort in ["title", "-rank", "due_at"] {
        assert_eq!(ids(&account, &format!("{as_of}&sort={sort}&limit=1")).await, [kept], "{sort}");
    }
    assert!(ids(&account, &format!("{as_of}&q={SECRET}")).await.is_empty());
    let facets = account.read(&format!("{TASKS}/facets?{as_of}")).await.expect(200).json();
    assert_eq!((&facets["total"], &facets["by_status"]["in_progress"]), (&json!(1), &json!(1)));
    for path in [format!("{gone}"), format!("{gone}/history"), format!("{gone}?{as_of}")] {
        let problem = account.read(&format!("{TASKS}/{path}")).await.problem(404);
        assert_eq!(problem["code"], "not-found", "{path}");
    }
    account.read(&format!("{TASKS}/{kept}?{as_of}")).await.expect(200);
    assert!(account.walk(&format!("{TASKS}/deleted")).await.is_empty(), "both were deleted long ago");
    // Where they stood is counted as before.
    let counted = account.read("/api/v1/stats/flow?from=2021-01-01&to=2021-01-09").await.expect(200).json();
    assert_eq!(counted["days"], flow["days"]);
    assert_eq!(counted["days"][4]["in_progress"], 2);

    let refused = account.act(gone, "restore").await.problem(404);
    assert!(refused["detail"].as_str().unwrap().contains("purged"), "{refused}");
    account.delete(gone).await.expect(204);
    let taken = account.request("POST", TASKS).json(&json!({"id": gone, "title": "new"})).send().await;
    assert_eq!(taken.problem(409)["code"], "task-exists");
    let undone = account.request("POST", &format!("/api/v1/changes/{made}/undo")).send().await.expect(200).json();
    let of_gone = undone["results"].as_array().unwrap().iter().find(|result| result["id"] == json!(gone)).unwrap();
    assert_eq!(of_gone["status"], 404, "{undone}");
    let latest = account.walk("/api/v1/changes").await;
    let purge = latest.iter().find(|change| change["types"]["TaskPurged"] == 1).unwrap();
    assert_eq!(purge["actor"], json!({"type": "system", "id": null}));

    // An archive has what was deleted, and nothing of what was purged.
    let asked = account.request("POST", "/api/v1/exports").json(&json!({"format": "archive"})).send().await.expect(202);
    let job = account.job_ended(&asked).await;
    assert_eq!((&job["state"], &job["total"]), (&json!("succeeded"), &json!(2)), "{job}");
    let file = account.read(job["result"]["href"].as_str().unwrap()).await.expect(200).body;
    let mut archive = Vec::new();
    GzDecoder::new(file.as_slice()).read_to_end(&mut archive).unwrap();
    let archive = String::from_utf8_lossy(&archive);
    assert!(archive.contains("harmless") && !archive.contains(SECRET), "{archive}");

    server.caught_up().await;
    let rows = rows_without_secrets(&pool).await;
    let report = server.cli(&["rebuild", "--expect-same", "--json"]).await.expect(0).json();
    assert_eq!(report["differences"], 0);
    assert_eq!(read_model_rows(&pool).await, rows, "whenever it is rebuilt");
    everything_holds(&server, &[]).await;
}

/// As services, whose read models are made from the topic. It keeps what the task was; they do not.
#[tokio::test]
async fn what_is_purged_goes_through_kafka() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let account = services.api().account().await;
    let [gone, kept] = [Uuid::now_v7(), Uuid::now_v7()];
    live(&account, [gone, kept]).await;
    // The projectors hold the last event of each partition against the log, at any moment: that is none that gets older.
    account.create(json!({"title": "later"})).await;
    services.everything_is_read().await;
    let as_of = format!("as_of={THEN}");
    assert_eq!(ids(&account, &format!("{as_of}&sort=rank")).await, [kept, gone]);

    services.commands.iter().for_each(Process::kill);
    let pool = pool(&services.parts.database_url).await;
    as_if_recorded_long_ago(&pool, gone).await;
    for copy in &services.commands {
        copy.restart().await;
    }
    is_purged(&pool).await;
    let written = account.request("POST", TASKS).json(&json!({"title": "later still"})).send().await.expect(201);
    services.everything_is_read().await;
    for query in &services.queries {
        let account = account.at(query.api());
        account.has_seen(&written);
        assert_eq!(ids(&account, &as_of).await, [kept]);
        assert!(ids(&account, &format!("{as_of}&q={SECRET}")).await.is_empty());
        account.read(&format!("{TASKS}/{gone}?{as_of}")).await.problem(404);
    }

    let rows = rows_without_secrets(&pool).await;
    let report = services.cli(&["rebuild", "--expect-same", "--json"], "").await.expect(0).json();
    assert_eq!(report["differences"], 0);
    assert_eq!(read_model_rows(&pool).await, rows, "whenever it is rebuilt");
    services.everything_holds(&[]).await;
    pool.close().await;
}
