//! The OpenAPI document from outside: a contract test that knows nothing but the document, a client made of it, and the
//! pages that show it. (Every other test's answers are held against it, too: `system_tests::document`.)

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use system_tests::client::{Account, Api};
use system_tests::cluster::{Cluster, unique};
use system_tests::document;
use system_tests::server::{Config, Server};
use uuid::Uuid;

async fn started() -> Server {
    let cluster = Cluster::shared();
    Server::start(Config::new(cluster.url(&cluster.create_database().await))).await
}

async fn admin(server: &Server) -> Account {
    let (email, password) = (format!("admin-{}@example.com", unique()), "the admin's own password");
    let arguments = ["user", "create", "--email", &email, "--name", "An Admin", "--admin", "--password-stdin"];
    server.cli_with_input(&arguments, password).await.expect(0);
    server.api().log_in(Uuid::nil(), &email, password).await
}

/// A script of `bin/lib`, on this server.
async fn script(name: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join("bin/lib").join(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = system_tests::server::run_within(SCRIPT_MS_MAX, command, "").await;
    assert_eq!(run.code, 0, "{name}: {}\n{}", run.out, run.err);
}

/// Also on a machine where what it needs is to be installed first.
const SCRIPT_MS_MAX: u64 = 900_000;

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let server = started().await;
    let admin = admin(&server).await;
    script("contract", &[server.api().base(), &admin.token]).await;
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_generated_client_works() {
    let server = started().await;
    script("generated-client", &[server.api().base()]).await;
}

#[tokio::test]
async fn the_document_is_served_as_it_is_committed() {
    let server = started().await;
    let served = server.api().get("/openapi.json").send().await.expect(200).json();
    let committed: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    assert_eq!(served, committed);
}

/// What needs a token says 401 without one, as its description has it; what needs none does not.
#[tokio::test]
async fn who_may_call_what() {
    let server = started().await;
    let api: Api = server.api();
    let mut asked = 0;
    for (method, path, operation) in document::operations() {
        let takes_token = operation["security"] != json!([]);
        // what is only read, or refused before anything is done
        if takes_token || method == "get" {
            let path = path.replace("{id}", &Uuid::nil().to_string()).replace("{code}", "internal");
            let path = path.replace("{file}", "start.js");
            let answer = api.request(&method.to_uppercase(), &path).send().await;
            assert_eq!(answer.status == 401, takes_token, "{method} {path}: {}", answer.text());
            asked += 1;
        }
    }
    assert!(asked > 25, "{asked} operations");
}

/// Operations that need no token, by the names that the document has for them.
const FOR_ANYBODY: [&str; 12] = [
    "docs",
    "docsFile",
    "explainProblem",
    "keys",
    "livez",
    "login",
    "metrics",
    "openapi",
    "operationsGuide",
    "readyz",
    "refresh",
    "register",
];
/// Those that take an API key itself.
const FOR_API_KEYS: [&str; 1] = ["exchangeApiKey"];
/// Those that no scope covers: of the account, and of admins.
const FOR_SESSIONS: [&str; 12] = [
    "changePassword",
    "changeUser",
    "endSession",
    "listAuditEvents",
    "listParked",
    "listSessions",
    "listUsers",
    "logout",
    "renameAccount",
    "retryParked",
    "showAccount",
    "showProjections",
];
const SCOPES: [&str; 2] = ["tasks:read", "tasks:write"];

/// The access token of a new API key.
async fn token_of_key(server: &Server, account: &Account, scope: &str) -> String {
    let create = ["keys", "api", "create", "--account", &account.email, "--name", scope, "--scope", scope, "--json"];
    let key = server.cli(&create).await.expect(0).json()["key"].as_str().expect("a key").to_owned();
    let exchange = server.api().request("POST", "/api/v1/auth/token");
    exchange.header("Authorization", &format!("Bearer {key}")).send().await.expect(200).string("/access_token")
}

/// Every operation of the document: a token of an API key opens what its scope covers and nothing else. An operation that is
/// added belongs to one of the lists above, or takes one scope. (The keys are an admin's: none is refused for the role.)
#[tokio::test]
async fn an_api_key_s_scope_opens_the_operations_that_name_it_and_no_other() {
    let server = started().await;
    let admin = admin(&server).await;
    let mut tokens = Vec::new();
    for scope in SCOPES {
        tokens.push((scope, token_of_key(&server, &admin, scope).await));
    }
    let api = server.api();
    let (mut for_anybody, mut for_api_keys, mut for_sessions) = (Vec::new(), Vec::new(), Vec::new());
    let mut covered = [0; SCOPES.len()];
    for (method, path, operation) in document::operations() {
        let name = operation["operationId"].as_str().expect("a name");
        let security =
            operation["security"].as_array().unwrap_or_else(|| panic!("{name} does not say who may call it"));
        let Some(taken) = security.first().and_then(Value::as_object) else {
            for_anybody.push(name);
            continue;
        };
        let Some(scopes) = taken.get("access_token").and_then(Value::as_array) else {
            for_api_keys.push(name);
            continue;
        };
        assert!(scopes.len() <= 1 && scopes.iter().all(|scope| SCOPES.iter().any(|known| scope == known)), "{name}");
        if scopes.is_empty() {
            for_sessions.push(name);
        }
        let path = path.replace("{id}", &Uuid::nil().to_string());
        for (number, (scope, token)) in tokens.iter().enumerate() {
            let request = |method: &str| api.request(method, &path).header("Authorization", &format!("Bearer {token}"));
            let what = format!("{name}, {method} {path} with {scope}");
            if scopes.iter().any(|covering| covering == scope) {
                // that a body is missing, and the task, is told after what is wrong with the token
                let status = if name == "followTasks" {
                    request("GET").stream().await.status
                } else {
                    request(&method.to_uppercase()).send().await.status
                };
                assert!(status < 500 && ![401, 403].contains(&status), "{what}: {status}");
                covered[number] += 1;
                continue;
            }
            let refused = request(&method.to_uppercase()).send().await;
            assert_eq!(refused.problem(403)["code"], "insufficient-scope", "{what}");
            let needed = scopes.first().and_then(Value::as_str).map(|scope| format!(", scope=\"{scope}\""));
            let challenge = "Bearer realm=\"primetrade\", error=\"insufficient_scope\"";
            let challenge = format!("{challenge}{}", needed.unwrap_or_default());
            assert_eq!(refused.must("WWW-Authenticate"), challenge, "{what}");
            if method == "get" {
                assert_eq!(request("HEAD").send().await.status, 403, "HEAD, {what}");
            }
        }
    }
    for names in [&mut for_anybody, &mut for_api_keys, &mut for_sessions] {
        names.sort_unstable();
    }
    assert_eq!(for_anybody, FOR_ANYBODY, "operations that need no token");
    assert_eq!(for_api_keys, FOR_API_KEYS, "operations that take an API key");
    assert_eq!(for_sessions, FOR_SESSIONS, "operations that no scope covers");
    assert!(covered.iter().all(|operations| *operations > 10), "{covered:?}");
}

/// What somebody has written is data: the pages that are shown to people hold none of it, and run no script but the
/// binary's own.
#[tokio::test]
async fn a_script_is_kept_and_never_run() {
    let script = "<script>alert(1)</script>";
    let server = started().await;
    let api = server.api();
    let before = api.get("/docs").send().await.expect(200).text();
    let account = api.account().await;
    let body = json!({"title": script, "description": script, "tags": [script]});
    let id = account.create(body).await;
    let task = account.read(&format!("/api/v1/tasks/{id}")).await;
    assert!(task.text().contains(&format!("\"title\":\"{script}\"")), "kept byte for byte: {}", task.text());
    assert_eq!(task.must("Content-Type"), "application/json");
    assert_eq!(task.must("X-Content-Type-Options"), "nosniff", "and no browser takes it for a page");

    let docs = api.get("/docs").send().await.expect(200);
    let page = docs.text();
    assert_eq!(page, before, "the same for everybody, whatever there is");
    let policy = docs.must("Content-Security-Policy");
    let directive = |name: &str| policy.split("; ").find_map(|directive| directive.strip_prefix(name)).map(str::trim);
    assert_eq!(directive("default-src "), Some("'none'"));
    assert_eq!(directive("script-src "), Some("'self'"), "none within the page, nothing that is made at run time");
    assert_eq!(directive("connect-src "), Some("'self'"));
    assert_eq!(directive("base-uri "), Some("'none'"));
    // each script of the page is one of the binary, and what it shows is the document: nobody's data
    let sources: Vec<&str> = page.split("<script").skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
    assert_eq!(sources, [" src=\"/docs/scalar.js\"", " src=\"/docs/start.js\""]);
    assert!(!page.contains(" on"), "no handler in an attribute: {page}");
    for path in ["/docs/start.js", "/openapi.json"] {
        let served = api.get(path).send().await.expect(200);
        assert_eq!(served.must("X-Content-Type-Options"), "nosniff");
        assert!(!served.text().contains("alert(1)"), "{path}");
    }
    // nor does it get into a page by the way it is asked for
    for path in ["/docs?q=%3Cscript%3Ealert(1)%3C/script%3E", "/docs/%3Cscript%3Ealert(1)%3C%2Fscript%3E"] {
        let answer = api.get(path).send().await;
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert_eq!(answer.must("Content-Type"), "application/problem+json");
        assert!(!answer.text().contains("<script"), "{}", answer.text());
    }
}

/// Codes lead to their pages, and nothing of a request gets into a page.
#[tokio::test]
async fn an_error_leads_to_its_explanation() {
    let server = started().await;
    let api = server.api();
    let problem = api.get("/api/v1/tasks").send().await.problem(401);
    let page = api.get(problem["type"].as_str().unwrap()).send().await.expect(200);
    assert_eq!(page.must("Content-Type"), "text/html; charset=utf-8");
    assert!(page.must("Content-Security-Policy").starts_with("default-src 'none'"));
    assert!(page.text().contains(problem["title"].as_str().unwrap()), "{}", page.text());
    let problem = api.get("/problems/%3Cscript%3Ealert(1)%3C%2Fscript%3E").send().await.problem(404);
    assert!(!problem.to_string().contains("script"), "{problem}");
}
