//! Login, registration, refresh, passwords: refused without telling who is there, at the same pace, and without shutting
//! out whom the address belongs to.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::client::Request;
use system_tests::cluster::Cluster;
use system_tests::server::{Config, Server};
use system_tests::wait::until;
use uuid::Uuid;

use super::table::{Case, Target, family};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const PASSWORD: &str = "/api/v1/auth/password";
const ME: &str = "/api/v1/auth/me";

/// A password whose JSON fits in a body.
const ALMOST_A_MB: usize = 1_000_000;
/// One that does not.
const A_MB: usize = 1 << 20;

fn json_of(target: &Target, path: &str, body: &str) -> Request {
    target.api.request("POST", path).body("application/json", body)
}

#[tokio::test]
async fn logins() {
    family("login", async |target| {
        let known = target.account.email.clone();
        let login =
            |email: Value, password: Value| target.api.post(LOGIN, &json!({"email": email, "password": password}));
        let mut cases = Vec::new();
        for (name, email, password, status, code) in [
            ("wrong password", json!(known), json!("not this one"), 401, "invalid-credentials"),
            ("unknown address", json!("nobody@example.com"), json!("not this one"), 401, "invalid-credentials"),
            ("empty password", json!(known), json!(""), 401, "invalid-credentials"),
            (
                "password in capitals",
                json!(known),
                json!(target.account.password.to_uppercase()),
                401,
                "invalid-credentials",
            ),
            (
                "password with a space more",
                json!(known),
                json!(format!("{} ", target.account.password)),
                401,
                "invalid-credentials",
            ),
            (
                "hash for a password",
                json!(known),
                json!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"),
                401,
                "invalid-credentials",
            ),
            ("SQL for a password", json!(known), json!("' or '1'='1"), 401, "invalid-credentials"),
            ("SQL for an address", json!("'or(1=1)--@example.com"), json!("x"), 401, "invalid-credentials"),
            (
                "wildcards for an address",
                json!("%@example.com"),
                json!(target.account.password),
                401,
                "invalid-credentials",
            ),
            ("address without a domain", json!("root"), json!("x"), 401, "invalid-credentials"),
            ("empty address", json!(""), json!("x"), 401, "invalid-credentials"),
            ("password of 257 characters", json!(known), json!("x".repeat(257)), 422, "invalid-fields"),
            ("password of almost 1 MB", json!(known), json!("x".repeat(ALMOST_A_MB)), 422, "invalid-fields"),
            ("password of 1 MB", json!(known), json!("x".repeat(A_MB)), 413, "body-too-large"),
            ("password with NUL", json!(known), json!("a\u{0}b"), 422, "invalid-fields"),
            ("address of 255 characters", json!(format!("{}@b", "a".repeat(253))), json!("x"), 422, "invalid-fields"),
            ("address with NUL", json!(format!("{known}\u{0}")), json!("x"), 422, "invalid-fields"),
            ("address with a line break", json!(format!("{known}\nBcc: x")), json!("x"), 422, "invalid-fields"),
            ("password is a number", json!(known), json!(12_345_678), 400, "malformed-body"),
            ("password is an object", json!(known), json!({"$ne": null}), 400, "malformed-body"),
            ("password is a list", json!(known), json!(["x"]), 400, "malformed-body"),
            ("password is true", json!(known), json!(true), 400, "malformed-body"),
            ("password is null", json!(known), json!(null), 422, "invalid-fields"),
            ("address is an object", json!({"$gt": ""}), json!("x"), 400, "malformed-body"),
            ("address is a list", json!([known]), json!("x"), 400, "malformed-body"),
        ] {
            cases.push(Case::new(name, login(email, password), status, code));
        }
        let right = json!({"email": known, "password": target.account.password});
        let kept = |session: Value| {
            let mut login = right.clone();
            login["session"] = session;
            target.api.post(LOGIN, &login)
        };
        let mut more = right.clone();
        more["remember"] = json!(true);
        let form = format!("email={known}&password=x");
        let twice = format!(r#"{{"email":"{known}","password":"x","password":"y"}}"#);
        cases.extend([
            Case::new("no password", target.api.post(LOGIN, &json!({"email": known})), 422, "invalid-fields"),
            Case::new("no address", target.api.post(LOGIN, &json!({"password": "x"})), 422, "invalid-fields"),
            Case::new("session of another kind", kept(json!("header")), 422, "invalid-fields"),
            Case::new("session in capitals", kept(json!("COOKIE")), 422, "invalid-fields"),
            Case::new("session is true", kept(json!(true)), 400, "malformed-body"),
            Case::new("session is an object", kept(json!({"cookie": null})), 400, "malformed-body"),
            Case::new("unknown field", target.api.post(LOGIN, &more), 400, "malformed-body"),
            Case::new("password twice", json_of(&target, LOGIN, &twice), 400, "malformed-body"),
            Case::new("empty body", json_of(&target, LOGIN, ""), 400, "malformed-body"),
            Case::new("a list", json_of(&target, LOGIN, "[]"), 400, "malformed-body"),
            Case::new(
                "a form",
                target.api.request("POST", LOGIN).body("application/x-www-form-urlencoded", form),
                415,
                "unsupported-media-type",
            ),
            Case::new("by GET", target.api.get(LOGIN), 405, "method-not-allowed"),
            Case::new(
                "credentials in the query",
                target.api.post(&format!("{LOGIN}?email=a"), &right),
                400,
                "invalid-parameter",
            ),
        ]);
        cases
    })
    .await;
}

#[tokio::test]
async fn registrations() {
    family("registration", async |target| {
        let good = json!({"email": format!("new-{}@example.com", Uuid::new_v4().simple()), "password": "a long password", "name": "Ada"});
        let mut cases = Vec::new();
        for (field, name, value, status, code) in [
            ("email", "taken", json!(target.account.email), 409, "email-taken"),
            ("email", "taken, in capitals", json!(target.account.email.to_uppercase()), 409, "email-taken"),
            ("email", "empty", json!(""), 422, "invalid-fields"),
            ("email", "without @", json!("ada.example.com"), 422, "invalid-fields"),
            ("email", "nothing before @", json!("@example.com"), 422, "invalid-fields"),
            ("email", "nothing behind @", json!("ada@"), 422, "invalid-fields"),
            ("email", "two @", json!("ada@b@example.com"), 422, "invalid-fields"),
            ("email", "with a space", json!("ada b@example.com"), 422, "invalid-fields"),
            ("email", "with a header", json!("ada@example.com\r\nBcc: all@example.com"), 422, "invalid-fields"),
            ("email", "with NUL", json!("ada\u{0}@example.com"), 422, "invalid-fields"),
            ("email", "of 255 characters", json!(format!("{}@example.com", "a".repeat(243))), 422, "invalid-fields"),
            ("email", "of 1 MB", json!(format!("{}@example.com", "a".repeat(A_MB))), 413, "body-too-large"),
            ("email", "null", json!(null), 422, "invalid-fields"),
            ("email", "a list", json!(["ada@example.com"]), 400, "malformed-body"),
            ("password", "of 7 characters", json!("seven77"), 422, "invalid-fields"),
            ("password", "of 7 characters and 28 bytes", json!("\u{1f511}".repeat(7)), 422, "invalid-fields"),
            ("password", "of 257 characters", json!("x".repeat(257)), 422, "invalid-fields"),
            ("password", "of almost 1 MB", json!("x".repeat(ALMOST_A_MB)), 422, "invalid-fields"),
            ("password", "of 1 MB", json!("x".repeat(A_MB)), 413, "body-too-large"),
            ("password", "with NUL", json!("long enough\u{0}"), 422, "invalid-fields"),
            ("password", "a number", json!(123_456_789), 400, "malformed-body"),
            ("name", "blank", json!("   "), 422, "invalid-fields"),
            ("name", "of 101 characters", json!("n".repeat(101)), 422, "invalid-fields"),
            ("name", "with a line break", json!("Ada\nAdmin"), 422, "invalid-fields"),
            ("name", "with NUL", json!("Ada\u{0}"), 422, "invalid-fields"),
            ("name", "an object", json!({}), 400, "malformed-body"),
            ("id", "of one's own choice", json!(Uuid::nil()), 400, "malformed-body"),
            ("shard", "of one's own choice", json!(0), 400, "malformed-body"),
            ("disabled", "of one's own choice", json!(false), 400, "malformed-body"),
        ] {
            let mut body = good.clone();
            body[field] = value;
            cases.push(Case::new(format!("{field} {name}"), target.api.post(REGISTER, &body), status, code));
        }
        for field in ["email", "password", "name"] {
            let mut body = good.clone();
            body.as_object_mut().expect("object").remove(field);
            cases.push(Case::new(format!("no {field}"), target.api.post(REGISTER, &body), 422, "invalid-fields"));
        }
        cases
    })
    .await;
}

#[tokio::test]
async fn sessions_and_passwords() {
    family("sessions and passwords", async |target| {
        let account = &target.account;
        let refresh = |token: &str| target.api.post(REFRESH, &json!({"refresh_token": token}));
        let login = json!({"email": account.email, "password": account.password});
        let spent = target.api.post(LOGIN, &login).send().await.expect(200).string("/refresh_token");
        refresh(&spent).send().await.expect(200);
        let good = target.api.post(LOGIN, &login).send().await.expect(200).string("/refresh_token");
        let flipped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { "B" } else { "A" });
        let change = |current: Value, new: Value| {
            account.request("POST", PASSWORD).json(&json!({"current": current, "new": new}))
        };
        let right = || json!(account.password);
        let mut by_cookie = login.clone();
        by_cookie["session"] = json!("cookie");
        let kept = target.api.post(LOGIN, &by_cookie).send().await.expect(200);
        let kept = kept.must("Set-Cookie").split(';').next().expect("a pair").to_owned();
        let page = |cookie: &str, origin: &str| {
            target.api.request("POST", REFRESH).header("Origin", origin).header("Cookie", cookie)
        };
        let in_cookie = |name: &str, cookie: &str| {
            Case::new(format!("in the cookie: {name}"), page(cookie, target.api.base()), 401, "invalid-refresh-token")
        };
        let foreign =
            |origin: &str| Case::new(format!("a page of {origin:?}"), page(&kept, origin), 403, "foreign-origin");
        let end = |id: &str| account.request("DELETE", &format!("/api/v1/auth/sessions/{id}"));
        let not_good = |name: &str, token: &str| Case::new(name, refresh(token), 401, "invalid-refresh-token");
        vec![
            not_good("a refresh token that was spent", &spent),
            not_good("again, once its family has ended", &spent),
            not_good("an access token", &account.token),
            not_good("nothing", ""),
            not_good("made up", &"A".repeat(64)),
            not_good("changed", &flipped),
            not_good("cut", &good[..good.len() - 4]),
            not_good("with something behind", &format!("{good}A")),
            not_good("NUL", "\u{0}"),
            not_good("of almost 1 MB", &"A".repeat(ALMOST_A_MB)),
            Case::new("a number", target.api.post(REFRESH, &json!({"refresh_token": 1})), 400, "malformed-body"),
            Case::new("no token", target.api.post(REFRESH, &json!({})), 422, "invalid-fields"),
            Case::new(
                "in the header",
                target.api.post(REFRESH, &json!({})).header("Authorization", &format!("Bearer {good}")),
                422,
                "invalid-fields",
            ),
            in_cookie("nothing", "session="),
            in_cookie("made up", &format!("session={}", "A".repeat(64))),
            in_cookie("changed", &kept.replace("session=", "session=A")),
            in_cookie("in quotes", &format!("session=\"{}\"", kept.trim_start_matches("session="))),
            in_cookie("spent", &format!("session={spent}")),
            in_cookie("under another name", &kept.replace("session=", "refresh_token=")),
            in_cookie("under the name of TLS", &kept.replace("session=", "__Host-session=")),
            in_cookie("of 20 KB", &format!("session={}", "A".repeat(20_000))),
            in_cookie("a thousand of them", &"session=x; ".repeat(1000)),
            foreign("https://evil.example"),
            foreign("null"),
            foreign("*"),
            foreign(""),
            foreign(&target.api.base().replace("http:", "https:")),
            foreign(&format!("{}.evil.example", target.api.base())),
            foreign(&format!("{} https://evil.example", target.api.base())),
            Case::new(
                "two origins",
                page(&kept, target.api.base()).header("Origin", "https://evil.example"),
                403,
                "foreign-origin",
            ),
            Case::new(
                "logout by a page of somebody else",
                target.api.request("POST", "/api/v1/auth/logout").header("Cookie", &kept),
                403,
                "foreign-origin",
            ),
            Case::new("an unknown session", end(&Uuid::nil().to_string()), 404, "not-found"),
            Case::new("a session that is no UUID", end("current"), 400, "invalid-parameter"),
            Case::new("NUL for a session", end("%00"), 400, "invalid-parameter"),
            Case::new(
                "an unknown session, with a field",
                end(&Uuid::nil().to_string()).json(&json!({"all": true})),
                400,
                "malformed-body",
            ),
            Case::new(
                "sessions of somebody else",
                account.request("GET", &format!("/api/v1/auth/sessions?account={}", Uuid::nil())),
                400,
                "invalid-parameter",
            ),
            Case::new(
                "logout without a token",
                target.api.request("POST", "/api/v1/auth/logout"),
                401,
                "unauthenticated",
            ),
            Case::new(
                "logout with a field",
                account.request("POST", "/api/v1/auth/logout").json(&json!({"all": true})),
                400,
                "malformed-body",
            ),
            Case::new(
                "wrong current password",
                change(json!("not this one"), json!("a new password")),
                403,
                "wrong-password",
            ),
            Case::new("no current password", change(json!(""), json!("a new password")), 403, "wrong-password"),
            Case::new("new password too short", change(right(), json!("seven77")), 422, "invalid-fields"),
            Case::new("new password too long", change(right(), json!("x".repeat(257))), 422, "invalid-fields"),
            Case::new(
                "new password of almost 1 MB",
                change(right(), json!("x".repeat(ALMOST_A_MB))),
                422,
                "invalid-fields",
            ),
            Case::new("new password with NUL", change(right(), json!("long enough\u{0}")), 422, "invalid-fields"),
            Case::new("new password null", change(right(), json!(null)), 422, "invalid-fields"),
            Case::new(
                "somebody else's password",
                account
                    .request("POST", PASSWORD)
                    .json(&json!({"current": account.password, "new": "a new password", "id": Uuid::nil()})),
                400,
                "malformed-body",
            ),
            Case::new(
                "another address",
                account.request("PATCH", ME).json(&json!({"email": "a@b"})),
                400,
                "malformed-body",
            ),
            Case::new("a blank name", account.request("PATCH", ME).json(&json!({"name": " "})), 422, "invalid-fields"),
            Case::new("no name", account.request("PATCH", ME).json(&json!({"name": null})), 422, "invalid-fields"),
        ]
    })
    .await;
}

async fn started(config: impl FnOnce(Config) -> Config) -> Server {
    let cluster = Cluster::shared();
    Server::start(config(Config::new(cluster.url(&cluster.create_database().await)))).await
}

/// By answer, by headers and by time. (By time: not by orders of magnitude, which is what leaving out the work would
/// make of it; a test is no clock.)
#[tokio::test]
async fn an_unknown_address_is_like_a_wrong_password() {
    const TRIES: usize = 11;
    let server = started(|config| config).await;
    let api = server.api();
    let account = api.account().await;
    let attempt = async |email: &str| {
        let began = Instant::now();
        let answer = api.post(LOGIN, &json!({"email": email, "password": "not this one"})).send().await;
        (began.elapsed(), answer.expect(401))
    };
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..TRIES {
        let (known_took, known) = attempt(&account.email).await;
        let (unknown_took, unknown) = attempt(&format!("{}@example.com", Uuid::new_v4().simple())).await;
        let essence = |answer: &system_tests::client::Answer| {
            let mut body = answer.json();
            body["trace_id"] = Value::Null;
            let own = ["date", "x-request-id"];
            let names: Vec<_> = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
            format!("{body} {names:?}")
        };
        assert_eq!(essence(&known), essence(&unknown));
        took[0].push(known_took);
        took[1].push(unknown_took);
    }
    let [known, unknown] = took.map(|mut took| {
        took.sort();
        took[TRIES / 2]
    });
    assert!(known < unknown * 3 && unknown < known * 3, "known {known:?}, unknown {unknown:?}");
}

/// Each is answered, or told to come again; and others are answered meanwhile.
#[tokio::test]
async fn five_hundred_at_once() {
    let server = started(|config| config).await;
    let api = server.api();
    let account = api.account().await;
    let login = |n: usize| {
        let password = if n.is_multiple_of(2) { account.password.as_str() } else { "not this one" };
        api.post(LOGIN, &json!({"email": account.email, "password": password})).send()
    };
    let others = async {
        for _ in 0..10 {
            account.request("GET", ME).send().await.expect(200);
        }
    };
    let (answers, ()) = tokio::join!(join_all((0..500).map(login)), others);
    let mut counts = [0; 3];
    for (n, answer) in answers.iter().enumerate() {
        match (answer.status, n.is_multiple_of(2)) {
            (200, true) => counts[0] += 1,
            (401, false) => counts[1] += 1,
            (503, _) => {
                assert_eq!(answer.problem(503)["code"], "overloaded");
                assert!(answer.must("Retry-After").parse::<u64>().is_ok());
                counts[2] += 1;
            }
            (status, _) => panic!("{n}: {status}: {}", answer.text()),
        }
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    until("there is room again", Duration::from_secs(30), || async { (login(0).await.status == 200).then_some(()) })
        .await;
    assert!(!server.log().contains("panicked"));
}

/// Somebody who guesses at one address gets five guesses, and does not shut out whom it belongs to at another.
#[tokio::test]
async fn a_hundred_failures_do_not_lock_the_owner_out() {
    let server = started(|config| {
        config.variable("PRIMETRADE_RATE_LIMITS", "on").variable("PRIMETRADE_TRUSTED_PROXIES", "127.0.0.1")
    })
    .await;
    let api = server.api();
    let body = json!({"email": "owner@example.com", "password": "the owner's password", "name": "Owner"});
    let owner = "203.0.113.9";
    api.post(REGISTER, &body).header("X-Forwarded-For", owner).send().await.expect(201);
    const GUESSES: usize = 5;
    let guess = async || {
        let guess = json!({"email": "owner@example.com", "password": "a guess, and wrong"});
        api.post(LOGIN, &guess).header("X-Forwarded-For", "198.51.100.7").send().await
    };
    for _ in 0..GUESSES {
        guess().await.expect(401);
    }
    let refused = guess().await;
    assert_eq!(refused.problem(429)["code"], "rate-limited");
    let policies: Vec<_> = refused.headers.get_all("RateLimit-Policy").iter().collect();
    assert!(policies.iter().any(|policy| *policy == "\"wrong-passwords\";q=5;w=900"), "{policies:?}");
    // the first of the five comes back after a fifth of the time; some of that is over
    let seconds: u64 = refused.must("Retry-After").parse().expect("seconds");
    assert!((60..=180).contains(&seconds), "{seconds}");
    for _ in GUESSES + 1..100 {
        assert!(guess().await.expect(429).must("Retry-After").parse::<u64>().is_ok());
    }
    let right = json!({"email": "owner@example.com", "password": "the owner's password"});
    let login = api.post(LOGIN, &right).header("X-Forwarded-For", owner).send().await.expect(200);
    let bearer = format!("Bearer {}", login.string("/access_token"));
    api.get(ME).header("Authorization", &bearer).header("X-Forwarded-For", owner).send().await.expect(200);
    // and an admin sees from where
    let run = ["user", "create", "--email", "admin@example.com", "--admin", "--password-stdin"];
    server.cli_with_input(&run, "the admin's password").await.expect(0);
    let admin = api.log_in(Uuid::nil(), "admin@example.com", "the admin's password").await;
    let audit = admin.request("GET", "/api/v1/users/audit?act=login-failed").send().await.expect(200).json();
    let failed = audit["items"].as_array().expect("items");
    assert_eq!(failed.len(), GUESSES);
    assert!(failed.iter().all(|event| event["client_address"] == "198.51.100.7"), "{audit}");
}
