//! A client of the HTTP contract: an address, an account on it, requests with every header by hand.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::unique;
use crate::document;

const REQUEST_MS_MAX: u64 = 30_000;
/// How long a connection is kept without a request.
const IDLE_MS_MAX: u64 = 4_000;

/// Where requests go, and a connection pool.
#[derive(Clone, Debug)]
pub struct Api {
    routes: Arc<Routes>,
    http: reqwest::Client,
}

/// Base URLs without a slash at their end, for each kind of path; several are used in turn. What a gateway knows.
#[derive(Debug)]
pub struct Routes {
    /// Writes, accounts, keys.
    pub commands: Vec<String>,
    /// Reads.
    pub queries: Vec<String>,
    /// `/api/v1/admin`
    pub admin: Vec<String>,
    /// Which one is next.
    pub turn: AtomicUsize,
}

impl Routes {
    fn base(&self, method: &str, path: &str) -> &str {
        let reads = ["/api/v1/tasks", "/api/v1/changes", "/api/v1/stats", "/api/v1/stream"];
        let bases = if path.starts_with("/api/v1/admin") {
            &self.admin
        } else if method == "GET" && reads.iter().any(|read| path.starts_with(read)) {
            &self.queries
        } else {
            &self.commands
        };
        &bases[self.turn.fetch_add(1, Ordering::Relaxed) % bases.len()]
    }
}

/// A client of nothing in particular, with a connection pool of its own.
pub fn http() -> reqwest::Client {
    // the workspace's HTTP client can TLS, though nothing here needs it; a second call changes nothing
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .timeout(Duration::from_millis(REQUEST_MS_MAX))
        // before the server ends an idle connection: a request on one that is being closed has no answer
        .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
        .build()
        .expect("HTTP client")
}

impl Api {
    /// Everything at one `base`.
    pub fn new(base: &str) -> Api {
        let bases = vec![base.trim_end_matches('/').to_owned()];
        let (queries, admin) = (bases.clone(), bases.clone());
        Api::routed(Routes { commands: bases, queries, admin, turn: AtomicUsize::new(0) })
    }

    /// Each kind of request to its service.
    pub fn routed(routes: Routes) -> Api {
        Api { routes: Arc::new(routes), http: http() }
    }

    /// The base URL of writes.
    pub fn base(&self) -> &str {
        &self.routes.commands[0]
    }

    /// `host:port` of the base URL.
    pub fn authority(&self) -> &str {
        self.base().split("://").nth(1).unwrap_or(self.base())
    }

    /// One of the numbers at `/metrics`, all labels together.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").send().await.expect(200);
        let of = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit_once(' ')?.1.parse::<f64>().ok()
        };
        answer.text().lines().filter_map(of).sum()
    }

    /// A request without an account.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request {
            http: self.http.clone(),
            method: method.parse().expect("method"),
            url: format!("{}{path}", self.routes.base(method, path)),
            headers: Vec::new(),
            body: None,
            seen: None,
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request("POST", path).json(body)
    }

    /// Registers a new account and logs in.
    pub async fn account(&self) -> Account {
        let email = format!("person-{}-{}@example.com", unique(), Uuid::new_v4().simple());
        let password = format!("correct horse {}", Uuid::new_v4());
        let registered = self
            .post("/api/v1/auth/register", &json!({"email": email, "password": password, "name": "A Person"}))
            .send()
            .await
            .expect(201);
        let id = registered.uuid("/id");
        self.log_in(id, &email, &password).await
    }

    /// Logs in to an account that exists.
    pub async fn log_in(&self, id: Uuid, email: &str, password: &str) -> Account {
        let login =
            self.post("/api/v1/auth/login", &json!({"email": email, "password": password})).send().await.expect(200);
        Account {
            api: self.clone(),
            id,
            email: email.to_owned(),
            password: password.to_owned(),
            token: login.string("/access_token"),
            seen: Seen::default(),
        }
    }
}

/// The consistency token of the last write.
type Seen = Arc<Mutex<Option<String>>>;

/// An account with a token. [`Account::read`] sends the consistency token of its last write.
#[derive(Debug)]
pub struct Account {
    /// Where it has the account.
    pub api: Api,
    /// The account's id: the owner of its tasks.
    pub id: Uuid,
    /// As registered.
    pub email: String,
    /// As registered.
    pub password: String,
    /// Access token.
    pub token: String,
    seen: Seen,
}

impl Account {
    /// The same account, as a client of another server.
    pub fn at(&self, api: Api) -> Account {
        Account {
            api,
            id: self.id,
            email: self.email.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            seen: Seen::default(),
        }
    }

    /// A request with the access token and nothing else.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let mut request = self.api.request(method, path);
        request.seen = Some(Arc::clone(&self.seen));
        request.header("Authorization", &format!("Bearer {}", self.token))
    }

    /// A read that shows at least this account's last write.
    pub async fn read(&self, path: &str) -> Answer {
        let seen = self.seen.lock().expect("token").clone();
        let request = self.request("GET", path);
        match seen {
            Some(token) => request.header("Consistency-Token", &token),
            None => request,
        }
        .send()
        .await
    }

    /// From now on reads show what this answer stands for.
    pub fn has_seen(&self, answer: &Answer) {
        *self.seen.lock().expect("token") = Some(answer.must("Consistency-Token").to_owned());
    }

    /// Creates a task and gives its id.
    pub async fn create(&self, task: Value) -> Uuid {
        let request = self.request("POST", "/api/v1/tasks").json(&task);
        request.send().await.expect(201).uuid("/id")
    }

    /// `POST /tasks/{id}/{verb}`.
    pub async fn act(&self, task: Uuid, verb: &str) -> Answer {
        self.request("POST", &format!("/api/v1/tasks/{task}/{verb}")).send().await
    }

    /// `PATCH /tasks/{id}`.
    pub async fn patch(&self, task: Uuid, patch: Value) -> Answer {
        let request = self.request("PATCH", &format!("/api/v1/tasks/{task}"));
        request.json(&patch).send().await
    }

    /// `DELETE /tasks/{id}`.
    pub async fn delete(&self, task: Uuid) -> Answer {
        self.request("DELETE", &format!("/api/v1/tasks/{task}")).send().await
    }

    /// `GET /tasks/{id}`, as it is now.
    pub async fn task(&self, task: Uuid) -> Value {
        self.read(&format!("/api/v1/tasks/{task}")).await.expect(200).json()
    }

    /// `POST /commands` in its JSON form.
    pub async fn batch(&self, commands: &[Value]) -> Answer {
        let request = self.request("POST", "/api/v1/commands");
        request.json(&json!({ "commands": commands })).send().await
    }

    /// All pages of a list, following `next_cursor`. A walk that does not end is a failure.
    pub async fn walk(&self, path_and_query: &str) -> Vec<Value> {
        const PAGES_MAX: usize = 10_000;
        let join = if path_and_query.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut page = self.read(path_and_query).await.expect(200).json();
        for _ in 0..PAGES_MAX {
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else {
                return items;
            };
            let next = format!("{path_and_query}{join}cursor={cursor}");
            page = self.read(&next).await.expect(200).json();
        }
        panic!("{path_and_query}: more than {PAGES_MAX} pages")
    }

    /// The live stream, from now or from `last_event_id` on.
    pub async fn stream(&self, last_event_id: Option<&str>) -> EventStream {
        let request = self.request("GET", "/api/v1/stream");
        let request = match last_event_id {
            Some(id) => request.header("Last-Event-ID", id),
            None => request,
        };
        request.stream().await
    }
}

/// A request being put together.
#[derive(Debug)]
pub struct Request {
    http: reqwest::Client,
    method: Method,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    seen: Option<Seen>,
}

impl Request {
    /// Adds a header (also a second one of the same name).
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// As a page of the API's own origin sends it.
    pub fn of_own_page(self) -> Request {
        let origin = self.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        self.header("Origin", &origin)
    }

    /// A body and its media type.
    pub fn body(self, media_type: &str, body: impl Into<Vec<u8>>) -> Request {
        let mut request = self.header("Content-Type", media_type);
        request.body = Some(body.into());
        request
    }

    /// A JSON body.
    pub fn json(self, body: &Value) -> Request {
        self.body("application/json", body.to_string())
    }

    /// With an Idempotency-Key.
    pub fn key(self, key: &str) -> Request {
        self.header("Idempotency-Key", key)
    }

    /// With If-Match of a version.
    pub fn if_version(self, version: u64) -> Request {
        self.header("If-Match", &format!("\"{version}\""))
    }

    /// Sends it; a broken connection fails the test.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.url);
        self.try_send().await.unwrap_or_else(|e| panic!("{what}: {e:?}"))
    }

    /// Sends it; an error means that nobody knows whether it was carried out.
    pub async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let asked = format!("{} {}", self.method, self.url);
        let method = self.method.to_string();
        let (is_write, seen) = (self.method != Method::GET, self.seen.clone());
        let response = self.start().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let path = response.url().path().to_owned();
        let body = response.bytes().await?.to_vec();
        // not in a release build, where figures are measured
        if cfg!(debug_assertions)
            && let Err(drift) = document::check(&method, &path, status, &headers, &body)
        {
            panic!("{asked} is not as docs/openapi.json has it: {drift}: {}", String::from_utf8_lossy(&body));
        }
        // No token is sent with writes here, and several copies are asked in turn: so an answer that is replayed or changed
        // nothing may carry a token of an earlier time, which may not take the place of a later one.
        let changed = headers.contains_key("Change-Id") && !headers.contains_key("Idempotent-Replayed");
        if let (true, Some(seen), Some(token)) = (is_write, seen, headers.get("Consistency-Token")) {
            let mut seen = seen.lock().expect("token");
            if changed || seen.is_none() {
                *seen = token.to_str().ok().map(str::to_owned);
            }
        }
        Ok(Answer { asked, status, headers, body })
    }

    async fn start(self) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = self.http.request(self.method, &self.url);
        for (name, value) in &self.headers {
            let value = reqwest::header::HeaderValue::from_bytes(value).expect("header value");
            request = request.header(name, value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        request.send().await
    }

    /// Opens it as an event stream.
    pub async fn stream(mut self) -> EventStream {
        self.http = reqwest::Client::builder().no_proxy().build().expect("HTTP client");
        let response = self.start().await.expect("stream");
        EventStream {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            response: Some(response),
            buffer: String::new(),
        }
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    asked: String,
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer, once its status is known to be this.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.asked, self.text()))
    }

    /// A header that stands at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{}: {name} twice", self.asked);
        Some(value.to_str().expect("header in ASCII"))
    }

    /// A header that has to be there.
    #[track_caller]
    pub fn must(&self, name: &str) -> &str {
        match self.header(name) {
            Some(value) => value,
            None => panic!("{}: no {name} in {:?}", self.asked, self.headers),
        }
    }

    /// A UUID in the body, by JSON pointer.
    #[track_caller]
    pub fn uuid(&self, pointer: &str) -> Uuid {
        self.string(pointer).parse().expect("UUID")
    }

    /// A string in the body, by JSON pointer.
    #[track_caller]
    pub fn string(&self, pointer: &str) -> String {
        let json = self.json();
        let found = json.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("{}: no string {pointer} in {json}", self.asked)).to_owned()
    }

    /// A number in the body, by JSON pointer.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> u64 {
        let json = self.json();
        let found = json.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("{}: no number {pointer} in {json}", self.asked))
    }

    /// The answer is a problem of this status, in the form that RFC 9457 and the contract give it. Gives its body.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        assert_eq!(self.must("Content-Type"), "application/problem+json", "{}", self.asked);
        let problem = self.json();
        check_problem(&problem, status).unwrap_or_else(|e| panic!("{}: {e}: {problem}", self.asked));
        problem
    }
}

/// Whether this is a problem object as the contract has it.
pub fn check_problem(problem: &Value, status: u16) -> Result<(), String> {
    let text = |field: &str| problem[field].as_str().filter(|text| !text.is_empty()).ok_or(format!("no {field}"));
    let code = text("code")?;
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !code.chars().all(kebab) {
        return Err(format!("code {code} is not in kebab-case"));
    }
    if text("type")? != format!("/problems/{code}") {
        return Err("type is not /problems/<code>".to_owned());
    }
    text("title")?;
    text("detail")?;
    if problem["status"] != status {
        return Err("status is another than the answer's".to_owned());
    }
    let trace = text("trace_id")?;
    if trace.len() != 32 || !trace.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err("trace_id is not 32 hexadecimal digits".to_owned());
    }
    for error in problem["errors"].as_array().into_iter().flatten() {
        let pointed = error["pointer"].is_string() && error["detail"].is_string();
        if !pointed {
            return Err("an error without pointer and detail".to_owned());
        }
    }
    Ok(())
}

/// A message of the live stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `id:`, empty where there is none.
    pub id: String,
    /// `event:`
    pub event: String,
    /// `data:`
    pub data: String,
    /// Comment lines.
    pub comment: Option<String>,
}

impl Message {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    /// Status of the answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: HeaderMap,
    response: Option<reqwest::Response>,
    buffer: String,
}

impl EventStream {
    /// The next message, comments included; `None` at the end. Fails the test after `deadline`.
    pub async fn next(&mut self, deadline: Duration) -> Option<Message> {
        let next = async {
            loop {
                if let Some(end) = self.buffer.find("\n\n") {
                    let block: String = self.buffer.drain(..end + 2).collect();
                    return Some(parse_message(&block));
                }
                let response = self.response.as_mut()?;
                match response.chunk().await {
                    Ok(Some(bytes)) => self.buffer.push_str(&String::from_utf8_lossy(&bytes)),
                    Ok(None) | Err(_) => self.response = None,
                }
            }
        };
        tokio::time::timeout(deadline, next).await.unwrap_or_else(|_| panic!("no message within {deadline:?}"))
    }

    /// The next message that carries an event.
    pub async fn next_event(&mut self, deadline: Duration) -> Message {
        loop {
            let message = self.next(deadline).await.expect("the stream goes on");
            if !message.event.is_empty() {
                return message;
            }
        }
    }

    /// The body, where it is no stream but a refusal.
    pub async fn into_body(self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut chunks = self.response.expect("open").bytes_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            body.extend_from_slice(&chunk);
        }
        body
    }
}

fn parse_message(block: &str) -> Message {
    let mut message = Message::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => message.id = value.to_owned(),
            "event" => message.event = value.to_owned(),
            "data" => message.data.push_str(value),
            "" => message.comment = Some(value.to_owned()),
            _ => {}
        }
    }
    message
}

/// A time as the contract writes it.
pub fn time(text: &str) -> DateTime<Utc> {
    assert!(text.ends_with('Z'), "{text} is not answered in Z");
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}
