use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use super::error::PostgresError;
use crate::data_dir::{DataDir, failed};

const LOG_BYTES_MAX: u64 = 10 << 20;

/// Where it is.
pub(super) fn path(dir: &DataDir) -> String {
    dir.join("postgres.log").display().to_string()
}

/// Opened for writing, and where new messages begin.
pub(super) fn open(dir: &DataDir) -> Result<(File, u64), PostgresError> {
    let path = dir.join("postgres.log");
    let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
    if bytes > LOG_BYTES_MAX {
        let _ = fs::rename(&path, dir.join("postgres.log.1"));
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed("write", &path))?;
    let from = file.metadata().map_or(0, |meta| meta.len());
    Ok((file, from))
}

/// The messages from there on.
pub(super) fn since(dir: &DataDir, from: u64) -> String {
    let mut said = Vec::new();
    let read = File::open(dir.join("postgres.log")).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(1 << 16).read_to_end(&mut said)
    });
    let _ = read;
    String::from_utf8_lossy(&said).into_owned()
}

/// What is worth repeating of a program's messages: the last lines that complain.
pub(super) fn last_words(said: &str) -> String {
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
}
