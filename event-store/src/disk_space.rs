//! Whether the disk has room for more events. Where it has not, appends are refused at once and by name, everything else
//! goes on, and it is found out without anybody's help when there is room again.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;
use process::health::Check;

/// Whether the disk has space for more events. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskSpace(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the watch over the disk says.
    watched: Option<String>,
    /// Postgres has said so, and has not taken anything since.
    refused: bool,
}

impl Inner {
    fn is_short(&self) -> bool {
        self.refused || self.watched.is_some()
    }
}

impl Default for DiskSpace {
    fn default() -> Self {
        gauge!("event_store_disk_full").set(0);
        Self(Arc::default())
    }
}

impl DiskSpace {
    /// Why no event is taken: one line for the operator. None: there is room.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let inner = self.lock();
        let refused = inner.refused.then(|| "PostgreSQL has no space left on its disk".to_owned());
        let reason = inner.watched.clone().or(refused)?;
        Some(format!("{reason}; nothing is written until there is room again, reads go on"))
    }

    /// For `/readyz`. Reads go on where there is no room.
    #[must_use]
    pub fn check(&self) -> Check {
        self.shortage().map_or_else(|| Check::ok("has room"), Check::failed)
    }

    /// For a watch over the disk: no event is taken for this reason, until it is called with none.
    pub fn set_watched(&self, reason: Option<String>) {
        self.change(|inner| inner.watched = reason);
    }

    pub(crate) fn set_refused(&self, refused: bool) {
        self.change(|inner| inner.refused = refused);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.lock().refused
    }

    pub(crate) fn is_short(&self) -> bool {
        self.lock().is_short()
    }

    /// Logged where it begins and where it ends.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let (before, after) = {
            let mut inner = self.lock();
            let before = inner.is_short();
            change(&mut inner);
            (before, inner.is_short())
        };
        if before == after {
            return;
        }
        gauge!("event_store_disk_full").set(u8::from(after));
        match self.shortage() {
            Some(reason) => tracing::error!(reason, "the disk is full"),
            None => tracing::info!("the disk has room again; events are taken"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
