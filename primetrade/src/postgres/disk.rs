use std::fs;
use std::path::Path;

use super::error::PostgresError;
use crate::data_dir::DataDir;

/// What a new cluster takes, with room to work.
pub(super) const NEW_FREE_BYTES_MIN: u64 = 256 << 20;
/// What a start takes.
pub(super) const FREE_BYTES_MIN: u64 = 48 << 20;

pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// What the files in a folder take together.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    entries.iter().filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
}

pub(super) fn check_free(dir: &DataDir, bytes_min: u64) -> Result<(), PostgresError> {
    match free_bytes(dir.path()) {
        Some(free) if free < bytes_min => Err(disk_full(dir, bytes_min)),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn disk_full(dir: &DataDir, needed: u64) -> PostgresError {
    let free_mb = free_bytes(dir.path()).unwrap_or(0) >> 20;
    PostgresError::DiskFull { path: dir.path().display().to_string(), free_mb, needed_mb: needed >> 20 }
}

/// Whether a program complains that the disk is full.
pub(super) fn is_said_to_be_full(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Disk quota exceeded")
}
