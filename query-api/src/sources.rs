//! Where reads come from.

use std::time::Duration;

use backends::database::{Pool, PoolTransaction};
use backends::redis::Redis;

use crate::replica::Replica;

/// How long the end of each pool is waited for.
const CLOSE_MS_MAX: u64 = 1_000;

/// Where reads come from. Pools are made by [`crate::connect`].
#[derive(Clone, Debug)]
pub struct Sources {
    /// The read models as the projector writes them.
    pub primary: Pool,
    /// A replica of them, which may be behind: asked first, where there is one.
    pub replica: Option<Replica>,
    /// What is shared with other processes; whatever it does, answers are right.
    pub redis: Option<Redis>,
}

impl Sources {
    /// One database and nothing else.
    #[must_use]
    pub fn of(primary: Pool) -> Self {
        Self { primary, replica: None, redis: None }
    }

    /// The source that is asked first, while there is nothing wrong.
    pub(crate) fn nearest(&self) -> &Pool {
        self.replica.as_ref().map_or(&self.primary, Replica::pool)
    }

    /// Closes the pools. Connections that hang, or are being made to a database that is away, are not waited for.
    pub async fn close(&self) {
        let limit = Duration::from_millis(CLOSE_MS_MAX);
        let _hanging = tokio::time::timeout(limit, self.primary.close()).await;
        if let Some(replica) = &self.replica {
            let _hanging = tokio::time::timeout(limit, replica.pool().close()).await;
        }
    }
}

/// A transaction whose statements see one snapshot and are planned each time, for their arguments: which index offers most
/// depends on them.
pub(crate) async fn planned(pool: &Pool) -> Result<PoolTransaction, sqlx::Error> {
    let mut transaction = pool.begin_snapshot().await?;
    sqlx::query!(
        "select set_config('plan_cache_mode', 'force_custom_plan', true) as a, set_config('enable_bitmapscan', 'on', true) as b,
             set_config('enable_sort', 'on', true) as c"
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(transaction)
}
