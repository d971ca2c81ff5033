//! How many connections there may be, which depends on how many files may be open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CONNECTIONS_MAX: usize = 10_000;
/// Of one address, and at most a quarter of all.
const ADDRESS_CONNECTIONS_MAX: usize = 256;
/// Open files that are left to everything else.
const OTHER_FILES: u64 = 256;
/// Lets this process have as many open files as the system allows it, of which a connection is one; how many that is.
pub(crate) fn raise_open_files() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

/// Connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// What comes beyond is accepted once another one is closed.
    pub connections_max: usize,
    /// What comes beyond is closed.
    pub address_connections_max: u32,
}

impl Room {
    pub fn within(files: Option<u64>) -> Self {
        let left = files.and_then(|files| usize::try_from(files.saturating_sub(OTHER_FILES)).ok());
        let connections_max = left.unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX);
        let of_address = (connections_max / 4).clamp(1, ADDRESS_CONNECTIONS_MAX);
        Self { connections_max, address_connections_max: u32::try_from(of_address).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_connections_as_files_can_be_open() {
        let room = |connections_max, address_connections_max| Room { connections_max, address_connections_max };
        for (files, expected) in [
            (None, room(10_000, 256)),
            (Some(1 << 20), room(10_000, 256)),
            (Some(4_096), room(3_840, 256)),
            (Some(1_024), room(768, 192)),
            (Some(257), room(1, 1)),
            (Some(64), room(1, 1)),
        ] {
            assert_eq!(Room::within(files), expected, "{files:?}");
        }
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let fewer = Rlimit { current: Some(maximum.unwrap_or(1_000).min(1_000) - 1), maximum };
        setrlimit(Resource::Nofile, fewer).expect("fewer");
        assert_eq!(raise_open_files(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
