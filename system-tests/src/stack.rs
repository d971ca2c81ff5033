//! The services as `bin/stack` runs them: a stack of the test's own, with a folder and ports of its own. What a person
//! would type is what the tests run.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Mutex, MutexGuard};

use crate::client::Api;
use crate::cluster::{free_port, temp_dir};
use crate::process::{binary, clean_environment};
use crate::reaper;
use crate::server::{CliRun, run};
use crate::wait::until;

/// The copies of all services.
pub const COPIES: [&str; 6] =
    ["command-api-1", "command-api-2", "query-api-1", "query-api-2", "projector-1", "projector-2"];

/// Ports that a stack takes, counted from that of its gateway.
const PORTS: [u16; 17] = [0, 1, 2, 3, 11, 12, 13, 101, 102, 103, 111, 112, 113, 1000, 1001, 1002, 1003];
const LOG_LINES: usize = 15;
/// Every stack of a test is in such a folder, and started from such a one: a shell, nginx, Kafka and Redis each have a
/// meaning for some of this.
const ODD: &str = r#"it's, a "$odd" [\*;#%&] one"#;

/// Held by each stack: two are more than a small machine runs in the times that their tests allow.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A running stack; ended with the test process.
pub struct Stack {
    /// With all of the test's own.
    home: PathBuf,
    dir: PathBuf,
    port: u16,
    variables: Vec<(String, String)>,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Stack {
    /// Starts one and waits until all of it is ready.
    pub async fn start() -> Stack {
        Stack::start_with(&[]).await
    }

    /// With more variables.
    pub async fn start_with(variables: &[(&str, &str)]) -> Stack {
        let stack = Stack::prepare(variables).await;
        stack.up().await;
        stack
    }

    /// Where one can be started. Waits while there is another.
    pub async fn prepare(variables: &[(&str, &str)]) -> Stack {
        let one_at_a_time = ONE_AT_A_TIME.lock().await;
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let home = temp_dir("stack");
        let dir = home.join("data").join(ODD);
        fs::create_dir_all(&dir).expect("a folder");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/.."), home.join(ODD)).expect("a link");
        // where CDPATH leads to
        fs::create_dir_all(home.join("elsewhere/bin")).expect("a folder");
        reaper::stack_at_end(&dir);
        Stack { home, dir, port: free_ports(), variables, _one_at_a_time: one_at_a_time }
    }

    /// A variable of whatever is called from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// `bin/stack up`: what does not run is started.
    pub async fn up(&self) {
        self.stack(&["up"], "").await.expect(0);
    }

    /// `bin/stack` with these arguments.
    pub async fn stack(&self, arguments: &[&str], input: &str) -> CliRun {
        run(self.command(arguments), input).await
    }

    /// The same with more variables.
    pub async fn stack_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> CliRun {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        run(command, "").await
    }

    /// Follows a part's log, as `bin/stack logs` does, until this is in it.
    pub async fn logs_until(&self, part: &str, text: &str) {
        let mut command = tokio::process::Command::from(self.command(&["logs", part]));
        let mut following = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("bin/stack logs");
        let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
        let found = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.contains(text) {
                    return;
                }
            }
            panic!("bin/stack logs has ended");
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert!(found.is_ok(), "not shown by bin/stack logs: {text}");
        following.kill().await.expect("killed");
    }

    /// The command line on the stack's databases.
    pub async fn cli(&self, arguments: &[&str]) -> CliRun {
        self.cli_with_input(arguments, "").await
    }

    /// The same with something on its standard input.
    pub async fn cli_with_input(&self, arguments: &[&str], input: &str) -> CliRun {
        self.stack(&[&["primetrade"], arguments].concat(), input).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.script("bin/stack", arguments);
        // as for another database of whoever calls
        command.env("PGSSLMODE", "require").env("PGOPTIONS", "-c search_path=nowhere");
        command
    }

    /// A script, as a person types it in the folder.
    pub fn script(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        clean_environment(&mut command);
        let programs = binary("primetrade");
        command
            .arg(script)
            .args(arguments)
            .current_dir(self.home.join(ODD))
            .env("PWD", self.home.join(ODD))
            .env("CDPATH", self.home.join("elsewhere"))
            .env("STACK_DIR", &self.dir)
            .env("STACK_PORT", self.port.to_string())
            .env("STACK_BIN", programs.parent().expect("a folder"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A client of the gateway, without an account.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// A client of one copy's livez, readyz and metrics.
    pub fn ops(&self, copy: &str) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.service_port(copy) + 100))
    }

    /// A client of one copy itself, past the gateway.
    pub fn copy(&self, copy: &str) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.service_port(copy)))
    }

    fn service_port(&self, copy: &str) -> u16 {
        let index = u16::try_from(COPIES.iter().position(|known| *known == copy).expect("a copy")).expect("few");
        let service = [1, 2, 3][usize::from(index / 2)];
        self.port + service + 10 * (index % 2)
    }

    /// Where everything is kept.
    pub fn database_url(&self) -> String {
        let password = fs::read_to_string(self.dir.join("postgres.secret")).expect("password of Postgres");
        format!("postgres://primetrade:{password}@127.0.0.1:{}/primetrade", self.port + 1003)
    }

    /// A folder for what the test needs besides.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// All ports that it takes.
    pub fn ports(&self) -> [u16; 17] {
        PORTS.map(|offset| self.port + offset)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For a Kafka client of the test's own.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1000)
    }

    /// Runs a command of Redis and gives what `redis-cli` prints.
    pub fn redis(&self, command: &[&str]) -> String {
        let port = (self.port + 1002).to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sends a signal to a part (see `bin/stack`).
    pub fn signal(&self, part: &str, signal: Signal) {
        kill_process(self.pid(part), signal).unwrap_or_else(|error| panic!("{part}: {error}"));
    }

    /// `kill -9` of a part; [`Stack::up`] starts it again.
    pub async fn kill(&self, part: &str) {
        let pid = self.pid(part);
        self.signal(part, Signal::KILL);
        let stat = format!("/proc/{}", pid.as_raw_nonzero());
        until("the killed process is gone", Duration::from_secs(20), || async {
            (!Path::new(&stat).exists()).then_some(())
        })
        .await;
    }

    /// Which process a part is; another text after each start.
    pub fn pid_text(&self, part: &str) -> String {
        fs::read_to_string(self.dir.join(part).join("pid")).unwrap_or_default()
    }

    fn pid(&self, part: &str) -> Pid {
        let text = self.pid_text(part);
        let number = text.lines().next().and_then(|line| line.parse().ok());
        number.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{part} does not run"))
    }

    /// Waits until the last event of every owner is in the read model, and the projectors say so too.
    pub async fn caught_up(&self) {
        let pool = crate::cluster::pool(&self.database_url()).await;
        until("revisions at the last events", Duration::from_secs(60), || async {
            let behind: i64 = sqlx::query_scalar(
                "select count(*) from (select owner_id, max(position) as position from event_store.event group by 1) e \
                 left join read_model.owner o on o.owner_id = e.owner_id and o.generation = \
                 (select live_generation from read_model.projection) where o.revision is distinct from e.position",
            )
            .fetch_one(&pool)
            .await
            .ok()?;
            (behind == 0).then_some(())
        })
        .await;
        pool.close().await;
        until("lag 0", Duration::from_secs(60), || async {
            let answer = self.ops("projector-1").get("/readyz").try_send().await.ok()?;
            (answer.json().pointer("/lag/events")?.as_u64()? == 0).then_some(())
        })
        .await;
    }

    /// All that a part logged.
    pub fn log(&self, part: &str) -> String {
        fs::read_to_string(self.dir.join(part).join("log")).unwrap_or_default()
    }

    /// The last lines of every part's log.
    pub fn log_tails(&self) -> String {
        let parts = COPIES.iter().chain(&["gateway", "kafka", "postgres"]);
        let tail = |part: &&str| {
            let log = self.log(part);
            let lines: Vec<&str> = log.lines().collect();
            format!("-- {part}\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        parts.map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- logs of the stack on port {}:\n{}", self.port, self.log_tails());
        }
        // within a test process more of them may follow: memory is not for keeps
        let _ = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A port whose neighbours that a stack takes are free too. No other stack of this process is given any of them.
fn free_ports() -> u16 {
    let port = (0..1_000)
        .map(|_| free_port())
        .find(|port| PORTS.iter().all(|offset| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()))
        .expect("free ports");
    while free_port().wrapping_sub(port) < PORTS.iter().copied().max().unwrap_or(0) {}
    port
}
