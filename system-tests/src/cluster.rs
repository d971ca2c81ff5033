//! A Postgres cluster of the test's own: durable (fsync on), on a free port, as an unprivileged user.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::reaper;
use crate::wait::{until, until_blocking};

const START_MS_MAX: u64 = 60_000;

/// A running cluster; ended with the test process.
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    settings: Vec<String>,
    postmaster: Mutex<Option<Child>>,
}

impl Cluster {
    /// The one that all tests of a binary share.
    pub fn shared() -> Arc<Cluster> {
        static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Cluster::start(&[]))))
    }

    /// One of its own, for tests that kill it. `settings` are `name=value`.
    pub fn start(settings: &[&str]) -> Cluster {
        let dir = temp_dir("pg");
        let bin = postgres_bin();
        if is_root() {
            let owner = format!("{}:", unprivileged_user());
            run(Command::new("chown").arg(&owner).arg(&dir));
        }
        run(unprivileged(&bin.join("initdb"))
            .args(["-U", "primetrade", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync", "-D"])
            .arg(dir.join("data"))
            .stdout(Stdio::null()));
        Self::of(dir, bin, settings.iter().map(ToString::to_string).collect())
    }

    /// A standby that streams from this one and is named `standby` there.
    pub fn standby(&self) -> Cluster {
        let (dir, bin) = (temp_dir("standby"), self.bin.clone());
        if is_root() {
            let owner = format!("{}:", unprivileged_user());
            run(Command::new("chown").arg(&owner).arg(&dir));
        }
        let primary = format!("host=127.0.0.1 port={} user=primetrade application_name=standby", self.port);
        run(unprivileged(&bin.join("pg_basebackup"))
            .args(["-d", &primary, "-R", "-c", "fast", "-D"])
            .arg(dir.join("data")));
        Self::of(dir, bin, self.settings.clone())
    }

    /// Makes a standby the primary; its clients stay.
    pub async fn promote(&self) {
        let data = self.dir.join("data");
        run(unprivileged(&self.bin.join("pg_ctl")).args(["promote", "-w", "-D"]).arg(data).stdout(Stdio::null()));
    }

    fn of(dir: PathBuf, bin: PathBuf, settings: Vec<String>) -> Cluster {
        let cluster = Cluster { dir, bin, port: free_port(), settings, postmaster: Mutex::new(None) };
        cluster.spawn();
        until_blocking("Postgres answers", Duration::from_millis(START_MS_MAX), || cluster.answers().then_some(()));
        cluster
    }

    /// URL of a database in it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://primetrade@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Makes an empty database and gives its name.
    pub async fn create_database(&self) -> String {
        let name = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("the cluster's own database");
        sqlx::query(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .expect("create database");
        name
    }

    /// A database on a disk of its own, which has so many MB. None: only root may mount one, and not in every container.
    pub async fn create_database_on_a_disk_of_mb(&self, mb: u32) -> Option<(String, SmallDisk)> {
        let disk = SmallDisk { at: self.dir.join("disk") };
        fs::create_dir(&disk.at).expect("a folder for the disk");
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={mb}m")]).then_some(())?;
        run(Command::new("chown").arg(format!("{}:", unprivileged_user())).arg(&disk.at));
        let name = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("the cluster's own database");
        let at = disk.at.display();
        for sql in
            [format!("create tablespace small location '{at}'"), format!("create database {name} tablespace small")]
        {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a database on it");
        }
        Some((name, disk))
    }

    /// `kill -9` of the postmaster: its backends notice and leave without a shutdown checkpoint.
    pub fn kill(&self) {
        let mut postmaster = self.postmaster.lock().expect("postmaster");
        let mut child = postmaster.take().expect("running");
        child.kill().expect("kill -9");
        child.wait().expect("wait");
        reaper::gone(child.id());
    }

    /// Starts it again after [`Cluster::kill`] and waits until it has recovered.
    pub async fn restart(&self) {
        until("Postgres recovered", Duration::from_millis(START_MS_MAX), || async {
            if self.exited() {
                // backends of the killed one may still hold the shared memory: try again
                self.spawn();
            }
            self.answers().then_some(())
        })
        .await;
    }

    fn spawn(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("log file");
        let mut command = unprivileged(&self.bin.join("postgres"));
        command
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=300"])
            // whose line it is
            .args(["-c", "log_line_prefix=%m [%p] %d "])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command.spawn().expect("postgres");
        reaper::quit_at_end(child.id());
        *self.postmaster.lock().expect("postmaster") = Some(child);
    }

    fn exited(&self) -> bool {
        let mut postmaster = self.postmaster.lock().expect("postmaster");
        let ended = match postmaster.as_mut() {
            None => return true,
            Some(child) => matches!(child.try_wait(), Ok(Some(_)) | Err(_)),
        };
        if ended && let Some(child) = postmaster.take() {
            reaper::gone(child.id());
        }
        ended
    }

    fn answers(&self) -> bool {
        TcpStream::connect(self.address()).is_ok()
            && Command::new(self.bin.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success())
    }

    /// The errors in its log that a client of this database caused.
    pub fn errors(&self, database_url: &str) -> Vec<String> {
        let database = database_url.rsplit('/').next().expect("a database");
        let log = fs::read_to_string(self.dir.join("log")).expect("log file");
        let of_database = format!(" {database} ERROR:");
        log.lines().filter(|line| line.contains(&of_database)).map(str::to_owned).collect()
    }

    /// Programs of this Postgres: `psql`, `pgbench`, `pg_test_fsync`.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }

    /// Folder on the same disk as the data, writable for the user that Postgres runs as.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its processes: the postmaster, one for each connection, and others.
    pub fn pids(&self) -> Vec<u32> {
        let postmaster = self.postmaster.lock().expect("postmaster").as_ref().expect("running").id();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(postmaster).chain(children).collect()
    }
}

/// A small disk, until it is dropped.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// From now on it has so many MB.
    pub fn becomes(&self, mb: u32) {
        assert!(self.mount(&["-o", &format!("remount,size={mb}m")]));
    }

    fn mount(&self, options: &[&str]) -> bool {
        let mounted = Command::new("mount").args(options).arg("tmpfs").arg(&self.at).output();
        mounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Postgres may still have files open
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// A small pool for the test's own looks into a database.
pub async fn pool(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("database URL");
    PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(20))
        .connect_with(options)
        .await
        .expect("connect to the database")
}

/// A folder that goes away with the test process.
pub fn temp_dir(kind: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("primetrade-{kind}-{}", Uuid::new_v4().simple()));
    fs::create_dir(&dir).expect("temporary folder");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("permissions");
    reaper::remove_at_end(&dir);
    dir
}

/// A port that nobody listens on, below the range from which outgoing connections take theirs.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static START: OnceLock<u16> = OnceLock::new();
    let start = *START.get_or_init(|| (std::process::id() % 1_000) as u16 * 20);
    (0..20_000)
        .map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// A number that no other call in this process gets.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unprivileged_user() -> &'static str {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

/// A command that runs as an ordinary user also when root starts it: Postgres refuses to run as root.
pub fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let user = unprivileged_user();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", group_of(user).as_str(), "--clear-groups", "--"])
        .arg(program)
        .current_dir("/");
    command
}

fn group_of(user: &str) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")))
        .and_then(|line| line.split(':').nth(3))
        .unwrap_or("65534")
        .to_owned()
}

fn postgres_bin() -> PathBuf {
    let on_path =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|v| v.path().join("bin")).collect())
        .unwrap_or_default();
    packaged.sort();
    packaged
        .into_iter()
        .rev()
        .chain(on_path)
        .find(|dir| dir.join("initdb").exists())
        .expect("Postgres' server programs (Debian: postgresql)")
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}
