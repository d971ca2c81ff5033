//! Tasks as files: lines and CSV rows read as commands and carried out, and an account's tasks written in each form.
//! `primetrade import` and `export` use it, and the jobs behind HTTP.

/// The forms of files.
mod format;

/// Cuts a stream into lines or CSV records.
mod lines;

/// Tasks as CSV rows.
mod csv_row;

/// Reads a file as commands.
mod reader;

/// Why a line was rejected.
mod line_error;

/// Carries out lines, each with one effect at most.
mod carry_out;

/// Writes an account's tasks.
mod export;

pub use carry_out::{Carried, StoreAway, carry_out};
pub use csv_row::HeaderError;
pub use export::{ExportError, Summary, export};
pub use format::Format;
pub use line_error::{LineError, RowError};
pub use lines::CutError;
pub use reader::{NumberedLine, ParsedLine, ReadError, Reader, count_lines, made_command_id};
