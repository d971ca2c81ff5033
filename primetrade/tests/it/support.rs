//! A data folder of a test's own, and the real program run on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

const POLL: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Waits for a condition.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < WAIT_MAX, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Ctrl-C; or SIGTERM, where Ctrl-C is ignored here (a script's background) and so in what is started here.
pub fn ctrl_c() -> Signal {
    if process::interrupt::is_ignored(Signal::INT.as_raw()) { Signal::TERM } else { Signal::INT }
}

/// A folder that goes away with the test, together with whatever still runs in it.
pub struct Folder {
    path: PathBuf,
    data: PathBuf,
    /// A file system of its own.
    disk: Option<PathBuf>,
}

impl Folder {
    pub fn new() -> Self {
        let name = format!("primetrade-cli-{}", uuid::Uuid::new_v4().simple());
        Self::at(std::env::temp_dir().join(name), "data")
    }

    /// With a data folder whose path has so many bytes.
    pub fn with_long_path(bytes: usize) -> Self {
        let folder = Self::new();
        let missing = bytes - folder.data.as_os_str().len();
        Self { data: folder.path.join(format!("data{}", "x".repeat(missing))), path: folder.leak(), disk: None }
    }

    /// On a small disk. None: only root may mount one, and not in every container.
    pub fn on_a_disk_of_mb(mb: u32) -> Option<Self> {
        let mut folder = Self::new();
        let disk = folder.path.join("disk");
        fs::create_dir(&disk).expect("a folder for the disk");
        let size = format!("size={mb}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        folder.data = disk.join("data");
        folder.disk = Some(disk);
        Some(folder)
    }

    fn disk(&self) -> &Path {
        self.disk.as_deref().expect("a disk of its own")
    }

    pub fn free_mb(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.disk()).expect("its state");
        (disk.f_bavail * disk.f_frsize) >> 20
    }

    pub fn take_all_but_mb(&self, mb: u64) {
        let ballast = fs::File::create(self.disk().join("ballast")).expect("a file");
        let bytes = (self.free_mb() - mb) << 20;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("room for it");
    }

    pub fn make_room(&self) {
        fs::remove_file(self.disk().join("ballast")).expect("what took it");
    }

    fn at(path: PathBuf, data: &str) -> Self {
        fs::create_dir(&path).expect("a folder for the test");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        Self { data: path.join(data), path, disk: None }
    }

    fn leak(self) -> PathBuf {
        let path = self.path.clone();
        std::mem::forget(self);
        path
    }

    pub fn put_data_at(&mut self, path: &str) {
        self.data = path.into();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).expect("a file of the test");
        path
    }

    /// The program, without what the caller's environment says.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_primetrade"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PRIMETRADE_") {
                command.env_remove(name);
            }
        }
        command.args(args).arg("--data-dir").arg(&self.data).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        // Who does not read to the end closes the pipe.
        let _ = child.stdin.take().expect("piped").write_all(input);
        Ran::from(child.wait_with_output().expect("its end"))
    }

    /// Only a server begins anew.
    pub fn make(&self) {
        assert_eq!(Server::start(self).stop(), Some(0));
    }

    /// Makes the data too, where there is none.
    pub fn create_user(&self, email: &str) {
        if !self.data.join("postgres").exists() {
            self.make();
        }
        let ran = self.run_with_input(&["user", "create", "--email", email, "--password-stdin"], b"long enough\n");
        ran.expect(0);
    }

    /// The postmaster that the cluster's pid file names, if it lives.
    pub fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        (test_kill_process(pid).is_ok() && !is_zombie(pid)).then_some(pid)
    }

    pub fn options(&self) -> PgConnectOptions {
        let pid_file = fs::read_to_string(self.data.join("postgres/postmaster.pid")).expect("a running Postgres");
        let socket_dir = pid_file.lines().nth(4).expect("the socket's folder").to_owned();
        PgConnectOptions::new_without_pgpass().socket(socket_dir).username("primetrade").database("primetrade")
    }

    /// A copy of the data, to be damaged; Postgres must not run. Takes the place of an earlier one.
    pub fn copy_to(&self, other: &Folder) -> Folder {
        assert!(self.postmaster().is_none(), "Postgres runs");
        let copy = Self::at(other.path.join(uuid::Uuid::new_v4().simple().to_string()), "data");
        let copied = Command::new("cp").arg("-a").arg(&self.data).arg(&copy.data).status().expect("cp");
        assert!(copied.success());
        copy
    }

    /// Runs SQL where no server runs: an import that waits for its input keeps Postgres up meanwhile.
    pub fn sql_alone(&self, owner: &str, sql: &str) {
        let mut command = self.command(&["import", "-", "--owner", owner]);
        let mut import = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program");
        until("Postgres is up", || {
            let pid_file = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
            pid_file.lines().nth(7).filter(|state| state.trim() == "ready").map(drop)
        });
        self.sql(sql);
        drop(import.stdin.take());
        assert!(import.wait().expect("its end").success());
    }

    /// The running cluster, for a program that does not start it.
    pub fn url(&self) -> String {
        format!("postgres:///primetrade?user=primetrade&host={}", self.data.join("run").display())
    }

    /// Works while the log cannot be read.
    pub fn while_the_log_is_locked(&self, work: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut connection: PgConnection = runtime.block_on(self.options().connect()).expect("the managed PostgreSQL");
        let locked = connection.execute("begin; lock table event_store.event in access exclusive mode");
        runtime.block_on(locked).expect("the lock");
        work();
        runtime.block_on(connection.execute("rollback")).expect("unlocked");
    }

    /// Whether a statement with these words waits for a lock.
    pub fn waits(&self, words: &str) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection: PgConnection = self.options().connect().await.expect("the managed PostgreSQL");
            let waits = sqlx::query_scalar(
                "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and strpos(query, $1) > 0)",
            )
            .bind(words);
            waits.fetch_one(&mut connection).await.expect("an answer")
        })
    }

    /// Runs SQL on the running cluster, behind the program's back.
    pub fn sql(&self, sql: &str) {
        let options = self.options();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection: PgConnection = options.connect().await.expect("the managed PostgreSQL");
            connection.execute(AssertSqlSafe(sql.to_owned())).await.expect("the SQL of the test");
        });
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _ = kill_process(pid, Signal::QUIT);
            let began = Instant::now();
            while self.postmaster().is_some() && began.elapsed() < WAIT_MAX {
                std::thread::sleep(POLL);
            }
        }
        if let Some(disk) = &self.disk {
            let _ = Command::new("umount").arg(disk).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// It could not run, and says so in these words.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one plain error: {self:?}");
        for word in words {
            assert!(errors[0].contains(word), "{word:?} is not in {self:?}");
        }
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running `primetrade serve`.
pub struct Server {
    child: Child,
    pub port: u16,
    log: PathBuf,
}

impl Server {
    pub fn start(folder: &Folder) -> Self {
        let mut server = Self::begin(folder, free_port(), &[]);
        server.wait_until_ready();
        server
    }

    pub fn begin(folder: &Folder, port: u16, variables: &[(&str, &str)]) -> Self {
        let log = folder.path().join(format!("serve-{}.log", uuid::Uuid::new_v4().simple()));
        let file = fs::File::create(&log).expect("a log");
        let listen = format!("127.0.0.1:{port}");
        let mut command = folder.command(&["serve", "--listen", &listen]);
        let child = command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(file).spawn();
        Self { child: child.expect("the program"), port, log }
    }

    pub fn wait_until_ready(&mut self) {
        until("the server is ready", || {
            if let Some(status) = self.child.try_wait().expect("its state") {
                panic!("the server ended: {status}\n{}", self.log());
            }
            self.is_ready().then_some(())
        });
    }

    pub fn is_ready(&self) -> bool {
        get(self.port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        until("the server ends", || self.child.try_wait().expect("its state")).code()
    }

    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bare GET; the whole answer.
pub fn get(port: u16, path: &str) -> Option<String> {
    get_with(port, path, "")
}

/// The same with headers, each with its end of line.
pub fn get_with(port: u16, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A bare POST of JSON; the whole answer.
pub fn post(port: u16, path: &str, headers: &str, body: &str) -> String {
    post_as("application/json", port, path, headers, body)
}

/// The same with another media type.
pub fn post_as(media_type: &str, port: u16, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The JSON object that an answer has.
pub fn object(answer: &str) -> serde_json::Value {
    let body = answer.split_once("\r\n\r\n").and_then(|(_, body)| body.get(body.find('{')?..=body.rfind('}')?));
    let object = body.and_then(|body| serde_json::from_str(body).ok());
    object.unwrap_or_else(|| panic!("no object in {answer}"))
}

/// An access token.
pub fn log_in(port: u16, email: &str, password: &str) -> String {
    let account = format!(r#"{{"email":"{email}","password":"{password}"}}"#);
    let login = post(port, "/api/v1/auth/login", "", &account);
    login.split('"').skip_while(|text| *text != "access_token").nth(2).expect("a token").to_owned()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}
