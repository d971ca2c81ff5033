//! A real `primetrade serve` process, and runs of its command line.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::client::Api;
use crate::cluster::{free_port, temp_dir};
use crate::reaper;
use crate::wait::until;

const READY_MS_MAX: u64 = 60_000;
const STOP_MS_MAX: u64 = 20_000;
const CLI_MS_MAX: u64 = 180_000;

/// Shared by all copies on one database: tokens and cursors of one are good at the other.
pub const SECRET: &str = "5f2c8a17d3b94e60a1c7f8e2d4b6093c5f2c8a17d3b94e60a1c7f8e2d4b6093c";

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--database-url`
    pub database_url: String,
    /// More flags of `serve`.
    pub flags: Vec<String>,
    /// More variables.
    pub variables: Vec<(String, String)>,
}

impl Config {
    /// A server on this database, rate limits off.
    pub fn new(database_url: impl Into<String>) -> Config {
        Config { database_url: database_url.into(), flags: Vec::new(), variables: Vec::new() }
    }

    /// With one more flag.
    pub fn flag(mut self, flag: &str) -> Config {
        self.flags.push(flag.to_owned());
        self
    }

    /// With one more variable.
    pub fn variable(mut self, name: &str, value: &str) -> Config {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A server; killed when dropped. Its log is printed when the test fails.
pub struct Server {
    config: Config,
    dir: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub async fn start(config: Config) -> Server {
        let server = Server { config, dir: temp_dir("server"), port: free_port(), child: Mutex::new(None) };
        server.spawn();
        server.ready().await;
        server
    }

    /// Its client, without an account.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The database that it was started on.
    pub fn database_url(&self) -> &str {
        &self.config.database_url
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        let child = self.child.lock().expect("child");
        child.as_ref().expect("running").id()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("child").take() {
            let _ = child.kill();
            let _ = child.wait();
            reaper::gone(child.id());
        }
    }

    /// Starts it again on the same port after it ended, and waits until it is ready.
    pub async fn restart(&self) {
        self.kill();
        self.spawn();
        self.ready().await;
    }

    /// Asks it to stop (SIGTERM) and gives the exit status.
    pub async fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        let status =
            until("the server stops after SIGTERM", Duration::from_millis(STOP_MS_MAX), || async { self.try_wait() })
                .await;
        if let Some(child) = self.child.lock().expect("child").take() {
            reaper::gone(child.id());
        }
        status
    }

    /// Sends a signal: STOP, CONT, TERM …
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("pid");
        kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("signal");
    }

    /// Waits until `/readyz` says 200.
    pub async fn ready(&self) {
        let api = self.api();
        let started = Instant::now();
        let ready = async {
            until("ready", Duration::from_millis(READY_MS_MAX), || async {
                if let Some(status) = self.try_wait() {
                    panic!("the server ended: {status}\n{}", self.log_tail());
                }
                let answer = api.get("/readyz").try_send().await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        };
        ready.await;
        assert!(started.elapsed() < Duration::from_millis(READY_MS_MAX));
    }

    /// Events not yet applied, as `/readyz` says; `None` where it does not answer.
    pub async fn lag_events(&self) -> Option<u64> {
        let answer = self.api().get("/readyz").try_send().await.ok()?;
        answer.json().pointer("/lag/events")?.as_u64()
    }

    /// Waits until everything appended is in the read model, by the tables and by `/readyz`.
    pub async fn caught_up(&self) {
        let pool = crate::cluster::pool(&self.config.database_url).await;
        crate::check::checkpoints_at_heads(&pool).await;
        pool.close().await;
        until("lag 0", Duration::from_secs(60), || async { (self.lag_events().await? == 0).then_some(()) }).await;
    }

    /// Resident memory of the process.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A run of the command line against this server's database.
    pub async fn cli(&self, arguments: &[&str]) -> CliRun {
        cli(&self.dir, Some(&self.config.database_url), arguments, "").await
    }

    /// The same with something on its standard input.
    pub async fn cli_with_input(&self, arguments: &[&str], input: &str) -> CliRun {
        cli(&self.dir, Some(&self.config.database_url), arguments, input).await
    }

    /// A folder of the server's own; files for the command line can stand there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn try_wait(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().expect("child");
        child.as_mut()?.try_wait().expect("wait")
    }

    fn spawn(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("log file");
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--database-url", &self.config.database_url])
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(&self.config.flags)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        clean_environment(&mut command);
        command.envs(self.config.variables.iter().map(|(k, v)| (k, v)));
        let child = command.spawn().expect("primetrade");
        reaper::kill_at_end(child.id());
        *self.child.lock().expect("child") = Some(child);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the server on port {}:\n{}", self.port, self.log_tail());
        }
        self.kill();
    }
}

/// What a run of the command line came to.
#[derive(Debug)]
pub struct CliRun {
    /// Exit status; −1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl CliRun {
    /// The JSON object on standard output, where `--json` was given.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.out.trim())
            .unwrap_or_else(|e| panic!("not one JSON object on standard output: {e}: {self:?}"))
    }

    /// The run, once its exit status is known to be this.
    #[track_caller]
    pub fn expect(self, code: i32) -> CliRun {
        assert_eq!(self.code, code, "exit status of {self:?}");
        self
    }
}

/// Runs `primetrade` in `dir`; without a database URL where none is given.
pub async fn cli(dir: &Path, database_url: Option<&str>, arguments: &[&str], input: &str) -> CliRun {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    clean_environment(&mut command);
    if let Some(url) = database_url {
        command.env("PRIMETRADE_DATABASE_URL", url);
    }
    run(command, input).await
}

/// Runs a prepared command to its end, within a deadline.
pub async fn run(command: Command, input: &str) -> CliRun {
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("primetrade");
    let mut pipe = child.stdin.take().expect("piped");
    let finished = async {
        // a program that refuses its arguments never reads what it is given
        let _ = pipe.write_all(input.as_bytes()).await;
        drop(pipe);
        child.wait_with_output().await.expect("output")
    };
    let output = tokio::time::timeout(Duration::from_millis(CLI_MS_MAX), finished)
        .await
        .unwrap_or_else(|_| panic!("not within {CLI_MS_MAX} ms: {command:?}"));
    CliRun {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `primetrade` with the test's own variables only: nobody's shell decides how a test ends.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars() {
        if name.starts_with("PRIMETRADE_") {
            command.env_remove(name);
        }
    }
    command.env("PRIMETRADE_SECRET", SECRET).env("PRIMETRADE_RATE_LIMITS", "off").env("PRIMETRADE_LOG", "info");
}

/// The program under test: `PRIMETRADE_BIN`, else what stands beside this test's own build.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PRIMETRADE_BIN") {
        return PathBuf::from(path);
    }
    let this = std::env::current_exe().expect("path of this program");
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join("primetrade")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no primetrade near {}: `cargo build -p primetrade` first, or set PRIMETRADE_BIN", this.display())
    })
}
