//! The handle to a Redis, with a real one that hangs, dies and comes back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use service_kit::config::Source;
use service_kit::redis::{Address, BadUrl, CALL_MS_MAX, Entry, NotAvailable, Redis};
use system_tests::redis::Redis as Server;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

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

/// TLS in front of a Redis: gives its port, and the file of the authority that its certificate is by.
async fn behind_tls(server: &Server) -> (u16, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let ca_file = system_tests::cluster::temp_dir("redis-tls").join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).expect("writes");
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let redis = server.url().replace("redis://", "");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, redis) = (acceptor.clone(), redis.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                tokio::io::copy_bidirectional(&mut client, &mut TcpStream::connect(redis).await?).await
            });
        }
    });
    (port, ca_file)
}

#[tokio::test]
async fn tls_with_a_certificate_that_is_looked_at() {
    let server = Server::start();
    let (port, ca_file) = behind_tls(&server).await;
    let read = |url: String, ca_file: &str| {
        Address::read(&Source::from_pairs([("PRIMETRADE_REDIS_URL", &*url), ("PRIMETRADE_REDIS_CA_FILE", ca_file)]))
    };
    let ca = ca_file.to_str().expect("UTF-8");
    let redis = Redis::at(read(format!("rediss://127.0.0.1:{port}/0"), ca).expect("good").expect("set"));
    eventually("it is reached", async || redis.is_up()).await;
    redis.set(entry("tls", "1")).await.expect("set");
    assert_eq!(server.ask(&["GET", "tls"]).trim(), "1");

    // an authority that nobody has named, and another host than the certificate's
    let (_, other) = behind_tls(&server).await;
    let strangers = [
        Redis::connect(&format!("rediss://127.0.0.1:{port}")).expect("a URL"),
        Redis::at(
            read(format!("rediss://127.0.0.1:{port}"), other.to_str().expect("UTF-8")).expect("good").expect("set"),
        ),
        Redis::at(read(format!("rediss://localhost:{port}"), ca).expect("good").expect("set")),
    ];
    for stranger in strangers {
        let up = tokio::time::timeout(Duration::from_secs(2), stranger.up()).await;
        assert!(up.is_err(), "its certificate was not looked at");
    }

    std::fs::write(&ca_file, "nothing").expect("writes");
    for (url, ca_file, named) in [
        ("rediss://cache", ca, "PRIMETRADE_REDIS_CA_FILE"),
        ("rediss://cache", "/not/there.pem", "PRIMETRADE_REDIS_CA_FILE"),
        ("redis://cache", ca, "PRIMETRADE_REDIS_CA_FILE"),
        ("rediss://cache#insecure", "", "PRIMETRADE_REDIS_URL"),
    ] {
        let error = read(url.to_owned(), ca_file).err().expect("refused").to_string();
        assert!(error.starts_with(named), "{error}");
    }
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
