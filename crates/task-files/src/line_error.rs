use commands::{ExecuteError, ParseError};

use crate::csv_row::RowError;
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
