use access::Scope;
use axum::body::Body;
use axum::http::{Method, Request};
use identity::{Email, Name, NewApiKey};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::world::{Answer, App};

const TOKEN: &str = "/api/v1/auth/token";
const ME: &str = "/api/v1/auth/me";

/// Its text.
async fn api_key(app: &App, email: &str, scopes: &[Scope]) -> String {
    let accounts = app.identity.accounts();
    let account = accounts.find_by_email(&Email::parse(email).expect("an address")).await.expect("Postgres answers");
    let new = NewApiKey {
        account: account.expect("registered").id,
        name: Name::parse("a service").expect("a name"),
        scopes: scopes.iter().copied().collect(),
        expires_at: None,
    };
    accounts.create_api_key(new).await.expect("made").1.expose_secret().to_owned()
}

async fn exchange(app: &App, key: &str) -> Answer {
    app.send(Method::POST, TOKEN, key, None).await
}

#[tokio::test]
async fn a_key_is_exchanged_for_a_token_that_opens_no_account() {
    let app = App::start().await;
    app.admin("ann@x").await;
    let key = api_key(&app, "ann@x", &[Scope::TasksWrite, Scope::TasksRead]).await;
    let answer = exchange(&app, &key).await;
    assert_eq!((answer.status, answer.text("token_type")), (200, "Bearer".into()));
    assert_eq!((answer.text("scope"), &answer.body["expires_in"]), ("tasks:read tasks:write".into(), &json!(900)));
    assert_eq!(answer.body.as_object().map(serde_json::Map::len), Some(4), "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(app.post(TOKEN, &key, json!({})).await.status, 200);

    let token = answer.text("access_token");
    let user = format!("/api/v1/users/{}", uuid::Uuid::nil());
    let session = format!("/api/v1/auth/sessions/{}", uuid::Uuid::nil());
    for (method, path, body) in [
        (Method::GET, ME, None),
        (Method::PATCH, ME, Some(json!({"name": "Eve"}))),
        (Method::POST, "/api/v1/auth/password", Some(json!({"current": "correct horse", "new": "another horse"}))),
        (Method::POST, "/api/v1/auth/logout", None),
        (Method::GET, "/api/v1/auth/sessions", None),
        (Method::DELETE, &*session, None),
        // of an admin
        (Method::GET, "/api/v1/users", None),
        (Method::GET, "/api/v1/users/audit", None),
        (Method::PATCH, &*user, Some(json!({"role": "admin"}))),
    ] {
        let refused: Answer = app.send(method.clone(), path, &token, body).await;
        assert_eq!((refused.status, refused.code()), (403, "insufficient-scope"), "{method} {path}");
        let challenge = "Bearer realm=\"primetrade\", error=\"insufficient_scope\"";
        assert_eq!(refused.headers["www-authenticate"], challenge, "{method} {path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_good_key_is_refused() {
    let app = App::start().await;
    let of_session = app.user("ann@x").await;
    let key = api_key(&app, "ann@x", &[Scope::TasksRead]).await;
    for wrong in [&key[..75], &key[4..], "ptk_", &of_session] {
        let refused = exchange(&app, wrong).await;
        assert_eq!((refused.status, refused.code()), (401, "invalid-api-key"), "{wrong}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"primetrade\"");
    }
    assert_eq!(exchange(&app, "").await.code(), "unauthenticated");
    // it is no access token
    let direct = app.get(ME, &key).await;
    assert_eq!((direct.status, direct.code()), (401, "unauthenticated"));
    assert!(direct.text("detail").contains(TOKEN), "{}", direct.body);
    assert_eq!(app.post(TOKEN, &key, json!({"scope": "tasks:write"})).await.code(), "malformed-body");
    let twice = Request::builder().method(Method::POST).uri(TOKEN);
    let twice = twice.header("authorization", format!("Bearer {key}")).header("authorization", format!("Bearer {key}"));
    assert_eq!(app.ask(twice.body(Body::empty()).expect("a request")).await.status, 400);
    assert_eq!(exchange(&app, &key).await.body["refresh_token"], Value::Null);
    app.stop().await;
}
