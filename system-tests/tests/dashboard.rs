//! The dashboard in a real browser, against a server of its own, and behind the gateway of the services.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::json;
use system_tests::cluster::{Cluster, pool};
use system_tests::process::binary;
use system_tests::server::{CliRun, Config, Server, run_within};
use system_tests::stack::Stack;
use tokio::sync::Mutex;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/lib/web");
/// Also on a machine where the browser is to be installed first.
const BROWSER_MS_MAX: u64 = 900_000;

/// One browser at a time: two, and what they look at, are more than two cores do while a page waits for them.
static BROWSER: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn people_work_with_it_in_a_browser() {
    let _alone = BROWSER.lock().await;
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let admin = "operator@example.com correct-horse-battery";
    prepare_for_operators(&server, admin).await;
    let mut command = Command::new(SCRIPT);
    command.env("PRIMETRADE_ADMIN", admin);
    command.args(["browser", server.api().base()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    is_well(&run_within(BROWSER_MS_MAX, command, "").await);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn it_goes_on_while_the_services_are_restarted_killed_and_replaced() {
    let _alone = BROWSER.lock().await;
    let mut stack = Stack::prepare(&[("PRIMETRADE_RATE_LIMITS", "off")]).await;
    // one of them is replaced
    let programs = stack.home().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["primetrade", "command-api", "query-api", "projector"] {
        symlink(binary(name), programs.join(name)).unwrap();
    }
    stack.set("STACK_BIN", programs.to_str().unwrap());
    stack.up().await;
    let command = stack.script(SCRIPT, &["gateway", stack.api().base()]);
    let run = run_within(BROWSER_MS_MAX, command, "").await;
    if run.code != 0 {
        eprintln!("{}", stack.log_tails());
    }
    is_well(&run);
}

fn is_well(run: &CliRun) {
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
}

/// What the pages of operators show: an operator, and two events of somebody that this program cannot apply.
async fn prepare_for_operators(server: &Server, admin: &str) {
    let (email, password) = admin.split_once(' ').unwrap();
    let create = ["user", "create", "--email", email, "--name", "An Operator", "--admin", "--password-stdin"];
    server.cli_with_input(&create, password).await.expect(0);
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
