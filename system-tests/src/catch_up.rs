//! Waits until the read models have caught up with the log.

use std::time::Duration;

use sqlx::PgPool;

use crate::wait::until;

/// Waits until the checkpoints stand at the heads.
pub async fn checkpoints_at_heads(pool: &PgPool) {
    until("checkpoints at the heads", Duration::from_secs(60), || async {
        let behind: i64 = sqlx::query_scalar(
            "select count(*) from event_store.head h, read_model.projection p \
             where h.position > 0 and h.position is distinct from \
             (select c.position from read_model.checkpoint c \
              where c.shard = h.shard and c.generation = p.live_generation)",
        )
        .fetch_one(pool)
        .await
        .ok()?;
        (behind == 0).then_some(())
    })
    .await;
}
