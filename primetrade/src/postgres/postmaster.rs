use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::cluster::{Answer, Cluster, SOCKET_NAME, socket_setting};
use super::disk::{FREE_BYTES_MIN, check_free, disk_full, is_said_to_be_full};
use super::error::PostgresError;
use super::server_log;
use crate::data_dir::{failed, make_dir};

/// Crash recovery reads up to `max_wal_size` of log.
const START_MS_MAX: u64 = 900_000;
/// A postmaster that lives but does not take connections at all.
pub(super) const SILENT_MS_MAX: u64 = 15_000;
const STOP_MS_MAX: u64 = 60_000;
const QUIT_MS_MAX: u64 = 10_000;
const POLL_MS: u64 = 20;

/// The cluster's server process, whoever started it.
pub(super) struct Postmaster {
    pub(super) cluster: Cluster,
    /// Where this process started it.
    child: Mutex<Option<Child>>,
}

impl Postmaster {
    pub(super) fn of(cluster: Cluster) -> Self {
        Self { cluster, child: Mutex::new(None) }
    }

    /// Until it answers: joins what runs, ends what hangs, starts it where nothing runs.
    pub(super) async fn bring_up(&self, may_start: bool) -> Result<(), PostgresError> {
        let began = Instant::now();
        let mut silent_since = None;
        let mut told = false;
        let mut log_from = 0;
        loop {
            let found = self.cluster.pid_file();
            if let Some(dir) = found.socket_dir {
                // It may have been started under another runtime folder.
                *self.cluster.lock_socket_dir() = dir;
            }
            match self.cluster.answer().await? {
                Answer::Ready => return Ok(()),
                Answer::Busy => {
                    silent_since = None;
                    if !told && began.elapsed() > Duration::from_secs(2) {
                        told = true;
                        tracing::info!(
                            log = server_log::path(&self.cluster.dir),
                            "PostgreSQL is starting up: it recovers from an end without a shutdown"
                        );
                    }
                    if began.elapsed() > Duration::from_millis(START_MS_MAX) {
                        return Err(self.silent(began));
                    }
                }
                Answer::Nobody => match found.pid.filter(|pid| self.cluster.is_postmaster(*pid)) {
                    Some(pid) => {
                        let since = *silent_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > Duration::from_millis(SILENT_MS_MAX) {
                            if !may_start {
                                return Err(self.silent(since));
                            }
                            tracing::warn!(
                                pid = pid.as_raw_nonzero().get(),
                                "a PostgreSQL that does not answer is stopped"
                            );
                            self.end(pid).await?;
                            silent_since = None;
                        }
                    }
                    None if !may_start => {
                        if began.elapsed() > Duration::from_millis(SILENT_MS_MAX) {
                            return Err(PostgresError::UsedElsewhere {
                                path: self.cluster.dir.path().display().to_string(),
                            });
                        }
                    }
                    None => {
                        let ended = self.reap();
                        let starting = self.lock_child().is_some();
                        if ended && !self.worth_another_try(log_from, began) {
                            return Err(self.start_failed(log_from));
                        }
                        if !starting {
                            log_from = self.start(found.pid).await?;
                        }
                    }
                },
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Starts the postmaster in a process group of its own: Ctrl-C in a terminal is for us, and we stop it in turn.
    /// Returns where its part of the log begins.
    async fn start(&self, stale: Option<Pid>) -> Result<u64, PostgresError> {
        check_free(&self.cluster.dir, FREE_BYTES_MIN)?;
        self.remove_stale(stale);
        self.cluster.write_settings().await?;
        let socket_dir = self.cluster.lock_socket_dir().clone();
        make_dir(&socket_dir)?;
        let (log, log_from) = server_log::open(&self.cluster.dir)?;
        let stderr = log.try_clone().map_err(failed("open", &self.cluster.dir.join("postgres.log")))?;
        let mut command = self.cluster.command("postgres");
        command.arg("-D").arg(&self.cluster.path).arg("-c").arg(socket_setting(&socket_dir)).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
        let child = child.map_err(failed("run", &self.cluster.binaries.program("postgres")))?;
        *self.lock_child() = Some(child);
        Ok(log_from)
    }

    /// A pid file whose number belongs to some other process by now (as after a container's restart) would make
    /// Postgres refuse to start. Where the number belongs to nobody, Postgres knows best what to do.
    fn remove_stale(&self, stale: Option<Pid>) {
        let Some(pid) = stale else { return };
        if test_kill_process(pid).is_ok() && !self.cluster.is_postmaster(pid) {
            let _ = fs::remove_file(self.cluster.path.join("postmaster.pid"));
            let _ = fs::remove_file(self.cluster.lock_socket_dir().join(format!("{SOCKET_NAME}.lock")));
        }
    }

    /// Backends of a killed postmaster take a moment to notice; until then the shared memory is in use.
    fn worth_another_try(&self, log_from: u64, began: Instant) -> bool {
        let said = server_log::since(&self.cluster.dir, log_from);
        began.elapsed() < Duration::from_millis(SILENT_MS_MAX)
            && (said.contains("pre-existing shared memory block") || said.contains("already exists"))
    }

    fn start_failed(&self, log_from: u64) -> PostgresError {
        let said = server_log::since(&self.cluster.dir, log_from);
        if is_said_to_be_full(&said) {
            return disk_full(&self.cluster.dir, FREE_BYTES_MIN);
        }
        PostgresError::StartFailed { said: server_log::last_words(&said), log: server_log::path(&self.cluster.dir) }
    }

    fn silent(&self, since: Instant) -> PostgresError {
        let pid = self.cluster.pid_file().pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        PostgresError::Silent { pid, seconds: since.elapsed().as_secs(), log: server_log::path(&self.cluster.dir) }
    }

    /// An orderly stop; after a minute a less orderly one.
    pub(super) async fn stop(&self) -> Result<(), PostgresError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let _ = kill_process(pid, Signal::INT);
        if self.gone(pid, STOP_MS_MAX).await {
            return Ok(());
        }
        tracing::warn!("PostgreSQL did not stop within {} s and is told to do so at once", STOP_MS_MAX / 1000);
        self.end(pid).await
    }

    /// Ends one that is of no use any more.
    pub(super) async fn end_useless(&self) -> Result<(), PostgresError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let _ = kill_process(pid, Signal::INT);
        if self.gone(pid, QUIT_MS_MAX).await { Ok(()) } else { self.end(pid).await }
    }

    /// For a hard end: no waiting, no checkpoint; the next start recovers.
    pub(super) fn quit(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }

    /// Whether this process started it.
    pub(super) fn is_child(&self) -> bool {
        self.lock_child().is_some()
    }

    /// Tells a server that this process started to stop, and does not wait for it.
    pub(super) fn abandon(&self) {
        if let Some(child) = self.lock_child().take()
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::INT);
        }
    }

    async fn end(&self, pid: Pid) -> Result<(), PostgresError> {
        // A stopped (SIGSTOP) process hears nothing else.
        for signal in [Signal::CONT, Signal::QUIT] {
            let _ = kill_process(pid, signal);
        }
        if self.gone(pid, QUIT_MS_MAX).await {
            return Ok(());
        }
        let _ = kill_process(pid, Signal::KILL);
        if self.gone(pid, QUIT_MS_MAX).await { Ok(()) } else { Err(self.silent(Instant::now())) }
    }

    async fn gone(&self, pid: Pid, wait_ms_max: u64) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(wait_ms_max) {
            self.reap();
            if !self.cluster.is_postmaster(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        false
    }

    /// Whether the server process is there. Our own child is asked first: on some systems the other question starts a
    /// program.
    pub(super) fn lives(&self) -> bool {
        self.reap();
        self.lock_child().is_some() || self.pid().is_some()
    }

    /// The server process, if it is there.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.cluster.pid_file().pid.filter(|pid| self.cluster.is_postmaster(*pid))
    }

    /// Takes note of the end of our own child; whether there was one and it has ended.
    fn reap(&self) -> bool {
        let mut child = self.lock_child();
        let ended = child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            *child = None;
        }
        ended
    }

    fn lock_child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
