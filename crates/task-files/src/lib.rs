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

/// Which tasks match a filter.
mod filter;

/// The tasks that a job is about.
mod selection;

/// Tasks as a calendar.
mod calendar;

/// Writes tasks in the order in which they were chosen.
mod ordered_export;

pub use carry_out::{Carried, StoreAway, carry_out};
pub use csv_row::HeaderError;
pub use export::{CHOSEN_TASKS_MAX, ExportError, Summary, export};
pub use filter::Filter;
pub use format::{ExportFormat, Format};
pub use line_error::{LineError, RowError};
pub use lines::CutError;
pub use ordered_export::OrderedExport;
pub use reader::{NumberedLine, ParsedLine, ReadError, Reader, count_lines, made_command_id};
pub use selection::{Chosen, Selection, choose};
