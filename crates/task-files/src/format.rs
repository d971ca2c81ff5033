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
