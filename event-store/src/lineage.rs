//! Whether the log is where it was last written. After a restore, or the promotion of a standby that was behind, events
//! that others have seen may be missing, and appending would use their positions again. So the line of history that the
//! database is on (system identifier, timeline, database) is stored beside the log's id. Where the two differ nothing is
//! appended until [`Lineage::settle`] has compared the heads with every position that anybody knows: either nothing is
//! missing, and the log goes on as it is, or it gets another id.
//!
//! Of several copies one settles it, and cannot ask the others. So each of them looks whether the log has what it has seen
//! itself, on each new connection that appends and every second; where it has not, the log gets another id all the same.

use std::time::Duration;

use backends::database::Pool;
use process::health::Check;
use process::periodic::Periodic;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::dedicated_connection::in_time;
use crate::log_state::{LogState, Seen, Unsettled, look};

const LOOK_MS: u64 = 1_000;

/// What a check has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The log is where it was last written.
    AsBefore,
    /// It is elsewhere, and has every event that anybody knows. It keeps its id.
    Kept,
    /// It is elsewhere, and lacks events that others have seen. It has another id now.
    NewId,
}

/// Why it is not known yet whether events are missing.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The database does not answer.
    #[error("the event store: {0}")]
    Database(#[from] sqlx::Error),
    /// Somebody who may have seen more events cannot be asked.
    #[error("{unsettled}: {reason}. `primetrade restore-finish` decides it without asking", unsettled = Unsettled)]
    NotAsked {
        /// Who, and why not.
        reason: String,
    },
}

/// Positions of a log that have been seen, by shard; or who cannot be asked, and why.
pub type Known = Result<Vec<(i16, i64)>, String>;

/// Keeps the log settled. Cheap to clone.
#[derive(Clone)]
pub struct Lineage {
    pool: Pool,
    seen: Seen,
    trouble: watch::Sender<Option<String>>,
}

impl Lineage {
    /// Of the log in this database.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, seen: Seen::default(), trouble: watch::channel(None).0 }
    }

    /// Of a log that has to have what this process has seen of it.
    #[must_use]
    pub fn with_seen(self, seen: Seen) -> Self {
        Self { seen, ..self }
    }

    /// Where the log is not where it was last written: asks `known` which positions of the log with this id have been seen,
    /// by shard, and decides.
    ///
    /// # Errors
    /// See [`SettleError`]. Nothing was changed then.
    pub async fn settle<K: Future<Output = Known>>(&self, known: impl Fn(Uuid) -> K) -> Result<Settled, SettleError> {
        let settled = self.try_to_settle(known).await;
        let trouble = match &settled {
            // of which other checks tell
            Err(SettleError::Database(_)) => return settled,
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        };
        metrics::gauge!("event_store_unsettled").set(u8::from(trouble.is_some()));
        self.trouble.send_replace(trouble);
        settled
    }

    async fn try_to_settle<K: Future<Output = Known>>(
        &self,
        known: impl Fn(Uuid) -> K,
    ) -> Result<Settled, SettleError> {
        let looked = async { look(&mut *self.pool.acquire().await?, &self.seen).await };
        let log = in_time(looked).await?;
        let known = match (log.is_settled, self.lost(&log)) {
            (true, None) => return Ok(Settled::AsBefore),
            // nobody else need be asked
            (_, Some(_)) => None,
            (false, None) => Some(known(log.log_id).await.map_err(|reason| SettleError::NotAsked { reason })?),
        };
        Ok(in_time(self.decide(log.log_id, known.as_deref())).await?)
    }

    /// An event that this process has seen in this very log, and that is not there any more.
    fn lost(&self, log: &LogState) -> Option<(i16, i64)> {
        log.lacking.filter(|_| log.log_id == self.seen.log_id())
    }

    /// `known`: what others have seen, if they were asked.
    async fn decide(&self, log_id: Uuid, known: Option<&[(i16, i64)]>) -> Result<Settled, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query_scalar!("select log_id from event_store.log for update").fetch_one(&mut *transaction).await?;
        let log = look(&mut transaction, &self.seen).await?;
        let lost = self.lost(&log);
        // another copy was quicker; or nothing is lost any more, and nobody was asked: the next look does
        if log.log_id != log_id || lost.is_none() && (log.is_settled || known.is_none()) {
            return Ok(Settled::AsBefore);
        }
        if !log.is_settled {
            warn!(%log_id, "the log is on another server, timeline or database than the one it was last written on");
        }
        let heads = sqlx::query!("select shard, position from event_store.head").fetch_all(&mut *transaction).await?;
        let head = |shard| heads.iter().find(|head| head.shard == shard).map_or(0, |head| head.position);
        let known = known.unwrap_or_default();
        let missing = lost.or_else(|| known.iter().copied().find(|(shard, position)| *position > head(*shard)));
        let settled = match missing {
            None => {
                sqlx::query!("update event_store.log set lineage = event_store.lineage()")
                    .execute(&mut *transaction)
                    .await?;
                warn!("no event is missing: the log goes on under its id");
                Settled::Kept
            }
            Some((shard, position)) => {
                let head = head(shard);
                let new_id = give_new_id(&mut transaction).await?;
                error!(
                    former = %log_id, now = %new_id, shard, head, known = position,
                    "events are missing that others have seen: the log has another id now. Run `primetrade restore-finish`"
                );
                Settled::NewId
            }
        };
        transaction.commit().await?;
        Ok(settled)
    }

    /// Gives the log another id and begins its publication anew, whatever anybody knows: after a restore. Returns the former
    /// id and the new one.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn renew_id(&self) -> Result<(Uuid, Uuid), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let former =
            sqlx::query_scalar!("select log_id from event_store.log for update").fetch_one(&mut *transaction).await?;
        let now = give_new_id(&mut transaction).await?;
        transaction.commit().await?;
        Ok((former, now))
    }

    /// Settles the log as often as need be, until `stop`.
    pub async fn keep<K: Future<Output = Known>>(self, known: impl Fn(Uuid) -> K, stop: CancellationToken) {
        let mut looking = Periodic::every(Duration::from_millis(LOOK_MS), "checking where the log is written", stop);
        while looking.due().await {
            looking.seen(self.settle(&known).await);
        }
    }

    /// For `/readyz`.
    #[must_use]
    pub fn check(&self) -> Check {
        match &*self.trouble.borrow() {
            None => Check::ok("is where it was last written"),
            Some(reason) => Check::failed(reason.clone()),
        }
    }
}

/// Gives the log another id: what was handed out of a past that is lost is not believed. Publications begin anew, by a
/// number that none has had: numbers may be lost too, so it is taken from the clock.
pub(crate) async fn give_new_id(connection: &mut PgConnection) -> Result<Uuid, sqlx::Error> {
    sqlx::query!(
        "update event_store.relay
        set epoch = greatest(epoch + 1, extract(epoch from now())::bigint), holder = null, expires_at = '-infinity',
            publication = greatest(publication + 1, extract(epoch from now())::bigint), may_move = true"
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("update event_store.relay_cursor set position = 0, base = 0").execute(&mut *connection).await?;
    sqlx::query!("delete from event_store.relay_partition").execute(&mut *connection).await?;
    sqlx::query_scalar!(
        "update event_store.log set log_id = gen_random_uuid(), lineage = event_store.lineage() returning log_id"
    )
    .fetch_one(&mut *connection)
    .await
}
