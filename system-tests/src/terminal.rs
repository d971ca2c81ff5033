//! A terminal without a person: what a program shows there, and what is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::wait::until;

const SHOWN_MS_MAX: u64 = 60_000;

/// One terminal.
pub struct Terminal {
    keyboard: File,
    /// Held, so that it stays when a program ends.
    line: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A new one; all that is shown on it is kept.
    pub fn open() -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
        let name = ptsname(&ours, Vec::new()).expect("its name").into_string().expect("a path");
        let line = File::options().read(true).write(true).open(name).expect("its other end");
        let keyboard = File::from(ours);
        let mut screen = keyboard.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                kept.lock().expect("what was shown").extend_from_slice(&buffer[..count]);
            }
        });
        Terminal { keyboard, line, shown }
    }

    /// For a program's standard input, output or error.
    pub fn stdio(&self) -> Stdio {
        Stdio::from(OwnedFd::from(self.line.try_clone().expect("a descriptor")))
    }

    /// Types.
    pub fn type_in(&self, text: &str) {
        (&self.keyboard).write_all(text.as_bytes()).expect("typed");
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("what was shown")).into_owned()
    }

    /// Waits until this was shown.
    pub async fn shows(&self, text: &str) {
        until(text, Duration::from_millis(SHOWN_MS_MAX), || async { self.shown().contains(text).then_some(()) }).await;
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.line).expect("its modes").local_modes.contains(LocalModes::ECHO)
    }
}
