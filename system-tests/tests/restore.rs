//! A log that went back: restored from a backup, or on a standby that was promoted and was behind, with Kafka, Redis and the
//! read models left ahead of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool, temp_dir};
use system_tests::kafka::Kafka;
use system_tests::ledger::{Ledger, Load};
use system_tests::redis::Redis;
use system_tests::server::{CliRun, Config, Server, command, run};
use system_tests::services::{PARTITIONS, Parts, Services};
use system_tests::wait::until;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
const WORKERS: usize = 4;
const PASSWORD: &str = "a password of one's own";

fn done(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn sql(db: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.expect("a statement");
}

/// A run of `primetrade` with the services' settings.
async fn cli(parts: &Parts, arguments: &[&str], input: &str) -> CliRun {
    let mut command = command(Path::new("/"), arguments);
    command.envs(parts.variables());
    run(command, input).await
}

/// Once nothing that was appended is still on its way.
async fn is_seen(account: &Account, id: Uuid) -> Value {
    until("a task is seen", Duration::from_secs(60), || async {
        let answer = account.request("GET", &format!("{TASKS}/{id}")).try_send().await.ok()?;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

#[tokio::test]
async fn a_restore_with_everything_else_left_ahead() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let read = cluster.url(&cluster.create_database().await);
    let dir = temp_dir("restore");
    let security = dir.join("security.ndjson");
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url())
        .await
        .with("PRIMETRADE_READ_DATABASE_URL", &read)
        .with("PRIMETRADE_SECURITY_LEDGER", security.to_str().expect("a path"));
    cli(&parts, &["migrate"], "").await.expect(0);
    let services = Services::start(parts.clone()).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(50).await;
    for email in ["bob@example.com", "eve@example.com"] {
        services.cli(&["user", "create", "--email", email, "--password-stdin"], PASSWORD).await.expect(0);
    }
    let kept = ledger.account().create(json!({"title": "kept"})).await;

    let dump = dir.join("dump");
    done(Command::new(cluster.bin("pg_dump")).args(["-Fc", "-f"]).arg(&dump).arg(&parts.database_url));

    // the future that is lost, as everything but the database of the log knows it
    ledger.progress(100).await;
    let lost = ledger.account().create(json!({"title": "lost"})).await;
    is_seen(ledger.account(), lost).await;
    services.cli(&["user", "disable", "--email", "bob@example.com"], "").await.expect(0);
    let set_password = ["user", "password", "--email", "eve@example.com", "--password-stdin"];
    services.cli(&set_password, "one that is lost").await.expect(0);
    until("the ledger has it", Duration::from_secs(20), || async {
        let lines = std::fs::read_to_string(&security).ok()?;
        (lines.contains("account-disabled") && lines.contains("password-set")).then_some(())
    })
    .await;
    load.stop().await;
    is_seen(ledger.account(), lost).await;
    for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        process.kill();
    }
    let name = parts.database_url.rsplit('/').next().expect("a name");
    let admin = pool(&cluster.url("postgres")).await;
    sql(&admin, format!("drop database {name} with (force)")).await;
    sql(&admin, format!("create database {name}")).await;
    done(Command::new(cluster.bin("pg_restore")).args(["-d", &parts.database_url]).arg(&dump));
    let db = pool(&parts.database_url).await;
    let log_id = async || sqlx::query_scalar::<_, Uuid>("select log_id from event_store.log").fetch_one(&db).await;
    let former = log_id().await.expect("a log");

    // Somebody who forgets the rest: nothing is appended under the id of before.
    let copy = &services.commands[0];
    copy.restart().await;
    assert!(copy.log().contains("events are missing that others have seen"), "{}", copy.log_tail());
    assert_ne!(log_id().await.expect("a log"), former);
    copy.kill();

    let finished = cli(&parts, &["restore-finish", "--json"], "").await.expect(0).json();
    assert_eq!(finished["accounts_changed"][0]["now"], "disabled", "{finished}");
    assert_eq!(finished["passwords_refused"].as_array().map(Vec::len), Some(1), "{finished}");
    assert_eq!(finished["doctor"]["ok"], true, "{finished}");
    // run again, it takes nothing back that the operator has done since, though nobody has written the ledger
    cli(&parts, &set_password, PASSWORD).await.expect(0);
    let again = cli(&parts, &["restore-finish", "--json"], "").await.expect(0).json();
    assert_eq!((&again["accounts_changed"], &again["passwords_refused"]), (&json!([]), &json!([])), "{again}");
    for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        process.restart_unready();
    }
    for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        process.ready().await;
    }
    let refused = ledger.account().request("GET", TASKS).send().await;
    assert_eq!(refused.status, 401, "a token of the lost future");
    for (email, status) in [("bob@example.com", 403), ("eve@example.com", 200)] {
        let body = json!({"email": email, "password": PASSWORD});
        let answer = services.api().post("/api/v1/auth/login", &body).try_send().await.expect("an answer");
        assert_eq!(answer.status, status, "{email}");
    }

    // the same positions again, with other events
    let after = Ledger::new(services.api().account().await);
    let load = Load::start(&after, WORKERS);
    after.progress(200).await;
    load.stop().await;
    after.settle().await;
    let seen = after.account().create(json!({"title": "seen"})).await;
    assert_eq!(is_seen(after.account(), seen).await["title"], "seen");
    let checked = cli(&parts, &["doctor", "--json"], "").await.expect(0).json();
    assert_eq!(checked["ok"], true, "{checked}");
    let parked: i64 = sqlx::query_scalar("select count(*) from read_model.parked")
        .fetch_one(&pool(&read).await)
        .await
        .expect("a count");
    assert_eq!(parked, 0);
    let kept_rows: i64 = sqlx::query_scalar("select count(*) from event_store.event where task_id = $1")
        .bind(kept)
        .fetch_one(&db)
        .await
        .expect("a count");
    assert_eq!(kept_rows, 1, "what the backup had is there");
}

/// The log as a backup had it: without what came after this position.
async fn set_back(db: &PgPool, position: i64) {
    for lost in [
        "delete from event_store.command where revision > $1",
        "delete from event_store.event where position > $1",
        "update event_store.relay_cursor set position = least(position, $1)",
        "update event_store.head set position = $1",
    ] {
        sqlx::query(lost).bind(position).execute(db).await.expect("a statement");
    }
    // as a restored database is
    sqlx::query("update event_store.log set lineage = 'another'").execute(db).await.expect("a statement");
}

async fn rows(db: &PgPool, table: &str, columns: &str) -> Vec<String> {
    let query = format!("select row({columns})::text from event_store.{table} order by 1");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(db).await.expect("rows")
}

/// The disk is lost with all that came after the backup; the topic has it still.
#[tokio::test]
async fn what_a_backup_lacks_is_salvaged_from_the_topic() {
    const EVENT: &str = "shard, position, recorded_at, owner_id, task_id, version, event_id, type, schema_version, occurred_at, \
        actor_type, actor_id, command_id, correlation_id, traceparent, data, change_id, undoes";
    const COMMAND: &str = "owner_id, command_id, task_id, version, revision, recorded_at, status, change_id";
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    cli(&parts, &["migrate"], "").await.expect(0);
    let services = Services::start(parts.clone()).await;
    let db = pool(&parts.database_url).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(50).await;
    let backup: i64 = sqlx::query_scalar("select position from event_store.head").fetch_one(&db).await.expect("a head");
    // a publication that the backup does not know of
    cli(&parts, &["republish", "--from", "1"], "").await.expect(0);
    ledger.progress(150).await;
    let account = ledger.account();
    let keyed = || account.request("POST", TASKS).key("once").json(&json!({"title": "once"}));
    let created = keyed().send().await.expect(201).uuid("/id");
    load.stop().await;
    let last = account.create(json!({"title": "the last one"})).await;
    is_seen(account, last).await;
    let processes = || services.commands.iter().chain(&services.projectors).chain(&services.queries);
    for process in processes() {
        process.kill();
    }
    let events = rows(&db, "event", EVENT).await;
    let with_event = "command c where exists (select from event_store.event e where (e.owner_id, e.command_id) = (c.owner_id, c.command_id))";
    let commands = rows(&db, with_event, COMMAND).await;
    let log_id: Uuid = sqlx::query_scalar("select log_id from event_store.log").fetch_one(&db).await.expect("a log");
    set_back(&db, backup).await;
    sql(&db, "update event_store.relay set publication = 1".to_owned()).await;
    let lost = events.len() as i64 - backup;

    let dry = cli(&parts, &["salvage", "--from-kafka", "--dry-run", "--json"], "").await.expect(0).json();
    assert_eq!((&dry["events"], &dry["left"]), (&json!(lost), &json!(0)), "{dry}");
    assert_eq!(rows(&db, "event", EVENT).await.len() as i64, backup, "nothing was appended");
    let salvaged = cli(&parts, &["salvage", "--from-kafka", "--json"], "").await.expect(0).json();
    assert_eq!((&salvaged["events"], &salvaged["left"]), (&json!(lost), &json!(0)), "{salvaged}");
    assert_eq!(rows(&db, "event", EVENT).await, events, "as they were");
    assert_eq!(rows(&db, "relay", "publication").await, ["(2)"], "as the topic has it");
    let remembered = rows(&db, "command", COMMAND).await;
    for command in &commands {
        assert!(remembered.contains(command), "{command}");
    }
    let again = cli(&parts, &["salvage", "--from-kafka", "--json"], "").await.expect(0).json();
    assert_eq!(again["events"], 0, "{again}");

    for process in processes() {
        process.restart_unready();
    }
    for process in processes() {
        process.ready().await;
    }
    let now: Uuid = sqlx::query_scalar("select log_id from event_store.log").fetch_one(&db).await.expect("a log");
    assert_eq!(now, log_id, "no event is missing: the log goes on under its id");
    assert_eq!(keyed().send().await.expect(201).uuid("/id"), created, "a command of then is known");
    ledger.replay(100).await;
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(50).await;
    load.stop().await;
    ledger.settle().await;
    let new = account.create(json!({"title": "new"})).await;
    is_seen(account, new).await;
    let checked = cli(&parts, &["doctor", "--json"], "").await.expect(0).json();
    assert_eq!(checked["ok"], true, "{checked}");

    let head = async || {
        sqlx::query_scalar::<_, i64>("select position from event_store.head").fetch_one(&db).await.expect("a head")
    };
    let gone = head().await;
    records_are_gone(&parts).await;
    let kept = account.create(json!({"title": "kept"})).await;
    account.act(kept, "start").await.expect(200);
    account.act(kept, "complete").await.expect(200);
    until("all of it is published", Duration::from_secs(60), || async {
        (is_seen(account, kept).await["status"] == "completed").then_some(())
    })
    .await;
    for process in processes() {
        process.kill();
    }
    // The log was written since: what the topic has does not follow it.
    let last = head().await;
    set_back(&db, last - 1).await;
    let exchange = "update event_store.event set event_id = gen_random_uuid() where position = $1";
    sqlx::query(exchange).bind(last - 1).execute(&db).await.expect("another event");
    let refused = cli(&parts, &["salvage", "--from-kafka"], "").await.expect(2);
    assert!(refused.err.contains("was written since the disk was lost"), "{}", refused.err);
    // The topic lacks the first of them.
    set_back(&db, gone - 1).await;
    let lacking = cli(&parts, &["salvage", "--from-kafka", "--json"], "").await.expect(1).json();
    assert_eq!((&lacking["events"], &lacking["left"]), (&json!(0), &json!(last - gone + 1)), "{lacking}");
    assert_eq!(lacking["other_log_id"], Value::Null, "{lacking}");
    // The log has got another id.
    sql(&db, "update event_store.log set log_id = gen_random_uuid()".to_owned()).await;
    let other = cli(&parts, &["salvage", "--from-kafka", "--json"], "").await.expect(1).json();
    assert_eq!((&other["events"], &other["other_log_id"]), (&json!(0), &json!(log_id)), "{other}");
}

async fn records_are_gone(parts: &Parts) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &parts.brokers).create().expect("admin client");
    let mut ends = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        ends.add_partition_offset(&parts.topic, partition, Offset::End).expect("a partition");
    }
    admin.delete_records(&ends, &AdminOptions::new()).await.expect("deleted");
}

/// A server on a standby that was promoted, and lacks the last ten events that it has taken.
struct Promoted {
    server: Server,
    /// Of the former primary and of the standby.
    url: String,
    database: String,
    standby: Cluster,
    /// Its folder is kept.
    _primary: Cluster,
}

/// With the read models there, or in the log's own database.
async fn promoted(read: Option<&str>) -> Promoted {
    let primary = Cluster::start(&["wal_level=replica"]);
    let database = primary.create_database().await;
    let standby = primary.standby();
    let url = format!(
        "postgres://primetrade@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
        standby.port(),
        primary.port()
    );
    let config = Config::new(url.clone());
    let server = Server::start(match read {
        Some(read) => config.variable("PRIMETRADE_READ_DATABASE_URL", read),
        None => config,
    })
    .await;
    let account = server.api().account().await;
    let kept = account.create(json!({"title": "kept"})).await;
    is_seen(&account, kept).await;
    let on_standby = pool(&standby.url(&database)).await;
    // the read models too, where they are in the same database
    let position = match read {
        Some(_) => "select position from event_store.head",
        None => "select coalesce(max(position), 0) from read_model.checkpoint",
    };
    until("the standby has it", Duration::from_secs(30), || async {
        let there: Result<i64, _> = sqlx::query_scalar(position).fetch_one(&on_standby).await;
        (there.ok()? == 1).then_some(())
    })
    .await;
    on_standby.close().await;
    let on_standby = pool(&standby.url("postgres")).await;
    for setting in ["alter system set primary_conninfo = ''", "select pg_reload_conf()"] {
        sqlx::query(setting).execute(&on_standby).await.expect("cut off");
    }
    until("it receives nothing", Duration::from_secs(30), || async {
        let receiving: i64 =
            sqlx::query_scalar("select count(*) from pg_stat_wal_receiver").fetch_one(&on_standby).await.ok()?;
        (receiving == 0).then_some(())
    })
    .await;
    for number in 0..10 {
        let lost = account.create(json!({"title": format!("lost {number}")})).await;
        is_seen(&account, lost).await;
    }
    primary.kill();
    standby.promote().await;
    Promoted { server, url, database, standby, _primary: primary }
}

impl Promoted {
    /// The server finds the log under another id, and is of no use any more.
    async fn ends(&self) {
        assert_eq!(self.server.ended().await.code(), Some(2), "{}", self.server.log_tail());
        let told = "events are missing that others have seen";
        assert!(self.server.log().contains(told), "{}", self.server.log_tail());
        let events: i64 = sqlx::query_scalar("select position from event_store.head")
            .fetch_one(&pool(&self.standby.url(&self.database)).await)
            .await
            .expect("a head");
        assert_eq!(events, 1, "nothing was appended on what was lost");
    }

    /// All is well after `restore-finish`, which finds so many lost events.
    async fn is_mended(&self, read: Option<&str>, lost: i64) {
        let mut finish = command(self.server.dir(), &["restore-finish", "--json"]);
        finish.env("PRIMETRADE_DATABASE_URL", &self.url);
        if let Some(read) = read {
            finish.env("PRIMETRADE_READ_DATABASE_URL", read);
        }
        let finished = run(finish, "").await.expect(0).json();
        assert_eq!(
            (&finished["lost"]["events"], &finished["doctor"]["ok"]),
            (&json!(lost), &json!(true)),
            "{finished}"
        );
        self.server.restart().await;
        let account = self.server.api().account().await;
        let id = account.create(json!({"title": "new"})).await;
        assert_eq!(is_seen(&account, id).await["title"], "new");
    }
}

/// The read models are in another cluster, and know of what is lost.
#[tokio::test]
async fn a_standby_that_was_behind_is_promoted() {
    let shared = Cluster::shared();
    let read = shared.url(&shared.create_database().await);
    let promoted = promoted(Some(&read)).await;
    promoted.ends().await;
    promoted.is_mended(Some(&read), 10).await;
}

/// The read models were lost with the log: but for the process that has taken it nobody knows of what is lost.
#[tokio::test]
async fn a_standby_that_was_behind_is_promoted_and_only_the_process_knows() {
    let promoted = promoted(None).await;
    promoted.ends().await;
    promoted.is_mended(None, 0).await;
}
