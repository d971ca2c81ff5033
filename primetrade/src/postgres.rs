//! The private Postgres: a cluster in the data folder, reached by a unix socket, shared by the server and the
//! commands that run beside it. Whoever comes first starts it; whoever goes last stops it.
//!
//! Two lock files decide who may do what; both locks end with the process that holds them, however it ends.
//! - `postgres.gate`, exclusive and short: while somebody starts or stops it.
//! - `postgres.users`, shared: by everybody who uses it. Who gets it alone, under the gate, is the only one.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use event_store::Room;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use backends::database::{MAJOR_MIN, sql_state};
use process::health::{Check, CheckState};
use tokio::sync::watch;

use crate::binaries::Binaries;
use crate::data_dir::{DataDir, DataDirError, failed, make_dir};

const USER: &str = "primetrade";
const DATABASE: &str = "primetrade";
const PORT: u16 = 5432;
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// What fits into `sockaddr_un.sun_path` everywhere (Linux 108, others 104), without the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 103;
const GATE_WAIT_MS_MAX: u64 = 180_000;
/// Crash recovery reads up to `max_wal_size` of log.
const START_MS_MAX: u64 = 900_000;
/// A postmaster that lives but does not take connections at all.
const DEAF_MS_MAX: u64 = 15_000;
const CONNECT_MS_MAX: u64 = 5_000;
const STOP_MS_MAX: u64 = 60_000;
const QUIT_MS_MAX: u64 = 10_000;
const POLL_MS: u64 = 20;
const LOG_BYTES_MAX: u64 = 10 << 20;
/// What a new cluster takes, with room to work.
const NEW_FREE_BYTES_MIN: u64 = 256 << 20;
const FREE_BYTES_MIN: u64 = 48 << 20;
/// How often it is tried whether it takes a new connection, in milliseconds.
const TRIED_EVERY_MS: u64 = 1_000;
/// After so many refusals in a row that are not about starting, stopping or too many connections, it is started anew.
const REFUSALS_MAX: u32 = 3;
/// How often it is looked what the disk has left, in milliseconds: an import writes some 150 MB a second.
const DISK_LOOKED_AT_EVERY_MS: u64 = 100;
/// The write-ahead log takes at most this part of what there is for it, within the bounds after it.
const WAL_PART: u64 = 8;
const WAL_BYTES_MIN: u64 = 64 << 20;
const WAL_BYTES_MAX: u64 = 4 << 30;
/// What events may not take, beside what the write-ahead log may still grow to: read models go on until they have
/// caught up, people log in.
const SPARE_BYTES: u64 = 96 << 20;
/// So much more has to be free until events are taken again.
const SPARE_AGAIN_BYTES: u64 = 16 << 20;
/// While events are not taken, how often Postgres is asked for a checkpoint, which frees write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);
/// Restarts of a cluster that dies while it is used, before the server gives up.
const RESTARTS_MAX: usize = 5;
const RESTARTS_WINDOW: Duration = Duration::from_secs(300);

/// Why the private Postgres cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No programs on this machine.
    #[error(
        "PostgreSQL's server programs (initdb, postgres) were not found. Install them (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; Arch: pacman -S postgresql; Alpine: apk add postgresql; macOS: brew install postgresql), say where they are with PRIMETRADE_POSTGRES_BIN, or give a database with PRIMETRADE_DATABASE_URL"
    )]
    NotInstalled,
    /// The setting points elsewhere.
    #[error(
        "PRIMETRADE_POSTGRES_BIN: {0} does not hold PostgreSQL's server programs (initdb, postgres). Name the folder they are in, or unset it"
    )]
    NotThere(String),
    /// Nothing that can be used.
    #[error(
        "the newest PostgreSQL on this machine is {found}; {MAJOR_MIN} or newer is needed. Install it, or give a database with PRIMETRADE_DATABASE_URL"
    )]
    TooOld {
        /// The newest there is.
        found: u32,
    },
    /// Data that none of the programs can read.
    #[error(
        "the data folder was made by PostgreSQL {data}, which is not on this machine (here: {here}). Install the server programs of PostgreSQL {data} (Debian: postgresql-{data}), or move the data over with pg_upgrade, or start with another folder: --data-dir"
    )]
    OtherVersion {
        /// Major version of the data.
        data: u32,
        /// Major versions on this machine.
        here: String,
    },
    /// Not a cluster, or half of one.
    #[error(
        "{path} does not look like PostgreSQL's data (no readable PG_VERSION). Restore it from a backup, or start with another folder: --data-dir"
    )]
    NotACluster {
        /// The cluster's folder.
        path: String,
    },
    /// The disk.
    #[error(
        "the disk is full: {path} has {free_mb} MB left, and {needed_mb} MB are needed. Free some space, or choose a folder on another disk with --data-dir"
    )]
    DiskFull {
        /// The data folder.
        path: String,
        /// What is left.
        free_mb: u64,
        /// What is needed.
        needed_mb: u64,
    },
    /// `initdb` failed.
    #[error("initdb could not make the database in {path}: {said}")]
    InitFailed {
        /// The data folder.
        path: String,
        /// What it said.
        said: String,
    },
    /// `postgres` did not come up.
    #[error("PostgreSQL did not start: {said}. Its log is {log}")]
    StartFailed {
        /// The last things it said.
        said: String,
        /// Where to read more.
        log: String,
    },
    /// It runs but does not answer.
    #[error(
        "PostgreSQL (process {pid}) has not answered for {seconds} s. Its log is {log}; end it with: kill -QUIT {pid}"
    )]
    Silent {
        /// The postmaster.
        pid: i32,
        /// How long it was waited for.
        seconds: u64,
        /// Where to read more.
        log: String,
    },
    /// Somebody else uses the folder, and we cannot join.
    #[error(
        "the data folder {path} is in use by a process that cannot be reached from here (another container?). Stop that one first"
    )]
    UsedElsewhere {
        /// The data folder.
        path: String,
    },
    /// Somebody starts or stops it for very long.
    #[error("another process has been starting or stopping PostgreSQL in {path} for more than {} s. See whether it hangs, and end it", GATE_WAIT_MS_MAX / 1000)]
    GateShut {
        /// The data folder.
        path: String,
    },
    /// It dies again and again.
    #[error("PostgreSQL died {RESTARTS_MAX} times within {} s. Its log is {log}", RESTARTS_WINDOW.as_secs())]
    KeepsDying {
        /// Where to read more.
        log: String,
    },
    /// No folder for the socket.
    #[error(
        "the path of the data folder is too long for a unix socket, and {path} cannot be used instead: it is not a private folder of this user. Choose a shorter --data-dir"
    )]
    NoSocketDir {
        /// The folder in question.
        path: String,
    },
    /// It runs, but refuses us.
    #[error("PostgreSQL in the data folder refuses the connection: {0}")]
    Refused(#[source] sqlx::Error),
    /// Something with a file.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// A running private cluster, and our share in it. To be given back with [`Private::release`].
pub struct Private {
    dir: DataDir,
    cluster: PathBuf,
    socket_dir: Mutex<PathBuf>,
    binaries: Binaries,
    users: File,
    child: Mutex<Option<Child>>,
    seen: watch::Sender<Check>,
}

/// What came of the attempts to connect anew.
#[derive(Default)]
struct Trial {
    last: Option<Instant>,
    refusals: u32,
    silent_since: Option<Instant>,
}

/// Who answers where, as `postmaster.pid` tells.
struct Postmaster {
    pid: Option<Pid>,
    socket_dir: Option<PathBuf>,
}

/// What a look at the cluster from outside found.
enum Answer {
    Ready,
    /// Starting, recovering or stopping.
    Busy,
    /// Nobody at the socket.
    Nobody,
}

impl Private {
    /// Joins the running cluster of the data folder, or makes and starts it.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn acquire(dir: &DataDir, bin_setting: Option<&Path>) -> Result<Self, PostgresError> {
        let cluster = dir.join("postgres");
        let gate = lock_gate(dir).await?;
        let users = dir.lock_file("postgres.users")?;
        let alone = match users.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(failed("lock", &dir.join("postgres.users"))(source).into()),
        };
        let exists = cluster.exists();
        // Looked for first, so that a machine without them says so and not something about the disk.
        let binaries = Binaries::find(bin_setting, if exists { Some(data_major(&cluster)?) } else { None })?;
        let private = Self {
            dir: dir.clone(),
            socket_dir: Mutex::new(socket_dir(dir)?),
            cluster,
            binaries,
            users,
            child: Mutex::new(None),
            seen: watch::Sender::new(Check::ok("takes connections")),
        };
        if !exists {
            check_free(dir, NEW_FREE_BYTES_MIN)?;
            private.initialise().await?;
        }
        private.bring_up(alone).await?;
        let share = if alone {
            private.users.unlock().and_then(|()| private.users.lock_shared())
        } else {
            private.users.lock_shared()
        };
        share.map_err(failed("lock", &dir.join("postgres.users")))?;
        drop(gate);
        private.make_database().await?;
        Ok(private)
    }

    /// How to reach its database.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options().database(DATABASE)
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> String {
        self.dir.join("postgres.log").display().to_string()
    }

    /// Gives the share back; the last one stops the cluster.
    ///
    /// # Errors
    /// It could not be stopped.
    pub async fn release(self) -> Result<(), PostgresError> {
        let _gate = lock_gate(&self.dir).await?;
        if self.users.try_lock().is_ok() {
            self.stop().await?;
        }
        Ok(())
    }

    /// For a hard end: no waiting, no checkpoint; the next start recovers.
    pub fn quit(&self) {
        if self.users.try_lock().is_ok()
            && let Some(pid) = self.postmaster().pid
            && self.is_postmaster(pid)
        {
            let _ = kill_process(pid, Signal::QUIT);
        }
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
        let mut trial = Trial::default();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.reap();
            // our own child is asked first: on some systems the other question starts a program
            let lives = self.lock_child().is_some() || self.postmaster().pid.is_some_and(|pid| self.is_postmaster(pid));
            let wrong = if lives { self.try_new_connection(&mut trial).await } else { Some("it died".to_owned()) };
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
            trial = Trial::default();
            self.seen.send_replace(Check::ok("takes connections"));
        }
    }

    /// What is wrong, once it is certain enough for a restart.
    async fn try_new_connection(&self, trial: &mut Trial) -> Option<String> {
        if trial.last.is_some_and(|last| last.elapsed() < Duration::from_millis(TRIED_EVERY_MS)) {
            return None;
        }
        let answer = self.answer().await;
        trial.last = Some(Instant::now());
        let (check, wrong) = match answer {
            Ok(Answer::Ready) => {
                (trial.refusals, trial.silent_since) = (0, None);
                (Check::ok("takes connections"), None)
            }
            // for a moment, or because there are many: a restart would not help
            Ok(Answer::Busy) => (Check::ok("is busy"), None),
            Ok(Answer::Nobody) => {
                let since = *trial.silent_since.get_or_insert_with(Instant::now);
                let is_certain = since.elapsed() > Duration::from_millis(DEAF_MS_MAX);
                let wrong = "it does not answer to new connections";
                (Check::failed("PostgreSQL does not answer to new connections"), is_certain.then(|| wrong.to_owned()))
            }
            Err(error) => {
                trial.refusals += 1;
                let is_certain = trial.refusals >= REFUSALS_MAX;
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
        let _gate = lock_gate(&self.dir).await?;
        if let Some(pid) = self.postmaster().pid.filter(|pid| self.is_postmaster(*pid)) {
            let _ = kill_process(pid, Signal::INT);
            if !self.gone(pid, QUIT_MS_MAX).await {
                self.end(pid).await?;
            }
        }
        let mut told = false;
        loop {
            match self.bring_up(true).await {
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

    /// Watches what the disk has left, and says when events may not take any more of it.
    pub async fn watch_disk(&self, room: &Room) -> Infallible {
        let mut is_lacking = false;
        let mut wal_bytes_max = None;
        let mut checkpoint: Option<Instant> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(DISK_LOOKED_AT_EVERY_MS)).await;
            let Some(free) = free_bytes(&self.cluster) else { continue };
            let wal_max = match wal_bytes_max {
                Some(bytes) => bytes,
                None => *wal_bytes_max.insert(self.wal_bytes_max().await.unwrap_or(WAL_BYTES_MIN)),
            };
            // looked at only where it may matter
            let wal_growth = match free < SPARE_BYTES + SPARE_AGAIN_BYTES + wal_max {
                true => wal_max.saturating_sub(bytes_in(&self.cluster.join("pg_wal"))),
                false => wal_max,
            };
            let floor = SPARE_BYTES + wal_growth;
            let needed = if is_lacking { floor + SPARE_AGAIN_BYTES } else { floor };
            is_lacking = free < needed;
            let reason = is_lacking.then(|| {
                let path = self.dir.path().display();
                format!("{path} has {} MB left, and {} MB must be free", free >> 20, needed >> 20)
            });
            room.watched(reason);
            if !is_lacking {
                checkpoint = None;
            } else if checkpoint.is_none_or(|last| last.elapsed() > CHECKPOINT_EVERY) {
                checkpoint = Some(Instant::now());
                if let Err(error) = self.checkpoint().await {
                    tracing::warn!(%error, "PostgreSQL made no checkpoint");
                }
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        let mut connection: PgConnection = self.options().database(DATABASE).connect().await?;
        sqlx::query!("checkpoint").execute(&mut connection).await?;
        connection.close().await
    }

    async fn wal_bytes_max(&self) -> Result<u64, sqlx::Error> {
        let mut connection: PgConnection = self.options().database(DATABASE).connect().await?;
        let bytes = sqlx::query_scalar!(r#"select pg_size_bytes(current_setting('max_wal_size')) as "bytes!""#)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Until it answers: joins what runs, ends what hangs, starts it where nothing runs.
    async fn bring_up(&self, may_start: bool) -> Result<(), PostgresError> {
        let began = Instant::now();
        let mut deaf_since = None;
        let mut told = false;
        let mut log_from = 0;
        loop {
            let found = self.postmaster();
            if let Some(dir) = found.socket_dir {
                // It may have been started under another runtime folder.
                *self.lock_socket_dir() = dir;
            }
            match self.answer().await? {
                Answer::Ready => return Ok(()),
                Answer::Busy => {
                    deaf_since = None;
                    if !told && began.elapsed() > Duration::from_secs(2) {
                        told = true;
                        tracing::info!(
                            log = self.log(),
                            "PostgreSQL is starting up: it recovers from an end without a shutdown"
                        );
                    }
                    if began.elapsed() > Duration::from_millis(START_MS_MAX) {
                        return Err(self.silent(began));
                    }
                }
                Answer::Nobody => match found.pid.filter(|pid| self.is_postmaster(*pid)) {
                    Some(pid) => {
                        let since = *deaf_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > Duration::from_millis(DEAF_MS_MAX) {
                            if !may_start {
                                return Err(self.silent(since));
                            }
                            tracing::warn!(
                                pid = pid.as_raw_nonzero().get(),
                                "a PostgreSQL that does not answer is stopped"
                            );
                            self.end(pid).await?;
                            deaf_since = None;
                        }
                    }
                    None if !may_start => {
                        if began.elapsed() > Duration::from_millis(DEAF_MS_MAX) {
                            return Err(PostgresError::UsedElsewhere { path: self.dir.path().display().to_string() });
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

    fn silent(&self, since: Instant) -> PostgresError {
        let pid = self.postmaster().pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        PostgresError::Silent { pid, seconds: since.elapsed().as_secs(), log: self.log() }
    }

    /// Backends of a killed postmaster take a moment to notice; until then the shared memory is in use.
    fn worth_another_try(&self, log_from: u64, began: Instant) -> bool {
        let said = self.log_since(log_from);
        began.elapsed() < Duration::from_millis(DEAF_MS_MAX)
            && (said.contains("pre-existing shared memory block") || said.contains("already exists"))
    }

    fn start_failed(&self, log_from: u64) -> PostgresError {
        let said = self.log_since(log_from);
        if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
            return disk_full(&self.dir, FREE_BYTES_MIN);
        }
        PostgresError::StartFailed { said: last_words(&said), log: self.log() }
    }

    /// Starts the postmaster in a process group of its own: Ctrl-C in a terminal is for us, and we stop it in turn.
    /// Returns where its part of the log begins.
    async fn start(&self, stale: Option<Pid>) -> Result<u64, PostgresError> {
        check_free(&self.dir, FREE_BYTES_MIN)?;
        self.remove_stale(stale);
        self.write_settings().await?;
        let socket_dir = self.lock_socket_dir().clone();
        make_dir(&socket_dir)?;
        let (log, log_from) = self.open_log()?;
        let stderr = log.try_clone().map_err(failed("open", &self.dir.join("postgres.log")))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.cluster).arg("-c").arg(socket_setting(&socket_dir)).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
        let child = child.map_err(failed("run", &self.binaries.program("postgres")))?;
        *self.lock_child() = Some(child);
        Ok(log_from)
    }

    /// A pid file whose number belongs to some other process by now (as after a container's restart) would make
    /// Postgres refuse to start. Where the number belongs to nobody, Postgres knows best what to do.
    fn remove_stale(&self, stale: Option<Pid>) {
        let Some(pid) = stale else { return };
        if test_kill_process(pid).is_ok() && !self.is_postmaster(pid) {
            let _ = fs::remove_file(self.cluster.join("postmaster.pid"));
            let _ = fs::remove_file(self.lock_socket_dir().join(format!("{SOCKET_NAME}.lock")));
        }
    }

    /// Makes the cluster beside its place and moves it there when it is whole.
    async fn initialise(&self) -> Result<(), PostgresError> {
        tracing::info!(path = %self.cluster.display(), version = self.binaries.major, "making a private PostgreSQL");
        let draft = self.dir.join("postgres.new");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(failed("remove", &draft))?;
        }
        let mut command = tokio::process::Command::from(self.command("initdb"));
        command.args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--data-checksums"]);
        command.arg(format!("--username={USER}")).arg("-D").arg(&draft).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(failed("run", &self.binaries.program("initdb")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let _ = fs::remove_dir_all(&draft);
            if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
                return Err(disk_full(&self.dir, NEW_FREE_BYTES_MIN));
            }
            return Err(PostgresError::InitFailed { path: draft.display().to_string(), said: last_words(&said) });
        }
        let conf = draft.join("postgresql.conf");
        let included = OpenOptions::new().append(true).open(&conf).and_then(|mut file| {
            file.write_all(b"\ninclude_if_exists 'primetrade.conf'\ninclude_if_exists '../postgres.conf'\n")?;
            file.sync_all()
        });
        included.map_err(failed("write", &conf))?;
        fs::rename(&draft, &self.cluster).map_err(failed("move into place", &draft))?;
        let synced = File::open(self.dir.path()).and_then(|dir| dir.sync_all());
        Ok(synced.map_err(failed("write", self.dir.path()))?)
    }

    /// What suits a laptop and this program. Written at every start; `postgres.conf` of the data folder comes after it.
    async fn write_settings(&self) -> Result<(), PostgresError> {
        let compression = if self.binaries.major >= 15 && self.knows_lz4().await { "lz4" } else { "on" };
        let there_is =
            free_bytes(&self.cluster).unwrap_or(u64::MAX).saturating_add(bytes_in(&self.cluster.join("pg_wal")));
        let wal_mb = wal_bytes_for(there_is) >> 20;
        let kept_wal_mb = (wal_mb / 4).clamp(32, 512);
        let text = format!(
            "# Written by primetrade at every start. Settings of your own: postgres.conf in the data folder.\n\
             listen_addresses = ''\n\
             port = {PORT}\n\
             unix_socket_permissions = 0700\n\
             max_connections = 100\n\
             superuser_reserved_connections = 3\n\
             shared_buffers = 256MB\n\
             effective_cache_size = 1GB\n\
             work_mem = 16MB\n\
             maintenance_work_mem = 256MB\n\
             # In the data folder: what stands in /dev/shm is removed by cleaners and by RemoveIPC of systemd.\n\
             dynamic_shared_memory_type = mmap\n\
             fsync = on\n\
             synchronous_commit = on\n\
             full_page_writes = on\n\
             wal_level = replica\n\
             wal_compression = {compression}\n\
             # By what the disk has left at this start.\n\
             max_wal_size = {wal_mb}MB\n\
             min_wal_size = {kept_wal_mb}MB\n\
             checkpoint_warning = 0\n\
             checkpoint_timeout = 15min\n\
             checkpoint_completion_target = 0.9\n\
             random_page_cost = 1.1\n\
             jit = off\n\
             timezone = 'UTC'\n\
             log_timezone = 'UTC'\n\
             lc_messages = 'C'\n\
             log_line_prefix = '%m [%p] '\n\
             # Duplicates refused by an index are everyday life here, and the program logs what is not.\n\
             log_min_messages = log\n\
             log_min_error_statement = panic\n"
        );
        let path = self.cluster.join("primetrade.conf");
        fs::write(&path, text).map_err(failed("write", &path))?;
        Ok(())
    }

    /// Not every package is built with it.
    async fn knows_lz4(&self) -> bool {
        let mut command = tokio::process::Command::from(self.command("postgres"));
        command.arg("-D").arg(&self.cluster).args(["-c", "wal_compression=lz4", "-C", "wal_compression"]);
        let asked = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.await.is_ok_and(|status| status.success())
    }

    /// One of Postgres' programs, free of what the caller's environment says about other servers.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("PRIMETRADE_") || text.starts_with("LC_") {
                command.env_remove(&name);
            }
        }
        command.env("LC_ALL", "C").current_dir(self.dir.path());
        command
    }

    /// An orderly stop; after a minute a less orderly one.
    async fn stop(&self) -> Result<(), PostgresError> {
        let Some(pid) = self.postmaster().pid.filter(|pid| self.is_postmaster(*pid)) else { return Ok(()) };
        let _ = kill_process(pid, Signal::INT);
        if self.gone(pid, STOP_MS_MAX).await {
            return Ok(());
        }
        tracing::warn!("PostgreSQL did not stop within {} s and is told to do so at once", STOP_MS_MAX / 1000);
        self.end(pid).await
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
            if !self.is_postmaster(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        false
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

    fn postmaster(&self) -> Postmaster {
        let text = fs::read_to_string(self.cluster.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let pid =
            lines.first().and_then(|line| line.trim().parse::<i32>().ok()).and_then(|pid| Pid::from_raw(pid.abs()));
        let socket_dir = lines.get(4).filter(|line| line.starts_with('/')).map(PathBuf::from);
        Postmaster { pid, socket_dir }
    }

    /// Whether this process is the postmaster of our cluster, and not another one that got its number.
    fn is_postmaster(&self, pid: Pid) -> bool {
        let raw = pid.as_raw_nonzero().get();
        if Path::new("/proc/self/cwd").exists() {
            // It works in its data folder; a zombie has none any more.
            return fs::read_link(format!("/proc/{raw}/cwd"))
                .is_ok_and(|cwd| Some(cwd) == self.cluster.canonicalize().ok());
        }
        let shown = Command::new("ps").args(["-o", "command=", "-p", &raw.to_string()]).stderr(Stdio::null()).output();
        shown.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&*self.cluster.to_string_lossy()))
    }

    async fn answer(&self) -> Result<Answer, PostgresError> {
        if !self.lock_socket_dir().join(SOCKET_NAME).exists() {
            return Ok(Answer::Nobody);
        }
        let options = self.options().database("postgres");
        let connected = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), options.connect()).await;
        match connected {
            Err(_elapsed) => Ok(Answer::Nobody),
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                Ok(Answer::Ready)
            }
            Ok(Err(error)) => match sql_state(&error).as_deref() {
                // starting up, shutting down, recovering; too many connections
                Some("57P03" | "57P01" | "57P02" | "53300") => Ok(Answer::Busy),
                Some(_) => Err(PostgresError::Refused(error)),
                None => Ok(Answer::Nobody),
            },
        }
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.lock_socket_dir().clone())
            .port(PORT)
            .username(USER)
            .ssl_mode(PgSslMode::Disable)
            .application_name("primetrade")
    }

    async fn make_database(&self) -> Result<(), PostgresError> {
        let made = async {
            let mut connection: PgConnection = self.options().database("postgres").connect().await?;
            let exists = sqlx::query_scalar!("select exists (select from pg_database where datname = $1)", DATABASE)
                .fetch_one(&mut connection)
                .await?;
            if exists != Some(true) {
                let created = sqlx::query!("create database primetrade").execute(&mut connection).await;
                match created {
                    // Two commands at once.
                    Err(error) if matches!(sql_state(&error).as_deref(), Some("42P04" | "23505")) => {}
                    other => {
                        other?;
                    }
                }
            }
            connection.close().await
        };
        made.await.map_err(PostgresError::Refused)
    }

    fn open_log(&self) -> Result<(File, u64), PostgresError> {
        let path = self.dir.join("postgres.log");
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        if bytes > LOG_BYTES_MAX {
            let _ = fs::rename(&path, self.dir.join("postgres.log.1"));
        }
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed("write", &path))?;
        let from = file.metadata().map_or(0, |meta| meta.len());
        Ok((file, from))
    }

    fn log_since(&self, from: u64) -> String {
        let mut said = Vec::new();
        let read = File::open(self.dir.join("postgres.log")).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.take(1 << 16).read_to_end(&mut said)
        });
        let _ = read;
        String::from_utf8_lossy(&said).into_owned()
    }

    fn lock_child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_socket_dir(&self) -> std::sync::MutexGuard<'_, PathBuf> {
        self.socket_dir.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Not given back, as after an error or Ctrl-C during the start: what we started is told to stop, and not waited for.
impl Drop for Private {
    fn drop(&mut self) {
        let child = self.lock_child().take();
        if let Some(child) = child
            && self.users.try_lock().is_ok()
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::INT);
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
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(POLL_MS)).await,
        }
    }
}

fn data_major(cluster: &Path) -> Result<u32, PostgresError> {
    let version = fs::read_to_string(cluster.join("PG_VERSION")).ok();
    let major = version.and_then(|text| text.trim().split('.').next()?.parse().ok());
    major.ok_or_else(|| PostgresError::NotACluster { path: cluster.display().to_string() })
}

fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// How much write-ahead log is kept between two checkpoints, where there is so much for it and the data.
fn wal_bytes_for(there_is: u64) -> u64 {
    (there_is / WAL_PART).clamp(WAL_BYTES_MIN, WAL_BYTES_MAX)
}

/// What the files in a folder take together.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    entries.iter().filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
}

fn check_free(dir: &DataDir, bytes_min: u64) -> Result<(), PostgresError> {
    match free_bytes(dir.path()) {
        Some(free) if free < bytes_min => Err(disk_full(dir, bytes_min)),
        Some(_) | None => Ok(()),
    }
}

fn disk_full(dir: &DataDir, needed: u64) -> PostgresError {
    let free_mb = free_bytes(dir.path()).unwrap_or(0) >> 20;
    PostgresError::DiskFull { path: dir.path().display().to_string(), free_mb, needed_mb: needed >> 20 }
}

/// In the data folder, or where its path is too long for a socket, in a short private folder made from it.
fn socket_dir(dir: &DataDir) -> Result<PathBuf, PostgresError> {
    let near = dir.join("run");
    if near.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(near);
    }
    let uid = rustix::process::geteuid().as_raw();
    let id =
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, dir.path().as_os_str().as_encoded_bytes()).simple().to_string();
    let name = format!("primetrade-{uid}-{}", &id[..12]);
    let short = |parent: PathBuf| {
        let path = parent.join(&name);
        (path.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(path)
    };
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir()).and_then(short);
    let path = runtime.unwrap_or_else(|| Path::new("/tmp").join(&name));
    make_dir(&path)?;
    // Somebody else could have been there first.
    let meta = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
    if !meta.is_dir() || meta.uid() != uid || meta.permissions().mode() & 0o077 != 0 {
        return Err(PostgresError::NoSocketDir { path: path.display().to_string() });
    }
    Ok(path)
}

/// Postgres reads a comma list; a path with a comma or quote stands in double quotes.
fn socket_setting(dir: &Path) -> std::ffi::OsString {
    let mut setting = std::ffi::OsString::from("unix_socket_directories=");
    let text = dir.to_string_lossy();
    if text.contains([',', '"', ' ', '\'']) {
        setting.push(format!("\"{}\"", text.replace('"', "\"\"")));
    } else {
        setting.push(dir);
    }
    setting
}

/// What is worth repeating of a program's messages: the last lines that complain.
fn last_words(said: &str) -> String {
    let complaints = ["FATAL:", "PANIC:", "ERROR:", "error:", "HINT:", "DETAIL:"];
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told: Vec<&str> = lines
        .iter()
        .filter_map(|line| {
            let at = complaints.iter().filter_map(|word| line.find(word)).min()?;
            Some(&line[at..])
        })
        .collect();
    let chosen = if told.is_empty() { &lines } else { &told };
    let from = chosen.len().saturating_sub(3);
    if chosen.is_empty() { "it said nothing".to_owned() } else { chosen[from..].join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_down_to_what_matters() {
        let log = "2026-11-22 20:00:00 UTC [1] LOG:  starting\n2026-11-22 20:00:00 UTC [1] FATAL:  lock file \"postmaster.pid\" already exists\n2026-11-22 20:00:00 UTC [1] HINT:  Is another postmaster running?\n";
        assert_eq!(
            last_words(log),
            "FATAL:  lock file \"postmaster.pid\" already exists; HINT:  Is another postmaster running?"
        );
        assert_eq!(last_words("  \n"), "it said nothing");
    }

    #[test]
    fn the_write_ahead_log_is_bounded_by_what_the_disk_has() {
        let mb = |there_is_mb: u64| wal_bytes_for(there_is_mb << 20) >> 20;
        assert_eq!([mb(100), mb(900), mb(8_000), mb(1_000_000)], [64, 112, 1_000, 4_096]);
    }

    #[test]
    fn awkward_socket_paths_are_quoted() {
        assert_eq!(socket_setting(Path::new("/a/b")), "unix_socket_directories=/a/b");
        assert_eq!(socket_setting(Path::new("/a,\"b")), "unix_socket_directories=\"/a,\"\"b\"");
    }
}
