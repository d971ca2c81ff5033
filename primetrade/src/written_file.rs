//! A file that a command writes: whole, or not at all. What stood there before stays until the new one is on disk.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tempfile::NamedTempFile;
use tokio::io::AsyncWrite;

/// As of any file that is made: the user's mask takes bits away.
const MODE_NEW: u32 = 0o666;

/// A file on its way.
#[derive(Debug)]
pub enum WrittenFile {
    /// A device or a pipe: there is nothing to replace.
    Direct(File),
    /// A draft beside the file whose place it takes in the end. Dropped, it goes away.
    Draft {
        /// What is written to.
        draft: NamedTempFile,
        /// Whose place it takes.
        path: PathBuf,
    },
}

impl WrittenFile {
    /// Begins. Where `path` is a link, the file that it leads to is meant.
    ///
    /// # Errors
    /// It is a folder, may not be written, or nothing can be made beside it.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let before = match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(meta) if !meta.is_file() => return Ok(Self::Direct(OpenOptions::new().write(true).open(path)?)),
            Ok(meta) => {
                // Who may not write to it may not replace it either.
                OpenOptions::new().write(true).open(path)?;
                Some(meta)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let path = if before.is_some() { path.canonicalize()? } else { path.to_owned() };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        let draft = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(MODE_NEW))
            .tempfile_in(folder_of(&path))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot make a file beside it: {error}")))?;
        if let Some(before) = before {
            // Only root may give files away; a new file is the user's own anyway.
            let _ = fchown(draft.as_file(), Some(before.uid()), Some(before.gid()));
            draft.as_file().set_permissions(before.permissions())?;
        }
        Ok(Self::Draft { draft, path })
    }

    /// What is written to.
    #[must_use]
    pub fn file(&self) -> &File {
        match self {
            Self::Direct(file) => file,
            Self::Draft { draft, .. } => draft.as_file(),
        }
    }

    /// All is written: to disk with it, and then into its place.
    ///
    /// # Errors
    /// The disk is full or broken; what stood there before still does.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Draft { draft, path } => {
                draft.as_file().sync_all()?;
                draft.persist(&path).map_err(|error| error.error)?;
                File::open(folder_of(&path))?.sync_all()
            }
        }
    }
}

/// What is written to at once, for those who would wait: a command has nothing else to do meanwhile.
#[derive(Debug)]
pub struct AtOnce<W>(pub W);

impl<W: Write + Unpin> AsyncWrite for AtOnce<W> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().0.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().0.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.ndjson");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link");
        symlink("tasks.ndjson", &link).unwrap();

        let abandoned = WrittenFile::begin(&path).unwrap();
        abandoned.file().write_all(b"half").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(abandoned);
        assert_eq!(names(dir.path()), ["link", "tasks.ndjson"]);

        let written = WrittenFile::begin(&link).unwrap();
        written.file().write_all(b"new").unwrap();
        written.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link leads to it still");
        assert_eq!(names(dir.path()), ["link", "tasks.ndjson"]);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let written = WrittenFile::begin(Path::new("/dev/null")).unwrap();
        assert!(matches!(written, WrittenFile::Direct(_)));
        written.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(WrittenFile::begin(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(WrittenFile::begin(&dir.path().join("no/where")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
