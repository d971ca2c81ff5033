//! Two lock files decide who may do what; both locks end with the process that holds them, however it ends.
//! - `postgres.gate`, exclusive and short: while somebody starts or stops it.
//! - `postgres.users`, shared: by everybody who uses it. Who gets it alone, under the gate, is the only one.

use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use backends::database::DiskSpace;
use process::health::{Check, CheckState};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use super::cluster::{Answer, Cluster};
use super::error::{GATE_WAIT_MS_MAX, PostgresError, RESTARTS_MAX, RESTARTS_WINDOW};
use super::postmaster::{Postmaster, SILENT_MS_MAX};
use super::{disk_watch, server_log};
use crate::data_dir::{DataDir, failed};

/// How often it is tried whether it takes a new connection, in milliseconds.
const TRIED_EVERY_MS: u64 = 1_000;
/// After so many refusals in a row that are not about starting, stopping or too many connections, it is started anew.
const REFUSALS_MAX: u32 = 3;
/// How often a gate that is shut is tried, in milliseconds.
const GATE_POLL_MS: u64 = 20;

/// A running cluster of the data folder, and our share in it. To be given back with [`ManagedPostgres::release`].
pub struct ManagedPostgres {
    postmaster: Postmaster,
    users: File,
    seen: watch::Sender<Check>,
}

/// What came of the attempts to connect anew.
#[derive(Default)]
struct ConnectionAttempts {
    last: Option<Instant>,
    refusals: u32,
    silent_since: Option<Instant>,
}

impl ManagedPostgres {
    /// Joins the running cluster of the data folder, or makes and starts it.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn acquire(dir: &DataDir, bin_setting: Option<&Path>) -> Result<Self, PostgresError> {
        let gate = lock_gate(dir).await?;
        let users = dir.lock_file("postgres.users")?;
        let alone = match users.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(failed("lock", &dir.join("postgres.users"))(source).into()),
        };
        let cluster = Cluster::of(dir, bin_setting)?;
        if !cluster.path.exists() {
            cluster.initialise().await?;
        }
        let seen = watch::Sender::new(Check::ok("takes connections"));
        let managed = Self { postmaster: Postmaster::of(cluster), users, seen };
        managed.postmaster.bring_up(alone).await?;
        let share = if alone {
            managed.users.unlock().and_then(|()| managed.users.lock_shared())
        } else {
            managed.users.lock_shared()
        };
        share.map_err(failed("lock", &dir.join("postgres.users")))?;
        drop(gate);
        managed.postmaster.cluster.make_database().await?;
        Ok(managed)
    }

    /// How to reach its database.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.postmaster.cluster.connect_options()
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> String {
        server_log::path(&self.postmaster.cluster.dir)
    }

    /// Gives the share back; the last one stops the cluster.
    ///
    /// # Errors
    /// It could not be stopped.
    pub async fn release(self) -> Result<(), PostgresError> {
        let _gate = lock_gate(&self.postmaster.cluster.dir).await?;
        if self.users.try_lock().is_ok() {
            self.postmaster.stop().await?;
        }
        Ok(())
    }

    /// For a hard end: no waiting, no checkpoint; the next start recovers.
    pub fn quit(&self) {
        if self.users.try_lock().is_ok() {
            self.postmaster.quit();
        }
    }

    /// Watches what the disk has left, and says when events may not take any more of it.
    pub async fn watch_disk(&self, disk_space: &DiskSpace) -> Infallible {
        disk_watch::watch(&self.postmaster.cluster, disk_space).await
    }

    /// One look at what the disk has left, before the first event is appended.
    pub async fn look_at_disk(&self, disk_space: &DiskSpace) {
        disk_watch::look(&self.postmaster.cluster, disk_space).await;
    }

    /// Why a second generation of the read models that takes so many bytes at least is not to be begun; none: there is
    /// room for it.
    pub async fn no_room_for_rebuild(&self, bytes_min: u64) -> Option<String> {
        disk_watch::no_room_for_rebuild(&self.postmaster.cluster, bytes_min).await
    }

    /// Watches what the disk has left while one is made, and returns, with the reason, once it may not take any more.
    pub async fn rebuild_has_to_end(&self) -> String {
        disk_watch::rebuild_has_to_end(&self.postmaster.cluster).await
    }

    /// For `/readyz`: whether it takes new connections, as [`watch`](Self::watch) sees it.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Check> {
        self.seen.subscribe()
    }

    /// Watches over the cluster and starts it again when it dies under us, or lives and takes no new connection: what
    /// it needs for them (shared memory, its socket) can be removed under it. Returns when that does not help.
    pub async fn watch(&self) -> PostgresError {
        let mut deaths: Vec<Instant> = Vec::new();
        let mut attempts = ConnectionAttempts::default();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let wrong = match self.postmaster.lives() {
                true => self.try_new_connection(&mut attempts).await,
                false => Some("it died".to_owned()),
            };
            let Some(wrong) = wrong else { continue };
            deaths.retain(|death| death.elapsed() < RESTARTS_WINDOW);
            deaths.push(Instant::now());
            if deaths.len() > RESTARTS_MAX {
                return PostgresError::KeepsDying { log: self.log() };
            }
            tracing::error!(reason = wrong, log = self.log(), "PostgreSQL is of no use any more; starting it again");
            self.seen.send_replace(Check::failed("PostgreSQL is started again"));
            match self.start_again().await {
                Ok(()) => tracing::info!("PostgreSQL answers again"),
                Err(error) => return error,
            }
            attempts = ConnectionAttempts::default();
            self.seen.send_replace(Check::ok("takes connections"));
        }
    }

    /// What is wrong, once it is certain enough for a restart.
    async fn try_new_connection(&self, attempts: &mut ConnectionAttempts) -> Option<String> {
        if attempts.last.is_some_and(|last| last.elapsed() < Duration::from_millis(TRIED_EVERY_MS)) {
            return None;
        }
        let answer = self.postmaster.cluster.answer().await;
        attempts.last = Some(Instant::now());
        let (check, wrong) = match answer {
            Ok(Answer::Ready) => {
                (attempts.refusals, attempts.silent_since) = (0, None);
                (Check::ok("takes connections"), None)
            }
            // for a moment, or because there are many: a restart would not help
            Ok(Answer::Busy) => (Check::ok("is busy"), None),
            Ok(Answer::Nobody) => {
                let since = *attempts.silent_since.get_or_insert_with(Instant::now);
                let is_certain = since.elapsed() > Duration::from_millis(SILENT_MS_MAX);
                let wrong = "it does not answer to new connections";
                (Check::failed("PostgreSQL does not answer to new connections"), is_certain.then(|| wrong.to_owned()))
            }
            Err(error) => {
                attempts.refusals += 1;
                let is_certain = attempts.refusals >= REFUSALS_MAX;
                (Check::failed("PostgreSQL refuses new connections"), is_certain.then(|| error.to_string()))
            }
        };
        if check.state != CheckState::Ok && self.seen.borrow().state == CheckState::Ok {
            tracing::warn!(log = self.log(), "{}", check.detail);
        }
        self.seen.send_if_modified(|seen| {
            let is_new = *seen != check;
            *seen = check;
            is_new
        });
        wrong
    }

    /// Ends what is left of it, and starts it; where the disk is full, as soon as there is room.
    async fn start_again(&self) -> Result<(), PostgresError> {
        let _gate = lock_gate(&self.postmaster.cluster.dir).await?;
        self.postmaster.end_useless().await?;
        let mut told = false;
        loop {
            match self.postmaster.bring_up(true).await {
                Err(error @ PostgresError::DiskFull { .. }) => {
                    if !told {
                        told = true;
                        tracing::error!(%error, "waiting for room on the disk");
                    }
                    self.seen.send_replace(Check::failed("the disk is full, and PostgreSQL cannot start without room"));
                    tokio::time::sleep(Duration::from_millis(TRIED_EVERY_MS)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Not given back, as after an error or Ctrl-C during the start: what we started is told to stop, and not waited for.
impl Drop for ManagedPostgres {
    fn drop(&mut self) {
        if self.postmaster.is_child() && self.users.try_lock().is_ok() {
            self.postmaster.abandon();
        }
    }
}

async fn lock_gate(dir: &DataDir) -> Result<File, PostgresError> {
    let gate = dir.lock_file("postgres.gate")?;
    let began = Instant::now();
    loop {
        match gate.try_lock() {
            Ok(()) => return Ok(gate),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &dir.join("postgres.gate"))(source).into()),
            Err(TryLockError::WouldBlock) if began.elapsed() > Duration::from_millis(GATE_WAIT_MS_MAX) => {
                return Err(PostgresError::GateShut { path: dir.path().display().to_string() });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(GATE_POLL_MS)).await,
        }
    }
}
