//! "Which 4xx": one table for every route, and the bodies and sockets that no table can hold.

use std::time::Duration;

use crate::here::api;
use serde_json::json;
use system_tests::raw_http::{exchange, status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

#[tokio::test]
async fn without_a_good_token() {
    let api = api().await;
    let account = api.account().await;
    let id = Uuid::now_v7();
    let task = format!("{TASKS}/{id}");
    for (method, path) in [
        ("GET", TASKS.to_owned()),
        ("POST", TASKS.to_owned()),
        ("GET", task.clone()),
        ("PATCH", task.clone()),
        ("DELETE", task.clone()),
        ("POST", format!("{task}/start")),
        ("POST", format!("{task}/complete")),
        ("POST", format!("{task}/reopen")),
        ("POST", format!("{task}/cancel")),
        ("GET", format!("{task}/history")),
        ("POST", "/api/v1/commands".to_owned()),
        ("GET", "/api/v1/stats".to_owned()),
        ("GET", "/api/v1/stream".to_owned()),
        ("GET", "/api/v1/auth/me".to_owned()),
        ("POST", "/api/v1/auth/logout".to_owned()),
        ("GET", "/api/v1/auth/sessions".to_owned()),
        ("DELETE", format!("/api/v1/auth/sessions/{id}")),
        ("GET", "/api/v1/users".to_owned()),
        ("GET", "/api/v1/admin/projections".to_owned()),
        ("GET", "/api/v1/admin/parked".to_owned()),
    ] {
        let answer = api.request(method, &path).send().await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
        answer.problem(401);
        assert!(answer.must("WWW-Authenticate").starts_with("Bearer"), "{method} {path}");
        let mut forged = account.token.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'B' } else { 'A' });
        for bad in ["Bearer", "Bearer x.y.z", "Basic dTpw", &format!("Bearer {}x", account.token)] {
            let answer = api.request(method, &path).header("Authorization", bad).send().await;
            assert_eq!(answer.status, 401, "{method} {path} {bad}");
        }
    }
    let twice = account.request("GET", TASKS).header("Authorization", "Bearer x");
    twice.send().await.problem(400);
    // the scheme's name is compared without case
    let lower = api.get(TASKS).header("Authorization", &format!("bearer {}", account.token));
    lower.send().await.expect(200);
}

#[tokio::test]
async fn admins_only() {
    let account = api().await.account().await;
    for path in ["/api/v1/admin/projections", "/api/v1/admin/parked", "/api/v1/users"] {
        account.request("GET", path).send().await.problem(403);
    }
    let retry = format!("/api/v1/admin/parked/{}/retry", Uuid::now_v7());
    account.request("POST", &retry).send().await.problem(403);
}

#[tokio::test]
async fn paths_and_queries() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let unknown = Uuid::now_v7();
    for (method, path, status) in [
        ("GET", "/nowhere".to_owned(), 404),
        ("GET", "/api/v1/task".to_owned(), 404),
        ("GET", format!("{TASKS}/{unknown}"), 404),
        ("PATCH", format!("{TASKS}/{unknown}"), 404),
        ("DELETE", format!("{TASKS}/{unknown}"), 404),
        ("POST", format!("{TASKS}/{unknown}/start"), 404),
        ("POST", format!("{TASKS}/{unknown}/complete"), 404),
        ("POST", format!("{TASKS}/{unknown}/reopen"), 404),
        ("POST", format!("{TASKS}/{unknown}/cancel"), 404),
        ("GET", format!("{TASKS}/{unknown}/history"), 404),
        ("GET", format!("{TASKS}/{unknown}?as_of=2026-01-01T00:00:00Z"), 404),
        ("GET", format!("{TASKS}/not-a-uuid"), 400),
        ("GET", format!("{TASKS}/not-a-uuid/history"), 400),
        ("PATCH", format!("{TASKS}/not-a-uuid"), 400),
        ("DELETE", format!("{TASKS}/%00"), 400),
        ("POST", format!("{TASKS}/not-a-uuid/start"), 400),
        ("GET", format!("{TASKS}/{id}?as_of=yesterday"), 400),
        ("GET", format!("{TASKS}/{id}?as_of=2999-01-01T00:00:00Z"), 400),
        ("GET", format!("{TASKS}/{id}?at=2026-01-01T00:00:00Z"), 400),
        ("GET", format!("{TASKS}?limit=0"), 400),
        ("GET", format!("{TASKS}?limit=201"), 400),
        ("GET", format!("{TASKS}?limit=-1"), 400),
        ("GET", format!("{TASKS}?limit=ten"), 400),
        ("GET", format!("{TASKS}?limit=5&limit=5"), 400),
        ("GET", format!("{TASKS}?limits=5"), 400),
        ("GET", format!("{TASKS}?sort=name"), 400),
        ("GET", format!("{TASKS}?sort="), 400),
        ("GET", format!("{TASKS}?status=done"), 400),
        ("GET", format!("{TASKS}?status=pending,done"), 400),
        ("GET", format!("{TASKS}?priority=5"), 400),
        ("GET", format!("{TASKS}?due_before=monday"), 400),
        ("GET", format!("{TASKS}?cursor=made-up"), 400),
        ("GET", format!("{TASKS}?q={}", "x".repeat(201)), 400),
        ("GET", format!("{TASKS}?q=%00"), 400),
        ("GET", format!("{TASKS}?q=%ff"), 400),
        ("GET", format!("{TASKS}/{id}/history?limit=1000"), 400),
        ("GET", format!("{TASKS}/{id}/history?cursor=made-up"), 400),
        ("GET", "/api/v1/stats?from=2026-01-01T00:00:00Z".to_owned(), 400),
        ("GET", "/api/v1/stats?from=2026-02-30".to_owned(), 400),
        ("GET", "/api/v1/stats?from=2026-02-02&to=2026-02-01".to_owned(), 400),
        ("GET", "/api/v1/stats?from=2025-01-01&to=2026-01-02".to_owned(), 400),
        ("GET", "/api/v1/stats?since=2026-01-01".to_owned(), 400),
        ("GET", "/api/v1/stream?x=1".to_owned(), 400),
        ("POST", format!("{TASKS}?dry=1"), 400),
        ("POST", format!("{TASKS}/{id}/start?now=1"), 400),
    ] {
        let request = account.request(method, &path);
        let body = json!({"title": "x"});
        let posts_body = method == "PATCH" || path.starts_with(&format!("{TASKS}?dry"));
        let request = if posts_body { request.json(&body) } else { request };
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        answer.problem(status);
    }
}

#[tokio::test]
async fn methods() {
    let account = api().await.account().await;
    let task = format!("{TASKS}/{}", Uuid::now_v7());
    for (method, path, allowed) in [
        ("PUT", TASKS, vec!["GET", "POST"]),
        ("POST", &task, vec!["GET", "PATCH", "DELETE"]),
        ("GET", &format!("{task}/start"), vec!["POST"]),
        ("DELETE", "/api/v1/commands", vec!["POST"]),
        ("POST", "/api/v1/stats", vec!["GET"]),
        ("POST", "/.well-known/jwks.json", vec!["GET"]),
        ("GET", "/api/v1/auth/login", vec!["POST"]),
    ] {
        let answer = account.request(method, path).send().await;
        answer.problem(405);
        let allow = answer.must("Allow");
        for name in allowed {
            assert!(allow.split(',').any(|a| a.trim() == name), "{method} {path}: Allow: {allow}");
        }
    }
}

#[tokio::test]
async fn bodies() {
    let account = api().await.account().await;
    let post = |media_type: &str, body: Vec<u8>| account.request("POST", TASKS).body(media_type, body);
    for (name, body, status) in [
        ("empty", b"".to_vec(), 400),
        ("broken", b"{\"title\":".to_vec(), 400),
        ("two values", b"{\"title\":\"a\"}{}".to_vec(), 400),
        ("no object", b"[]".to_vec(), 400),
        ("a string", b"\"title\"".to_vec(), 400),
        ("null", b"null".to_vec(), 400),
        ("duplicate key", b"{\"title\":\"a\",\"title\":\"b\"}".to_vec(), 400),
        ("duplicate key, escaped", b"{\"title\":\"a\",\"t\\u0069tle\":\"b\"}".to_vec(), 400),
        ("lone surrogate", b"{\"title\":\"\\ud800\"}".to_vec(), 400),
        ("not UTF-8", b"{\"title\":\"\xff\xfe\"}".to_vec(), 400),
        ("overlong UTF-8", b"{\"title\":\"\xc0\xaf\"}".to_vec(), 400),
        ("NUL byte", b"{\"title\":\"a\0b\"}".to_vec(), 400),
        ("escaped NUL", b"{\"title\":\"a\\u0000b\"}".to_vec(), 422),
        ("comment", b"{\"title\":\"a\"/*x*/}".to_vec(), 400),
        ("trailing comma", b"{\"title\":\"a\",}".to_vec(), 400),
        ("NaN", b"{\"title\":NaN}".to_vec(), 400),
        ("deep", [b"{\"title\":".to_vec(), b"[".repeat(10_000)].concat(), 400),
        ("a number for a title", b"{\"title\":1e999}".to_vec(), 400),
    ] {
        let answer = post("application/json", body).send().await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        answer.problem(status);
    }
    let fits = format!("{{\"title\":\"a\"{}}}", " ".repeat(1024 * 1024 - 20));
    post("application/json", fits.into_bytes()).send().await.expect(201);
    let large = format!("{{\"title\":\"a\"{}}}", " ".repeat(1024 * 1024));
    post("application/json", large.into_bytes()).send().await.problem(413);
    post("text/plain", b"{\"title\":\"a\"}".to_vec()).send().await.problem(415);
    account.request("POST", TASKS).header("Content-Length", "0").send().await.problem(415);
    post("application/json; charset=utf-8", b"{\"title\":\"b\"}".to_vec()).send().await.expect(201);
    let zipped = post("application/json", b"{\"title\":\"a\"}".to_vec()).header("Content-Encoding", "gzip");
    zipped.send().await.problem(415);
    // nothing of the refused is there
    assert_eq!(account.walk(TASKS).await.len(), 2);
}

#[tokio::test]
async fn headers_twice_or_malformed() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let read = || account.request("GET", &format!("{TASKS}/{id}"));
    let token = account.read(TASKS).await.must("Consistency-Token").to_owned();
    read().header("Consistency-Token", &token).send().await.expect(200);
    read().header("Consistency-Token", "made-up").send().await.problem(400);
    read().header("Consistency-Token", "").send().await.problem(400);
    read().header("Consistency-Token", &token).header("Consistency-Token", &token).send().await.problem(400);
    let mut forged = token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    read().header("Consistency-Token", &forged).send().await.problem(400);
    // bound to its owner
    let stranger = account.api.account().await;
    stranger.request("GET", TASKS).header("Consistency-Token", &token).send().await.problem(400);
    // of a write too, and nothing is done then
    for bad in [&forged, "made-up", ""] {
        let start = account.request("POST", &format!("{TASKS}/{id}/start")).header("Consistency-Token", bad);
        start.send().await.problem(400);
    }
    assert_eq!(account.task(id).await["status"], "pending");
    account.request("GET", "/api/v1/stream").header("Last-Event-ID", "x").send().await.problem(400);
    let patch = account.request("PATCH", &format!("{TASKS}/{id}")).json(&json!({"title": "b"}));
    patch.if_version(1).if_version(1).send().await.problem(400);
}

#[tokio::test]
async fn raw_sockets() {
    let api = api().await;
    let account = api.account().await;
    let host = format!("Host: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n", api.authority(), account.token);
    let deadline = Duration::from_secs(20);
    let long_uri = format!("GET /api/v1/tasks?q={} HTTP/1.1\r\n{host}\r\n", "x".repeat(100_000));
    let long_header = format!("GET /api/v1/tasks HTTP/1.1\r\n{host}X-Long: {}\r\n\r\n", "x".repeat(600_000));
    let two_lengths = format!(
        "POST /api/v1/tasks HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 13\r\nContent-Length: 14\r\n\r\n{{\"title\":\"a\"}}"
    );
    let bad_chunk = format!(
        "POST /api/v1/tasks HTTP/1.1\r\n{host}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"
    );
    let half_a_body = format!(
        "POST /api/v1/tasks HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"title\":"
    );
    for (name, request, expected) in [
        ("no HTTP", "hello\r\n\r\n".to_owned(), vec![400, 0]),
        ("URI of 100 KB", long_uri, vec![414, 431]),
        ("header of 600 KB", long_header, vec![431, 0]),
        ("two lengths", two_lengths, vec![400, 0]),
        ("bad chunk", bad_chunk, vec![400]),
    ] {
        let answer = exchange(api.authority(), request.as_bytes(), deadline).await;
        assert!(expected.contains(&status(&answer)), "{name}: {answer:.300}");
    }
    // a body that stops half way is a client that went away: nothing happens, nothing is stored
    let _ = exchange(api.authority(), half_a_body.as_bytes(), Duration::from_millis(300)).await;
    assert_eq!(account.walk(TASKS).await.len(), 0);
}

#[tokio::test]
async fn slow_clients_are_not_waited_for() {
    let api = api().await;
    let account = api.account().await;
    let deadline = Duration::from_secs(40);
    let half_headers = format!("GET /api/v1/tasks HTTP/1.1\r\nHost: {}\r\n", api.authority());
    let half_body = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"title\":",
        api.authority(),
        account.token
    );
    let started = std::time::Instant::now();
    let headers = async {
        let answer = exchange(api.authority(), half_headers.as_bytes(), deadline).await;
        assert!([0, 408].contains(&status(&answer)), "{answer}");
        started.elapsed()
    };
    let refused = async |half: String, within_s: u64| {
        let answer = exchange(api.authority(), half.as_bytes(), Duration::from_secs(within_s)).await;
        assert_eq!(status(&answer), 408, "{answer}");
        assert!(answer.contains("\"code\":\"body-too-slow\""), "{answer}");
        let elapsed = started.elapsed();
        assert!((28..within_s).contains(&elapsed.as_secs()), "after {elapsed:?}: {answer}");
    };
    // a file may take longer, as long as 64 KiB come each second
    let file = |length: usize| {
        format!(
            "POST /api/v1/imports HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n",
            api.authority(),
            account.token
        )
    };
    // of what was refused some is read, for 5 s more
    let half_file = file(1000) + "{\"type\":";
    let line = json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": "a", "description": "x".repeat(8_000)});
    let part = format!("{line}\n").repeat(12);
    let long = async {
        let (answer, elapsed) = exchange_each_second(api.authority(), &file(part.len() * PARTS), &part).await;
        assert_eq!(status(&answer), 202, "{answer}");
        assert!(elapsed > Duration::from_secs(30), "{elapsed:?}");
    };
    let (after_headers, (), (), ()) = tokio::join!(headers, refused(half_body, 40), refused(half_file, 50), long);
    assert!((8..20).contains(&after_headers.as_secs()), "headers: {after_headers:?}");
}

/// Parts of a body, one each second: it takes longer than any other body may.
const PARTS: usize = 33;

/// The answer, and when it was there.
async fn exchange_each_second(authority: &str, head: &str, part: &str) -> (String, Duration) {
    let began = Instant::now();
    let mut socket = TcpStream::connect(authority).await.expect("connects");
    socket.write_all(head.as_bytes()).await.expect("sends");
    let mut second = interval(Duration::from_secs(1));
    for _ in 0..PARTS {
        second.tick().await;
        socket.write_all(part.as_bytes()).await.expect("sends");
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("reads");
    (answer, began.elapsed())
}
