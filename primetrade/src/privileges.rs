//! Root hands its privileges down before anything else happens: Postgres refuses to run as root, and nothing
//! here needs it. The program starts itself again as an ordinary user, so no thread has run yet that could keep them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use process::interrupt::Interrupt;
use process::stderr;
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::COULD_NOT_RUN;
use crate::data_dir::{self, OWN_ENTRIES};
use crate::written_file::WrittenFile;

/// Set for the process that has been handed down: the data folder's absolute path.
pub const HANDED_DOWN: &str = "PRIMETRADE_HANDED_DOWN";

/// Set when the file of `import` or `export` was opened as root and is standard input.
pub const FILE_ON_STDIN: &str = "PRIMETRADE_FILE_ON_STDIN";

/// Folders of data that cannot stand where they were asked for, because the ordinary user cannot get there.
const ELSEWHERE: &str = "/var/lib/primetrade";

/// Why root could not hand its privileges down.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// Setting or default names nobody.
    #[error(
        "there is no user {0} to run PostgreSQL as (it refuses to run as root). Name one with PRIMETRADE_RUN_AS, or start primetrade as an ordinary user"
    )]
    NoUser(String),
    /// Root again would not help.
    #[error("PRIMETRADE_RUN_AS names root, and PostgreSQL refuses to run as root. Name another user")]
    RunAsRoot,
    /// Somebody else's folder would have to change hands.
    #[error(
        "{path} holds other things than PrimeTrade's data ({entry}), so it is not given to user {user}. Choose a new folder with --data-dir"
    )]
    ForeignDir {
        /// The folder.
        path: String,
        /// One of the other things.
        entry: String,
        /// Who would have got it.
        user: String,
    },
    /// A folder above it is closed to the user.
    #[error(
        "user {user}, as whom PostgreSQL runs, cannot get to {path}: {closed} is closed to it. Choose another folder with --data-dir, or name another user with PRIMETRADE_RUN_AS"
    )]
    Unreachable {
        /// The data folder.
        path: String,
        /// The folder above that is closed.
        closed: String,
        /// Who cannot get there.
        user: String,
    },
    /// The folder could not be made.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The file to import or export.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system did not let it.
    #[error(
        "cannot go on as user {user}: {source}. Start primetrade as an ordinary user, or give it a database with PRIMETRADE_DATABASE_URL"
    )]
    Exec {
        /// As whom.
        user: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that the command works on, opened while still root.
pub enum Argument {
    /// None, or standard input or output.
    None,
    /// To read from.
    Read(PathBuf),
    /// To be written anew.
    Write(PathBuf),
}

/// An account of the operating system.
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives the data folder to an ordinary user and starts the program again as that user. Returns only on failure.
/// Where a file is written root stays, to put it into its place, and ends as the other did.
///
/// # Errors
/// No such user, a folder that cannot be given away or reached, a file that cannot be opened, or the system refuses.
pub fn run_as_user(
    run_as: Option<&str>,
    data_dir: &Path,
    file: &Argument,
    variables: &[(String, String)],
) -> Result<std::convert::Infallible, PrivilegesError> {
    let user = find_user(run_as)?;
    let data_dir = give_data_dir(data_dir, &user)?;
    // what was said of that would go with this program
    stderr::flush();
    let mut command = Command::new(own_program(&user));
    let mut args = std::env::args_os();
    command.arg0(args.next().unwrap_or_else(|| "primetrade".into()));
    command.args(args).uid(user.uid).gid(user.gid);
    command.env(HANDED_DOWN, &data_dir).env("HOME", &data_dir).env("USER", &user.name).env("LOGNAME", &user.name);
    for (name, value) in variables {
        command.env(name, value).env_remove(format!("{name}_FILE"));
    }
    let failed = |action, path: &Path| {
        let path = path.display().to_string();
        move |source| PrivilegesError::File { action, path, source }
    };
    match file {
        Argument::None => {}
        Argument::Read(path) => {
            let opened = File::open(path).map_err(failed("open", path))?;
            command.stdin(Stdio::from(opened)).env(FILE_ON_STDIN, "1");
        }
        Argument::Write(path) => {
            let written = WrittenFile::begin(path).map_err(failed("write", path))?;
            let copy = written.file().try_clone().map_err(failed("write", path))?;
            command.stdin(Stdio::from(copy)).env(FILE_ON_STDIN, "1");
            if let WrittenFile::Draft { .. } = written {
                let status = run(command).map_err(|source| PrivilegesError::Exec { user: user.name, source })?;
                if status.success() {
                    written.finish().map_err(failed("write", path))?;
                } else {
                    drop(written);
                }
                std::process::exit(status.code().unwrap_or(i32::from(COULD_NOT_RUN)));
            }
        }
    }
    Err(PrivilegesError::Exec { user: user.name, source: command.exec() })
}

/// Runs it to its end, and passes on what asks this process to stop.
fn run(mut command: Command) -> io::Result<ExitStatus> {
    // A group of its own: what is typed at a terminal comes from here only, once.
    command.process_group(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let interrupt = Interrupt::listen()?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let stop = || {
            if let Some(pid) = pid {
                // It may have ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        };
        for asked in [&interrupt.soft, &interrupt.hard] {
            tokio::select! {
                status = child.wait() => return status,
                () = asked.cancelled() => stop(),
            }
        }
        child.wait().await
    })
}

/// By way of /proc the program is found even where its folder (root's home, say) is closed to the new user.
fn own_program(user: &User) -> PathBuf {
    let by_name = std::env::current_exe().ok().filter(|path| closed_above(path, user).is_none());
    by_name.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn find_user(run_as: Option<&str>) -> Result<User, PrivilegesError> {
    let wanted = run_as.map_or_else(|| vec!["postgres", "nobody"], |name| vec![name]);
    let found = wanted.iter().find_map(|name| {
        let uid = id_of(name, "-u")?;
        let gid = id_of(name, "-g")?;
        Some(User { name: (*name).to_owned(), uid, gid })
    });
    match found {
        None => Err(PrivilegesError::NoUser(wanted.join(" or "))),
        Some(user) if user.uid == 0 => Err(PrivilegesError::RunAsRoot),
        Some(user) => Ok(user),
    }
}

fn id_of(name: &str, which: &str) -> Option<u32> {
    let output = Command::new("id").arg(which).arg("--").arg(name).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()?.trim().parse().ok())?
}

/// Makes the folder where it is missing, moves it to where the user can get where it must, and gives it away.
fn give_data_dir(wanted: &Path, user: &User) -> Result<PathBuf, PrivilegesError> {
    data_dir::make_dir(wanted)?;
    let path = wanted.canonicalize().map_err(data_dir::failed("open the data folder", wanted))?;
    let failed = data_dir::failed("look into the data folder", &path);
    let mut entries = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)?.flatten() {
        entries.push(entry.file_name());
    }
    if let Some(closed) = closed_above(&path, user) {
        if !entries.is_empty() {
            return Err(PrivilegesError::Unreachable {
                path: path.display().to_string(),
                closed: closed.display().to_string(),
                user: user.name.clone(),
            });
        }
        return move_elsewhere(&path, &closed, user);
    }
    let foreign = entries.iter().find(|name| !is_own(&name.to_string_lossy()));
    let owner = fs::symlink_metadata(&path).map_err(data_dir::failed("look at", &path))?.uid();
    if let Some(entry) = foreign
        && owner != user.uid
    {
        return Err(PrivilegesError::ForeignDir {
            path: path.display().to_string(),
            entry: entry.to_string_lossy().into_owned(),
            user: user.name.clone(),
        });
    }
    give(&path, user)?;
    for entry in entries.iter().filter(|name| is_own(&name.to_string_lossy())) {
        give_tree(&path.join(entry), user)?;
    }
    Ok(path)
}

fn is_own(name: &str) -> bool {
    OWN_ENTRIES.contains(&name) || name.starts_with(".secret-") || [".gitkeep", "lost+found"].contains(&name)
}

/// The first folder on the way to `path` that the user may not pass, by its mode.
fn closed_above(path: &Path, user: &User) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let closed = above.into_iter().find(|dir| {
        fs::metadata(dir).is_ok_and(|meta| {
            let bit = if meta.uid() == user.uid {
                0o100
            } else if meta.gid() == user.gid {
                0o010
            } else {
                0o001
            };
            meta.permissions().mode() & bit == 0
        })
    });
    closed.map(Path::to_owned)
}

/// Puts a link in the place of the (empty) folder, to one that the user can reach.
fn move_elsewhere(path: &Path, closed: &Path, user: &User) -> Result<PathBuf, PrivilegesError> {
    let name: String = path
        .to_string_lossy()
        .trim_start_matches('/')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    let parent = Path::new(ELSEWHERE);
    if !parent.is_dir() {
        data_dir::make_dir(parent)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(data_dir::failed("open up", parent))?;
    }
    let target = parent.join(name);
    data_dir::make_dir(&target)?;
    let linked = fs::remove_dir(path).and_then(|()| symlink(&target, path));
    linked.map_err(data_dir::failed("put a link in the place of", path))?;
    stderr::say(&format!(
        "note: {} is closed to user {}, as whom PostgreSQL runs; the data is kept in {}, and {} is a link to it",
        closed.display(),
        user.name,
        target.display(),
        path.display()
    ));
    give_data_dir(&target, user)
}

fn give(path: &Path, user: &User) -> Result<(), PrivilegesError> {
    let meta = fs::symlink_metadata(path).map_err(data_dir::failed("look at", path))?;
    if meta.uid() != user.uid {
        lchown(path, Some(user.uid), Some(user.gid)).map_err(data_dir::failed("give away", path))?;
    }
    Ok(())
}

/// Never follows a link: what it points to is not in the data folder.
fn give_tree(path: &Path, user: &User) -> Result<(), PrivilegesError> {
    let meta = fs::symlink_metadata(path).map_err(data_dir::failed("look at", path))?;
    // Whoever owns the folder wrote what is in it: it is looked through only when it changes hands.
    if meta.uid() == user.uid {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(data_dir::failed("look into", path))?.flatten() {
            give_tree(&entry.path(), user)?;
        }
    }
    give(path, user)
}
