//! The ledger: what was done to the security of accounts, written down outside of the database, so that a restore from a
//! backup does not take it back. A file to which lines of JSON are added, one for each audit event of [`ACTS`], within
//! seconds of it. No password and no address is in it.
//!
//! Copies of the program may share the file: who adds to it locks it, and adds what is not there.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backends::database::{Pool, in_time};
use domain::Time;
use process::periodic::Periodic;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Act;

/// What is written down.
pub const ACTS: [Act; 7] = [
    Act::AccountCreated,
    Act::RoleChanged,
    Act::AccountDisabled,
    Act::AccountEnabled,
    Act::PasswordChanged,
    Act::PasswordSet,
    Act::ApiKeyRevoked,
];

const LOOK_MS: u64 = 1_000;
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// So much of the ledger's end is held against the database: transactions do not end in the order of their times.
const OVERLAP_S: i64 = 60;
/// So many events are added at once.
const EVENTS_MAX: i64 = 1_000;
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Of the audit event.
    pub id: Uuid,
    /// When.
    pub at: Time,
    /// See [`ACTS`].
    pub act: String,
    /// To which account.
    pub account: Uuid,
    /// Of a role: the former and the new one, as in `user to admin`. Of an API key: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file.
    #[error("the ledger {path}: {source}")]
    File {
        /// Where it is.
        path: String,
        /// What is wrong.
        source: io::Error,
    },
    /// Not a line of a ledger.
    #[error("line {line} of the ledger {path} cannot be read: {source}")]
    Line {
        /// Where it is.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The database does not answer.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Where the ledger is.
#[derive(Debug, Clone)]
pub struct Ledger(PathBuf);

impl Ledger {
    /// In this file, which is made where there is none.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// All lines, in order; the last one may be cut off by a crash, and is then left out.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it.
    pub fn read(&self) -> Result<Vec<Line>, LedgerError> {
        let text = std::fs::read_to_string(&self.0).map_err(|source| self.failed(source))?;
        self.lines(&text)
    }

    /// Adds what happens, until `stop`.
    pub async fn keep(self, pool: Pool, stop: CancellationToken) {
        let mut looking = Periodic::every(Duration::from_millis(LOOK_MS), "writing the ledger", stop);
        while looking.due().await {
            looking.seen(self.add_new(&pool).await);
        }
    }

    /// Adds the events of the database that it lacks; returns how many.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn add_new(&self, pool: &Pool) -> Result<usize, LedgerError> {
        let tail = self.clone();
        let tail = tokio::task::spawn_blocking(move || tail.open().and_then(|mut file| tail.tail(&mut file)));
        let tail = tail.await.map_err(|error| self.failed(io::Error::other(error)))??;
        let from = tail.last().map(|last| last.at - chrono::TimeDelta::seconds(OVERLAP_S));
        let known: Vec<Uuid> =
            tail.iter().filter(|line| from.is_none_or(|from| line.at > from)).map(|line| line.id).collect();
        let events = in_time(LOOK_TIME_MAX, events_since(pool, from, &known)).await?;
        if events.is_empty() {
            return Ok(0);
        }
        let ledger = self.clone();
        let added = tokio::task::spawn_blocking(move || ledger.add(&events));
        added.await.map_err(|error| self.failed(io::Error::other(error)))?
    }

    /// Under a lock, since another copy may have added them meanwhile. On disk when it returns.
    fn add(&self, events: &[Line]) -> Result<usize, LedgerError> {
        let mut file = self.open()?;
        file.lock().map_err(|source| self.failed(source))?;
        let known: HashSet<Uuid> = self.tail(&mut file)?.iter().map(|line| line.id).collect();
        let new: Vec<&Line> = events.iter().filter(|event| !known.contains(&event.id)).collect();
        let mut text = if self.is_cut_off(&mut file)? { String::from("\n") } else { String::new() };
        for line in &new {
            text.push_str(&serde_json::to_string(line).map_err(|error| self.failed(io::Error::other(error)))?);
            text.push('\n');
        }
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(|source| self.failed(source))?;
        Ok(new.len())
    }

    fn open(&self) -> Result<File, LedgerError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        options.open(&self.0).map_err(|source| self.failed(source))
    }

    /// The last lines.
    fn tail(&self, file: &mut File) -> Result<Vec<Line>, LedgerError> {
        let mut read = || {
            let length = file.seek(SeekFrom::End(0))?;
            let from = length.saturating_sub(TAIL_BYTES_MAX);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // it may begin in the middle of a line
            Ok(if from == 0 {
                text
            } else {
                text.split_once('\n').map_or_else(String::new, |(_, whole)| whole.to_owned())
            })
        };
        let text = read().map_err(|source| self.failed(source))?;
        self.lines(&text)
    }

    fn is_cut_off(&self, file: &mut File) -> Result<bool, LedgerError> {
        let mut read = || {
            if file.seek(SeekFrom::End(0))? == 0 {
                return Ok(false);
            }
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            Ok(last != *b"\n")
        };
        read().map_err(|source| self.failed(source))
    }

    /// A line that a crash has cut off stands before the next one, or at the end.
    fn lines(&self, text: &str) -> Result<Vec<Line>, LedgerError> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                Err(error) if error.is_eof() => {}
                Err(source) => {
                    return Err(LedgerError::Line { path: self.0.display().to_string(), line: number, source });
                }
            }
        }
        Ok(lines)
    }

    fn failed(&self, source: io::Error) -> LedgerError {
        LedgerError::File { path: Path::display(&self.0).to_string(), source }
    }
}

async fn events_since(pool: &Pool, from: Option<Time>, known: &[Uuid]) -> Result<Vec<Line>, sqlx::Error> {
    let acts: Vec<String> = ACTS.iter().map(|act| act.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"select id, occurred_at as "at: Time", act, account_id as "account!", detail from identity.audit_event
           where act = any($1) and account_id is not null and ($2::timestamptz is null or occurred_at > $2)
             and id <> all($3)
           order by occurred_at, id limit $4"#,
        &acts,
        from,
        known,
        EVENTS_MAX
    )
    .fetch_all(pool)
    .await?;
    let lines = rows.into_iter().map(|row| Line {
        id: row.id,
        at: row.at,
        act: row.act,
        account: row.account,
        detail: row.detail,
    });
    Ok(lines.collect())
}
