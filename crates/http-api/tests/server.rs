//! The edge and the server over a real socket, spoken to in plain bytes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body as RequestBody;
use axum::extract::{Path, Request};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use http_api::body::{FileBody, JsonBody};
use http_api::edge::{self, Edge};
use http_api::problem::Problem;
use http_api::refuse;
use http_server::{Listener, Tls, serve};
use process::context::RequestContext;
use serde::Deserialize;
use settings::Source;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// More than the socket buffers of both ends hold.
const LARGE_BYTES: usize = 32 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[expect(dead_code, reason = "only read by serde")]
    title: String,
}

struct Server {
    address: SocketAddr,
    /// One more for each live stream.
    held: Arc<()>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Server {
    start_with(Edge::default()).await
}

async fn start_with(edge: Edge) -> Server {
    start_listener(edge, None).await
}

async fn start_listener(edge: Edge, tls: Option<Tls>) -> Server {
    let long = "{\"text\":\"".to_owned() + &"abc ".repeat(1000) + "\"}";
    let json = |etag: &'static str, content_type: &'static str, text: String| {
        get(move || async move {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            if !etag.is_empty() {
                headers.insert(ETAG, HeaderValue::from_static(etag));
            }
            (headers, text).into_response()
        })
    };
    let holding = Arc::new(());
    let held = holding.clone();
    let router = Router::new()
        .route("/tasks", get(|| async { "plain" }).post(|JsonBody(..): JsonBody<Body>| async { "taken" }))
        .route("/number/{n}", get(|Path(_): Path<u32>| async { "number" }))
        .route("/trace", get(|| async { RequestContext::current().traceparent() }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a secret detail")
                }
            }),
        )
        .route("/weak", json("W/\"1\"", "application/json", long.clone()))
        .route("/strong", json("\"1\"", "application/json", long.clone()))
        .route("/events", json("", "text/event-stream", long))
        .route("/short", json("", "application/json", "{}".into()))
        .route("/page", json("", "text/html; charset=utf-8", "<p>".into()))
        .route(
            "/live",
            get(move || async move {
                let every = tokio::time::interval(Duration::from_secs(15));
                RequestBody::from_stream(stream::unfold((every, held), |(mut every, held)| async {
                    every.tick().await;
                    Some((Ok::<_, Infallible>(":\n\n"), (every, held)))
                }))
            }),
        )
        .route("/large", get(|| async { vec![b'x'; LARGE_BYTES] }))
        .route("/file", post(file))
        .route("/longer", post(|| async { tokio::time::sleep(Duration::from_secs(11)).await }))
        .route("/slow", post(|| async { tokio::time::sleep(Duration::from_millis(300)).await }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(Listener::new(listener, tls), edge::edge(router, edge), refuse, shutdown.clone()));
    Server { address, held: holding, shutdown, task }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], format!("/problems/{}", problem["code"].as_str().expect("a code")));
        let trace_id = problem["trace_id"].as_str().expect("a trace id");
        assert!(trace_id.len() == 32 && trace_id.bytes().any(|b| b != b'0'), "{trace_id}");
        problem
    }
}

impl Server {
    /// One request on a connection of its own; the answer to its end.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(request.as_ref()).await.expect("sends");
        read_answer(&mut stream).await
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
    }

    async fn post(&self, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(format!(
            "POST /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
    }
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .expect("in time")
        .expect("reads");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

#[tokio::test]
async fn every_answer_has_the_headers_of_the_contract() {
    let server = start().await;
    for path in ["/tasks", "/nowhere", "/panic"] {
        let answer = server.get(path, "X-Request-Id: my-id\r\n").await;
        assert_eq!(answer.header("x-request-id"), Some("my-id"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    let replaced = server.get("/tasks", "X-Request-Id: not one\r\n").await;
    assert_eq!(replaced.header("x-request-id").map(str::len), Some(32));
    assert!(server.get("/page", "").await.header("content-security-policy").is_some());
    let traced = server.get("/trace", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n").await;
    assert!(traced.body.starts_with(b"00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{:?}", traced.body);
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let server = start().await;
    let json = "Content-Type: application/json\r\n";
    let good = "{\"title\":\"a\"}";
    assert_eq!(server.post(json, good).await.status, 200);
    let long_uri = format!("/tasks?{}", "q".repeat(9000));
    let long_header = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let cases = [
        ("unknown path", server.get("/nowhere", "").await, 404, "not-found"),
        ("unreadable path", server.get("/number/x", "").await, 400, "bad-request"),
        ("long address", server.get(&long_uri, "").await, 414, "uri-too-long"),
        ("long headers", server.get("/tasks", &long_header).await, 431, "headers-too-large"),
        ("no host", server.raw("GET /tasks HTTP/1.1\r\nConnection: close\r\n\r\n").await, 400, "invalid-parameter"),
        ("two hosts", server.get("/tasks", "Host: y\r\n").await, 400, "invalid-parameter"),
        ("no media type", server.post("", good).await, 415, "unsupported-media-type"),
        ("other media type", server.post("Content-Type: text/json\r\n", good).await, 415, "unsupported-media-type"),
        (
            "encoded",
            server.post(&format!("{json}Content-Encoding: gzip\r\n"), good).await,
            415,
            "unsupported-content-encoding",
        ),
        ("broken JSON", server.post(json, "{").await, 400, "malformed-body"),
        ("missing field", server.post(json, "{}").await, 422, "invalid-fields"),
        ("panic", server.get("/panic", "").await, 500, "internal"),
        (
            "trace method",
            server.raw("TRACE /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await,
            405,
            "method-not-allowed",
        ),
    ];
    for (what, answer, status, code) in cases {
        assert_eq!(answer.status, status, "{what}: {}", answer.head);
        assert_eq!(answer.problem()["code"], code, "{what}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{what}");
    }
    assert_eq!(server.post(&format!("{json}Content-Encoding: identity\r\n"), good).await.status, 200);
}

#[tokio::test]
async fn a_405_lists_what_is_allowed() {
    let server = start().await;
    let answer = server.raw("DELETE /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD,POST")));
    assert_eq!(answer.problem()["code"], "method-not-allowed");
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_its_answer_though_the_client_sends_all_of_it() {
    let server = start().await;
    let body = "x".repeat(3 << 20);
    for headers in ["Content-Type: application/json\r\n", "Content-Type: text/plain\r\n"] {
        let answer = server.post(headers, &body).await;
        assert!([413, 415].contains(&answer.status), "{}", answer.head);
        answer.problem();
    }
    // chunked, so that nothing is announced
    let mut request = b"POST /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
                        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for _ in 0..40 {
        request.extend_from_slice(b"10000\r\n");
        request.extend_from_slice(&[b'x'; 1 << 16]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = server.raw(request).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.problem()["code"], "body-too-large");
}

#[tokio::test]
async fn the_end_of_a_connection_whose_body_is_not_read_is_announced() {
    let server = start().await;
    for (bytes, content_type, status, connection) in [
        (100, "text/plain", 415, None),
        (1 << 20, "text/plain", 415, Some("close")),
        (1 << 20, "application/json", 400, None),
    ] {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let head = format!(
            "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sends");
        stream.write_all(&vec![b'x'; bytes]).await.expect("sends");
        // not before: hyper takes the end of what a client sends for the end of the client
        stream.peek(&mut [0]).await.expect("an answer");
        stream.shutdown().await.expect("ends");
        let answer = read_answer(&mut stream).await;
        assert_eq!((answer.status, answer.header("connection")), (status, connection), "{bytes} of {content_type}");
    }
}

#[tokio::test]
async fn compression_is_negotiated_and_never_touches_a_strong_etag_or_a_stream() {
    let server = start().await;
    let encoding = async |path: &str, accept: &str| {
        let answer = server.get(path, &format!("Accept-Encoding: {accept}\r\n")).await;
        assert_eq!(answer.status, 200);
        answer.header("content-encoding").map(str::to_owned)
    };
    assert_eq!(encoding("/weak", "gzip").await.as_deref(), Some("gzip"));
    assert_eq!(encoding("/weak", "br").await.as_deref(), Some("br"));
    assert_eq!(encoding("/weak", "zstd").await.as_deref(), Some("zstd"));
    assert_eq!(encoding("/weak", "identity").await, None);
    assert_eq!(encoding("/weak", "identity;q=0, x-other").await, None);
    assert_eq!(encoding("/strong", "gzip").await, None);
    assert_eq!(encoding("/events", "gzip").await, None);
    assert_eq!(encoding("/short", "gzip").await, None);

    let plain = server.get("/weak", "").await;
    let compressed = server.get("/weak", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((plain.header("vary"), compressed.header("vary")), (Some("accept-encoding"), Some("accept-encoding")));
    assert!(compressed.body.len() < plain.body.len() / 4);
    assert_eq!(plain.header("etag"), compressed.header("etag"));
}

#[tokio::test]
async fn cors_is_off_unless_configured() {
    let preflight = "OPTIONS /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://a.example\r\n\
                     Access-Control-Request-Method: POST\r\n\r\n";
    let off = start().await;
    assert_eq!(off.raw(preflight).await.status, 405);
    assert_eq!(off.get("/tasks", "Origin: https://a.example\r\n").await.header("access-control-allow-origin"), None);

    let on = start_with(Edge { cors_origins: vec!["https://a.example".into()], ..Edge::default() }).await;
    let answer = on.raw(preflight).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("https://a.example")));
    assert!(answer.header("access-control-allow-headers").is_some_and(|headers| headers.contains("if-match")));
    let answer = on.get("/nowhere", "Origin: https://a.example\r\n").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "for the session cookie");
    assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")));
    let other = on.get("/tasks", "Origin: https://b.example\r\n").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!(other.header("access-control-allow-credentials"), None);

    let any = start_with(Edge { cors_origins: vec!["*".into()], ..Edge::default() }).await;
    let answer = any.get("/tasks", "Origin: https://a.example\r\n").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None, "no page of anybody's uses the cookie");
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_closes_idle_connections_at_once() {
    let server = start().await;
    let mut idle = TcpStream::connect(server.address).await.expect("connects");
    idle.write_all(b"GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("answers");
    assert_eq!(&first, b"HTTP/1.1 200");

    let mut busy = TcpStream::connect(server.address).await.expect("connects");
    busy.write_all(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.expect("sends");
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown.cancel();
    let answer = read_answer(&mut busy).await;
    assert_eq!(answer.status, 200);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await.expect("closed").expect("cleanly");
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .expect("stops")
        .expect("no panic")
        .expect("no error");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn chunks_beside_a_length_are_refused_and_the_connection_ends() {
    let server = start().await;
    let json = "Host: x\r\nContent-Type: application/json\r\n";
    let chunked = "e\r\n{\"title\": \"a\"}\r\n0\r\n\r\n";
    let good =
        format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunked}");
    assert_eq!(server.raw(&good).await.status, 200);
    // the connection is not told to close, and closes; whatever comes after is never looked at
    let smuggled = "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n";
    for both in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 24\r\n",
    ] {
        let answer = server.raw(format!("POST /tasks HTTP/1.1\r\n{json}{both}\r\n{chunked}{smuggled}")).await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{both}");
        assert_eq!(answer.problem()["code"], "bad-request");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(!String::from_utf8_lossy(&answer.body).contains("HTTP/1.1"), "{both}");
    }
    // after another request on the same connection it is seen as well
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    for _ in 0..3 {
        stream
            .write_all(format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n{chunked}").as_bytes())
            .await
            .expect("sends");
        read_until(&mut stream, b"taken").await;
    }
    stream
        .write_all(
            format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}")
                .as_bytes(),
        )
        .await
        .expect("sends");
    assert_eq!(read_answer(&mut stream).await.status, 400);
    // also where the second request begins behind the first one, and the rest of it looks like a whole one
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let behind = "GET /tasks HTTP/1.1\r\nHost: x\r\n\r\nPOST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX: ";
    stream.write_all(behind.as_bytes()).await.expect("sends");
    read_until(&mut stream, b"plain").await;
    let rest = "POST /tasks HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{rest}{chunked}").as_bytes()).await.expect("sends");
    let answer = read_answer(&mut stream).await;
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    // two lengths, and what is no chunk
    for bad in [
        format!("POST /tasks HTTP/1.1\r\n{json}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
        format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("POST /tasks HTTP/1.0\r\n{json}Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        format!("POST /tasks HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"),
    ] {
        assert_eq!(server.raw(&bad).await.status, 400, "{bad}");
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let read = stream.read_buf(&mut bytes);
        let count = tokio::time::timeout(Duration::from_secs(20), read).await.expect("in time").expect("reads");
        assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
    }
}

/// A client of HTTP/2 without TLS, and what drives its connection.
async fn h2_client(server: &Server) -> (h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(server.address).await.expect("connects");
    let (client, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
    (client, tokio::spawn(connection))
}

fn h2_request(method: &str, path: &str) -> axum::http::Request<()> {
    let request = axum::http::Request::builder().method(method).uri(format!("http://x{path}"));
    request.header("content-type", "application/json").body(()).expect("a request")
}

async fn h2_body(response: axum::http::Response<h2::RecvStream>) -> Vec<u8> {
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("released");
        bytes.extend_from_slice(&data);
    }
    bytes
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_answered_like_http1() {
    let server = start().await;
    let (client, connection) = h2_client(&server).await;
    let mut client = client.ready().await.expect("ready");
    let (answer, mut body) = client.send_request(h2_request("POST", "/tasks"), false).expect("sends");
    body.send_data(Bytes::from_static(b"{\"title\":\"a\"}"), true).expect("sends");
    let answer = answer.await.expect("an answer");
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(h2_body(answer).await, b"taken");

    let (answer, _) = client.send_request(h2_request("GET", "/nowhere"), true).expect("sends");
    let answer = answer.await.expect("an answer");
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (StatusCode::NOT_FOUND, &HeaderValue::from_static("application/problem+json"))
    );
    h2_body(answer).await;

    // many at once, and a large one among them
    let (large, _) = client.send_request(h2_request("GET", "/large"), true).expect("sends");
    for _ in 0..20 {
        client = client.ready().await.expect("ready");
        let (answer, _) = client.send_request(h2_request("GET", "/tasks"), true).expect("sends");
        assert_eq!(answer.await.expect("an answer").status(), StatusCode::OK);
    }
    assert_eq!(h2_body(large.await.expect("an answer")).await.len(), LARGE_BYTES);

    // the end: what is being answered is answered, then the connection closes
    client = client.ready().await.expect("ready");
    let (slow, _) = client.send_request(h2_request("POST", "/slow"), true).expect("sends");
    // answered after it: so the slow one has arrived
    let (quick, _) = client.send_request(h2_request("GET", "/tasks"), true).expect("sends");
    assert_eq!(quick.await.expect("an answer").status(), StatusCode::OK);
    server.shutdown.cancel();
    assert_eq!(slow.await.expect("an answer").status(), StatusCode::OK);
    drop(client);
    tokio::time::timeout(Duration::from_secs(20), connection)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("closed");
    tokio::time::timeout(Duration::from_secs(20), server.task)
        .await
        .expect("stops")
        .expect("no panic")
        .expect("no error");
}

#[tokio::test]
async fn large_headers_over_http2_are_refused() {
    let server = start().await;
    let (client, _connection) = h2_client(&server).await;
    for (bytes, status) in [(20_000, 200), (40_000, 431), (66_000, 431)] {
        let mut client = client.clone().ready().await.expect("ready");
        let mut request = h2_request("GET", "/tasks");
        request.headers_mut().insert("x-long", HeaderValue::from_str(&"x".repeat(bytes)).expect("a value"));
        let (answer, _) = client.send_request(request, true).expect("sends");
        assert_eq!(answer.await.expect("an answer").status(), status, "{bytes}");
    }
}

/// CVE-2023-44487: requests that are broken off as soon as they are made.
#[tokio::test]
async fn who_only_breaks_requests_off_is_cut_off() {
    let server = start().await;
    let (client, connection) = h2_client(&server).await;
    let mut sent = 0_u32;
    let attack = async {
        let mut client = client;
        while sent < 20_000 {
            let Ok(ready) = client.ready().await else { return };
            client = ready;
            let Ok((answer, mut stream)) = client.send_request(h2_request("POST", "/longer"), true) else { return };
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
            sent += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), attack).await.expect("in time");
    assert!(sent < 20_000, "never cut off");
    let ended = tokio::time::timeout(Duration::from_secs(20), connection).await.expect("in time").expect("no panic");
    ended.expect_err("the connection was cut off");
    // and others go on
    assert_eq!(server.get("/tasks", "").await.status, 200);
}

/// The same by who waits until they are being answered.
#[tokio::test]
async fn who_breaks_off_what_is_being_answered_is_cut_off_too() {
    let server = start().await;
    let (client, connection) = h2_client(&server).await;
    let mut rounds = 0;
    let attack = async {
        let mut client = client;
        while rounds < 100 {
            let mut streams = Vec::new();
            for _ in 0..50 {
                let Ok(ready) = client.ready().await else { return };
                client = ready;
                let Ok(sent) = client.send_request(h2_request("POST", "/longer"), true) else { return };
                streams.push(sent);
            }
            let Ok(ready) = client.ready().await else { return };
            client = ready;
            let Ok((answer, _)) = client.send_request(h2_request("GET", "/tasks"), true) else { return };
            if answer.await.is_err() {
                return;
            }
            for (_, stream) in &mut streams {
                stream.send_reset(h2::Reason::CANCEL);
            }
            rounds += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), attack).await.expect("in time");
    assert!(rounds < 100, "never cut off");
    // with an error or without: it is over
    let _ = tokio::time::timeout(Duration::from_secs(20), connection).await.expect("in time").expect("no panic");
    assert_eq!(server.get("/tasks", "").await.status, 200);
}

#[tokio::test]
async fn tls_with_http2_or_http1_and_strict_transport_security() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let dir = std::env::temp_dir().join(format!("http-api-tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&dir).expect("a folder");
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert_file, made.cert.pem()).expect("writes");
    std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("writes");
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let file = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let source = |cert: String, key: String| {
        Source::from_pairs([("PRIMETRADE_TLS_CERT_FILE", cert), ("PRIMETRADE_TLS_KEY_FILE", key)])
    };
    // what is missing or no good is told by its name
    for (cert, key, named) in [
        (file(&cert_file), String::new(), "PRIMETRADE_TLS_KEY_FILE"),
        (String::new(), file(&key_file), "PRIMETRADE_TLS_CERT_FILE"),
        (file(&key_file), file(&key_file), "PRIMETRADE_TLS_CERT_FILE"),
        (file(&cert_file), file(&cert_file), "PRIMETRADE_TLS_KEY_FILE"),
        (file(&dir.join("missing")), file(&key_file), "PRIMETRADE_TLS_CERT_FILE"),
    ] {
        let error = Tls::read(&source(cert, key)).expect_err(named).to_string();
        assert!(error.starts_with(named), "{error}");
    }
    let tls = Tls::read(&source(file(&cert_file), file(&key_file))).expect("good").expect("configured");
    std::fs::remove_dir_all(&dir).expect("removes");

    let server = start_listener(Edge::default(), Some(tls)).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = |http1: bool| {
        let authority = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("a certificate");
        let address = server.address;
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).resolve("localhost", address);
        let builder = if http1 { builder.http1_only() } else { builder };
        builder.build().expect("a client")
    };
    let url = format!("https://localhost:{}/tasks", server.address.port());
    let answer = client(true).get(&url).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    // by the same library as without TLS: what ALPN agrees on decides
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await.expect("connects");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream);
    let (client, connection) = h2::client::handshake(stream.await.expect("TLS")).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let (answer, _) = client.send_request(h2_request("GET", "/tasks"), true).expect("sends");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert_eq!(h2_body(answer).await, b"plain");

    // who speaks without TLS is not answered
    let mut plain = TcpStream::connect(server.address).await.expect("connects");
    plain.write_all(b"GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut bytes)).await.expect("closed");
    assert!(!bytes.starts_with(b"HTTP/"), "{bytes:?}");
}

/// All at once, since each takes its ten seconds.
#[tokio::test]
async fn a_connection_that_sends_no_headers_ends_after_10_s_and_one_that_is_being_answered_does_not() {
    let server = start().await;
    let closed_after = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        stream.write_all(bytes).await.expect("sends");
        let began = std::time::Instant::now();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest))
            .await
            .expect("closed")
            .expect("reads");
        (began.elapsed().as_secs(), rest)
    };
    let (_client, http2) = h2_client(&server).await;
    let longer = async {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let request = b"POST /longer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        // not in one with the connection: its ten seconds begin anew with each answer
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.write_all(request).await.expect("sends");
        read_answer(&mut stream).await.status
    };
    let (nothing, half, longer) =
        tokio::join!(closed_after(b""), closed_after(b"GET /tasks HTTP/1.1\r\nHost:"), longer);
    for (what, after_s) in [("nothing", nothing.0), ("half", half.0)] {
        assert!((9..20).contains(&after_s), "{what}: {after_s} s");
    }
    assert_eq!(nothing.1, b"");
    let answer = String::from_utf8(half.1).expect("ASCII");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with('}'), "{answer}");
    assert!(answer.contains("\"code\":\"request-too-slow\"") && answer.contains("connection: close"), "{answer}");
    // HTTP/2 says goodbye
    let ended = tokio::time::timeout(Duration::from_secs(20), http2).await.expect("closed").expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(longer, 200);
}

/// Waits by the machine's clock. Meanwhile the runtime has something to do, so that its own clock, once it is stopped,
/// moves only by `advance`, and not whenever a socket is waited for.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let (began, mut what) = (std::time::Instant::now(), pin!(what));
    poll_fn(|cx| {
        let polled = what.as_mut().poll(cx);
        if polled.is_pending() {
            assert!(began.elapsed() < Duration::from_secs(60), "in time");
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

async fn pass_s(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// Bytes of the file that comes.
static FILE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Says how long the file is.
async fn file(request: Request) -> Result<String, Problem> {
    let mut body = FileBody::of(request, u64::MAX).await?;
    let count = |part: Bytes| {
        FILE_BYTES.fetch_add(part.len(), Ordering::Relaxed);
        std::future::ready(Ok(()))
    };
    body.parts().try_for_each(count).await?;
    Ok(FILE_BYTES.load(Ordering::Relaxed).to_string())
}

#[tokio::test]
async fn a_file_may_take_as_long_as_64_kib_come_each_second() {
    const LENGTH: usize = 100 * (65 << 10);
    tokio::time::pause();
    let server = soon(start()).await;
    let begin = async || {
        FILE_BYTES.store(0, Ordering::Relaxed);
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let head = format!("POST /file HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sends");
        stream
    };
    let send = async |stream: &mut TcpStream, bytes: usize, seconds: usize| {
        for second in 1..=seconds {
            soon(stream.write_all(&vec![b'x'; bytes])).await.expect("sends");
            soon(async {
                while FILE_BYTES.load(Ordering::Relaxed) < second * bytes {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            pass_s(1).await;
        }
    };
    let mut fast = soon(begin()).await;
    send(&mut fast, 65 << 10, 100).await;
    soon(read_until(&mut fast, LENGTH.to_string().as_bytes())).await;
    let mut slow = soon(begin()).await;
    send(&mut slow, 60 << 10, 30).await;
    pass_s(1).await;
    let mut answer = Vec::new();
    soon(async {
        while !answer.ends_with(b"}") {
            assert!(slow.read_buf(&mut answer).await.expect("reads") > 0, "{}", String::from_utf8_lossy(&answer));
        }
    })
    .await;
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"body-too-slow\""), "{answer}");
}

#[tokio::test]
async fn between_requests_a_connection_may_be_idle_for_a_minute() {
    tokio::time::pause();
    let server = soon(start()).await;
    let ask = b"GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n";
    let asked = async |stream: &mut TcpStream| {
        stream.write_all(ask).await.expect("sends");
        read_until(stream, b"plain").await;
    };
    let connect = async || TcpStream::connect(server.address).await.expect("connects");
    let (mut idle, mut slow) = (soon(connect()).await, soon(connect()).await);
    soon(asked(&mut idle)).await;
    soon(asked(&mut slow)).await;
    // a head that has begun has ten seconds, as the first one; it is looked every ten
    soon(slow.write_all(&ask[..20])).await.expect("sends");
    for _ in 0..3 {
        soon(asked(&mut idle)).await;
        pass_s(10).await;
    }
    let mut answer = Vec::new();
    soon(slow.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    pass_s(45).await;
    soon(asked(&mut idle)).await;
    pass_s(61).await;
    let mut rest = Vec::new();
    soon(idle.read_to_end(&mut rest)).await.expect("closed");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_to_go_after_a_minute() {
    tokio::time::pause();
    let server = soon(start()).await;
    let stream = soon(TcpStream::connect(server.address)).await.expect("connects");
    let (client, mut connection) = soon(h2::client::handshake(stream)).await.expect("speaks HTTP/2");
    let mut pings = connection.ping_pong().expect("the first");
    let connection = tokio::spawn(connection);
    let mut client = soon(client.ready()).await.expect("ready");
    let (answer, _) = client.send_request(h2_request("GET", "/tasks"), true).expect("sends");
    assert_eq!(soon(h2_body(soon(answer).await.expect("an answer"))).await, b"plain");
    for _ in 0..6 {
        pass_s(9).await;
        soon(pings.ping(h2::Ping::opaque())).await.expect("it goes on");
    }
    pass_s(9).await;
    soon(connection).await.expect("no panic").expect("closed in order");
    drop(client);
}

/// A client whose answers have a window of so many bytes, which it never opens further by itself.
async fn narrow_client(
    server: &Server,
    window_bytes: u32,
) -> (h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(server.address).await.expect("connects");
    let builder = h2::client::Builder::new().initial_window_size(window_bytes).handshake(stream);
    let (client, connection) = builder.await.expect("speaks HTTP/2");
    (client, tokio::spawn(connection))
}

/// Until the connection ends; a request is answered every five seconds. For how many seconds it went on.
async fn ask_to_the_end(mut client: h2::client::SendRequest<Bytes>) -> u64 {
    for seconds in (0..).step_by(5) {
        let asked = async {
            client = client.clone().ready().await.ok()?;
            let (answer, _) = client.send_request(h2_request("GET", "/short"), true).ok()?;
            let answer = answer.await.ok()?;
            answer.into_body().data().await?.ok()
        };
        match soon(asked).await {
            Some(body) => assert_eq!(body, "{}"),
            None => return seconds,
        }
        assert!(seconds < 600, "never cut off");
        pass_s(5).await;
    }
    unreachable!("it ends")
}

#[tokio::test]
async fn who_opens_no_window_over_http2_is_disconnected_also_if_other_answers_are_taken() {
    tokio::time::pause();
    let server = soon(start()).await;
    for path in ["/large", "/weak", "/live"] {
        let (mut client, connection) = soon(narrow_client(&server, 2)).await;
        let (answer, _) = client.send_request(h2_request("GET", path), true).expect("sends");
        let answer = soon(answer).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let ended_s = ask_to_the_end(client).await;
        // a live stream gives something now and then; it is looked every ten seconds
        assert!((30..=60).contains(&ended_s), "{path}: {ended_s} s");
        let _ = soon(connection).await.expect("no panic");
        drop(answer);
    }
    // and nothing is kept
    soon(async {
        while Arc::strong_count(&server.held) > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_takes_an_answer_slowly_over_http2_gets_all_of_it() {
    tokio::time::pause();
    let server = soon(start()).await;
    let (client, _connection) = soon(h2_client(&server)).await;
    let mut client = soon(client.ready()).await.expect("ready");
    let (answer, _) = client.send_request(h2_request("GET", "/large"), true).expect("sends");
    let mut body = soon(answer).await.expect("an answer").into_body();
    let (mut bytes, mut taken) = (0, 0);
    while let Some(data) = soon(body.data()).await {
        let length = data.expect("data").len();
        bytes += length;
        taken += length;
        if taken >= 60_000 {
            pass_s(9).await;
            body.flow_control().release_capacity(taken).expect("released");
            taken = 0;
        }
    }
    assert_eq!(bytes, LARGE_BYTES);
}

/// Asks for the large answer and reads it in steps of half a second, with a pause after the first of them. Returns how
/// many bytes came, head included. The clock of these tests jumps to the next alarm whenever nothing is to be done.
async fn read_slowly(headers: &str, pause: Duration) -> usize {
    let server = start().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("sets");
    let mut stream = socket.connect(server.address).await.expect("connects");
    let request = format!("GET /large HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let (mut bytes, mut buffer) = (0, vec![0; 256 << 10]);
    let mut pause = Some(pause);
    loop {
        let mut step = 0;
        while step < buffer.len() {
            match stream.read(&mut buffer[step..]).await {
                Ok(0) | Err(_) => return bytes + step,
                Ok(count) => step += count,
            }
        }
        bytes += step;
        tokio::time::sleep(pause.take().unwrap_or(Duration::from_millis(500))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_in_full_however_slowly_it_is_read() {
    let began = tokio::time::Instant::now();
    let bytes = read_slowly("", Duration::from_secs(20)).await;
    assert!(bytes > LARGE_BYTES, "{bytes} of {LARGE_BYTES}");
    assert!(began.elapsed() > Duration::from_secs(60), "the pauses count: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_of_a_connection_is_given_in_full_too() {
    let bytes = read_slowly("Connection: close\r\n", Duration::from_secs(20)).await;
    assert!(bytes > LARGE_BYTES, "{bytes} of {LARGE_BYTES}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_disconnected() {
    let bytes = read_slowly("", Duration::from_secs(60)).await;
    assert!(bytes < LARGE_BYTES, "{bytes}");
}

#[tokio::test]
async fn a_route_that_takes_all_methods_counts_each_under_its_own_name() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let router = Router::new().route("/any", any(|| async { "done" }));
    let router: Router = edge::edge(router, Edge::default()).with_state(());
    for method in [Method::GET, Method::POST, Method::POST, Method::from_bytes(b"BREW").expect("a token")] {
        let request = Request::builder().method(method).uri("/any").body(RequestBody::empty()).expect("a request");
        assert_eq!(router.clone().oneshot(request).await.expect("never fails").status(), 200);
    }
    let rendered = recorder.handle().render();
    for (method, count) in [("GET", 1), ("POST", 2), ("other", 1)] {
        let line = format!(r#"http_requests_total{{method="{method}",route="/any",status="2xx"}} {count}"#);
        assert!(rendered.contains(&line), "{line} is not in:\n{rendered}");
    }
}
