//! What one client may ask for, and what all of them together get when it is far too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::check::everything_holds;
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool};
use system_tests::flood::{Flood, percentile};
use system_tests::server::{Config, Server};
use system_tests::wait::until;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
const KEYS: &str = "/.well-known/jwks.json";

async fn started(variables: &[(&str, &str)]) -> Server {
    let cluster = Cluster::shared();
    let config = Config::new(cluster.url(&cluster.create_database().await));
    Server::start(variables.iter().fold(config, |config, (name, value)| config.variable(name, value))).await
}

#[tokio::test]
async fn one_client_may_ask_for_so_much() {
    let server = started(&[("PRIMETRADE_RATE_LIMITS", "on"), ("PRIMETRADE_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let api = server.api();
    let ask = |from: &str| api.get(TASKS).header("X-Forwarded-For", from).send();
    let mut refused = None;
    // more than a minute's worth, since some comes back meanwhile
    for n in 0..300 {
        let answer = ask("198.51.100.1").await;
        assert_eq!(answer.must("RateLimit-Policy"), "\"address\";q=100;w=60");
        if answer.status == 429 {
            refused = Some((n, answer));
            break;
        }
        assert_eq!(answer.status, 401);
    }
    let (n, refused) = refused.expect("refused at last");
    assert!(n >= 100, "{n}");
    assert_eq!(refused.problem(429)["code"], "rate-limited");
    assert_eq!(refused.must("RateLimit"), "\"address\";r=0;t=60");
    assert!((1..=60).contains(&refused.must("Retry-After").parse::<u32>().expect("seconds")));
    // another address, what has no limit, and an account wherever it is
    assert_eq!(ask("198.51.100.2").await.status, 401);
    let keys = api.get(KEYS).header("X-Forwarded-For", "198.51.100.1").send().await.expect(200);
    assert_eq!(keys.header("RateLimit"), None);
    let account = api.account().await;
    let written = account.request("POST", TASKS).header("X-Forwarded-For", "198.51.100.1").json(&json!({"title": "a"}));
    let written = written.send().await.expect(201);
    assert_eq!(written.must("RateLimit-Policy"), "\"account\";q=1200;w=60, \"writes\";q=600;w=60");
    let left = account.request("GET", TASKS).send().await.expect(200);
    assert!(left.must("RateLimit").starts_with("\"account\";r=11"), "{}", left.must("RateLimit"));
}

/// Tasks to make lists of, each of which costs a good deal more than a refusal does.
const LISTED: u32 = 2_000;
/// As many at once as keep the machine busy.
const CLIENTS_ALONE: u32 = 16;
const ALONE_MS: u64 = 1_000;
/// More than the server lets in at once, ever.
const CLIENTS: u32 = 1_500;
const OVERLOAD_MS: u64 = 8_000;
/// In which the server finds out how much is too much.
const LEARNING_MS: u64 = 2_000;
const TIMES_TOO_MUCH: f64 = 10.0;
const WELL_AGAIN_MS_MAX: u64 = 10_000;

/// How fast, on this machine, is for `bin/bench --only overload` to say. Here it is by comparison with the same requests
/// when there are few of them, since this machine may be slow, and busy with other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_too_much_is_turned_away_and_the_rest_stays_fast() {
    let server = started(&[]).await;
    let account = server.api().account().await;
    let tasks = (0..LISTED)
        .map(|n| json!({"type": "CreateTask", "task_id": Uuid::new_v4(), "title": format!("one of many, {n}"), "due_at": "2031-01-01T00:00:00Z"}));
    let batch = json!({"commands": tasks.collect::<Vec<_>>()});
    let made = account.request("POST", "/api/v1/commands").json(&batch).send().await.expect(200);
    assert_eq!(made.number("/succeeded"), u64::from(LISTED));
    server.caught_up().await;

    let (mut served_per_s, mut alone_p99) = (0.0_f64, Duration::ZERO);
    for _ in 0..3 {
        let alone = lists(&server, &account, CLIENTS_ALONE).back_to_back(Duration::from_millis(ALONE_MS)).await;
        assert!(alone.iter().all(|answered| answered.status == 200), "without too much to do nobody is turned away");
        served_per_s = served_per_s.max(alone.len() as f64 * 1_000.0 / ALONE_MS as f64);
        alone_p99 = alone_p99.max(percentile(alone.iter().map(|answered| answered.took), 0.99));
    }
    let before = server.resident_bytes();
    let flood = lists(&server, &account, CLIENTS);
    let answers = flood.at_rate(served_per_s * TIMES_TOO_MUCH, Duration::from_millis(OVERLOAD_MS)).await;
    let grown_mib = server.resident_bytes().saturating_sub(before) >> 20;
    let learned = Duration::from_millis(LEARNING_MS);
    let of = |status: u16| {
        let of = answers.iter().filter(move |answered| answered.status == status && answered.due > learned);
        of.map(|answered| answered.took)
    };
    let (accepted, shed) = (of(200).count(), of(503).count());
    let figures = format!(
        "alone {served_per_s:.0}/s, p99 {alone_p99:?}; then {:.0}/s asked for: {accepted} accepted, p50 {:?}, p99 {:?}; \
         {shed} turned away, p50 {:?}, p99 {:?}; {grown_mib} MiB more",
        answers.len() as f64 * 1_000.0 / OVERLOAD_MS as f64,
        percentile(of(200), 0.5),
        percentile(of(200), 0.99),
        percentile(of(503), 0.5),
        percentile(of(503), 0.99),
    );
    eprintln!("{figures}");
    let unexpected = answers.iter().find(|answered| ![200, 503].contains(&answered.status));
    assert!(unexpected.is_none(), "{unexpected:?}: {figures}");
    assert!(accepted > 0 && shed > accepted, "{figures}");
    // all of them let in would take a hundred times as long as a few
    let fast = Duration::from_millis(250).max(alone_p99 * 20);
    assert!(percentile(of(200), 0.99) < fast, "accepted: {fast:?}: {figures}");
    assert!(percentile(of(503), 0.5) < percentile(of(200), 0.5), "turned away later than done: {figures}");
    assert!(grown_mib < 100, "{figures}");

    // and soon afterwards it is as it was
    until("well again", Duration::from_millis(WELL_AGAIN_MS_MAX), || async {
        let after = lists(&server, &account, CLIENTS_ALONE).back_to_back(Duration::from_millis(500)).await;
        let well = !after.is_empty() && after.iter().all(|answered| answered.status == 200);
        (well && percentile(after.iter().map(|answered| answered.took), 0.5) < alone_p99 * 2).then_some(())
    })
    .await;
}

/// Clients that ask for first pages, no two alike, so that none comes from a cache.
fn lists(server: &Server, account: &Account, connections: u32) -> Arc<Flood> {
    static ASKED: AtomicU32 = AtomicU32::new(1);
    let (run, token) = (ASKED.fetch_add(1, Ordering::Relaxed), account.token.clone());
    let request = move |n: u64| {
        format!(
            "GET /api/v1/tasks?limit=200&due_before=2040-01-01T00:{run:02}:00.{n:06}Z&q=many HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )
    };
    Arc::new(Flood { address: server.address(), connections, request: Box::new(request) })
}

/// All that come at the first moment are served where the machine can do them within a second.
#[tokio::test]
async fn a_burst_on_a_server_just_started_is_served() {
    const CONNECTIONS: u32 = 256;
    let server = started(&[]).await;
    let account = server.api().account().await;
    let body = json!({"title": "at the first moment"}).to_string();
    let request = format!(
        "POST {TASKS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        account.token,
        body.len()
    );
    let burst =
        Flood { address: server.address(), connections: CONNECTIONS, request: Box::new(move |_| request.clone()) };
    let second = Duration::from_secs(1);
    let answers = Arc::new(burst).back_to_back(second).await;
    let made = answers.iter().filter(|answered| answered.status == 201);
    let in_time = made.clone().filter(|answered| answered.due + answered.took <= second).count();
    let refused = answers.len() - made.count();
    println!("{in_time} made within a second, {refused} refused");
    // else the machine has other things to do
    if in_time >= CONNECTIONS as usize {
        assert_eq!(refused, 0, "of {}", answers.len());
    }
}

/// The disk of a database that somebody else runs.
#[tokio::test]
async fn a_full_disk_refuses_writes_by_name_until_it_has_room() {
    let cluster = Cluster::start(&[]);
    let Some((database, disk)) = cluster.create_database_on_a_disk_of_mb(20).await else { return };
    let server = Server::start(Config::new(cluster.url(&database))).await;
    let account = server.api().account().await;
    // not to be compressed
    let description: String = (0..250).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let command = || json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": "a", "description": description});
    until("the disk is full", Duration::from_secs(120), || async {
        let commands: Vec<_> = (0..20).map(|_| command()).collect();
        let answer = account.batch(&commands).await.expect(200).json();
        let failed: Vec<_> = answer["results"].as_array()?.iter().filter(|result| result["status"] != 201).collect();
        for result in &failed {
            assert_eq!((&result["status"], &result["problem"]["code"]), (&json!(503), &json!("disk-full")), "{result}");
        }
        (!failed.is_empty()).then_some(())
    })
    .await;
    let create = || account.request("POST", TASKS).json(&json!({"title": "b", "description": description})).send();
    let began = Instant::now();
    let refused = create().await;
    assert_eq!(refused.problem(503)["code"], "disk-full");
    refused.must("Retry-After");
    assert!(began.elapsed() < Duration::from_secs(1), "at once: {:?}", began.elapsed());
    let import = account.request("POST", "/api/v1/imports").body("application/x-ndjson", command().to_string());
    let export = account.request("POST", "/api/v1/exports").json(&json!({"format": "csv"}));
    let somebody = json!({"email": "somebody@example.com", "password": "correct horse battery", "name": "Somebody"});
    let registration = server.api().post("/api/v1/auth/register", &somebody);
    for refused in [import, export, registration] {
        assert_eq!(refused.send().await.problem(503)["code"], "disk-full");
    }
    let ready = server.api().get("/readyz").send().await.expect(503).json();
    assert_eq!(ready["checks"]["disk"]["status"], "failed", "{ready}");
    account.request("GET", TASKS).send().await.expect(200);
    let rebuild = server.cli(&["rebuild"]).await.expect(2);
    assert!(rebuild.err.contains("too little room") && rebuild.err.contains("no space left"), "{rebuild:?}");
    let pool = pool(server.database_url()).await;
    let left = sqlx::query_scalar::<_, i64>("select count(*) from read_model.generation where state = 'building'");
    assert_eq!(left.fetch_one(&pool).await.expect("generations"), 0, "nothing of it is left");
    pool.close().await;
    disk.becomes(400);
    server.ready().await;
    create().await.expect(201);
    server.api().post("/api/v1/auth/register", &somebody).send().await.expect(201);
    server.cli(&["rebuild"]).await.expect(0);
    everything_holds(&server, &[]).await;
}
