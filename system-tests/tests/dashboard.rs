//! The dashboard in a real browser, against a server of its own, and behind the gateway of the services.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use system_tests::cluster::{Cluster, pool};
use system_tests::process::binary;
use system_tests::server::{CliRun, Config, Server, run_within};
use system_tests::stack::Stack;
use system_tests::wait::until;
use tokio::sync::Mutex;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/lib/web");
/// Also on a machine where the browser is to be installed first.
const BROWSER_MS_MAX: u64 = 900_000;

/// One browser at a time: two, and what they look at, are more than two cores do while a page waits for them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// E-mail and password of an operator, as the tests in the browser have them.
const ADMIN: &str = "operator@example.com correct-horse-battery";

#[tokio::test]
async fn people_work_with_it_in_a_browser() {
    let _one = ONE_AT_A_TIME.lock().await;
    let server = start().await;
    prepare_for_operators(&server).await;
    let mut command = script("browser", &server);
    command.env("PRIMETRADE_ADMIN", ADMIN);
    is_well(&run_within(BROWSER_MS_MAX, command, "").await);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_change_survives_kill_9_of_the_server() {
    let _one = ONE_AT_A_TIME.lock().await;
    let server = start().await;
    let mut command = script("killed", &server);
    command.env("SERVER_DIR", server.dir());
    let run = tokio::select! {
        run = run_within(BROWSER_MS_MAX, command, "") => run,
        () = start_whenever_wanted(&server) => unreachable!("it does not end"),
    };
    is_well(&run);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Keeps its side of `web/browser/killed/server.ts`.
async fn start_whenever_wanted(server: &Server) {
    let (pid, wanted) = (server.dir().join("pid"), server.dir().join("wanted"));
    write_whole(&pid, &server.pid().to_string());
    loop {
        until("it is to be started again", Duration::from_millis(BROWSER_MS_MAX), || async {
            wanted.exists().then_some(())
        })
        .await;
        server.restart().await;
        write_whole(&pid, &server.pid().to_string());
        fs::remove_file(&wanted).unwrap();
    }
}

/// Nobody reads a part of it.
fn write_whole(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn it_goes_on_while_the_services_are_restarted_killed_and_replaced() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut stack = Stack::prepare(&[("PRIMETRADE_RATE_LIMITS", "off")]).await;
    // one of them is replaced
    let programs = stack.home().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["primetrade", "command-api", "query-api", "projector"] {
        symlink(binary(name), programs.join(name)).unwrap();
    }
    stack.set("STACK_BIN", programs.to_str().unwrap());
    stack.up().await;
    // `.ci/nightly` has the time: what people do with one process, they do here too
    if std::env::var("TEST_DASHBOARD_SERVICES").is_ok() {
        let (email, password) = ADMIN.split_once(' ').unwrap();
        stack.cli_with_input(&create_operator(email), password).await.expect(0);
        for part in ["people", "services"] {
            let mut command = stack.script(SCRIPT, &[part, stack.api().base()]);
            command.env("PRIMETRADE_ADMIN", ADMIN);
            runs_well(&stack, command).await;
        }
    }
    runs_well(&stack, stack.script(SCRIPT, &["gateway", stack.api().base()])).await;
}

async fn runs_well(stack: &Stack, command: Command) {
    let run = run_within(BROWSER_MS_MAX, command, "").await;
    if run.code != 0 {
        eprintln!("{}", stack.log_tails());
    }
    is_well(&run);
}

/// One process, on a database of its own.
async fn start() -> Server {
    let cluster = Cluster::shared();
    Server::start(Config::new(cluster.url(&cluster.create_database().await))).await
}

/// A part of the tests in the browser, on this server.
fn script(part: &str, server: &Server) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args([part, server.api().base()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn create_operator(email: &str) -> [&str; 8] {
    ["user", "create", "--email", email, "--name", "An Operator", "--admin", "--password-stdin"]
}

fn is_well(run: &CliRun) {
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
}

/// What the pages of operators show: an operator, and two events of somebody that this program cannot apply.
async fn prepare_for_operators(server: &Server) {
    let (email, password) = ADMIN.split_once(' ').unwrap();
    server.cli_with_input(&create_operator(email), password).await.expect(0);
    let account = server.api().account().await;
    // as if a newer version of the program had written it
    let strange = "with h as (update event_store.head set position = position + 1 returning shard, position) \
        insert into event_store.event (shard, position, owner_id, task_id, version, occurred_at, recorded_at, event_id, \
        command_id, actor_id, schema_version, type, actor_type, correlation_id, traceparent, data) \
        select h.shard, h.position, $1, $2, 2, now(), now(), gen_random_uuid(), gen_random_uuid(), $1, 1, 'TaskPainted', \
        'user', 'c', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', '{}' from h";
    let pool = pool(server.database_url()).await;
    for title in ["stuck", "stuck too"] {
        let task = account.create(json!({"title": title})).await;
        sqlx::query(strange).bind(account.id).bind(task).execute(&pool).await.unwrap();
    }
}
