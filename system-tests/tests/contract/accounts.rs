use crate::here::{admin, api};
use serde_json::json;
use system_tests::client::time;
use uuid::Uuid;

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const ME: &str = "/api/v1/auth/me";

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
