//! The whole answer of a batch under an Idempotency-Key, failed items included. Kept for a day at least. While there is
//! none, whoever holds the lease on the batch works on it: one process of all.

use domain::{CommandId, OwnerId};
use uuid::Uuid;

use crate::dedicated_connection::in_time;
use crate::store::EventStore;

/// How long a lease lasts that is not renewed, in milliseconds: an equal request waits so long at most for a process that
/// has died. One that was only held up for longer loses nothing but the lease: each command has its effect once.
pub const LEASE_MS: u64 = 2_500;

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
        in_time(
            sqlx::query_as!(
                BatchAnswer,
                "select fingerprint, body from event_store.batch_answer where owner_id = $1 and command_id = $2",
                owner_id.0,
                command_id.0,
            )
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Takes the lease on a batch, which makes this change, for `holder`, who has not had it before: false while somebody
    /// else has it. It ends [`LEASE_MS`] after it was taken or renewed.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn lease_batch(
        &self,
        owner_id: OwnerId,
        command_id: CommandId,
        holder: Uuid,
        change_id: Uuid,
    ) -> Result<bool, sqlx::Error> {
        let leased = in_time(
            sqlx::query!(
                r#"
            insert into event_store.batch_lease as l (owner_id, command_id, holder, expires_at, change_id)
            values ($1, $2, $3, now() + $4 * interval '1 ms', $5)
            on conflict (owner_id, command_id) do update
            set holder = excluded.holder, expires_at = excluded.expires_at, change_id = excluded.change_id
            where l.expires_at < now()
            "#,
                owner_id.0,
                command_id.0,
                holder,
                LEASE_MS as f64,
                change_id,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(leased.rows_affected() == 1)
    }

    /// Renews the holder's lease. One that somebody else has taken since, or that ended altogether, is not taken back:
    /// what the other did in between is not known here.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn renew_batch(&self, owner_id: OwnerId, command_id: CommandId, holder: Uuid) -> Result<(), sqlx::Error> {
        in_time(
            sqlx::query!(
                r#"
            update event_store.batch_lease set expires_at = now() + $4 * interval '1 ms'
            where owner_id = $1 and command_id = $2 and holder = $3
            "#,
                owner_id.0,
                command_id.0,
                holder,
                LEASE_MS as f64,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Gives the lease back, if it is the holder's.
    ///
    /// # Errors
    /// The database does not answer; then it expires.
    pub async fn release_batch(
        &self,
        owner_id: OwnerId,
        command_id: CommandId,
        holder: Uuid,
    ) -> Result<(), sqlx::Error> {
        in_time(
            sqlx::query!(
                "delete from event_store.batch_lease where owner_id = $1 and command_id = $2 and holder = $3",
                owner_id.0,
                command_id.0,
                holder,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Keeps the answer of who holds the lease, and ends the lease. False: the lease was lost, and nothing is kept.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn keep_batch_answer(
        &self,
        owner_id: OwnerId,
        command_id: CommandId,
        holder: Uuid,
        fingerprint: Uuid,
        body: &str,
    ) -> Result<bool, sqlx::Error> {
        let kept = in_time(
            sqlx::query!(
                r#"
            with ended as (
                delete from event_store.batch_lease where owner_id = $1 and command_id = $2 and holder = $3
                returning owner_id, command_id
            )
            insert into event_store.batch_answer (owner_id, command_id, fingerprint, recorded_at, body)
            select owner_id, command_id, $4, now(), $5 from ended
            on conflict do nothing
            "#,
                owner_id.0,
                command_id.0,
                holder,
                fingerprint,
                body,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Forgets answers older than two days (a key is kept for one day at least), and leases that nobody gave back. At
    /// most `answers_max` of each.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn forget_old_batch_answers(&self, answers_max: i64) -> Result<u64, sqlx::Error> {
        let forgotten = in_time(
            sqlx::query!(
                r#"
            with leases as (
                delete from event_store.batch_lease
                where ctid = any(array(
                    select ctid from event_store.batch_lease where expires_at < now() - interval '1 hour' limit $1
                ))
            )
            delete from event_store.batch_answer
            where ctid = any(array(
                select ctid from event_store.batch_answer
                where recorded_at < now() - interval '2 days'
                limit $1
            ))
            "#,
                answers_max,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(forgotten.rows_affected())
    }
}
