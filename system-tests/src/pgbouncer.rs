//! A real PgBouncer of the test's own, as its package sets it up but for what a test names.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cluster::{Cluster, free_port, temp_dir, unprivileged};
use crate::kafka::machine;
use crate::reaper;
use crate::wait::until_blocking;

const START_MS_MAX: u64 = 60_000;

/// A running PgBouncer; killed with the test process.
pub struct PgBouncer {
    port: u16,
    child: Child,
}

impl PgBouncer {
    /// In front of this cluster; `settings` are lines of its file besides address and users.
    pub fn start(cluster: &Cluster, settings: &[&str]) -> PgBouncer {
        let found = machine("need_pgbouncer && command -v pgbouncer").output().expect("bash");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let program = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let (dir, port) = (temp_dir("pgbouncer"), free_port());
        let file = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\n{}\n",
            cluster.port(),
            dir.join("users").display(),
            settings.join("\n")
        );
        fs::write(dir.join("users"), "\"primetrade\" \"\"\n").expect("file of users");
        fs::write(dir.join("pgbouncer.ini"), file).expect("file of settings");
        let log = fs::File::create(dir.join("log")).expect("log file");
        let mut command = unprivileged(program.as_ref());
        command.arg(dir.join("pgbouncer.ini")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().expect("log file")).stderr(log).spawn().expect("pgbouncer");
        reaper::kill_at_end(child.id());
        until_blocking("PgBouncer answers", Duration::from_millis(START_MS_MAX), || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        PgBouncer { port, child }
    }

    /// Whether this version can keep prepared statements in transaction mode: 1.21 and later.
    pub fn keeps_prepared_statements() -> bool {
        let told = machine("need_pgbouncer && pgbouncer --version").output().expect("bash").stdout;
        let told = String::from_utf8_lossy(&told).into_owned();
        let version = told.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(1), Some(21))
    }

    /// URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://primetrade@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::gone(self.child.id());
    }
}
