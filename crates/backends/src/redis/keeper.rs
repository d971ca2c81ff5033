//! Keeps a connection to a Redis open, and exchanges it for a younger one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::watch;
use tokio::time::timeout;

use super::address::Address;
use super::link::{Link, NotOpened, OPEN_MS_MAX};

/// A connection that takes the place of an older one is open for so long before: whoever asks for settled values of a
/// shorter time has them without a break.
pub const OVERLAP_MS: u64 = 5_000;

/// A connection older than this is replaced by a new one.
pub(super) const CONNECTION_MS_MAX: u64 = 30_000;
/// Between two attempts to open one; doubled with each that fails.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;
/// Reasons that are logged while there is no connection, each once.
const REASONS_MAX: usize = 10;

/// Keeps a connection open as long as anybody holds a handle.
pub(super) struct Keeper {
    pub address: Address,
    pub connection_ms_max: u64,
    /// Of the handles.
    pub link: Weak<watch::Sender<Option<Arc<Link>>>>,
}

impl Keeper {
    pub async fn keep_open(mut self, mut link: watch::Receiver<Option<Arc<Link>>>) {
        while let Some(opened) = self.reach().await {
            if !self.let_through(opened) {
                return;
            }
            tracing::info!("Redis answers");
            if self.renew(&mut link).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(PAUSE_MS_MIN)).await;
        }
    }

    /// A connection as soon as there is one to be had; `None`: nobody holds a handle any more.
    async fn reach(&mut self) -> Option<Link> {
        let mut failed = 0_u32;
        let mut said: Vec<String> = Vec::new();
        loop {
            let why = match self.open().await {
                Ok(opened) => return Some(opened),
                Err(why) => why.to_string(),
            };
            // another reason is news
            if said.len() < REASONS_MAX && !said.contains(&why) {
                tracing::warn!(%why, "Redis cannot be used; trying again");
                said.push(why);
            }
            let pause = Duration::from_millis((PAUSE_MS_MIN << failed.min(8)).min(PAUSE_MS_MAX));
            failed = failed.saturating_add(1);
            tokio::time::sleep(pause).await;
            if self.link.strong_count() == 0 {
                return None;
            }
        }
    }

    /// Whether there is anybody to use it.
    fn let_through(&self, opened: Link) -> bool {
        let Some(link) = self.link.upgrade() else { return false };
        gauge!("redis_up").set(1.0);
        link.send_replace(Some(Arc::new(opened)));
        true
    }

    /// Replaces the connection by a new one whenever it is old, until it is dropped.
    ///
    /// # Errors
    /// Nobody holds a handle any more.
    async fn renew(&mut self, link: &mut watch::Receiver<Option<Arc<Link>>>) -> Result<(), watch::error::RecvError> {
        let mut failing = false;
        loop {
            tokio::select! {
                dropped = link.wait_for(Option::is_none) => return dropped.map(drop),
                () = tokio::time::sleep(Duration::from_millis(self.connection_ms_max)) => {}
            }
            match self.open().await {
                Ok(younger) => {
                    failing = false;
                    // Where the older one is dropped meanwhile, this one is there already.
                    tokio::select! {
                        dropped = link.wait_for(Option::is_none) => drop(dropped?),
                        () = tokio::time::sleep(Duration::from_millis(OVERLAP_MS)) => {}
                    }
                    if !self.let_through(younger) {
                        return Ok(());
                    }
                }
                Err(why) if !failing => {
                    failing = true;
                    tracing::warn!(%why, "a new connection to Redis cannot be had; the one that is open goes on");
                }
                Err(_) => {}
            }
        }
    }

    async fn open(&mut self) -> Result<Link, NotOpened> {
        let opening = async {
            self.address.renew().await;
            let client = self.address.server().await?;
            Link::open(&client).await
        };
        timeout(Duration::from_millis(OPEN_MS_MAX), opening).await.unwrap_or(Err(NotOpened::NoAnswer))
    }
}
