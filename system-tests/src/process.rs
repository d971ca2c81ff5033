//! A program of ours as a process: started on a port of its own, watched by `/readyz`, killed, paused, ended in order.

use std::fs;
use std::io::{PipeReader, PipeWriter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Api;
use crate::cluster::{free_port, temp_dir};
use crate::reaper;
use crate::wait::until;

const READY_MS_MAX: u64 = 60_000;
/// What it may take on the slowest machine: `a_service_ends_within_10_s_of_sigterm` is what looks at the time.
const STOP_MS_MAX: u64 = 60_000;

/// Shared by all copies on one database: tokens and cursors of one are good at the other.
pub const SECRET: &str = "5f2c8a17d3b94e60a1c7f8e2d4b6093c5f2c8a17d3b94e60a1c7f8e2d4b6093c";

/// A running program; killed when dropped. Its log is printed when the test fails.
pub struct Process {
    program: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    dir: PathBuf,
    port: u16,
    /// Standard error, where nobody reads it.
    unread: Option<(PipeReader, PipeWriter)>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Starts one, without waiting until it is ready. `--listen` and a port of its own come after the arguments.
    pub fn start(program: &'static str, arguments: Vec<String>, variables: Vec<(String, String)>) -> Process {
        let (dir, port) = (temp_dir(program), free_port());
        let process = Process { program, arguments, variables, dir, port, unread: None, child: Mutex::new(None) };
        process.spawn();
        process
    }

    /// The same, but its log goes into a pipe that nobody reads.
    pub fn start_unread(program: &'static str, arguments: Vec<String>, variables: Vec<(String, String)>) -> Process {
        let (dir, port) = (temp_dir(program), free_port());
        let unread = Some(std::io::pipe().expect("a pipe"));
        let process = Process { program, arguments, variables, dir, port, unread, child: Mutex::new(None) };
        process.spawn();
        process
    }

    /// One that somebody has started already, to listen on this port and log into the folder's `log`.
    pub fn adopt(program: &'static str, child: Child, dir: PathBuf, port: u16) -> Process {
        reaper::kill_at_end(child.id());
        let (arguments, variables) = Default::default();
        Process { program, arguments, variables, dir, port, unread: None, child: Mutex::new(Some(child)) }
    }

    /// Its client, without an account.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its name.
    pub fn program(&self) -> &'static str {
        self.program
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

    /// The same without waiting.
    pub fn restart_unready(&self) {
        self.kill();
        self.spawn();
    }

    /// Asks it to stop (SIGTERM) and gives the exit status.
    pub async fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended, by itself or because it was asked to, and gives the exit status.
    pub async fn ended(&self) -> ExitStatus {
        let status = until("the server ends", Duration::from_millis(STOP_MS_MAX), || async { self.try_wait() }).await;
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
        until("ready", Duration::from_millis(READY_MS_MAX), || async {
            if let Some(status) = self.try_wait() {
                panic!("{} ended: {status}\n{}", self.program, self.log_tail());
            }
            let answer = api.get("/readyz").try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Events not yet applied, as `/readyz` says; `None` where it does not answer.
    pub async fn lag_events(&self) -> Option<u64> {
        let answer = self.api().get("/readyz").try_send().await.ok()?;
        answer.json().pointer("/lag/events")?.as_u64()
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

    /// A folder of its own; files for the command line can stand there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn try_wait(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().expect("child");
        child.as_mut()?.try_wait().expect("wait")
    }

    fn spawn(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("log file");
        let mut command = Command::new(binary(self.program));
        command
            .args(&self.arguments)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        if let Some((_, unread)) = &self.unread {
            command.stdout(unread.try_clone().expect("pipe")).stderr(unread.try_clone().expect("pipe"));
        }
        clean_environment(&mut command);
        command.envs(self.variables.iter().map(|(k, v)| (k, v)));
        let child = command.spawn().expect(self.program);
        reaper::kill_at_end(child.id());
        *self.child.lock().expect("child") = Some(child);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} on port {}:\n{}", self.program, self.port, self.log_tail());
        }
        self.kill();
    }
}

/// This signal; or SIGTERM, where it is ignored here (`nohup`, a script's background) and so in what is started here.
pub fn heard(signal: Signal) -> Signal {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.unwrap_or_default() >> (signal.as_raw() - 1) & 1 == 1 { Signal::TERM } else { signal }
}

/// A program with the test's own variables only: nobody's shell decides how a test ends.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars() {
        if name.starts_with("PRIMETRADE_") {
            command.env_remove(name);
        }
    }
    command.env("PRIMETRADE_SECRET", SECRET).env("PRIMETRADE_RATE_LIMITS", "off").env("PRIMETRADE_LOG", "info");
}

/// A program under test: of `PRIMETRADE_BIN`'s folder, else what stands beside this test's own build.
pub fn binary(program: &str) -> PathBuf {
    let beside = std::env::var_os("PRIMETRADE_BIN").map(PathBuf::from);
    let this = std::env::current_exe().expect("path of this program");
    let places = beside.iter().chain(std::iter::once(&this)).flat_map(|path| path.ancestors().skip(1).take(2));
    let found = places.map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no {program} near {}: `cargo build --bins` first, or set PRIMETRADE_BIN", this.display())
    })
}
