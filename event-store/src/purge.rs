//! How far the tasks are purged that were deleted long ago. Several copies may be at it: each deletion is dealt with at least
//! once, and purging a task twice has no effect.

use domain::{OwnerId, TaskId, Time};
use uuid::Uuid;

use crate::dedicated_connection::in_time;
use crate::store::EventStore;

/// A task was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Where in its shard.
    pub position: i64,
    /// Whose task.
    pub owner_id: OwnerId,
    /// Which task.
    pub task_id: TaskId,
    /// The task's version after it.
    pub version: i64,
}

/// The next deletions of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDeletions {
    /// Those after which nothing has happened to their task.
    pub deletions: Vec<Deletion>,
    /// Position of the last one that was looked at.
    pub until: i64,
}

impl EventStore {
    /// The next deletions of a shard that nobody has dealt with, as far as they were recorded before then, of at most
    /// `deletions_max` that are looked at. None: there are none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn deletions_before(
        &self,
        shard: i16,
        before: Time,
        deletions_max: i64,
    ) -> Result<Option<DueDeletions>, sqlx::Error> {
        // As it stands, with a limit on either side, it is so many steps in the index of deletions, each with one in that of
        // streams. With `not exists` Postgres may prefer to read the whole log, and there is no limit to what is looked at.
        let rows = sqlx::query!(
            r#"
            select d.position as "position!", d.owner_id as "owner_id!", d.task_id as "task_id!", d.version as "version!",
                d.recorded_at as "recorded_at!: Time", later.version is null as "is_last!"
            from (
                select position, owner_id, task_id, version, recorded_at
                from event_store.event
                where type = 'TaskDeleted' and shard = $1
                    and position > coalesce((select p.position from event_store.purge p where p.shard = $1), 0)
                order by position
                limit $2
            ) d
            left join lateral (
                select e.version from event_store.event e
                where e.owner_id = d.owner_id and e.task_id = d.task_id and e.version = d.version + 1
                limit 1
            ) later on true
            order by d.position
            "#,
            shard,
            deletions_max,
        )
        .fetch_all(&self.pool);
        // Batches that waited for one another may have been recorded a moment out of order: none is passed over.
        let rows = in_time(rows).await?.into_iter().take_while(|row| row.recorded_at < before);
        let (mut deletions, mut until) = (Vec::new(), None);
        for row in rows {
            until = Some(row.position);
            if row.is_last {
                deletions.push(Deletion {
                    position: row.position,
                    owner_id: OwnerId(row.owner_id),
                    task_id: TaskId(row.task_id),
                    version: row.version,
                });
            }
        }
        Ok(until.map(|until| DueDeletions { deletions, until }))
    }

    /// All deletions of a shard up to this position are dealt with, but for those that are `left`: they are tried again.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn purged_until(&self, shard: i16, position: i64, left: &[Deletion]) -> Result<(), sqlx::Error> {
        let positions: Vec<i64> = left.iter().map(|deletion| deletion.position).collect();
        let owners: Vec<Uuid> = left.iter().map(|deletion| deletion.owner_id.0).collect();
        let tasks: Vec<Uuid> = left.iter().map(|deletion| deletion.task_id.0).collect();
        let versions: Vec<i64> = left.iter().map(|deletion| deletion.version).collect();
        let update = sqlx::query!(
            r#"
            with left_behind as (
                insert into event_store.purge_left (shard, position, owner_id, task_id, version)
                select $1::smallint, l.position, l.owner_id, l.task_id, l.version
                from unnest($3::bigint[], $4::uuid[], $5::uuid[], $6::bigint[]) as l (position, owner_id, task_id, version)
                on conflict do nothing
            )
            insert into event_store.purge as p (shard, position) values ($1, $2)
            on conflict (shard) do update set position = greatest(p.position, $2)
            "#,
            shard,
            position,
            &positions,
            &owners,
            &tasks,
            &versions,
        );
        in_time(update.execute(&self.pool)).await.map(drop)
    }

    /// The deletions of a shard that were left, past this position.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn deletions_left(
        &self,
        shard: i16,
        after: i64,
        deletions_max: i64,
    ) -> Result<Vec<Deletion>, sqlx::Error> {
        let rows = sqlx::query!(
            r#"
            select position, owner_id, task_id, version from event_store.purge_left
            where shard = $1 and position > $2 order by position limit $3
            "#,
            shard,
            after,
            deletions_max,
        )
        .fetch_all(&self.pool);
        let rows = in_time(rows).await?.into_iter();
        Ok(rows
            .map(|row| Deletion {
                position: row.position,
                owner_id: OwnerId(row.owner_id),
                task_id: TaskId(row.task_id),
                version: row.version,
            })
            .collect())
    }

    /// These of the deletions that were left are dealt with.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn forget_deletions_left(&self, shard: i16, positions: &[i64]) -> Result<(), sqlx::Error> {
        let forgotten = sqlx::query!(
            "delete from event_store.purge_left where shard = $1 and position = any ($2)",
            shard,
            positions,
        );
        in_time(forgotten.execute(&self.pool)).await.map(drop)
    }
}
