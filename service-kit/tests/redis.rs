//! The handle to a Redis, with a real one that hangs, dies and comes back.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use service_kit::redis::{BadUrl, CALL_MS_MAX, Entry, NotAvailable, Redis};
use system_tests::redis::Redis as Server;

async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn entry(key: &str, value: &str) -> Vec<Entry> {
    vec![Entry { key: key.into(), value: value.into(), ttl_ms: 60_000 }]
}

#[tokio::test]
async fn what_is_set_is_got() {
    let server = Server::start();
    let redis = Redis::connect(&server.url()).expect("a URL");
    redis.up().await;
    assert_eq!(redis.get("a").await, Ok(None));
    redis.set(entry("a", "1")).await.expect("set");
    assert_eq!(redis.get("a").await.expect("got").as_deref(), Some(&b"1"[..]));
    let keys = ["a".to_owned(), "b".to_owned()];
    let values = redis.settled_values(&keys, 0).await.expect("settled");
    assert_eq!(values, [Some("1".into()), None]);
    assert_eq!(redis.settled_values(&keys, 3_600_000).await, Err(NotAvailable), "not there for an hour");
    let script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    assert_eq!(redis.run_script(script, &keys[..1], &["2".to_owned()]).await, Ok(Some(3)));
}

#[tokio::test]
async fn one_that_hangs_costs_a_few_short_calls_and_is_found_again() {
    let server = Server::start();
    let redis = Redis::connect(&server.url()).expect("a URL");
    redis.up().await;
    server.signal(Signal::STOP);
    let began = Instant::now();
    for _ in 0..1_000 {
        let called = Instant::now();
        assert_eq!(redis.get("a").await, Err(NotAvailable));
        assert!(called.elapsed() < Duration::from_millis(4 * CALL_MS_MAX), "{:?}", called.elapsed());
    }
    assert!(began.elapsed() < Duration::from_millis(12 * CALL_MS_MAX), "{:?}", began.elapsed());
    assert!(!redis.is_up());
    server.signal(Signal::CONT);
    eventually("it is found again", async || redis.get("a").await.is_ok()).await;
}

#[tokio::test]
async fn one_that_was_restarted_or_wiped_has_to_settle_again() {
    let server = Server::start();
    let redis = Redis::connect(&server.url()).expect("a URL");
    let settled = async || redis.settled_values(&[], 1_000).await.is_ok();
    eventually("it has settled", settled).await;
    let wipe = || drop(server.ask(&["FLUSHALL"]));
    let restart = || server.restart();
    let exchange = || drop(server.ask(&["SET", "primetrade:generation", "of another"]));
    let happenings: [&dyn Fn(); 3] = [&wipe, &restart, &exchange];
    for happen in happenings {
        happen();
        let began = Instant::now();
        assert!(!settled().await);
        eventually("it settles again", settled).await;
        assert!(began.elapsed() >= Duration::from_millis(1_000), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn one_that_is_away_is_no_error_and_is_found_when_it_comes() {
    let server = Server::start();
    server.kill();
    let redis = Redis::connect(&server.url()).expect("a URL");
    for _ in 0..100 {
        assert_eq!(redis.get("a").await, Err(NotAvailable));
    }
    server.restart();
    eventually("it is found", async || redis.set(entry("a", "1")).await.is_ok()).await;
}

#[tokio::test]
async fn an_error_of_the_server_is_a_failed_call() {
    let server = Server::start();
    let redis = Redis::connect(&server.url()).expect("a URL");
    redis.up().await;
    server.ask(&["LPUSH", "list", "x"]);
    assert_eq!(redis.get("list").await, Err(NotAvailable));
    assert!(redis.is_up(), "one bad call is no reason to do without");
    assert_eq!(redis.get("other").await, Ok(None));
}

#[tokio::test]
async fn a_url_that_is_none_is_not_repeated() {
    let error = Redis::connect("http://user:hunter2@host").expect_err("not a Redis");
    assert_eq!(error, BadUrl);
    assert!(!error.to_string().contains("hunter2"));
}
