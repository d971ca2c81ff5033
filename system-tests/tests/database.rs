//! What happens to a database in the wild: connections that die silently, a failover, a pooler in between.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use system_tests::check::everything_holds_in;
use system_tests::client::{Account, Answer};
use system_tests::cluster::{Cluster, pool, unique};
use system_tests::ledger::{Ledger, Load};
use system_tests::pgbouncer::PgBouncer;
use system_tests::process::Process;
use system_tests::proxy::Proxy;
use system_tests::server::{Config, Server, cli, command, run_within};
use system_tests::wait::until;

const TASKS: &str = "/api/v1/tasks";
const WORKERS: usize = 4;
/// From when what died is noticed.
const ALL_WELL: Duration = Duration::from_secs(30);

async fn loaded(server: &Server) -> (Arc<Ledger>, Load) {
    let ledger = Ledger::new(server.api().account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(50).await;
    (ledger, load)
}

async fn settled(server: &Server, database_url: &str, ledger: &Ledger, load: Load) {
    ledger.progress(50).await;
    load.stop().await;
    ledger.settle().await;
    ledger.replay(50).await;
    everything_holds_in(database_url, server.dir(), &[ledger]).await;
}

/// 64 lists at once that are all different, and of which no answer is kept: the pool opens as far as it goes.
async fn burst(reader: &Account) -> Vec<Option<Answer>> {
    join_all((0..64).map(|_| {
        let path = format!("{TASKS}?tag=t{}", unique());
        async move { reader.request("GET", &path).try_send().await.ok() }
    }))
    .await
}

fn served(answers: &[Option<Answer>]) -> usize {
    answers.iter().flatten().filter(|answer| answer.status == 200).count()
}

async fn is_ready(server: &Server) -> bool {
    server.api().get("/readyz").try_send().await.is_ok_and(|answer| answer.status == 200)
}

/// Whether `/readyz` says so, looked at again and again.
async fn unready_within(server: &Server, time: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < time {
        if !is_ready(server).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Each dead connection costs one attempt; what reads, writes and projects is well again by itself, and `/readyz` does
/// not say that all is well while it is not.
#[tokio::test]
async fn connections_that_die_without_a_word() {
    let cluster = Cluster::shared();
    let (database, proxy) = (cluster.create_database().await, Proxy::start(cluster.address()).await);
    let server = Server::start(Config::new(proxy.url(&database))).await;
    let (ledger, load) = loaded(&server).await;
    let reader = server.api().account().await;
    for turn in 0..3 {
        // in the middle of bursts, so that there are connections in every state
        let bursts = async {
            for _ in 0..4 {
                burst(&reader).await;
            }
        };
        let freeze = async {
            burst(&reader).await;
            proxy.freeze();
            Instant::now()
        };
        let ((), frozen) = tokio::join!(bursts, freeze);
        let mut good = 0;
        // well is who stays so
        while good < 3 {
            let (answers, told) = tokio::join!(burst(&reader), unready_within(&server, Duration::from_secs(3)));
            let served = served(&answers);
            good = if served == 64 { good + 1 } else { 0 };
            assert!(served > 0 || told, "no read is served, and it says that it is ready");
            assert!(frozen.elapsed() < ALL_WELL + Duration::from_secs(5), "{served} of 64 reads are served");
        }
        // what is written is seen as well
        let id = reader.create(json!({"title": "seen"})).await;
        until("a write is seen", ALL_WELL.saturating_sub(frozen.elapsed()) + Duration::from_secs(5), || async {
            let read = reader.request("GET", &format!("{TASKS}/{id}")).try_send().await.ok()?;
            (read.status == 200).then_some(())
        })
        .await;
        ledger.progress(20).await;
        println!("turn {turn}: well after {:?}", frozen.elapsed());
    }
    until("ready", Duration::from_secs(10), || async { is_ready(&server).await.then_some(()) }).await;
    settled(&server, &cluster.url(&database), &ledger, load).await;
}

async fn refused(account: &Account) -> Answer {
    until("a write is refused", Duration::from_secs(30), || async {
        let answer = account.request("POST", TASKS).json(&json!({"title": "meanwhile"})).try_send().await.ok()?;
        (answer.status == 503).then_some(answer)
    })
    .await
}

fn checked_appends(metrics: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("event_store_checked_appends_total "));
    line.map_or(0.0, |count| count.parse().expect("a number"))
}

/// A primary that only reads for a while, then one that is lost, with the standby in its place: found by name, by the URL
/// with both hosts. Meanwhile 503; nothing is lost.
#[tokio::test]
async fn a_failover_between_two_hosts() {
    let primary = Cluster::start(&["wal_level=replica"]);
    let database = primary.create_database().await;
    let standby = primary.standby();
    let admin = pool(&primary.url("postgres")).await;
    sqlx::query("alter system set synchronous_standby_names = 'standby'").execute(&admin).await.expect("setting");
    sqlx::query("select pg_reload_conf()").execute(&admin).await.expect("reload");
    let url = format!(
        "postgres://primetrade@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
        standby.port(),
        primary.port()
    );
    let server = Server::start(Config::new(url)).await;
    let (ledger, load) = loaded(&server).await;

    let read_only = async |value| {
        let setting = format!("alter system set default_transaction_read_only = {value}");
        sqlx::query("set transaction_read_only = off").execute(&admin).await.expect("setting");
        sqlx::query(sqlx::AssertSqlSafe(setting)).execute(&admin).await.expect("setting");
        sqlx::query("select pg_reload_conf()").execute(&admin).await.expect("reload");
    };
    read_only("on").await;
    let checked = checked_appends(&server.api().get("/metrics").send().await.expect(200).text());
    refused(ledger.account()).await.must("Retry-After");
    let tried = checked_appends(&server.api().get("/metrics").send().await.expect(200).text()) - checked;
    assert!(tried < 20.0, "{tried} checked appends at a server that only reads");
    let said = server.log().matches("appending to the event store fails").count();
    assert!((1..5).contains(&said), "said {said} times");
    read_only("off").await;
    ledger.progress(20).await;

    primary.kill();
    refused(ledger.account()).await.must("Retry-After");
    standby.promote().await;
    let admin = pool(&standby.url("postgres")).await;
    sqlx::query("alter system set synchronous_standby_names = ''").execute(&admin).await.expect("setting");
    sqlx::query("select pg_reload_conf()").execute(&admin).await.expect("reload");
    let promoted = Instant::now();
    ledger.progress(20).await;
    assert!(promoted.elapsed() < ALL_WELL, "{:?}", promoted.elapsed());
    settled(&server, &standby.url(&database), &ledger, load).await;
}

/// One address that leads elsewhere since a failover, while the old server lives on and only reads.
#[tokio::test]
async fn a_failover_behind_one_address() {
    let primary = Cluster::start(&["wal_level=replica"]);
    let database = primary.create_database().await;
    let standby = primary.standby();
    let admin = pool(&primary.url("postgres")).await;
    sqlx::query("alter system set synchronous_standby_names = 'standby'").execute(&admin).await.expect("setting");
    sqlx::query("select pg_reload_conf()").execute(&admin).await.expect("reload");
    let proxy = Proxy::start(primary.address()).await;
    let server = Server::start(Config::new(proxy.url(&database))).await;
    let (ledger, load) = loaded(&server).await;
    sqlx::query("alter system set default_transaction_read_only = on").execute(&admin).await.expect("setting");
    sqlx::query("select pg_reload_conf()").execute(&admin).await.expect("reload");
    refused(ledger.account()).await.must("Retry-After");
    standby.promote().await;
    let new = pool(&standby.url("postgres")).await;
    for setting in ["alter system reset synchronous_standby_names", "alter system reset default_transaction_read_only"]
    {
        sqlx::query(setting).execute(&new).await.expect("setting");
    }
    sqlx::query("select pg_reload_conf()").execute(&new).await.expect("reload");
    proxy.lead_to(standby.address());
    let led = Instant::now();
    ledger.progress(20).await;
    // accounts too, which go over another pool
    until("a log-in", Duration::from_secs(30), || async {
        let body = json!({"email": format!("a{}@example.com", led.elapsed().as_nanos()), "name": "A", "password": "long enough, this"});
        let answer = server.api().post("/api/v1/auth/register", &body).try_send().await.ok()?;
        (answer.status == 201).then_some(())
    })
    .await;
    assert!(led.elapsed() < ALL_WELL, "{:?}", led.elapsed());
    settled(&server, &standby.url(&database), &ledger, load).await;
}

/// As its package sets it up, but for where Postgres is.
#[tokio::test]
async fn through_pgbouncer_in_session_mode() {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let bouncer = PgBouncer::start(&cluster, &[]);
    let server = Server::start(Config::new(bouncer.url(&database))).await;
    let (ledger, load) = loaded(&server).await;
    let reader = server.api().account().await;
    assert_eq!(served(&burst(&reader).await), 64);
    settled(&server, &cluster.url(&database), &ledger, load).await;
}

/// What writes needs sessions of its own, and says so by the name of PgBouncer's setting.
#[tokio::test]
async fn pgbouncer_in_transaction_mode_is_refused_by_name() {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let bouncer = PgBouncer::start(&cluster, &["pool_mode = transaction"]);
    for arguments in [["migrate"].as_slice(), &["serve", "--listen", "127.0.0.1:0"]] {
        let mut program = command(Path::new("/tmp"), arguments);
        program.env("PRIMETRADE_DATABASE_URL", bouncer.url(&database));
        let run = run_within(60_000, program, "").await.expect(2);
        assert!(run.err.contains("pool_mode = session") && !run.err.contains("password"), "{run:?}");
    }
}

/// `query-api` needs nothing of a session but prepared statements, and says so where PgBouncer does not keep them.
#[tokio::test]
async fn query_api_through_pgbouncer_in_transaction_mode() {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let server = Server::start(Config::new(cluster.url(&database))).await;
    let account = server.api().account().await;
    let id = account.create(json!({"title": "read elsewhere"})).await;
    server.caught_up().await;
    let mut settings = vec!["pool_mode = transaction"];
    settings.extend(PgBouncer::keeps_prepared_statements().then_some("max_prepared_statements = 200"));
    let bouncer = PgBouncer::start(&cluster, &settings);
    let variables = [
        ("PRIMETRADE_READ_DATABASE_URL", bouncer.url(&database)),
        ("PRIMETRADE_JWKS_URL", format!("{}/.well-known/jwks.json", server.api().base())),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let copy = Process::start("query-api", Vec::new(), variables);
    if PgBouncer::keeps_prepared_statements() {
        copy.ready().await;
        let reader = account.at(copy.api());
        assert_eq!(reader.task(id).await["title"], "read elsewhere");
        assert_eq!(served(&burst(&reader).await), 64);
    } else {
        assert_eq!(copy.ended().await.code(), Some(2));
        assert!(copy.log().contains("max_prepared_statements"), "{}", copy.log_tail());
    }
}

/// Neither migrated nor started on.
#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_by_name() {
    let cluster = Cluster::shared();
    let admin = pool(&cluster.url("postgres")).await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("t_{}", encoding.to_lowercase());
        let make = format!("create database {name} encoding '{encoding}' template template0");
        sqlx::query(sqlx::AssertSqlSafe(make)).execute(&admin).await.expect("a database");
        for arguments in [["migrate"].as_slice(), &["serve", "--listen", "127.0.0.1:0"]] {
            let run = cli(Path::new("/tmp"), Some(&cluster.url(&name)), arguments, "").await.expect(2);
            assert!(run.err.contains(encoding) && run.err.contains("UTF8"), "{run:?}");
        }
    }
}
