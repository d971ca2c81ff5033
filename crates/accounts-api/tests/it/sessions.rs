use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::world::{Answer, App, LISTED};

/// A request of a page on `https://tasks.example`, which a proxy took by TLS.
fn of_a_page(path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(Method::POST).uri(path);
    let own = [("host", "tasks.example"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "2001:db8::7")];
    for (name, value) in own.iter().chain(headers) {
        request = request.header(*name, *value);
    }
    match body {
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .expect("a request")
}

#[tokio::test]
async fn a_browser_keeps_its_session_in_a_cookie() {
    const LOGIN: &str = "/api/v1/auth/login";
    const REFRESH: &str = "/api/v1/auth/refresh";
    const LOGOUT: &str = "/api/v1/auth/logout";
    let app = App::start().await;
    app.register("ann@x").await;
    let credentials = |session: Value| json!({"email": "ann@x", "password": "correct horse", "session": session});
    for by_body in [json!("token"), Value::Null] {
        let login = app.ask(of_a_page(LOGIN, &[], Some(credentials(by_body)))).await;
        assert!(login.body["refresh_token"].is_string() && !login.headers.contains_key("set-cookie"));
    }
    for (wrong, status) in
        [(json!("cookies"), 422), (json!("Cookie"), 422), (json!(true), 400), (json!({"cookie": null}), 400)]
    {
        assert_eq!(app.ask(of_a_page(LOGIN, &[], Some(credentials(wrong)))).await.status, status);
    }
    let agent = ("user-agent", "Mozilla/5.0 \u{1f98a}");
    let login = app.ask(of_a_page(LOGIN, &[agent], Some(credentials(json!("cookie"))))).await;
    let mut fields: Vec<_> = login.body.as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    assert_eq!(fields, ["access_token", "expires_in", "refresh_expires_in", "token_type"]);
    assert_eq!(login.headers["cache-control"], "no-store");
    let kept = |answer: &Answer| -> String {
        let set = answer.headers["set-cookie"].to_str().expect("ASCII").to_owned();
        let (pair, attributes) = set.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict; Secure");
        assert!(pair.starts_with("__Host-session="), "{set}");
        pair.to_owned()
    };
    let first = kept(&login);
    let own = ("origin", "https://tasks.example");
    let ask = async |path: &str, cookie: &str, origin: (&str, &str)| {
        app.ask(of_a_page(path, &[("cookie", cookie), origin], None)).await
    };

    // from other pages nothing is taken, and nothing spent
    let foreign =
        [own, ("origin", "http://tasks.example"), ("origin", "https://evil.example"), ("origin", "null"), ("x", "")];
    for origin in &foreign[1..] {
        for path in [REFRESH, LOGOUT] {
            let refused = ask(path, &first, *origin).await;
            assert_eq!((refused.status, refused.code()), (403, "foreign-origin"), "{path} {origin:?}");
            assert!(!refused.headers.contains_key("set-cookie"));
        }
    }
    let refreshed = ask(REFRESH, &first, own).await;
    assert_eq!((refreshed.status, refreshed.body.get("refresh_token")), (200, None), "{}", refreshed.body);
    let second = kept(&refreshed);
    assert_ne!(first, second);
    // a page of another origin that is listed
    let third = kept(&ask(REFRESH, &second, ("origin", LISTED)).await);
    // of several at once one gets the next cookie, and the others end nothing
    let (a, b) = tokio::join!(ask(REFRESH, &third, own), ask(REFRESH, &third, own));
    let (good, late) = if a.status == 200 { (a, b) } else { (b, a) };
    assert_eq!((good.status, late.status, late.code()), (200, 409, "refresh-in-flight"));
    let fourth = kept(&good);
    let token = good.text("access_token");
    let sessions = app.get("/api/v1/auth/sessions", &token).await;
    assert_eq!(sessions.body["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(sessions.body["items"][0]["current"], true);
    assert_eq!(
        (&sessions.body["items"][0]["address"], &sessions.body["items"][0]["user_agent"]),
        (&json!("2001:db8::7"), &Value::Null)
    );

    // it opens nothing else
    for path in ["/api/v1/auth/me", "/api/v1/auth/sessions"] {
        let request =
            Request::get(path).header("host", "tasks.example").header("cookie", &fourth).header("origin", own.1);
        assert_eq!(app.ask(request.body(Body::empty()).expect("a request")).await.status, 401);
    }
    // what is no token of ours, or under the name of plain HTTP
    for (cookie, status) in
        [("__Host-session=x", 401), ("__Host-session=", 401), (&*fourth.replace("__Host-", ""), 401), ("a=b", 401)]
    {
        assert_eq!(ask(REFRESH, cookie, own).await.status, status, "{cookie}");
        assert_eq!(ask(LOGOUT, cookie, own).await.status, status, "{cookie}");
    }
    assert_eq!(ask(REFRESH, "a=b", ("x", "")).await.code(), "invalid-refresh-token");
    let unauthenticated = ask(LOGOUT, "a=b", own).await;
    assert_eq!(
        (unauthenticated.code(), &unauthenticated.headers["www-authenticate"]),
        ("unauthenticated", &"Bearer realm=\"primetrade\"".parse().expect("a value"))
    );

    // an access token goes before the cookie, which is removed if it is of the same session
    let other = app.login("ann@x").await.text("access_token");
    let bearer = format!("Bearer {other}");
    let other_session = app.ask(of_a_page(LOGOUT, &[("authorization", &bearer), ("cookie", &fourth)], None)).await;
    assert_eq!((other_session.status, other_session.headers.contains_key("set-cookie")), (204, false));
    assert_eq!(app.get("/api/v1/auth/me", &token).await.status, 200);
    let bearer = format!("Bearer {token}");
    let same = app.ask(of_a_page(LOGOUT, &[("authorization", &bearer), ("cookie", &fourth)], None)).await;
    let removed = "__Host-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure";
    assert_eq!((same.status, same.headers["set-cookie"].to_str().ok()), (204, Some(removed)));
    assert_eq!(ask(REFRESH, &fourth, own).await.status, 401);

    let login = app.ask(of_a_page(LOGIN, &[], Some(credentials(json!("cookie"))))).await;
    let logout = ask(LOGOUT, &kept(&login), own).await;
    assert_eq!((logout.status, logout.headers["set-cookie"].to_str().ok()), (204, Some(removed)));
    assert_eq!(app.get("/api/v1/auth/me", &login.text("access_token")).await.status, 401);
    assert_eq!(ask(REFRESH, &kept(&login), own).await.status, 401);
    app.stop().await;
}

#[tokio::test]
async fn an_account_sees_and_ends_its_sessions() {
    const SESSIONS: &str = "/api/v1/auth/sessions";
    let app = App::start().await;
    let (ann, bob) = (app.user("ann@x").await, app.user("bob@x").await);
    let other = app.login("ann@x").await;
    let sessions = app.get(SESSIONS, &ann).await;
    let mut fields: Vec<_> = sessions.body["items"][0].as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    assert_eq!(fields, ["address", "created_at", "current", "id", "last_seen_at", "user_agent"]);
    let current: Vec<_> =
        sessions.body["items"].as_array().expect("items").iter().map(|item| &item["current"]).collect();
    assert_eq!(current, [false, true]);
    let ids = [0, 1].map(|index| sessions.body["items"][index]["id"].as_str().expect("an id").to_owned());

    let first = app.get(&format!("{SESSIONS}?limit=1"), &ann).await;
    let link = first.headers["link"].to_str().expect("ASCII");
    let next = link.strip_prefix('<').and_then(|link| link.split('>').next()).expect("a link");
    let second = app.get(next, &ann).await;
    assert_eq!((second.text_of_item("id"), &second.body["next_cursor"]), (ids[1].clone(), &Value::Null));
    let cursor = first.text("next_cursor");
    assert_eq!(app.get(&format!("{SESSIONS}?cursor={cursor}"), &bob).await.code(), "invalid-cursor");
    assert_eq!(app.get(&format!("{SESSIONS}?limit=0"), &ann).await.status, 400);
    assert_eq!(app.get(&format!("{SESSIONS}?x=1"), &ann).await.status, 400);
    assert_eq!(app.get(SESSIONS, "").await.status, 401);

    let end = async |token: &str, id: &str| app.send(Method::DELETE, &format!("{SESSIONS}/{id}"), token, None).await;
    assert_eq!(end("", &ids[0]).await.status, 401);
    assert_eq!(end(&bob, &ids[0]).await.code(), "not-found");
    assert_eq!(end(&ann, &uuid::Uuid::new_v4().to_string()).await.code(), "not-found");
    assert_eq!(end(&ann, "x").await.status, 400);
    assert_eq!(app.get("/api/v1/auth/me", &other.text("access_token")).await.status, 200);
    for _ in 0..2 {
        assert_eq!(end(&ann, &ids[0]).await.status, 204);
    }
    assert_eq!(app.get("/api/v1/auth/me", &other.text("access_token")).await.status, 401);
    let refresh = json!({"refresh_token": other.text("refresh_token")});
    assert_eq!(app.post("/api/v1/auth/refresh", "", refresh).await.code(), "invalid-refresh-token");
    assert_eq!(app.get(SESSIONS, &ann).await.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(end(&ann, &ids[1]).await.status, 204);
    assert_eq!(app.get("/api/v1/auth/me", &ann).await.status, 401);
    app.stop().await;
}
