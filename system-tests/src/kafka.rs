//! A real Kafka broker of the test's own: one node, started as `bin/stack` and `bin/test` start theirs.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{free_port, temp_dir};
use crate::reaper;
use crate::wait::{until, until_blocking};

const START_MS_MAX: u64 = 120_000;
const STOP_MS_MAX: u64 = 30_000;
const STARTED: &str = "Kafka Server started";

/// A running broker; killed with the test process. Topics live as long as it, so each test makes its own names.
pub struct Kafka {
    dir: PathBuf,
    port: u16,
    controller_port: u16,
    child: Mutex<Option<Child>>,
}

impl Kafka {
    /// The one that all tests of a binary share.
    pub fn shared() -> Arc<Kafka> {
        static SHARED: OnceLock<Arc<Kafka>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Kafka::start())))
    }

    /// One of its own, for tests that kill it.
    pub fn start() -> Kafka {
        let kafka =
            Kafka { dir: temp_dir("kafka"), port: free_port(), controller_port: free_port(), child: Mutex::new(None) };
        let logged = kafka.spawn();
        until_blocking("Kafka answers", Duration::from_millis(START_MS_MAX), || kafka.started_after(logged));
        kafka
    }

    /// For `PRIMETRADE_KAFKA_BROKERS`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`. What was acknowledged is in the files and is there again after [`Kafka::restart`].
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("kafka").take() {
            let _ = child.kill();
            let _ = child.wait();
            reaper::gone(child.id());
        }
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub async fn stop(&self) {
        self.signal(Signal::TERM);
        until("Kafka stops", Duration::from_millis(STOP_MS_MAX), || async { self.exited().then_some(()) }).await;
        self.kill();
    }

    /// Starts it again on the same port and waits until it is ready.
    pub async fn restart(&self) {
        self.kill();
        let logged = self.spawn();
        until("Kafka answers", Duration::from_millis(START_MS_MAX), || async { self.started_after(logged) }).await;
    }

    /// Sends a signal: STOP, CONT, TERM …
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("kafka");
        let pid = i32::try_from(child.as_ref().expect("running").id()).expect("pid");
        kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("signal");
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How many bytes were logged before.
    fn spawn(&self) -> usize {
        let logged = self.log().len();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("log file");
        let mut command = machine("need_kafka && run_kafka \"$@\"");
        command.arg(&self.dir).args([self.port.to_string(), self.controller_port.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
        let child = command.spawn().expect("bash");
        reaper::kill_at_end(child.id());
        *self.child.lock().expect("kafka") = Some(child);
        logged
    }

    fn started_after(&self, logged: usize) -> Option<()> {
        assert!(!self.exited(), "Kafka ended: {}", self.log());
        self.log().get(logged..).is_some_and(|log| log.contains(STARTED)).then_some(())
    }

    fn exited(&self) -> bool {
        let mut child = self.child.lock().expect("kafka");
        child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command of `bin/lib/machine.sh`; its arguments are to be added. The shell gives way to the program that it runs.
pub fn machine(script: &str) -> Command {
    let lib = concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/lib/machine.sh");
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -e; . '{lib}'; {script}"), "bash"]);
    command
}
