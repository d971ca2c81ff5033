//! A case is a request and the one answer that it may get. All families go to one server, one family at a time, and after
//! each case the same is asked: was it exactly this refusal, is nothing stored, does the server answer the next request.
//!
//! ```text
//! #[tokio::test]
//! async fn titles() {
//!     family("titles", async |target| {
//!         let post = |body: &str| target.account.request("POST", "/api/v1/tasks").body("application/json", body);
//!         vec![
//!             Case::new("blank", post(r#"{"title":" "}"#), 422, "invalid-fields"),
//!             Case::raw("not HTTP", b"hello\r\n\r\n", Refused::ByParser(400)),
//!         ]
//!     })
//!     .await;
//! }
//! ```

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use system_tests::client::{Account, Answer, Api, Request, check_problem};
use system_tests::cluster::{Cluster, pool};
use system_tests::raw_http;
use system_tests::server::{Config, Server};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// An answer takes at most the 30 s that a body may take, and a while.
const ANSWER_MS_MAX: u64 = 60_000;

/// Each family with as many cases as it has at least: none goes unnoticed.
const FAMILIES: [(&str, usize); 20] = [
    ("JSON of a new task", 80),
    ("JSON of a patch", 60),
    ("JSON of an action", 6),
    ("JSON of a batch", 18),
    ("login", 34),
    ("registration", 32),
    ("sessions and passwords", 26),
    ("owners: ids", 49),
    ("owners: cursors, tokens, tags", 30),
    ("framing", 21),
    ("requests that are none", 19),
    ("methods, paths and encodings", 40),
    ("JWT headers", 87),
    ("JWT claims", 57),
    ("JWT signatures and forms", 40),
    ("Authorization by hand", 5),
    ("roles", 8),
    ("values of a new task", 82),
    ("values of a patch", 69),
    ("values of paths and queries", 35),
];
/// Of all families together.
const CASES_MIN: usize = 120;

#[test]
fn there_are_enough_cases_and_no_family_is_gone() {
    let sources = [
        include_str!("json.rs"),
        include_str!("login.rs"),
        include_str!("owners.rs"),
        include_str!("raw_http.rs"),
        include_str!("tokens.rs"),
        include_str!("values.rs"),
    ];
    for (name, _) in FAMILIES {
        let told = format!("\"{name}\"");
        assert!(sources.iter().any(|source| source.contains(&told)), "the family {name} is gone");
    }
    assert!(FAMILIES.iter().map(|(_, least)| least).sum::<usize>() >= CASES_MIN);
}

/// A bad request, and what it gets.
pub struct Case {
    /// What is bad about it.
    pub name: String,
    request: Sent,
    expected: Refused,
}

enum Sent {
    Request(Request),
    Bytes(Vec<u8>),
}

/// How a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// With a problem of this status and code.
    With(u16, &'static str),
    /// By the HTTP parser, with this status and no body; 0: the connection is closed without an answer.
    ByParser(u16),
}

impl Case {
    /// A request of the client, refused with this status and code.
    pub fn new(name: impl Into<String>, request: Request, status: u16, code: &'static str) -> Case {
        Case { name: name.into(), request: Sent::Request(request), expected: Refused::With(status, code) }
    }

    /// Bytes on a socket; they must ask for `Connection: close`.
    pub fn raw(name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Refused) -> Case {
        Case { name: name.into(), request: Sent::Bytes(bytes.into()), expected }
    }
}

/// Where the cases go. Its rate limits are off: each case is to be judged by itself.
pub struct Target {
    /// The server.
    pub server: Arc<Server>,
    /// Its client, without an account.
    pub api: Api,
    /// An account of the family's own, without tasks.
    pub account: Account,
    /// Its database.
    pub database: PgPool,
    _alone: MutexGuard<'static, ()>,
}

static SERVER: OnceCell<Arc<Server>> = OnceCell::const_new();
/// What is stored is counted for all of the server: one family at a time.
static ONE_FAMILY: Mutex<()> = Mutex::const_new(());

/// Puts together a family's cases, sends one after the other, and prints how many there are.
pub async fn family(name: &str, cases: impl AsyncFnOnce(Arc<Target>) -> Vec<Case>) {
    let target = Arc::new(target().await);
    let server = &target.server;
    let cases = cases(Arc::clone(&target)).await;
    let count = cases.len();
    let least = FAMILIES.iter().find(|(family, _)| *family == name).map_or(1, |(_, least)| *least);
    assert!(count >= least, "{name}: {count} cases, there were {least}");
    let pid = server.pid();
    let mut stored = Stored::look(&target.database).await;
    for case in cases {
        let what = format!("{name}: {}", case.name);
        judge(&target.api, case, &what).await;
        let now = Stored::look(&target.database).await;
        assert_eq!(now, stored, "{what}: something was stored");
        stored = now;
        let next = target.account.request("GET", "/api/v1/auth/me").send().await;
        assert_eq!(next.status, 200, "{what}: the next request: {}", next.text());
    }
    assert_eq!(server.pid(), pid, "{name}: the same process");
    let log = server.log();
    assert!(!log.contains("panicked"), "{name}: {log}");
    // past the capture of tests that pass
    let _ = writeln!(std::io::stderr(), "bad input, {name}: {count} cases");
    target.database.close().await;
}

/// The target by itself, for what no table holds. Nobody else sends it anything meanwhile.
pub async fn target() -> Target {
    let alone = ONE_FAMILY.lock().await;
    let server = Arc::clone(SERVER.get_or_init(start).await);
    let api = server.api();
    let account = api.account().await;
    let database = pool(server.database_url()).await;
    Target { server, api, account, database, _alone: alone }
}

async fn start() -> Arc<Server> {
    let cluster = Cluster::shared();
    Arc::new(Server::start(Config::new(cluster.url(&cluster.create_database().await))).await)
}

async fn judge(api: &Api, case: Case, what: &str) {
    match case.request {
        Sent::Request(request) => {
            let answer = request.try_send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let Refused::With(status, code) = case.expected else { panic!("{what}: a client knows no parser") };
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
            refused_as(&problem_of(&answer), status, code, what);
        }
        Sent::Bytes(bytes) => {
            let answer = raw_http::exchange(api.authority(), &bytes, Duration::from_millis(ANSWER_MS_MAX)).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let media_type = "\r\ncontent-type: application/problem+json";
            match case.expected {
                Refused::With(status, code) => {
                    assert_eq!(raw_http::status(&answer), status, "{what}: {answer:.500}");
                    assert!(head.to_lowercase().contains(media_type), "{what}: {head}");
                    let body = body.find('{').zip(body.rfind('}')).map(|(from, to)| &body[from..=to]);
                    let problem = serde_json::from_str(body.unwrap_or_default());
                    let problem = problem.unwrap_or_else(|error| panic!("{what}: {error}: {answer:.500}"));
                    refused_as(&problem, status, code, what);
                }
                Refused::ByParser(status) => {
                    assert_eq!(raw_http::status(&answer), status, "{what}: {answer:.500}");
                    assert_eq!(body.trim(), "", "{what}");
                }
            }
        }
    }
}

fn problem_of(answer: &Answer) -> Value {
    answer.problem(answer.status)
}

/// Problem, status, code, trace id.
fn refused_as(problem: &Value, status: u16, code: &str, what: &str) {
    assert!((400..500).contains(&status), "{what}: bad input is the client's fault");
    check_problem(problem, status).unwrap_or_else(|error| panic!("{what}: {error}: {problem}"));
    assert_eq!(problem["code"], code, "{what}: {problem}");
    assert_ne!(problem["trace_id"], "0".repeat(32), "{what}: a trace id of its own");
}

/// What a refused request must not change.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    events: i64,
    outcomes: i64,
    batches: i64,
    accounts: i64,
    sessions: i64,
    /// All that an account is made of, so that a change is seen too.
    accounts_as_they_are: i64,
}

impl Stored {
    async fn look(pool: &PgPool) -> Stored {
        let (events, outcomes, batches, accounts, sessions, accounts_as_they_are) = sqlx::query_as(
            "select (select count(*) from event_store.event), (select count(*) from event_store.command), \
             (select count(*) from event_store.batch_answer), \
             (select count(*) from identity.account), (select count(*) from identity.session), \
             (select coalesce(sum(hashtextextended(a::text, 0) / 1000000), 0)::bigint from identity.account a)",
        )
        .fetch_one(pool)
        .await
        .expect("counts");
        Stored { events, outcomes, batches, accounts, sessions, accounts_as_they_are }
    }
}
