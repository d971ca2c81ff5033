//! Secrets that would be known again anywhere: put in wherever input is taken, right and wrong, and looked for wherever
//! they do not belong: logs at their most talkative, metrics, traces, error bodies, audit events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use serde_json::{Value, json};
use sqlx::PgPool;
use system_tests::client::{Answer, Api, Request};
use system_tests::cluster::{Cluster, pool};
use system_tests::kafka::Kafka;
use system_tests::redis::Redis;
use system_tests::server::{Config, Server};
use system_tests::services::{Parts, Services};
use system_tests::stack::{COPIES, Stack};
use system_tests::wait::until;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);

/// What must be found nowhere, and how each of it is called.
#[derive(Clone)]
struct Canaries {
    password: String,
    new_password: String,
    wrong_password: String,
    email: String,
    name: String,
    title: String,
    found_in_answers: Arc<Mutex<Vec<(String, String)>>>,
}

impl Canaries {
    fn new() -> Canaries {
        let canary = |kind: &str| format!("canary-{kind}-{}", Uuid::new_v4().simple());
        Canaries {
            password: canary("password"),
            new_password: canary("new-password"),
            wrong_password: canary("wrong-password"),
            email: format!("{}@example.com", canary("email")),
            name: canary("name"),
            title: canary("title"),
            found_in_answers: Arc::default(),
        }
    }

    /// The secrets, and tokens by their signatures, which alone make them good.
    fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = [
            ("password", &self.password),
            ("new password", &self.new_password),
            ("wrong password", &self.wrong_password),
            ("e-mail address", &self.email),
            ("name", &self.name),
            ("title", &self.title),
        ]
        .map(|(what, text)| (what.to_owned(), text.clone()))
        .into();
        all.extend(self.found_in_answers.lock().expect("tokens").iter().cloned());
        all
    }

    fn keep(&self, answer: &Answer) {
        let mut tokens = self.found_in_answers.lock().expect("tokens");
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let cookie = answer.header("Set-Cookie").and_then(|set| set.split(['=', ';']).nth(1));
        tokens.extend(
            cookie.filter(|token| !token.is_empty()).map(|token| ("session cookie".to_owned(), token.to_owned())),
        );
        for name in ["access_token", "refresh_token"] {
            if let Some(token) = body[name].as_str() {
                let secret = token.rsplit('.').next().expect("a part");
                tokens.push((name.to_owned(), secret.to_owned()));
            }
        }
    }

    #[track_caller]
    fn absent(&self, place: &str, text: &str) {
        for (what, canary) in self.all() {
            if let Some(at) = text.find(&canary) {
                let line = text[..at].rfind('\n').map_or(0, |line| line + 1);
                let around: String = text[line..].chars().take(600).collect();
                panic!("{what} in {place}: {around}");
            }
        }
    }
}

/// Sends it; a refusal must repeat none of the secrets.
async fn send(canaries: &Canaries, request: Request) -> Answer {
    let answer = request.send().await;
    canaries.keep(&answer);
    if answer.status >= 400 {
        canaries.absent("an error body", &answer.text());
        for (name, value) in &answer.headers {
            canaries.absent(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
    }
    answer
}

/// Whatever takes input, with what is right and what is wrong.
async fn every_input(api: &Api, canaries: &Canaries) {
    let Canaries { password, new_password, wrong_password, email, name, title, .. } = canaries;
    let send = async |request: Request| send(canaries, request).await;
    let auth = |path: &str, body: Value| api.post(&format!("/api/v1/auth/{path}"), &body);
    send(auth("register", json!({"email": email, "password": password, "name": name}))).await.expect(201);
    send(auth("register", json!({"email": email, "password": password, "name": name}))).await.expect(409);
    send(auth("login", json!({"email": email, "password": wrong_password}))).await.expect(401);
    // the password where the address belongs, and the other way round
    send(auth("login", json!({"email": password, "password": email}))).await.expect(401);
    send(auth("register", json!({"email": password, "password": email, "name": title}))).await.expect(422);
    send(auth("login", json!({"email": email, "password": [password]}))).await.expect(400);
    send(auth("login", json!({"email": email, "password": password, "title": title}))).await.expect(400);
    let broken = format!("{{\"email\":\"{email}\",\"password\":\"{password}\",}}");
    send(api.request("POST", "/api/v1/auth/login").body("application/json", broken)).await.expect(400);
    let form = format!("email={email}&password={password}");
    send(api.request("POST", "/api/v1/auth/login").body("application/x-www-form-urlencoded", form)).await.expect(415);
    send(api.get(&format!("/api/v1/auth/login?password={password}"))).await.expect(400);

    let login = send(auth("login", json!({"email": email, "password": password}))).await.expect(200);
    let refreshed = send(auth("refresh", json!({"refresh_token": login.string("/refresh_token")}))).await.expect(200);
    let token = refreshed.string("/access_token");
    send(auth("refresh", json!({"refresh_token": password}))).await.expect(401);
    send(auth("refresh", json!({"refresh_token": token}))).await.expect(401);
    let by_cookie = json!({"email": email, "password": password, "session": "cookie"});
    let cookie = send(auth("login", by_cookie)).await.expect(200);
    let by = |path: &str, answer: &Answer| {
        let cookie = answer.must("Set-Cookie").split(';').next().expect("a pair");
        api.request("POST", &format!("/api/v1/auth/{path}")).header("Cookie", cookie)
    };
    send(by("refresh", &cookie).header("Origin", "https://evil.example")).await.expect(403);
    let next = send(by("refresh", &cookie).of_own_page()).await.expect(200);
    assert_ne!(next.must("Set-Cookie"), cookie.must("Set-Cookie"));
    send(by("logout", &next).of_own_page()).await.expect(204);
    send(by("refresh", &next).of_own_page()).await.expect(401);
    let bearer = format!("Bearer {token}");
    let ask = |method: &str, path: &str| api.request(method, path).header("Authorization", &bearer);
    send(api.get("/api/v1/tasks").header("Authorization", &format!("Bearer {token}x"))).await.expect(401);
    send(api.get("/api/v1/tasks").header("Authorization", &format!("Basic {password}"))).await.expect(401);
    send(ask("GET", "/api/v1/tasks").header("Authorization", &bearer)).await.expect(400);
    send(ask("GET", &format!("/api/v1/tasks?access_token={token}"))).await.expect(400);
    send(ask("GET", "/api/v1/auth/me")).await.expect(200);
    send(ask("GET", "/api/v1/auth/sessions")).await.expect(200);
    send(ask("DELETE", &format!("/api/v1/auth/sessions/{title}"))).await.expect(400);
    send(ask("PATCH", "/api/v1/auth/me").json(&json!({"name": name, "password": password}))).await.expect(400);
    send(ask("PATCH", "/api/v1/auth/me").json(&json!({"name": name}))).await.expect(200);
    let change =
        |current: &str, new: &str| ask("POST", "/api/v1/auth/password").json(&json!({"current": current, "new": new}));
    send(change(wrong_password, new_password)).await.expect(403);
    send(change(password, &format!("{new_password}\0"))).await.expect(422);
    send(change(password, new_password)).await.expect(204);

    let tasks = "/api/v1/tasks";
    let task = json!({"title": title, "description": title, "tags": [title.clone()]});
    let made = send(ask("POST", tasks).key("a-key").json(&task)).await.expect(201);
    let id = made.uuid("/id");
    let seen = made.must("Consistency-Token").to_owned();
    let one = format!("{tasks}/{id}");
    // the key for another request, the id with another content, a stale version, a wrong status
    send(ask("POST", tasks).key("a-key").json(&json!({"title": format!("{title}!")}))).await.expect(422);
    send(ask("POST", tasks).json(&json!({"id": id, "title": format!("{title}!")}))).await.expect(409);
    send(ask("PATCH", &one).if_version(7).json(&json!({"title": title}))).await.expect(412);
    send(ask("PATCH", &one).json(&json!({"description": format!("{title} again")}))).await.expect(200);
    send(ask("POST", &format!("{one}/reopen"))).await.expect(200);
    send(ask("POST", &format!("{one}/cancel"))).await.expect(200);
    send(ask("POST", &format!("{one}/complete"))).await.expect(409);
    // the title in every wrong place
    send(ask("POST", tasks).json(&json!({"title": format!("{title}\0")}))).await.expect(422);
    send(ask("POST", tasks).json(&json!({"title": title.repeat(9)}))).await.expect(422);
    send(ask("POST", tasks).json(&json!({"title": [title]}))).await.expect(400);
    send(ask("POST", tasks).json(&json!({"title": "x", "priority": title}))).await.expect(422);
    send(ask("POST", tasks).json(&json!({"title": "x", "due_at": title}))).await.expect(422);
    send(ask("POST", tasks).json(&json!({"title": "x", "id": title}))).await.expect(422);
    send(ask("POST", tasks).key(&format!("{title} {title}")).json(&task)).await.expect(400);
    send(ask("GET", &format!("{tasks}/{title}"))).await.expect(400);
    for query in ["status", "priority", "sort", "limit", "cursor", "due_after"] {
        send(ask("GET", &format!("{tasks}?{query}={title}"))).await.expect(400);
    }
    send(ask("GET", &format!("{one}?as_of={title}"))).await.expect(400);
    send(ask("GET", &format!("/api/v1/stats?from={title}"))).await.expect(400);
    send(ask("GET", tasks).header("Consistency-Token", title)).await.expect(400);
    send(ask("PATCH", &one).header("If-Match", title).json(&json!({"title": "x"}))).await.expect(400);
    send(ask("GET", "/api/v1/stream").header("Last-Event-ID", title)).await.expect(400);
    send(ask("GET", &format!("/{title}"))).await.expect(404);
    let commands = json!({"commands": [
        {"type": "CreateTask", "task_id": Uuid::now_v7(), "title": title},
        {"type": title, "task_id": id},
        {"type": "RenameTask", "task_id": id, "title": format!("{title}\0")},
        {"type": "RenameTask", "task_id": title, "title": "x"},
        {"type": "TagTask", "task_id": Uuid::now_v7(), "tag": title},
    ]});
    let batch = send(ask("POST", "/api/v1/commands").json(&commands)).await.expect(200).json();
    assert_eq!(batch["failed"], 4, "{batch}");
    for result in batch["results"].as_array().expect("results").iter().filter(|result| !result["problem"].is_null()) {
        canaries.absent("an item of a batch", &result["problem"].to_string());
    }
    // and what is good
    let with_token = |path: &str| ask("GET", path).header("Consistency-Token", &seen);
    send(with_token(tasks)).await.expect(200);
    send(with_token(&format!("{tasks}?q={title}"))).await.expect(200);
    send(with_token(&one)).await.expect(200);
    send(with_token(&format!("{one}/history"))).await.expect(200);
    let mut stream = ask("GET", "/api/v1/stream").header("Last-Event-ID", "0").stream().await;
    assert!(stream.next_event(SOON).await.data.contains(title.as_str()));
    send(ask("POST", "/api/v1/auth/logout")).await.expect(204);
    send(auth("login", json!({"email": email, "password": new_password}))).await.expect(200);
}

/// What a collector of traces was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl Collector {
    async fn start(&self) -> String {
        let received = self.clone();
        let router = Router::new().route(
            "/v1/traces",
            post(async move |body: Bytes| received.0.lock().expect("collector").extend_from_slice(&body)),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        endpoint
    }

    /// All of it, once there is a span of this name.
    async fn text(&self, span: &str) -> String {
        until("spans are collected", SOON, || async {
            let text = String::from_utf8_lossy(&self.0.lock().expect("collector")).into_owned();
            text.contains(span).then_some(text)
        })
        .await
    }
}

/// What is there about acts, as text; that there is something, too.
async fn audit_events(database: &PgPool) -> String {
    let rows: Vec<String> = sqlx::query_scalar("select a::text from identity.audit_event a order by id")
        .fetch_all(database)
        .await
        .expect("audit events");
    assert!(rows.len() > 5, "{rows:?}");
    rows.join("\n")
}

/// An error of the database, with all of a request in hand.
async fn with_the_database_in_disorder(api: &Api, canaries: &Canaries, database: &PgPool) {
    let rename = async |sql: &'static str| sqlx::query(sql).execute(database).await.expect("renames");
    rename("alter table identity.account rename to elsewhere").await;
    let Canaries { password, email, name, .. } = canaries;
    let login = api.post("/api/v1/auth/login", &json!({"email": email, "password": password}));
    assert!(send(canaries, login).await.status >= 500);
    let register = json!({"email": format!("x{email}"), "password": password, "name": name});
    assert!(send(canaries, api.post("/api/v1/auth/register", &register)).await.status >= 500);
    rename("alter table identity.elsewhere rename to account").await;
}

/// The operator's commands: what they print is to be seen by who stands beside, and may be kept.
async fn by_the_command_line(server: &Server, canaries: &Canaries) {
    let Canaries { password, wrong_password, email, title, .. } = canaries;
    let lines = [
        json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": title, "tags": [title]}).to_string(),
        json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": format!("{title}\0")}).to_string(),
        json!({"type": "CreateTask", "task_id": title, "title": title}).to_string(),
        json!({"type": title, "task_id": Uuid::now_v7()}).to_string(),
        json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": title, "priority": title}).to_string(),
        format!("{{\"title\":\"{title}\""),
        title.clone(),
    ];
    let import = server.cli_with_input(&["import", "-", "--owner", email, "--json"], &lines.join("\n")).await.expect(1);
    assert_eq!(import.json()["succeeded"], 1, "{import:?}");
    canaries.absent("what import says", &format!("{}{}", import.out, import.err));
    let other = format!("other-{}@example.com", Uuid::new_v4().simple());
    for (input, arguments) in [
        (password, vec!["user", "create", "--email", &other, "--password-stdin"]),
        (wrong_password, vec!["user", "password", "--email", &other, "--password-stdin"]),
        (&format!("{password}{}", "x".repeat(300)), vec!["user", "password", "--email", &other, "--password-stdin"]),
        (password, vec!["config"]),
        (password, vec!["doctor"]),
    ] {
        let run = server.cli_with_input(&arguments, input).await;
        canaries.absent(arguments[0], &format!("{}{}", run.out, run.err));
    }
}

async fn one_process(format: &str) {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let cluster = Cluster::shared();
    let config = Config::new(cluster.url(&cluster.create_database().await))
        .variable("PRIMETRADE_LOG", "debug")
        .variable("PRIMETRADE_LOG_FORMAT", format)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    let server = Server::start(config).await;
    let (api, canaries) = (server.api(), Canaries::new());
    let database = pool(server.database_url()).await;
    every_input(&api, &canaries).await;
    by_the_command_line(&server, &canaries).await;
    with_the_database_in_disorder(&api, &canaries, &database).await;
    server.caught_up().await;
    canaries.absent("traces", &collector.text("GET /api/v1/stream").await);
    for path in ["/metrics", "/readyz"] {
        canaries.absent(path, &api.get(path).send().await.expect(200).text());
    }
    canaries.absent("audit events", &audit_events(&database).await);
    database.close().await;
    server.terminate().await;
    let log = server.log();
    assert!(log.contains("/api/v1/auth/login") && log.to_lowercase().contains("debug"), "it is talkative: {log:.500}");
    canaries.absent("the log", &log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nowhere_in_one_process_that_logs_text() {
    one_process("text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nowhere_in_one_process_that_logs_json() {
    one_process("json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nowhere_in_the_services() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let parts = parts
        .with("PRIMETRADE_LOG", "debug")
        .with("PRIMETRADE_LOG_FORMAT", "json")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    let services = Services::start(parts).await;
    let canaries = Canaries::new();
    every_input(&services.api(), &canaries).await;
    services.everything_is_read().await;
    for span in ["publish", "project", "GET /api/v1/stream"] {
        canaries.absent("traces", &collector.text(span).await);
    }
    let database = pool(&services.parts.database_url).await;
    canaries.absent("audit events", &audit_events(&database).await);
    database.close().await;
    for process in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        canaries.absent("metrics", &process.api().get("/metrics").send().await.expect(200).text());
        let log = process.log();
        assert!(log.to_lowercase().contains("debug"), "it is talkative: {log:.500}");
        canaries.absent("a service's log", &log);
    }
}

/// Every part's log, Postgres', Kafka's and the gateway's too; with copies away, so that the gateway has something to
/// say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nowhere_in_a_stack() {
    let stack = Stack::start_with(&[("PRIMETRADE_LOG", "debug"), ("PRIMETRADE_LOG_FORMAT", "json")]).await;
    let (api, canaries) = (stack.api(), Canaries::new());
    every_input(&api, &canaries).await;
    let database = pool(&stack.database_url()).await;
    with_the_database_in_disorder(&api, &canaries, &database).await;
    database.close().await;
    for copy in COPIES {
        stack.kill(copy).await;
    }
    let Canaries { password, email, title, .. } = &canaries;
    for path in ["/api/v1/tasks?q=", "/api/v1/tasks/", "/api/v1/auth/me?access_token="] {
        send(&canaries, api.get(&format!("{path}{title}"))).await.expect(503);
    }
    let login = api.post("/api/v1/auth/login", &json!({"email": email, "password": password}));
    send(&canaries, login).await.expect(503);
    let keyed = api.request("PATCH", &format!("/api/v1/tasks/{title}")).key(title).json(&json!({"title": title}));
    send(&canaries, keyed).await.expect(503);
    let parts = ["postgres", "redis", "kafka", "gateway"].iter().chain(&COPIES);
    for part in parts {
        let log = stack.log(part);
        assert_eq!(log.is_empty(), *part == "gateway", "the log of {part}: {log:.500}");
        canaries.absent(&format!("the log of {part}"), &log);
    }
    stack.up().await;
}
