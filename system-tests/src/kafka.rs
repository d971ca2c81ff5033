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
    /// Arguments of `run_kafka` after the ports.
    more: Vec<String>,
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
        Kafka::stopped().started()
    }

    /// One with another listener of this name (in capitals), beside that of [`Kafka::brokers`]: its port, its security protocol,
    /// its settings without `listener.name.…` before them, and a user, as `SCRAM-SHA-512=[name=…,password=…]`.
    pub fn start_with_listener(name: &str, port: u16, protocol: &str, settings: &[String], user: &str) -> Kafka {
        let mut kafka = Kafka::stopped();
        let (open, controller) = (kafka.port, kafka.controller_port);
        // by its name: not every version of the client's library looks for an address in a certificate
        let mut lines = vec![
            format!(
                "listeners=PLAINTEXT://127.0.0.1:{open},CONTROLLER://127.0.0.1:{controller},{name}://127.0.0.1:{port}"
            ),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{open},{name}://localhost:{port}"),
            format!("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{name}:{protocol}"),
        ];
        let of = name.to_lowercase();
        lines.extend(settings.iter().map(|setting| format!("listener.name.{of}.{setting}")));
        let file = kafka.dir.join("more.properties");
        fs::write(&file, lines.join("\n") + "\n").expect("settings of a broker");
        // nothing for the JVM
        kafka.more = vec![String::new(), file.to_str().expect("UTF-8").to_owned(), user.to_owned()];
        kafka.started()
    }

    fn stopped() -> Kafka {
        let (dir, port, controller_port) = (temp_dir("kafka"), free_port(), free_port());
        Kafka { dir, port, controller_port, more: Vec::new(), child: Mutex::new(None) }
    }

    fn started(self) -> Kafka {
        let logged = self.spawn();
        until_blocking("Kafka answers", Duration::from_millis(START_MS_MAX), || self.started_after(logged));
        self
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
        command.arg(&self.dir).args([self.port.to_string(), self.controller_port.to_string()]).args(&self.more);
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
