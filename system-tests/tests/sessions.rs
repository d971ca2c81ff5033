//! Access that ends, and keys that change, while everything runs: seen by every copy of every service.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::client::{Account, Api};
use system_tests::cluster::{Cluster, pool};
use system_tests::kafka::Kafka;
use system_tests::process::Process;
use system_tests::redis::Redis;
use system_tests::services::{Parts, Services};
use system_tests::wait::until;
use uuid::Uuid;

/// What the contract gives it.
const ENDED_S_MAX: u64 = 5;
const SOON: Duration = Duration::from_secs(60);

/// A copy, a path at which it asks for a token, and what a good one gets there.
fn copies(services: &Services) -> Vec<(Api, &'static str, u16)> {
    let of = |processes: &[Process; 2], path, status| processes.iter().map(|copy| (copy.api(), path, status)).collect();
    let commands: Vec<_> = of(&services.commands, "/api/v1/auth/me", 200);
    let queries: Vec<_> = of(&services.queries, "/api/v1/tasks", 200);
    // an account that is no admin is known, and may not
    let projectors: Vec<_> = of(&services.projectors, "/api/v1/admin/parked", 403);
    [commands, queries, projectors].concat()
}

async fn status(api: &Api, path: &str, token: &str) -> u16 {
    api.get(path).header("Authorization", &format!("Bearer {token}")).send().await.status
}

async fn login(account: &Account) -> (String, String) {
    let body = json!({"email": account.email, "password": account.password});
    let answer = account.api.post("/api/v1/auth/login", &body).send().await.expect(200);
    (answer.string("/access_token"), answer.string("/refresh_token"))
}

#[tokio::test]
async fn access_ends_everywhere_within_5_s_while_redis_is_away() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::start());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let api = services.api();
    let admin = services.admin().await;
    let copies = copies(&services);
    let account = api.account().await;
    redis.kill();
    for end in ["logout", "another password", "a spent refresh token", "disabled"] {
        let (token, refresh) = login(&account).await;
        let stays = login(&account).await.0;
        for (copy, path, good) in &copies {
            assert_eq!(status(copy, path, &token).await, *good, "before: {end}: {path}");
        }
        let mut mine = account.at(services.queries[0].api());
        mine.token = token.clone();
        let mut stream = mine.stream(None).await;
        stream.next(SOON).await.expect("the id");

        let bearer = format!("Bearer {token}");
        let (ended, others_end) = match end {
            "logout" => {
                let logout = api.request("POST", "/api/v1/auth/logout").header("Authorization", &bearer);
                (logout.send().await.expect(204), false)
            }
            "another password" => {
                let body = json!({"current": account.password, "new": account.password});
                let change =
                    api.request("POST", "/api/v1/auth/password").header("Authorization", &format!("Bearer {stays}"));
                (change.json(&body).send().await.expect(204), false)
            }
            "a spent refresh token" => {
                let again = || api.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh}));
                again().send().await.expect(200);
                (again().send().await.expect(401), false)
            }
            _ => {
                let path = format!("/api/v1/users/{}", account.id);
                (admin.request("PATCH", &path).json(&json!({"disabled": true})).send().await.expect(200), true)
            }
        };
        let began = Instant::now();
        drop(ended);
        let limit = Duration::from_secs(ENDED_S_MAX);
        until(&format!("{end}: seen by every copy"), limit, || async {
            for (copy, path, _) in &copies {
                if status(copy, path, &token).await != 401 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let took = began.elapsed();
        while stream.next(limit.saturating_sub(began.elapsed()) + Duration::from_secs(1)).await.is_some() {}
        println!("{end}: seen by six copies after {took:?}");
        for (copy, path, good) in &copies {
            let expected = if others_end { 401 } else { *good };
            assert_eq!(status(copy, path, &stays).await, expected, "{end}: the other session at {path}");
        }
    }
}

/// The id of a new API key, and the key.
async fn api_key(services: &Services, account: &Account, scopes: &str) -> (String, String) {
    let create = ["keys", "api", "create", "--account", &account.email, "--name", "a service", "--scope", scopes];
    let made = services.cli(&[&create[..], &["--json"]].concat(), "").await.expect(0).json();
    let text = |name: &str| made[name].as_str().expect("a string").to_owned();
    (text("id"), text("key"))
}

async fn exchange(api: &Api, key: &str) -> u16 {
    api.request("POST", "/api/v1/auth/token").header("Authorization", &format!("Bearer {key}")).send().await.status
}

#[tokio::test]
async fn an_api_key_opens_what_its_scopes_cover_and_ends_everywhere_within_5_s() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let api = services.api();
    let account = api.account().await;
    let (id, key) = api_key(&services, &account, "tasks:read").await;
    let (_, of_writer) = api_key(&services, &account, "tasks:write").await;
    let token = async |key: &str| {
        let bearer = format!("Bearer {key}");
        let answer = api.request("POST", "/api/v1/auth/token").header("Authorization", &bearer).send().await;
        answer.expect(200).string("/access_token")
    };
    let (reader, writer) = (token(&key).await, token(&of_writer).await);
    let code = async |method: &str, path: &str, token: &str| {
        let request = api.request(method, path).header("Authorization", &format!("Bearer {token}"));
        let request = if method == "POST" { request.json(&json!({"title": "of a service"})) } else { request };
        let answer = request.send().await;
        if answer.status < 400 { String::new() } else { answer.json()["code"].as_str().unwrap_or_default().to_owned() }
    };
    for (method, path, of_reader, of_writer) in [
        ("GET", "/api/v1/tasks", "", "insufficient-scope"),
        ("GET", "/api/v1/stats", "", "insufficient-scope"),
        ("GET", "/api/v1/changes", "", "insufficient-scope"),
        ("GET", "/api/v1/jobs", "", "insufficient-scope"),
        ("GET", "/api/v1/stream", "", "insufficient-scope"),
        ("POST", "/api/v1/tasks", "insufficient-scope", ""),
        ("GET", "/api/v1/auth/me", "insufficient-scope", "insufficient-scope"),
        ("GET", "/api/v1/users", "insufficient-scope", "insufficient-scope"),
        ("GET", "/api/v1/admin/parked", "insufficient-scope", "insufficient-scope"),
    ] {
        if path != "/api/v1/stream" {
            assert_eq!(code(method, path, &reader).await, of_reader, "{method} {path}");
        }
        assert_eq!(code(method, path, &writer).await, of_writer, "{method} {path}");
    }

    let copies: Vec<_> = [
        services.commands.each_ref().map(|copy| (copy.api(), "/api/v1/jobs", 200)),
        services.queries.each_ref().map(|copy| (copy.api(), "/api/v1/tasks", 200)),
        services.projectors.each_ref().map(|copy| (copy.api(), "/api/v1/admin/parked", 403)),
    ]
    .concat();
    for (copy, path, good) in &copies {
        assert_eq!(status(copy, path, &reader).await, *good, "before: {path}");
    }
    let mut mine = account.at(services.queries[0].api());
    mine.token = reader.clone();
    let mut stream = mine.stream(None).await;
    stream.next(SOON).await.expect("the id");
    services.cli(&["keys", "api", "revoke", &id], "").await.expect(0);
    let began = Instant::now();
    let limit = Duration::from_secs(ENDED_S_MAX);
    until("the revoked key: seen by every copy", limit, || async {
        for (copy, path, _) in &copies {
            if status(copy, path, &reader).await != 401 {
                return None;
            }
        }
        Some(())
    })
    .await;
    while stream.next(limit.saturating_sub(began.elapsed()) + Duration::from_secs(1)).await.is_some() {}
    assert_eq!((exchange(&api, &key).await, exchange(&api, &of_writer).await), (401, 200));
    assert_eq!(code("POST", "/api/v1/tasks", &writer).await, "", "the other key");
}

#[tokio::test]
async fn keys_rotate_and_nobody_is_shut_out() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let account = services.api().account().await;
    let copies = copies(&services);
    let kids = async |copy: &Process| -> Vec<String> {
        let jwks = copy.api().get("/.well-known/jwks.json").send().await.expect(200).json();
        let keys = jwks["keys"].as_array().expect("keys");
        keys.iter().map(|key| key["kid"].as_str().expect("kid").to_owned()).collect()
    };
    assert_eq!(kids(&services.commands[0]).await.len(), 1);
    let old = login(&account).await.0;

    let rotated = services.cli(&["keys", "rotate", "--json"], "").await.expect(0).json();
    let kid = rotated["kid"].as_str().expect("kid").to_owned();
    for copy in &services.commands {
        until("both keys are shown", SOON, || async {
            let kids = kids(copy).await;
            (kids.len() == 2 && kids.contains(&kid)).then_some(())
        })
        .await;
    }
    // from now on until the new one signs, and after: each token is good everywhere, at once
    let new = until("the new key signs", SOON, || async {
        let token = login(&account).await.0;
        for (copy, path, good) in &copies {
            assert_eq!(status(copy, path, &token).await, *good, "a new token at {path}");
            assert_eq!(status(copy, path, &old).await, *good, "the old token at {path}");
        }
        (signed_by(&token) == kid).then_some(token)
    })
    .await;
    assert_ne!(signed_by(&old), signed_by(&new));

    // the private halves are not to be read in the database
    let database = pool(&services.parts.database_url).await;
    let stored: Vec<(String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select kid, private_key, public_key from identity.signing_key")
            .fetch_all(&database)
            .await
            .expect("keys");
    assert_eq!(stored.len(), 2);
    for (kid, private, public) in stored {
        let seed = private.windows(32).any(|seed| {
            let seed: [u8; 32] = seed.try_into().expect("32 bytes");
            ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes()[..] == public[..]
        });
        assert!(!seed, "{kid} is stored in clear");
    }
    let rotations: i64 =
        sqlx::query_scalar("select count(*) from identity.audit_event where act = 'keys-rotated' and detail = $1")
            .bind(&kid)
            .fetch_one(&database)
            .await
            .expect("audit events");
    assert_eq!(rotations, 1);
    database.close().await;
}

fn signed_by(token: &str) -> String {
    use base64::Engine;
    let header = token.split('.').next().expect("a header");
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).expect("base64url");
    let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("kid").to_owned()
}

/// The first admin is made by the command line, at a server that runs; the operator's other acts are seen by it, too.
#[tokio::test]
async fn the_operator_acts_on_accounts_of_a_running_server() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let server = system_tests::server::Server::start(system_tests::server::Config::new(url)).await;
    let api = server.api();
    let email = format!("first-{}@example.com", Uuid::new_v4().simple());
    let create = ["user", "create", "--email", &email, "--admin", "--password-stdin", "--json"];
    let made = server.cli_with_input(&create, "the first password").await.expect(0).json();
    assert_eq!((made["role"].as_str(), made["email"].as_str()), (Some("admin"), Some(&*email)));
    let admin = api.log_in(Uuid::nil(), &email, "the first password").await;
    admin.request("GET", "/api/v1/users").send().await.expect(200);
    server
        .cli_with_input(&["user", "password", "--email", &email, "--password-stdin"], "the second password")
        .await
        .expect(0);
    let limit = Duration::from_secs(ENDED_S_MAX);
    until("the former password's session ends", limit, || async {
        (admin.request("GET", "/api/v1/users").send().await.status == 401).then_some(())
    })
    .await;
    let admin = api.log_in(Uuid::nil(), &email, "the second password").await;
    let list = server.cli(&["user", "list", "--json"]).await.expect(0).json();
    assert_eq!(list["items"][0]["role"], "admin");
    server.cli(&["user", "disable", "--email", &email]).await.expect(0);
    until("a disabled account's session ends", limit, || async {
        (admin.request("GET", "/api/v1/users").send().await.status == 401).then_some(())
    })
    .await;
    let login = json!({"email": email, "password": "the second password"});
    assert_eq!(api.post("/api/v1/auth/login", &login).send().await.problem(403)["code"], "account-disabled");
}
