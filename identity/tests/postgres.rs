//! Accounts, sessions and keys on a real Postgres. `TEST_DATABASE_URL` names a server on which databases may be made;
//! each test makes one and drops it.

use std::time::{Duration, Instant};

use access::token::RootSecret;
use access::{Principal, Role, Scope};
use backends::database::{self, DiskSpace, Pool};
use chrono::TimeDelta;
use domain::OwnerId;
use identity::api_keys::OPEN_API_KEYS_MAX;
use identity::audit::{self, Act, Actor, Class, Filter};
use identity::ledger::Line;
use identity::open_sessions::OPEN_SESSIONS_MAX;
use identity::{
    AccountChange, Accounts, ApiKey, ApiKeyError, Email, Identity, IdentityError, LogBeside, Name, NewAccount,
    NewApiKey, OpenSession, Password, ServiceToken, StartError, Tokens, UserAgent,
};
use process::context::RequestContext;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use system_tests::wait::until_true;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SECRET: &str = "a secret that is long enough for the tests";
const PASSWORD: &str = "correct horse";

struct Database {
    server: PgConnectOptions,
    name: String,
    pool: Pool,
}

impl Database {
    async fn create() -> Self {
        let url = std::env::var("TEST_DATABASE_URL").or_else(|_| std::env::var("DATABASE_URL"));
        let server: PgConnectOptions = url.expect("TEST_DATABASE_URL").parse().expect("a Postgres URL");
        let name = format!("test_identity_{}", uuid::Uuid::new_v4().simple());
        let mut connection = server.connect().await.expect("Postgres answers");
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.expect("creates");
        let pool = database::pool(10, server.clone().database(&name));
        identity::migrate(&pool).await.expect("migrates");
        Self { server, name, pool }
    }

    async fn start(&self) -> Identity {
        self.start_with(SECRET).await.expect("starts")
    }

    async fn start_with(&self, secret: &str) -> Result<Identity, StartError> {
        Identity::start(self.pool.clone(), &secret_of(secret), log_beside(), CancellationToken::new())
            .await
            .map(|(identity, _)| identity)
    }

    async fn drop(self) {
        self.pool.close().await;
        let mut connection = self.server.connect().await.expect("Postgres answers");
        let drop = AssertSqlSafe(format!("drop database {} with (force)", self.name));
        sqlx::query(drop).execute(&mut connection).await.expect("drops");
    }
}

fn log_beside() -> LogBeside {
    LogBeside { id: Uuid::nil(), shards: vec![0, 1], disk_space: DiskSpace::default() }
}

fn secret_of(text: &str) -> RootSecret {
    RootSecret::new(text.to_owned().into()).expect("long enough")
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("an address")
}

fn password(text: &str) -> Password {
    Password::parse(text).expect("a password")
}

fn new_account(address: &str, role: Role) -> NewAccount {
    NewAccount { email: email(address), name: Name::parse("Ann").expect("a name"), password: password(PASSWORD), role }
}

async fn login(identity: &Identity, address: &str) -> Tokens {
    identity.login(&email(address), password(PASSWORD), None).await.expect("logs in")
}

fn principal(identity: &Identity, tokens: &Tokens) -> Option<Principal> {
    identity.verifier().verify(tokens.access_token.expose_secret())
}

async fn refresh(identity: &Identity, tokens: &Tokens) -> Result<Tokens, IdentityError> {
    identity.refresh(tokens.refresh_token.expose_secret(), Instant::now(), None).await
}

/// Until the condition holds, at most 5 s: the time within which a revocation must be seen everywhere.
async fn within_5_s(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_true(what, Duration::from_secs(5), condition).await;
}

#[tokio::test]
async fn an_account_logs_in_with_its_password_only() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("Ann@Example.org", Role::User)).await.expect("made");
    assert_eq!(account.email, "ann@example.org");
    assert_eq!(identity.accounts().get(account.id).await.expect("found"), account);

    let again = identity.accounts().create(new_account("ANN@example.ORG", Role::User)).await;
    assert!(matches!(again, Err(IdentityError::EmailTaken)), "{again:?}");

    let tokens = login(&identity, "ANN@example.org").await;
    let principal = principal(&identity, &tokens).expect("good");
    assert_eq!((principal.owner, principal.role, principal.shard), (account.id, Role::User, account.shard));

    let wrong = identity.login(&email("ann@example.org"), password("wrong horse"), None).await;
    assert!(matches!(wrong, Err(IdentityError::InvalidCredentials)), "{wrong:?}");
    let unknown = identity.login(&email("bob@example.org"), password(PASSWORD), None).await;
    assert!(matches!(unknown, Err(IdentityError::InvalidCredentials)), "{unknown:?}");
    database.drop().await;
}

#[tokio::test]
async fn two_registrations_of_one_address_at_once_make_one_account() {
    let database = Database::create().await;
    let accounts = Accounts::new(database.pool.clone(), vec![0]).expect("starts");
    let both = futures_util::future::join_all((0..4).map(|_| accounts.create(new_account("ann@x", Role::User)))).await;
    assert_eq!(both.iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(both.iter().filter(|made| matches!(made, Err(IdentityError::EmailTaken))).count(), 3);
    database.drop().await;
}

#[tokio::test]
async fn a_hash_with_other_parameters_is_made_anew_at_login() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let weak = argon2::Params::new(8, 1, 1, None).expect("parameters");
    let weak = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, weak);
    let weak = argon2::PasswordHasher::hash_password(&weak, PASSWORD.as_bytes()).expect("hashes").to_string();
    sqlx::query("update identity.account set password_hash = $1")
        .bind(&weak)
        .execute(&database.pool)
        .await
        .expect("set");
    let hash = async || {
        let select = "select password_hash from identity.account where id = $1";
        let hash = sqlx::query_scalar::<_, String>(select).bind(account.id.0).fetch_one(&database.pool).await;
        hash.expect("there")
    };
    // a favour, which no login fails for
    for statement in [
        "create function identity.refuse() returns trigger language plpgsql as 'begin raise exception ''no''; end'",
        "create trigger refuse before update on identity.account for each row execute function identity.refuse()",
    ] {
        sqlx::query(statement).execute(&database.pool).await.expect("made");
    }
    login(&identity, "ann@x").await;
    assert_eq!(hash().await, weak);
    sqlx::query("drop trigger refuse on identity.account").execute(&database.pool).await.expect("dropped");
    login(&identity, "ann@x").await;
    assert!(hash().await.contains("m=19456,t=2,p=1"), "{}", hash().await);
    login(&identity, "ann@x").await;
    database.drop().await;
}

#[tokio::test]
async fn a_refresh_token_is_spent_by_its_use_and_a_second_use_ends_the_family() {
    let database = Database::create().await;
    let identity = database.start().await;
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let first = login(&identity, "ann@x").await;
    let second = refresh(&identity, &first).await.expect("refreshes");
    let third = refresh(&identity, &second).await.expect("refreshes");
    assert!(principal(&identity, &third).is_some());
    let other_session = login(&identity, "ann@x").await;

    // two generations ago: recognised all the same
    let reused = refresh(&identity, &first).await;
    assert!(matches!(reused, Err(IdentityError::InvalidRefreshToken)), "{reused:?}");
    let ended = refresh(&identity, &third).await;
    assert!(matches!(ended, Err(IdentityError::InvalidRefreshToken)), "{ended:?}");
    assert!([&first, &second, &third].iter().all(|tokens| principal(&identity, tokens).is_none()));
    // the account's other session goes on
    assert!(principal(&identity, &other_session).is_some());
    refresh(&identity, &other_session).await.expect("refreshes");
    database.drop().await;
}

#[tokio::test]
async fn the_token_spent_last_ends_the_family_too_though_used_right_after_the_answer() {
    let database = Database::create().await;
    let identity = database.start().await;
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let first = login(&identity, "ann@x").await;
    let second = refresh(&identity, &first).await.expect("refreshes");
    let reused = refresh(&identity, &first).await;
    assert!(matches!(reused, Err(IdentityError::InvalidRefreshToken)), "{reused:?}");
    assert!(principal(&identity, &second).is_none());
    assert!(refresh(&identity, &second).await.is_err());
    database.drop().await;
}

#[tokio::test]
async fn refreshes_at_once_get_a_409_and_end_nothing() {
    let database = Database::create().await;
    // on two copies
    let copies = [database.start().await, database.start().await];
    copies[0].accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let mut tokens = login(&copies[0], "ann@x").await;
    for _ in 0..5 {
        let at_once = (0..20).map(|number| refresh(&copies[number % 2], &tokens));
        let (good, refused): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(at_once).await.into_iter().partition(Result::is_ok);
        assert_eq!(good.len(), 1);
        let in_flight = |answer: &Result<_, _>| matches!(answer, Err(IdentityError::RefreshInFlight));
        assert!(refused.iter().all(in_flight), "{refused:?}");
        tokens = good.into_iter().next().and_then(Result::ok).expect("one");
        assert!(principal(&copies[0], &tokens).is_some());
    }
    // a request that arrived before the answer but was slow is no reuse either
    let arrived = Instant::now();
    let next = refresh(&copies[0], &tokens).await.expect("refreshes");
    let slow = copies[1].refresh(tokens.refresh_token.expose_secret(), arrived, None).await;
    assert!(matches!(slow, Err(IdentityError::RefreshInFlight)), "{slow:?}");
    refresh(&copies[0], &next).await.expect("the session goes on");
    database.drop().await;
}

#[tokio::test]
async fn an_expired_or_forged_refresh_token_is_refused() {
    let database = Database::create().await;
    let identity = database.start().await;
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let tokens = login(&identity, "ann@x").await;
    let access = identity.refresh(tokens.access_token.expose_secret(), Instant::now(), None).await;
    assert!(matches!(access, Err(IdentityError::InvalidRefreshToken)), "{access:?}");
    // made up, though for a session that there is: refused, and the session goes on
    let forged = tokens.refresh_token.expose_secret();
    let forged = format!("{}{}", &forged[..30], "A".repeat(forged.len() - 30));
    assert!(identity.refresh(&forged, Instant::now(), None).await.is_err());
    let tokens = refresh(&identity, &tokens).await.expect("goes on");
    sqlx::query("update identity.session set refresh_expires_at = now()").execute(&database.pool).await.expect("set");
    let expired = refresh(&identity, &tokens).await;
    assert!(matches!(expired, Err(IdentityError::InvalidRefreshToken)), "{expired:?}");
    database.drop().await;
}

#[tokio::test]
async fn a_logout_is_seen_here_at_once_and_elsewhere_within_5_s() {
    let database = Database::create().await;
    let (here, elsewhere) = (database.start().await, database.start().await);
    here.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let tokens = login(&here, "ann@x").await;
    let session = principal(&here, &tokens).expect("good").session;
    let stays = login(&here, "ann@x").await;
    assert!(principal(&elsewhere, &tokens).is_some());
    let stream = principal(&elsewhere, &tokens).expect("good");

    here.logout(session).await.expect("logs out");
    assert!(principal(&here, &tokens).is_none());
    within_5_s("logout elsewhere", async || principal(&elsewhere, &tokens).is_none()).await;
    tokio::time::timeout(Duration::from_secs(1), stream.ended()).await.expect("a stream elsewhere ends");
    assert!(refresh(&elsewhere, &tokens).await.is_err());
    assert!(principal(&elsewhere, &stays).is_some());
    database.drop().await;
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let (own, other) = (login(&identity, "ann@x").await, login(&identity, "ann@x").await);
    let session = principal(&identity, &own).expect("good").session;

    let wrong = identity.change_password(account.id, session, password("wrong horse"), password("new horse")).await;
    assert!(matches!(wrong, Err(IdentityError::WrongPassword)), "{wrong:?}");
    assert!(principal(&identity, &other).is_some());

    identity.change_password(account.id, session, password(PASSWORD), password("new horse")).await.expect("changes");
    assert!(principal(&identity, &own).is_some() && principal(&identity, &other).is_none());
    assert!(refresh(&identity, &other).await.is_err());
    assert!(identity.login(&email("ann@x"), password(PASSWORD), None).await.is_err());
    identity.login(&email("ann@x"), password("new horse"), None).await.expect("logs in");
    refresh(&identity, &own).await.expect("goes on");

    identity.accounts().set_password(account.id, password("operator's")).await.expect("sets");
    within_5_s("password set by the operator", async || principal(&identity, &own).is_none()).await;
    database.drop().await;
}

/// As the watch over the disk says it, or Postgres to somebody else.
#[tokio::test]
async fn without_room_nothing_is_written_that_stays_and_people_log_in() {
    type Set = fn(&DiskSpace, bool);
    let database = Database::create().await;
    let log = log_beside();
    let started =
        Identity::start(database.pool.clone(), &secret_of(SECRET), log.clone(), CancellationToken::new()).await;
    let (identity, _) = started.expect("starts");
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let session = principal(&identity, &login(&identity, "ann@x").await).expect("good").session;
    let renamed = Name::parse("Bea").expect("a name");
    let shortages: [(Set, &str); 2] = [
        (
            |disk_space, is_short| disk_space.set_watched(is_short.then(|| "12 MB are left".to_owned())),
            "12 MB are left;",
        ),
        (DiskSpace::set_refused, "PostgreSQL has no space left"),
    ];
    for (set, why) in shortages {
        set(&log.disk_space, true);
        let refused = |error| matches!(error, IdentityError::DiskFull(said) if said.starts_with(why));
        assert!(identity.accounts().create(new_account("bob@x", Role::User)).await.is_err_and(refused));
        assert!(identity.accounts().rename(account.id, &renamed).await.is_err_and(refused));
        let changed = identity.change_password(account.id, session, password(PASSWORD), password("new horse")).await;
        assert!(changed.is_err_and(refused));
        // reads go on, and so does what they need; who is to have no access any more has none
        let tokens = login(&identity, "ann@x").await;
        let next = refresh(&identity, &tokens).await.expect("goes on");
        identity.logout(principal(&identity, &next).expect("good").session).await.expect("logs out");
        set(&log.disk_space, false);
        assert_eq!(identity.accounts().rename(account.id, &renamed).await.expect("renamed").name, "Bea");
    }
    database.drop().await;
}

#[tokio::test]
async fn disabling_ends_access_and_is_told_only_with_the_right_password() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let tokens = login(&identity, "ann@x").await;
    let disable = |disabled| AccountChange { disabled: Some(disabled), role: None };
    assert!(identity.change(account.id, disable(true)).await.expect("disables").disabled);
    assert!(principal(&identity, &tokens).is_none());
    assert!(refresh(&identity, &tokens).await.is_err());
    let right = identity.login(&email("ann@x"), password(PASSWORD), None).await;
    assert!(matches!(right, Err(IdentityError::Disabled)), "{right:?}");
    let wrong = identity.login(&email("ann@x"), password("wrong horse"), None).await;
    assert!(matches!(wrong, Err(IdentityError::InvalidCredentials)), "{wrong:?}");
    identity.change(account.id, disable(false)).await.expect("enables");
    assert!(principal(&identity, &login(&identity, "ann@x").await).is_some());
    assert!(principal(&identity, &tokens).is_none(), "what was ended stays ended");
    database.drop().await;
}

#[tokio::test]
async fn a_login_beside_the_disabling_leaves_no_session_behind() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    for step in 0..8 {
        let disabled = |disabled| AccountChange { disabled: Some(disabled), role: None };
        // Not a wait for anything: a login takes some 30 ms, and each step meets it a little later in its course.
        let delayed = async {
            tokio::time::sleep(Duration::from_millis(step * 8)).await;
            identity.change(account.id, disabled(true)).await
        };
        let address = email("ann@x");
        let (tokens, changed) = tokio::join!(identity.login(&address, password(PASSWORD), None), delayed);
        changed.expect("disables");
        let live: i64 = sqlx::query_scalar("select count(*) from identity.session where ended_at is null")
            .fetch_one(&database.pool)
            .await
            .expect("counts");
        assert_eq!(live, 0, "step {step}: {:?}", tokens.is_ok());
        identity.change(account.id, disabled(false)).await.expect("enables");
    }
    database.drop().await;
}

#[tokio::test]
async fn a_demoted_admin_has_no_token_that_says_admin() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::Admin)).await.expect("made");
    let tokens = login(&identity, "ann@x").await;
    assert_eq!(principal(&identity, &tokens).expect("good").role, Role::Admin);
    identity.change(account.id, AccountChange { role: Some(Role::User), disabled: None }).await.expect("demotes");
    assert!(principal(&identity, &tokens).is_none());
    let tokens = login(&identity, "ann@x").await;
    assert_eq!(principal(&identity, &tokens).expect("good").role, Role::User);
    // the other way the next refresh tells
    identity.change(account.id, AccountChange { role: Some(Role::Admin), disabled: None }).await.expect("promotes");
    let tokens = refresh(&identity, &tokens).await.expect("refreshes");
    assert_eq!(principal(&identity, &tokens).expect("good").role, Role::Admin);
    database.drop().await;
}

#[tokio::test]
async fn a_rotated_key_takes_over_while_the_old_one_is_still_good() {
    let database = Database::create().await;
    // copies that start at once agree on one key
    let copies = futures_util::future::join_all((0..3).map(|_| database.start())).await;
    let identity = &copies[0];
    let keys = |identity: &Identity| {
        let jwks: serde_json::Value = serde_json::from_slice(&identity.jwks()).expect("JSON");
        jwks["keys"].as_array().map(Vec::len)
    };
    assert!(copies.iter().all(|copy| keys(copy) == Some(1)));
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let old = login(identity, "ann@x").await;
    assert!(copies.iter().all(|copy| principal(copy, &old).is_some()));

    let kid = identity::keys::rotate(&database.pool, &secret_of(SECRET)).await.expect("rotates");
    within_5_s("both keys shown", async || copies.iter().all(|copy| keys(copy) == Some(2))).await;
    assert!(!kid_of(&login(identity, "ann@x").await).contains(&kid), "not before every verifier has seen it");

    // its time has come
    sqlx::query("update identity.signing_key set signs_from = now() where kid = $1")
        .bind(&kid)
        .execute(&database.pool)
        .await
        .expect("set");
    let began = Instant::now();
    let new = loop {
        let tokens = login(identity, "ann@x").await;
        if kid_of(&tokens).contains(&kid) {
            break tokens;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "the new key does not sign");
    };
    assert!(copies.iter().all(|copy| principal(copy, &old).is_some() && principal(copy, &new).is_some()));

    // the old one's time is over: what it signed is refused, cached or not
    sqlx::query("update identity.signing_key set retired_at = now() where kid <> $1")
        .bind(&kid)
        .execute(&database.pool)
        .await
        .expect("set");
    within_5_s("the old key ends", async || copies.iter().all(|copy| principal(copy, &old).is_none())).await;
    assert!(copies.iter().all(|copy| principal(copy, &new).is_some() && keys(copy) == Some(1)));
    database.drop().await;
}

fn kid_of(tokens: &Tokens) -> String {
    use base64::Engine;
    let header = tokens.access_token.expose_secret().split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).expect("base64");
    String::from_utf8(header).expect("UTF-8")
}

#[tokio::test]
async fn another_secret_is_told_at_the_start_and_a_rotation_helps() {
    let database = Database::create().await;
    let first = database.start().await;
    first.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let other = "another secret that is long enough for it";
    assert!(matches!(database.start_with(other).await.err(), Some(StartError::OtherSecret)));
    identity::keys::rotate(&database.pool, &secret_of(other)).await.expect("rotates");
    let identity = database.start_with(other).await.expect("starts");
    assert!(principal(&identity, &login(&identity, "ann@x").await).is_some());
    let stored: Vec<Vec<u8>> = sqlx::query_scalar("select private_key from identity.signing_key")
        .fetch_all(&database.pool)
        .await
        .expect("there");
    assert!(stored.iter().all(|key| key.len() == 24 + 32 + 16), "nonce, encrypted seed, tag");
    database.drop().await;
}

#[tokio::test]
async fn the_secret_is_rotated_and_nobody_is_logged_out() {
    const NEW: &str = "a new secret that is long enough for the tests";
    let database = Database::create().await;
    let start = async |current: &str, previous: &str| {
        let source = [("PRIMETRADE_SECRET", current), ("PRIMETRADE_SECRET_PREVIOUS", previous)];
        let secret = RootSecret::read(&settings::Source::from_pairs(source)).expect("long enough").expect("given");
        let stop = CancellationToken::new();
        let started = Identity::start(database.pool.clone(), &secret, log_beside(), stop).await;
        started.map(|(identity, _)| identity)
    };
    let before = start(SECRET, "").await.expect("starts");
    before.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let (tokens, stays) = (login(&before, "ann@x").await, login(&before, "ann@x").await);
    // first every copy learns of the new one, which nothing is made with yet
    let ahead = start(SECRET, NEW).await.expect("starts");
    let after = start(NEW, SECRET).await.expect("starts");
    for copy in [&ahead, &after] {
        assert!(principal(copy, &tokens).is_some());
    }
    let of_after = refresh(&after, &tokens).await.expect("refreshes");
    assert!(principal(&ahead, &of_after).is_some(), "one key signs at all copies");
    let of_ahead = refresh(&ahead, &of_after).await.expect("refreshes");
    let of_after = refresh(&after, &of_ahead).await.expect("refreshes");
    // a copy from before that goes on
    assert!(principal(&before, &of_after).is_some() && principal(&after, &login(&before, "ann@x").await).is_some());

    // and then the old one is removed
    let new = start(NEW, "").await.expect("starts: the signing key was encrypted anew");
    assert!(principal(&new, &of_after).is_some());
    refresh(&new, &of_after).await.expect("refreshes");
    let of_before = refresh(&new, &stays).await;
    assert!(matches!(of_before, Err(IdentityError::InvalidRefreshToken)), "{of_before:?}");
    refresh(&after, &stays).await.expect("where both are known it is good");
    database.drop().await;
}

#[tokio::test]
async fn accounts_are_listed_in_pages() {
    let database = Database::create().await;
    let accounts = Accounts::new(database.pool.clone(), vec![0]).expect("starts");
    for number in 0..5 {
        accounts.create(new_account(&format!("{number}@x"), Role::User)).await.expect("made");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = accounts.list(after, 2).await.expect("lists");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|account| account.email));
    }
    assert_eq!(seen, ["0@x", "1@x", "2@x", "3@x", "4@x"]);
    let renamed = accounts.rename(after.expect("some"), &Name::parse("Bob").expect("a name")).await.expect("renames");
    assert_eq!((renamed.name.as_str(), renamed.email.as_str()), ("Bob", "4@x"));
    database.drop().await;
}

/// A look that hangs holds up nobody: neither who logs out, nor that it is seen.
#[tokio::test]
async fn a_look_that_hangs_is_broken_off() {
    let database = Database::create().await;
    let identity = database.start().await;
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let first = login(&identity, "ann@x").await;
    let second = login(&identity, "ann@x").await;
    let mut hanging = database.pool.begin().await.expect("begins");
    let lock = async |table: &'static str, hanging: &mut sqlx::PgConnection| {
        sqlx::query(AssertSqlSafe(format!("lock table identity.{table} in access exclusive mode")))
            .execute(&mut *hanging)
            .await
            .expect("locks");
        // until a look waits for it
        let waiting = "select count(*) from pg_locks where not granted and relation::regclass::text = $1";
        within_5_s("a look hangs", async || {
            let table = format!("identity.{table}");
            sqlx::query_scalar::<_, i64>(waiting).bind(table).fetch_one(&database.pool).await.expect("locks") > 0
        })
        .await;
    };
    lock("signing_key", &mut hanging).await;
    for tokens in [first, second] {
        let session = principal(&identity, &tokens).expect("good").session;
        let logout = tokio::time::timeout(Duration::from_secs(10), identity.logout(session));
        logout.await.expect("in time").expect("logs out");
        within_5_s("a session ends", async || principal(&identity, &tokens).is_none()).await;
    }
    assert!(identity.check().is_ok());
    // and where ended sessions cannot be seen at all, it is said
    lock("session", &mut hanging).await;
    until_true("the check fails", Duration::from_secs(30), async || !identity.check().is_ok()).await;
    hanging.rollback().await.expect("rolls back");
    within_5_s("seen again", async || identity.check().is_ok()).await;
    database.drop().await;
}

#[tokio::test]
async fn the_watching_task_ends_at_shutdown() {
    let database = Database::create().await;
    let shutdown = CancellationToken::new();
    let secret = secret_of(SECRET);
    let (_, task) =
        Identity::start(database.pool.clone(), &secret, log_beside(), shutdown.clone()).await.expect("starts");
    assert!(!task.is_finished());
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("in time").expect("without a panic");
    database.drop().await;
}

/// What was written down, oldest first: act, actor's kind, detail.
async fn audited(identity: &Identity, filter: &Filter) -> Vec<(String, &'static str, Option<String>)> {
    let mut events = identity.accounts().audit_events(filter, None, 100).await.expect("events");
    events.reverse();
    assert!(events.is_sorted_by_key(|event| event.id));
    events.into_iter().map(|event| (event.act, event.actor.kind(), event.detail)).collect()
}

#[tokio::test]
async fn each_act_is_written_down() {
    let database = Database::create().await;
    let identity = database.start().await;
    let request = || RequestContext::fresh();
    // the command line
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    // requests
    let registered = request().scope(identity.accounts().create(new_account("bob@x", Role::User))).await.expect("made");
    let wrong = request().scope(identity.login(&email("ann@x"), password("wrong horse"), None)).await;
    assert!(wrong.is_err());
    request().scope(identity.login(&email("nobody@x"), password("wrong horse"), None)).await.expect_err("unknown");
    let first = request().scope(login(&identity, "ann@x")).await;
    let second = request().scope(refresh(&identity, &first)).await.expect("refreshes");
    let session = principal(&identity, &second).expect("good").session;
    request().scope(refresh(&identity, &first)).await.expect_err("spent");
    let tokens = login(&identity, "ann@x").await;
    let other_session = principal(&identity, &tokens).expect("good").session;
    identity.logout(other_session).await.expect("logs out");
    identity.logout(other_session).await.expect("nothing to do, and nothing to tell");
    let by_token = request().scope(login(&identity, "ann@x")).await;
    request().scope(identity.logout_by_refresh_token(by_token.refresh_token.expose_secret())).await.expect("logs out");
    for _ in 0..2 {
        let ended = login(&identity, "ann@x").await;
        let ended = principal(&identity, &ended).expect("good").session;
        identity.end_session(account.id, ended, session).await.expect("ends");
        identity.end_session(account.id, ended, session).await.expect("nothing to do, and nothing to tell");
    }
    let change = |current, new| identity.change_password(account.id, session, password(current), password(new));
    change("wrong horse", "new horse!").await.expect_err("wrong");
    change(PASSWORD, "new horse!").await.expect("changes");
    identity.accounts().set_password(account.id, password(PASSWORD)).await.expect("sets");
    let change = |role, disabled| identity.change(account.id, AccountChange { role, disabled });
    change(Some(Role::Admin), None).await.expect("promotes");
    change(Some(Role::Admin), Some(true)).await.expect("disables");
    identity.login(&email("ann@x"), password(PASSWORD), None).await.expect_err("disabled");
    change(None, Some(false)).await.expect("enables");
    let kid = identity::keys::rotate(&database.pool, &secret_of(SECRET)).await.expect("rotates");

    let event = |act: Act, actor: &'static str, detail: Option<&str>| {
        (act.as_str().to_owned(), actor, detail.map(str::to_owned))
    };
    let by_session = format!("by session {session}");
    let told = audited(&identity, &Filter::default()).await;
    let expected = [
        event(Act::AccountCreated, "operator", None),
        event(Act::AccountCreated, "account", None),
        event(Act::LoginFailed, "anonymous", None),
        event(Act::LoginFailed, "anonymous", None),
        event(Act::LoginSucceeded, "account", None),
        event(Act::SessionRefreshed, "account", None),
        event(Act::RefreshTokenReused, "anonymous", None),
        event(Act::LoginSucceeded, "account", None),
        event(Act::LoggedOut, "operator", None),
        event(Act::LoginSucceeded, "account", None),
        event(Act::LoggedOut, "account", None),
        event(Act::LoginSucceeded, "account", None),
        event(Act::SessionEnded, "operator", Some(&by_session)),
        event(Act::LoginSucceeded, "account", None),
        event(Act::SessionEnded, "operator", Some(&by_session)),
        event(Act::PasswordChangeRefused, "operator", None),
        event(Act::PasswordChanged, "operator", None),
        event(Act::PasswordSet, "operator", None),
        event(Act::RoleChanged, "operator", Some("user to admin")),
        event(Act::AccountDisabled, "operator", None),
        event(Act::LoginFailed, "operator", Some("disabled")),
        event(Act::AccountEnabled, "operator", None),
        event(Act::KeysRotated, "operator", Some(&kid)),
    ];
    assert_eq!(told, expected);

    // by account, by act, by both; page by page
    let of_bob = Filter { account: Some(registered.id), ..Filter::default() };
    assert_eq!(audited(&identity, &of_bob).await, [event(Act::AccountCreated, "account", None)]);
    let failures = Filter { account: None, acts: vec![Act::LoginFailed, Act::PasswordChangeRefused] };
    assert_eq!(audited(&identity, &failures).await.len(), 4);
    let failures = Filter { account: Some(account.id), acts: vec![Act::LoginFailed] };
    assert_eq!(audited(&identity, &failures).await.len(), 2, "of an unknown address nobody is told about");
    let accounts = identity.accounts();
    let mut seen = Vec::new();
    while let page = accounts.audit_events(&Filter::default(), seen.last().copied(), 5).await.expect("a page")
        && !page.is_empty()
    {
        seen.extend(page.into_iter().map(|event| event.id));
    }
    assert_eq!(seen.len(), expected.len());
    database.drop().await;
}

#[tokio::test]
async fn an_audit_event_names_the_request_and_its_account() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let client = "2001:db8::7".parse().expect("an address");
    let context = RequestContext::fresh().from_client(client);
    let trace_id = context.trace_id();
    let tokens = context.scope(login(&identity, "ann@x")).await;
    let session = principal(&identity, &tokens).expect("good").session;
    let filter = Filter { account: None, acts: vec![Act::LoginSucceeded] };
    let events = identity.accounts().audit_events(&filter, None, 1).await.expect("events");
    let event = events.first().expect("one");
    assert_eq!((event.actor, event.account), (Actor::Account(account.id), Some(account.id)));
    assert_eq!((event.session, event.trace_id.as_deref()), (Some(session), Some(&*trace_id)));
    assert_eq!(event.client, Some(client));
    let age = process::clock::now() - event.occurred_at;
    assert!(age.num_seconds().abs() < 60, "{age}");
    database.drop().await;
}

/// Neither without the other.
#[tokio::test]
async fn what_cannot_be_written_down_does_not_happen() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let tokens = login(&identity, "ann@x").await;
    let session = principal(&identity, &tokens).expect("good").session;
    let away = "alter table identity.audit_event rename to away";
    sqlx::query(away).execute(&database.pool).await.expect("renames");

    assert!(identity.login(&email("ann@x"), password(PASSWORD), None).await.is_err());
    let failed = identity.login(&email("ann@x"), password("wrong horse"), None).await;
    assert!(matches!(failed, Err(IdentityError::Internal(_))), "{failed:?}");
    assert!(identity.accounts().create(new_account("bob@x", Role::User)).await.is_err());
    assert!(refresh(&identity, &tokens).await.is_err());
    assert!(identity.logout(session).await.is_err());
    let disable = AccountChange { disabled: Some(true), role: None };
    assert!(identity.change(account.id, disable).await.is_err());
    assert!(identity.accounts().set_password(account.id, password("operator's")).await.is_err());
    assert!(identity::keys::rotate(&database.pool, &secret_of(SECRET)).await.is_err());

    let back = "alter table identity.away rename to audit_event";
    sqlx::query(back).execute(&database.pool).await.expect("renames");
    let count =
        async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&database.pool).await.expect("counts");
    assert_eq!(count("select count(*) from identity.account where not disabled").await, 1);
    assert_eq!(count("select count(*) from identity.session where ended_at is null").await, 1);
    assert_eq!(count("select count(*) from identity.signing_key").await, 1);
    assert_eq!(count("select count(*) from identity.audit_event").await, 2);
    refresh(&identity, &tokens).await.expect("the refresh token is not spent");
    login(&identity, "ann@x").await;
    database.drop().await;
}

#[tokio::test]
async fn audit_events_are_kept_for_a_bounded_time_and_number() {
    let database = Database::create().await;
    let insert = async |class: Class, days: i32, number: i64| {
        sqlx::query(
            "insert into identity.audit_event (id, occurred_at, act, class, actor_type)
             select gen_random_uuid(), now() - make_interval(days => $2), 'x', $1, 'operator' from generate_series(1, $3)",
        )
        .bind(class.as_str())
        .bind(days)
        .bind(number)
        .execute(&database.pool)
        .await
        .expect("inserts");
    };
    let kept = async || {
        let count = "select count(*) from identity.audit_event where class = $1";
        let count = async |class: Class| sqlx::query_scalar(count).bind(class.as_str()).fetch_one(&database.pool).await;
        let mut counts: Vec<i64> = Vec::new();
        for class in Class::ALL {
            counts.push(count(class).await.expect("counts"));
        }
        counts
    };
    for (class, number) in Class::ALL.into_iter().zip([2, 3, 4, 5]) {
        insert(class, class.days() + 1, 7).await;
        insert(class, class.days() - 1, number).await;
    }
    assert!(!audit::sweep(&database.pool, 100).await.expect("sweeps"));
    assert_eq!(kept().await, [2, 3, 4, 5]);
    // a flood of one class pushes out nothing of another, and is swept until it is within its bounds
    let flood = audit::SWEPT_MAX + 50;
    insert(Class::Anybody, 0, flood).await;
    assert!(audit::sweep(&database.pool, 10).await.expect("sweeps"), "there is more");
    assert_eq!(kept().await, [2, 3, 4, 55]);
    assert!(!audit::sweep(&database.pool, 10).await.expect("sweeps"));
    assert_eq!(kept().await, [2, 3, 4, 10]);
    database.drop().await;
}

/// What needs no account, what needs one, what needs an admin's: a flood of one pushes out nothing of another.
#[tokio::test]
async fn an_audit_event_is_of_the_class_of_those_who_can_cause_it() {
    let database = Database::create().await;
    let identity = database.start().await;
    let request = || RequestContext::fresh();
    identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    request().scope(identity.accounts().create(new_account("bob@x", Role::User))).await.expect("made");
    for address in ["nobody@x", "ann@x"] {
        request().scope(identity.login(&email(address), password("wrong horse"), None)).await.expect_err("wrong");
    }
    let first = request().scope(login(&identity, "ann@x")).await;
    request().scope(refresh(&identity, &first)).await.expect("refreshes");
    request().scope(refresh(&identity, &first)).await.expect_err("spent");
    identity::keys::rotate(&database.pool, &secret_of(SECRET)).await.expect("rotates");
    let rows: Vec<(String, String)> = sqlx::query_as("select act, class from identity.audit_event order by id")
        .fetch_all(&database.pool)
        .await
        .expect("events");
    let rows: Vec<_> = rows.iter().map(|(act, class)| (act.as_str(), class.as_str())).collect();
    let expected = [
        ("account-created", "administration"),
        ("account-created", "anybody"),
        ("login-failed", "anybody"),
        ("login-failed", "routine"),
        ("login-succeeded", "routine"),
        ("session-refreshed", "routine"),
        ("refresh-token-reused", "account"),
        ("keys-rotated", "administration"),
    ];
    assert_eq!(rows, expected);
    database.drop().await;
}

/// From `client`, calling itself `user_agent`.
async fn login_from(identity: &Identity, client: &str, user_agent: &str) -> Tokens {
    let context = RequestContext::fresh().from_client(client.parse().expect("an address"));
    let address = email("ann@x");
    let login = identity.login(&address, password(PASSWORD), UserAgent::cleaned(user_agent.as_bytes()));
    context.scope(login).await.expect("logs in")
}

#[tokio::test]
async fn an_account_sees_its_open_sessions_and_ends_them() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made").id;
    let other = identity.accounts().create(new_account("bob@x", Role::User)).await.expect("made").id;
    let first = login_from(&identity, "2001:db8::7", "Firefox").await;
    let second = login_from(&identity, "192.0.2.7", " ").await;
    let [first_id, second_id] = [&first, &second].map(|tokens| principal(&identity, tokens).expect("good").session);
    let seen = async || identity.open_sessions(account, None, 10).await.expect("a page");
    let sessions = seen().await;
    let ids: Vec<_> = sessions.iter().map(|session| session.id).collect();
    assert_eq!(ids, [second_id, first_id], "the latest begun first");
    let of = |address: &str, user_agent: Option<&str>| (address.parse().ok(), user_agent.map(str::to_owned));
    let shown = |session: &OpenSession| (session.address, session.user_agent.clone());
    assert_eq!(shown(&sessions[0]), of("192.0.2.7", None));
    assert_eq!(shown(&sessions[1]), of("2001:db8::7", Some("Firefox")));
    assert_eq!(sessions[1].last_seen_at, sessions[1].created_at);
    let page = identity.open_sessions(account, Some(second_id), 10).await.expect("a page");
    assert_eq!(page.iter().map(|session| session.id).collect::<Vec<_>>(), [first_id]);

    // a refresh says where it is now
    let refreshing = identity.refresh(first.refresh_token.expose_secret(), Instant::now(), UserAgent::cleaned(b"curl"));
    let context = RequestContext::fresh().from_client("198.51.100.1".parse().expect("an address"));
    context.scope(refreshing).await.expect("refreshes");
    let refreshed = seen().await.pop().expect("the first");
    assert_eq!(shown(&refreshed), of("198.51.100.1", Some("curl")));
    assert!(refreshed.last_seen_at > refreshed.created_at);
    assert_eq!(refreshed.created_at, sessions[1].created_at);
    // a copy from before the columns has refreshed it
    sqlx::query("update identity.session set last_seen_at = null").execute(&database.pool).await.expect("empties");
    let before = seen().await.pop().expect("the first");
    assert!((before.last_seen_at - refreshed.last_seen_at).num_seconds().abs() < 2, "{before:?}");

    assert!(matches!(identity.end_session(other, first_id, first_id).await, Err(IdentityError::NotFound)));
    assert!(matches!(identity.end_session(account, Uuid::nil(), first_id).await, Err(IdentityError::NotFound)));
    assert_eq!(seen().await.len(), 2);
    assert!(identity.open_sessions(other, None, 10).await.expect("a page").is_empty());
    identity.end_session(account, second_id, first_id).await.expect("ends");
    assert!(principal(&identity, &second).is_none(), "its access token ends here at once");
    assert!(matches!(refresh(&identity, &second).await, Err(IdentityError::InvalidRefreshToken)));
    assert_eq!(seen().await.len(), 1);
    let expire = "update identity.session set refresh_expires_at = now()";
    sqlx::query(expire).execute(&database.pool).await.expect("expires");
    assert!(seen().await.is_empty(), "what cannot be refreshed is not open");
    database.drop().await;
}

#[tokio::test]
async fn a_login_beyond_the_maximum_ends_the_session_seen_least_recently() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made").id;
    let (stale, kept) = (login(&identity, "ann@x").await, login(&identity, "ann@x").await);
    let stale_id = principal(&identity, &stale).expect("good").session;
    // as many as there may be, all seen after the stale one
    let fill = "insert into identity.session (id, account_id, refresh_hash, created_at, refresh_expires_at, last_seen_at)
                select gen_random_uuid(), account_id, refresh_hash, created_at, refresh_expires_at, now() + interval '1 s'
                from identity.session, generate_series(3, $2) where id = $1";
    sqlx::query(fill).bind(stale_id).bind(OPEN_SESSIONS_MAX).execute(&database.pool).await.expect("fills");
    let kept = refresh(&identity, &kept).await.expect("refreshes");
    let count = async || identity.open_sessions(account, None, OPEN_SESSIONS_MAX * 2).await.expect("a page").len();
    assert_eq!(count().await, usize::try_from(OPEN_SESSIONS_MAX).expect("a count"));
    assert!(refresh(&identity, &kept).await.is_ok());

    let newest = login(&identity, "ann@x").await;
    assert_eq!(count().await, usize::try_from(OPEN_SESSIONS_MAX).expect("a count"));
    assert!(matches!(refresh(&identity, &stale).await, Err(IdentityError::InvalidRefreshToken)));
    refresh(&identity, &newest).await.expect("goes on");
    let ended = audited(&identity, &Filter { account: None, acts: vec![Act::SessionEnded] }).await;
    assert_eq!(ended, [("session-ended".to_owned(), "account", Some("more than 1000 sessions".to_owned()))]);
    database.drop().await;
}

/// The tables as a backup would bring them back.
async fn go_back(database: &Database) {
    for sql in [
        "delete from identity.account a where not exists (select from kept_account k where k.id = a.id)",
        "update identity.account a set role = k.role, disabled = k.disabled, password_hash = k.password_hash
         from kept_account k where k.id = a.id",
        "delete from identity.audit_event e where not exists (select from kept_audit_event k where k.id = e.id)",
        "update identity.session set ended_at = null",
    ] {
        sqlx::query(sql).execute(&database.pool).await.expect("back");
    }
}

#[tokio::test]
async fn a_restore_brings_back_no_session_no_key_and_nothing_that_was_forbidden() {
    let database = Database::create().await;
    let identity = database.start().await;
    let accounts = identity.accounts();
    let mut ids = Vec::new();
    for (address, role) in
        [("ann@a.b", Role::Admin), ("bob@a.b", Role::User), ("eve@a.b", Role::User), ("dan@a.b", Role::User)]
    {
        ids.push(accounts.create(new_account(address, role)).await.expect("made").id);
    }
    let [ann, bob, eve, dan] = ids[..] else { panic!("four") };
    let disable = |disabled| AccountChange { disabled: Some(disabled), ..AccountChange::default() };
    accounts.change(dan, disable(true)).await.expect("disabled");
    let folder = std::env::temp_dir().join(format!("ledger-{}", Uuid::new_v4().simple()));
    let ledger = identity::Ledger::new(folder.clone());
    assert_eq!(ledger.add_new(&database.pool).await.expect("written"), 5);
    assert_eq!(ledger.add_new(&database.pool).await.expect("written"), 0);
    for sql in [
        "create table kept_account as select * from identity.account",
        "create table kept_audit_event as select * from identity.audit_event",
    ] {
        sqlx::query(sql).execute(&database.pool).await.expect("a backup");
    }

    // the future that is lost
    let before = login(&identity, "eve@a.b").await;
    accounts.change(bob, disable(true)).await.expect("disabled");
    accounts.change(ann, AccountChange { role: Some(Role::User), ..AccountChange::default() }).await.expect("demoted");
    accounts.change(dan, disable(false)).await.expect("enabled");
    accounts.set_password(eve, password("another one, since the first was seen")).await.expect("set");
    let lost = accounts.create(new_account("zoe@a.b", Role::User)).await.expect("made").id;
    assert_eq!(ledger.add_new(&database.pool).await.expect("written"), 5);
    go_back(&database).await;
    assert!(identity.login(&email("bob@a.b"), password(PASSWORD), None).await.is_ok(), "as the backup has it");
    assert!(identity.login(&email("eve@a.b"), password(PASSWORD), None).await.is_ok(), "as the backup has it");

    // those who could log in again did so hours after that, before anybody finished the restore
    let later =
        "update identity.audit_event set occurred_at = occurred_at + interval '3 hours' where act = 'login-succeeded'";
    assert_eq!(sqlx::query(later).execute(&database.pool).await.expect("later").rows_affected(), 2);

    let mut lines = ledger.read().expect("read");
    // the database had that, and has deleted it as too old
    let at = process::clock::now() - chrono::TimeDelta::days(i64::from(Class::Account.days()) + 1);
    let (id, act) = (Uuid::new_v4(), Act::PasswordChanged.as_str().to_owned());
    lines.insert(0, Line { id, at, act, account: dan.0, detail: None });
    let restored = identity::restore::after_restore(&database.pool, &secret_of(SECRET), &lines).await.expect("done");
    assert_eq!((restored.passwords_refused, restored.accounts_lost), (vec![eve.0], vec![lost.0]));
    let mut changed = restored.accounts_changed;
    changed.sort();
    let mut expected = vec![(ann.0, "role user".into()), (bob.0, "disabled".into()), (dan.0, "enabled".into())];
    expected.sort();
    assert_eq!(changed, expected);
    assert!(restored.sessions_ended >= 3, "{}", restored.sessions_ended);
    within_5_s("no token of before is taken", async || principal(&identity, &before).is_none()).await;
    assert!(refresh(&identity, &before).await.is_err());
    let refused = identity.login(&email("eve@a.b"), password(PASSWORD), None).await;
    assert!(matches!(refused, Err(IdentityError::InvalidCredentials)), "{refused:?}");
    let refused = identity.login(&email("bob@a.b"), password(PASSWORD), None).await;
    assert!(matches!(refused, Err(IdentityError::Disabled)), "{refused:?}");
    assert_eq!(accounts.get(ann).await.expect("found").role, Role::User);
    login(&identity, "dan@a.b").await;

    // once more, as after an interruption: what was done again is in the ledger too, by then
    ledger.add_new(&database.pool).await.expect("written");
    let lines = ledger.read().expect("read");
    let again = identity::restore::after_restore(&database.pool, &secret_of(SECRET), &lines).await.expect("done");
    assert_eq!((again.accounts_changed, again.passwords_refused), (Vec::new(), Vec::new()));
    std::fs::remove_file(folder).expect("removed");
    database.drop().await;
}

#[tokio::test]
async fn copies_share_a_ledger_and_a_line_that_a_crash_cut_off_is_passed_over() {
    let database = Database::create().await;
    let accounts = Accounts::new(database.pool.clone(), vec![0]).expect("starts");
    let file = std::env::temp_dir().join(format!("ledger-{}", Uuid::new_v4().simple()));
    let copies = [identity::Ledger::new(file.clone()), identity::Ledger::new(file.clone())];
    for number in 0..5 {
        accounts.create(new_account(&format!("a{number}@a.b"), Role::User)).await.expect("made");
        let (one, other) = tokio::join!(copies[0].add_new(&database.pool), copies[1].add_new(&database.pool));
        // that which was cut off comes again
        let expected = if number == 3 { 2 } else { 1 };
        assert_eq!(one.expect("written") + other.expect("written"), expected);
        if number == 2 {
            let text = std::fs::read_to_string(&file).expect("read");
            std::fs::write(&file, &text[..text.len() - 20]).expect("cut off");
        }
    }
    let lines = copies[0].read().expect("read");
    let mut ids: Vec<Uuid> = lines.iter().map(|line| line.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((lines.len(), ids.len()), (5, 5), "the one that was cut off was written again");
    std::fs::remove_file(file).expect("removed");
    database.drop().await;
}

async fn new_key(accounts: &Accounts, account: OwnerId, expires_in_s: Option<i64>) -> (ApiKey, String) {
    let (scopes, name) = ([Scope::TasksRead].into_iter().collect(), Name::parse("nightly report").expect("a name"));
    let expires_at = expires_in_s.map(|seconds| process::clock::now() + TimeDelta::seconds(seconds));
    let made = accounts.create_api_key(NewApiKey { account, name, scopes, expires_at }).await;
    let (key, text) = made.expect("made");
    (key, text.expose_secret().to_owned())
}

fn of_service(identity: &Identity, token: &ServiceToken) -> Option<Principal> {
    identity.verifier().verify(token.access_token.expose_secret())
}

#[tokio::test]
async fn an_api_key_is_exchanged_for_tokens_that_are_good_for_its_scopes() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::Admin)).await.expect("made");
    let (key, text) = new_key(identity.accounts(), account.id, None).await;
    assert!(text.starts_with("ptk_"));
    let token = identity.exchange_api_key(&text).await.expect("good");
    let principal = of_service(&identity, &token).expect("good");
    // less than the account may
    assert_eq!((principal.scopes, principal.role), (Some(key.scopes), Role::User));
    assert_eq!((principal.owner, principal.session, principal.shard), (account.id, key.id, account.shard));
    assert_eq!((token.expires_in_s, token.scopes), (900, key.scopes));
    // what the account does otherwise is not its business
    identity.accounts().set_password(account.id, password("operator's")).await.expect("sets");
    assert!(of_service(&identity, &identity.exchange_api_key(&text).await.expect("good")).is_some());

    // no longer than the key
    let (_, ends_soon) = new_key(identity.accounts(), account.id, Some(60)).await;
    let expires_in_s = identity.exchange_api_key(&ends_soon).await.expect("good").expires_in_s;
    assert!((1..=60).contains(&expires_in_s), "{expires_in_s}");
    let (_, expired) = new_key(identity.accounts(), account.id, Some(0)).await;
    // one that was made by somebody else: of the same form, and under the same id
    let elsewhere = Database::create().await;
    let stranger = elsewhere.start().await;
    let of_stranger = stranger.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let (_, unknown) = new_key(stranger.accounts(), of_stranger.id, None).await;
    let mistyped = text.replace(&text[40..42], if &text[40..42] == "AA" { "BB" } else { "AA" });
    for wrong in [&*expired, &unknown, &mistyped, "", "ptk_", token.access_token.expose_secret()] {
        let refused = identity.exchange_api_key(wrong).await;
        assert!(matches!(refused, Err(IdentityError::InvalidApiKey)), "{refused:?}");
    }
    // the hash is another one's
    let other = "update identity.api_key set secret_hash = sha256('x') where id = $1";
    sqlx::query(other).bind(key.id).execute(&database.pool).await.expect("set");
    assert!(identity.exchange_api_key(&text).await.is_err(), "the id alone is not enough");
    elsewhere.drop().await;
    database.drop().await;
}

#[tokio::test]
async fn a_revoked_api_key_and_its_tokens_end_within_5_s() {
    let database = Database::create().await;
    let (here, elsewhere) = (database.start().await, database.start().await);
    let account = here.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let (key, text) = new_key(here.accounts(), account.id, None).await;
    let (_, stays) = new_key(here.accounts(), account.id, None).await;
    let token = here.exchange_api_key(&text).await.expect("good");
    let stays = here.exchange_api_key(&stays).await.expect("good");
    let session = login(&here, "ann@x").await;
    let stream = of_service(&elsewhere, &token).expect("good");

    // as the command line does
    let operator = Accounts::new(database.pool.clone(), vec![0]).expect("starts");
    assert!(operator.revoke_api_key(key.id).await.expect("revokes"));
    assert!(!operator.revoke_api_key(key.id).await.expect("nothing to do, and nothing to tell"));
    let unknown = operator.revoke_api_key(Uuid::nil()).await;
    assert!(matches!(unknown, Err(IdentityError::NotFound)), "{unknown:?}");
    let refused = elsewhere.exchange_api_key(&text).await;
    assert!(matches!(refused, Err(IdentityError::InvalidApiKey)), "{refused:?}");
    for copy in [&here, &elsewhere] {
        within_5_s("revoked", async || of_service(copy, &token).is_none()).await;
        assert!(of_service(copy, &stays).is_some() && principal(copy, &session).is_some());
    }
    tokio::time::timeout(Duration::from_secs(1), stream.ended()).await.expect("a stream ends");

    // with the account all of them, for good
    let disable = |disabled| AccountChange { disabled: Some(disabled), role: None };
    let (_, last) = new_key(here.accounts(), account.id, None).await;
    here.change(account.id, disable(true)).await.expect("disables");
    assert!(of_service(&here, &stays).is_none());
    let name = Name::parse("n").expect("a name");
    let new = NewApiKey { account: account.id, name, scopes: key.scopes, expires_at: None };
    let disabled = here.accounts().create_api_key(new).await;
    assert!(matches!(disabled, Err(ApiKeyError::Identity(IdentityError::Disabled))), "{disabled:?}");
    here.change(account.id, disable(false)).await.expect("enables");
    assert!(here.exchange_api_key(&last).await.is_err());
    assert!(of_service(&here, &stays).is_none());
    database.drop().await;
}

#[tokio::test]
async fn api_keys_are_listed_bounded_and_forgotten_when_they_have_ended() {
    let database = Database::create().await;
    let identity = database.start().await;
    let accounts = identity.accounts();
    let ann = accounts.create(new_account("ann@x", Role::User)).await.expect("made").id;
    let bob = accounts.create(new_account("bob@x", Role::User)).await.expect("made").id;
    let (first, text) = new_key(accounts, ann, None).await;
    let (of_bob, _) = new_key(accounts, bob, None).await;
    let last_used = async || {
        let keys = accounts.api_keys(Some(ann), None, 1).await.expect("listed");
        keys.first().expect("one").last_used_at
    };
    assert_eq!(last_used().await, None);
    identity.exchange_api_key(&text).await.expect("good");
    let used = last_used().await.expect("used");
    identity.exchange_api_key(&text).await.expect("good");
    assert_eq!(last_used().await, Some(used), "written once in a minute");
    let long_ago = "update identity.api_key set last_used_at = last_used_at - interval '61 seconds'";
    sqlx::query(long_ago).execute(&database.pool).await.expect("set");
    identity.exchange_api_key(&text).await.expect("good");
    assert!(last_used().await.is_some_and(|now| now >= used));

    let mut keys = vec![first.id];
    for _ in 1..OPEN_API_KEYS_MAX {
        keys.push(new_key(accounts, ann, None).await.0.id);
    }
    let one_more =
        || NewApiKey { account: ann, name: Name::parse("n").expect("a name"), scopes: first.scopes, expires_at: None };
    let refused = accounts.create_api_key(one_more()).await;
    assert!(matches!(refused, Err(ApiKeyError::TooMany)), "{refused:?}");
    new_key(accounts, bob, None).await;
    accounts.revoke_api_key(first.id).await.expect("revokes");
    keys.push(accounts.create_api_key(one_more()).await.expect("there is room").0.id);
    let no_scope = NewApiKey { scopes: access::Scopes::default(), ..one_more() };
    assert!(matches!(accounts.create_api_key(no_scope).await, Err(ApiKeyError::NoScope)));

    let mut listed: Vec<Uuid> = Vec::new();
    while let page = accounts.api_keys(Some(ann), listed.last().copied(), 30).await.expect("a page")
        && !page.is_empty()
    {
        listed.extend(page.into_iter().map(|key| key.id));
    }
    assert_eq!(listed, keys);
    let all = accounts.api_keys(None, None, 500).await.expect("listed");
    assert_eq!(all.len(), keys.len() + 2);
    assert!(all.iter().any(|key| (key.id, &*key.email) == (of_bob.id, "bob@x")));

    let ended = "update identity.api_key set revoked_at = case when id = $1 then now() - $3::interval end,
                                             expires_at = case when id = $2 then now() - $3::interval end";
    for (days, expected) in [(29, [0, 0, 0]), (31, [1, 1, 0])] {
        let age = sqlx::postgres::types::PgInterval { months: 0, days, microseconds: 0 };
        sqlx::query(ended).bind(keys[0]).bind(keys[1]).bind(age).execute(&database.pool).await.expect("set");
        for expected in expected {
            assert_eq!(identity.sweep_api_keys(1).await.expect("sweeps"), expected, "{days} days");
        }
    }
    let left = accounts.api_keys(Some(ann), None, 1).await.expect("listed");
    assert_eq!(left.first().map(|key| key.id), Some(keys[2]));
    database.drop().await;
}

#[tokio::test]
async fn what_is_done_with_api_keys_is_written_down() {
    let database = Database::create().await;
    let identity = database.start().await;
    let account = identity.accounts().create(new_account("ann@x", Role::User)).await.expect("made");
    let (key, text) = new_key(identity.accounts(), account.id, None).await;
    let request = || RequestContext::fresh();
    request().scope(identity.exchange_api_key(&text)).await.expect("good");
    identity.accounts().revoke_api_key(key.id).await.expect("revokes");
    request().scope(identity.exchange_api_key(&text)).await.expect_err("revoked");
    let hide = "update identity.api_key set id = gen_random_uuid()";
    sqlx::query(hide).execute(&database.pool).await.expect("set");
    request().scope(identity.exchange_api_key(&text)).await.expect_err("unknown");
    request().scope(identity.exchange_api_key("ptk_nonsense")).await.expect_err("no key, of which nothing is told");

    type Written = (String, String, String, Option<Uuid>, Option<String>);
    let rows: Vec<Written> = sqlx::query_as(
        "select act, class, actor_type, session_id, detail from identity.audit_event
         where act like 'api-key-%' order by id",
    )
    .fetch_all(&database.pool)
    .await
    .expect("events");
    let row = |act: Act, class: Class, actor: &str, session: Option<Uuid>, detail: Option<String>| {
        (act.as_str().to_owned(), class.as_str().to_owned(), actor.to_owned(), session, detail)
    };
    let expected = [
        row(Act::ApiKeyCreated, Class::Administration, "operator", None, Some(format!("{}: tasks:read", key.id))),
        row(Act::ApiKeyUsed, Class::Routine, "account", Some(key.id), None),
        row(Act::ApiKeyRevoked, Class::Administration, "operator", None, Some(key.id.to_string())),
        row(Act::ApiKeyRefused, Class::Routine, "anonymous", Some(key.id), Some("revoked".to_owned())),
        row(Act::ApiKeyRefused, Class::Anybody, "anonymous", None, None),
    ];
    assert_eq!(rows, expected);
    database.drop().await;
}

#[tokio::test]
async fn a_restore_brings_back_no_api_key_that_was_revoked() {
    let database = Database::create().await;
    let identity = database.start().await;
    let accounts = identity.accounts();
    let account = accounts.create(new_account("ann@x", Role::User)).await.expect("made").id;
    let [(revoked, of_revoked), (_, of_other)] =
        [new_key(accounts, account, None).await, new_key(accounts, account, None).await];
    let file = std::env::temp_dir().join(format!("ledger-{}", Uuid::new_v4().simple()));
    let ledger = identity::Ledger::new(file.clone());
    accounts.revoke_api_key(revoked.id).await.expect("revokes");
    while ledger.add_new(&database.pool).await.expect("written") > 0 {}
    for sql in [
        "update identity.api_key set revoked_at = null",
        "delete from identity.audit_event where act = 'api-key-revoked'",
    ] {
        sqlx::query(sql).execute(&database.pool).await.expect("back");
    }
    identity.exchange_api_key(&of_revoked).await.expect("as the backup has it");
    let lines = ledger.read().expect("read");
    for expected in [vec![revoked.id], Vec::new()] {
        let restored = identity::restore::after_restore(&database.pool, &secret_of(SECRET), &lines).await;
        assert_eq!(restored.expect("done").api_keys_revoked, expected);
    }
    assert!(identity.exchange_api_key(&of_revoked).await.is_err());
    identity.exchange_api_key(&of_other).await.expect("good");
    std::fs::remove_file(file).expect("removed");
    database.drop().await;
}
