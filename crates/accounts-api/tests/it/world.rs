//! The routes of accounts on a real Postgres, without a socket.

use access::Role;
use access::token::RootSecret;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use backends::database::{self, DiskSpace, Pool};
use backends::redis::Redis;
use http_api::edge::{Edge, edge};
use http_body_util::BodyExt;
use http_server::client_address::TrustedProxies;
use identity::{AccountChange, Email, Identity, LogBeside};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub struct App {
    server: PgConnectOptions,
    database: String,
    pub pool: Pool,
    pub disk_space: DiskSpace,
    pub identity: Identity,
    pub router: Router,
}

/// `PRIMETRADE_CORS_ORIGINS`
pub const LISTED: &str = "https://app.example";

/// Behind a proxy on the same machine.
pub fn router(identity: &Identity, redis: Option<Redis>) -> Router {
    let router = accounts_api::router(identity.clone(), redis, &[LISTED.to_owned()]);
    let proxies = TrustedProxies::new(vec!["127.0.0.1".parse().expect("a network")]);
    edge(router, Edge { verifier: Some(identity.verifier()), proxies, ..Edge::default() })
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn text_of_item(&self, field: &str) -> String {
        self.body["items"][0][field].as_str().unwrap_or_default().to_owned()
    }

    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_default().to_owned()
    }
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(redis: Option<Redis>) -> Self {
        let url = std::env::var("TEST_DATABASE_URL").or_else(|_| std::env::var("DATABASE_URL"));
        let server: PgConnectOptions = url.expect("TEST_DATABASE_URL").parse().expect("a Postgres URL");
        let database = format!("test_accounts_{}", uuid::Uuid::new_v4().simple());
        let mut connection = server.connect().await.expect("Postgres answers");
        sqlx::query(AssertSqlSafe(format!("create database {database}")))
            .execute(&mut connection)
            .await
            .expect("creates");
        let pool = database::pool(10, server.clone().database(&database));
        identity::migrate(&pool).await.expect("migrates");
        let secret = RootSecret::new("a secret that is long enough for it".to_owned().into()).expect("long enough");
        let disk_space = DiskSpace::default();
        let log = LogBeside { id: uuid::Uuid::nil(), shards: vec![0], disk_space: disk_space.clone() };
        let (identity, _) =
            Identity::start(pool.clone(), &secret, log, CancellationToken::new()).await.expect("starts");
        let router = router(&identity, redis);
        Self { server, database, pool, disk_space, identity, router }
    }

    pub async fn stop(self) {
        self.pool.close().await;
        let mut connection = self.server.connect().await.expect("Postgres answers");
        let drop = AssertSqlSafe(format!("drop database {} with (force)", self.database));
        sqlx::query(drop).execute(&mut connection).await.expect("drops");
    }

    pub async fn send(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.ask(request.expect("a request")).await
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("answers");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        let is_problem = parts.headers.get("content-type").is_some_and(|value| value == "application/problem+json");
        assert_eq!(is_problem, parts.status.as_u16() >= 400, "{} {body}", parts.status);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send(Method::POST, path, token, Some(body)).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, token, None).await
    }

    pub async fn register(&self, email: &str) -> Answer {
        let body = json!({"email": email, "password": "correct horse", "name": " Ann "});
        self.post("/api/v1/auth/register", "", body).await
    }

    pub async fn login(&self, email: &str) -> Answer {
        self.post("/api/v1/auth/login", "", json!({"email": email, "password": "correct horse"})).await
    }

    /// Registers and logs in; gives back the access token.
    pub async fn user(&self, email: &str) -> String {
        assert_eq!(self.register(email).await.status, 201);
        self.login(email).await.text("access_token")
    }

    pub async fn admin(&self, email: &str) -> String {
        assert_eq!(self.register(email).await.status, 201);
        let account = self.identity.accounts().find_by_email(&Email::parse(email).expect("an address")).await;
        let id = account.expect("Postgres answers").expect("registered").id;
        let change = AccountChange { role: Some(Role::Admin), disabled: None };
        self.identity.change(id, change).await.expect("changes");
        self.login(email).await.text("access_token")
    }
}
