//! Whether the disk of a database has room for more. Where it has not, what would be written is refused at once and by
//! name, reads go on, and it is found out without anybody's help when there is room again.

use std::error::Error;
use std::sync::Arc;

use metrics::gauge;
use process::health::Check;
use tokio::sync::watch;

use super::sql_error::is_disk_full;

/// Whether the disk of a database has room for more. Clones share it: all who write there say what Postgres refused, and
/// ask before they write.
#[derive(Debug, Clone)]
pub struct DiskSpace(Arc<watch::Sender<Inner>>);

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
        Self(Arc::new(watch::Sender::new(Inner::default())))
    }
}

impl DiskSpace {
    /// Why nothing is written: one line for the operator. None: there is room.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let inner = self.0.borrow();
        let refused = inner.refused.then(|| "PostgreSQL has no space left on its disk".to_owned());
        let reason = inner.watched.clone().or(refused)?;
        Some(format!("{reason}; nothing is written until there is room again, reads go on"))
    }

    /// Whether [`Self::shortage`] has a reason.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.borrow().is_short()
    }

    /// For `/readyz`. Reads go on where there is no room.
    #[must_use]
    pub fn check(&self) -> Check {
        self.shortage().map_or_else(|| Check::ok("has room"), Check::failed)
    }

    /// For a watch over the disk: nothing is written for this reason, until it is called with none.
    pub fn set_watched(&self, reason: Option<String>) {
        self.change(|inner| inner.watched = reason);
    }

    /// For whoever writes: what came of it may be that Postgres has no room, and then nobody else has to try. Whoever waits
    /// for [`Self::refused`] finds out when there is some again.
    pub fn notice(&self, error: &(dyn Error + 'static)) {
        if is_disk_full(error) {
            self.set_refused(true);
        }
    }

    /// Whether Postgres has refused something for want of room, and has not taken anything since.
    pub fn set_refused(&self, refused: bool) {
        self.change(|inner| inner.refused = refused);
    }

    /// As it was set last.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.borrow().refused
    }

    /// Returns once Postgres has refused something for want of room; at once where it has.
    pub async fn refused(&self) {
        // it cannot be without a sender, which is here
        let _is_refused = self.0.subscribe().wait_for(|inner| inner.refused).await.is_ok();
    }

    /// Logged where it begins and where it ends.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let (mut before, mut after) = (false, false);
        self.0.send_modify(|inner| {
            before = inner.is_short();
            change(inner);
            after = inner.is_short();
        });
        if before == after {
            return;
        }
        gauge!("event_store_disk_full").set(u8::from(after));
        match self.shortage() {
            Some(reason) => tracing::error!(reason, "the disk is full"),
            None => tracing::info!("the disk has room again; events are taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_one_was_refused_all_know_until_there_is_room() {
        let disk_space = DiskSpace::default();
        let other = disk_space.clone();
        let at_once = Duration::from_millis(1);
        assert!(timeout(at_once, other.refused()).await.is_err(), "nobody was refused");
        other.notice(&sqlx::Error::PoolTimedOut);
        assert!(!other.is_short() && disk_space.check().is_ok(), "that is something else");
        let waits = tokio::spawn({
            let disk_space = disk_space.clone();
            async move { disk_space.refused().await }
        });
        other.set_refused(true);
        timeout(Duration::from_secs(10), waits).await.expect("told").expect("without a panic");
        disk_space.refused().await;
        assert!(disk_space.is_short() && !disk_space.check().is_ok());
        let said = disk_space.shortage().expect("a reason");
        assert!(said.contains("PostgreSQL has no space left") && said.contains("reads go on"), "{said}");
        // what is seen says more, and one of the two is enough
        disk_space.set_watched(Some("12 MB are left".to_owned()));
        assert!(disk_space.shortage().is_some_and(|said| said.starts_with("12 MB are left;")));
        disk_space.set_refused(false);
        assert!(other.is_short() && !other.is_refused());
        other.set_watched(None);
        assert_eq!(disk_space.shortage(), None);
    }
}
