//! What a program finds when it is started: pipes that nobody reads, full devices, terminals, signals that are ignored.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use system_tests::check::everything_holds;
use system_tests::cluster::{Cluster, free_port, temp_dir};
use system_tests::ledger::{Ledger, Load};
use system_tests::process::{Process, binary, clean_environment, heard};
use system_tests::server::{self, Config, Server, run};
use system_tests::terminal::Terminal;
use system_tests::wait::until;
use uuid::Uuid;

const DROPPED_MS_MAX: u64 = 120_000;

async fn database() -> String {
    let cluster = Cluster::shared();
    cluster.url(&cluster.create_database().await)
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let config = Config::new(database().await).variable("PRIMETRADE_LOG", "trace");
    let server = Server::start_unread(config).await;
    let ledger = Ledger::new(server.api().account().await);
    let load = Load::start(&ledger, 8);
    until("lines are dropped", Duration::from_millis(DROPPED_MS_MAX), || async {
        (server.api().metric("log_lines_dropped_total").await > 0.0).then_some(())
    })
    .await;
    ledger.progress(200).await;
    for path in ["/livez", "/readyz"] {
        server.api().get(path).send().await.expect(200);
    }
    load.stop().await;
    assert_eq!(server.terminate().await.code(), Some(0));
    server.restart().await;
    ledger.settle().await;
    ledger.replay(100).await;
    everything_holds(&server, &[&ledger]).await;
}

/// A service says why it cannot start, and ends, though its log is full from the first byte.
#[tokio::test]
async fn an_end_waits_for_no_reader() {
    for program in ["primetrade", "command-api", "query-api", "projector"] {
        let (_unread, mut full) = std::io::pipe().expect("a pipe");
        let filling = full.try_clone().expect("a pipe");
        rustix::io::ioctl_fionbio(&filling, true).expect("non-blocking");
        while full.write(&[b'x'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&filling, false).expect("blocking");
        let mut command = tokio::process::Command::from(command(program, &full));
        let child = command.kill_on_drop(true).spawn().expect(program);
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
        let status = ended.unwrap_or_else(|_| panic!("{program} waits for a reader")).expect("output").status;
        assert_eq!(status.code(), Some(2), "{program}");
    }
}

/// Somebody else's port is told before a service asks for its database, leads, or has a share of the topic.
#[tokio::test]
async fn a_taken_port_is_told_before_a_service_begins_anything() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    for program in ["command-api", "query-api", "projector"] {
        for (setting, other) in
            [("PRIMETRADE_LISTEN", "PRIMETRADE_OPS_LISTEN"), ("PRIMETRADE_OPS_LISTEN", "PRIMETRADE_LISTEN")]
        {
            let mut command = Command::new(binary(program));
            clean_environment(&mut command);
            command.env(setting, &taken).env(other, "127.0.0.1:0");
            command.env("PRIMETRADE_DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let ran = run(command, "").await.expect(2);
            assert!(ran.err.contains(&format!("{taken}: the port is in use")) && ran.err.contains(setting), "{ran:?}");
            assert!(!ran.err.contains(&format!("{program} starts")), "{ran:?}");
        }
    }
}

fn command(program: &str, stderr: &std::io::PipeWriter) -> Command {
    let mut command = Command::new(binary(program));
    clean_environment(&mut command);
    if program == "primetrade" {
        command.arg("serve");
    }
    command.env("PRIMETRADE_LISTEN", "nowhere").stderr(stderr.try_clone().expect("a pipe"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(temp_dir(program));
    command
}

#[tokio::test]
async fn what_cannot_be_told_is_dropped_and_the_exit_status_stands() {
    let server = Server::start(Config::new(database().await)).await;
    let account = server.api().account().await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let closed = || Stdio::from(std::io::pipe().expect("a pipe").1);
    let with = |arguments: &[&str]| {
        let mut command = server::command(server.dir(), arguments);
        command.env("PRIMETRADE_DATABASE_URL", server.database_url()).env("PRIMETRADE_LOG", "warn");
        command
    };

    // more lines than a pipe or a queue holds
    let line = || json!({"type": "CreateTask", "task_id": Uuid::new_v4(), "title": "good"});
    let lines: Vec<String> = (0..3_000).map(|_| format!("nonsense\n{}\n", line())).collect();
    fs::write(server.dir().join("lines.ndjson"), lines.concat()).expect("a file");
    for (name, stderr) in [("full", full()), ("closed", closed())] {
        let mut command = with(&["import", "lines.ndjson", "--owner", &account.email, "--json"]);
        let ran = run_with(command.stderr(stderr)).await;
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert_eq!((&ran.json()["succeeded"], &ran.json()["failed"]), (&json!(3000), &json!(3000)), "{name}: {ran:?}");
    }

    for arguments in
        [&["user", "list"][..], &["config"], &["doctor"], &["--help"], &["--version"], &["user", "list", "--json"]]
    {
        let mut command = with(arguments);
        let ran = run_with(command.stdout(full())).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains("standard output") && !ran.err.contains("panicked"), "{arguments:?}: {ran:?}");
        // as by `| head`: who reads no further has had enough
        let mut command = with(arguments);
        let ran = run_with(command.stdout(closed())).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        let mut command = with(arguments);
        let ran = run_with(command.stdout(full()).stderr(full())).await;
        assert_eq!(ran.code, 2, "{arguments:?}");
    }
    // but half an export is none
    let mut command = with(&["export", "-", "--owner", &account.email]);
    let ran = run_with(command.stdout(closed())).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}

async fn run_with(command: &mut Command) -> server::CliRun {
    let nothing = Command::new("true");
    run(std::mem::replace(command, nothing), "").await
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let url = database().await;
    let dir = temp_dir("colours");
    let logged = |configure: &dyn Fn(&mut Command)| {
        let mut command = server::command(&dir, &["user", "list"]);
        command.env("PRIMETRADE_DATABASE_URL", &url).env("PRIMETRADE_LOG", "debug").env("TERM", "xterm");
        command.env_remove("NO_COLOR");
        configure(&mut command);
        command
    };
    let terminal = Terminal::open();
    let on_terminal = logged(&|command| {
        command.stderr(terminal.stdio());
    });
    run(on_terminal, "").await.expect(0);
    terminal.shows("\u{1b}[").await;
    let plain = Terminal::open();
    let without = logged(&|command| {
        command.stderr(plain.stdio()).env("NO_COLOR", "1");
    });
    run(without, "").await.expect(0);
    plain.shows("DEBUG").await;
    assert!(!plain.shown().contains('\u{1b}'), "{}", plain.shown());
    let piped = run(logged(&|_| ()), "").await.expect(0);
    assert!(piped.err.contains("DEBUG") && !piped.err.contains('\u{1b}'), "{piped:?}");
}

#[tokio::test]
async fn a_password_is_not_shown_and_takes_one_line() {
    let server = Server::start(Config::new(database().await)).await;
    let create = |email: &str, terminal: &Terminal| {
        let mut command = server::command(server.dir(), &["user", "create", "--email", email, "--password-stdin"]);
        command.env("PRIMETRADE_DATABASE_URL", server.database_url());
        command.stdin(terminal.stdio()).stderr(terminal.stdio());
        tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("primetrade")
    };
    let ended = |child: tokio::process::Child| async {
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.expect("one line");
        output.expect("output").status.code()
    };
    let terminal = Terminal::open();
    let child = create("typed@example.com", &terminal);
    terminal.shows("Password").await;
    assert!(!terminal.echoes());
    terminal.type_in("what nobody sees\n");
    assert_eq!(ended(child).await, Some(0), "{}", terminal.shown());
    assert!(!terminal.shown().contains("nobody"), "{}", terminal.shown());
    assert!(terminal.echoes(), "the terminal is as it was");
    let login = json!({"email": "typed@example.com", "password": "what nobody sees"});
    server.api().post("/api/v1/auth/login", &login).send().await.expect(200);

    // interrupted while it waits
    let child = create("not@example.com", &terminal);
    until("it asks again", Duration::from_secs(60), || async {
        (terminal.shown().matches("Password").count() == 2).then_some(())
    })
    .await;
    let pid = rustix::process::Pid::from_raw(child.id().expect("running").cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, heard(Signal::INT)).expect("a signal");
    assert_eq!(ended(child).await, Some(2), "{}", terminal.shown());
    assert!(terminal.echoes(), "the terminal is as it was");

    // a pipe that stays open: the line is enough
    let mut command =
        server::command(server.dir(), &["user", "password", "--email", "typed@example.com", "--password-stdin"]);
    command.env("PRIMETRADE_DATABASE_URL", server.database_url());
    let mut child = command.spawn().expect("primetrade");
    child.stdin.as_ref().expect("a pipe").write_all(b"another one of those\n").expect("written");
    let status = until("the end", Duration::from_secs(60), || {
        let ended = child.try_wait().expect("a child");
        async move { ended }
    })
    .await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let (dir, port) = (temp_dir("ignored"), free_port());
    let log = File::create(dir.join("log")).expect("a log");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(binary("primetrade"));
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--database-url", &database().await]);
    clean_environment(&mut command);
    command.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let server = Process::adopt("primetrade", command.spawn().expect("sh"), dir, port);
    server.ready().await;
    // as a closed terminal does under nohup, and Ctrl-C to what a script has in the background
    server.signal(Signal::HUP);
    server.signal(Signal::INT);
    let account = server.api().account().await;
    let create = account.request("POST", "/api/v1/tasks").json(&json!({"id": Uuid::now_v7(), "title": "still here"}));
    create.send().await.expect(201);
    server.api().get("/readyz").send().await.expect(200);
    assert!(!server.log().contains("stop"), "{}", server.log());
    assert_eq!(server.terminate().await.code(), Some(0));

    // and one that was not ends it
    let server = Server::start(Config::new(database().await)).await;
    server.signal(heard(Signal::HUP));
    assert_eq!(server.ended().await.code(), Some(0));
}
