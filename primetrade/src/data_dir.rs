//! The data folder: what one copy of the program keeps on disk.
//!
//! ```text
//! data/
//!   primetrade.lock   held by the server that runs on the managed PostgreSQL
//!   secret            authenticates tokens and encrypts keys at rest (0600)
//!   postgres/         the managed cluster
//!   postgres.conf     settings of the operator's own (optional)
//!   postgres.log      what the cluster says
//!   postgres.gate, postgres.users   who may start and stop it
//!   run/              its socket
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use uuid::Uuid;

/// What is kept in a data folder, by name: anything else in it is not ours.
pub const OWN_ENTRIES: [&str; 11] = [
    "primetrade.lock",
    "secret",
    "postgres",
    "postgres.new",
    "postgres.conf",
    "postgres.log",
    "postgres.log.1",
    "postgres.gate",
    "postgres.users",
    "run",
    "objects",
];

/// The managed cluster, in the data folder.
pub const CLUSTER: &str = "postgres";
/// The secret, in the data folder.
pub const SECRET: &str = "secret";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// No such permission, read-only disk, a file in its place …
    #[error("cannot {action} {path}: {source}. {}", advice(.source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing was begun there.
    #[error("there is no {} in the data folder {path}, and only primetrade serve makes one. Say where the data is with --data-dir, or give a database with --database-url", entry_name(.entry))]
    Missing {
        /// The folder.
        path: String,
        /// What is not in it.
        entry: &'static str,
    },
    /// A second server on one folder.
    #[error("the data folder {path} is in use by another copy of primetrade{}. Stop that one first, or give this one a folder of its own with --data-dir", process(.pid))]
    InUse {
        /// The folder.
        path: String,
        /// Process id of the other copy, where it could be read.
        pid: Option<String>,
    },
    /// Postgres would refuse it, and say so in its log only.
    #[error(
        "PostgreSQL refuses {path}: others may write or read there (its mode is {mode:04o}). Run: chmod 700 {path} (where Kubernetes opens it again at each start of the pod: fsGroupChangePolicy: OnRootMismatch, or a volume without fsGroup)"
    )]
    OpenCluster {
        /// The cluster's folder.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// `initdb` asks for the name.
    #[error(
        "this process runs as user id {uid}, which has no name on this machine, and PostgreSQL needs one to make its database. Give it a name (a line in /etc/passwd: primetrade:x:{uid}:{gid}::/:/sbin/nologin; with Docker: -v of such a file at /etc/passwd, or --user of a user of the image), or give a database with PRIMETRADE_DATABASE_URL"
    )]
    NoUserName {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// It is to be read by its owner alone.
    #[error(
        "others can read {path} (its mode is {mode:04o}), and with it make tokens of any account. Run: chmod 600 {path}"
    )]
    OpenSecret {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// The secret file holds something else.
    #[error(
        "{path} does not hold a secret of at least 32 characters. Put the right one back, or give it with PRIMETRADE_SECRET"
    )]
    BadSecret {
        /// The file.
        path: String,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "Make the folder writable for the user that runs primetrade, or choose another one with --data-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "The disk is full: free some space, or choose a folder on another disk with --data-dir"
        }
        _ => "Choose another folder with --data-dir",
    }
}

fn entry_name(entry: &str) -> &str {
    if entry == CLUSTER { "database" } else { entry }
}

fn process(pid: &Option<String>) -> String {
    pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A failed action on a path of the data folder, as an error.
pub fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + use<'a> {
    move |source| DataDirError::Io { action, path: path.display().to_string(), source }
}

/// A data folder that exists; its path is absolute.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Opens the folder, and makes it where it is missing (0700).
    ///
    /// # Errors
    /// It cannot be made or entered.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_dir(path)?;
        let path = path.canonicalize().map_err(failed("open the data folder", path))?;
        Ok(Self { path })
    }

    /// The absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a lock file, without locking it yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn lock_file(&self, name: &str) -> Result<File, DataDirError> {
        let path = self.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("write to the data folder:", &path))
    }

    /// Takes the folder for one server. The lock goes with the file, and so with the process.
    ///
    /// # Errors
    /// Another copy has it.
    pub fn lock_for_server(&self) -> Result<File, DataDirError> {
        let path = self.join("primetrade.lock");
        let mut file = self.lock_file("primetrade.lock")?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.read_to_string(&mut pid);
                let pid = pid.trim();
                let pid = (read.is_ok() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
                    .then(|| pid.to_owned());
                return Err(DataDirError::InUse { path: self.path.display().to_string(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed("write", &path))?;
        Ok(file)
    }

    /// The secret of this installation; made on the first call ever. Several processes may ask at once.
    ///
    /// # Errors
    /// It cannot be read or written, or is damaged.
    pub fn secret(&self) -> Result<String, DataDirError> {
        let path = self.join("secret");
        if !path.exists() {
            self.make_secret(&path)?;
        }
        let mode = mode_of(&path)?;
        if mode & 0o077 != 0 {
            return Err(DataDirError::OpenSecret { path: path.display().to_string(), mode });
        }
        let secret = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let secret = secret.trim();
        if secret.len() < 32 {
            return Err(DataDirError::BadSecret { path: path.display().to_string() });
        }
        Ok(secret.to_owned())
    }

    /// What would keep Postgres from its folder, or from making it, before it is asked to.
    ///
    /// # Errors
    /// Others may enter the folder; or this user has no name.
    pub fn check_for_postgres(&self) -> Result<(), DataDirError> {
        let cluster = self.join("postgres");
        if cluster.exists() {
            // u=rwx,g=rx is the most that Postgres takes
            let mode = mode_of(&cluster)?;
            return match mode & 0o027 {
                0 => Ok(()),
                _ => Err(DataDirError::OpenCluster { path: cluster.display().to_string(), mode }),
            };
        }
        let named = Command::new("id").arg("-un").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if named.is_ok_and(|status| !status.success()) {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            return Err(DataDirError::NoUserName { uid, gid });
        }
        Ok(())
    }

    /// Written beside, then linked: who comes second finds the first one's, never half of one.
    fn make_secret(&self, path: &Path) -> Result<(), DataDirError> {
        // Two random UUIDs: 244 bits from the system's source.
        let secret = format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let draft = self.join(&format!(".secret-{}", Uuid::new_v4().simple()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| match fs::hard_link(&draft, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // No hard links on this file system.
                Err(_) if !path.exists() => fs::rename(&draft, path),
                other => other,
            })
            .and_then(|()| File::open(&self.path)?.sync_all());
        let _ = fs::remove_file(&draft);
        written.map_err(failed("write", path))
    }
}

/// Whether a data folder holds what a command needs; makes nothing. What cannot be looked at is told by who opens it.
///
/// # Errors
/// [`DataDirError::Missing`].
pub fn require(path: &Path, entry: &'static str) -> Result<(), DataDirError> {
    match fs::metadata(path.join(entry)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(DataDirError::Missing { path: path.display().to_string(), entry })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn mode_of(path: &Path) -> Result<u32, DataDirError> {
    let meta = fs::metadata(path).map_err(failed("look at", path))?;
    Ok(meta.permissions().mode() & 0o7777)
}

/// Makes a folder (0700) and its parents (as usual).
///
/// # Errors
/// As the system says.
pub fn make_dir(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        return Ok(());
    }
    let parents = path.parent().map_or(Ok(()), fs::create_dir_all);
    let made = parents.and_then(|()| fs::DirBuilder::new().mode(0o700).create(path));
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.map_err(failed("make the folder", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let path = std::env::temp_dir().join(format!("primetrade-unit-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn the_secret_is_made_once_and_only_for_the_owner() {
        let path = scratch();
        let dir = DataDir::open(&path.join("data")).unwrap();
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| dir.secret().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0] && secret.len() == 64));
        assert_eq!(fs::metadata(dir.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(mode)).unwrap();
            let refused = dir.secret().unwrap_err().to_string();
            assert!(refused.contains("chmod 600") && refused.contains(&format!("{mode:04o}")), "{refused}");
        }
        fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(dir.join("secret"), "short").unwrap();
        assert!(matches!(dir.secret(), Err(DataDirError::BadSecret { .. })));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn one_server_at_a_time() {
        let path = scratch();
        let dir = DataDir::open(&path).unwrap();
        let first = dir.lock_for_server().unwrap();
        let refused = dir.lock_for_server().unwrap_err().to_string();
        assert!(
            refused.contains("in use by another copy") && refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        dir.lock_for_server().unwrap();
        fs::remove_dir_all(path).unwrap();
    }
}
