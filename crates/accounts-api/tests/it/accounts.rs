use std::time::Duration;

use access::Role;
use axum::http::Method;
use backends::redis::{Entry, Redis};
use identity::{AccountChange, Email};
use serde_json::{Value, json};
use system_tests::redis::Redis as Server;

use crate::world::{Answer, App, router};

const ME: &str = "/api/v1/auth/me";

#[tokio::test]
async fn register_log_in_and_see_oneself() {
    let app = App::start().await;
    let made = app.register("Ann@Example.org").await;
    assert_eq!(made.status, 201);
    let mut fields: Vec<_> = made.body.as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    assert_eq!(fields, ["created_at", "email", "id", "name", "role"]);
    assert_eq!(
        (made.text("email"), made.text("name"), made.text("role")),
        ("ann@example.org".into(), "Ann".into(), "user".into())
    );
    assert_eq!(app.register("ANN@example.org").await.code(), "email-taken");

    let tokens = app.login("ann@EXAMPLE.org").await;
    assert_eq!((tokens.status, tokens.text("token_type")), (200, "Bearer".into()));
    assert_eq!(
        (tokens.body["expires_in"].as_i64(), tokens.body["refresh_expires_in"].as_i64()),
        (Some(900), Some(2_592_000))
    );
    assert_eq!(tokens.headers["cache-control"], "no-store");

    let token = tokens.text("access_token");
    let me = app.get("/api/v1/auth/me", &token).await;
    assert_eq!((me.status, &me.body), (200, &made.body));
    let renamed = app.send(Method::PATCH, "/api/v1/auth/me", &token, Some(json!({"name": "Bob"}))).await;
    assert_eq!((renamed.status, renamed.text("name")), (200, "Bob".into()));

    assert_eq!(app.get("/api/v1/auth/me", "").await.code(), "unauthenticated");
    assert_eq!(app.get("/api/v1/auth/me", &tokens.text("refresh_token")).await.status, 401);
    app.stop().await;
}

/// The key and value of what is kept of an account.
async fn kept(redis: &Redis, server: &Server, id: &str) -> (String, Vec<u8>) {
    let keys = server.ask(&["KEYS", &format!("primetrade:profile:*:{}:*", id.replace('-', ""))]);
    let keys: Vec<&str> = keys.split_whitespace().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let value = redis.get(keys[0]).await.expect("Redis answers").expect("is kept");
    (keys[0].to_owned(), value.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_sees_of_itself_is_kept_under_its_own_version() {
    let server = Server::start();
    let redis = Redis::connect(&server.url()).expect("a URL");
    redis.up().await;
    let mut app = App::start_with(Some(redis.clone())).await;
    let [this_copy, other_copy] = [app.router.clone(), router(&app.identity, Some(redis.clone()))];
    let (ann, bob) = (app.user("ann@x").await, app.user("bob@x").await);
    let me = app.get(ME, &ann).await;
    assert_eq!((me.status, me.text("name")), (200, "Ann".into()));
    assert_eq!(me.headers["content-type"], "application/json");
    let id = me.text("id");
    let (key, value) = kept(&redis, &server, &id).await;
    let ttl_ms: u64 = server.ask(&["PTTL", &key]).trim().parse().expect("a number");
    assert!((3_500_000..=3_600_000).contains(&ttl_ms), "an hour: {ttl_ms}");

    // changed there, so that it can be seen where it comes from
    let keep = async |value: Vec<u8>| {
        redis.set(vec![Entry { key: key.clone(), value, ttl_ms: 60_000 }]).await.expect("kept");
    };
    let of_redis = String::from_utf8_lossy(&value[32..]).replace("Ann", "Eve");
    keep([&value[..32], of_redis.as_bytes()].concat()).await;
    app.router = other_copy.clone();
    assert_eq!(app.get(ME, &ann).await.text("name"), "Eve");
    // what is somebody else's, or of another time, is not taken
    assert_eq!(app.get(ME, &bob).await.text("email"), "bob@x");
    let (_, of_bob) = kept(&redis, &server, &app.get(ME, &bob).await.text("id")).await;
    let of_another_time = [&value[..16], &of_bob[16..]].concat();
    for wrong in [of_bob, of_another_time, Vec::new(), value[..31].to_vec()] {
        keep(wrong).await;
        let me = app.get(ME, &ann).await;
        assert_eq!((me.text("name"), me.text("email")), ("Ann".into(), "ann@x".into()));
    }

    // whoever changes it sees it changed, everywhere and at once
    for (number, name) in ["Bea", "Cat", "Dot"].into_iter().enumerate() {
        let copies = [&this_copy, &other_copy];
        app.router = copies[number % 2].clone();
        assert_eq!(app.send(Method::PATCH, ME, &ann, Some(json!({"name": name}))).await.text("name"), name);
        for copy in copies {
            app.router = copy.clone();
            assert_eq!(app.get(ME, &ann).await.text("name"), name);
        }
    }
    let account = app.identity.accounts().find_by_email(&Email::parse("ann@x").expect("an address")).await;
    let account = account.expect("Postgres answers").expect("registered");
    let promoted = AccountChange { role: Some(Role::Admin), disabled: None };
    assert_ne!(app.identity.change(account.id, promoted).await.expect("changes").version, account.version);
    assert_eq!(app.get(ME, &ann).await.text("role"), "admin");

    server.kill();
    assert_eq!(app.get(ME, &ann).await.text("name"), "Dot");
    app.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_told_by_its_name() {
    let app = App::start().await;
    let ann = app.user("ann@x").await;
    for statement in [
        "create function identity.no_room() returns trigger language plpgsql as
         'begin raise exception ''no room'' using errcode = ''53100''; end'",
        "create trigger no_room before insert or update on identity.account for each row execute function identity.no_room()",
        "create trigger no_room before insert on identity.session for each row execute function identity.no_room()",
    ] {
        sqlx::query(statement).execute(&app.pool).await.expect("made");
    }
    let is_refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code()), (503, "disk-full"), "{}", answer.body);
        assert_eq!(answer.headers["retry-after"], "5");
    };
    let rename = async || app.send(Method::PATCH, ME, &ann, Some(json!({"name": "Bea"}))).await;
    for by_postgres in 0..3 {
        // as whoever finds out that there is room
        app.disk_space.set_refused(false);
        is_refused(&match by_postgres {
            0 => app.register("bob@x").await,
            1 => app.login("ann@x").await,
            _ => rename().await,
        });
        assert!(app.disk_space.is_refused(), "{by_postgres}: all who write there know");
    }
    for statement in ["drop trigger no_room on identity.account", "drop trigger no_room on identity.session"] {
        sqlx::query(statement).execute(&app.pool).await.expect("dropped");
    }
    // nobody has found out yet; who logs in is let through
    for refused in [app.register("bob@x").await, rename().await] {
        is_refused(&refused);
    }
    assert_eq!(app.login("ann@x").await.status, 200);
    assert_eq!(app.get(ME, &ann).await.status, 200, "reads go on");
    app.disk_space.set_refused(false);
    assert_eq!((app.register("bob@x").await.status, rename().await.status), (201, 200));
    app.stop().await;
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_get_the_same_answer() {
    let app = App::start().await;
    app.register("ann@x").await;
    let wrong = app.post("/api/v1/auth/login", "", json!({"email": "ann@x", "password": "wrong horse"})).await;
    let unknown = app.post("/api/v1/auth/login", "", json!({"email": "bob@x", "password": "wrong horse"})).await;
    let short =
        app.post("/api/v1/auth/login", "", json!({"email": "not an address".replace(' ', "-"), "password": "x"})).await;
    let comparable = |answer: &Answer| {
        let mut body = answer.body.clone();
        body["trace_id"] = Value::Null;
        (answer.status, body, answer.headers.contains_key("www-authenticate"))
    };
    assert_eq!(comparable(&wrong), comparable(&unknown));
    assert_eq!(comparable(&wrong), comparable(&short));
    assert_eq!((wrong.status, wrong.code()), (401, "invalid-credentials"));
    app.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_told_together() {
    let app = App::start().await;
    let path = "/api/v1/auth/register";
    let all = app.post(path, "", json!({"email": "x", "password": "short", "name": " "})).await;
    let pointers: Vec<_> =
        all.body["errors"].as_array().expect("errors").iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!((all.status, all.code()), (422, "invalid-fields"));
    assert_eq!(pointers, ["/email", "/password", "/name"]);
    for (body, status) in [
        (json!({"email": "a@x", "password": "12345678\u{0}", "name": "A"}), 422),
        (json!({"email": "a\u{0}@x", "password": "12345678", "name": "A"}), 422),
        (json!({"email": "a@x", "password": "x".repeat(257), "name": "A"}), 422),
        (json!({"email": "a@x", "password": "12345678", "name": null}), 422),
        (json!({"email": "a@x", "password": "12345678"}), 422),
        (json!({"email": "a@x", "password": 12_345_678, "name": "A"}), 400),
        (json!({"email": "a@x", "password": "12345678", "name": "A", "role": "admin"}), 400),
        (json!([]), 400),
    ] {
        let answer = app.post(path, "", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(!answer.body.to_string().contains("12345678"), "{}", answer.body);
    }
    let large = app.post("/api/v1/auth/login", "", json!({"email": "a@x", "password": "x".repeat(1 << 20)})).await;
    assert_eq!(large.status, 413);
    let long = app.post("/api/v1/auth/login", "", json!({"email": "a@x", "password": "x".repeat(1 << 19)})).await;
    assert_eq!(long.status, 422);
    app.stop().await;
}

#[tokio::test]
async fn refresh_and_logout() {
    let app = App::start().await;
    app.register("ann@x").await;
    let first = app.login("ann@x").await;
    let refresh = async |token: String| app.post("/api/v1/auth/refresh", "", json!({"refresh_token": token})).await;
    let (a, b) = tokio::join!(refresh(first.text("refresh_token")), refresh(first.text("refresh_token")));
    let (second, other) = if a.status == 200 { (a, b) } else { (b, a) };
    assert_eq!((second.status, other.status, other.code()), (200, 409, "refresh-in-flight"));
    assert_ne!(second.text("refresh_token"), first.text("refresh_token"));
    let token = second.text("access_token");
    assert_eq!(app.get("/api/v1/auth/me", &token).await.status, 200);

    let reused = refresh(first.text("refresh_token")).await;
    assert_eq!((reused.status, reused.code()), (401, "invalid-refresh-token"));
    assert_eq!(app.get("/api/v1/auth/me", &token).await.status, 401);
    assert_eq!(refresh(second.text("refresh_token")).await.status, 401);

    let tokens = app.login("ann@x").await;
    let token = tokens.text("access_token");
    assert_eq!(app.send(Method::POST, "/api/v1/auth/logout", &token, None).await.status, 204);
    assert_eq!(app.get("/api/v1/auth/me", &token).await.status, 401);
    assert_eq!(refresh(tokens.text("refresh_token")).await.status, 401);
    assert_eq!(refresh("nonsense".into()).await.status, 401);
    app.stop().await;
}

#[tokio::test]
async fn a_password_is_changed() {
    let app = App::start().await;
    let token = app.user("ann@x").await;
    let other = app.login("ann@x").await.text("access_token");
    let path = "/api/v1/auth/password";
    let wrong = app.post(path, &token, json!({"current": "wrong horse", "new": "new horse"})).await;
    assert_eq!((wrong.status, wrong.code()), (403, "wrong-password"));
    assert_eq!(app.post(path, &token, json!({"current": "correct horse", "new": "short"})).await.status, 422);
    assert_eq!(app.post(path, &token, json!({"current": "correct horse", "new": "new horse"})).await.status, 204);
    assert_eq!(app.get("/api/v1/auth/me", &token).await.status, 200);
    assert_eq!(app.get("/api/v1/auth/me", &other).await.status, 401);
    assert_eq!(app.login("ann@x").await.status, 401);
    app.stop().await;
}

#[tokio::test]
async fn only_an_admin_sees_and_changes_accounts() {
    let app = App::start().await;
    let user = app.user("ann@x").await;
    let admin = app.admin("root@x").await;
    let id = app.get("/api/v1/auth/me", &user).await.text("id");
    let path = format!("/api/v1/users/{id}");
    let patch = async |token: &str, body: Value| app.send(Method::PATCH, &path, token, Some(body)).await;

    assert_eq!(app.get("/api/v1/users", "").await.status, 401);
    assert_eq!(app.get("/api/v1/users", &user).await.code(), "forbidden");
    assert_eq!(patch(&user, json!({"role": "admin"})).await.status, 403);

    let first = app.get("/api/v1/users?limit=1", &admin).await;
    assert_eq!((first.status, first.body["items"][0]["email"].as_str()), (200, Some("ann@x")));
    assert_eq!(first.body["items"][0]["disabled"], false);
    let link = first.headers["link"].to_str().expect("ASCII");
    let next = link.strip_prefix('<').and_then(|link| link.split('>').next()).expect("a link");
    let second = app.get(next, &admin).await;
    assert_eq!(
        (second.body["items"][0]["email"].as_str(), &second.body["next_cursor"]),
        (Some("root@x"), &Value::Null)
    );
    assert_eq!(app.get("/api/v1/users?cursor=AAAA", &admin).await.code(), "invalid-cursor");
    assert_eq!(app.get("/api/v1/users?limit=0", &admin).await.status, 400);

    assert_eq!(patch(&admin, json!({"role": "root"})).await.status, 422);
    assert_eq!(patch(&admin, json!({"disabled": null})).await.status, 422);
    assert_eq!(patch(&admin, json!({"disabled": "yes"})).await.status, 400);
    assert_eq!(patch(&admin, json!({})).await.status, 200);
    let disabled = patch(&admin, json!({"disabled": true})).await;
    assert_eq!((disabled.status, &disabled.body["disabled"]), (200, &Value::Bool(true)));
    assert_eq!(app.get("/api/v1/auth/me", &user).await.status, 401);
    assert_eq!(app.login("ann@x").await.code(), "account-disabled");
    let nobody = format!("/api/v1/users/{}", uuid::Uuid::new_v4());
    assert_eq!(app.send(Method::PATCH, &nobody, &admin, Some(json!({}))).await.status, 404);
    assert_eq!(app.send(Method::PATCH, "/api/v1/users/x", &admin, Some(json!({}))).await.status, 400);
    app.stop().await;
}

#[tokio::test]
async fn an_admin_reads_the_audit_events() {
    let app = App::start().await;
    let user = app.user("ann@x").await;
    let admin = app.admin("root@x").await;
    let path = "/api/v1/users/audit";
    assert_eq!(app.get(path, "").await.status, 401);
    assert_eq!(app.get(path, &user).await.code(), "forbidden");
    let id = app.get("/api/v1/auth/me", &user).await.text("id");
    app.send(Method::PATCH, &format!("/api/v1/users/{id}"), &admin, Some(json!({"disabled": true}))).await;

    let all = app.get(path, &admin).await;
    let acts = |answer: &Answer| -> Vec<String> {
        let items = answer.body["items"].as_array().expect("items");
        items.iter().map(|item| item["act"].as_str().expect("an act").to_owned()).collect()
    };
    let newest_first = [
        "audit-read",
        "account-disabled",
        "login-succeeded",
        "role-changed",
        "account-created",
        "login-succeeded",
        "account-created",
    ];
    assert_eq!(acts(&all), newest_first);
    let disabled = &all.body["items"][1];
    let mut fields: Vec<_> = disabled.as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    assert_eq!(
        fields,
        ["account_id", "act", "actor", "client_address", "detail", "id", "occurred_at", "session_id", "trace_id"]
    );
    let admin_id = app.get("/api/v1/auth/me", &admin).await.text("id");
    assert_eq!(disabled["actor"], json!({"type": "account", "id": admin_id}));
    assert_eq!(disabled["account_id"], id);
    assert_eq!(disabled["trace_id"].as_str().map(str::len), Some(32));

    assert_eq!(
        acts(&app.get(&format!("{path}?account={id}&act=account-disabled,login-failed"), &admin).await),
        ["account-disabled"]
    );
    let first = app.get(&format!("{path}?account={id}&limit=2"), &admin).await;
    assert_eq!(acts(&first), ["account-disabled", "login-succeeded"]);
    let link = first.headers["link"].to_str().expect("ASCII");
    let next = link.strip_prefix('<').and_then(|link| link.split('>').next()).expect("a link");
    let second = app.get(next, &admin).await;
    assert_eq!((acts(&second), &second.body["next_cursor"]), (vec!["account-created".to_owned()], &Value::Null));
    let cursor = first.text("next_cursor");
    for (query, code) in [
        (format!("cursor={cursor}"), "invalid-cursor"),
        (format!("account={id}&act=login-failed&cursor={cursor}"), "invalid-cursor"),
        ("cursor=AAAA".to_owned(), "invalid-cursor"),
        ("act=everything".to_owned(), "invalid-parameter"),
        ("act=".to_owned(), "invalid-parameter"),
        ("account=me".to_owned(), "invalid-parameter"),
        ("limit=0".to_owned(), "invalid-parameter"),
        ("actor=x".to_owned(), "invalid-parameter"),
    ] {
        let refused = app.get(&format!("{path}?{query}"), &admin).await;
        assert_eq!((refused.status, refused.code()), (400, code), "{query}");
    }
    assert_eq!(app.send(Method::PATCH, path, &admin, Some(json!({}))).await.status, 405);
    // each page that was shown, this one included
    let reads = app.get(&format!("{path}?act=audit-read"), &admin).await;
    assert_eq!(acts(&reads), ["audit-read"; 5]);
    app.stop().await;
}

#[tokio::test]
async fn what_takes_no_parameters_refuses_them() {
    let app = App::start().await;
    let admin = app.admin("root@x").await;
    let body = || Some(json!({"email": "ann@x", "password": "correct horse", "name": "Ann"}));
    for (method, path, body) in [
        (Method::POST, "/api/v1/auth/register?a=1", body()),
        (Method::POST, "/api/v1/auth/login?next=/", body()),
        (Method::POST, "/api/v1/auth/logout?all", None),
        (Method::GET, "/api/v1/auth/me?a=1", None),
        (Method::GET, "/api/v1/users?a=1", None),
        (Method::GET, "/.well-known/jwks.json?a=1", None),
    ] {
        let answer = app.send(method, path, &admin, body).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid-parameter"), "{path}");
    }
    assert_eq!(app.get("/api/v1/auth/me?", &admin).await.status, 200);
    assert_eq!(app.get("/api/v1/users?limit=1", &admin).await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn jwks_is_public() {
    let app = App::start().await;
    let jwks = app.get("/.well-known/jwks.json", "").await;
    assert_eq!((jwks.status, jwks.body["keys"][0]["crv"].as_str()), (200, Some("Ed25519")));
    assert_eq!(jwks.body["keys"][0].get("d"), None);
    assert_eq!(jwks.headers["cache-control"], "public, max-age=5");
    app.stop().await;
}

#[tokio::test]
async fn five_hundred_logins_at_once_are_answered_or_told_to_come_again() {
    let app = App::start().await;
    app.register("ann@x").await;
    let all = futures_util::future::join_all((0..500).map(|_| app.login("ann@x")));
    let answers = tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time");
    for answer in &answers {
        assert!(answer.status == 200 || (answer.status == 503 && answer.headers.contains_key("retry-after")));
    }
    assert!(answers.iter().any(|answer| answer.status == 200) && answers.iter().any(|answer| answer.status == 503));
    assert_eq!(app.login("ann@x").await.status, 200);
    app.stop().await;
}
