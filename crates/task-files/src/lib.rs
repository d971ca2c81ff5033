//! Tasks as files: lines and CSV rows read as commands and carried out, and an account's tasks written in each form.
//! `primetrade import` and `export` use it, and the jobs behind HTTP.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

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

/// Why an account's tasks were not written.
mod export_error;

/// Which tasks are asked for.
mod filter;

/// The tasks that an export or a job is about.
mod selection;

/// Tasks and their events as they are given to their owner.
mod records;

/// Tasks as a calendar.
mod calendar;

/// Writes an account's tasks: all of them, or those that were chosen.
mod export;

pub use carry_out::{Carried, StoreAway, carry_out};
pub use csv_row::HeaderError;
pub use export::{Export, Summary, export};
pub use export_error::{CHOSEN_TASKS_MAX, ExportError};
pub use filter::parse_filter;
pub use format::{ExportFormat, Format};
pub use line_error::{LineError, RowError};
pub use lines::{CutError, LINE_BYTES_MAX};
pub use reader::{NumberedLine, ParsedLine, ReadError, Reader, count_lines, made_command_id};
pub use records::TaskRecord;
pub use selection::{Chosen, Selection, choose};
