//! A real `primetrade serve` process, and runs of its command line.

use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::process::{Process, binary, clean_environment};
use crate::wait::until;

const CLI_MS_MAX: u64 = 180_000;

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

/// A server.
pub struct Server {
    config: Config,
    process: Process,
}

impl Deref for Server {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Starts a program by its name, with arguments and variables.
type Start = fn(&'static str, Vec<String>, Vec<(String, String)>) -> Process;

impl Server {
    /// Starts one and waits until it is ready.
    pub async fn start(config: Config) -> Server {
        Self::start_by(Process::start, config).await
    }

    /// The same, but its log goes into a pipe that nobody reads.
    pub async fn start_unread(config: Config) -> Server {
        Self::start_by(Process::start_unread, config).await
    }

    async fn start_by(start: Start, config: Config) -> Server {
        let mut arguments = vec!["serve".to_owned(), "--database-url".to_owned(), config.database_url.clone()];
        arguments.extend(["--data-dir".to_owned(), "data".to_owned()]);
        arguments.extend(config.flags.iter().cloned());
        let server = Server { process: start("primetrade", arguments, config.variables.clone()), config };
        server.ready().await;
        server
    }

    /// The database that it was started on.
    pub fn database_url(&self) -> &str {
        &self.config.database_url
    }

    /// Waits until everything appended is in the read model, by the tables and by `/readyz`.
    pub async fn caught_up(&self) {
        let pool = crate::cluster::pool(&self.config.database_url).await;
        crate::catch_up::checkpoints_at_heads(&pool).await;
        pool.close().await;
        until("lag 0", Duration::from_secs(60), || async { (self.lag_events().await? == 0).then_some(()) }).await;
    }

    /// A run of the command line against this server's database.
    pub async fn cli(&self, arguments: &[&str]) -> CliRun {
        cli(self.dir(), Some(&self.config.database_url), arguments, "").await
    }

    /// The same with something on its standard input.
    pub async fn cli_with_input(&self, arguments: &[&str], input: &str) -> CliRun {
        cli(self.dir(), Some(&self.config.database_url), arguments, input).await
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
    let mut command = command(dir, arguments);
    if let Some(url) = database_url {
        command.env("PRIMETRADE_DATABASE_URL", url);
    }
    run(command, input).await
}

/// A command line of `primetrade`, to be [`run`].
pub fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("primetrade"));
    command.args(arguments).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    clean_environment(&mut command);
    command
}

/// Runs a prepared command to its end, within a deadline.
pub async fn run(command: Command, input: &str) -> CliRun {
    run_within(CLI_MS_MAX, command, input).await
}

/// The same with a deadline of its own.
pub async fn run_within(ms_max: u64, command: Command, input: &str) -> CliRun {
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("primetrade");
    let mut pipe = child.stdin.take().expect("piped");
    let finished = async {
        // a program that refuses its arguments never reads what it is given
        let _ = pipe.write_all(input.as_bytes()).await;
        drop(pipe);
        child.wait_with_output().await.expect("output")
    };
    let output = tokio::time::timeout(Duration::from_millis(ms_max), finished)
        .await
        .unwrap_or_else(|_| panic!("not within {ms_max} ms: {command:?}"));
    CliRun {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
