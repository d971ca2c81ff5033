//! A password from standard input: one line. At a terminal it is asked for, and not shown.

use std::io::{self, BufRead, IsTerminal, Read};

use process::stderr;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

const PASSWORD_BYTES_MAX: u64 = 4 << 10;

/// The line, without its end.
///
/// # Errors
/// It cannot be read, or is no text.
pub async fn read_line() -> io::Result<String> {
    let hidden = if io::stdin().is_terminal() { Some(Hidden::begin()?) } else { None };
    let (sender, line) = oneshot::channel();
    // Not a task of the runtime: a read cannot be interrupted, and must not hold up the end.
    std::thread::spawn(move || sender.send(first_line()));
    let line = line.await.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()));
    drop(hidden);
    line
}

fn first_line() -> io::Result<String> {
    let mut line = Vec::new();
    io::stdin().lock().take(PASSWORD_BYTES_MAX).read_until(b'\n', &mut line)?;
    let line = String::from_utf8(line).map_err(|_| io::Error::other("it is not text (UTF-8)"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What is typed is not shown as long as this is there; an interrupt, too, gives the terminal back as it was.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHO);
        // but for the end of the line
        without.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &without)?;
        let hidden = Self { before };
        stderr::say("Password (it is not shown), then Enter:");
        Ok(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
