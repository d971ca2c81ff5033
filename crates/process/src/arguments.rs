//! The arguments of a program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::stderr;

/// Exit status of what could not be told.
const NOT_TOLD: u8 = 2;

/// The arguments, or the exit status where they are wrong or ask for help, which was given then.
///
/// # Errors
/// There is nothing more to be done.
pub fn read<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|said| {
        let printed = said.print().and_then(|()| io::stdout().flush());
        match printed {
            // who asked for help wants to know; who reads no further has had enough
            Err(error) if !said.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
                stderr::say(&format!("error: standard output: {error}"));
                stderr::flush();
                ExitCode::from(NOT_TOLD)
            }
            Ok(()) | Err(_) => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(NOT_TOLD)),
        }
    })
}
