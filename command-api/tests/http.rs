//! Everything under "Commands" of the HTTP contract, through the whole router, on a real Postgres.

use backends::database::{self, Pool};
use sqlx::postgres::PgConnectOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::token::{RootSecret, Sealer};
use access::{AUDIENCE, Claims, ISSUER, Keys, Revoked, Role, Scope, Verifier};
use axum::Router;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, Method, Request};
use command_api::CommandApi;
use domain::OwnerId;
use ed25519_dalek::SigningKey;
use event_store::EventStore;
use futures_util::future::join_all;
use http_api::edge::{Edge, edge};
use http_body_util::BodyExt;
use jobs::{Files, Jobs, QUEUED_EACH_MAX};
use process::clock;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

/// What the programs connect by, to the same database.
fn shared(pool: &PgPool) -> Pool {
    database::pool(8, PgConnectOptions::clone(&pool.connect_options()))
}

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// A server and an account.
#[derive(Clone)]
struct Client {
    router: Router,
    sealer: Sealer,
    key: SigningKey,
    owner: OwnerId,
    token: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: impl Into<HeaderName>) -> Option<&str> {
        self.headers.get(name.into()).map(|value| value.to_str().unwrap())
    }

    fn named(&self, name: &'static str) -> Option<&str> {
        self.header(HeaderName::from_static(name))
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    /// What a replay must repeat.
    fn essence(&self) -> (u16, Value, Vec<Option<String>>) {
        let headers = ["etag", "location", "consistency-token", "change-id", "content-type"];
        (self.status, self.body.clone(), headers.map(|name| self.named(name).map(str::to_owned)).to_vec())
    }
}

impl Client {
    /// Without an object store.
    async fn new(pool: &PgPool) -> Self {
        Self::serving(pool, None).await
    }

    /// With jobs, which nobody carries out, and their files in this folder.
    async fn with_jobs(pool: &PgPool, folder: &Path) -> Self {
        jobs::migrate(&shared(pool)).await.unwrap();
        Self::serving(pool, Some(Files::folder(folder).unwrap())).await
    }

    async fn serving(pool: &PgPool, files: Option<Files>) -> Self {
        event_store::migrate(&shared(pool)).await.unwrap();
        let (store, mut tasks) = EventStore::start(shared(pool)).await.unwrap();
        tokio::spawn(async move { while tasks.join_next().await.is_some() {} });
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = Keys::new([("k".to_owned(), key.verifying_key().to_bytes())]);
        let verifier = Verifier::new(watch::channel(Arc::new(keys)).1, watch::channel(Arc::new(Revoked::default())).1);
        let secret = RootSecret::new(SecretString::from("0123456789abcdef0123456789abcdef")).unwrap();
        let sealer = Sealer::new(&secret);
        let router = command_api::router(CommandApi::new(store, sealer.clone(), Jobs::new(shared(pool)), files));
        let router = edge(router, Edge { verifier: Some(verifier), ..Edge::default() });
        Self { router, sealer, key, owner: OwnerId(Uuid::nil()), token: String::new() }.account()
    }

    /// Another account at the same server.
    fn account(&self) -> Self {
        self.with_token_of(Uuid::new_v4(), None)
    }

    /// A service with an API key of the same account, which is good for everything that there is.
    fn service(&self) -> Self {
        self.with_token_of(self.owner.0, Some(&Scope::ALL))
    }

    fn with_token_of(&self, owner: Uuid, scopes: Option<&[Scope]>) -> Self {
        let now_s = clock::now().timestamp();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: owner,
            sid: Uuid::new_v4(),
            role: Role::User,
            shard: 0,
            iat: now_s,
            exp: now_s + 600,
            jti: Uuid::new_v4(),
            scope: scopes.map(|scopes| scopes.iter().copied().collect()),
        };
        Self { owner: OwnerId(owner), token: claims.sign("k", &self.key).unwrap(), ..self.clone() }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        if parts.status.is_client_error() || parts.status.is_server_error() {
            assert_eq!(parts.headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(body["status"], parts.status.as_u16());
            assert_eq!(body["trace_id"].as_str().map(str::len), Some(32));
        }
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send(Method::POST, path, &[JSON], body.to_string()).await
    }

    async fn create(&self, body: Value) -> Answer {
        self.post("/api/v1/tasks", body).await
    }

    /// A fresh task's id.
    async fn task(&self) -> String {
        let created = self.create(json!({"title": "a"})).await;
        assert_eq!(created.status, 201);
        created.body["id"].as_str().unwrap().to_owned()
    }

    async fn verb(&self, id: &str, verb: &str) -> Answer {
        self.send(Method::POST, &format!("/api/v1/tasks/{id}/{verb}"), &[], "").await
    }

    async fn patch(&self, id: &str, body: Value) -> Answer {
        self.send(Method::PATCH, &format!("/api/v1/tasks/{id}"), &[JSON], body.to_string()).await
    }

    async fn delete(&self, id: &str) -> Answer {
        self.send(Method::DELETE, &format!("/api/v1/tasks/{id}"), &[], "").await
    }

    async fn batch(&self, commands: Value) -> Answer {
        self.post("/api/v1/commands", json!({ "commands": commands })).await
    }

    fn position_of(&self, answer: &Answer) -> i64 {
        let token = answer.named("consistency-token").expect("a token");
        self.sealer.open_consistency_token(token, self.owner).unwrap().position
    }
}

async fn events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from event_store.event").fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_write_answers_with_id_version_revision_and_headers(pool: PgPool) {
    let client = Client::new(&pool).await;
    // Somebody else's event, so that positions are no versions.
    client.account().task().await;
    let created = client
        .create(json!({"title": " Zoë ", "description": "d", "priority": "high", "due_at": "2026-01-31T13:00:00+01:00",
            "tags": ["B", "a", "b "], "id": null}))
        .await;
    assert_eq!(created.status, 201);
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(created.body, json!({"id": id, "version": 1, "revision": 2}));
    assert_eq!(created.header(LOCATION), Some(format!("/api/v1/tasks/{id}").as_str()));
    assert_eq!(created.header(ETAG), Some("\"1\""));
    assert_eq!(created.header(CONTENT_TYPE), Some("application/json"));
    assert_eq!(created.named("idempotent-replayed"), None);
    assert_eq!(client.position_of(&created), 2);
    assert_eq!(Uuid::parse_str(id).unwrap().get_version_num(), 7);
    let stored: String =
        sqlx::query_scalar("select data from event_store.event where position = 2").fetch_one(&pool).await.unwrap();
    assert_eq!(
        stored,
        r#"{"title":"Zoë","description":"d","priority":"high","due_at":"2026-01-31T12:00:00Z","tags":["a","b"]}"#
    );

    let patched = client.patch(id, json!({"title": "b", "tags": null, "due_at": null, "description": null})).await;
    assert_eq!((patched.status, &patched.body), (200, &json!({"id": id, "version": 5, "revision": 6})));
    assert_eq!((patched.header(ETAG), patched.header(LOCATION)), (Some("\"5\""), None));
    let same = client.patch(id, json!({"title": "b"})).await;
    assert_eq!((same.status, &same.body), (200, &json!({"id": id, "version": 5, "revision": 6})));
    let merged = [("content-type", "application/merge-patch+json")];
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(client.send(Method::PATCH, &path, &merged, "{}").await.status, 200);

    for (verb, version) in [("start", 6), ("complete", 7), ("complete", 7), ("reopen", 8), ("cancel", 9)] {
        let answer = client.verb(id, verb).await;
        assert_eq!((answer.status, &answer.body["version"]), (200, &json!(version)), "{verb}");
        assert_eq!(client.position_of(&answer), version + 1, "{verb}");
    }
    let deleted = client.delete(id).await;
    assert_eq!((deleted.status, &deleted.body), (204, &Value::Null));
    assert_eq!((deleted.header(ETAG), client.position_of(&deleted)), (Some("\"10\""), 11));
    assert_eq!(deleted.header(CONTENT_TYPE), None);
    assert_eq!(client.delete(id).await.status, 204);
    assert_eq!(client.verb(id, "start").await.code(), "not-found");
    assert_eq!(client.create(json!({"title": "a", "id": id})).await.code(), "task-exists");
    assert_eq!(events(&pool).await, 11);
    let nulls = json!({"title": "n", "description": null, "priority": null, "due_at": null, "tags": null, "id": null});
    assert_eq!(client.create(nulls).await.status, 201);
    let stored: String =
        sqlx::query_scalar("select data from event_store.event where position = 12").fetch_one(&pool).await.unwrap();
    assert_eq!(stored, r#"{"title":"n","priority":"medium","tags":[]}"#);
}

#[sqlx::test(migrations = false)]
async fn the_client_may_choose_the_id(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = Uuid::new_v4().to_string();
    let first = client.create(json!({"title": "a", "id": id})).await;
    assert_eq!((first.status, first.body["id"].as_str()), (201, Some(id.as_str())));
    let again = client.create(json!({"id": id, "title": "a ", "priority": "medium", "tags": []})).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header(LOCATION), first.header(LOCATION));
    let other = client.create(json!({"title": "b", "id": id})).await;
    assert_eq!((other.status, other.code()), (409, "task-exists"));
    // Another account's task of the same id is another task; and there is nothing to be seen of the first.
    let stranger = client.account();
    assert_eq!(stranger.verb(&id, "start").await.code(), "not-found");
    assert_eq!(stranger.create(json!({"title": "b", "id": id})).await.status, 201);
    assert_eq!(events(&pool).await, 2);
}

#[sqlx::test(migrations = false)]
async fn steps_that_the_lifecycle_does_not_have_are_409(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = client.task().await;
    client.verb(&id, "complete").await;
    for verb in ["start", "cancel"] {
        let refused = client.verb(&id, verb).await;
        assert_eq!((refused.status, refused.code()), (409, "transition-refused"), "{verb}");
        assert!(refused.body["detail"].as_str().unwrap().contains("completed"), "{:?}", refused.body);
    }
    assert_eq!(events(&pool).await, 2);
}

#[sqlx::test(migrations = false)]
async fn bad_bodies_are_refused_with_every_place_that_is_wrong(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = client.task().await;
    let long = "x".repeat(201);
    let tags: Vec<String> = (0..21).map(|n| format!("t{n}")).collect();
    let cases: Vec<(String, u16, &str, Vec<&str>)> = vec![
        (json!({}).to_string(), 422, "invalid-fields", vec!["/title"]),
        (json!({"title": null}).to_string(), 422, "invalid-fields", vec!["/title"]),
        (json!({"title": " \u{200b}"}).to_string(), 422, "invalid-fields", vec!["/title"]),
        (json!({"title": long}).to_string(), 422, "invalid-fields", vec!["/title"]),
        (json!({"title": "a\u{0}"}).to_string(), 422, "invalid-fields", vec!["/title"]),
        (json!({"title": "a", "tags": tags}).to_string(), 409, "too-many-tags", vec![]),
        (json!({"title": "a", "id": "7"}).to_string(), 422, "invalid-fields", vec!["/id"]),
        (
            json!({"title": "", "priority": "HIGH", "due_at": "2026-02-30T00:00:00Z", "tags": ["ok", "a,b"]})
                .to_string(),
            422,
            "invalid-fields",
            vec!["/due_at", "/priority", "/tags/1", "/title"],
        ),
        (json!({"title": 1, "priority": "HIGH"}).to_string(), 400, "malformed-body", vec!["/priority", "/title"]),
        (json!({"title": "a", "status": "pending"}).to_string(), 400, "malformed-body", vec!["/status"]),
        (
            json!({"title": "a", "occurred_at": "2013-01-01T00:00:00Z"}).to_string(),
            400,
            "malformed-body",
            vec!["/occurred_at"],
        ),
        ("[]".into(), 400, "malformed-body", vec![""]),
        ("null".into(), 400, "malformed-body", vec![""]),
        ("{\"title\":\"a\",\"title\":\"a\"}".into(), 400, "malformed-body", vec![]),
        ("{\"title\":\"\\ud800\"}".into(), 400, "malformed-body", vec![]),
        ("{\"title\":".into(), 400, "malformed-body", vec![]),
        ("".into(), 400, "malformed-body", vec![]),
    ];
    for (body, status, code, mut pointers) in cases {
        let refused = client.post("/api/v1/tasks", &body).await;
        let mut found = refused.pointers();
        found.sort_unstable();
        pointers.sort_unstable();
        assert_eq!((refused.status, refused.code(), found), (status, code, pointers), "{body}");
    }
    for (body, status, pointer) in [
        (json!({"title": null}), 422, "/title"),
        (json!({"priority": null}), 422, "/priority"),
        (json!({"tags": [null]}), 422, "/tags/0"),
        (json!({"tags": "a"}), 400, "/tags"),
        (json!({"id": id}), 400, "/id"),
        (json!("a"), 400, ""),
    ] {
        let refused = client.patch(&id, body.clone()).await;
        assert_eq!((refused.status, refused.pointers()), (status, vec![pointer]), "{body}");
    }
    let path = format!("/api/v1/tasks/{id}/start");
    assert_eq!(client.post(&path, "{\"force\":true}").await.pointers(), ["/force"]);
    assert_eq!(client.post(&path, "null").await.status, 400);
    assert_eq!(client.post(&path, " {} ").await.status, 200);
    assert_eq!(events(&pool).await, 2);
}

#[sqlx::test(migrations = false)]
async fn what_is_wrong_around_the_body_is_refused(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = client.task().await;
    let task = format!("/api/v1/tasks/{id}");
    let start = format!("{task}/start");
    let body = r#"{"title":"a"}"#;
    let (post, patch) = (Method::POST, Method::PATCH);
    for (method, path, headers, body, status) in [
        (&post, "/api/v1/tasks", &[][..], body, 415),
        (&post, "/api/v1/tasks", &[("content-type", "text/plain")], body, 415),
        (&post, "/api/v1/tasks", &[("content-type", "application/merge-patch+json")], body, 415),
        (&post, "/api/v1/tasks", &[JSON, ("content-encoding", "gzip")], body, 415),
        (&post, "/api/v1/tasks?dry_run=1", &[JSON], body, 400),
        (&post, "/api/v1/tasks", &[JSON, ("idempotency-key", "a b")], body, 400),
        (&post, "/api/v1/tasks", &[JSON, ("idempotency-key", "")], body, 400),
        (&post, "/api/v1/tasks", &[JSON, ("idempotency-key", "a"), ("idempotency-key", "a")], body, 400),
        (&post, "/api/v1/tasks", &[JSON, ("authorization", "Bearer x")], body, 401),
        (&patch, &task, &[JSON, ("if-match", "1")], "{}", 400),
        (&patch, &task, &[JSON, ("if-match", "W/\"1\"")], "{}", 412),
        (&patch, "/api/v1/tasks/7", &[JSON], "{}", 400),
        (&post, "/api/v1/tasks/7/start", &[], "", 400),
        (&post, &start, &[("content-type", "text/plain")], "{}", 415),
        (&Method::PUT, &task, &[JSON], "{}", 405),
        (&Method::GET, &start, &[], "", 405),
    ] {
        let refused = client.send(method.clone(), path, headers, body).await;
        assert_eq!(refused.status, status, "{method} {path} {headers:?}: {:?}", refused.body);
    }
    let put = client.send(Method::PUT, &task, &[JSON], "{}").await;
    assert!(put.header(ALLOW).is_some_and(|allow| allow.contains("PATCH") && allow.contains("DELETE")), "{put:?}");
    let large = format!(r#"{{"title":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(client.post("/api/v1/tasks", large).await.code(), "body-too-large");
    assert_eq!(events(&pool).await, 1);
}

#[sqlx::test(migrations = false)]
async fn if_match_guards_a_write_and_404_wins_over_it(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = client.task().await;
    let path = format!("/api/v1/tasks/{id}/start");
    let start = async |tag: &str| client.send(Method::POST, &path, &[(IF_MATCH.as_str(), tag)], "").await;
    for stale in ["\"2\"", "\"0\"", "\"2\", W/\"1\"", "\"abc\""] {
        let refused = start(stale).await;
        assert_eq!((refused.status, refused.code()), (412, "stale-version"), "{stale}");
    }
    assert_eq!(start("\"7\", \"1\"").await.status, 200);
    // Nothing to do, but on another version: the condition comes before the rules.
    assert_eq!(start("\"1\"").await.status, 412);
    assert_eq!(start("*").await.status, 200);
    let nowhere = format!("/api/v1/tasks/{}/start", Uuid::new_v4());
    for tag in ["\"1\"", "*"] {
        assert_eq!(client.send(Method::POST, &nowhere, &[(IF_MATCH.as_str(), tag)], "").await.status, 404);
    }
    for tag in ["\"1\"", "*"] {
        let new = [JSON, (IF_MATCH.as_str(), tag)];
        assert_eq!(client.send(Method::POST, "/api/v1/tasks", &new, r#"{"title":"a"}"#).await.status, 412, "{tag}");
    }
    let deletion = async |tag: &str| {
        client.send(Method::DELETE, &format!("/api/v1/tasks/{id}"), &[(IF_MATCH.as_str(), tag)], "").await.status
    };
    assert_eq!(deletion("\"1\"").await, 412);
    assert_eq!(deletion("\"2\"").await, 204);
    assert_eq!(deletion("\"2\"").await, 204);
}

#[sqlx::test(migrations = false)]
async fn the_same_key_gives_the_same_answer(pool: PgPool) {
    let client = Client::new(&pool).await;
    let with_key = async |method: Method, path: &str, key: &str, body: &str| {
        let headers =
            if body.is_empty() { vec![("idempotency-key", key)] } else { vec![JSON, ("idempotency-key", key)] };
        client.send(method, path, &headers, body.to_owned()).await
    };
    let first = with_key(Method::POST, "/api/v1/tasks", "k1", r#"{"title":"a","tags":["x"]}"#).await;
    let again = with_key(Method::POST, "/api/v1/tasks", "k1", r#"{ "tags":["\u0078"], "title":"a" }"#).await;
    assert_eq!((first.status, first.named("idempotent-replayed")), (201, None));
    assert_eq!(again.named("idempotent-replayed"), Some("true"));
    assert_eq!(again.essence(), first.essence());
    for (method, path, body) in [
        (Method::POST, "/api/v1/tasks", r#"{"title":"b","tags":["x"]}"#),
        (Method::POST, "/api/v1/tasks", r#"{"title":"a","tags":["x"],"description":null}"#),
        (Method::PATCH, first.header(LOCATION).unwrap(), r#"{"title":"a","tags":["x"]}"#),
    ] {
        let refused = with_key(method, path, "k1", body).await;
        assert_eq!((refused.status, refused.code()), (422, "key-reused"), "{body}");
    }
    // Kept although nothing happened, and although the task goes on.
    let path = format!("{}/reopen", first.header(LOCATION).unwrap());
    let nothing = with_key(Method::POST, &path, "k2", "").await;
    assert_eq!((nothing.status, &nothing.body["version"]), (200, &json!(1)));
    client.verb(first.body["id"].as_str().unwrap(), "start").await;
    let replayed = with_key(Method::POST, &path, "k2", "{}").await;
    assert_eq!((replayed.essence(), replayed.named("idempotent-replayed")), (nothing.essence(), Some("true")));
    // The replay comes before 404 and 412.
    let delete = with_key(Method::DELETE, first.header(LOCATION).unwrap(), "k3", "").await;
    let stale = [("idempotency-key", "k3"), ("if-match", "\"1\"")];
    let replayed = client.send(Method::DELETE, first.header(LOCATION).unwrap(), &stale, "").await;
    assert_eq!(replayed.essence(), delete.essence());
    assert_eq!(with_key(Method::POST, &path, "k2", "").await.essence(), nothing.essence());
    // A refused request leaves its key free.
    let id = client.task().await;
    client.verb(&id, "complete").await;
    let cancel = format!("/api/v1/tasks/{id}/cancel");
    assert_eq!(with_key(Method::POST, &cancel, "k4", "").await.status, 409);
    client.verb(&id, "reopen").await;
    let free = with_key(Method::POST, &cancel, "k4", "").await;
    assert_eq!((free.status, free.named("idempotent-replayed")), (200, None));
    // Keys are an account's own.
    let stranger = client.account();
    let headers = [JSON, ("idempotency-key", "k1")];
    let strangers = stranger.send(Method::POST, "/api/v1/tasks", &headers, r#"{"title":"z"}"#).await;
    assert_eq!((strangers.status, strangers.named("idempotent-replayed")), (201, None));
}

#[sqlx::test(migrations = false)]
async fn what_a_request_did_is_a_change(pool: PgPool) {
    let client = Client::new(&pool).await;
    let created = client.create(json!({"title": "a"})).await;
    let task = created.body["id"].as_str().unwrap().to_owned();
    let first: Uuid = created.named("change-id").unwrap().parse().unwrap();
    assert_eq!(client.verb(&task, "reopen").await.named("change-id"), None, "nothing happened");
    let rank = json!({"type": "RankTask", "task_id": task, "rank": "m"});
    let batch = client.batch(json!([rank, {"type": "StartTask", "task_id": task}, {"type": "TagTask"}])).await;
    let second: Uuid = batch.named("change-id").unwrap().parse().unwrap();
    assert_eq!(batch.body["change_id"], json!(second));
    assert_eq!(client.batch(json!([rank])).await.named("change-id"), None);
    let stored = "select type, coalesce(change_id, command_id) from event_store.event order by position";
    let stored: Vec<(String, Uuid)> = sqlx::query_as(stored).fetch_all(&pool).await.unwrap();
    let expected = [("TaskCreated", first), ("TaskRanked", second), ("TaskStarted", second)];
    assert_eq!(stored, expected.map(|(name, change)| (name.to_owned(), change)));

    let command_id = Uuid::new_v4();
    let tag = json!({"type": "TagTask", "task_id": task, "tag": "x", "command_id": command_id});
    let tagged = client.batch(json!([tag])).await;
    assert!(tagged.named("change-id").is_some());
    assert_eq!(client.batch(json!([tag])).await.named("change-id"), tagged.named("change-id"), "a replay");
    let both = client.batch(json!([tag, {"type": "CompleteTask", "task_id": task}])).await;
    assert!(both.named("change-id").is_some() && both.named("change-id") != tagged.named("change-id"));
}

#[sqlx::test(migrations = false)]
async fn a_hundred_equal_requests_at_once_are_one(pool: PgPool) {
    let client = Client::new(&pool).await;
    let headers = [JSON, ("idempotency-key", "once")];
    let requests = (0..100).map(|_| client.send(Method::POST, "/api/v1/tasks", &headers, r#"{"title":"a"}"#));
    let answers = join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.essence() == answers[0].essence()));
    assert_eq!(answers.iter().filter(|answer| answer.named("idempotent-replayed").is_none()).count(), 1);
    assert_eq!(events(&pool).await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_batch_decides_each_command_on_its_own(pool: PgPool) {
    let client = Client::new(&pool).await;
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    let answer = client
        .batch(json!([
            {"type": "CreateTask", "task_id": a, "title": "a", "occurred_at": "2013-01-01T00:00:00Z"},
            {"type": "StartTask", "task_id": b},
            {"type": "StartTask", "task_id": a, "occurred_at": "2012-01-01T00:00:00Z"},
            {"type": "StartTask", "task_id": a, "occurred_at": "2013-01-02T00:00:00Z", "expected_version": 1},
            {"type": "CreateTask", "task_id": b, "title": "b\u{0}"},
            {"type": "CreateTask", "task_id": b, "title": "b"},
            {"type": "CompleteTask", "task_id": a, "expected_version": 1},
            {"type": "CompleteTask", "task_id": a},
            {"type": "CancelTask", "task_id": a},
            {"type": "TagTask", "task_id": a, "tags": (0..21).map(|n| n.to_string()).collect::<Vec<_>>()},
            {"type": "RenameTask", "task_id": a, "title": "A", "occurred_at": "2100-01-01T00:00:00Z"},
            {"type": "DeleteTask", "task_id": b},
            {"type": "DeleteTask", "task_id": b},
            {"type": "CreateTask", "task_id": b, "title": "b"},
            7,
        ]))
        .await;
    assert_eq!(answer.status, 200);
    let results = answer.body["results"].as_array().unwrap();
    let statuses: Vec<i64> = results.iter().map(|result| result["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [201, 404, 422, 200, 422, 201, 412, 200, 409, 409, 422, 204, 204, 409, 400]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], index);
        match result["status"].as_i64() {
            Some(200..=299) => {
                assert!(result["version"].is_i64() && result["revision"].is_i64() && result["id"].is_string())
            }
            status => {
                assert_eq!(result["problem"]["status"].as_i64(), status);
                assert!(result["problem"]["type"].as_str().unwrap().starts_with("/problems/"));
            }
        }
    }
    assert_eq!(results[2]["problem"]["code"], "occurred-at-refused");
    assert_eq!(results[9]["problem"]["code"], "too-many-tags");
    assert_eq!((&answer.body["succeeded"], &answer.body["failed"]), (&json!(6), &json!(9)));
    assert_eq!(client.position_of(&answer), 5);
    assert_eq!(events(&pool).await, 5);
}

#[sqlx::test(migrations = false)]
async fn lines_are_a_batch_too_and_bad_ones_fail_alone(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = Uuid::new_v4();
    let mut body = format!("{{\"type\":\"CreateTask\",\"task_id\":\"{id}\",\"title\":\"a\"}}\r\n\n").into_bytes();
    body.extend_from_slice(b"{\"type\":\n{\"type\":\"StartTask\",\"type\":\"StartTask\"}\n\xff\xfe\n");
    body.extend_from_slice(format!("{{\"type\":\"StartTask\",\"task_id\":\"{id}\"}}").as_bytes());
    let answer = client.send(Method::POST, "/api/v1/commands", &[LINES], body).await;
    let statuses: Vec<_> =
        answer.body["results"].as_array().unwrap().iter().map(|result| result["status"].as_i64().unwrap()).collect();
    assert_eq!((answer.status, statuses), (200, vec![201, 400, 400, 400, 200]));
    assert_eq!(events(&pool).await, 2);
}

#[sqlx::test(migrations = false)]
async fn a_body_that_is_not_a_batch_fails_as_a_whole(pool: PgPool) {
    let client = Client::new(&pool).await;
    let line = format!("{{\"type\":\"StartTask\",\"task_id\":\"{}\"}}", Uuid::new_v4());
    let many = |count: usize| vec![line.as_str(); count];
    for (headers, body, status) in [
        (&[JSON][..], "[]".to_owned(), 400),
        (&[JSON], "{}".to_owned(), 422),
        (&[JSON], "{\"commands\":[]}".to_owned(), 422),
        (&[JSON], "{\"commands\":null}".to_owned(), 422),
        (&[JSON], "{\"commands\":{}}".to_owned(), 400),
        (&[JSON], format!("{{\"commands\":[{line}]"), 400),
        (&[JSON], format!("{{\"commands\":[{line}],\"atomic\":true}}"), 400),
        (&[JSON], format!("{{\"commands\":[{}]}}", many(10_001).join(",")), 413),
        (&[JSON, ("if-match", "*")], format!("{{\"commands\":[{line}]}}"), 400),
        (&[LINES], String::new(), 422),
        (&[LINES], "\n \n".to_owned(), 422),
        (&[LINES], many(10_001).join("\n"), 413),
        (&[("content-type", "text/csv")], line.clone(), 415),
        (&[LINES], "x".repeat((16 << 20) + 1), 413),
    ] {
        let refused = client.send(Method::POST, "/api/v1/commands", headers, body).await;
        assert_eq!(refused.status, status, "{headers:?}: {:?}", refused.body);
    }
    let full = client.send(Method::POST, "/api/v1/commands", &[LINES], many(10_000).join("\n")).await;
    assert_eq!((full.status, &full.body["failed"]), (200, &json!(10_000)));
    assert_eq!(full.named("consistency-token"), None);
}

#[sqlx::test(migrations = false)]
async fn a_command_id_has_one_effect(pool: PgPool) {
    let client = Client::new(&pool).await;
    let (task, id) = (Uuid::new_v4(), Uuid::new_v4());
    let create = json!({"type": "CreateTask", "task_id": task, "title": "a", "command_id": id});
    let first = client.batch(json!([create])).await;
    assert_eq!(first.body["results"][0]["replayed"], Value::Null);
    let again = client.batch(json!([create, create])).await;
    for result in again.body["results"].as_array().unwrap() {
        assert_eq!((&result["status"], &result["replayed"]), (&json!(201), &json!(true)));
        assert_eq!(result["revision"], first.body["results"][0]["revision"]);
    }
    let other = json!({"type": "CreateTask", "task_id": task, "title": "b", "command_id": id});
    let refused = client.batch(json!([other])).await;
    assert_eq!(refused.body["results"][0]["problem"]["code"], "command-id-reused");
    assert_eq!(events(&pool).await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_batch_under_a_key_is_one_answer(pool: PgPool) {
    let client = Client::new(&pool).await;
    let task = Uuid::new_v4();
    let send = async |key: &str, commands: &Value| {
        let headers = [JSON, ("idempotency-key", key)];
        client.send(Method::POST, "/api/v1/commands", &headers, json!({ "commands": commands }).to_string()).await
    };
    let commands = json!([
        {"type": "StartTask", "task_id": task},
        {"type": "CreateTask", "task_id": task, "title": "a"},
        {"type": "Nonsense"},
    ]);
    let first = send("b1", &commands).await;
    assert_eq!((&first.body["succeeded"], first.named("idempotent-replayed")), (&json!(1), None));
    // The task is there now, but the answer is the one that was given: the failed start stays failed.
    let again = send("b1", &commands).await;
    assert_eq!(again.named("idempotent-replayed"), Some("true"));
    assert_eq!(again.essence(), first.essence());
    let other = send("b1", &json!([{"type": "StartTask", "task_id": task}])).await;
    assert_eq!((other.status, other.code()), (422, "key-reused"));
    assert_eq!(events(&pool).await, 1);
    // Equal ones at once, at two copies of the process.
    let copy = Client { token: client.token.clone(), owner: client.owner, ..Client::new(&pool).await };
    let body = json!({"commands": [{"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "x"},
        {"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "y"}]})
    .to_string();
    let headers = [JSON, ("idempotency-key", "b2")];
    let requests = (0..20).map(|number| {
        let client = if number % 2 == 0 { &client } else { &copy };
        client.send(Method::POST, "/api/v1/commands", &headers, body.clone())
    });
    let answers = join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.essence() == answers[0].essence()), "{answers:#?}");
    assert_eq!(answers.iter().filter(|answer| answer.named("idempotent-replayed").is_none()).count(), 1);
    assert_eq!(events(&pool).await, 3);
}

/// Longer than anything takes that is bound to happen.
const SURELY: Duration = Duration::from_secs(20);

/// Two copies of the process, a task that is cancelled, and nobody can write an answer to a batch until `lock` ends.
struct AnswersHeld {
    client: Client,
    copy: Client,
    task: String,
    /// A batch that completes the task.
    body: String,
    lock: sqlx::Transaction<'static, sqlx::Postgres>,
}

impl AnswersHeld {
    async fn new(pool: &PgPool) -> Self {
        let client = Client::new(pool).await;
        let copy = Client { token: client.token.clone(), owner: client.owner, ..Client::new(pool).await };
        let task = client.task().await;
        assert_eq!(client.verb(&task, "cancel").await.status, 200);
        let body = json!({"commands": [{"type": "CompleteTask", "task_id": task}]}).to_string();
        let mut lock = pool.begin().await.unwrap();
        sqlx::query("lock table event_store.batch_answer in share mode").execute(&mut *lock).await.unwrap();
        Self { client, copy, task, body, lock }
    }

    /// The batch, under the same key each time.
    async fn batch(client: &Client, body: &str) -> Answer {
        client.send(Method::POST, "/api/v1/commands", &[JSON, ("idempotency-key", "b")], body.to_owned()).await
    }
}

/// Until so many batches have their answers, and cannot keep them: their statements wait for the lock on the table.
/// False: not within `time`.
async fn waiting_to_keep_an_answer(pool: &PgPool, batches: i64, time: Duration) -> bool {
    waiting_for_a_lock(pool, "%insert into event_store.batch_answer%", batches, time).await
}

/// Until so many of these statements wait for a lock. False: not within `time`.
async fn waiting_for_a_lock(pool: &PgPool, statement: &str, count: i64, time: Duration) -> bool {
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like $1";
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let looking = async {
        while sqlx::query_scalar::<_, i64>(waiting).bind(statement).fetch_one(pool).await.unwrap() < count {
            looks.tick().await;
        }
    };
    tokio::time::timeout(time, looking).await.is_ok()
}

#[sqlx::test(migrations = false)]
async fn equal_batches_at_two_copies_are_not_carried_out_at_once(pool: PgPool) {
    let AnswersHeld { client, copy, task, body, lock } = AnswersHeld::new(&pool).await;
    // The first has decided: a cancelled task is not completed. Its answer is on its way when that changes.
    let second = async {
        assert!(waiting_to_keep_an_answer(&pool, 1, SURELY).await);
        assert_eq!(client.verb(&task, "reopen").await.status, 200);
        AnswersHeld::batch(&copy, &body).await
    };
    let unlock = async {
        // Time for the second to carry the batch out, as it should not.
        waiting_to_keep_an_answer(&pool, 2, Duration::from_secs(1)).await;
        lock.commit().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(AnswersHeld::batch(&client, &body), second, unlock);
    assert_eq!(first.body["results"][0]["status"], 409, "{first:?}");
    assert_eq!(second.essence(), first.essence());
    assert_eq!(second.named("idempotent-replayed"), Some("true"));
    let completed = "select count(*) from event_store.event where type = 'TaskCompleted'";
    let completed: i64 = sqlx::query_scalar(completed).fetch_one(&pool).await.unwrap();
    assert_eq!(completed, 0, "what was answered 409 is not in the store");
}

#[sqlx::test(migrations = false)]
async fn one_account_s_batches_leave_turns_to_others(pool: PgPool) {
    const TURNS_EACH: usize = 4;
    let client = Client::new(&pool).await;
    let wrong = json!([{"type": "NoSuchCommand"}]);
    // apart from the pool, of which each batch that is held takes one
    let mut lock = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    sqlx::raw_sql("begin; lock table event_store.batch_answer").execute(&mut lock).await.unwrap();
    // Each gives its turn up after 5 s without an answer of the database, and waits 10 s for it. So these, of which the
    // last come later, have all turns for longer than one more waits.
    let held = join_all((0..3 * TURNS_EACH).map(|n| {
        let (client, body) = (&client, json!({ "commands": wrong }).to_string());
        async move {
            tokio::time::sleep(Duration::from_secs(if n < 2 * TURNS_EACH { 0 } else { 2 })).await;
            let key = n.to_string();
            client.send(Method::POST, "/api/v1/commands", &[JSON, ("idempotency-key", &key)], body).await
        }
    }));
    let meanwhile = async {
        let statement = "%from event_store.batch_answer%";
        assert!(waiting_for_a_lock(&pool, statement, TURNS_EACH as i64, SURELY).await);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let other = client.account();
        let others = async {
            assert_eq!(other.batch(wrong.clone()).await.status, 200);
            assert_eq!(client.verb(&Uuid::new_v4().to_string(), "start").await.status, 404, "no batch");
        };
        let (one_more, others) = tokio::join!(client.batch(wrong.clone()), tokio::time::timeout(SURELY, others));
        assert_eq!((one_more.status, one_more.code()), (503, "overloaded"));
        assert!(one_more.header(RETRY_AFTER).is_some());
        others.expect("in time");
        sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    };
    let (held, ()) = tokio::join!(held, meanwhile);
    let (answered, refused): (Vec<_>, Vec<_>) = held.iter().partition(|answer| answer.status == 200);
    assert!(
        refused.iter().all(|answer| ["unavailable", "overloaded"].contains(&answer.code())),
        "{answered:?} {refused:?}"
    );
    assert_eq!(client.batch(wrong.clone()).await.status, 200);
}

#[sqlx::test(migrations = false)]
async fn a_batch_is_taken_over_from_who_died_and_who_only_slept_answers_the_same(pool: PgPool) {
    let AnswersHeld { client, copy, task, body, lock } = AnswersHeld::new(&pool).await;
    let sleeper = AnswersHeld::batch(&client, &body);
    let other = async {
        assert!(waiting_to_keep_an_answer(&pool, 1, SURELY).await);
        let expired = "update event_store.batch_lease set expires_at = now()";
        assert_eq!(sqlx::query(expired).execute(&pool).await.unwrap().rows_affected(), 1);
        assert_eq!(client.verb(&task, "reopen").await.status, 200);
        let taken_over = async {
            assert!(waiting_to_keep_an_answer(&pool, 2, SURELY).await);
            lock.commit().await.unwrap();
        };
        tokio::join!(AnswersHeld::batch(&copy, &body), taken_over).0
    };
    let (sleeper, other) = tokio::join!(sleeper, other);
    assert_eq!((&other.body["results"][0]["status"], other.named("idempotent-replayed")), (&json!(200), None));
    assert_eq!(sleeper.essence(), other.essence());
    assert_eq!(sleeper.named("idempotent-replayed"), Some("true"));
}

/// As if each batch so far was bound by an attempt that another copy is still busy with.
async fn hold_every_lease(pool: &PgPool) {
    sqlx::raw_sql(
        "delete from event_store.batch_answer;
         insert into event_store.batch_lease (owner_id, command_id, holder, expires_at)
         select owner_id, command_id, gen_random_uuid(), now() + interval '1 hour' from event_store.command where version = 0",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrations = false)]
async fn an_equal_batch_under_way_for_over_10_s_is_409(pool: PgPool) {
    let client = Client::new(&pool).await;
    let body = json!({"commands": [{"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "x"}]}).to_string();
    let headers = [JSON, ("idempotency-key", "b")];
    let bound = client.send(Method::POST, "/api/v1/commands", &headers, body.clone()).await;
    assert_eq!(bound.status, 200);
    hold_every_lease(&pool).await;
    let refused = client.send(Method::POST, "/api/v1/commands", &headers, body).await;
    assert_eq!((refused.status, refused.code()), (409, "request-in-flight"));
}

#[sqlx::test(migrations = false)]
async fn who_waits_for_an_equal_batch_has_no_turn(pool: PgPool) {
    let client = Client::new(&pool).await;
    let body = json!({"commands": [{"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "x"}]}).to_string();
    let headers = [JSON, ("idempotency-key", "b")];
    assert_eq!(client.send(Method::POST, "/api/v1/commands", &headers, body.clone()).await.status, 200);
    hold_every_lease(&pool).await;
    // more than an account has turns
    let equal = join_all((0..5).map(|_| client.send(Method::POST, "/api/v1/commands", &headers, body.clone())));
    tokio::select! {
        biased;
        equal = equal => panic!("before the other: {equal:?}"),
        other = client.batch(json!([{"type": "NoSuchCommand"}])) => assert_eq!(other.status, 200),
    }
}

#[sqlx::test(migrations = false)]
async fn a_key_is_for_one_request_whatever_its_kind(pool: PgPool) {
    let client = Client::new(&pool).await;
    let batch = json!({"commands": [{"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "x"}]}).to_string();
    let send = async |client: &Client, path: &str, key: &str, body: &str| {
        client.send(Method::POST, path, &[JSON, ("idempotency-key", key)], body.to_owned()).await
    };
    for copy in [&client, &Client { token: client.token.clone(), owner: client.owner, ..Client::new(&pool).await }] {
        let key = Uuid::new_v4().to_string();
        assert_eq!(send(&client, "/api/v1/tasks", &key, r#"{"title":"a"}"#).await.status, 201);
        let refused = send(copy, "/api/v1/commands", &key, &batch).await;
        assert_eq!((refused.status, refused.code()), (422, "key-reused"));
        let key = Uuid::new_v4().to_string();
        assert_eq!(send(&client, "/api/v1/commands", &key, &batch).await.status, 200);
        let refused = send(copy, "/api/v1/tasks", &key, r#"{"title":"a"}"#).await;
        assert_eq!((refused.status, refused.code()), (422, "key-reused"));
    }
}

#[sqlx::test(migrations = false)]
async fn a_batch_under_a_key_that_broke_off_replays_what_succeeded_and_decides_the_rest(pool: PgPool) {
    let client = Client::new(&pool).await;
    let tasks = [Uuid::new_v4(), Uuid::new_v4()];
    let headers = [JSON, ("idempotency-key", "b")];
    let body =
        json!({"commands": tasks.map(|task| json!({"type": "CreateTask", "task_id": task, "title": "a"}))}).to_string();
    let first = client.send(Method::POST, "/api/v1/commands", &headers, body.clone()).await;
    assert_eq!(first.body["succeeded"], 2);
    // As if the process had died after the first of the two and before the answer was kept.
    sqlx::raw_sql(
        "delete from event_store.batch_answer;
         delete from event_store.command where task_id not in ('00000000-0000-0000-0000-000000000000', (select task_id from event_store.event where position = 1));
         delete from event_store.event where position = 2;
         update event_store.head set position = 1",
    )
    .execute(&pool)
    .await
    .unwrap();
    let survivor: Uuid = sqlx::query_scalar("select task_id from event_store.event").fetch_one(&pool).await.unwrap();
    let restarted = Client { token: client.token.clone(), owner: client.owner, ..Client::new(&pool).await };
    // Bound to what it was sent with, even so.
    let other = body.replace("\"a\"", "\"b\"");
    assert_eq!(restarted.send(Method::POST, "/api/v1/commands", &headers, other).await.code(), "key-reused");
    let again = restarted.send(Method::POST, "/api/v1/commands", &headers, body).await;
    for (task, result) in tasks.iter().zip(again.body["results"].as_array().unwrap()) {
        assert_eq!(result["status"], 201);
        assert_eq!(result["replayed"].as_bool(), (*task == survivor).then_some(true));
    }
    assert_eq!(again.named("idempotent-replayed"), None);
    assert_eq!(events(&pool).await, 2);
}

const IMPORTS: &str = "/api/v1/imports";
const EXPORTS: &str = "/api/v1/exports";

/// One request for a job of each kind: path, media type, body.
fn asking_for_jobs() -> [(&'static str, (&'static str, &'static str), String); 3] {
    let bulk = json!({"filter": {"status": "pending"}, "command": {"type": "StartTask"}});
    [
        (IMPORTS, LINES, "{}".to_owned()),
        (EXPORTS, JSON, json!({"format": "csv"}).to_string()),
        ("/api/v1/tasks/bulk", JSON, bulk.to_string()),
    ]
}

#[sqlx::test(migrations = false)]
async fn without_an_object_store_there_are_no_jobs(pool: PgPool) {
    let client = Client::new(&pool).await;
    for (path, media_type, body) in asking_for_jobs() {
        let refused = client.send(Method::POST, path, &[media_type], body).await;
        assert_eq!((refused.status, refused.code()), (503, "not-configured"), "{path}");
        assert!(refused.header(RETRY_AFTER).is_some(), "{path}");
    }
}

#[sqlx::test(migrations = false)]
async fn one_job_too_many_is_429_and_leaves_nothing_behind(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let export = json!({"format": "csv"});
    let mut waiting = Vec::new();
    for _ in 0..QUEUED_EACH_MAX {
        let asked = client.post(EXPORTS, &export).await;
        assert_eq!(asked.status, 202, "{asked:?}");
        waiting.push(asked.header(LOCATION).unwrap().to_owned());
    }
    for (path, media_type, body) in asking_for_jobs() {
        for headers in [&[media_type][..], &[media_type, ("idempotency-key", path)]] {
            let refused = client.send(Method::POST, path, headers, body.clone()).await;
            assert_eq!((refused.status, refused.code()), (429, "too-many-jobs"), "{path}");
            assert_eq!(refused.header(RETRY_AFTER), Some("10"), "{path}");
        }
    }
    let files = std::fs::read_dir(folder.path().join("imports")).unwrap().count();
    assert_eq!(files, 0, "of imports that were refused");
    assert_eq!(client.account().post(EXPORTS, &export).await.status, 202, "another account");
    assert_eq!(client.send(Method::DELETE, &waiting[0], &[], "").await.status, 204);
    // the key that was refused is free
    let headers = [JSON, ("idempotency-key", EXPORTS)];
    assert_eq!(client.send(Method::POST, EXPORTS, &headers, export.to_string()).await.status, 202);
}

/// It has what is known of the account, too.
#[sqlx::test(migrations = false)]
async fn no_api_key_gets_an_archive(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let service = client.service();
    let refused = service.post(EXPORTS, json!({"format": "archive"})).await;
    assert_eq!((refused.status, refused.code()), (403, "insufficient-scope"));
    assert_eq!(service.post(EXPORTS, json!({"format": "csv"})).await.status, 202);
    let asked = client.post(EXPORTS, json!({"format": "archive"})).await;
    let job = asked.header(LOCATION).unwrap();
    let written = "update jobs.job set state = 'succeeded', result_bytes = 7, finished_at = now()";
    sqlx::query(written).execute(&pool).await.unwrap();
    let refused = service.send(Method::GET, &format!("{job}/result"), &[], "").await;
    assert_eq!((refused.status, refused.code()), (403, "insufficient-scope"));
    assert_eq!(service.send(Method::GET, job, &[], "").await.status, 200);
}

#[sqlx::test(migrations = false)]
async fn a_job_is_cancelled_or_dropped_once_under_a_key(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let asked = async || client.post(EXPORTS, json!({"format": "csv"})).await.header(LOCATION).unwrap().to_owned();
    let (job, other) = (asked().await, asked().await);
    let end = async |job: &str, key: &str| client.send(Method::DELETE, job, &[("idempotency-key", key)], "").await;
    // as if it had done something before
    sqlx::query("update jobs.job set revision = 7").execute(&pool).await.unwrap();
    let cancelled = end(&job, "a").await;
    assert_eq!((cancelled.status, &cancelled.body, client.position_of(&cancelled)), (204, &Value::Null, 7));
    assert_eq!((cancelled.header(CONTENT_TYPE), cancelled.named("idempotent-replayed")), (None, None));
    let failure = "insert into jobs.error (job_id, number, problem) select id, 1, '{}' from jobs.job";
    sqlx::query(failure).execute(&pool).await.unwrap();
    let errors = async || {
        let listed = client.send(Method::GET, &format!("{job}/errors"), &[], "").await;
        listed.body["items"].as_array().unwrap().len()
    };
    let again = end(&job, "a").await;
    assert_eq!(again.essence(), cancelled.essence());
    assert_eq!((again.named("idempotent-replayed"), errors().await), (Some("true"), 1));
    let dropped = end(&job, "b").await;
    assert_eq!((dropped.status, client.position_of(&dropped), errors().await), (204, 7, 0));

    let reused = end(&other, "a").await;
    assert_eq!((reused.status, reused.code()), (422, "key-reused"));
    assert_eq!(client.send(Method::GET, &other, &[], "").await.body["state"], "queued");
    // what is refused leaves its key free
    assert_eq!(end(&format!("/api/v1/jobs/{}", Uuid::new_v4()), "c").await.code(), "not-found");
    for (header, body) in [(("if-match", "\"1\""), ""), (JSON, r#"{"a":1}"#)] {
        let refused = client.send(Method::DELETE, &other, &[header, ("idempotency-key", "c")], body).await;
        assert_eq!(refused.status, 400, "{header:?}");
    }
    assert_eq!(end(&other, "c").await.status, 204);
}

/// Else a client that keeps the latest token would go back in time.
#[sqlx::test(migrations = false)]
async fn a_write_that_changes_nothing_stands_for_the_account_s_last_event(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let (id, deleted) = (client.task().await, client.task().await);
    assert_eq!(client.position_of(&client.delete(&deleted).await), 3);
    let last = client.create(json!({"title": "b"})).await;
    assert_eq!(client.position_of(&last), 4);
    client.account().task().await;
    let nothing = [
        client.verb(&id, "reopen").await,
        client.patch(&id, json!({"title": "a"})).await,
        client.create(json!({"title": "a", "id": id})).await,
        client.delete(&deleted).await,
        client.batch(json!([{"type": "ReopenTask", "task_id": id}])).await,
        client.batch(json!([{"type": "StartTask", "task_id": deleted}])).await,
        client.post(EXPORTS, json!({"format": "csv"})).await,
    ];
    for answer in &nothing {
        assert!((200..300).contains(&answer.status), "{answer:?}");
        assert_eq!((client.position_of(answer), answer.named("change-id")), (4, None), "{answer:?}");
    }
    assert_eq!(nothing[0].body["revision"], 1, "the task's own");
    let job = nothing[6].header(LOCATION).unwrap();
    assert_eq!(client.position_of(&client.send(Method::DELETE, job, &[], "").await), 4);

    // under a key too, and the same when it is sent again
    let batch = json!({"commands": [{"type": "ReopenTask", "task_id": id}]}).to_string();
    let send = async |path: &str, key: &str, body: &str| {
        let method = if body.is_empty() { Method::DELETE } else { Method::POST };
        let headers = [("idempotency-key", key)].into_iter().chain((!body.is_empty()).then_some(JSON));
        client.send(method, path, &headers.collect::<Vec<_>>(), body.to_owned()).await
    };
    let first = [send("/api/v1/commands", "batch", &batch).await, send(job, "job", "").await];
    assert_eq!(client.position_of(&client.create(json!({"title": "c"})).await), 6);
    let again = [send("/api/v1/commands", "batch", &batch).await, send(job, "job", "").await];
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(client.position_of(first), 4, "{first:?}");
        assert_eq!((again.essence(), again.named("idempotent-replayed")), (first.essence(), Some("true")));
    }
}

/// Another copy may have done what this one knows nothing of, and under a key each answer is the first one.
#[sqlx::test(migrations = false)]
async fn no_write_stands_for_less_than_the_token_that_was_sent_with_it(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let id = client.task().await;
    let reopen = format!("/api/v1/tasks/{id}/reopen");
    let under_key = client.send(Method::POST, &reopen, &[("idempotency-key", "k")], "").await;
    assert_eq!(client.position_of(&under_key), 1);
    let last = client.create(json!({"title": "b"})).await;
    let token = ("consistency-token", last.named("consistency-token").unwrap());
    let at_copy = Client::with_jobs(&pool, folder.path()).await;
    let copy = Client { token: client.token.clone(), owner: client.owner, ..at_copy };
    let refused = json!({"commands": [{"type": "StartTask", "task_id": Uuid::new_v4()}]}).to_string();
    let key = |key| ("idempotency-key", key);
    for (path, headers, body) in [
        (&*reopen, vec![token], ""),
        (&*reopen, vec![token, key("k")], ""),
        (&*reopen, vec![token, key("k2")], ""),
        ("/api/v1/commands", vec![token, JSON], &*refused),
        ("/api/v1/commands", vec![token, JSON, key("k3")], &*refused),
        (EXPORTS, vec![token, JSON], r#"{"format":"csv"}"#),
    ] {
        let answer = copy.send(Method::POST, path, &headers, body.to_owned()).await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        assert_eq!(client.position_of(&answer), 2, "{path} {headers:?}");
    }
    let replayed = copy.send(Method::POST, &reopen, &[key("k")], "").await;
    assert_eq!(replayed.essence(), under_key.essence(), "without a token it is the first answer");
    // a later event of its own counts
    let later = copy.send(Method::POST, "/api/v1/tasks", &[token, JSON], r#"{"title":"c"}"#).await;
    assert_eq!(client.position_of(&later), 3);

    let stranger_s = client.account().create(json!({"title": "theirs"})).await;
    let stranger_s = ("consistency-token", stranger_s.named("consistency-token").unwrap());
    for bad in [stranger_s, ("consistency-token", "made-up"), ("consistency-token", "")] {
        for headers in [vec![bad, JSON], vec![bad, JSON, key("k4")]] {
            let answer = client.send(Method::POST, "/api/v1/tasks", &headers, r#"{"title":"d"}"#).await;
            assert_eq!(answer.status, 400, "{answer:?}");
        }
    }
    assert_eq!(events(&pool).await, 4, "nothing was done");
}

#[sqlx::test(migrations = false)]
async fn a_result_is_gone_after_its_time(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let asked = client.post(EXPORTS, json!({"format": "csv"})).await;
    let job = asked.header(LOCATION).unwrap();
    let result = format!("{job}/result");
    let get = async |path: &str| client.send(Method::GET, path, &[], "").await;
    assert_eq!(get(&result).await.code(), "not-found", "nobody has carried it out");
    let expired = "update jobs.job set state = 'succeeded', result_bytes = 7, started_at = now(),
                       finished_at = now() - interval '7 days', expires_at = now() - interval '1 s'";
    sqlx::query(expired).execute(&pool).await.unwrap();
    let gone = get(&result).await;
    assert_eq!((gone.status, gone.code()), (410, "result-expired"));
    assert_eq!(get(job).await.status, 404);
}

#[sqlx::test(migrations = false)]
async fn a_change_that_is_being_made_is_not_undone(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let created = client.create(json!({"title": "a"})).await;
    let change: Uuid = created.named("change-id").unwrap().parse().unwrap();
    let undo = async || client.send(Method::POST, &format!("/api/v1/changes/{change}/undo"), &[], "").await;
    // as if a batch had made it and went on, or a job
    let batch = "insert into event_store.batch_lease (owner_id, command_id, holder, expires_at, change_id)
                 values ($1, $2, gen_random_uuid(), now() + interval '1 hour', $2)";
    let job = "insert into jobs.job (id, owner_id, shard, kind, request, dry_run, correlation_id, traceparent, created_at, state)
               values ($2, $1, 0, 'bulk', '', false, '', '', now(), 'queued')";
    for (begins, ends) in [(batch, "delete from event_store.batch_lease"), (job, "delete from jobs.job")] {
        sqlx::query(begins).bind(client.owner.0).bind(change).execute(&pool).await.unwrap();
        let refused = undo().await;
        assert_eq!((refused.status, refused.code()), (409, "change-in-progress"), "{begins}");
        sqlx::query(ends).execute(&pool).await.unwrap();
    }
    assert_eq!(undo().await.status, 200);
}

/// Waits until this request, which nothing is appended for, has said which change it makes: it cannot be undone yet.
async fn is_not_undone_meanwhile(pool: &PgPool, client: &Client, request: impl Future<Output = Answer>) -> Answer {
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("select from event_store.head for update").execute(&mut *lock).await.unwrap();
    let meanwhile = async {
        let under_way = "select change_id from event_store.batch_lease";
        let began = Instant::now();
        let change: Uuid = loop {
            match sqlx::query_scalar(under_way).fetch_optional(pool).await.unwrap() {
                Some(change) => break change,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            assert!(began.elapsed() < SURELY, "nothing says which change it makes");
        };
        let undo = format!("/api/v1/changes/{change}/undo");
        for (client, status, code) in [(client, 409, "change-in-progress"), (&client.account(), 404, "not-found")] {
            let refused = client.send(Method::POST, &undo, &[], "").await;
            assert_eq!((refused.status, refused.code()), (status, code));
        }
        lock.commit().await.unwrap();
        change.to_string()
    };
    let (answer, change) = tokio::join!(request, meanwhile);
    assert_eq!((answer.status, answer.named("change-id")), (200, Some(change.as_str())));
    answer
}

#[sqlx::test(migrations = false)]
async fn what_has_no_key_is_not_undone_before_it_is_whole(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::with_jobs(&pool, folder.path()).await;
    let create = || json!({"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "a"});
    let mut made = is_not_undone_meanwhile(&pool, &client, client.batch(json!([create(), create()]))).await;
    // an undo, and a redo
    for _ in 0..2 {
        let undo = format!("/api/v1/changes/{}/undo", made.named("change-id").unwrap());
        made = is_not_undone_meanwhile(&pool, &client, client.send(Method::POST, &undo, &[], "")).await;
        assert_eq!(made.body["succeeded"], 2);
    }
    let left: i64 = sqlx::query_scalar("select count(*) from event_store.batch_lease").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

#[sqlx::test(migrations = false)]
async fn a_store_that_is_away_is_a_503_with_retry_after(pool: PgPool) {
    let client = Client::new(&pool).await;
    let id = client.task().await;
    sqlx::raw_sql("alter table event_store.event rename to away").execute(&pool).await.unwrap();
    let answer = client.verb(&id, "start").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header(RETRY_AFTER).is_some());
    assert!(!answer.body.to_string().contains("event_store"), "{:?}", answer.body);
}
