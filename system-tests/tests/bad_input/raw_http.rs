//! What no well-behaved client sends: framing that two parsers would read in two ways, requests without an end, too much
//! of everything.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::Method;
use serde_json::Value;
use system_tests::client::Account;
use system_tests::raw_http::{exchange, status};
use system_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::table::{Case, Refused, Target, family, target};

const LOGIN: &str = "/api/v1/auth/login";
const TASKS: &str = "/api/v1/tasks";
const STREAM: &str = "/api/v1/stream";
/// Longer than a body may take, on a machine that has other things to do.
const ANSWER_MS_MAX: u64 = 60_000;

/// `method path HTTP/1.1` with these headers and this body.
fn http(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// A login, which needs no token, with what says how long its body is.
fn login(framing: &str, body: &str) -> String {
    http(&format!("POST {LOGIN}"), &format!("Content-Type: application/json\r\n{framing}"), body)
}

#[tokio::test]
async fn framing() {
    family("framing", async |_| {
        let chunked = "2\r\n{}\r\n0\r\n\r\n";
        let refused = Refused::With(400, "bad-request");
        let by_parser = Refused::ByParser(400);
        [
            ("chunks, then a length", login("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", chunked), refused),
            ("a length, then chunks", login("Content-Length: 12\r\nTransfer-Encoding: chunked\r\n", chunked), refused),
            ("in other letters", login("CONTENT-length: 12\r\ntransfer-ENCODING: chunked\r\n", chunked), refused),
            ("not only chunked", login("Transfer-Encoding: gzip, chunked\r\n", chunked), refused),
            (
                "chunked twice",
                login("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked),
                Refused::With(400, "invalid-parameter"),
            ),
            ("chunked in the middle", login("Transfer-Encoding: chunked, identity\r\n", chunked), by_parser),
            ("an unknown coding", login("Transfer-Encoding: xchunked\r\n", chunked), by_parser),
            ("a space before the colon", login("Transfer-Encoding : chunked\r\n", chunked), by_parser),
            ("chunks in HTTP/1.0", login("Transfer-Encoding: chunked\r\n", chunked).replace("1.1", "1.0"), by_parser),
            ("two lengths", login("Content-Length: 2\r\nContent-Length: 3\r\n", "{} "), by_parser),
            ("two lengths in one", login("Content-Length: 2, 3\r\n", "{} "), by_parser),
            ("a negative length", login("Content-Length: -2\r\n", "{}"), by_parser),
            ("a length with a sign", login("Content-Length: +2\r\n", "{}"), by_parser),
            ("a length in hexadecimal", login("Content-Length: 0x2\r\n", "{}"), by_parser),
            ("an empty length", login("Content-Length: \r\n", "{}"), by_parser),
            ("a length of 2^64", login("Content-Length: 18446744073709551616\r\n", "{}"), by_parser),
            ("a chunk without a size", login("Transfer-Encoding: chunked\r\n", "\r\n{}\r\n0\r\n\r\n"), refused),
            ("a size that is no number", login("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), refused),
            ("a negative size", login("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n"), refused),
            ("a size of 2^68", login("Transfer-Encoding: chunked\r\n", "100000000000000000\r\n{}\r\n"), refused),
            (
                "a chunk that is longer than it says",
                login("Transfer-Encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n"),
                refused,
            ),
        ]
        .map(|(name, request, expected)| Case::raw(name, request, expected))
        .into()
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_none() {
    family("requests that are none", async |_| {
        let get = |headers: &str| http(&format!("GET {TASKS}"), headers, "");
        let by_parser = Refused::ByParser(400);
        [
            ("no HTTP", "hello\r\n\r\n".to_owned(), by_parser),
            ("HTTP/0.9", format!("GET {TASKS}\r\n\r\n"), by_parser),
            ("HTTP/3.0", get("").replace("HTTP/1.1", "HTTP/3.0"), by_parser),
            ("a method that is none", get("").replace("GET", "GE T"), by_parser),
            ("NUL in the path", get("").replace("tasks", "ta\0sks"), by_parser),
            ("a space in the path", get("").replace("tasks", "ta sks"), by_parser),
            ("a header without a colon", get("Accept\r\n"), by_parser),
            ("a header without a name", get(": x\r\n"), by_parser),
            ("NUL in a header", get("Accept: a\0b\r\n"), by_parser),
            ("a line of its own in a header", get("Accept: a\r\n b\r\n"), by_parser),
            ("a carriage return in a header", get("Accept: a\rb\r\n"), by_parser),
            ("500 headers", get(&"X: y\r\n".repeat(500)), Refused::ByParser(431)),
            ("200 KB of headers", get(&format!("X: {}\r\n", "y".repeat(200_000))), Refused::ByParser(431)),
            (
                "no host",
                format!("GET {TASKS} HTTP/1.1\r\nConnection: close\r\n\r\n"),
                Refused::With(400, "invalid-parameter"),
            ),
            ("two hosts", get("Host: y\r\n"), Refused::With(400, "invalid-parameter")),
            (
                "100 KB of address",
                get("").replace(TASKS, &format!("{TASKS}?q={}", "x".repeat(100_000))),
                Refused::ByParser(414),
            ),
            (
                "9 KB of address",
                get("").replace(TASKS, &format!("{TASKS}?q={}", "x".repeat(9_000))),
                Refused::With(414, "uri-too-long"),
            ),
            (
                "64 KB in a header",
                get(&format!("X: {}\r\n", "y".repeat(64_000))),
                Refused::With(431, "headers-too-large"),
            ),
            (
                "33 KB in many headers",
                get(&format!("X: {}\r\n", "y".repeat(3_300)).repeat(10)),
                Refused::With(431, "headers-too-large"),
            ),
        ]
        .map(|(name, request, expected)| Case::raw(name, request, expected))
        .into()
    })
    .await;
}

/// 1 GiB of zeros as 1 MiB would be: nobody unpacks it.
fn bomb() -> Vec<u8> {
    // ten bytes of a gzip header, a block that never ends
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    bytes.resize(1 << 20, 0);
    bytes
}

#[tokio::test]
async fn methods_paths_and_encodings() {
    family("methods, paths and encodings", async |target| {
        let request = |method: &str, path: &str| target.account.request(method, path);
        let mut cases = Vec::new();
        for (method, path) in [
            ("TRACE", TASKS),
            ("TRACE", LOGIN),
            ("OPTIONS", TASKS),
            ("PUT", TASKS),
            ("BREW", TASKS),
            ("GET", LOGIN),
            ("DELETE", "/api/v1/stats"),
            ("POST", "/livez"),
            ("POST", "/.well-known/jwks.json"),
        ] {
            cases.push(Case::new(format!("{method} {path}"), request(method, path), 405, "method-not-allowed"));
        }
        for (method, path) in [
            ("TRACE", "/nowhere"),
            ("GET", "//api/v1/tasks"),
            ("GET", "/api/v1/tasks/"),
            ("GET", "/api/v1/../v1/tasks/x/y"),
            ("GET", "/API/V1/TASKS"),
            ("GET", "/api/v1/tasks%2F"),
        ] {
            cases.push(Case::new(format!("{method} {path}"), request(method, path), 404, "not-found"));
        }
        for id in ["%00", "%00%00", "a%00b", "%ff", "..%2f..", "x%0d%0aSet-Cookie:%20a=b"] {
            for method in ["GET", "PATCH", "DELETE"] {
                let bad = request(method, &format!("{TASKS}/{id}")).body("application/json", "{}");
                cases.push(Case::new(format!("{method} {TASKS}/{id}"), bad, 400, "invalid-parameter"));
            }
        }
        for encoding in ["gzip", "br", "zstd", "deflate", "GZIP", "gzip, identity", "x"] {
            let bad = request("POST", TASKS).header("Content-Encoding", encoding).body("application/json", bomb());
            cases.push(Case::new(format!("encoded by {encoding}"), bad, 415, "unsupported-content-encoding"));
        }
        cases
    })
    .await;
}

/// What takes its time takes it side by side.
#[tokio::test]
async fn slow_ones() {
    let target = target().await;
    let Target { api, account, .. } = &target;
    let tasks = || async { account.read(TASKS).await.expect(200).json()["items"].as_array().expect("items").len() };
    assert_eq!(tasks().await, 0);
    let authority = api.authority();
    let silent = async {
        // no part of a request: nothing to answer
        let answer = exchange(authority, b"", Duration::from_millis(ANSWER_MS_MAX)).await;
        assert_eq!(answer, "");
    };
    let head = async {
        let half = format!("GET {TASKS} HTTP/1.1\r\nHost: x\r\nX-Half: a");
        let answer = exchange(authority, half.as_bytes(), Duration::from_millis(ANSWER_MS_MAX)).await;
        refused(&answer, 408, "request-too-slow");
    };
    let dripping_head = async {
        let answer = drip(authority, &format!("GET {TASKS} HTTP/1.1\r\nHost: x\r\n"), "X: y\r\n").await;
        refused(&answer, 408, "request-too-slow");
    };
    let create = format!(
        "POST {TASKS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"title\":\"slow\"",
        account.token
    );
    let body = async {
        let answer = exchange(authority, create.as_bytes(), Duration::from_millis(ANSWER_MS_MAX)).await;
        refused(&answer, 408, "body-too-slow");
    };
    let dripping_body = async {
        let answer = drip(authority, &create, " ").await;
        refused(&answer, 408, "body-too-slow");
    };
    tokio::join!(silent, head, dripping_head, body, dripping_body);
    assert_eq!(tasks().await, 0, "nothing was stored");
}

/// Sends a piece every half second until there is an answer; gives the answer.
async fn drip(authority: &str, first: &str, piece: &str) -> String {
    let (mut read, mut write) = TcpStream::connect(authority).await.expect("connects").into_split();
    write.write_all(first.as_bytes()).await.expect("sends");
    let dripping = async {
        let mut tick = interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if write.write_all(piece.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    let reading = timeout(Duration::from_millis(ANSWER_MS_MAX), read.read_to_end(&mut answer));
    tokio::select! {
        read = reading => { read.expect("in time").expect("reads"); }
        () = dripping => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn refused(answer: &str, expected: u16, code: &str) {
    assert_eq!(status(answer), expected, "{answer}");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(problem["code"], code, "{answer}");
}

/// Streams over HTTP/2, side by side too.
#[tokio::test]
async fn streams_over_http2() {
    let target = target().await;
    let (closed, ended) = (target.api.account().await, target.api.account().await);
    tokio::join!(dropped_where_no_window_is_opened(&closed), ended_over_http2_with_its_session(&ended));
}

/// A client of HTTP/2 that gives each answer so much of a window, and a stream of the account over it.
async fn http2_stream(account: &Account, window_bytes: u32) -> (h2::client::SendRequest<Bytes>, h2::RecvStream) {
    let socket = TcpStream::connect(account.api.authority()).await.expect("connects");
    let handshake = h2::client::Builder::new().initial_window_size(window_bytes).handshake(socket);
    let (client, connection) = handshake.await.expect("speaks HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let request = axum::http::Request::get(format!("http://x{STREAM}"));
    let request = request.header("authorization", format!("Bearer {}", account.token)).body(()).expect("a request");
    let answer = client.send_request(request, true).expect("sends").0.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    (client, answer.into_body())
}

/// They give up the account's places.
async fn dropped_where_no_window_is_opened(account: &Account) {
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(http2_stream(account, 0).await);
    }
    assert_eq!(account.stream(None).await.status, 429);
    until("a place is free", Duration::from_secs(120), || async {
        (account.stream(None).await.status == 200).then_some(())
    })
    .await;
    drop(streams);
}

async fn ended_over_http2_with_its_session(account: &Account) {
    let (_client, mut stream) = http2_stream(account, 1 << 20).await;
    let first = timeout(Duration::from_millis(ANSWER_MS_MAX), stream.data()).await.expect("in time");
    assert!(first.expect("something").expect("data").starts_with(b"id: "));
    account.request("POST", "/api/v1/auth/logout").send().await.expect(204);
    let rest = async {
        while let Some(data) = stream.data().await {
            // in order: not by a reset, not with the connection
            data.expect("data");
        }
    };
    timeout(Duration::from_millis(ANSWER_MS_MAX), rest).await.expect("it ends with the session");
}

/// HTTP/2 rapid reset (CVE-2023-44487): the connection ends, the server does not.
#[tokio::test]
async fn rapid_reset() {
    const REQUESTS_MAX: u32 = 50_000;
    let target = target().await;
    let stream = TcpStream::connect(target.api.authority()).await.expect("connects");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let mut sent = 0;
    let attack = async {
        while sent < REQUESTS_MAX {
            let request = axum::http::Request::builder().method(Method::GET).uri(format!("http://x{TASKS}"));
            let request = request.header("authorization", format!("Bearer {}", target.account.token)).body(());
            let Ok(ready) = client.ready().await else { return };
            client = ready;
            let Ok((_, mut stream)) = client.send_request(request.expect("a request"), true) else { return };
            stream.send_reset(h2::Reason::CANCEL);
            sent += 1;
            // so that each is sent by itself
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_millis(ANSWER_MS_MAX), attack).await.expect("in time");
    assert!(sent < REQUESTS_MAX, "never cut off");
    let _ = timeout(Duration::from_millis(ANSWER_MS_MAX), connection).await.expect("in time").expect("no panic");
    assert_eq!(target.account.request("GET", TASKS).send().await.status, 200);
}
