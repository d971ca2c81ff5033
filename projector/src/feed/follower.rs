//! What both feeds need to follow the log, and which of them the read models belong to.

use backends::database::Pool;
use event_store::TailReader;
use tokio::sync::watch;
use tracing::warn;
use uuid::Uuid;

use crate::divergence::Alarm;

/// How often it is looked whether another generation is live, or a retry is asked for.
pub(super) const STATUS_MS: u64 = 200;

/// What the live generation is fed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Store,
    Kafka,
}

impl Feed {
    /// As it is stored.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Kafka => "kafka",
        }
    }
}

/// What every part of the live projection needs.
#[derive(Clone)]
pub(super) struct Follower {
    pub(super) pool: Pool,
    pub(super) tail: TailReader,
    pub(super) log_id: Uuid,
    /// The log is not the one that was applied.
    pub(super) alarm: Alarm,
    feed: Feed,
    applied: watch::Sender<u64>,
}

impl Follower {
    pub(super) fn new(pool: Pool, tail: TailReader, log_id: Uuid, feed: Feed, applied: watch::Sender<u64>) -> Self {
        Self { pool, tail, log_id, alarm: Alarm::new(), feed, applied }
    }

    /// Binds the read models to the log, if they are of none yet, and takes them over from the other feed.
    pub(super) async fn take_over(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let feed = sqlx::query_scalar!("select feed from read_model.projection for update")
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query!(
            "update read_model.projection set log_id = coalesce(log_id, $1), feed = $2",
            self.log_id,
            self.feed.as_str(),
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "update read_model.generation set log_id = $1 where log_id is null and state = 'live' and not exists (
                select from read_model.projection where log_id <> $1)",
            self.log_id,
        )
        .execute(&mut *transaction)
        .await?;
        if feed != self.feed.as_str() {
            warn!(from = feed, to = self.feed.as_str(), "the read models have another feed now");
            sqlx::query!(
                "update read_model.checkpoint set turn = turn + 1
                where generation = (select live_generation from read_model.projection)",
            )
            .execute(&mut *transaction)
            .await?;
            sqlx::query!("update read_model.kafka_partition set turn = turn + 1").execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Whether the read models are (still) of this log and this feed.
    pub(super) fn check(&self, log_id: Option<Uuid>, feed: &str) -> Result<(), sqlx::Error> {
        if log_id.is_some_and(|log_id| log_id != self.log_id) {
            return Err(sqlx::Error::Protocol(
                "the read models were made from another log: run `primetrade rebuild`".to_owned(),
            ));
        }
        if feed != self.feed.as_str() {
            return Err(sqlx::Error::Protocol(format!(
                "another process feeds these read models (from: {feed}); stop it and start this one again"
            )));
        }
        Ok(())
    }

    /// Tells readers in this process that there may be something new.
    pub(super) fn hint(&self) {
        self.applied.send_modify(|count| *count += 1);
    }
}
