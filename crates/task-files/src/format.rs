use serde::{Deserialize, Serialize};

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A command a line, as JSON.
    #[serde(rename = "ndjson")]
    Ndjson,
    /// Values with a separator between, after a header; a row is a task.
    #[serde(rename = "csv")]
    Csv,
}

/// What an account's tasks are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Commands that rebuild the same tasks when they are imported.
    Ndjson,
    /// A row for each task.
    Csv,
    /// A calendar (RFC 5545).
    Ics,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Ics];

    /// Its name, and what files of it end in.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ics => "ics",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ics => "text/calendar; charset=utf-8",
        }
    }
}
