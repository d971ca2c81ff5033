use commands::{ExecuteError, ParseError};

use crate::lines::CutError;

/// Why a line was rejected. The others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It could not be told where it ends.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The cells of a CSV record are no row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// It is no command.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Its command could not be carried out.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Why the cells of a record are no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Whose would they be?
    #[error("the row has {cells} cells, and the header {columns}")]
    Cells {
        /// How many it has.
        cells: usize,
        /// How many the header has.
        columns: usize,
    },
    /// Text in another encoding.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
}
