use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backends::database::sql_state;
use rustix::process::Pid;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use super::binaries::Binaries;
use super::disk::{NEW_FREE_BYTES_MIN, bytes_in, check_free, disk_full, free_bytes, is_said_to_be_full};
use super::error::PostgresError;
use super::server_log;
use crate::data_dir::{DataDir, failed, make_dir};

const USER: &str = "primetrade";
const DATABASE: &str = "primetrade";
const PORT: u16 = 5432;
/// The socket's file in its folder.
pub(super) const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// What fits into `sockaddr_un.sun_path` everywhere (Linux 108, others 104), without the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 103;
const CONNECT_MS_MAX: u64 = 5_000;
/// The write-ahead log takes at most this part of what there is for it, within the bounds after it.
const WAL_PART: u64 = 8;
/// At least so much.
pub(super) const WAL_BYTES_MIN: u64 = 64 << 20;
const WAL_BYTES_MAX: u64 = 4 << 30;

/// A cluster in a data folder.
pub(super) struct Cluster {
    pub(super) dir: DataDir,
    pub(super) path: PathBuf,
    pub(super) binaries: Binaries,
    socket_dir: Mutex<PathBuf>,
}

/// Who answers where, as `postmaster.pid` tells.
pub(super) struct PidFile {
    pub(super) pid: Option<Pid>,
    pub(super) socket_dir: Option<PathBuf>,
}

/// What a look at the cluster from outside found.
pub(super) enum Answer {
    Ready,
    /// Starting, recovering or stopping.
    Busy,
    /// Nobody at the socket.
    Nobody,
}

impl Cluster {
    /// The cluster of a data folder, whether it exists already or not.
    pub(super) fn of(dir: &DataDir, bin_setting: Option<&Path>) -> Result<Self, PostgresError> {
        let path = dir.join("postgres");
        // Looked for first, so that a machine without them says so and not something about the disk.
        let binaries = Binaries::find(bin_setting, if path.exists() { Some(data_major(&path)?) } else { None })?;
        Ok(Self { dir: dir.clone(), socket_dir: Mutex::new(socket_dir(dir)?), path, binaries })
    }

    /// Makes the cluster beside its place and moves it there when it is whole.
    pub(super) async fn initialise(&self) -> Result<(), PostgresError> {
        check_free(&self.dir, NEW_FREE_BYTES_MIN)?;
        tracing::info!(path = %self.path.display(), version = self.binaries.major, "making a managed PostgreSQL");
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
            if is_said_to_be_full(&said) {
                return Err(disk_full(&self.dir, NEW_FREE_BYTES_MIN));
            }
            return Err(PostgresError::InitFailed {
                path: draft.display().to_string(),
                said: server_log::last_words(&said),
            });
        }
        let conf = draft.join("postgresql.conf");
        let included = OpenOptions::new().append(true).open(&conf).and_then(|mut file| {
            file.write_all(b"\ninclude_if_exists 'primetrade.conf'\ninclude_if_exists '../postgres.conf'\n")?;
            file.sync_all()
        });
        included.map_err(failed("write", &conf))?;
        fs::rename(&draft, &self.path).map_err(failed("move into place", &draft))?;
        let synced = File::open(self.dir.path()).and_then(|dir| dir.sync_all());
        Ok(synced.map_err(failed("write", self.dir.path()))?)
    }

    /// What suits a laptop and this program. Written at every start; `postgres.conf` of the data folder comes after it.
    pub(super) async fn write_settings(&self) -> Result<(), PostgresError> {
        let compression = if self.binaries.major >= 15 && self.knows_lz4().await { "lz4" } else { "on" };
        let there_is = free_bytes(&self.path).unwrap_or(u64::MAX).saturating_add(bytes_in(&self.path.join("pg_wal")));
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
             # Statements hold what people wrote.\n\
             log_min_error_statement = panic\n"
        );
        let path = self.path.join("primetrade.conf");
        fs::write(&path, text).map_err(failed("write", &path))?;
        Ok(())
    }

    /// Not every package is built with it.
    async fn knows_lz4(&self) -> bool {
        let mut command = tokio::process::Command::from(self.command("postgres"));
        command.arg("-D").arg(&self.path).args(["-c", "wal_compression=lz4", "-C", "wal_compression"]);
        let asked = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.await.is_ok_and(|status| status.success())
    }

    /// One of Postgres' programs, free of what the caller's environment says about other servers.
    pub(super) fn command(&self, program: &str) -> Command {
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

    /// What the server says of itself.
    pub(super) fn pid_file(&self) -> PidFile {
        let text = fs::read_to_string(self.path.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let pid =
            lines.first().and_then(|line| line.trim().parse::<i32>().ok()).and_then(|pid| Pid::from_raw(pid.abs()));
        let socket_dir = lines.get(4).filter(|line| line.starts_with('/')).map(PathBuf::from);
        PidFile { pid, socket_dir }
    }

    /// Whether this process is the postmaster of our cluster, and not another one that got its number.
    pub(super) fn is_postmaster(&self, pid: Pid) -> bool {
        let raw = pid.as_raw_nonzero().get();
        if Path::new("/proc/self/cwd").exists() {
            // It works in its data folder; a zombie has none any more.
            return fs::read_link(format!("/proc/{raw}/cwd"))
                .is_ok_and(|cwd| Some(cwd) == self.path.canonicalize().ok());
        }
        let shown = Command::new("ps").args(["-o", "command=", "-p", &raw.to_string()]).stderr(Stdio::null()).output();
        shown.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&*self.path.to_string_lossy()))
    }

    /// Whether it takes connections.
    pub(super) async fn answer(&self) -> Result<Answer, PostgresError> {
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

    /// Makes the program's database where there is none.
    pub(super) async fn make_database(&self) -> Result<(), PostgresError> {
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

    /// How to reach its database.
    pub(super) fn connect_options(&self) -> PgConnectOptions {
        self.options().database(DATABASE)
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.lock_socket_dir().clone())
            .port(PORT)
            .username(USER)
            .ssl_mode(PgSslMode::Disable)
            .application_name("primetrade")
    }

    /// Where its socket is.
    pub(super) fn lock_socket_dir(&self) -> MutexGuard<'_, PathBuf> {
        self.socket_dir.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn data_major(cluster: &Path) -> Result<u32, PostgresError> {
    let version = fs::read_to_string(cluster.join("PG_VERSION")).ok();
    let major = version.and_then(|text| text.trim().split('.').next()?.parse().ok());
    major.ok_or_else(|| PostgresError::NotACluster { path: cluster.display().to_string() })
}

/// How much write-ahead log is kept between two checkpoints, where there is so much for it and the data.
fn wal_bytes_for(there_is: u64) -> u64 {
    (there_is / WAL_PART).clamp(WAL_BYTES_MIN, WAL_BYTES_MAX)
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
pub(super) fn socket_setting(dir: &Path) -> std::ffi::OsString {
    let mut setting = std::ffi::OsString::from("unix_socket_directories=");
    let text = dir.to_string_lossy();
    if text.contains([',', '"', ' ', '\'']) {
        setting.push(format!("\"{}\"", text.replace('"', "\"\"")));
    } else {
        setting.push(dir);
    }
    setting
}

#[cfg(test)]
mod tests {
    use super::*;

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
