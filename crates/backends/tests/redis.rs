//! The handle to a Redis, with a real one that hangs, dies and comes back.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backends::redis::{Address, BadUrl, CALL_MS_MAX, Entry, NotAvailable, OVERLAP_MS, Redis};
use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use settings::Source;
use system_tests::address::Address as Movable;
use system_tests::authority::Authority;
use system_tests::cluster::free_port;
use system_tests::redis::{Redis as Server, Sentinel};
use system_tests::wait::eventually;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

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
async fn one_that_wants_a_certificate_of_ours_gets_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (server, url) = authority.guarded_redis();
    let (ours, theirs) = (authority.certificate("services"), stranger.certificate("services"));
    let text = |file: &PathBuf| file.to_str().expect("UTF-8").to_owned();
    let (ca, cert, key) = (text(&authority.file()), text(&ours.cert_file), text(&ours.key_file));
    let read = |cert: &str, key: &str| {
        Address::read(&Source::from_pairs([
            ("PRIMETRADE_REDIS_URL", &*url),
            ("PRIMETRADE_REDIS_CA_FILE", &*ca),
            ("PRIMETRADE_REDIS_CERT_FILE", cert),
            ("PRIMETRADE_REDIS_KEY_FILE", key),
        ]))
    };
    let redis = Redis::at(read(&cert, &key).expect("good").expect("set"));
    eventually("it is reached", async || redis.is_up()).await;
    redis.set(entry("both", "1")).await.expect("set");
    assert_eq!(server.ask(&["GET", "both"]).trim(), "1");

    let of_stranger = (text(&theirs.cert_file), text(&theirs.key_file));
    for (cert, key) in [("", ""), (&*of_stranger.0, &*of_stranger.1)] {
        let refused = Redis::at(read(cert, key).expect("good").expect("set"));
        let up = tokio::time::timeout(Duration::from_secs(2), refused.up()).await;
        assert!(up.is_err(), "it got in without a certificate of the authority: {cert}");
    }
    for (cert, key, named) in [
        (&*cert, "", "PRIMETRADE_REDIS_KEY_FILE is not set"),
        ("", &*key, "PRIMETRADE_REDIS_CERT_FILE is not set"),
        (&*key, &*key, "PRIMETRADE_REDIS_CERT_FILE: "),
        (&*cert, &*cert, "PRIMETRADE_REDIS_KEY_FILE: "),
        (&*cert, "/not/there.pem", "PRIMETRADE_REDIS_KEY_FILE: "),
    ] {
        let error = read(cert, key).err().expect("refused").to_string();
        assert!(error.starts_with(named), "{error}");
    }
    let plain = [("PRIMETRADE_REDIS_URL", "redis://cache"), ("PRIMETRADE_REDIS_CERT_FILE", &*cert)];
    let error = Address::read(&Source::from_pairs(plain)).err().expect("refused").to_string();
    assert!(error.starts_with("PRIMETRADE_REDIS_CERT_FILE: "), "without TLS it is never shown: {error}");
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

/// What is logged by this thread, as lines.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let said = Self::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(said.clone()).finish();
        (said, tracing::subscriber::set_default(subscriber))
    }

    /// The warnings with this in them.
    fn warnings(&self, text: &str) -> Vec<String> {
        let said = self.0.lock().expect("lines").clone();
        let said = String::from_utf8(said).expect("UTF-8");
        said.lines().filter(|line| line.contains(" WARN ") && line.contains(text)).map(str::to_owned).collect()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lines").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Said {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1]) return {1}";

/// Each way to write.
const WRITES: [&str; 3] = ["set", "script", "script on all"];

async fn write(redis: &Redis, how: &str, value: &str) -> Result<(), NotAvailable> {
    let (keys, arguments) = (["written".to_owned()], [value.to_owned()]);
    match how {
        "set" => redis.set([entry("first", "1"), entry("written", value)].concat()).await,
        "script" => redis.run_script(SCRIPT, &keys, &arguments).await.map(drop),
        _ => redis.run_script_on_all(SCRIPT, &keys, &arguments).await.map(drop),
    }
}

/// Follows `primary`, and has everything that it has.
async fn replicate(replica: &Server, primary: &Server) {
    let primary = primary.address();
    let (host, port) = primary.split_once(':').expect("host:port");
    replica.ask(&["REPLICAOF", host, port]);
    eventually("it is a replica", async || replica.ask(&["ROLE"]).contains("connected")).await;
}

/// A failover behind one address: connections that are open stay with the old one, which refuses to write.
#[tokio::test]
async fn one_that_became_a_replica_is_left_for_where_its_address_leads() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (old, new) = (Server::start(), Server::start());
    let address = Movable::of(&old.address());
    for how in WRITES {
        old.ask(&["REPLICAOF", "NO", "ONE"]);
        address.lead_to(&old.address());
        let (said, _listening) = Said::listen();
        let redis = Redis::connect(&format!("redis://{address}")).expect("a URL");
        redis.up().await;
        write(&redis, how, "old").await.expect("written");
        replicate(&old, &new).await;
        // for a while the address leads to what is a replica already
        assert_eq!(write(&redis, how, "lost").await, Err(NotAvailable), "{how}");
        assert!(!redis.is_up(), "{how}");
        eventually("it is said", async || !said.warnings("it is a replica").is_empty()).await;
        for _ in 0..10 {
            assert_eq!(write(&redis, how, "lost").await, Err(NotAvailable), "{how}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            said.warnings("").len(),
            2,
            "that it was dropped, and why there is no other, each once: {:?}",
            said.warnings("")
        );
        assert_eq!(said.warnings("READONLY").len(), 1, "{:?}", said.warnings(""));
        address.lead_to(&new.address());
        eventually("the new one is found", async || write(&redis, how, how).await.is_ok()).await;
        assert_eq!(new.ask(&["GET", "written"]).trim(), how);
    }
    let rendered = recorder.handle().render();
    for line in [
        r#"redis_calls_total{call="set",outcome="error"} 1"#,
        r#"redis_calls_total{call="script",outcome="error"} 2"#,
        "redis_up 1",
    ] {
        assert!(rendered.lines().any(|found| found == line), "{line} is not in:\n{rendered}");
    }
}

/// What refuses to serve is left too; a password that is wanted from now on is named.
#[tokio::test]
async fn one_that_does_not_serve_is_left_and_said_by_name() {
    let (old, new) = (Server::start(), Server::start());
    let address = Movable::of(&old.address());
    let (said, _listening) = Said::listen();
    let redis = Redis::connect(&format!("redis://{address}")).expect("a URL");
    redis.up().await;

    old.ask(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    old.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(redis.get("a").await, Err(NotAvailable));
    assert_eq!(said.warnings("MASTERDOWN").len(), 1, "{:?}", said.warnings(""));
    address.lead_to(&new.address());
    eventually("the new one is found", async || redis.get("a").await.is_ok()).await;

    new.ask(&["CONFIG", "SET", "requirepass", "hush"]);
    new.ask_by("hush", &["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is away", async || redis.get("a").await.is_err()).await;
    eventually("it is said", async || !said.warnings("PRIMETRADE_REDIS_URL").is_empty()).await;
    assert!(said.warnings("NOAUTH").len() <= 2, "{:?}", said.warnings(""));
    new.ask_by("hush", &["CONFIG", "SET", "requirepass", ""]);
    eventually("it is found again", async || redis.get("a").await.is_ok()).await;

    // long enough that it looks up from reading them often
    let long = || (0..10).map(|_| Uuid::new_v4().simple().to_string()).collect::<String>();
    let pairs: Vec<String> = (0..2_000).flat_map(|n| [n.to_string(), long()]).collect();
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    new.ask(&[&["MSET"], &pairs[..]].concat());
    new.ask(&["SAVE"]);
    // 4 s to read it
    new.restart_with(&["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"]);
    eventually("it is found once it has read all", async || redis.get("a").await.is_ok()).await;
    assert_eq!(said.warnings("LOADING").len(), 1, "{:?}", said.warnings(""));
}

/// A name that leads elsewhere is noticed where the old server goes on as if nothing were. Nobody is without Redis for it.
#[tokio::test]
async fn a_connection_has_a_greatest_age() {
    let (old, new) = (Server::start(), Server::start());
    old.ask(&["SET", "which", "old"]);
    new.ask(&["SET", "which", "new"]);
    let address = Movable::of(&old.address());
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let redis = Redis::with_connections_of(Address::parse(&format!("redis://{address}")).expect("a URL"), 200);
    redis.up().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    address.lead_to(&new.address());
    let began = Instant::now();
    let which = ["which".to_owned()];
    loop {
        match redis.settled_values(&which, 50).await {
            Ok(values) if values == [Some("new".into())] => break,
            Ok(_) => {}
            // on a machine that has no time for it
            Err(_) if recorder.handle().render().contains("outcome=\"timeout\"") => {}
            Err(_) => panic!("for a moment there was no Redis: {}", recorder.handle().render()),
        }
        assert!(began.elapsed() < Duration::from_secs(15), "it stays with the old one");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let machine_is_slow = recorder.handle().render().contains("outcome=\"timeout\"");
    assert!(
        machine_is_slow || began.elapsed() >= Duration::from_millis(OVERLAP_MS),
        "the new one had no time to settle"
    );
    // a younger one cannot be had: the one that is there is kept
    address.lead_to("127.0.0.1:1");
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        let found = redis.get("which").await;
        assert!(found.is_ok() || recorder.handle().render().contains("outcome=\"timeout\""), "the one that is open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sentinels say who the primary is: at the start, after it was demoted, after it died.
#[tokio::test]
async fn sentinels_are_asked_for_the_primary() {
    type FailOver = fn(&Sentinel, &Server);
    let demote: FailOver = |sentinel, _| drop(sentinel.ask(&["SENTINEL", "FAILOVER", "the-cache"]));
    let kill: FailOver = |_, primary| primary.kill();
    let failovers = [demote, kill];
    let mut ports = Vec::new();
    let mut watching = Vec::new();
    for fail_over in failovers {
        let servers = [Server::start(), Server::start()];
        replicate(&servers[1], &servers[0]).await;
        let sentinels = [Sentinel::start("the-cache", &servers[0]), Sentinel::start("the-cache", &servers[0])];
        ports = sentinels.iter().map(Sentinel::address).collect();
        // one of them is away
        let url = format!("redis-sentinel://127.0.0.1:1,{},{}/the-cache/0", ports[0], ports[1]);
        let redis = Redis::connect(&url).expect("a URL");
        let written = async |value: &str, server: &Server| {
            eventually(value, async || {
                redis.set(entry("where", value)).await.is_ok() && server.ask(&["GET", "where"]).trim() == value
            })
            .await;
        };
        written("to the primary", &servers[0]).await;
        eventually("the sentinels know the replica", async || sentinels.iter().all(Sentinel::knows_a_replica)).await;
        fail_over(&sentinels[0], &servers[0]);
        written("to the one that was promoted", &servers[1]).await;
        watching.push(sentinels);
    }

    let (said, _listening) = Said::listen();
    let url = format!("redis-sentinel://{}/another-name", ports[0]);
    let nobody = Redis::connect(&url).expect("a URL");
    eventually("it is said", async || !said.warnings("another-name").is_empty()).await;
    assert!(!nobody.is_up());
}

#[tokio::test]
async fn a_node_of_a_cluster_is_not_used_and_says_so() {
    // else it takes its own port + 10,000, which may be somebody else's
    let bus_port = free_port().to_string();
    let node = Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus_port]);
    node.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let (said, _listening) = Said::listen();
    let redis = Redis::connect(&node.url()).expect("a URL");
    eventually("it is said", async || !said.warnings("Redis Cluster").is_empty()).await;
    assert!(!redis.is_up());
}

#[test]
fn a_url_that_is_none_is_named_and_not_repeated() {
    let refused = |url: &str| {
        let read = Address::read(&Source::from_pairs([("PRIMETRADE_REDIS_URL", url)]));
        let error = read.err().unwrap_or_else(|| panic!("{url} is taken")).to_string();
        assert!(error.starts_with("PRIMETRADE_REDIS_URL"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        error
    };
    for url in ["http://user:hunter2@host", "redis://", "host:6379", "redis://a:6379,b:6379"] {
        assert!(refused(url).contains(&BadUrl::NotRedis.to_string()), "{url}");
    }
    for url in [
        "redis-cluster://:hunter2@a:7000,b:7000",
        "redis+cluster://a",
        "rediss-cluster://a",
        "rediss+cluster://a",
        "cluster://a",
    ] {
        assert!(refused(url).contains(&BadUrl::Cluster.to_string()), "{url}");
    }
    for url in [
        "redis-sentinel://:hunter2@a:26379",
        "redis-sentinel://a/",
        "redis-sentinel:///name",
        "redis-sentinel://a:port/name",
        "redis-sentinel://a,,b/name",
        "redis-sentinel://a/name/zero",
        "redis-sentinel://a/name/0/more",
        "redis-sentinel://a/name?sentinelMasterId=b",
        "redis+sentinel://a/name",
        "sentinel://a/name",
    ] {
        assert!(refused(url).contains(&BadUrl::Sentinel.to_string()), "{url}");
    }
    for url in [
        "redis-sentinel://a/name",
        "rediss-sentinel://us:h%40sh@a:1,[::1]:2,c/name/3?sentinel_username=s&sentinel_password=p%2Fq",
        "valkey://host",
        "redis://host:6379/0",
    ] {
        Address::parse(url).map(drop).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}
