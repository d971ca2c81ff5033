//! What the copies of the services have in common: how much a client may ask of all of them, what they tell of
//! themselves, and how they end.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use system_tests::client::{Account, Api};
use system_tests::cluster::{Cluster, temp_dir};
use system_tests::kafka::Kafka;
use system_tests::ledger::{Ledger, Load};
use system_tests::process::Process;
use system_tests::redis::Redis;
use system_tests::services::{Parts, Services};
use system_tests::slowness::Slowness;
use system_tests::wait::until_right;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
/// What an address may ask for in a minute, without a token.
const QUOTA: usize = 100;

/// A copy and a path at which it asks for a token.
fn places(services: &Services) -> Vec<(Api, &'static str)> {
    let of = |copies: &[Process; 2], path| copies.iter().map(|copy| (copy.api(), path)).collect::<Vec<_>>();
    let projectors = of(&services.projectors, "/api/v1/admin/parked");
    [of(&services.queries, TASKS), of(&services.commands, "/api/v1/auth/me"), projectors].concat()
}

/// Asks from an address until it is refused, and gives how often it was let in.
async fn let_in(place: &(Api, &str), from: Ipv4Addr, tries: usize) -> Option<usize> {
    let (api, path) = place;
    for count in 0..tries {
        let answer = api.get(path).header("X-Forwarded-For", &from.to_string()).send().await;
        if answer.status == 429 {
            assert_eq!(answer.problem(429)["code"], "rate-limited");
            return Some(count);
        }
        answer.expect(401);
    }
    None
}

/// Whoever has had all that one copy gives gets next to nothing of the others. A call that Redis does not answer in time
/// is not made again, so it is tried for one address after the other.
async fn count_together(places: &[(Api, &str)], mut addresses: impl Iterator<Item = Ipv4Addr>) {
    let [first, others @ ..] = places else { panic!("no places") };
    let mut tick = interval(Duration::from_millis(200));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for other in others {
        'one_address: loop {
            let from = addresses.next().expect("each copy counts by itself");
            assert!(let_in(first, from, 3 * QUOTA).await.expect("refused at last") >= QUOTA);
            for _ in 0..QUOTA / 4 {
                tick.tick().await;
                if let_in(other, from, 1).await == Some(0) {
                    break 'one_address;
                }
            }
        }
    }
}

/// Delete the line in crates/service that shares them, and this fails.
#[tokio::test]
async fn a_client_is_limited_by_all_copies_together_and_by_each_while_redis_is_away() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::start());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let parts = parts.with("PRIMETRADE_RATE_LIMITS", "on").with("PRIMETRADE_TRUSTED_PROXIES", "127.0.0.1");
    let services = Services::start(parts).await;
    let places = places(&services);
    let address = |of: u8| move |n| Ipv4Addr::new(198, 51, of, n);
    count_together(&places, (1..=50).map(address(100))).await;
    redis.kill();
    let from = Ipv4Addr::new(203, 0, 113, 1);
    for place in &places {
        let count = let_in(place, from, 3 * QUOTA).await.expect("refused at last");
        assert!(count >= QUOTA, "{count} let in by a copy that nobody has asked");
    }
    redis.restart();
    count_together(&places[..2], (1..=50).map(address(101))).await;
}

/// Documented, and not to be seen while all is well and there is no replica.
const NOT_SEEN_HERE: [&str; 10] = [
    "cache_answers_not_kept_total",
    "http_connections_unread_total",
    "jobs_left_total",
    "previous_secret_used_total",
    "projector_errors_total",
    "projector_owner_versions_dropped_total",
    "projector_redis_dropped_total",
    "read_replica_up",
    "relay_troubles_total",
    "streams_dropped_total",
];

/// The names in the first column of docs/metrics.md, but for those that no process of ours measures.
fn documented() -> BTreeSet<&'static str> {
    let (ours, _) = include_str!("../../docs/metrics.md").split_once("textfile collector").expect("others at the end");
    let rows = ours.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2)).collect()
}

/// The names of metrics in an exposition, and the values of their labels.
fn emitted(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let labels = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (_, labels) = line.split_once('{')?;
        Some(labels.rsplit_once('}')?.0)
    });
    let values = labels.flat_map(|labels| labels.split('"').skip(1).step_by(2));
    (named.map(str::to_owned).collect(), values.map(str::to_owned).collect())
}

/// Whether a text has an id or an address in it.
fn names_somebody(text: &str) -> bool {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || "-.:".contains(c)));
    words.filter(|word| !word.is_empty()).any(|word| {
        Uuid::try_parse(word).is_ok()
            || word.parse::<Ipv4Addr>().is_ok()
            || word.len() > 3 && word.parse::<Ipv6Addr>().is_ok()
    })
}

#[test]
fn ids_and_addresses_are_known_when_they_are_seen() {
    for text in
        ["7f2c8a17-d3b9-4e60-a1c7-f8e2d4b6093c", "/x/7f2c8a17d3b94e60a1c7f8e2d4b6093c", "10.0.0.1", "2001:db8::1"]
    {
        assert!(names_somebody(text), "{text}");
    }
    for text in ["0.005", "GET", "/api/v1/tasks/{id}", "2xx", "rate-limits", "+Inf", "12"] {
        assert!(!names_somebody(text), "{text}");
    }
}

/// Something of everything, right and wrong.
async fn all_kinds_of_requests(services: &Services, account: &Account) {
    let id = account.create(json!({"title": "counted"})).await;
    for _ in 0..2 {
        account.request("POST", TASKS).key("again").json(&json!({"title": "replayed"})).send().await.expect(201);
        account.task(id).await;
        for path in [TASKS, "/api/v1/stats", "/api/v1/auth/me", &format!("{TASKS}/{id}/history")] {
            account.read(path).await.expect(200);
        }
    }
    account.request("GET", &format!("{TASKS}/{}", Uuid::new_v4())).send().await.expect(404);
    account.request("GET", &format!("/{}", Uuid::new_v4())).send().await.expect(404);
    account.act(id, "complete").await.expect(200);
    let batch = json!({"type": "CreateTask", "task_id": Uuid::new_v4(), "title": ""});
    account.batch(&[batch]).await.expect(200);
    let key = services.api().request("POST", "/api/v1/auth/token").header("Authorization", "Bearer ptk_nobodys");
    key.send().await.expect(401);
    let wrong = json!({"email": account.email, "password": "not this one"});
    account.api.post("/api/v1/auth/login", &wrong).send().await.expect(401);
    let line = json!({"type": "CreateTask", "title": "imported"}).to_string();
    account.request("POST", "/api/v1/imports").body("application/x-ndjson", line).send().await.expect(202);
    drop(account.stream(None).await);
    let from = Ipv4Addr::new(198, 51, 100, 200);
    let_in(&places(services)[0], from, 3 * QUOTA).await.expect("refused at last");
}

#[tokio::test]
async fn what_is_documented_is_measured_and_names_nobody() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let parts = parts.with("PRIMETRADE_RATE_LIMITS", "on").with("PRIMETRADE_TRUSTED_PROXIES", "127.0.0.1");
    let objects = format!("file://{}", temp_dir("objects").display());
    let services = Services::start(parts.with("PRIMETRADE_OBJECT_STORE_URL", &objects)).await;
    let account = services.api().account().await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, 4);
    ledger.progress(100).await;
    load.stop().await;
    all_kinds_of_requests(&services, &account).await;
    services.everything_is_read().await;
    let expected: BTreeSet<&str> = documented().into_iter().filter(|name| !NOT_SEEN_HERE.contains(name)).collect();
    assert!(expected.len() > 40, "{expected:?}");
    let copies = || services.commands.iter().chain(&services.projectors).chain(&services.queries);
    // some are looked at every few seconds only
    until_right(Duration::from_secs(60), || async {
        let mut found = BTreeSet::new();
        for copy in copies() {
            found.extend(emitted(&copy.api().get("/metrics").send().await.expect(200).text()).0);
        }
        let missing: Vec<_> = expected.iter().filter(|name| !found.contains(**name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not measured: {missing:?}")) }
    })
    .await;
    let documented = documented();
    for copy in copies() {
        let (names, labels) = emitted(&copy.api().get("/metrics").send().await.expect(200).text());
        assert!(labels.len() > 10, "{labels:?}");
        for name in names {
            assert!(documented.contains(name.as_str()), "{name} is not in docs/metrics.md");
        }
        for label in labels {
            assert!(!names_somebody(&label), "{label}");
        }
    }
}

/// With everything against it: a client that never sends the rest of its body, Kafka and the collector of traces as if
/// they were dead.
#[tokio::test]
async fn a_service_ends_within_10_s_of_sigterm() {
    let collector = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::start(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let services = Services::start(parts.with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)).await;
    let machine = Slowness::watch(&services.parts.database_url).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, 4);
    ledger.progress(50).await;
    kafka.signal(Signal::STOP);
    ledger.progress(50).await;
    let mut hanging = Vec::new();
    let copies = || services.commands.iter().chain(&services.projectors).chain(&services.queries);
    for copy in copies() {
        let mut client = TcpStream::connect(copy.address()).await.expect("connect");
        let half = format!(
            "POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\n\r\n{{\"title\":",
            ledger.account().token
        );
        client.write_all(half.as_bytes()).await.expect("sent");
        hanging.push(client);
    }
    load.stop().await;
    let began = Instant::now();
    for copy in copies() {
        copy.signal(Signal::TERM);
    }
    for copy in copies() {
        let status = copy.ended().await;
        let (took, allowed) = (began.elapsed(), machine.allowed(Duration::from_secs(10), began));
        println!("{}: {took:?} of {allowed:?}", copy.program());
        assert!(status.success(), "{status}: {}", copy.log_tail());
        assert!(took < allowed, "{took:?}, allowed {allowed:?}: {}", copy.log_tail());
    }
    kafka.signal(Signal::CONT);
    for copy in copies() {
        copy.restart().await;
    }
    ledger.settle().await;
    services.everything_holds(&[&ledger]).await;
}
