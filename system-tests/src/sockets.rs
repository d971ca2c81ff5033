//! The TCP connections of a process, and what the kernel does about another end of them that is silent. A copy of each
//! socket is fetched from the process, which needs the right to trace it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_user_timeout};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `ESTABLISHED`, as the kernel's tables have it.
const ESTABLISHED: &str = "01";

/// The ports of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of this end.
    pub here: u16,
    /// Of the other one.
    pub there: u16,
}

/// What the kernel does about another end that is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Whether an idle connection is asked (`SO_KEEPALIVE`).
    pub keepalive: bool,
    /// After so long (`TCP_KEEPIDLE`).
    pub idle_max: Duration,
    /// How long what was sent may stay without confirmation (`TCP_USER_TIMEOUT`); zero: as long as the kernel goes on
    /// sending it.
    pub unconfirmed_max: Duration,
}

impl Silence {
    fn of(socket: &File) -> io::Result<Self> {
        Ok(Self {
            keepalive: socket_keepalive(socket)?,
            idle_max: tcp_keepidle(socket)?,
            unconfirmed_max: Duration::from_millis(tcp_user_timeout(socket)?.into()),
        })
    }
}

/// The established connections of a process whose ports are wanted; none of a process that is gone.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`]: its sockets cannot be had.
pub fn connections(pid: u32, is_wanted: impl Fn(Ports) -> bool) -> io::Result<Vec<(Ports, Silence)>> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(Vec::new()),
        process => process?,
    };
    let established = established(pid);
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        descriptors => descriptors?,
    };
    let mut found = Vec::new();
    for entry in descriptors.flatten() {
        let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket_inode(&link)) else { continue };
        let Some(ports) = established.get(&inode).copied().filter(|ports| is_wanted(*ports)) else { continue };
        let socket = match pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty()) {
            // closed meanwhile, or the process ended
            Err(Errno::BADF | Errno::SRCH) => continue,
            socket => File::from(socket?),
        };
        // The number may be another socket's by now.
        if socket.metadata()?.ino() == inode {
            found.push((ports, Silence::of(&socket)?));
        }
    }
    Ok(found)
}

/// `socket:[12345]`
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// All established connections where the process is, by the inode of the socket.
fn established(pid: u32) -> HashMap<u64, Ports> {
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(connection)).collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn connection(line: &str) -> Option<(u64, Ports)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let port = |column: usize| u16::from_str_radix(columns.get(column)?.rsplit_once(':')?.1, 16).ok();
    if *columns.get(3)? != ESTABLISHED {
        return None;
    }
    Some((columns.get(9)?.parse().ok()?, Ports { here: port(1)?, there: port(2)? }))
}
