//! The services behind their gateway: restarted one after the other under load, killed, and told of ended sessions.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use system_tests::check::everything_holds_in;
use system_tests::client::{Account, Api, Request, check_problem};
use system_tests::cluster::{Cluster, pool};
use system_tests::ledger::{Ledger, Load};
use system_tests::process::binary;
use system_tests::raw_http::{exchange, exchange_from, status};
use system_tests::reaper::remove_at_end;
use system_tests::redis::Redis;
use system_tests::server::run;
use system_tests::slowness::Slowness;
use system_tests::stack::{COPIES, Stack};
use system_tests::wait::{until, until_right};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
/// A machine with much to do may take so long for an answer.
const SOON: Duration = Duration::from_secs(30);
/// What a machine with much to do adds to a time.
const SLOW_MACHINE: Duration = Duration::from_secs(3);
/// How long an ended session may be known nowhere else.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// Clients that ask the gateway again and again until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(account: &Account, count: usize, status: u16, ask: fn(&Account, usize) -> Request) -> Clients {
        Clients::start_each(account, count, move |number, client, stop, answered| async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let began = Instant::now();
                match ask(&client, number).try_send().await {
                    Ok(answer) if answer.status == status => {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(answer) => {
                        failed.push(format!("after {:?}: {} {}", began.elapsed(), answer.status, answer.text()));
                    }
                    Err(error) => failed.push(format!("after {:?}: {error:?}", began.elapsed())),
                }
            }
            failed
        })
    }

    /// `client` runs until it is told to stop, counts what was answered as it should be, and gives what else came.
    fn start_each<F: Future<Output = Vec<String>> + Send + 'static>(
        account: &Account,
        count: usize,
        client: impl Fn(usize, Account, Arc<AtomicBool>, Arc<AtomicUsize>) -> F,
    ) -> Clients {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let start = |number| {
            let account = account.at(Api::new(account.api.base()));
            tokio::spawn(client(number, account, Arc::clone(&stop), Arc::clone(&answered)))
        };
        let tasks = (0..count).map(start).collect();
        Clients { stop, answered, tasks }
    }

    fn readers(account: &Account, count: usize) -> Clients {
        const PATHS: [&str; 3] = [TASKS, "/api/v1/stats", "/api/v1/auth/me"];
        Clients::start(account, count, 200, |account, number| account.request("GET", PATHS[number % PATHS.len()]))
    }

    /// Writes and then reads what it wrote, by its token. That it is not there in time counts unless the machine was at
    /// fault: where a small commit takes a tenth of this or a message a third, what lies between a write and a read takes
    /// longer than a token waits, with nothing restarted.
    fn reader_of_its_writes(account: &Account, machine: &Arc<Slowness>) -> Clients {
        const MACHINE_AT_FAULT: Duration = Duration::from_millis(1_500);
        let machine = Arc::clone(machine);
        Clients::start_each(account, 1, move |_, client, stop, answered| {
            let machine = Arc::clone(&machine);
            async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let write = client.request("POST", TASKS).key(&Uuid::new_v4().to_string());
                    let began = Instant::now();
                    let written = write.json(&json!({"title": "read by its token"})).send().await.expect(201);
                    let path = format!("{TASKS}/{}", written.uuid("/id"));
                    let read = client.read(&path).await;
                    if read.status == 200 {
                        answered.fetch_add(1, Ordering::SeqCst);
                    } else if machine.allowed(Duration::ZERO, began) < MACHINE_AT_FAULT {
                        failed.push(format!("after {:?}: {} {}", began.elapsed(), read.status, read.text()));
                    }
                }
                failed
            }
        })
    }

    /// Without a key: nobody sends such a write a second time.
    fn writers(account: &Account, count: usize) -> Clients {
        Clients::start(account, count, 201, |account, _| account.request("POST", TASKS).json(&json!({"title": "once"})))
    }

    /// How many were answered as they should be, and what else came.
    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.expect("a client"));
        }
        let answered = self.answered.load(Ordering::SeqCst);
        // a slow machine answers few, none would show nothing
        assert!(answered >= 20, "{answered} requests were answered");
        (answered, failed)
    }
}

/// Waits until this many more attempts were answered 2xx.
async fn progress(ledger: &Ledger, more: usize) {
    let target = ledger.done() + more;
    until("the load makes progress", Duration::from_secs(60), || async { (ledger.done() >= target).then_some(()) })
        .await;
}

async fn settled(stack: &Stack, ledger: &Ledger) {
    stack.caught_up().await;
    everything_holds_in(&stack.database_url(), stack.dir(), &[ledger]).await;
}

/// Issue 4, test 12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_everything_fails_no_request() {
    let stack = Stack::start().await;
    // of several accounts, so that some of them are in each partition that moves
    let machine = Arc::new(Slowness::watch_with_kafka(&stack.database_url(), &stack.brokers()).await);
    let mut with_token = Vec::new();
    for _ in 0..4 {
        with_token.push(Clients::reader_of_its_writes(&stack.api().account().await, &machine));
    }
    let ledger = Ledger::new(stack.api().account().await);
    // not more than the machine can do: then reads would be late with nothing restarted
    let load = Load::start(&ledger, 3);
    let readers = Clients::readers(ledger.account(), 3);
    let unkeyed = stack.api().account().await;
    let writers = Clients::writers(&unkeyed, 1);
    progress(&ledger, 100).await;
    let before: Vec<String> = COPIES.iter().map(|copy| stack.pid_text(copy)).collect();
    stack.stack(&["restart"], "").await.expect(0);
    // to one copy of the projector, and to two again
    stack.stack(&["stop", "projector-2"], "").await.expect(0);
    progress(&ledger, 50).await;
    stack.up().await;
    progress(&ledger, 50).await;
    for (copy, before) in COPIES.iter().zip(before) {
        assert_ne!(stack.pid_text(copy), before, "{copy} is a new one");
    }
    progress(&ledger, 100).await;
    load.stop().await;
    let (_, mut failed) = readers.stop().await;
    for clients in with_token {
        failed.extend(clients.stop().await.1);
    }
    assert!(failed.is_empty(), "{} reads failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    let (written, failed) = writers.stop().await;
    let gateway = stack.log("gateway");
    assert!(
        failed.is_empty(),
        "{} unkeyed writes failed: {:?} {gateway}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    assert_eq!(ledger.unknown(), 0, "writes failed: {}", stack.log("gateway"));
    settled(&stack, &ledger).await;
    let stats = unkeyed.request("GET", "/api/v1/stats").send().await.expect(200).json();
    assert_eq!(stats["by_status"]["pending"], written, "each unkeyed write has one effect: {stats}");
}

/// Reads, and writes with a key, do not notice that a copy is killed; nothing of the others is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_copies_are_started_again() {
    let stack = Stack::start().await;
    let ledger = Ledger::new(stack.api().account().await);
    let load = Load::start(&ledger, 6);
    let readers = Clients::readers(ledger.account(), 3);
    for copy in COPIES {
        progress(&ledger, 50).await;
        stack.kill(copy).await;
        progress(&ledger, 50).await;
        stack.up().await;
    }
    load.stop().await;
    let (_, failed) = readers.stop().await;
    assert!(failed.is_empty(), "{} reads failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    ledger.settle().await;
    ledger.replay(100).await;
    settled(&stack, &ledger).await;
}

/// Requests that a frozen copy gets first are answered by the other one, and within 3 s it gets no more of them; but for
/// one each half minute that finds out whether it is well again. (Of a stack of its own: where a copy was killed within the
/// last half minute, all of its requests go to the other one, frozen or not.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_copies_are_taken_out() {
    let stack = Stack::start().await;
    const FROZEN: Duration = Duration::from_secs(9);
    const TAKEN_OUT: Duration = Duration::from_secs(3);
    // since they were frozen: begun, answered
    let timed = async |what: &'static str, asked: &dyn Fn() -> Request, status: u16, frozen: Instant| {
        let mut times = Vec::new();
        while frozen.elapsed() < FROZEN {
            let began = frozen.elapsed();
            let answer = asked().send().await;
            assert_eq!(answer.status, status, "{what} after {began:?}: {}", answer.text());
            times.push((began, frozen.elapsed()));
        }
        times
    };
    let account = account_of(&stack, "command-api-2").await;
    let read = || account.request("GET", TASKS);
    let who = || account.request("GET", "/api/v1/auth/me");
    let keyed =
        || account.request("POST", TASKS).key(&Uuid::new_v4().to_string()).json(&json!({"title": "while frozen"}));
    let unkeyed = || account.request("POST", TASKS).json(&json!({"title": "while frozen, no key"}));
    for copy in ["command-api-2", "query-api-2"] {
        stack.signal(copy, Signal::STOP);
    }
    let frozen = Instant::now();
    let (reads, others, writes, commands) = tokio::join!(
        timed("a read", &read, 200, frozen),
        timed("a read of an account", &who, 200, frozen),
        timed("a write with a key", &keyed, 201, frozen),
        timed("a command without a key", &unkeyed, 201, frozen)
    );
    for copy in ["command-api-2", "query-api-2"] {
        stack.signal(copy, Signal::CONT);
    }
    for (what, times, probes_max) in [("reads", reads, 1), ("writes", [writes, others, commands].concat(), 1)] {
        let slowest = times.iter().map(|(began, answered)| *answered - *began).max().unwrap_or_default();
        println!("{what} while copies are frozen: {}, the slowest {slowest:?}", times.len());
        assert!(slowest < TAKEN_OUT + SLOW_MACHINE, "{what} wait for a frozen copy: {slowest:?}");
        let late = times.iter().filter(|(began, answered)| *began > TAKEN_OUT && *answered - *began >= TAKEN_OUT);
        assert!(late.clone().count() <= probes_max, "{what} still go to a frozen copy: {:?}", late.collect::<Vec<_>>());
    }
}

/// One whose requests this copy of command-api gets, and so the copy of query-api that has the same number.
async fn account_of(stack: &Stack, copy: &str) -> Account {
    let created = async |copy: &str| stack.ops(copy).metric("tasks_created_total").await;
    until("an account of the copy", SOON, || async {
        let account = stack.api().account().await;
        let before = [created("command-api-1").await, created("command-api-2").await];
        account.create(json!({"title": "at which copy?"})).await;
        // what is asked for again at once may be what was told before
        let at = until("the copy that made the task", SOON, || async {
            let copies = ["command-api-1", "command-api-2"].into_iter().zip(before);
            for (copy, before) in copies {
                if created(copy).await > before {
                    return Some(copy);
                }
            }
            None
        })
        .await;
        (at == copy).then_some(account)
    })
    .await
}

/// The one that has just decided on a task decides on it again: no other finds out from Postgres that it knew less.
async fn commands_of_an_account_meet_at_one_copy(stack: &Stack) {
    let commands = ["command-api-1", "command-api-2"];
    for copy in commands {
        let account = account_of(stack, copy).await;
        let conflicts = async || {
            let [one, other] = commands.map(|copy| stack.ops(copy));
            one.metric("command_conflicts_total").await + other.metric("command_conflicts_total").await
        };
        let task = account.create(json!({"title": "0"})).await;
        let (before, logged) = (conflicts().await, stack.log("postgres").len());
        for number in 1..=200 {
            let change = json!({"title": number.to_string()});
            account.request("PATCH", &format!("{TASKS}/{task}")).json(&change).send().await.expect(200);
        }
        assert!(conflicts().await - before <= 2.0, "{} conflicts", conflicts().await - before);
        let log = stack.log("postgres");
        assert!(!log[logged..].contains("ERROR"), "{}", &log[logged..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_as_its_operator_and_its_clients_see_it() {
    // issue 10, 17: no probe, and no fetch of keys, asks the proxy
    let nowhere = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:9"));
    let mut variables = vec![("PRIMETRADE_CORS_ORIGINS", ORIGINS)];
    variables.extend(nowhere);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        // IPv4 comes along
        variables.extend([("STACK_LISTEN", "[::]"), ("PRIMETRADE_ALLOW_INSECURE", "plain-http")]);
    }
    let stack = Stack::start_with(&variables).await;
    let others = async {
        up_twice_changes_nothing(&stack).await;
        operations_are_not_for_the_outside(&stack).await;
        clients_are_known_by_their_address(&stack).await;
        ended_sessions_are_known_everywhere(&stack).await;
    };
    tokio::join!(a_slow_body_is_told_so_behind_the_gateway(&stack), others);
    commands_of_an_account_meet_at_one_copy(&stack).await;
    each_service_logs_in_with_the_rights_that_it_needs(&stack).await;
    operators_see_which_statements_take_long(&stack).await;
    cleaners_and_small_disks_do_its_postgres_no_harm(&stack).await;
    what_the_gateway_answers_itself_is_a_problem_too(&stack).await;
    pages_see_what_the_gateway_answers_itself(&stack).await;
    keys_are_known_while_nobody_shows_them(&stack).await;
    another_redis_at_the_port_is_told_and_not_believed(&stack).await;
    down_ends_everything_and_keeps_the_data(&stack).await;
}

/// As docs/operations.md has it: a login, its service, and the roles that it is a member of.
const LOGINS: [(&str, &str, &str); 5] = [
    ("announcements", "command-api", "primetrade_announce"),
    ("commands", "command-api", "primetrade_append, primetrade_identity, primetrade_jobs"),
    ("log_of_projector", "projector", "primetrade_log_reader"),
    ("projector", "projector", "primetrade_fold"),
    ("queries", "query-api", "primetrade_query"),
];

/// None as the owner, and no password is told to others.
async fn each_service_logs_in_with_the_rights_that_it_needs(stack: &Stack) {
    let db = pool(&stack.database_url()).await;
    let logins = LOGINS.map(|(login, ..)| login.to_owned());
    until_right(SOON, || async {
        let sessions = "select distinct usename::text from pg_stat_activity where datname = current_database()
                            and application_name like 'primetrade%' order by 1";
        let sessions: Vec<String> = sqlx::query_scalar(sessions).fetch_all(&db).await.expect("sessions");
        if sessions == logins { Ok(()) } else { Err(format!("sessions of {sessions:?}")) }
    })
    .await;
    let members = "select l.rolname::text, string_agg(r.rolname::text, ', ' order by r.rolname)
                   from pg_roles l join pg_auth_members m on m.member = l.oid join pg_roles r on r.oid = m.roleid
                   where l.rolcanlogin and not (l.rolsuper or l.rolcreaterole or l.rolcreatedb or l.rolbypassrls)
                   group by 1 order by 1";
    let members: Vec<(String, String)> = sqlx::query_as(members).fetch_all(&db).await.expect("members");
    let expected = LOGINS.map(|(login, _, roles)| (login.to_owned(), roles.to_owned()));
    assert_eq!(members, expected);
    db.close().await;

    let owner = fs::read_to_string(stack.dir().join("postgres.secret")).expect("the owner's password");
    let log = stack.log("postgres");
    assert!(!log.contains("permission denied"), "{log}");
    for (login, service, _) in LOGINS {
        let file = stack.dir().join("logins").join(login);
        let password = fs::read_to_string(&file).expect("a password");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600, "{login}");
        assert!(password.len() == 64 && password != owner && !log.contains(&password), "{login}");
        for copy in COPIES {
            let told = variables_of(stack, copy);
            assert_eq!(told.contains(&password), copy.starts_with(service), "{copy} and the password of {login}");
            assert!(!told.contains(&owner), "{copy} and the owner's password");
        }
    }
    // what is said of databases by somebody else is what holds, in a configuration file too
    let file = stack.home().join("databases");
    fs::write(&file, format!("PRIMETRADE_DATABASE_URL={}\n", stack.database_url())).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
    let by_file = [("PRIMETRADE_CONFIG_FILE", file.to_str().expect("text"))];
    stack.stack_with(&["restart", "projector-2"], &by_file).await.expect(0);
    let told = variables_of(stack, "projector-2");
    assert!(told.contains(&owner) && !told.contains("log_of_projector"), "projector-2");
    stack.stack(&["restart", "projector-2"], "").await.expect(0);
    let told = variables_of(stack, "projector-2");
    assert!(!told.contains(&owner) && told.contains("log_of_projector"), "projector-2");
}

/// Issue 10, 8 and 9: nothing of it is in /dev/shm, and its log is bounded by the disk (`wal_mb` of machine.sh).
async fn cleaners_and_small_disks_do_its_postgres_no_harm(stack: &Stack) {
    let db = pool(&stack.database_url()).await;
    let setting = async |name: &str| {
        let query = sqlx::query_as("select source, current_setting(name) from pg_settings where name = $1");
        let (source, value): (String, String) = query.bind(name.to_owned()).fetch_one(&db).await.expect("a setting");
        assert_eq!(source, "command line", "{name} is {value}");
        value
    };
    assert_eq!(setting("dynamic_shared_memory_type").await, "mmap");
    let log = setting("max_wal_size").await;
    let bytes: i64 = sqlx::query_scalar("select pg_size_bytes($1)").bind(log).fetch_one(&db).await.expect("a size");
    assert!((64 << 20..=1 << 30).contains(&bytes), "{bytes}");
    db.close().await;
}

/// Login, calls, milliseconds (total, mean, most), rows, blocks read, statement.
type Statement = (String, i64, i64, f64, i64, i64, i64, String);

/// As docs/operations.md has it. Passwords are not kept with the statements that set them, and plans only on demand.
async fn operators_see_which_statements_take_long(stack: &Stack) {
    let db = pool(&stack.database_url()).await;
    let query = sqlx::query_as(include_str!("../../deploy/postgres/slow-statements.sql"));
    let statements: Vec<Statement> = query.fetch_all(&db).await.expect("statements");
    for (login, table) in [("commands", "event_store."), ("projector", "read_model.")] {
        let found = statements.iter().any(|s| s.0 == login && s.1 > 0 && s.3 > 0.0 && s.7.contains(table));
        assert!(found, "{login}: {statements:?}");
    }
    for (login, ..) in LOGINS {
        let password = fs::read_to_string(stack.dir().join("logins").join(login)).expect("a password");
        let kept = sqlx::query_scalar("select count(*) from pg_stat_statements where position($1 in query) > 0");
        let kept: i64 = kept.bind(password).fetch_one(&db).await.expect("statements");
        assert_eq!(kept, 0, "the password of {login}");
    }
    assert!(!stack.log("postgres").contains("Query Text:"), "a plan is logged");
    let tell = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&db).await.expect(statement);
    };
    tell("alter system set auto_explain.log_min_duration = '1ms'").await;
    tell("select pg_reload_conf()").await;
    until("the plan of a slow statement", SOON, || async {
        tell("select pg_sleep(0.002)").await;
        stack.log("postgres").contains("Query Text: select pg_sleep(0.002)").then_some(())
    })
    .await;
    tell("alter system reset auto_explain.log_min_duration").await;
    tell("select pg_reload_conf()").await;
    db.close().await;
}

/// What a part was started with.
fn variables_of(stack: &Stack, part: &str) -> String {
    let number = stack.pid_text(part).lines().next().expect("a process number").to_owned();
    let variables = fs::read(Path::new("/proc").join(number).join("environ")).expect("variables");
    String::from_utf8_lossy(&variables).into_owned()
}

async fn operations_are_not_for_the_outside(stack: &Stack) {
    let gateway = stack.api();
    let ask = async |authority: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        exchange(authority, request.as_bytes(), SOON).await
    };
    for (path, said) in [("livez", "200 OK"), ("readyz", "\"status\":\"ready\""), ("metrics", "# TYPE")] {
        for copy in COPIES {
            let answer = ask(stack.ops(copy).authority(), &format!("/{path}")).await;
            assert!(answer.contains(said), "{copy} {path}: {answer:.300}");
        }
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for spelled in ["/{}", "/{}?x=1", "//{}", "/{}/", "/./{}", "/x/../{}", "/{encoded}"] {
            let path = spelled.replace("{}", path).replace("{encoded}", &encoded);
            let answer = ask(gateway.authority(), &path).await;
            assert_eq!(status(&answer), 404, "{path}: {answer:.300}");
            assert!(answer.contains("application/problem+json"), "{path}: {answer:.300}");
        }
    }
    let docs = ask(gateway.authority(), "/docs").await;
    assert!(docs.starts_with("HTTP/1.1 200") && docs.contains("text/html"), "{docs:.300}");
}

/// By the one from which they reached the gateway, whatever they say of themselves.
async fn clients_are_known_by_their_address(stack: &Stack) {
    let account = stack.api().account().await;
    let body = json!({"email": account.email, "password": "not this one"}).to_string();
    let login = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 198.51.100.8\r\n\
         Forwarded: for=198.51.100.9\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    // none of the trusted proxies, as 127.0.0.1 is
    let client = Ipv4Addr::new(127, 0, 0, 2);
    let answer = exchange_from(client, stack.api().authority(), login.as_bytes(), SOON).await;
    assert_eq!(status(&answer), 401, "{answer:.500}");
    let (email, password) = (format!("admin-{}@example.com", Uuid::new_v4().simple()), "the admin's own password");
    let create = ["user", "create", "--email", &email, "--admin", "--password-stdin"];
    stack.cli_with_input(&create, password).await.expect(0);
    let admin = stack.api().log_in(Uuid::nil(), &email, password).await;
    let audit = format!("/api/v1/users/audit?act=login-failed&account={}", account.id);
    let page = admin.request("GET", &audit).send().await.expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!(page["items"][0]["client_address"], client.to_string(), "{page}");
}

async fn down_ends_everything_and_keeps_the_data(stack: &Stack) {
    let parts = || ["postgres", "redis", "kafka", "gateway"].into_iter().chain(COPIES);
    stack.logs_until("query-api-2", "query-api starts").await;
    let account = stack.api().account().await;
    let task = account.create(json!({"title": "kept"})).await;
    // its workers live on, with its port
    stack.kill("gateway").await;
    stack.up().await;
    let pids: Vec<String> = parts().map(|part| stack.pid_text(part)).collect();
    // where nothing may be ended
    let no_kill = stack.home().join("no-kill");
    fs::write(&no_kill, "kill() { return 1; }\n").expect("a file");
    let refused = stack.stack_with(&["down"], &[("BASH_ENV", no_kill.to_str().expect("text"))]).await.expect(1);
    for (part, pid) in parts().zip(&pids) {
        let number = pid.lines().next().expect("a process number");
        let said = format!("{part} is still alive, process {number}");
        assert!(refused.err.contains(&said), "{said}: {refused:?}");
    }
    stack.stack(&["status"], "").await.expect(0);
    stack.stack(&["down"], "").await.expect(0);
    for (part, pid) in parts().zip(pids) {
        let number = pid.lines().next().expect("a process number");
        let process = Path::new("/proc").join(number);
        // what has ended is there until init has looked at it
        until(part, Duration::from_secs(20), || async { (!process.exists()).then_some(()) }).await;
    }
    let status = stack.stack(&["status"], "").await.expect(1);
    for part in parts() {
        let line = status.out.lines().find(|line| line.starts_with(part)).expect("a line");
        assert!(line.contains("stopped"), "{line}");
    }
    stack.stack(&["down"], "").await.expect(0);
    a_failed_up_stops_what_it_started(stack).await;
    stack.up().await;
    let again = stack.api().log_in(account.id, &account.email, &account.password).await;
    assert_eq!(again.task(task).await["title"], "kept");
}

/// A projector that ends, and another program that answers at its ports by then.
async fn a_failed_up_stops_what_it_started(stack: &Stack) {
    let real = binary("primetrade");
    let programs = write_program(
        "projector",
        "cd \"${0%/*}\"; touch started; until [ -e answering ]; do sleep 0.05; done; exit 1",
    );
    for program in ["primetrade", "command-api", "query-api"] {
        symlink(real.with_file_name(program), programs.join(program)).expect("a link");
    }
    let ports = stack.ports();
    let somebody_else = async {
        until("the projector starts", Duration::from_secs(90), || async {
            programs.join("started").exists().then_some(())
        })
        .await;
        let mut answering = JoinSet::new();
        for port in ["projector-1", "projector-2"].iter().flat_map(|copy| [stack.copy(copy), stack.ops(copy)]) {
            let listener = tokio::net::TcpListener::bind(port.authority()).await.expect("a free port");
            answering.spawn(answer_all(listener));
        }
        fs::write(programs.join("answering"), "").expect("a file");
        answering
    };
    let mut variables = vec![("STACK_BIN", programs.to_str().expect("text"))];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        variables.push(("STACK_LISTEN", "::1"));
    }
    let (failed, mut answering) = tokio::join!(stack.stack_with(&["up"], &variables), somebody_else);
    answering.shutdown().await;
    assert!(failed.expect(2).err.contains("projector-1 has ended"), "it is another program that answers");
    let all_stopped = async || {
        let status = stack.stack(&["status"], "").await.expect(1);
        assert_eq!(status.out.lines().filter(|line| line.contains("stopped")).count(), 10, "{status:?}");
    };
    all_stopped().await;
    // and where nobody listens any more, as after a closed terminal or `| head`
    let mut unheard = stack.script("bin/stack", &["up"]);
    unheard.envs(variables.iter().copied()).stderr(std::io::pipe().expect("a pipe").1);
    let failed = run(unheard, "").await;
    assert_ne!(failed.code, 0, "{failed:?}");
    all_stopped().await;
    for port in ports.iter().filter(|port| ![3, 13, 103, 113].contains(&(*port - ports[0]))) {
        assert!(TcpListener::bind(("127.0.0.1", *port)).is_ok(), "{port}");
    }
}

/// Says 200 to whatever comes.
async fn answer_all(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    }
}

/// Writes an executable script into a folder of its own, which it returns: below target/, since temporary folders may be
/// mounted without permission to execute.
fn write_program(name: &str, script: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::new_v4().to_string());
    fs::create_dir_all(&dir).expect("a folder");
    remove_at_end(&dir);
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    dir
}

/// A search path that begins with this folder.
fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").expect("PATH"))
}

/// Issue 10, 15 and 17: as they are pasted, in a folder of any name, and where a proxy is set that leads nowhere.
#[tokio::test]
async fn what_bin_run_prints_works_as_it_is() {
    let place = Stack::prepare(&[]).await;
    // what has been built is there already
    let built =
        format!(r#"{{"reason":"compiler-artifact","executable":"{}","fresh":true}}"#, binary("primetrade").display());
    let path = path_with(&write_program("cargo", &format!("echo '{built}'")));
    let nowhere =
        ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:9"));
    let cluster = Cluster::shared();
    let database = cluster.url(&cluster.create_database().await);
    let mut command = place.script("bin/run", &["--listen", &format!("127.0.0.1:{}", place.ports()[0])]);
    command
        .envs(nowhere)
        .env("PATH", path)
        .env("PRIMETRADE_DATA_DIR", place.dir())
        .env("PRIMETRADE_DATABASE_URL", database);
    let log = place.home().join("run.log");
    command.stderr(File::create(&log).expect("a file"));
    let mut running = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("bin/run");
    let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    let printed = async {
        let mut commands = Vec::new();
        while commands.len() < 3 {
            let line = lines.next_line().await.expect("text");
            let line = line.unwrap_or_else(|| panic!("{}", fs::read_to_string(&log).unwrap_or_default()));
            commands.extend(line.starts_with("curl ").then_some(line));
        }
        commands
    };
    let commands = tokio::time::timeout(Duration::from_secs(90), printed).await.expect("three commands");
    let paste = async |commands: &[String]| {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &commands.join("\n")]).envs(nowhere);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(shell, "").await
    };
    let said = paste(&commands[..2]).await.expect(0);
    assert!(said.out.contains("\"version\":1") && said.err.is_empty(), "{said:?}");
    // without a consistency token the list may be read before the task is in it
    let log_in_again = commands[0].rsplit_once(';').expect("a token").1;
    until("the list has the task", SOON, || async {
        let list = paste(&[log_in_again.to_owned(), commands[2].clone()]).await.expect(0);
        assert_eq!(list.err, "", "{list:?}");
        list.out.contains("\"title\":\"Try PrimeTrade\"").then_some(())
    })
    .await;
    let again = paste(&commands[..1]).await;
    assert!(again.err.contains("409"), "it says why: {again:?}");
    let pid = running.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("it runs");
    kill_process(pid, Signal::TERM).expect("a signal");
    let ended = tokio::time::timeout(SOON, running.wait()).await.expect("it ends").expect("a status");
    assert!(ended.success(), "{ended}");
}

/// Issue 10, 7 and 15: in one line, and nothing was started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_anything_is_started() {
    let stack = Stack::prepare(&[]).await;
    let refused = async |variables: &[(&str, &str)], said: &str| {
        let run = stack.stack_with(&["up"], variables).await.expect(2);
        assert_eq!(run.err.trim_end().lines().count(), 1, "{variables:?}: {run:?}");
        assert!(run.err.contains(said), "{variables:?}: {run:?}");
        let started =
            fs::read_dir(stack.dir()).expect("a folder").flatten().any(|part| part.path().join("pid").exists());
        assert!(!started, "{variables:?}: {run:?}");
        run
    };
    for listen in ["x", "localhost:1", "0.0.0.0:80", "[::1]:80", "1.2.3", "256.1.1.1", "*", "'", "127.0.0.01", "::1 ;"]
    {
        refused(&[("STACK_LISTEN", listen)], "STACK_LISTEN=").await;
    }
    for listen in ["0.0.0.0", "::", "[::]"] {
        refused(&[("STACK_LISTEN", listen)], "plain HTTP").await;
    }
    for port in ["0", "x", "65536", "65000", "08", "-1", "99999999999999999999"] {
        refused(&[("STACK_PORT", port)], "STACK_PORT=").await;
    }
    let ports = stack.ports();
    let of_another = (ports[0] + 1).to_string();
    for name in ["STACK_POSTGRES_PORT", "STACK_REDIS_PORT", "STACK_KAFKA_PORT"] {
        refused(&[(name, "70000")], name).await;
        refused(&[(name, &of_another)], &format!("port {of_another} is to be that of two parts")).await;
    }
    refused(&[("STACK_BIN", "/nowhere")], "there is no primetrade in /nowhere").await;
    for (port, address) in ports.into_iter().zip(["127.0.0.1", "0.0.0.0"].into_iter().cycle()) {
        let _held = TcpListener::bind((address, port)).expect("a free port");
        let run = refused(&[], &format!(" {port} (")).await;
        assert!(run.err.contains(&format!(") is held by process {} (", std::process::id())), "{run:?}");
    }
    let nameless = write_program("id", "[ \"$*\" != -un ] || exit 1; PATH=${PATH#*:} exec id \"$@\"");
    refused(&[("PATH", &path_with(&nameless))], "has no name on this machine").await;
    let down = stack.stack_with(&["down"], &[("STACK_DIR", "/nowhere")]).await.expect(0);
    assert!(down.err.contains("there is no stack in /nowhere"), "{down:?}");
    // as on a full disk
    let in_the_way = stack.dir().join("settings.new");
    fs::create_dir(&in_the_way).expect("a folder");
    refused(&[], "settings could not be written").await;
    fs::remove_dir(in_the_way).expect("a folder");
    // whatever else a variable of the caller is called
    refused(&[("listen", "x"), ("port", "x"), ("bin", "/nowhere"), ("STACK_PORT", "0")], "STACK_PORT=0").await;
    // of an address that this machine does not have
    refused(&[("STACK_LISTEN", "192.0.2.1"), ("PRIMETRADE_ALLOW_INSECURE", "plain-http")], "192.0.2.1").await;
}

/// Issue 10, 7: one that somebody else has started where the stack's own was, with things of another installation in it.
async fn another_redis_at_the_port_is_told_and_not_believed(stack: &Stack) {
    let account = stack.api().account().await;
    let task = account.create(json!({"title": "kept"})).await;
    let port = stack.ports()[0] + 1002;
    stack.stack(&["stop", "redis"], "").await.expect(0);
    let foreign = Redis::start_at(port, &[]);
    foreign.ask(&["SET", "primetrade:generation", &Uuid::new_v4().to_string()]);
    let of_another = format!("primetrade:{}:{}:1:standing:{}", Uuid::nil().simple(), Uuid::nil().simple(), account.id);
    foreign.ask(&["SET", &of_another, &"f".repeat(96)]);
    let status = stack.stack(&["status"], "").await.expect(1);
    assert!(status.out.lines().any(|line| line.starts_with("redis") && line.contains("stopped")), "{status:?}");
    let up = stack.stack(&["up"], "").await.expect(2);
    assert_eq!(up.err.trim_end().lines().count(), 1, "{up:?}");
    assert!(
        up.err.contains(&format!("{port} (redis) is held by process ")) && up.err.contains("(redis-server)"),
        "{up:?}"
    );
    // what runs goes on, and has the same answers as ever
    for title in ["once", "twice"] {
        account.request("PATCH", &format!("{TASKS}/{task}")).json(&json!({"title": title})).send().await.expect(200);
        let seen = until("what was written is read", SOON, || async {
            let answer = account.read(&format!("{TASKS}/{task}")).await;
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(seen.await.expect(200).json()["title"], title);
    }
    assert_eq!(foreign.ask(&["GET", &of_another]).trim(), "f".repeat(96), "a name of others was written");
    foreign.kill();
    stack.up().await;
    stack.stack(&["status"], "").await.expect(0);
}

async fn up_twice_changes_nothing(stack: &Stack) {
    let parts = ["postgres", "redis", "kafka", "gateway"].iter().chain(&COPIES);
    let pids = || parts.clone().map(|part| stack.pid_text(part)).collect::<Vec<_>>();
    let before = pids();
    stack.up().await;
    assert_eq!(pids(), before);
    let status = stack.stack(&["status"], "").await.expect(0);
    for part in parts.clone() {
        let line = status.out.lines().find(|line| line.starts_with(part)).expect("a line");
        assert!(line.contains("ready"), "{line}");
    }
    // another time zone, and a clock that was set: then ps tells of another start
    let path = path_with(&write_program("ps", "echo 'Mon Jan  1 00:00:00 2001'"));
    let another_clock = [("TZ", "Asia/Tokyo"), ("PATH", path.as_str())];
    stack.stack_with(&["status"], &another_clock).await.expect(0);
    stack.stack_with(&["up"], &another_clock).await.expect(0);
    assert_eq!(pids(), before);
    // what cannot be told is dropped, and the exit status stands
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    for (arguments, no_port, code) in [(["up"], "", 0), (["up"], "0", 2), (["status"], "", 2)] {
        let mut command = stack.script("bin/stack", &arguments);
        command.stdout(full()).stderr(full());
        if !no_port.is_empty() {
            command.env("STACK_PORT", no_port);
        }
        assert_eq!(run(command, "").await.code, code, "{arguments:?} {no_port}");
    }
    let port = stack.ports()[0] + 1;
    let moved = stack.stack_with(&["status"], &[("STACK_PORT", &port.to_string())]).await.expect(2);
    assert!(moved.err.contains("bin/stack down first"), "{moved:?}");
    stack.stack(&["stop", "query-api-2"], "").await.expect(0);
    let status = stack.stack(&["status"], "").await.expect(1);
    assert!(status.out.lines().any(|line| line.starts_with("query-api-2") && line.contains("stopped")), "{status:?}");
    stack.up().await;
    stack.stack(&["status"], "").await.expect(0);
}

/// With a key and without: the gateway passes on what came, and then the service's word.
async fn a_slow_body_is_told_so_behind_the_gateway(stack: &Stack) {
    let account = stack.api().account().await;
    let half = async |header: &str| {
        let token = &account.token;
        let request = format!(
            "POST {TASKS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{header}\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"title\":"
        );
        let answer = exchange(account.api.authority(), request.as_bytes(), Duration::from_secs(60)).await;
        assert_eq!(status(&answer), 408, "{header}{answer}");
        assert!(answer.contains("\"code\":\"body-too-slow\""), "{header}{answer}");
    };
    tokio::join!(half(""), half("Idempotency-Key: slow\r\n"));
}

async fn what_the_gateway_answers_itself_is_a_problem_too(stack: &Stack) {
    let authority = stack.api().authority().to_owned();
    let request = |line: &str, headers: &str| format!("{line}\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    for (sent, expected, code) in [
        (request(&format!("TRACE {TASKS} HTTP/1.1"), ""), 405, "method-not-allowed"),
        (request("CONNECT x:80 HTTP/1.1", ""), 400, "bad-request"),
        (request(&format!("POST {TASKS} HTTP/1.1"), "Transfer-Encoding: xchunked\r\n"), 400, "bad-request"),
        (
            request(&format!("POST {TASKS} HTTP/1.1"), "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            400,
            "bad-request",
        ),
        (request(&format!("GET {TASKS} HTTP/3.0"), ""), 400, "bad-request"),
        (request(&format!("GET {TASKS}?q={} HTTP/1.1", "x".repeat(70_000)), ""), 414, "uri-too-long"),
        (
            request(&format!("GET {TASKS} HTTP/1.1"), &format!("X: {}\r\n", "y".repeat(70_000))),
            431,
            "headers-too-large",
        ),
        (request(&format!("POST {TASKS} HTTP/1.1"), "Content-Length: 90000000\r\n"), 413, "body-too-large"),
        (request("GET /metrics HTTP/1.1", ""), 404, "not-found"),
    ] {
        let what = sent.chars().take(60).collect::<String>();
        let answer = exchange(&authority, sent.as_bytes(), Duration::from_secs(30)).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer}"));
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{what}: {error}: {answer}"));
        check_problem(&problem, expected).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        assert_eq!(problem["code"], code, "{what}");
        assert!(head.contains("Content-Type: application/problem+json"), "{what}: {head}");
        assert_eq!(head.contains("\r\nAllow: "), expected == 405, "{what}: {head}");
    }
}

const ORIGINS: &str = "http://localhost:3000, https://app.example";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The headers of an answer by which a page sees it, sorted; what a client gives to be known again is `ID` in them.
fn seen_by_pages(answer: &str, id: &str) -> Vec<String> {
    const NAMES: [&str; 8] = [
        "access-control-",
        "vary",
        "x-request-id",
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "cache-control",
        "retry-after",
    ];
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let lines = lines.map(|(name, value)| (name.to_lowercase(), if value == id { "ID" } else { value }));
    let mut seen: Vec<String> = lines
        .filter(|(name, value)| NAMES.iter().any(|known| name.starts_with(known)) && *value != "accept-encoding")
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    seen.sort();
    seen
}

/// Issue 10, 30: with the headers that a service would have sent.
async fn pages_see_what_the_gateway_answers_itself(stack: &Stack) {
    let copy = stack.copy("command-api-1");
    let headers = |origin: &str, id: &str| {
        let traceparent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
        format!("Host: x\r\nConnection: close\r\nOrigin: {origin}\r\nX-Request-Id: {id}\r\n{traceparent}\r\n")
    };
    let ask = async |api: &Api, request: &str| exchange(api.authority(), request.as_bytes(), SOON).await;
    let long = "y".repeat(70_000);
    // what it answers itself, and what a service is asked to answer alike
    for (line, more, expected, service_line, service_more) in [
        (format!("POST {TASKS} HTTP/1.1"), "Content-Length: 90000000\r\n".to_owned(), 413, TASKS, String::new()),
        (format!("GET {TASKS} HTTP/1.1"), format!("X: {long}\r\n"), 431, TASKS, String::new()),
        ("GET /metrics HTTP/1.1".to_owned(), String::new(), 404, "/nothing", String::new()),
        (format!("TRACE {TASKS} HTTP/1.1"), String::new(), 405, "/nothing", String::new()),
        (
            format!("OPTIONS {TASKS} HTTP/1.1"),
            "Access-Control-Request-Method: POST\r\n".to_owned(),
            204,
            TASKS,
            "Access-Control-Request-Method: POST\r\n".to_owned(),
        ),
    ] {
        for (origin, id) in [
            ("https://app.example", "a.B_c-9"),
            ("http://localhost:3000", &"x".repeat(128)),
            ("https://app.example.org", "a.B_c-9"),
            ("null", "a.B_c-9"),
            ("https://app.example", "not good"),
            ("http://localhost:3000", &"x".repeat(129)),
        ] {
            let what = format!("{line:.60} {origin} {id:.20}");
            // of another origin it is no question
            if expected == 204 && !["https://app.example", "http://localhost:3000"].contains(&origin) {
                continue;
            }
            let answer = ask(&stack.api(), &format!("{line}\r\n{}{more}\r\n", headers(origin, id))).await;
            assert_eq!(status(&answer), expected, "{what}: {answer:.500}");
            let method = if expected == 204 { "OPTIONS" } else { "GET" };
            let request = format!("{method} {service_line} HTTP/1.1\r\n{}{service_more}\r\n", headers(origin, id));
            let of_a_service = ask(&copy, &request).await;
            let good = id.len() <= 128 && !id.contains(' ');
            let same = |answer: &str| {
                let mut seen = seen_by_pages(answer, id);
                if !good {
                    assert!(!seen.iter().any(|line| line == "x-request-id: ID"), "{what}: {seen:?}");
                    seen.retain(|line| !line.starts_with("x-request-id: "));
                }
                seen
            };
            assert_eq!(same(&answer), same(&of_a_service), "{what}: {answer:.900}");
            if expected != 204 {
                assert!(answer.contains(&format!("\"trace_id\":\"{TRACE}\"")), "{what}: {answer:.900}");
            }
        }
    }
    for name in ["command-api-1", "command-api-2"] {
        stack.kill(name).await;
    }
    let headers = headers("https://app.example", "kept");
    let answer = ask(&stack.api(), &format!("POST {TASKS} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(status(&answer), 503, "{answer}");
    for line in
        ["access-control-allow-origin: https://app.example", "x-request-id: ID", "vary: origin", "retry-after: 1"]
    {
        assert!(seen_by_pages(&answer, "kept").iter().any(|seen| seen == line), "{line}: {answer}");
    }
    let question = "Access-Control-Request-Method: POST\r\n";
    let answer = ask(&stack.api(), &format!("OPTIONS {TASKS} HTTP/1.1\r\n{headers}{question}\r\n")).await;
    assert_eq!(status(&answer), 204, "{answer}");
    stack.up().await;
}

async fn ended_sessions_are_known_everywhere(stack: &Stack) {
    let reads = [("query-api-1", TASKS), ("query-api-2", TASKS), ("projector-1", "/api/v1/admin/parked")];
    for way in ["logout", "password", "disable"] {
        let account = stack.api().account().await;
        let other = stack.api().log_in(account.id, &account.email, &account.password).await;
        let ask = async |copy: &str, path: &str| other.at(stack.copy(copy)).request("GET", path).send().await.status;
        for (copy, path) in reads {
            assert_ne!(ask(copy, path).await, 401, "{way}: before");
        }
        let ended = Instant::now();
        match way {
            "logout" => drop(other.request("POST", "/api/v1/auth/logout").send().await.expect(204)),
            "password" => {
                let change = json!({"current": account.password, "new": "another long password"});
                account.request("POST", "/api/v1/auth/password").json(&change).send().await.expect(204);
            }
            _ => drop(stack.cli(&["user", "disable", "--email", &account.email]).await.expect(0)),
        }
        for (copy, path) in reads {
            until("401", REVOKED_WITHIN, || async { (ask(copy, path).await == 401).then_some(()) }).await;
        }
        assert!(ended.elapsed() < REVOKED_WITHIN, "{way}: {:?}", ended.elapsed());
    }
}

async fn keys_are_known_while_nobody_shows_them(stack: &Stack) {
    let account = stack.api().account().await;
    for copy in ["command-api-1", "command-api-2"] {
        stack.kill(copy).await;
    }
    account.request("GET", TASKS).send().await.expect(200);
    let write = || account.request("POST", TASKS).json(&json!({"title": "nobody there"}));
    for write in [write(), write().key("nobody")] {
        let refused = write.send().await.expect(503);
        refused.must("Retry-After");
        refused.problem(503);
    }
    stack.up().await;
    stack.cli(&["keys", "rotate"]).await.expect(0);
    // the new key signs after its overlap, and is good at once everywhere
    let old = key_of(&account);
    let fresh = until("a token of the new key", Duration::from_secs(30), || async {
        let again = stack.api().log_in(account.id, &account.email, &account.password).await;
        (key_of(&again) != old).then_some(again)
    })
    .await;
    for copy in ["query-api-1", "query-api-2"] {
        fresh.at(stack.copy(copy)).request("GET", TASKS).send().await.expect(200);
        account.at(stack.copy(copy)).request("GET", TASKS).send().await.expect(200);
    }
}

/// The header of a token, which names its key.
fn key_of(account: &Account) -> String {
    account.token.split('.').next().unwrap_or_default().to_owned()
}
