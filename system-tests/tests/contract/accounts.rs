use std::time::Duration;

use crate::here::{admin, api};
use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::client::{Account, Answer, Request, time};
use system_tests::wait::until;
use uuid::Uuid;

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const ME: &str = "/api/v1/auth/me";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const SESSIONS: &str = "/api/v1/auth/sessions";
/// Within which an ended session's access tokens are refused everywhere.
const ENDED: Duration = Duration::from_secs(5);

fn email() -> String {
    format!("Someone-{}@Example.com", Uuid::new_v4().simple())
}

#[tokio::test]
async fn register_log_in_me() {
    let api = api().await;
    let email = email();
    let registered = api
        .post(REGISTER, &json!({"email": email, "password": "a long password", "name": "  Ada  "}))
        .send()
        .await
        .expect(201)
        .json();
    assert_eq!(registered["email"], email.to_lowercase());
    assert_eq!(registered["name"], "Ada");
    assert_eq!(registered["role"], "user");
    time(registered["created_at"].as_str().unwrap());
    assert!(registered.get("password").is_none());

    // the address is compared in lower case
    let login = api
        .post(LOGIN, &json!({"email": email.to_uppercase(), "password": "a long password"}))
        .send()
        .await
        .expect(200);
    assert!(login.must("Cache-Control").contains("no-"));
    let login = login.json();
    assert_eq!(login["token_type"], "Bearer");
    assert!(login["expires_in"].as_u64().unwrap() > 0);
    assert!(login["refresh_expires_in"].as_u64() > login["expires_in"].as_u64());
    assert!(login["refresh_token"].is_string());

    let token = login["access_token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let me = api.get(ME).header("Authorization", &bearer).send().await.expect(200);
    assert_eq!(me.json()["id"], registered["id"]);
    assert_eq!(me.json()["email"], registered["email"]);

    let renamed = api
        .request("PATCH", ME)
        .header("Authorization", &bearer)
        .json(&json!({"name": "Countess"}))
        .send()
        .await
        .expect(200);
    assert_eq!(renamed.json()["name"], "Countess");
    let me = api.get(ME).header("Authorization", &bearer).send().await.expect(200);
    assert_eq!(me.json()["name"], "Countess");
}

#[tokio::test]
async fn the_token_is_a_jwt_of_the_published_key() {
    let api = api().await;
    let account = api.account().await;
    let parts: Vec<&str> = account.token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let header = decode_json(parts[0]);
    let claims = decode_json(parts[1]);
    assert_eq!(header["alg"], "EdDSA");
    for claim in ["iss", "aud", "sub", "sid", "role", "iat", "exp", "jti"] {
        assert!(!claims[claim].is_null(), "{claim} in {claims}");
    }
    assert_eq!(claims["sub"], account.id.to_string());
    assert_eq!(claims["role"], "user");

    let jwks = api.get("/.well-known/jwks.json").send().await.expect(200).json();
    let keys = jwks["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key that signed");
    assert_eq!(key["kty"], "OKP");
    assert_eq!(key["crv"], "Ed25519");
    assert!(key["x"].is_string());
    assert!(keys.iter().all(|key| key.get("d").is_none()), "a private key");
}

fn decode_json(part: &str) -> serde_json::Value {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for c in part.bytes() {
        let value = alphabet.iter().position(|a| *a == c).expect("base64url");
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn an_address_is_taken_once() {
    let api = api().await;
    let email = email();
    let body = json!({"email": email, "password": "a long password", "name": "First"});
    api.post(REGISTER, &body).send().await.expect(201);
    let again = json!({"email": email.to_lowercase(), "password": "another password", "name": "Second"});
    let problem = api.post(REGISTER, &again).send().await.problem(409);
    assert_eq!(problem["code"], "email-taken");
}

#[tokio::test]
async fn unknown_address_and_wrong_password_look_the_same() {
    let api = api().await;
    let account = api.account().await;
    let wrong = api.post(LOGIN, &json!({"email": account.email, "password": "not that one"})).send().await.problem(401);
    let unknown = api.post(LOGIN, &json!({"email": email(), "password": "not that one"})).send().await.problem(401);
    for field in ["code", "title", "detail", "status", "type"] {
        assert_eq!(wrong[field], unknown[field]);
    }
}

#[tokio::test]
async fn registration_is_checked() {
    let api = api().await;
    let valid = json!({"email": email(), "password": "a long password", "name": "Ada"});
    for (field, value, status) in [
        ("email", json!("no-at-sign"), 422),
        ("email", json!(format!("{}@example.com", "a".repeat(255))), 422),
        ("email", json!(7), 400),
        ("password", json!("seven77"), 422),
        ("password", json!("x".repeat(257)), 422),
        ("password", json!("eight\u{0}888"), 422),
        ("password", json!(null), 422),
        ("name", json!("   "), 422),
        ("name", json!("n".repeat(101)), 422),
        ("name", json!("tab\there"), 422),
        ("nickname", json!("unknown field"), 400),
    ] {
        let mut body = valid.clone();
        body[field] = value.clone();
        let answer = api.post(REGISTER, &body).send().await;
        let problem = answer.problem(status);
        if status == 422 {
            let pointer = format!("/{field}");
            let pointers: Vec<_> =
                problem["errors"].as_array().into_iter().flatten().map(|e| e["pointer"].clone()).collect();
            assert!(pointers.contains(&json!(pointer)), "{field} = {value}: {problem}");
        }
    }
    for field in ["email", "password", "name"] {
        let mut body = valid.clone();
        body.as_object_mut().unwrap().remove(field);
        api.post(REGISTER, &body).send().await.problem(422);
    }
    for body in [json!([email(), "a long password", "Ada"]), json!("x"), json!(null)] {
        api.post(REGISTER, &body).send().await.problem(400);
    }
    // nothing of that registered the address
    api.post(REGISTER, &valid).send().await.expect(201);
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let api = api().await;
    let account = api.account().await;
    let login =
        api.post(LOGIN, &json!({"email": account.email, "password": account.password})).send().await.expect(200);
    let first = login.string("/refresh_token");
    let path = "/api/v1/auth/refresh";
    let second = api.post(path, &json!({"refresh_token": first})).send().await.expect(200).string("/refresh_token");
    assert_ne!(first, second);
    api.post(path, &json!({"refresh_token": first})).send().await.problem(401);
    // its reuse ended the family
    api.post(path, &json!({"refresh_token": second})).send().await.problem(401);
    // the account's other sessions go on
    account.request("GET", ME).send().await.expect(200);
}

#[tokio::test]
async fn logout_ends_the_session() {
    let account = api().await.account().await;
    account.request("POST", "/api/v1/auth/logout").send().await.expect(204);
    system_tests::wait::until("the token is refused", std::time::Duration::from_secs(5), || async {
        let answer = account.request("GET", "/api/v1/tasks").send().await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_password_is_changed_with_the_current_one() {
    let api = api().await;
    let account = api.account().await;
    let path = "/api/v1/auth/password";
    let wrong = json!({"current": "not this", "new": "a newer password"});
    let problem = account.request("POST", path).json(&wrong).send().await.problem(403);
    assert_eq!(problem["code"], "wrong-password");
    let right = json!({"current": account.password, "new": "a newer password"});
    account.request("POST", path).json(&right).send().await.expect(204);
    api.post(LOGIN, &json!({"email": account.email, "password": account.password})).send().await.problem(401);
    api.log_in(account.id, &account.email, "a newer password").await;
}

#[tokio::test]
async fn users_are_for_admins() {
    let account = api().await.account().await;
    account.request("GET", "/api/v1/users").send().await.problem(403);
    let admin = admin().await;
    let page = admin.request("GET", "/api/v1/users?limit=2").send().await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    for field in ["id", "email", "name", "role", "disabled", "created_at"] {
        assert!(!page["items"][0][field].is_null(), "{field}");
    }
    let path = format!("/api/v1/users/{}", account.id);
    account.request("PATCH", &path).json(&json!({"disabled": true})).send().await.problem(403);
    let disabled = admin.request("PATCH", &path).json(&json!({"disabled": true})).send().await;
    assert_eq!(disabled.expect(200).json()["disabled"], true);
    system_tests::wait::until("the token is refused", std::time::Duration::from_secs(5), || async {
        let answer = account.request("GET", "/api/v1/tasks").send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    let right = json!({"email": account.email, "password": account.password});
    account.api.post(LOGIN, &right).send().await.problem(403);
}

/// Also what an admin does at the service without the accounts.
#[tokio::test]
async fn audit_events_say_who_did_what() {
    let api = api().await;
    let account = api.account().await;
    let admin = admin().await;
    let me: Uuid = admin.request("GET", ME).send().await.expect(200).uuid("/id");
    account.request("GET", "/api/v1/users/audit").send().await.problem(403);
    let wrong = json!({"email": account.email, "password": "not this one"});
    api.post(LOGIN, &wrong).send().await.expect(401);
    let path = format!("/api/v1/users/{}", account.id);
    admin.request("PATCH", &path).json(&json!({"disabled": true})).send().await.expect(200);
    admin.request("GET", "/api/v1/admin/parked").send().await.expect(200);
    // what takes no body is not done with one
    let retry = || admin.request("POST", &format!("/api/v1/admin/parked/{}/retry", Uuid::nil()));
    retry().json(&json!({"force": true})).send().await.problem(400);
    retry().body("text/plain", "{}").send().await.problem(415);
    retry().json(&json!({})).send().await.problem(404);

    let audit = format!("/api/v1/users/audit?account={}", account.id);
    let page = admin.request("GET", &audit).send().await.expect(200).json();
    let acts: Vec<_> = page["items"].as_array().unwrap().iter().map(|event| event["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["account-disabled", "login-failed", "login-succeeded", "account-created"]);
    let disabled = &page["items"][0];
    assert_eq!(disabled["actor"], json!({"type": "account", "id": me}));
    assert_eq!(disabled["account_id"], json!(account.id));
    time(disabled["occurred_at"].as_str().unwrap());
    assert_eq!(page["items"][1]["actor"]["type"], "anonymous");

    let of_admin = format!("/api/v1/users/audit?account={me}&act=parked-read,account-created");
    system_tests::wait::until("what was done at the projector is told", std::time::Duration::from_secs(20), || async {
        let page = admin.request("GET", &of_admin).send().await.expect(200).json();
        let read = page["items"].as_array().unwrap().iter().find(|event| event["act"] == "parked-read")?.clone();
        assert_eq!(read["actor"]["id"], json!(me));
        assert!(page["items"].as_array().unwrap().iter().any(|event| event["actor"]["type"] == "operator"));
        Some(())
    })
    .await;
}

/// Logs in as a browser does, and gives back the answer and the cookie.
async fn browser(account: &Account) -> (Answer, String) {
    let body = json!({"email": account.email, "password": account.password, "session": "cookie"});
    let login = account.api.post(LOGIN, &body).send().await.expect(200);
    let cookie = session_cookie(&login);
    (login, cookie)
}

/// `name=value` of the answer's session cookie, whose attributes are as they should be.
fn session_cookie(answer: &Answer) -> String {
    let set = answer.must("Set-Cookie");
    let mut parts = set.split("; ");
    let pair = parts.next().expect("a pair").to_owned();
    assert!(pair.starts_with("session=") && pair.len() > "session=".len() + 32, "plain HTTP on loopback: {set}");
    let mut attributes: Vec<_> = parts.collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=Strict"]);
    pair
}

/// As a page of the API's own origin sends it.
fn from_own_page(account: &Account, path: &str, cookie: &str) -> Request {
    account.api.request("POST", path).of_own_page().header("Cookie", cookie)
}

async fn ends(account: &Account, token: &str) {
    let bearer = format!("Bearer {token}");
    until("the token is refused", ENDED, || async {
        let answer = account.api.get("/api/v1/tasks").header("Authorization", &bearer).send().await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_is_kept_in_a_cookie() {
    let account = api().await.account().await;
    let (login, first) = browser(&account).await;
    let body = login.json();
    assert!(body.get("refresh_token").is_none(), "{body}");
    assert_eq!((&body["token_type"], body["access_token"].is_string()), (&json!("Bearer"), true));
    assert!(body["refresh_expires_in"].as_u64() > body["expires_in"].as_u64());
    let in_body = json!({"email": account.email, "password": account.password, "session": "token"});
    let in_body = account.api.post(LOGIN, &in_body).send().await.expect(200);
    assert!(in_body.json()["refresh_token"].is_string() && in_body.header("Set-Cookie").is_none());

    let refreshed = from_own_page(&account, REFRESH, &format!("theme=dark; {first}")).send().await.expect(200);
    assert!(refreshed.json().get("refresh_token").is_none());
    assert_eq!(refreshed.must("Cache-Control"), "no-store");
    let second = session_cookie(&refreshed);
    assert_ne!(first, second);
    // the body goes before the cookie
    let by_body = json!({"refresh_token": in_body.string("/refresh_token")});
    let by_body = from_own_page(&account, REFRESH, &second).json(&by_body).send().await.expect(200);
    assert!(by_body.json()["refresh_token"].is_string() && by_body.header("Set-Cookie").is_none());

    let logout = from_own_page(&account, LOGOUT, &second).send().await.expect(204);
    assert!(logout.must("Set-Cookie").starts_with("session=; ") && logout.must("Set-Cookie").contains("Max-Age=0"));
    from_own_page(&account, REFRESH, &second).send().await.problem(401);
    ends(&account, &refreshed.string("/access_token")).await;
    account.request("GET", ME).send().await.expect(200);
}

#[tokio::test]
async fn a_spent_cookie_ends_the_session() {
    let account = api().await.account().await;
    let (_, first) = browser(&account).await;
    let second = session_cookie(&from_own_page(&account, REFRESH, &first).send().await.expect(200));
    let problem = from_own_page(&account, REFRESH, &first).send().await.problem(401);
    assert_eq!(problem["code"], "invalid-refresh-token");
    from_own_page(&account, REFRESH, &second).send().await.problem(401);
}

#[tokio::test]
async fn refreshes_of_several_tabs_at_once_end_nothing() {
    let account = api().await.account().await;
    let (_, cookie) = browser(&account).await;
    let answers = join_all((0..4).map(|_| from_own_page(&account, REFRESH, &cookie).send())).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409]);
    for answer in answers.iter().filter(|answer| answer.status == 409) {
        assert_eq!(answer.problem(409)["code"], "refresh-in-flight");
        assert!(answer.header("Set-Cookie").is_none());
    }
    let good = answers.iter().find(|answer| answer.status == 200).expect("one");
    from_own_page(&account, REFRESH, &session_cookie(good)).send().await.expect(200);
}

#[tokio::test]
async fn the_cookie_is_taken_from_own_pages_only() {
    let account = api().await.account().await;
    let (login, cookie) = browser(&account).await;
    let own = account.api.base();
    let other_scheme = own.replace("http://", "https://");
    let other_port = format!("{}1", own.rsplit_once(':').expect("a port").0);
    for origin in [None, Some("https://evil.example"), Some("null"), Some(&*other_scheme), Some(&*other_port)] {
        for path in [REFRESH, LOGOUT] {
            let request = account.api.request("POST", path).header("Cookie", &cookie);
            let request = match origin {
                Some(origin) => request.header("Origin", origin),
                None => request,
            };
            assert_eq!(request.send().await.problem(403)["code"], "foreign-origin", "{path} {origin:?}");
        }
    }
    // a token in the body needs no origin; without either there is nothing to refresh
    account.api.post(REFRESH, &json!({"refresh_token": "x"})).header("Cookie", &cookie).send().await.problem(401);
    account.api.request("POST", REFRESH).send().await.problem(401);
    // nothing else looks at it
    for (method, path) in [("GET", ME), ("GET", SESSIONS), ("GET", "/api/v1/tasks"), ("POST", "/api/v1/tasks")] {
        let request = account.api.request(method, path).header("Origin", own).header("Cookie", &cookie);
        let request = if method == "POST" { request.json(&json!({"title": "by cookie"})) } else { request };
        request.send().await.problem(401);
    }
    // none of it ended or spent anything
    let bearer = format!("Bearer {}", login.string("/access_token"));
    account.api.get(ME).header("Authorization", &bearer).send().await.expect(200);
    from_own_page(&account, REFRESH, &cookie).send().await.expect(200);
}

#[tokio::test]
async fn an_account_sees_and_ends_its_sessions() {
    let api = api().await;
    let account = api.account().await;
    let login = json!({"email": account.email, "password": account.password});
    let agent = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0";
    let other = api.post(LOGIN, &login).header("User-Agent", agent).send().await.expect(200);
    let items = async || -> Vec<Value> {
        let page = account.request("GET", SESSIONS).send().await.expect(200).json();
        page["items"].as_array().expect("items").clone()
    };
    let sessions = items().await;
    assert_eq!(sessions.len(), 2);
    let (current, others): (Vec<_>, Vec<_>) = sessions.iter().partition(|session| session["current"] == true);
    assert_eq!((current.len(), others.len()), (1, 1));
    let session = others[0];
    assert_eq!(session["user_agent"], agent);
    assert!(session["address"].as_str().expect("an address").parse::<std::net::IpAddr>().expect("one").is_loopback());
    let [created, seen] = ["created_at", "last_seen_at"].map(|field| time(session[field].as_str().expect("a time")));
    assert_eq!(created, seen);

    let refresh = json!({"refresh_token": other.string("/refresh_token")});
    let long = "x".repeat(5000);
    let refreshed = api.post(REFRESH, &refresh).header("User-Agent", &long).send().await.expect(200);
    let sessions = items().await;
    let now = sessions.iter().find(|other| other["id"] == session["id"]).expect("still there");
    assert!(time(now["last_seen_at"].as_str().expect("a time")) > created, "{now}");
    assert_eq!(now["created_at"], session["created_at"]);
    assert!(now["user_agent"].as_str().expect("text").len() <= 256);

    let path = format!("{SESSIONS}/{}", session["id"].as_str().expect("an id"));
    let stranger = api.account().await;
    stranger.request("DELETE", &path).send().await.problem(404);
    account.request("DELETE", &format!("{SESSIONS}/{}", Uuid::now_v7())).send().await.problem(404);
    account.request("DELETE", &format!("{SESSIONS}/current")).send().await.problem(400);
    api.request("DELETE", &path).send().await.problem(401);
    assert_eq!(items().await.len(), 2);
    account.request("DELETE", &path).send().await.expect(204);
    account.request("DELETE", &path).send().await.expect(204);
    assert_eq!(items().await.len(), 1);
    ends(&account, &refreshed.string("/access_token")).await;
    let refresh = json!({"refresh_token": refreshed.string("/refresh_token")});
    api.post(REFRESH, &refresh).send().await.problem(401);

    let admin = admin().await;
    let audit = format!("/api/v1/users/audit?account={}&act=session-ended", account.id);
    let page = admin.request("GET", &audit).send().await.expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!(page["items"][0]["session_id"], session["id"]);
    assert_eq!(page["items"][0]["actor"]["id"], json!(account.id));

    // one's own, as by logging out
    let own = current[0]["id"].as_str().expect("an id");
    account.request("DELETE", &format!("{SESSIONS}/{own}")).send().await.expect(204);
    ends(&account, &account.token).await;
}

#[tokio::test]
async fn sessions_come_in_pages() {
    let api = api().await;
    let account = api.account().await;
    for _ in 0..2 {
        api.log_in(account.id, &account.email, &account.password).await;
    }
    let ids = async |query: &str| -> Vec<Value> {
        let walk = account.walk(&format!("{SESSIONS}{query}")).await;
        walk.into_iter().map(|session| session["id"].clone()).collect()
    };
    let all = ids("?limit=200").await;
    assert_eq!(all.len(), 3);
    assert_eq!(ids("?limit=1").await, all);
    account.request("GET", &format!("{SESSIONS}?limit=201")).send().await.problem(400);
    account.request("GET", &format!("{SESSIONS}?cursor=AAAA")).send().await.problem(400);
}
