//! The pool of connections, with a proxy in between that lets connections die silently.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backends::database::{self, AGE_S_MAX, Address, DatabaseUrls, Pool, PoolSize, Use};
use futures_util::FutureExt;
use futures_util::future::join_all;
use settings::Source;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use system_tests::proxy::Proxy;
use system_tests::wait::until;
use tokio::time::timeout;

const CONNECTIONS: u32 = 4;
const SECOND: Duration = Duration::from_secs(1);

fn server() -> PgConnectOptions {
    std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL").parse().expect("a Postgres URL")
}

async fn proxy() -> Proxy {
    let server = server();
    let mut found = tokio::net::lookup_host((server.get_host(), server.get_port())).await.expect("an address");
    Proxy::start(found.next().expect("an address")).await
}

fn pool_through(proxy: &Proxy, age_s_max: u64) -> Pool {
    let address: SocketAddr = proxy.address();
    let through = server().host(&address.ip().to_string()).port(address.port());
    let size = PoolSize { connections_max: CONNECTIONS, connections_kept: 0, wait_ms_max: 5_000, age_s_max };
    Pool::new(through.into(), size, None)
}

/// Whose connections are to lead to a server that writes.
fn pool_that_writes(connections_max: u32) -> Pool {
    let server = server();
    let (host, port, user) = (server.get_host(), server.get_port(), server.get_username());
    let database = server.get_database().unwrap_or(user);
    let url = format!("postgres://{user}@{host}:{port}/{database}?target_session_attrs=read-write");
    let address = Address::parse(&url.into(), Use::Write).expect("a URL");
    Pool::new(
        address,
        PoolSize { connections_max, connections_kept: 0, wait_ms_max: 5_000, age_s_max: AGE_S_MAX },
        None,
    )
}

async fn ask(pool: &Pool) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select 1 from pg_sleep(0.02)").fetch_one(pool).await
}

/// So many at once that every connection is used.
async fn ask_all(pool: &Pool) -> usize {
    let answers = join_all((0..2 * CONNECTIONS).map(|_| timeout(SECOND, ask(pool)))).await;
    answers.iter().filter(|answer| matches!(answer, Ok(Ok(1)))).count()
}

#[tokio::test]
async fn the_server_notices_clients_that_vanish() {
    let pool = pool_through(&proxy().await, AGE_S_MAX);
    for (name, value) in [("tcp_keepalives_idle", "5"), ("tcp_user_timeout", "10000")] {
        let set: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&pool).await.expect("one");
        assert_eq!(set, value, "{name}");
    }
}

/// In a statement, in a transaction, given back a moment ago, idle: whatever it was in, it costs one attempt, and the
/// pool does not get smaller.
#[tokio::test]
async fn each_dead_connection_costs_one_attempt() {
    let proxy = proxy().await;
    let pool = pool_through(&proxy, AGE_S_MAX);
    let all = (2 * CONNECTIONS) as usize;
    for round in 0..10 {
        assert_eq!(ask_all(&pool).await, all);
        let mut open = pool.begin().await.expect("begun");
        sqlx::query("select 1").execute(&mut *open).await.expect("asked");
        let under_way = timeout(Duration::from_millis(200), ask_all(&pool));
        let freeze = async {
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            } else {
                // one more round trip, so that it is in the midst of the others
                drop(pool.acquire().await);
            }
            proxy.freeze();
        };
        let _broken_off = tokio::join!(under_way, freeze);
        let frozen = Instant::now();
        drop(open);
        until("all is well", Duration::from_secs(15), || async { (ask_all(&pool).await == all).then_some(()) }).await;
        println!("round {round}: well after {:?}", frozen.elapsed());
        assert!(pool.size() <= CONNECTIONS, "{}", pool.size());
    }
    pool.close().await;
    assert_eq!((pool.size(), pool.num_idle()), (0, 0));
}

/// Counted: who asks again and again, one statement after the other, meets each connection that has died once at most, and
/// none any more after the first statement that is answered.
#[tokio::test]
async fn no_more_statements_fail_than_connections_have_died() {
    // longer than a connection is drained, shorter than it takes until an idle one is asked in any case
    const STATEMENT_MAX: Duration = Duration::from_secs(3);
    let proxy = proxy().await;
    let pool = pool_through(&proxy, AGE_S_MAX);
    let all_at_once = join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
    assert!(all_at_once.iter().all(Result::is_ok), "{all_at_once:?}");
    drop(all_at_once);
    until("all are idle", SECOND, || async { (pool.num_idle() == CONNECTIONS as usize).then_some(()) }).await;
    proxy.freeze();
    let mut answered = Vec::new();
    for _ in 0..4 * CONNECTIONS {
        answered.push(matches!(timeout(STATEMENT_MAX, ask(&pool)).await, Ok(Ok(1))));
    }
    let failed = answered.iter().filter(|answered| !**answered).count();
    println!("{failed} of {} statements failed, {CONNECTIONS} connections had died", answered.len());
    assert!((1..=CONNECTIONS as usize).contains(&failed), "{answered:?}");
    assert!(answered[failed..].iter().all(|answered| *answered), "{answered:?}");
    // and so many at once as there is room for
    assert_eq!(ask_all(&pool).await, (2 * CONNECTIONS) as usize);
}

#[tokio::test]
async fn a_connection_that_is_idle_is_asked_before_it_is_used() {
    let proxy = proxy().await;
    let pool = pool_through(&proxy, AGE_S_MAX);
    ask_all(&pool).await;
    proxy.freeze();
    until("they are found out", Duration::from_secs(15), || async { (pool.size() == 0).then_some(()) }).await;
    // and nobody has met one
    assert_eq!(ask_all(&pool).await, (2 * CONNECTIONS) as usize);
}

#[tokio::test]
async fn a_connection_that_is_old_is_replaced() {
    let proxy = proxy().await;
    let pool = pool_through(&proxy, 1);
    let backend =
        async || sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool).await.expect("a pid");
    let first = backend().await;
    until("another connection", Duration::from_secs(10), || async { (backend().await != first).then_some(()) }).await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_and_its_connection_used_again() {
    let pool = pool_through(&proxy().await, AGE_S_MAX);
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    let exists = async || {
        let sql = "select to_regclass($1) is not null";
        sqlx::query_scalar::<_, bool>(sql).bind(&name).fetch_one(&pool).await.expect("asked")
    };
    for commits in [false, true] {
        let mut transaction = pool.begin().await.expect("begun");
        let make = sqlx::AssertSqlSafe(format!("create table {name} ()"));
        sqlx::query(make).execute(&mut *transaction).await.expect("made");
        if commits {
            transaction.commit().await.expect("committed");
        } else {
            drop(transaction);
        }
        assert_eq!(exists().await, commits);
    }
    assert!(pool.size() <= 2);
    let drop = sqlx::AssertSqlSafe(format!("drop table {name}"));
    sqlx::query(drop).execute(&pool).await.expect("dropped");
}

/// A client that vanishes while its transaction begins leaves none behind, in which others' statements would be: those would
/// be answered, and not committed.
#[tokio::test]
async fn a_transaction_that_is_dropped_while_it_begins_is_rolled_back() {
    let pool = pool_through(&proxy().await, AGE_S_MAX);
    let mut watcher = PgConnection::connect_with(&server()).await.expect("another connection");
    for round in 0..10 {
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&pool).await.expect("a connection");
        // as far as one comes without an answer
        let begun = match round % 2 {
            0 => pool.begin().now_or_never(),
            _ => pool.begin_snapshot().now_or_never(),
        };
        assert!(begun.is_none());
        until("it is given back", SECOND, || async { (pool.num_idle() == pool.size() as usize).then_some(()) }).await;
        let state: String = sqlx::query_scalar("select state from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(&mut watcher)
            .await
            .expect("the same connection");
        assert_eq!(state, "idle", "round {round}");
        assert_eq!(pool.size(), 1);
    }
}

#[tokio::test]
async fn a_server_that_only_reads_is_left_once_it_refused_a_transaction() {
    let pool = pool_that_writes(1);
    let backend =
        async || sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool).await.expect("a pid");
    let first = backend().await;
    assert_eq!(backend().await, first);

    sqlx::query("set default_transaction_read_only = on").execute(&pool).await.expect("set");
    let mut transaction = pool.begin().await.expect("begun");
    let refused = sqlx::query("create table t_never ()").execute(&mut *transaction).await.expect_err("refused");
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("25006"));
    drop(transaction);
    assert_ne!(backend().await, first);
}

/// Who was busy when others found that the server only reads, and has only read since, is asked too.
#[tokio::test]
async fn one_that_was_in_use_when_its_server_was_found_to_only_read_is_asked_before_its_next_use() {
    let pool = pool_that_writes(2);
    let backend = async |connection: &mut PgConnection| {
        sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(connection).await.expect("a pid")
    };
    let (mut reading, mut writing) = (pool.acquire().await.expect("one"), pool.acquire().await.expect("another one"));
    let reader = backend(&mut reading).await;
    // as a server says after a failover; to reads it makes no difference
    for connection in [&mut reading, &mut writing] {
        sqlx::query("set default_transaction_read_only = on").execute(&mut **connection).await.expect("set");
    }
    let refused = sqlx::query("create table t_never ()").execute(&mut *writing).await.expect_err("refused");
    pool.notice(&refused);
    drop(writing);
    assert_eq!(backend(&mut reading).await, reader);
    drop(reading);
    assert_ne!(backend(&mut *pool.acquire().await.expect("a new one")).await, reader);
}

#[tokio::test]
async fn who_waits_for_a_connection_is_told_when_there_is_none() {
    let pool = pool_through(&proxy().await, AGE_S_MAX);
    let held = join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
    drop(held);
    ask(&pool).await.expect("one is free");
}

#[tokio::test]
async fn the_first_host_that_is_wanted_is_taken() {
    let server = server();
    let (host, port) = (server.get_host(), server.get_port());
    let database = server.get_database().unwrap_or(server.get_username()).to_owned();
    let user = server.get_username();
    let url = format!("postgres://{user}@127.0.0.1:1,{host}:{port}/{database}");
    for (attributes, found) in
        [("", true), ("?target_session_attrs=read-write", true), ("?target_session_attrs=standby", false)]
    {
        let address = Address::parse(&format!("{url}{attributes}").into(), Use::Read).expect("a URL");
        let connected = address.connect().await;
        assert_eq!(connected.is_ok(), found, "{attributes}: {:?}", connected.err());
    }
}

#[tokio::test]
async fn new_connections_log_in_as_the_file_says_by_then() {
    let server = server();
    let role = format!("renewed_{}", uuid::Uuid::new_v4().simple());
    let mut operator = PgConnection::connect_with(&server).await.expect("connects");
    let make = AssertSqlSafe(format!("create role {role} login"));
    sqlx::query(make).execute(&mut operator).await.expect("made");
    let file = std::env::temp_dir().join(&role);
    std::fs::write(&file, server.get_username()).expect("writes");
    let port = server.get_port().to_string();
    let source = Source::from_pairs([
        ("PRIMETRADE_DATABASE_HOST", server.get_host()),
        ("PRIMETRADE_DATABASE_PORT", &*port),
        ("PRIMETRADE_DATABASE_NAME", server.get_database().unwrap_or(server.get_username())),
        ("PRIMETRADE_DATABASE_USER_FILE", file.to_str().expect("UTF-8")),
    ]);
    let given = DatabaseUrls::read(&source).expect("good").write.expect("a database");
    let address = database::address(&given, Use::Write).expect("a URL");
    let size = PoolSize { connections_max: 1, connections_kept: 0, wait_ms_max: 5_000, age_s_max: 1 };
    let pool = Pool::new(address, size, None);
    let who = async || {
        let asked = sqlx::query_as::<_, (String, i32)>("select current_user::text, pg_backend_pid()");
        asked.fetch_one(&pool).await.expect("logged in")
    };
    assert_eq!(who().await.0, server.get_username());
    std::fs::write(&file, format!("{role}\n")).expect("writes");
    until("a new connection by the new name", 10 * SECOND, || async { (who().await.0 == role).then_some(()) }).await;
    // a file that cannot be read takes nothing away
    std::fs::remove_file(file).expect("removes");
    let (_, former) = who().await;
    until("another connection", 10 * SECOND, || async {
        let (name, process) = who().await;
        assert_eq!(name, role);
        (process != former).then_some(())
    })
    .await;
    pool.close().await;
    sqlx::query(AssertSqlSafe(format!("drop role {role}"))).execute(&mut operator).await.expect("drops");
}
