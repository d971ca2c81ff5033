//! Changes: what one request did. The events of a change have its id; one that was recorded before there were changes has
//! its command's.

use domain::{OwnerId, TaskId};
use uuid::Uuid;

use crate::dedicated_connection::in_time;
use crate::store::EventStore;

impl EventStore {
    /// The tasks that a change touched, in the order in which they stand first in it, at most `tasks_max`. None: the owner
    /// has no such change.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn tasks_of_change(
        &self,
        owner_id: OwnerId,
        change_id: Uuid,
        tasks_max: i64,
    ) -> Result<Vec<TaskId>, sqlx::Error> {
        let tasks = sqlx::query_scalar!(
            r#"
            with of_change as materialized (
                select owner_id, task_id, position from event_store.event where change_id = $2
                union all
                select owner_id, task_id, position from event_store.event where change_id is null and command_id = $2
            )
            select task_id as "task_id!" from of_change where owner_id = $1 group by task_id order by min(position) limit $3
            "#,
            owner_id.0,
            change_id,
            tasks_max,
        )
        .fetch_all(&self.pool);
        Ok(in_time(tasks).await?.into_iter().map(TaskId).collect())
    }

    /// Whether a batch makes this change, and is not through with it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn is_being_made(&self, owner_id: OwnerId, change_id: Uuid) -> Result<bool, sqlx::Error> {
        let leased = sqlx::query_scalar!(
            r#"
            select exists (
                select from event_store.batch_lease where owner_id = $1 and change_id = $2 and expires_at > now()
            ) as "leased!"
            "#,
            owner_id.0,
            change_id,
        )
        .fetch_one(&self.pool);
        in_time(leased).await
    }
}
