use domain::InvalidFields;

use crate::json::NotJson;

/// How long the text of one command may be, in bytes.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// How many commands a batch has at most.
pub const COMMANDS_MAX: usize = 10_000;

/// Why a text is no command, or no batch of commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is longer than [`COMMAND_BYTES_MAX`].
    #[error("a command has at most {COMMAND_BYTES_MAX} bytes")]
    TooLong,
    /// There are more than [`COMMANDS_MAX`] commands.
    #[error("a batch has at most {COMMANDS_MAX} commands")]
    TooManyCommands,
    /// It is not JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// All fields that are wrong.
    #[error("{} fields are wrong", .0.errors().len())]
    Fields(InvalidFields),
}

impl From<InvalidFields> for ParseError {
    fn from(invalid: InvalidFields) -> Self {
        Self::Fields(invalid)
    }
}
