//! The life of the managed PostgreSQL: made, shared, stopped, recovered, and every way in which it cannot start.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::support::{
    Folder, Ran, Server, ctrl_c, free_port, get, get_with, is_root, log_in, object, post, post_as, until,
};

#[test]
fn the_first_start_makes_it_and_the_last_stop_takes_it_along() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let postmaster = folder.postmaster().expect("a postmaster");
    let owner = fs::metadata(format!("/proc/{}", postmaster.as_raw_nonzero())).map(|meta| meta.uid());
    assert!(owner.is_err() || owner.is_ok_and(|uid| uid != 0), "Postgres runs as root");
    assert_eq!(fs::metadata(folder.data().join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.data()).unwrap().permissions().mode() & 0o077, 0, "others may not look in");
    let pid_file = fs::read_to_string(folder.data().join("postgres/postmaster.pid")).unwrap();
    assert_eq!(pid_file.lines().nth(5).map(str::trim), Some(""), "it listens to nothing but its socket");
    folder.create_user("a@example.org");
    assert_eq!(server.stop(), Some(0));
    assert!(folder.postmaster().is_none(), "Postgres still runs");

    let server = Server::start(&folder);
    let users = folder.run(&["user", "list", "--json"]).expect(0).json();
    assert_eq!(users["items"][0]["email"], "a@example.org", "the data was reused");
    assert!(server.log().contains("answering") && !server.log().contains("making a managed PostgreSQL"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn ctrl_c_stops_everything_too() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    server.signal(ctrl_c());
    assert_eq!(server.wait(), Some(0));
    assert!(folder.postmaster().is_none());
}

#[test]
fn a_second_copy_gets_a_plain_error_and_harms_nobody() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let port = format!("127.0.0.1:{}", free_port());
    folder.run(&["serve", "--listen", &port]).refused(&["in use by another copy", "process ", "--data-dir"]);
    let taken = format!("127.0.0.1:{}", server.port);
    folder.run(&["serve", "--listen", &taken]).refused(&["the port is in use", "--listen"]);
    assert!(server.is_ready());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_taken_port_is_told_before_anything_is_begun() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    folder.run(&["serve", "--listen", &address]).refused(&[&address, "the port is in use", "--listen"]);
    let mut command = folder.command(&["serve", "--listen", &format!("127.0.0.1:{}", free_port())]);
    Ran::of(command.env("PRIMETRADE_OPS_LISTEN", &address)).refused(&[&address, "PRIMETRADE_OPS_LISTEN"]);
    assert!(!folder.data().join("postgres").exists());
}

#[test]
fn an_orphan_is_adopted_after_kill_9_of_the_server() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let orphan = folder.postmaster().expect("a postmaster");
    server.kill();
    assert_eq!(folder.postmaster(), Some(orphan), "it outlives the server");
    let server = Server::start(&folder);
    assert_eq!(folder.postmaster(), Some(orphan), "and is adopted");
    assert_eq!(server.stop(), Some(0));
    assert!(folder.postmaster().is_none(), "and stopped");
}

#[test]
fn kill_9_of_everything_leaves_nothing_that_stops_the_next_start() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let server = Server::start(&folder);
    let postmaster = folder.postmaster().expect("a postmaster");
    kill_process(postmaster, Signal::STOP).unwrap();
    server.kill();
    // Also its backends are in the middle of something; none of them is told.
    kill_process(postmaster, Signal::KILL).unwrap();
    let server = Server::start(&folder);
    assert!(folder.run(&["user", "list"]).expect(0).stdout.contains("a@example.org"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn an_orphan_that_does_not_answer_is_ended() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let postmaster = folder.postmaster().expect("a postmaster");
    server.kill();
    kill_process(postmaster, Signal::STOP).unwrap();
    let server = Server::start(&folder);
    assert_ne!(folder.postmaster(), Some(postmaster));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_stale_pid_file_whose_number_somebody_else_has_is_no_obstacle() {
    let folder = Folder::new();
    folder.make();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let stale = format!(
        "{}\n{}/postgres\n1\n5432\n{}/run\n\n",
        bystander.id(),
        folder.data().display(),
        folder.data().display()
    );
    fs::write(folder.data().join("postgres/postmaster.pid"), stale).unwrap();
    folder.run(&["user", "list"]).expect(0);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_postgres_that_dies_under_the_server_is_started_again() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let postmaster = folder.postmaster().expect("a postmaster");
    kill_process(postmaster, Signal::KILL).unwrap();
    until("another postmaster", || folder.postmaster().filter(|pid| *pid != postmaster));
    until("the server is ready again", || server.is_ready().then_some(()));
    assert_eq!(server.stop(), Some(0));
    assert!(folder.postmaster().is_none());
}

/// What systemd's RemoveIPC and cleaners of /dev/shm remove while it is in use. Statistics of so many tables do not fit
/// into what Postgres takes at its start.
fn remove_shared_memory(folder: &Folder) {
    folder.sql(
        "do $$ begin
           for n in 1..1000 loop execute format('create table public.t%s (id int primary key)', n); end loop;
         end $$",
    );
    let postmaster = folder.postmaster().expect("a postmaster").as_raw_nonzero().get();
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    for process in std::iter::once(postmaster.to_string()).chain(children.split_whitespace().map(str::to_owned)) {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        for segment in
            maps.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/dev/shm/")))
        {
            let _ = fs::remove_file(segment);
        }
    }
    let pid_file = fs::read_to_string(folder.data().join("postgres/postmaster.pid")).unwrap();
    let id = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).expect("id of the segment");
    let removed = Command::new("ipcrm").args(["-m", id]).status().expect("ipcrm");
    assert!(removed.success());
}

#[test]
fn removed_shared_memory_does_it_no_harm() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = Folder::new();
    let server = Server::start(&folder);
    let postmaster = folder.postmaster();
    remove_shared_memory(&folder);
    // new connections, and more than one at a time for a statement
    folder.run(&["user", "list"]).expect(0);
    folder.sql(
        "set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
         select count(*) from pg_class",
    );
    assert!(server.is_ready());
    assert_eq!(folder.postmaster(), postmaster);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(Server::start(&folder).stop(), Some(0));
}

#[test]
fn a_postgres_that_takes_no_new_connection_is_started_again() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = Folder::new();
    // an operator's own setting, against ours
    fs::create_dir(folder.data()).unwrap();
    fs::write(folder.data().join("postgres.conf"), "dynamic_shared_memory_type = posix\n").unwrap();
    let server = Server::start(&folder);
    let postmaster = folder.postmaster().expect("a postmaster");
    remove_shared_memory(&folder);
    until("it says so", || (!server.is_ready()).then_some(()));
    let answer = get(server.port, "/readyz").unwrap();
    assert!(answer.contains("\"postgres\":{\"status\":\"failed\""), "{answer}");
    until("another postmaster", || folder.postmaster().filter(|pid| *pid != postmaster));
    until("the server is ready again", || server.is_ready().then_some(()));
    folder.run(&["user", "list"]).expect(0);
    assert!(server.log().contains("starting it again"), "{}", server.log());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn commands_share_it_with_the_server_and_with_each_other() {
    let folder = Folder::new();
    folder.make();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let folder = &folder;
            scope.spawn(move || folder.create_user(&format!("user{number}@example.org")));
        }
    });
    assert!(folder.postmaster().is_none(), "the last command stopped it");
    let server = Server::start(&folder);
    let postmaster = folder.postmaster();
    assert_eq!(folder.run(&["user", "list"]).expect(0).stdout.lines().count(), 3);
    assert_eq!(folder.postmaster(), postmaster, "a command leaves the server's alone");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn half_of_a_cluster_is_made_anew() {
    let folder = Folder::new();
    fs::create_dir_all(folder.data().join("postgres.new/base")).unwrap();
    fs::write(folder.data().join("postgres.new/PG_VERSION"), "15\n").unwrap();
    folder.make();
    assert!(!folder.data().join("postgres.new").exists());
}

#[test]
fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let folder = Folder::with_long_path(180);
    let server = Server::start(&folder);
    folder.run(&["user", "list"]).expect(0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn data_of_another_version_is_told_and_left_alone() {
    let folder = Folder::new();
    folder.make();
    let version = folder.data().join("postgres/PG_VERSION");
    let right = fs::read_to_string(&version).unwrap();
    fs::write(&version, "10\n").unwrap();
    folder.run(&["migrate"]).refused(&["PostgreSQL 10", "Install", "--data-dir"]);
    fs::write(&version, "?").unwrap();
    folder.run(&["migrate"]).refused(&["PG_VERSION", "backup"]);
    fs::write(&version, right).unwrap();
    folder.run(&["migrate"]).expect(0);
}

#[test]
fn only_serve_begins_anew() {
    let folder = Folder::new();
    let missing = folder.data().display().to_string();
    let refused =
        |args: &[&str]| folder.run_with_input(args, b"long enough\n").refused(&[&missing, "--data-dir", "serve"]);
    let commands: [&[&str]; 10] = [
        &["migrate"],
        &["keys", "rotate"],
        &["user", "list"],
        &["user", "create", "--email", "a@example.org", "--password-stdin"],
        &["import", "-", "--owner", "a@example.org"],
        &["export", "-", "--owner", "a@example.org"],
        &["rebuild"],
        &["republish", "--from", "1"],
        &["doctor"],
        &["restore-finish"],
    ];
    for command in commands {
        refused(command);
        assert!(!folder.data().exists(), "{command:?}");
    }
    // Where the disk with the data is not mounted.
    fs::create_dir(folder.data()).unwrap();
    refused(&["user", "list"]);
    refused(&["keys", "rotate", "--database-url", "postgres://me@127.0.0.1:1/db"]);
    assert_eq!(fs::read_dir(folder.data()).unwrap().count(), 0);
}

#[test]
fn missing_programs_are_told() {
    let folder = Folder::new();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    Ran::of(command.env("PRIMETRADE_POSTGRES_BIN", &empty)).refused(&["PRIMETRADE_POSTGRES_BIN", "initdb"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let mut folder = Folder::new();
    // Not even root may write there.
    folder.put_data_at("/proc/primetrade-data");
    folder.run(&["serve", "--listen", "127.0.0.1:0"]).refused(&["/proc/primetrade-data", "--data-dir"]);
    let file = folder.write("file", "not a folder");
    folder.put_data_at(file.to_str().unwrap());
    folder.run(&["serve", "--listen", "127.0.0.1:0"]).refused(&["file", "--data-dir"]);
    if !is_root() {
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
        folder.put_data_at(closed.to_str().unwrap());
        folder.run(&["serve", "--listen", "127.0.0.1:0"]).refused(&["closed", "writable"]);
    }
}

#[test]
fn root_gives_away_no_folder_that_is_not_ours() {
    if !is_root() {
        return;
    }
    let mut folder = Folder::new();
    let precious = folder.write("precious", "somebody's");
    folder.put_data_at(folder.path().to_str().unwrap().to_owned().as_str());
    folder.run(&["serve", "--listen", "127.0.0.1:0"]).refused(&["precious", "--data-dir"]);
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    assert_eq!(fs::metadata(folder.path()).unwrap().uid(), 0);
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    Ran::of(command.env("PRIMETRADE_RUN_AS", "root")).refused(&["PRIMETRADE_RUN_AS", "root"]);
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    Ran::of(command.env("PRIMETRADE_RUN_AS", "nobody-of-that-name")).refused(&["nobody-of-that-name"]);
}

#[test]
fn a_folder_that_others_may_enter_is_told_with_what_to_do() {
    let folder = Folder::new();
    folder.make();
    let open = |name: &str, mode: u32| {
        fs::set_permissions(folder.data().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o770, 0o705] {
        open("postgres", mode);
        folder.run(&["migrate"]).refused(&["postgres", &format!("{mode:04o}"), "chmod 700"]);
    }
    open("postgres", 0o750);
    for mode in [0o640, 0o604] {
        open("secret", mode);
        folder.run(&["keys", "rotate"]).refused(&["secret", &format!("{mode:04o}"), "chmod 600"]);
    }
    open("secret", 0o600);
    folder.run(&["keys", "rotate"]).expect(0);
}

#[test]
fn a_user_without_a_name_is_told_what_to_do() {
    if !is_root() {
        // an ordinary user cannot become another one
        return;
    }
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    Ran::of(command.uid(12_345).gid(12_345)).refused(&["12345", "/etc/passwd", "PRIMETRADE_DATABASE_URL"]);
}

#[test]
fn a_full_disk_is_told() {
    let Some(folder) = Folder::on_a_disk_of_mb(20) else { return };
    let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.refused(&["the disk is full", "MB", "--data-dir"]);
}

/// Writes until it is told that there is no room; gives how many commands were taken.
fn fill(port: u16, token: &str) -> usize {
    let headers = format!("Authorization: Bearer {token}\r\n");
    // not to be compressed
    let description: String = (0..250).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let mut taken = 0;
    loop {
        let commands: Vec<String> = (0..500)
            .map(|_| {
                let id = uuid::Uuid::new_v4();
                format!(
                    r#"{{"type":"CreateTask","task_id":"{id}","title":"one of many","description":"{description}"}}"#
                )
            })
            .collect();
        let answer = post(port, "/api/v1/commands", &headers, &format!("{{\"commands\":[{}]}}", commands.join(",")));
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(500)]);
        taken += body.matches("\"status\":201").count();
        if body.contains("\"failed\":0") {
            continue;
        }
        assert!(
            body.contains("\"disk-full\"") && !body.contains("\"unavailable\""),
            "{}",
            &body[..body.len().min(2_000)]
        );
        return taken;
    }
}

/// So many lines of an import, each a task.
fn lines(count: usize) -> String {
    let line = |number| {
        let id = uuid::Uuid::new_v4();
        format!("{{\"type\":\"CreateTask\",\"task_id\":\"{id}\",\"title\":\"line {number}\"}}\n")
    };
    (1..=count).map(line).collect()
}

fn import(server: &Server, headers: &str, lines: &str) -> String {
    post_as("application/x-ndjson", server.port, "/api/v1/imports", headers, lines)
}

/// A job that is under way when there is no room any more: it waits, and goes on by itself. Gives how many tasks it makes.
fn an_import_under_way_waits_for_room(folder: &Folder, server: &Server, headers: &str) -> usize {
    const LINES: usize = 2_500;
    let mut path = String::new();
    let job = |path: &str| object(&get_with(server.port, path, headers).expect("an answer"));
    folder.while_the_log_is_locked(|| {
        let added = import(server, headers, &lines(LINES));
        assert!(added.starts_with("HTTP/1.1 202"), "{added}");
        path = format!("/api/v1/jobs/{}", object(&added)["id"].as_str().expect("an id"));
        until("it is under way", || (job(&path)["state"] == "running").then_some(()));
        folder.take_all_but_mb(250);
        until("it is known", || get(server.port, "/readyz")?.contains("MB must be free").then_some(()));
    });
    let refused = post(server.port, "/api/v1/tasks", headers, r#"{"title":"one more"}"#);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("disk-full"), "{refused}");
    let waits = job(&path);
    assert!(waits["state"] == "running" && waits["done"].as_u64() < Some(LINES as u64), "{waits}");
    folder.make_room();
    let done = until("it is at its end", || Some(job(&path)).filter(|job| job["state"] != "running"));
    assert!(done["state"] == "succeeded" && done["succeeded"] == LINES && done["failed"] == 0, "{done}");
    until("it is ready again", || server.is_ready().then_some(()));
    LINES
}

#[test]
fn a_disk_that_fills_up_stops_writes_in_time_and_nothing_else() {
    const IMPORTED: usize = 200;
    let Some(folder) = Folder::on_a_disk_of_mb(1_000) else { return };
    folder.create_user("a@example.org");
    // it is asked again and again
    let mut server = Server::begin(&folder, free_port(), &[("PRIMETRADE_RATE_LIMITS", "off")]);
    server.wait_until_ready();
    let postmaster = folder.postmaster();
    let token = log_in(server.port, "a@example.org", "long enough");
    let headers = format!("Authorization: Bearer {token}\r\n");
    let mut there_are = an_import_under_way_waits_for_room(&folder, &server, &headers);
    // what the log may still grow to, what is spare, and something to fill
    folder.take_all_but_mb(450);
    let taken = fill(server.port, &token);
    assert!(taken > 1_000, "{taken} were taken");
    there_are += taken;
    let ready = get(server.port, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("MB must be free"), "{ready}");
    let refused = post(server.port, "/api/v1/tasks", &headers, r#"{"title":"one more"}"#);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("disk-full"), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: "), "{refused}");
    let export = post(server.port, "/api/v1/exports", &headers, r#"{"format":"csv"}"#);
    assert!(export.starts_with("HTTP/1.1 503") && export.contains("disk-full"), "{export}");
    let more = import(&server, &headers, &lines(10));
    assert!(more.starts_with("HTTP/1.1 503") && more.contains("disk-full"), "{more}");
    let shown = |tasks: usize| {
        until("all that was taken is shown", || {
            let answer = get_with(server.port, "/api/v1/stats", &headers)?;
            assert!(answer.starts_with("HTTP/1.1 200"), "reads go on: {answer}");
            answer.contains(&format!("\"pending\":{tasks},")).then_some(())
        });
    };
    shown(there_are);
    // people log in, and nothing is made that stays
    log_in(server.port, "a@example.org", "long enough");
    let registration = r#"{"email":"b@example.org","password":"long enough","name":"b"}"#;
    let change = r#"{"current":"long enough","new":"longer than enough"}"#;
    for (path, headers, body) in
        [("/api/v1/auth/register", "", registration), ("/api/v1/auth/password", headers.as_str(), change)]
    {
        let refused = post(server.port, path, headers, body);
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("disk-full"), "{path}: {refused}");
    }
    assert!(folder.free_mb() > 10, "{} MB are left", folder.free_mb());
    // the command line waits for room as well, for a minute
    let said = folder.path().join("import.log");
    let mut command = folder.command(&["import", "-", "--owner", "a@example.org", "--json"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&said).unwrap());
    let mut importing = command.spawn().unwrap();
    importing.stdin.take().unwrap().write_all(lines(IMPORTED).as_bytes()).unwrap();
    until("it says why it waits", || fs::read_to_string(&said).unwrap().contains("the disk is full").then_some(()));
    assert!(importing.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&said).unwrap());
    folder.make_room();
    until("it is ready again", || server.is_ready().then_some(()));
    let made = post(server.port, "/api/v1/tasks", &headers, r#"{"title":"one more"}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let imported = Ran::from(importing.wait_with_output().unwrap()).expect(0).json();
    assert!(imported["events"] == IMPORTED && imported["failed"] == 0, "{imported}");
    shown(there_are + IMPORTED + 1);
    assert_eq!(folder.postmaster(), postmaster, "by itself, and without a restart");
    folder.run(&["doctor"]).expect(0);
    assert_eq!(server.stop(), Some(0));
}

/// Below so many free MB events are refused: what is spare, and what the write-ahead log may still grow to.
fn floor_mb(folder: &Folder) -> u64 {
    let postgres = folder.data().join("postgres");
    let settings = fs::read_to_string(postgres.join("primetrade.conf")).unwrap();
    let max = settings.lines().find_map(|line| line.strip_prefix("max_wal_size = ")?.strip_suffix("MB"));
    let max: u64 = max.expect("a bound of the log").parse().unwrap();
    let files = fs::read_dir(postgres.join("pg_wal")).unwrap().flatten().filter_map(|entry| entry.metadata().ok());
    let has: u64 = files.filter(|meta| meta.is_file()).map(|meta| meta.len() >> 20).sum();
    256 + max.saturating_sub(has)
}

/// It is not begun, or ends, and what was made of it is gone, while there is still room for events.
#[test]
fn a_rebuild_ends_before_the_disk_is_full() {
    let Some(folder) = Folder::on_a_disk_of_mb(1_000) else { return };
    folder.create_user("a@example.org");
    let server = Server::start(&folder);
    let token = log_in(server.port, "a@example.org", "long enough");
    let headers = format!("Authorization: Bearer {token}\r\n");
    let create = || post(server.port, "/api/v1/tasks", &headers, r#"{"title":"one more"}"#);
    let takes_events = || {
        until("it is ready", || server.is_ready().then_some(()));
        let made = create();
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    };
    takes_events();

    folder.take_all_but_mb(floor_mb(&folder) + 32);
    folder.run(&["rebuild"]).refused(&["read models", "MB must be free"]);
    let doctor = folder.run(&["doctor", "--json"]).expect(1).json();
    let findings = doctor["findings"].as_array().expect("findings");
    assert!(findings.len() == 1 && findings[0].as_str().expect("a text").contains("MB must be free"), "{doctor}");
    takes_events();
    folder.make_room();

    folder.while_the_log_is_locked(|| {
        let mut command = folder.command(&["rebuild"]);
        let rebuild = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it reads the log", || folder.waits("order by owner_id, task_id, version").then_some(()));
        folder.take_all_but_mb(floor_mb(&folder) + 32);
        Ran::from(rebuild.wait_with_output().unwrap()).refused(&["read models", "MB must be free"]);
    });
    folder.sql(
        "do $$ begin
           if exists (select from read_model.generation where state = 'building')
             or exists (select from pg_class where relkind = 'r' and relname ~ '_building$') then
             raise 'something of it is left';
           end if;
         end $$",
    );
    takes_events();
    folder.make_room();
    folder.run(&["rebuild", "--expect-same"]).expect(0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_database_that_does_not_answer_is_tried_for_a_bounded_time() {
    let folder = Folder::new();
    let began = Instant::now();
    let ran = folder.run(&["migrate", "--database-url", "postgres://me:hidden@127.0.0.1:1/db"]);
    ran.refused(&["127.0.0.1:1/db", "does not answer", "PRIMETRADE_DATABASE_URL"]);
    assert!(!ran.stderr.contains("hidden"));
    assert!((Duration::from_secs(5)..Duration::from_secs(30)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn a_database_that_refuses_is_told_at_once() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let socket_dir = folder.data().join("run");
    let began = Instant::now();
    for (url, word) in
        [("postgres:///nosuch?user=primetrade", "nosuch"), ("postgres:///primetrade?user=nobody", "nobody")]
    {
        let url = format!("{url}&host={}", socket_dir.display());
        let mut other = Folder::new();
        other.put_data_at(other.path().join("unused").to_str().unwrap().to_owned().as_str());
        if is_root() {
            // The socket's folder is closed to all but its owner and root.
            other.run(&["user", "list", "--database-url", &url]).refused(&[word, "PRIMETRADE_DATABASE_URL"]);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_schema_of_a_newer_program_is_left_alone() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    folder.sql(
        "insert into event_store._migrations (version, description, installed_on, success, checksum, execution_time)
         values (99990101000000, 'from the future', now(), true, '\\x00', 0)",
    );
    folder.run(&["user", "list"]).refused(&["newer version", "99990101000000"]);
    assert_eq!(server.stop(), Some(0));
    let address = format!("127.0.0.1:{}", free_port());
    folder.run(&["serve", "--listen", &address]).refused(&["newer version", "event_store"]);
    assert!(folder.postmaster().is_none(), "what was started for it was stopped");
}

#[test]
fn operations_move_to_an_address_of_their_own() {
    let folder = Folder::new();
    let ops = free_port();
    let server = Server::begin(&folder, free_port(), &[("PRIMETRADE_OPS_LISTEN", &format!("127.0.0.1:{ops}"))]);
    until("the server is ready", || get(ops, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200")));
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(get(ops, path).unwrap().starts_with("HTTP/1.1 200"), "{path}");
        assert!(get(server.port, path).unwrap().starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(get(server.port, "/api/v1/tasks").unwrap().starts_with("HTTP/1.1 401"));
    assert!(get(ops, "/api/v1/tasks").unwrap().starts_with("HTTP/1.1 404"));
    assert_eq!(server.stop(), Some(0));
}
