//! A real Redis of the test's own, started as `bin/stack` and `bin/test` start theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{free_port, temp_dir};
use crate::kafka::machine;
use crate::reaper;
use crate::wait::until_blocking;

const START_MS_MAX: u64 = 60_000;

/// A running Redis; killed with the test process.
pub struct Redis {
    dir: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl Redis {
    /// The one that all tests of a binary share.
    pub fn shared() -> Arc<Redis> {
        static SHARED: OnceLock<Arc<Redis>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Redis::start())))
    }

    /// One of its own, empty, for tests that break it.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// One with more options.
    pub fn start_with(options: &[&str]) -> Redis {
        Redis::start_at(free_port(), options)
    }

    /// One at this port of 127.0.0.1, which has to be free.
    pub fn start_at(port: u16, options: &[&str]) -> Redis {
        let redis = Redis { dir: temp_dir("redis"), port, child: Mutex::new(None) };
        redis.restart_with(options);
        redis.answers();
        redis
    }

    /// For `PRIMETRADE_REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`; what was not written to disk by `SAVE` is lost.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("redis").take() {
            let _ = child.kill();
            let _ = child.wait();
            reaper::gone(child.id());
        }
    }

    /// Starts it again on the same port, with what the last `SAVE` wrote; waits until it answers.
    pub fn restart(&self) {
        self.restart_with(&[]);
        self.answers();
    }

    /// The same with more options; does not wait.
    pub fn restart_with(&self, options: &[&str]) {
        self.kill();
        let mut command = machine("need_redis && run_redis \"$@\"");
        command.arg(&self.dir).arg(self.port.to_string()).args(options);
        *self.child.lock().expect("redis") = Some(spawned(command, &self.dir));
    }

    fn answers(&self) {
        until_blocking("Redis answers", Duration::from_millis(START_MS_MAX), || {
            (self.ask(&["PING"]).trim() == "PONG").then_some(())
        });
    }

    /// Starts it again with nothing in it.
    pub fn restart_empty(&self) {
        self.kill();
        let _ = fs::remove_file(self.dir.join("dump.rdb"));
        self.restart();
    }

    /// Sends a signal: STOP, CONT, TERM …
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("redis");
        let pid = i32::try_from(child.as_ref().expect("running").id()).expect("pid");
        kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("signal");
    }

    /// Runs a command (`FLUSHALL`, `SAVE`, `GET key` …) and gives what `redis-cli` prints.
    pub fn ask(&self, command: &[&str]) -> String {
        redis_cli(self.port, command)
    }

    /// The same by who has this password.
    pub fn ask_by(&self, password: &str, command: &[&str]) -> String {
        redis_cli(self.port, &[&["--no-auth-warning", "-a", password], command].concat())
    }
}

fn redis_cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output();
    String::from_utf8_lossy(&output.expect("redis-cli").stdout).into_owned()
}

/// A process that writes into the folder's log.
fn spawned(mut command: Command, dir: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("log file");
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log).spawn();
    let child = child.expect("bash");
    reaper::kill_at_end(child.id());
    child
}

/// A real Sentinel that watches over a Redis, which it takes for dead after half a second; killed with the test process.
pub struct Sentinel {
    name: String,
    port: u16,
    child: Child,
}

impl Sentinel {
    /// Watches over this primary, by this name; waits until it answers.
    pub fn start(name: &str, primary: &Redis) -> Sentinel {
        let (dir, port) = (temp_dir("sentinel"), free_port());
        let file = dir.join("sentinel.conf");
        let settings = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.display()),
            format!("sentinel monitor {name} 127.0.0.1 {} 1", primary.port),
            format!("sentinel down-after-milliseconds {name} 500"),
            format!("sentinel failover-timeout {name} 3000"),
        ];
        fs::write(&file, settings.join("\n") + "\n").expect("the settings of a sentinel");
        let mut command = machine("need_redis && exec redis-server \"$1\" --sentinel");
        command.arg(&file);
        let sentinel = Sentinel { name: name.to_owned(), port, child: spawned(command, &dir) };
        until_blocking("a sentinel answers", Duration::from_millis(START_MS_MAX), || {
            (sentinel.ask(&["PING"]).trim() == "PONG").then_some(())
        });
        sentinel
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs a command and gives what `redis-cli` prints.
    pub fn ask(&self, command: &[&str]) -> String {
        redis_cli(self.port, command)
    }

    /// Whether it knows somebody whom it could promote.
    pub fn knows_a_replica(&self) -> bool {
        let replicas = self.ask(&["SENTINEL", "REPLICAS", &self.name]);
        let lines: Vec<&str> = replicas.lines().collect();
        let says = |name: &str, value: &str| lines.windows(2).any(|two| two[0] == name && two[1] == value);
        says("flags", "slave") && says("master-link-status", "ok")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::gone(self.child.id());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All keys like this `pattern`, with their values: what is there now, as bytes.
pub fn keys_and_values(url: &str, pattern: &str) -> Vec<(String, Vec<u8>)> {
    let ask = |command: &[&str]| {
        let mut output = Command::new("redis-cli").args(["-u", url]).args(command).output().expect("redis-cli").stdout;
        // what redis-cli adds
        output.pop();
        output
    };
    let keys = String::from_utf8(ask(&["KEYS", pattern])).expect("keys are text");
    let with_value = |key: &str| (key.to_owned(), ask(&["GET", key]));
    // a key whose time is over by now has no value any more
    keys.lines().filter(|key| !key.is_empty()).map(with_value).filter(|(_, value)| !value.is_empty()).collect()
}
