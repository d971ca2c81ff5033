//! What a client may ask for, as its answers say it; and copies that count together by way of a real Redis.

use std::net::IpAddr;
use std::time::Duration;

use access::installation::Installation;
use access::token::RootSecret;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use backends::redis::Redis;
use http_api::RouteKind;
use http_api::edge::{self, Edge};
use http_api::limits::{ADDRESS, AUTH, RateLimits, RequestClass};
use http_api::openapi::{Operation, Routes, Tag};
use http_server::client_address::TrustedProxies;
use rustix::process::Signal;
use system_tests::redis::Redis as Server;
use system_tests::wait::eventually;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

fn limits() -> RateLimits {
    RateLimits::on(&RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).expect("long"))
}

fn described() -> Operation {
    Operation::new(Tag::Operations, "operation", "An operation")
}

fn edge(limits: RateLimits) -> Router {
    let slow = |Path(ms): Path<u64>| tokio::time::sleep(Duration::from_millis(ms));
    let routes = Routes::new()
        .get("/api/v1/tasks", || async { "tasks" }, described)
        .get("/slow/{ms}", slow, described)
        .kind(RouteKind::Authentication)
        .post("/api/v1/auth/login", || async { "tokens" }, described)
        .kind(RouteKind::Always)
        .get("/livez", || async { "lives" }, described);
    let proxies = TrustedProxies::new(vec!["127.0.0.1".parse().expect("a network")]);
    edge::edge(routes.with_state(()), Edge { limits, proxies, ..Edge::default() }).with_state(())
}

async fn ask(router: &Router, method: Method, path: &str, from: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header("X-Forwarded-For", from);
    router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("never fails")
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().expect("ASCII")
}

/// Until it is refused; more than the quota is let in only by what comes back meanwhile.
async fn until_refused(router: &Router, method: Method, path: &str, from: &str, quota: u32) -> Response {
    for _ in 0..3 * quota {
        let response = ask(router, method.clone(), path, from).await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return response;
        }
    }
    panic!("{} times {path} and never refused", 3 * quota);
}

#[tokio::test]
async fn an_answer_says_what_is_left_and_a_refusal_when_to_come_back() {
    let router = edge(limits());
    let first = ask(&router, Method::GET, "/api/v1/tasks", "192.0.2.1").await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(header(&first, "ratelimit-policy"), "\"address\";q=100;w=60");
    assert_eq!(header(&first, "ratelimit"), "\"address\";r=99;t=1");

    let refused = until_refused(&router, Method::GET, "/api/v1/tasks", "192.0.2.1", ADDRESS.quota).await;
    assert_eq!(header(&refused, "ratelimit-policy"), "\"address\";q=100;w=60");
    assert_eq!(header(&refused, "ratelimit"), "\"address\";r=0;t=60");
    let retry_after: u32 = header(&refused, "retry-after").parse().expect("seconds");
    assert!((1..=ADDRESS.window_s).contains(&retry_after), "{retry_after}");
    let body = to_bytes(refused.into_body(), 10_000).await.expect("a body");
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(problem["code"], "rate-limited");

    // what is not there is counted too, what is malformed as well, and so is another address, by itself
    let other = ask(&router, Method::GET, "/nowhere", "192.0.2.2").await;
    assert_eq!((other.status(), header(&other, "ratelimit")), (StatusCode::NOT_FOUND, "\"address\";r=99;t=1"));
    let long = format!("/api/v1/tasks?{}", "q".repeat(9_000));
    let other = ask(&router, Method::GET, &long, "192.0.2.3").await;
    assert_eq!((other.status(), header(&other, "ratelimit")), (StatusCode::URI_TOO_LONG, "\"address\";r=99;t=1"));
}

#[tokio::test]
async fn tokens_have_a_stricter_limit_and_operations_have_none() {
    let router = edge(limits());
    let refused = until_refused(&router, Method::POST, "/api/v1/auth/login", "192.0.2.1", AUTH.quota).await;
    assert_eq!(header(&refused, "ratelimit-policy"), "\"auth\";q=30;w=60");
    // the address may still ask for other things
    let other = ask(&router, Method::GET, "/api/v1/tasks", "192.0.2.1").await;
    assert_eq!(other.status(), StatusCode::OK);
    for _ in 0..3 * ADDRESS.quota {
        let alive = ask(&router, Method::GET, "/livez", "192.0.2.1").await;
        assert_eq!(alive.status(), StatusCode::OK);
        assert!(!alive.headers().contains_key("ratelimit"));
    }
}

#[tokio::test]
async fn off_is_off() {
    let router = edge(RateLimits::off());
    for _ in 0..3 * ADDRESS.quota {
        let response = ask(&router, Method::GET, "/api/v1/tasks", "192.0.2.1").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("ratelimit-policy"));
    }
}

/// A refusal takes next to no time, and there may be any number of them. They must not hide that everything else takes
/// too long.
#[tokio::test]
async fn refusals_do_not_hide_that_there_is_too_much_to_do() {
    // more than 32 at once do within the second that a burst may take
    const AT_ONCE: u64 = 480;
    let router = edge(limits());
    let slow = (0..AT_ONCE).map(|n| {
        let (router, path) = (router.clone(), format!("/slow/{}", 110 + n % 40));
        Box::pin(async move {
            // fewer than an address may ask for
            for _ in 0..ADDRESS.quota {
                if ask(&router, Method::GET, &path, &format!("198.18.{}.{}", n / 250, n % 250)).await.status() == 503 {
                    return;
                }
            }
            panic!("never turned away");
        })
    });
    until_refused(&router, Method::GET, "/api/v1/tasks", "192.0.2.1", ADDRESS.quota).await;
    let flood = async {
        loop {
            for _ in 0..100 {
                ask(&router, Method::GET, "/api/v1/tasks", "192.0.2.1").await;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = futures_util::future::select_all(slow) => {}
        () = flood => {}
    }
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

async fn copy(server: &Server) -> (RateLimits, Redis, CancellationToken) {
    copy_with(server, "a secret that all copies of one installation share").await
}

async fn copy_with(server: &Server, secret: &str) -> (RateLimits, Redis, CancellationToken) {
    let installation = Installation::of(&RootSecret::new(secret.to_owned().into()).expect("long enough"));
    let (limits, stop) = (limits(), CancellationToken::new());
    let redis = Redis::connect(&server.url()).expect("a URL");
    redis.up().await;
    tokio::spawn(limits.share(redis.clone(), &installation, stop.clone()));
    (limits, redis, stop)
}

/// How many are let in at once; a few more than the quota where some come back meanwhile.
fn admitted(limits: &RateLimits, from: IpAddr) -> u32 {
    let mut admitted = 0;
    while admitted < 3 * AUTH.quota && limits.admit(RequestClass::Authentication(from)).is_ok() {
        admitted += 1;
    }
    admitted
}

/// What one copy has admitted the other refuses after a few requests, long before it would by itself. A call that Redis
/// does not answer in time is not made again, so it is tried for one address after the other.
async fn count_together(one: &RateLimits, two: &RateLimits, addresses: std::ops::Range<u8>) {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    for n in addresses {
        assert!(admitted(one, address(n)) >= AUTH.quota);
        for _ in 0..AUTH.quota / 3 {
            tick.tick().await;
            if two.admit(RequestClass::Authentication(address(n))).is_err() {
                return;
            }
        }
    }
    panic!("each counts by itself");
}

#[tokio::test]
async fn copies_count_together() {
    let server = Server::start();
    let (one, ..) = copy(&server).await;
    let (two, ..) = copy(&server).await;
    count_together(&one, &two, 1..10).await;
    two.admit(RequestClass::Authentication(address(100))).expect("another address");
    // what one installation lets in is none of another's affair, though it has the same Redis
    let (another, ..) = copy_with(&server, "the secret of another installation, as long as that").await;
    assert!(admitted(&another, address(200)) >= AUTH.quota);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..4 {
        tick.tick().await;
        one.admit(RequestClass::Authentication(address(200))).expect("of the other installation");
    }
}

/// Whoever is quick enough to get a quota of each copy waits twice as long.
#[tokio::test]
async fn what_was_too_much_is_paid_back() {
    let server = Server::start();
    let (one, ..) = copy(&server).await;
    let (two, ..) = copy(&server).await;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let pays_back = |copy: &RateLimits, from| {
        let refused = copy.admit(RequestClass::Authentication(from)).err();
        refused.is_some_and(|refused| refused.retry_after_s() > AUTH.window_s / 2)
    };
    // a call that Redis does not answer in time is not made again: then with another address
    for n in 1..10 {
        let both = admitted(&one, address(n)) + admitted(&two, address(n));
        assert!(both >= 2 * AUTH.quota, "{both}");
        for _ in 0..20 {
            tick.tick().await;
            if pays_back(&one, address(n)) && pays_back(&two, address(n)) {
                return;
            }
        }
    }
    panic!("nobody pays back");
}

#[tokio::test]
async fn each_copy_limits_by_itself_while_redis_is_away() {
    let server = Server::start();
    let (one, redis, _stop) = copy(&server).await;
    let (two, ..) = copy(&server).await;
    server.signal(Signal::STOP);
    eventually("the connection to Redis is dropped", async || redis.get("x").await.is_err() && !redis.is_up()).await;
    for copy in [&one, &two] {
        let admitted = admitted(copy, address(1));
        assert!((AUTH.quota..2 * AUTH.quota).contains(&admitted), "{admitted}");
    }
    server.signal(Signal::CONT);
    redis.up().await;
    count_together(&one, &two, 2..10).await;
}
