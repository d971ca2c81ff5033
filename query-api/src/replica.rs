//! A read replica: it may be behind, it may be away, it may hang. None of that makes a read wait for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backends::database::Pool;
use sqlx::Connection;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::error::ReadError;

/// How long it may take over a read, connecting included.
const READ_MS_MAX: u64 = 500;
/// How often one that is away is looked for.
const PROBE_EVERY_MS: u64 = 1_000;
/// How long it may take to connect and to say that it is there.
const PROBE_MS_MAX: u64 = 5_000;

/// A read replica. Once it has not answered in time it is left alone, until it has answered a probe
/// in the background. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replica {
    pool: Pool,
    is_there: Arc<AtomicBool>,
}

impl Replica {
    /// The pool is made by [`crate::connect`].
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        metrics::gauge!("read_replica_up").set(1.0);
        Self { pool, is_there: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether it answered when it was asked last.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Awaits a read from [`Replica::pool`], as long as one may wait for it.
    pub(crate) async fn answer<T>(&self, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        if !self.is_there() {
            return Err(ReadError::Unavailable);
        }
        match timeout(Duration::from_millis(READ_MS_MAX), read).await {
            Ok(Err(ReadError::Disconnected)) | Err(_) => {
                self.is_away();
                Err(ReadError::Unavailable)
            }
            Ok(answer) => answer,
        }
    }

    fn is_away(&self) {
        if self.is_there.swap(false, Ordering::Relaxed) {
            warn!("the read replica does not answer in time; reading at the primary");
            metrics::gauge!("read_replica_up").set(0.0);
            tokio::spawn(self.clone().look_for_it());
        }
    }

    async fn look_for_it(self) {
        while !self.pool.is_closed() {
            sleep(Duration::from_millis(PROBE_EVERY_MS)).await;
            if let Ok(Ok(())) = timeout(Duration::from_millis(PROBE_MS_MAX), self.probe()).await {
                info!("the read replica answers");
                metrics::gauge!("read_replica_up").set(1.0);
                self.is_there.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// The pool asks those of its connections that it does not trust.
    async fn probe(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        connection.ping().await
    }
}
