//! Changes: what one request did. The events of a change have its id; one that was recorded before there were changes has
//! its command's.

use backends::database::is_disk_full;
use domain::{CommandId, OwnerId, TaskId, Time};
use uuid::Uuid;

use crate::batch_answer::LEASE_MS;
use crate::dedicated_connection::{account_in_time, in_time, page_in_time};
use crate::store::EventStore;

/// What one request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Which.
    pub id: Uuid,
    /// When its last event happened.
    pub occurred_at: Time,
    /// When its last event was stored.
    pub recorded_at: Time,
    /// `user` or `system`.
    pub actor_type: String,
    /// The account that did it.
    pub actor_id: Option<Uuid>,
    /// The change that it undoes.
    pub undoes: Option<Uuid>,
    /// How many tasks it touched.
    pub tasks: i64,
    /// How many events it has.
    pub events: i64,
    /// How many of each type: a JSON object.
    pub types: String,
}

/// What a change touched, as one snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TasksOfChange {
    /// In the order in which they stand first in it. None: the owner has no such change.
    pub task_ids: Vec<TaskId>,
    /// Whether whoever makes it is not through with it: there may be more.
    pub is_being_made: bool,
}

impl EventStore {
    /// The tasks that a change touched, at most `tasks_max`, and whether it is still being made: by a batch, an undo or an
    /// import of the command line. One statement tells both, so that nothing can come between them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn tasks_of_change(
        &self,
        owner_id: OwnerId,
        change_id: Uuid,
        tasks_max: i64,
    ) -> Result<TasksOfChange, sqlx::Error> {
        let rows = sqlx::query!(
            r#"
            with of_change as materialized (
                select owner_id, task_id, position from event_store.event where change_id = $2
                union all
                select owner_id, task_id, position from event_store.event where change_id is null and command_id = $2
            ), touched as (
                select task_id, min(position) as first_position from of_change where owner_id = $1
                group by task_id order by first_position limit $3
            ), making as (
                select exists (
                    select from event_store.batch_lease where owner_id = $1 and change_id = $2 and expires_at > now()
                ) as is_being_made
            )
            select task_id as "task_id?", is_being_made as "is_being_made!"
            from making left join touched on true
            order by first_position
            "#,
            owner_id.0,
            change_id,
            tasks_max,
        )
        .fetch_all(&self.pool);
        let rows = in_time(rows).await?;
        Ok(TasksOfChange {
            is_being_made: rows.first().is_some_and(|row| row.is_being_made),
            task_ids: rows.into_iter().filter_map(|row| row.task_id.map(TaskId)).collect(),
        })
    }

    /// The ids of the owner's changes in the order of their first events, each with the position of that one: past `after`,
    /// of events up to `until`. All events of the owner are looked at, so many ids are to be asked for at once.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn change_ids_after(
        &self,
        owner_id: OwnerId,
        after: i64,
        until: i64,
        changes_max: i64,
    ) -> Result<Vec<(Uuid, i64)>, sqlx::Error> {
        let ids = sqlx::query!(
            r#"
            select coalesce(change_id, command_id) as "id!", min(position) as "position!"
            from event_store.event
            where owner_id = $1 and position <= $3
            group by 1
            having min(position) > $2
            order by 2
            limit $4
            "#,
            owner_id.0,
            after,
            until,
            changes_max,
        )
        .fetch_all(&self.pool);
        Ok(account_in_time(ids).await?.into_iter().map(|change| (change.id, change.position)).collect())
    }

    /// These changes of the owner in the order of their first events, made of events up to `until`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn changes(
        &self,
        owner_id: OwnerId,
        change_ids: &[Uuid],
        until: i64,
    ) -> Result<Vec<ChangeRecord>, sqlx::Error> {
        let page = sqlx::query_as!(
            ChangeRecord,
            r#"
            with of_change as materialized (
                select change_id as id, task_id, type, position, occurred_at, recorded_at, actor_type, actor_id, undoes
                from event_store.event where change_id = any ($2) and owner_id = $1 and position <= $3
                union all
                select command_id, task_id, type, position, occurred_at, recorded_at, actor_type, actor_id, undoes
                from event_store.event
                where change_id is null and command_id = any ($2) and owner_id = $1 and position <= $3
            ), typed as (
                select id, type, count(*) as events, min(position) as first, max(occurred_at) as occurred_at,
                    max(recorded_at) as recorded_at, min(actor_type) as actor_type, min(actor_id::text) as actor_id,
                    min(undoes::text) as undoes
                from of_change group by id, type
            ), touched as (
                select id, count(*) as tasks from (select distinct id, task_id from of_change) as t group by id
            )
            select id as "id!", max(occurred_at) as "occurred_at!: Time", max(recorded_at) as "recorded_at!: Time",
                min(actor_type) as "actor_type!", min(actor_id)::uuid as actor_id, min(undoes)::uuid as undoes,
                min(tasks) as "tasks!", sum(events)::bigint as "events!", jsonb_object_agg(type, events)::text as "types!"
            from typed join touched using (id)
            group by id
            order by min(first)
            "#,
            owner_id.0,
            change_ids,
            until,
        )
        .fetch_all(&self.pool);
        page_in_time(page).await
    }

    /// The owner's undos with events up to `until`, each with the change that it undoes, the latest first.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn undos_of(&self, owner_id: OwnerId, until: i64) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
        let undos = sqlx::query!(
            r#"
            select coalesce(change_id, command_id) as "id!", min(undoes::text)::uuid as "undoes!" from event_store.event
            where owner_id = $1 and position <= $2 and undoes is not null
            group by 1 order by min(position) desc
            "#,
            owner_id.0,
            until,
        )
        .fetch_all(&self.pool);
        Ok(account_in_time(undos).await?.into_iter().map(|undo| (undo.id, undo.undoes)).collect())
    }

    /// From now on the change is being made, for as long as a lease lasts. Again: for as long from then on, also where the
    /// database has crashed meanwhile and knows of no lease. (Not on a full disk: there its events are refused, too.)
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn hold_change(&self, owner_id: OwnerId, change_id: Uuid) -> Result<(), sqlx::Error> {
        let held = sqlx::query!(
            r#"
            insert into event_store.batch_lease (owner_id, command_id, holder, expires_at, change_id)
            values ($1, $2, $2, now() + $3 * interval '1 ms', $2)
            on conflict (owner_id, command_id) do update set expires_at = excluded.expires_at
            "#,
            owner_id.0,
            change_id,
            LEASE_MS as f64,
        )
        .execute(&self.pool);
        match in_time(held).await {
            Err(error) if is_disk_full(&error) => Ok(()),
            held => held.map(drop),
        }
    }

    /// The change is whole.
    ///
    /// # Errors
    /// The database does not answer; then the lease expires.
    pub async fn release_change(&self, owner_id: OwnerId, change_id: Uuid) -> Result<(), sqlx::Error> {
        self.release_batch(owner_id, CommandId(change_id), change_id).await
    }
}
