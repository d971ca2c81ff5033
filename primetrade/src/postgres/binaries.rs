use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backends::database::MAJOR_MIN;

use super::error::PostgresError;

/// `initdb` and `postgres` of one version.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The folder they are in.
    pub dir: PathBuf,
    /// Such as 17.
    pub major: u32,
}

impl Binaries {
    /// Those that fit the data, or the newest where there is none yet.
    ///
    /// # Errors
    /// There are none, or none that can read the data.
    pub fn find(setting: Option<&Path>, data_major: Option<u32>) -> Result<Self, PostgresError> {
        let found = match setting {
            Some(dir) => {
                vec![Self::at(dir).ok_or_else(|| PostgresError::NotThere(dir.display().to_string()))?]
            }
            None => candidates().iter().filter_map(|dir| Self::at(dir)).collect(),
        };
        choose(found, data_major)
    }

    fn at(dir: &Path) -> Option<Self> {
        if !dir.join("initdb").is_file() {
            return None;
        }
        let said = Command::new(dir.join("postgres"))
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let major = major_of(&String::from_utf8_lossy(&said.stdout))?;
        Some(Self { dir: dir.to_owned(), major })
    }

    /// The path of one of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn choose(mut found: Vec<Binaries>, data_major: Option<u32>) -> Result<Binaries, PostgresError> {
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    let Some(newest) = found.first() else { return Err(PostgresError::NotInstalled) };
    match data_major {
        None if newest.major < MAJOR_MIN => Err(PostgresError::TooOld { found: newest.major }),
        None => Ok(newest.clone()),
        Some(data) => {
            let here = found.iter().map(|b| b.major.to_string()).collect::<Vec<_>>().join(", ");
            found.into_iter().find(|b| b.major == data).ok_or(PostgresError::OtherVersion { data, here })
        }
    }
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `… 17beta2`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Where the packages of the usual systems put them, then the PATH.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let versioned = [
        // Debian, Ubuntu, SUSE; Fedora and the project's own RPMs; Homebrew on both processors; Postgres.app
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ];
    for (parent, prefix, below) in versioned {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let matching = entries.filter(|entry| starts_with(&entry.file_name(), prefix));
        dirs.extend(matching.map(|entry| entry.path().join(below)));
    }
    // Alpine
    for entry in fs::read_dir("/usr/libexec").into_iter().flatten().flatten() {
        if starts_with(&entry.file_name(), "postgresql") {
            dirs.push(entry.path());
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    dirs.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
    dirs
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.to_string_lossy().starts_with(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/pg/{major}")), major }
    }

    #[test]
    fn majors_are_read_from_what_packages_say() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("sh: not found"), None);
    }

    #[test]
    fn data_decides_else_the_newest() {
        let both = || vec![of(15), of(17)];
        assert_eq!(choose(both(), None).unwrap().major, 17);
        assert_eq!(choose(both(), Some(15)).unwrap().major, 15);
        assert!(matches!(choose(both(), Some(16)), Err(PostgresError::OtherVersion { data: 16, .. })));
        assert!(matches!(choose(vec![], None), Err(PostgresError::NotInstalled)));
        assert!(matches!(choose(vec![of(9)], None), Err(PostgresError::TooOld { found: 9 })));
    }
}
