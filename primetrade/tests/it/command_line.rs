//! The commands on real data: what they do, what they say, and their exit status.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

use crate::support::{Folder, Ran, Server, ctrl_c, is_root, post, until};

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn create(number: u32, title: &str) -> String {
    json!({"type": "CreateTask", "task_id": id(number), "title": title}).to_string()
}

/// Every type of command, on three tasks, the third of which is deleted in the end.
fn history() -> String {
    let at = |day: u32| format!("2020-01-{day:02}T00:00:00.000001Z");
    let line = |number: u32, day: u32, kind: &str, more: Value| {
        let mut line = json!({"type": kind, "task_id": id(number), "occurred_at": at(day)});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    [
        line(1, 1, "CreateTask", json!({"title": "=one, \"quoted\"", "description": "two\nlines", "priority": "urgent", "due_at": "2030-01-01T00:00:00Z", "tags": ["a", "-b"]})),
        line(1, 2, "StartTask", json!({})),
        line(1, 3, "CompleteTask", json!({})),
        line(1, 4, "RenameTask", json!({"title": "'one"})),
        line(1, 5, "DescribeTask", json!({"description": null})),
        line(1, 6, "ReprioritizeTask", json!({"priority": "low"})),
        line(1, 7, "ScheduleTask", json!({"due_at": null})),
        line(1, 8, "UntagTask", json!({"tag": "a"})),
        line(1, 9, "TagTask", json!({"tags": ["c", "d"]})),
        line(2, 1, "CreateTask", json!({"title": "two"})),
        line(2, 2, "CancelTask", json!({})),
        line(2, 3, "ReopenTask", json!({})),
        line(3, 1, "CreateTask", json!({"title": "three"})),
        line(3, 2, "DeleteTask", json!({})),
    ]
    .concat()
}

fn import(folder: &Folder, file: &str, owner: &str, more: &[&str]) -> Ran {
    folder.run(&[&["import", file, "--owner", owner, "--json"], more].concat())
}

fn export(folder: &Folder, owner: &str, format: &str) -> String {
    let args = ["export", "-", "--owner", owner, "--format", format];
    let exported = folder.run(&args).expect(0).stdout;
    let with_json = folder.run(&[&args[..], &["--json"]].concat()).expect(0).stdout;
    assert_eq!(with_json, exported, "standard output holds the export and nothing else");
    exported
}

#[test]
fn what_is_exported_and_imported_are_the_same_tasks() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    folder.create_user("a@example.org");
    folder.create_user("b@example.org");
    let file = folder.write("history.ndjson", history());
    let counts = import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0).json();
    assert_eq!(
        (&counts["lines"], &counts["succeeded"], &counts["failed"], &counts["events"]),
        (&json!(14), &json!(14), &json!(0), &json!(14))
    );
    let keys: Vec<&String> = counts.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["events", "failed", "lines", "seconds", "succeeded"]);

    let again = import(&folder, file.to_str().unwrap(), "A@Example.org", &[]).expect(0).json();
    assert_eq!(
        (&again["succeeded"], &again["events"]),
        (&json!(14), &json!(0)),
        "a second import has no second effect"
    );

    let exported = export(&folder, "a@example.org", "ndjson");
    assert_eq!(exported.lines().count(), 12, "the deleted task is left out");
    let file = folder.path().join("export.ndjson");
    let written =
        folder.run(&["export", file.to_str().unwrap(), "--owner", "a@example.org", "--json"]).expect(0).json();
    assert_eq!((&written["tasks"], &written["lines"]), (&json!(2), &json!(12)));
    assert_eq!(fs::read_to_string(&file).unwrap(), exported);
    for (owner, events) in [("a@example.org", 0), ("b@example.org", 12), ("b@example.org", 0)] {
        let counts = import(&folder, file.to_str().unwrap(), owner, &[]).expect(0).json();
        assert_eq!((&counts["succeeded"], &counts["events"]), (&json!(12), &json!(events)), "{owner}");
    }
    assert_eq!(export(&folder, "b@example.org", "ndjson"), exported);
    // where a part of the tasks is there, as after a loss or a copy that was broken off, the others come, and just those
    folder.create_user("c@example.org");
    let (first, second) = (id(1), id(2));
    let part: Vec<&str> = exported.split_inclusive('\n').filter(|line| line.contains(&first)).collect();
    assert!(part.iter().all(|line| !line.contains(&second)));
    let part = folder.write("part.ndjson", part.concat());
    for (file, lines, events) in [(&part, 9, 9), (&file, 12, 3), (&file, 12, 0)] {
        let counts = import(&folder, file.to_str().unwrap(), "c@example.org", &[]).expect(0).json();
        assert_eq!((&counts["succeeded"], &counts["events"]), (&json!(lines), &json!(events)), "{counts}");
    }
    assert_eq!(export(&folder, "c@example.org", "ndjson"), exported);
    let rows = export(&folder, "a@example.org", "csv");
    assert_eq!(export(&folder, "b@example.org", "csv"), rows);

    let expected = "id,title,description,status,priority,due_at,tags,rank,version,created_at,updated_at,started_at,completed_at\n\
        00000000-0000-4000-8000-000000000001,''one,,completed,low,,\"'-b,c,d\",,9,2020-01-01T00:00:00.000001Z,2020-01-09T00:00:00.000001Z,2020-01-02T00:00:00.000001Z,2020-01-03T00:00:00.000001Z\n\
        00000000-0000-4000-8000-000000000002,two,,pending,medium,,,,3,2020-01-01T00:00:00.000001Z,2020-01-03T00:00:00.000001Z,,\n";
    assert_eq!(rows, expected);
    // rows say what tasks are, whatever they were made as; what was changed since is not taken back
    for (rows, code, succeeded) in [(rows.clone(), 0, 2), (rows.replace(",two,", ",another,"), 1, 1)] {
        let file = folder.write("rows.csv", rows);
        let ran = import(&folder, file.to_str().unwrap(), "a@example.org", &["--format", "csv"]).expect(code).json();
        assert_eq!((&ran["succeeded"], &ran["events"]), (&json!(succeeded), &json!(0)), "{ran}");
    }
    assert_eq!(export(&folder, "a@example.org", "csv"), expected);
    folder.run(&["doctor"]).expect(0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn rows_become_tasks() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    let rows =
        "\u{feff}title,tags,created_at\n'=SUM(A1),\"x,y\",2020-01-01T00:00:00Z\n\"two\nlines\",,\nplain,,\nplain,,\n";
    let file = folder.write("rows.csv", rows);
    let ran = import(&folder, file.to_str().unwrap(), "a@example.org", &["--format", "csv"]).expect(1);
    assert!(ran.stderr.contains("line 3: title must not contain control characters"), "{ran:?}");
    assert_eq!((&ran.json()["lines"], &ran.json()["succeeded"]), (&json!(4), &json!(3)));
    let again = import(&folder, file.to_str().unwrap(), "a@example.org", &["--format", "csv"]).expect(1);
    assert_eq!(again.json()["events"], 0, "rows without an id are the same tasks again");
    let rows = export(&folder, "a@example.org", "csv");
    let first = rows.lines().nth(1).expect("in the order of their creation");
    assert!(first.contains(",'=SUM(A1),,pending,medium,,\"x,y\",,1,2020-01-01T00:00:00Z,"), "{rows}");
    assert_eq!(rows.lines().count(), 4);

    let semicolons = "title;due_at\nevening;31.12.2030\nmorning;2030-12-31T09:00:00Z\nnoon;12/31/30 12:00\n";
    let file = folder.write("semicolons.csv", semicolons);
    let ran = import(&folder, file.to_str().unwrap(), "a@example.org", &["--format", "csv"]).expect(1);
    let wanted = "due_at must be a time in RFC 3339, such as 2026-01-31T12:00:00Z";
    for line in [2, 4] {
        assert!(ran.stderr.contains(&format!("line {line}: {wanted}")), "{ran:?}");
    }
    assert_eq!((&ran.json()["succeeded"], &ran.json()["failed"]), (&json!(1), &json!(2)));
}

#[test]
fn excel_reads_what_is_written_for_it() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    folder.create_user("b@example.org");
    let file = folder.write("history.ndjson", history());
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let file = folder.path().join("excel.csv");
    let export_to_excel = |format: &str| {
        folder.run(&["export", file.to_str().unwrap(), "--owner", "a@example.org", "--format", format, "--excel"])
    };
    export_to_excel("ndjson").refused(&["--format csv"]);
    export_to_excel("csv").expect(0);
    let rows = fs::read_to_string(&file).unwrap();
    assert_eq!(rows, format!("\u{feff}{}", export(&folder, "a@example.org", "csv").replace('\n', "\r\n")));
    let counts = import(&folder, file.to_str().unwrap(), "b@example.org", &["--format", "csv"]).expect(0).json();
    assert_eq!((&counts["lines"], &counts["succeeded"]), (&json!(2), &json!(2)));
}

#[test]
fn a_file_without_the_right_header_is_refused() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    for (rows, named) in [
        ("titel,description\nwater,the plants\n", "\"titel\""),
        ("title,description,title\na,b,c\n", "title appears more than once"),
        ("water,the plants\n", "\"water\""),
        ("tags\nx\n", "does not name title"),
    ] {
        let file = folder.write("rows.csv", rows);
        import(&folder, file.to_str().unwrap(), "a@example.org", &["--format", "csv"]).refused(&[named]);
    }
    assert_eq!(export(&folder, "a@example.org", "ndjson"), "");
}

#[test]
fn an_export_that_fails_leaves_what_was_there() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let lines = folder.write("in.ndjson", create(1, "one"));
    import(&folder, lines.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let dir = folder.path().join("exports");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let old = dir.join("tasks.ndjson");
    fs::write(&old, "precious").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
    let path = old.to_str().unwrap();
    let names = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();

    folder.run(&["export", path, "--owner", "nobody@example.org"]).refused(&["nobody@example.org"]);
    assert_eq!(fs::read_to_string(&old).unwrap(), "precious", "an unknown account");

    // As on a full disk: no file may grow.
    let server = Server::start(&folder);
    let command = folder.command(&["export", path, "--owner", "a@example.org", "--database-url", &folder.url()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    let ran = Ran::of(limited.arg(command.get_program()).args(command.get_args()));
    ran.refused(&["cannot write", "not whole"]);
    assert_eq!(fs::read_to_string(&old).unwrap(), "precious", "a full disk");

    // Ctrl-C.
    folder.while_the_log_is_locked(|| {
        let mut command = folder.command(&["export", path, "--owner", "a@example.org"]);
        let mut export = command.stderr(Stdio::null()).spawn().unwrap();
        // what only an export reads; a server looks into the log by itself
        until("it reads", || folder.waits("order by owner_id, task_id, version").then_some(()));
        kill_process(Pid::from_child(&export), ctrl_c()).unwrap();
        assert_eq!(export.wait().unwrap().code(), Some(2));
    });
    assert_eq!(fs::read_to_string(&old).unwrap(), "precious", "stopped");
    assert_eq!(names(), ["tasks.ndjson"], "no draft is left");
    assert_eq!(server.stop(), Some(0));

    folder.run(&["export", path, "--owner", "a@example.org"]).expect(0);
    assert!(fs::read_to_string(&old).unwrap().contains("\"title\":\"one\""));
    assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(), ["tasks.ndjson"]);
    folder.run(&["export", "/dev/null", "--owner", "a@example.org"]).expect(0);
}

/// As after a clock that ran three days ahead and was put right.
#[test]
fn what_lies_in_the_future_is_named_and_imported_as_history() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    folder.create_user("a@example.org");
    let ahead = (process::clock::now() + chrono::TimeDelta::days(3)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let line = |kind: &str, more: Value| {
        let mut line = json!({"type": kind, "task_id": id(1), "occurred_at": ahead});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let file =
        folder.write("ahead.ndjson", line("CreateTask", json!({"title": "ahead"})) + &line("StartTask", json!({})));
    let file = file.to_str().unwrap();
    let refused = import(&folder, file, "a@example.org", &[]).expect(1);
    assert!(refused.stderr.contains("future") && refused.json()["failed"] == 2, "{refused:?}");
    let taken = import(&folder, file, "a@example.org", &["--history"]).expect(0).json();
    assert_eq!((&taken["succeeded"], &taken["events"]), (&json!(2), &json!(2)));
    let exported = export(&folder, "a@example.org", "ndjson");
    assert_eq!(exported.matches(&ahead).count(), 2, "as they are: {exported}");
    let file = folder.write("exported.ndjson", exported);
    let again = import(&folder, file.to_str().unwrap(), "a@example.org", &["--history"]).expect(0).json();
    assert_eq!(again["events"], 0);
    // Whoever goes on with the task now goes on after that.
    let later = folder.write("later.ndjson", json!({"type": "CompleteTask", "task_id": id(1)}).to_string());
    import(&folder, later.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let findings = until("the projector has caught up", || {
        let ran = folder.run(&["doctor", "--json"]).expect(1).json();
        (ran["findings"].as_array().unwrap().len() == 1).then(|| ran["findings"][0].as_str().unwrap().to_owned())
    });
    assert!(findings.contains("3 events of owner ") && findings.contains(&ahead), "{findings}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn rejected_lines_are_named_and_the_rest_is_done() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    let mut text = Vec::new();
    let long = format!("{}\n", create(9, &"x".repeat(1 << 20)));
    for line in [
        create(1, "fine"),
        "not json".to_owned(),
        create(2, "a\u{0}b"),
        json!({"type": "StartTask", "task_id": id(7)}).to_string(),
        json!({"type": "StartTask", "task_id": id(1), "occurred_at": "2000-01-01T00:00:00Z"}).to_string(),
        json!({"type": "StartTask", "task_id": id(1), "occurred_at": "9000-01-01T00:00:00Z"}).to_string(),
        json!({"type": "StartTask", "task_id": id(1), "expected_version": 5}).to_string(),
        json!({"type": "FlyTask", "task_id": id(1)}).to_string(),
        json!({"type": "StartTask", "task_id": id(1), "colour": "red"}).to_string(),
        long.trim_end().to_owned(),
        String::new(),
        json!({"type": "StartTask", "task_id": id(1)}).to_string(),
    ] {
        text.extend(line.as_bytes());
        text.push(b'\n');
    }
    text.extend(b"{\"type\":\"CreateTask\",\"title\":\"\xff\"}");
    let file = folder.write("mixed.ndjson", text);
    let ran = import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(1);
    assert_eq!(
        (&ran.json()["lines"], &ran.json()["succeeded"], &ran.json()["events"]),
        (&json!(12), &json!(2), &json!(2))
    );
    for (line, reason) in [
        (2, "Not JSON"),
        (3, "title must not contain"),
        (4, "no such task"),
        (5, "previous event"),
        (6, "future"),
        (7, "version"),
        (8, "type is not the type of a command"),
        (9, "colour"),
        (10, "longer than"),
        (13, "Not JSON"),
    ] {
        let prefix = format!("line {line}: ");
        let said =
            ran.stderr.lines().find(|said| said.starts_with(&prefix)).unwrap_or_else(|| panic!("{line}: {ran:?}"));
        assert!(said.contains(reason), "{said}");
    }
    let ran = folder.run_with_input(&["import", "-", "--owner", "a@example.org"], b"nonsense\n");
    assert!(ran.stdout.contains("1 lines: 0 succeeded, 1 rejected"), "{ran:?}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    let file = folder.write("history.ndjson", history() + "nonsense\n");
    let ran = import(&folder, file.to_str().unwrap(), "a@example.org", &["--dry-run"]).expect(1);
    assert_eq!(
        (&ran.json()["succeeded"], &ran.json()["failed"], &ran.json()["events"]),
        (&json!(14), &json!(1), &json!(0))
    );
    assert_eq!(export(&folder, "a@example.org", "ndjson"), "");
}

#[test]
fn an_interrupted_import_says_how_far_it_came_and_goes_on() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    let mut command = folder.command(&["import", "-", "--owner", "a@example.org", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    writeln!(input, "{}\nnonsense", create(1, "one")).unwrap();
    // The reader is at work; the pipe stays open, as if more were to come.
    assert!(said.next().unwrap().unwrap().starts_with("line 2: "));
    kill_process(Pid::from_child(&child), ctrl_c()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["interrupted"], true);
    drop(input);
    let text = format!("{}\n{}\n", create(1, "one"), create(2, "two"));
    let ran = folder.run_with_input(&["import", "-", "--owner", "a@example.org", "--json"], text.as_bytes());
    assert_eq!(ran.expect(0).json()["succeeded"], 2);
    assert_eq!(export(&folder, "a@example.org", "ndjson").lines().count(), 2);
}

#[test]
fn root_reads_and_writes_files_that_are_its_own() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let file = closed.join("in.ndjson");
    fs::write(&file, create(1, "one")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let out = closed.join("out.ndjson");
    folder.run(&["export", out.to_str().unwrap(), "--owner", "a@example.org"]).expect(0);
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 1);
    let secret = closed.join("secret");
    fs::write(&secret, "s".repeat(40)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    Ran::of(folder.command(&["keys", "rotate"]).env("PRIMETRADE_SECRET_FILE", &secret)).expect(0);
    let missing = closed.join("missing");
    folder.run(&["import", missing.to_str().unwrap(), "--owner", "a@example.org"]).refused(&["missing"]);
    if is_root() {
        assert!(folder.postmaster().is_none());
    }
}

#[test]
fn accounts_are_made_listed_and_disabled() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    let create = |args: &[&str], password: &[u8]| {
        folder.run_with_input(&[&["user", "create", "--password-stdin", "--json"], args].concat(), password)
    };
    let made =
        create(&["--email", "Boss@Example.org", "--name", "The Boss", "--admin"], b"long enough\r\n").expect(0).json();
    assert_eq!(
        (&made["email"], &made["role"], &made["name"]),
        (&json!("boss@example.org"), &json!("admin"), &json!("The Boss"))
    );
    let made = create(&["--email", "ann@example.org"], b"long enough").expect(0).json();
    assert_eq!((&made["name"], &made["role"]), (&json!("ann"), &json!("user")));
    create(&["--email", "ann@example.org"], b"long enough").refused(&["account with this address"]);
    create(&["--email", "nonsense"], b"long enough").refused(&["e-mail", "name@domain"]);
    create(&["--email", "b@example.org"], b"short").refused(&["the password", "8"]);
    create(&["--email", "b@example.org"], b"").refused(&["the password"]);
    create(&["--email", "b@example.org", "--name", " "], b"long enough").refused(&["--name"]);

    let disabled = folder.run(&["user", "disable", "--email", "ann@example.org", "--json"]).expect(0).json();
    assert_eq!(disabled["disabled"], true);
    folder.run(&["user", "disable", "--email", "nobody@example.org"]).refused(&["nobody@example.org", "user list"]);
    let password = folder
        .run_with_input(&["user", "password", "--email", "boss@example.org", "--password-stdin"], b"another one\n");
    password.expect(0);
    let listed = folder.run(&["user", "list", "--json"]).expect(0).json();
    let emails: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|item| item["email"].as_str().unwrap()).collect();
    assert_eq!(emails, ["boss@example.org", "ann@example.org"]);
    assert!(folder.run(&["user", "list"]).expect(0).stdout.contains("ann@example.org  ann  disabled"));
}

#[test]
fn api_keys_are_made_shown_once_listed_and_revoked() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let create = |more: &[&str]| {
        folder.run(&[&["keys", "api", "create", "--account", "A@example.org", "--name", "report"], more].concat())
    };
    let made = create(&["--scope", "tasks:read,tasks:write", "--expires", "90d", "--json"]).expect(0).json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with("ptk_") && key.len() == 76, "{key}");
    assert_eq!(made["scopes"], json!(["tasks:read", "tasks:write"]));
    assert_eq!((&made["account"], &made["last_used_at"]), (&json!("a@example.org"), &Value::Null));
    let shown = create(&["--scope", "tasks:read"]).expect(0).stdout;
    assert!(shown.starts_with("ptk_") && shown.contains("without end"), "{shown}");

    let listed = folder.run(&["keys", "api", "list"]).expect(0).stdout;
    assert!(listed.lines().count() == 2 && listed.contains(id) && !listed.contains("ptk_"), "{listed}");
    let listed = folder.run(&["keys", "api", "list", "--account", "a@example.org", "--json"]).expect(0).json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["id"], items[0].get("key")), (2, &json!(id), None));
    assert_eq!((&items[0]["expires_at"].is_string(), &items[1]["expires_at"]), (&true, &Value::Null));

    for revoked in [true, false] {
        let ran = folder.run(&["keys", "api", "revoke", id, "--json"]).expect(0).json();
        assert_eq!(ran, json!({"id": id, "revoked": revoked}));
    }
    assert!(folder.run(&["keys", "api", "list"]).expect(0).stdout.contains("revoked 2"));
    let unknown = "00000000-0000-4000-8000-000000000001";
    folder.run(&["keys", "api", "revoke", unknown]).refused(&[unknown, "keys api list"]);
    create(&["--scope", "everything"]).refused(&["--scope", "tasks:read, tasks:write"]);
    create(&["--scope", "tasks:read", "--expires", "1y"]).refused(&["--expires", "90d"]);
    create(&[]).refused(&["required"]);
    let nobody = ["keys", "api", "create", "--account", "b@example.org", "--name", "n", "--scope", "tasks:read"];
    folder.run(&nobody).refused(&["b@example.org", "user list"]);
}

#[test]
fn a_rebuild_tells_of_differences() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    folder.create_user("a@example.org");
    let file = folder.write("history.ndjson", history());
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    until("the projector has caught up", || folder.run(&["doctor"]).code.filter(|code| *code == 0));
    let same = folder.run(&["rebuild", "--expect-same", "--json"]).expect(0).json();
    assert_eq!((&same["events"], &same["differences"]), (&json!(14), &json!(0)));
    assert!(same["seconds"].is_number());

    folder.sql("update read_model.task set title = 'tampered' where version = 3");
    let refused = folder.run(&["rebuild", "--expect-same", "--json"]).expect(1);
    assert!(
        refused.json()["differences"].as_i64().unwrap() > 0 && refused.json()["switched"] == json!(false),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("differs: task"), "{refused:?}");
    let switched = folder.run(&["rebuild", "--json"]).expect(0).json();
    assert!(switched["differences"].as_i64().unwrap() > 0 && switched["switched"] == json!(true));
    folder.run(&["doctor"]).expect(0);

    // And back: to the one that was tampered with, and from there to the good one.
    let back = folder.run(&["rebuild", "--back", "--json"]).expect(0).json();
    assert_eq!(back["generation"], same["generation"]);
    assert!(folder.run(&["doctor"]).expect(1).stdout.contains("the read models differ"));
    let again = folder.run(&["rebuild", "--back", "--json"]).expect(0).json();
    assert_eq!(again["generation"], switched["generation"]);
    folder.run(&["doctor"]).expect(0);
    assert_eq!(folder.run(&["rebuild", "--back", "--expect-same"]).code, Some(2));
}

#[test]
fn the_log_is_published_again_from_where_it_is_told() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let file = folder.write("history.ndjson", history());
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let server = Server::start(&folder);
    let first = folder.run(&["republish", "--from", "1", "--json"]).expect(0).json();
    assert_eq!(first, json!({"publication": 2, "shard": 0, "from": 1, "events": 0, "topic": null}));
    folder.run(&["republish", "--from", "2"]).refused(&["--from must be 1 to 1"]);
    folder.run(&["republish", "--from", "1", "--shard", "3"]).refused(&["no shard 3"]);

    // As after a life with Kafka.
    folder.sql("update event_store.relay set topic = 'tasks', partitions = 2");
    folder.sql("update event_store.relay_cursor set position = 14");
    folder.sql("insert into event_store.relay_partition values (0, 0, 13), (0, 1, 14)");
    folder.sql(
        "insert into read_model.kafka_partition (topic, partition, partitions, turn, next_offset)
         values ('tasks', 0, 2, 7, 99), ('others', 0, 2, 7, 99)",
    );
    let again = folder.run(&["republish", "--from", "5", "--json"]).expect(0).json();
    assert_eq!(again, json!({"publication": 3, "shard": 0, "from": 5, "events": 10, "topic": "tasks"}));
    for told in [
        "select position = 4 and base = 4 from event_store.relay_cursor",
        "select count(*) = 0 from event_store.relay_partition",
        "select publication = 3 and may_move and holder is null from event_store.relay",
        "select next_offset is null and turn > 7 from read_model.kafka_partition where topic = 'tasks'",
        "select next_offset = 99 and turn = 7 from read_model.kafka_partition where topic = 'others'",
    ] {
        folder.sql(&format!("do $$ begin assert ({told}); end $$"));
    }
    assert_eq!(server.stop(), Some(0));
}

/// As an update leaves a log that has events: nobody has looked yet where it is written.
#[test]
fn an_import_settles_where_the_log_is_written() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let file = folder.write("history.ndjson", history());
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    folder.sql_alone("a@example.org", "update event_store.log set lineage = null");
    let line = json!({"type": "CreateTask", "task_id": id(77), "title": "more"});
    let more = folder.write("more.ndjson", format!("{line}\n"));
    let imported = import(&folder, more.to_str().unwrap(), "a@example.org", &[]).expect(0).json();
    assert_eq!(imported["events"], 1, "{imported}");
}

#[test]
fn the_doctor_finds_each_kind_of_damage() {
    let folder = Folder::new();
    folder.create_user("a@example.org");
    let file = folder.write("history.ndjson", history());
    import(&folder, file.to_str().unwrap(), "a@example.org", &[]).expect(0);
    let server = Server::start(&folder);
    // A batch under a key leaves a row that is no command's.
    let account = json!({"email": "a@example.org", "password": "long enough"}).to_string();
    let login = post(server.port, "/api/v1/auth/login", "", &account);
    let token = login.split('"').skip_while(|text| *text != "access_token").nth(2).expect("a token");
    let headers = format!("Authorization: Bearer {token}\r\nIdempotency-Key: b\r\n");
    let batch = json!({"commands": [{"type": "StartTask", "task_id": id(99)}]}).to_string();
    let answer = post(server.port, "/api/v1/commands", &headers, &batch);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until("the projector has caught up", || folder.run(&["doctor"]).code.filter(|code| *code == 0));
    let well = folder.run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(well, json!({"ok": true, "findings": []}));

    // Not to the projector, which would stop at a hole in the log.
    assert_eq!(server.stop(), Some(0));
    let damages = [
        ("update event_store.head set position = position + 1", "the head says 15"),
        ("delete from event_store.event where position = 5", "no event at position 5"),
        ("update event_store.event set version = 105 where version = 5", "version 6 where 5 was to come"),
        (
            "update event_store.event last set command_id = first.command_id from event_store.event first
             where last.version = 9 and first.version = 1 and first.task_id = last.task_id",
            "more than one effect",
        ),
        ("update event_store.command set revision = revision + 1 where version = 9", "was answered with revision"),
        ("update event_store.command set version = 77 where version = 9", "version 77 of task"),
        ("update event_store.command set change_id = command_id where version = 9", "was answered with change"),
        ("update read_model.task set title = 'tampered' where version = 3", "the read models differ"),
        ("alter table event_store.event drop constraint event_stream_version", "event_stream_version"),
    ];
    let backup = Folder::new();
    for (damage, finding) in damages {
        let damaged = folder.copy_to(&backup);
        damaged.sql_alone("a@example.org", damage);
        let ran = damaged.run(&["doctor", "--json"]).expect(1);
        let findings = ran.json()["findings"].to_string();
        assert_eq!(ran.json()["ok"], false);
        assert!(findings.contains(finding), "{damage}: {findings}");
    }
}

#[test]
fn settings_are_shown_without_secrets_and_checked() {
    let folder = Folder::new();
    let mut command = folder.command(&["config", "--json"]);
    command.env("PRIMETRADE_DATABASE_URL", "postgres://me:hidden@db:5432/x").env("PRIMETRADE_SECRET", "s".repeat(32));
    let ran = Ran::of(&mut command).expect(0);
    assert_eq!(ran.json()["PRIMETRADE_DATABASE_URL"], "postgres://db:5432/x");
    assert_eq!(ran.json()["PRIMETRADE_READ_DATABASE_URL"], "postgres://db:5432/x");
    assert_eq!(ran.json()["PRIMETRADE_LISTEN"], "127.0.0.1:8080");
    assert!(!ran.stdout.contains("hidden") && !ran.stdout.contains("sss"), "{ran:?}");
    assert!(!folder.data().exists(), "to show the settings nothing is made");
    for (name, value) in [
        ("PRIMETRADE_LISTEN", "here"),
        ("PRIMETRADE_SECRET", "short"),
        ("PRIMETRADE_LOG_FORMAT", "xml"),
        ("PRIMETRADE_LISTN", "127.0.0.1:1"),
        ("PRIMETRADE_TRUSTED_PROXIES", "nginx"),
        ("PRIMETRADE_CORS_ORIGINS", "https://app.example/"),
        ("PRIMETRADE_JWKS_URL", "nonsense"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
        ("PRIMETRADE_KAFKA_BROKERS", "nonsense"),
        ("PRIMETRADE_SECRET_FILE", "/nonexistent"),
        ("PRIMETRADE_DATABASE_URL", "postgres://u:p@x/nonsense@host/db"),
        ("PRIMETRADE_DATABASE_PASSWORD", "nonsense"),
        ("PRIMETRADE_DATABASE_PORT", "nonsense"),
    ] {
        let ran = Ran::of(folder.command(&["serve"]).env(name, value));
        assert!(!ran.stderr.contains("nonsense"), "{ran:?}");
        ran.refused(&[name.trim_end_matches("_FILE")]);
    }
    // what Kubernetes sets for services called primetrade and primetrade-database is nobody's mistake
    let mut command = folder.command(&["config", "--json"]);
    for (name, value) in [
        ("PRIMETRADE_SERVICE_HOST", "10.96.0.7"),
        ("PRIMETRADE_PORT", "tcp://10.96.0.7:8080"),
        ("PRIMETRADE_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("PRIMETRADE_DATABASE_PORT", "tcp://10.96.0.8:5432"),
        ("PRIMETRADE_DATABASE_HOST", "db"),
        ("PRIMETRADE_DATABASE_USER", "me"),
        ("PRIMETRADE_DATABASE_PASSWORD", "hidden/+=@"),
        ("PRIMETRADE_DATABASE_NAME", "x"),
    ] {
        command.env(name, value);
    }
    let ran = Ran::of(&mut command).expect(0);
    assert_eq!(ran.json()["PRIMETRADE_DATABASE_URL"], "postgres://db/x");
    assert_eq!(ran.json()["PRIMETRADE_READ_DATABASE_URL"], "postgres://db/x");
    assert_eq!(ran.json()["PRIMETRADE_DATABASE_PASSWORD"], "(set)");
    assert!(!ran.stdout.contains("hidden"), "{ran:?}");
    // a file is over variables and under flags, and each says where it comes from
    let file = folder.data().with_file_name("settings");
    std::fs::write(
        &file,
        "# mine\nPRIMETRADE_LISTEN=127.0.0.1:2\nPRIMETRADE_SECRET='ffffffffffffffffffffffffffffffff'\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    Ran::of(&mut folder.command(&["config", "--config", file])).refused(&["PRIMETRADE_SECRET", "0644", "chmod"]);
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command =
        folder.command(&["config", "--json", "--config", file, "--database-url", "postgres://me:hidden@db/x"]);
    let ran = Ran::of(command.env("PRIMETRADE_LISTEN", "127.0.0.1:1").env("PRIMETRADE_LOG", "warn")).expect(0);
    let origin = |name: &str| ran.json()["origins"][name].as_str().unwrap().to_owned();
    assert_eq!(
        (&*origin("PRIMETRADE_LISTEN"), &ran.json()["PRIMETRADE_LISTEN"]),
        ("file", &serde_json::json!("127.0.0.1:2"))
    );
    assert_eq!(origin("PRIMETRADE_DATABASE_URL"), "flag");
    assert_eq!(origin("PRIMETRADE_LOG"), "variable");
    assert_eq!(origin("PRIMETRADE_RATE_LIMITS"), "default");
    assert!(!ran.stdout.contains("hidden") && !ran.stdout.contains("fff"), "{ran:?}");
    std::fs::write(file, "PRIMETRADE_LISTN=127.0.0.1:2\n").unwrap();
    Ran::of(folder.command(&["serve"]).env("PRIMETRADE_CONFIG_FILE", file)).refused(&["PRIMETRADE_LISTN"]);
    std::fs::write(file, "PRIMETRADE_LISTEN\n").unwrap();
    Ran::of(&mut folder.command(&["serve", "--config", file])).refused(&["PRIMETRADE_CONFIG_FILE", "line 1"]);
    Ran::of(&mut folder.command(&["serve", "--config", "/nonexistent"])).refused(&["/nonexistent"]);
    // what others would reach has to be fit for it
    for (name, value, allowed) in [
        ("PRIMETRADE_LISTEN", "0.0.0.0:0", "plain-http"),
        ("PRIMETRADE_RATE_LIMITS", "off", "no-rate-limits"),
        ("PRIMETRADE_CORS_ORIGINS", "*", "any-origin"),
        ("PRIMETRADE_SECRET", "ssssssssssssssssssssssssssssssssssss", "weak-secret"),
        ("PRIMETRADE_TRUSTED_PROXIES", "0.0.0.0/0", "any-proxy"),
    ] {
        let mut command = folder.command(&["serve"]);
        command.env("PRIMETRADE_LISTEN", "0.0.0.0:0");
        if allowed != "plain-http" {
            command.env("PRIMETRADE_TRUSTED_PROXIES", "10.0.0.1");
        }
        Ran::of(command.env(name, value)).refused(&[name, allowed]);
    }
    assert!(!folder.data().exists(), "refused before anything is made");
    let ran = Ran::of(folder.command(&["config", "--json"]).env("PRIMETRADE_LISTEN", "here"));
    ran.refused(&["PRIMETRADE_LISTEN"]);
    assert!(ran.json()["error"].as_str().unwrap().contains("PRIMETRADE_LISTEN"));
    assert_eq!(folder.run(&["fly"]).code, Some(2));
    assert_eq!(folder.run(&["import"]).code, Some(2));
}
