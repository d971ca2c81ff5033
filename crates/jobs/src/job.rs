use std::collections::BTreeMap;

use commands::CommandIdentity;
use domain::{OwnerId, Time};
use serde::{Deserialize, Serialize};
use task_files::{ExportFormat, Format};
use uuid::Uuid;

/// The members of a filter, as in a list's query.
pub type Filters = BTreeMap<String, String>;

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Carries out the lines of a file.
    Import {
        /// Of the file.
        format: Format,
    },
    /// Writes tasks to a file.
    Export {
        /// Of the file.
        format: ExportFormat,
        /// Which tasks.
        filters: Filters,
        /// As they are after the event at this position.
        until: i64,
    },
    /// Writes everything that the account has to a file.
    Archive {
        /// As it is after the event at this position.
        until: i64,
    },
    /// Gives one command to many tasks.
    Bulk {
        /// Which tasks.
        filters: Filters,
        /// As it stands in a batch, for no task.
        command: String,
        /// The tasks are those that match after the event at this position.
        until: i64,
    },
    /// Undoes a change of very many tasks.
    Undo {
        /// Which.
        change_id: Uuid,
    },
}

/// What the result of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFormat {
    /// Tasks.
    Tasks(ExportFormat),
    /// Everything that an account has.
    Archive,
}

impl ResultFormat {
    /// The name of the file.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::Tasks(format) => format!("tasks.{}", format.as_str()),
            Self::Archive => "account.tar.gz".to_owned(),
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Tasks(format) => format.media_type(),
            Self::Archive => "application/gzip",
        }
    }
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file's lines, carried out.
    Import,
    /// Tasks, written to a file.
    Export,
    /// One command, given to many tasks.
    Bulk,
    /// A change of very many tasks, undone.
    Undo,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Import, Self::Export, Self::Bulk, Self::Undo];

    /// As it is shown and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Export => "export",
            Self::Bulk => "bulk",
            Self::Undo => "undo",
        }
    }
}

impl Request {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Import { .. } => Kind::Import,
            Self::Export { .. } | Self::Archive { .. } => Kind::Export,
            Self::Bulk { .. } => Kind::Bulk,
            Self::Undo { .. } => Kind::Undo,
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has begun it.
    Queued,
    /// Somebody carries it out, or did until a moment ago.
    Running,
    /// Carried out to the end, whatever lines failed.
    Succeeded,
    /// Could not be carried out to the end.
    Failed,
    /// Ended by its owner.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// As it is shown and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more happens to it.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A job that is asked for.
#[derive(Debug)]
pub struct NewJob {
    /// Its id, and the name of its file.
    pub id: Uuid,
    /// Whose tasks.
    pub owner: OwnerId,
    /// The owner's shard.
    pub shard: i16,
    /// What it does.
    pub request: Request,
    /// Whether it changes nothing.
    pub dry_run: bool,
    /// Present: the same request again is the same job.
    pub identity: Option<CommandIdentity>,
    /// The request id, carried into the events.
    pub correlation_id: String,
    /// The W3C trace context, carried into the events.
    pub traceparent: String,
}

/// A job, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub id: Uuid,
    /// As [`Kind::as_str`].
    pub kind: String,
    /// How far it is.
    pub state: State,
    /// How many lines there are, once that is known.
    pub total: Option<i64>,
    /// Lines that took effect, now or before.
    pub succeeded: i64,
    /// Lines that were rejected.
    pub failed: i64,
    /// Whether it changes nothing.
    pub dry_run: bool,
    /// The change that its events are of: where it has appended any, or another copy did that died.
    pub change_id: Option<Uuid>,
    /// Position of the last event that what is done stands for.
    pub revision: Option<i64>,
    /// When it was asked for.
    pub created_at: Time,
    /// When somebody began it.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Until when it is shown.
    pub expires_at: Option<Time>,
    /// How long the result is, in bytes, where there is one.
    pub result_bytes: Option<i64>,
    /// What the result is, where it is an export.
    pub format: Option<ResultFormat>,
    /// Why it failed: a problem in JSON.
    pub problem: Option<String>,
}
