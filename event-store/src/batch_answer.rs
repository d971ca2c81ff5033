//! The whole answer of a batch under an Idempotency-Key, failed items included. Kept for a day at least.

use domain::{CommandId, OwnerId};
use uuid::Uuid;

use crate::EventStore;

/// An answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// Fingerprint of the request.
    pub fingerprint: Uuid,
    /// The body, JSON.
    pub body: String,
}

impl EventStore {
    /// The answer of an earlier batch under the same key.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn batch_answer(
        &self,
        owner_id: OwnerId,
        command_id: CommandId,
    ) -> Result<Option<BatchAnswer>, sqlx::Error> {
        sqlx::query_as!(
            BatchAnswer,
            "select fingerprint, body from event_store.batch_answer where owner_id = $1 and command_id = $2",
            owner_id.0,
            command_id.0,
        )
        .fetch_optional(&self.pool)
        .await
    }

    /// Keeps an answer, unless one is there: then that one counts. Returns the one that counts.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn keep_batch_answer(
        &self,
        owner_id: OwnerId,
        command_id: CommandId,
        answer: BatchAnswer,
    ) -> Result<BatchAnswer, sqlx::Error> {
        let kept = sqlx::query!(
            r#"
            insert into event_store.batch_answer (owner_id, command_id, fingerprint, recorded_at, body)
            values ($1, $2, $3, now(), $4)
            on conflict do nothing
            "#,
            owner_id.0,
            command_id.0,
            answer.fingerprint,
            answer.body,
        )
        .execute(&self.pool)
        .await?;
        if kept.rows_affected() == 1 {
            return Ok(answer);
        }
        Ok(self.batch_answer(owner_id, command_id).await?.unwrap_or(answer))
    }

    /// Forgets answers older than two days: a key is kept for one day at least. At most `answers_max`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn forget_old_batch_answers(&self, answers_max: i64) -> Result<u64, sqlx::Error> {
        let forgotten = sqlx::query!(
            r#"
            delete from event_store.batch_answer
            where ctid = any(array(
                select ctid from event_store.batch_answer
                where recorded_at < now() - interval '2 days'
                limit $1
            ))
            "#,
            answers_max,
        )
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
