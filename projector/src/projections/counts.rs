//! `read_model.task_count` and `read_model.day_count`: how many tasks an owner has of each status and priority, and how
//! many were created and completed on a day.
//!
//! They change by the difference between a row before and after a batch, never by "one more" for an event. In bulk they
//! are counted once all rows are there.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::NaiveDate;
use domain::OwnerId;
use read_model::TaskRow;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{Effect, Projection};
use crate::columns::columns;
use crate::differences::{Differences, EXAMPLES_MAX, Found};

pub(super) struct Counts;

#[async_trait]
impl Projection for Counts {
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let counters = Counters::of(effect);
        if counters == Counters::default() {
            return Ok(());
        }
        let (tasks, days) = (TaskColumns::of(&counters.tasks), DayColumns::of(&counters.days));
        let updated = update(&tasks, &days, generation, connection).await?;
        let is_all = |updated: i64, rows: usize| usize::try_from(updated) == Ok(rows);
        if !is_all(updated.tasks, counters.tasks.len()) {
            insert_task_counts(&tasks, generation, connection).await?;
        }
        if !is_all(updated.days, counters.days.len()) {
            insert_day_counts(&days, generation, connection).await?;
        }
        Ok(())
    }

    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
        // They have no position: each is held against the rows that it counts, within its own generation.
        let mut differences = Differences::default();
        for generation in [live, new] {
            differences.add("task_count", task_counts(connection, generation).await?);
            differences.add("day_count", day_counts(connection, generation).await?);
        }
        Ok(differences)
    }
}

/// What a row adds to its owner's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contribution {
    status: i16,
    priority: i16,
    created: NaiveDate,
    completed: Option<NaiveDate>,
}

impl Contribution {
    /// Nothing once the task is deleted.
    fn of(row: &TaskRow) -> Option<Self> {
        (!row.deleted).then(|| Self {
            status: row.task.status.code(),
            priority: row.task.priority.code(),
            created: row.task.created_at.date_naive(),
            completed: row.task.completed_at.map(|time| time.date_naive()),
        })
    }
}

/// Differences of counters, of one batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counters {
    /// By owner, status and priority.
    tasks: BTreeMap<(OwnerId, i16, i16), i64>,
    /// By owner and UTC day: created, completed.
    days: BTreeMap<(OwnerId, NaiveDate), (i64, i64)>,
}

impl Counters {
    fn of(effect: &Effect<'_>) -> Self {
        let mut counters = Self::default();
        for change in &effect.tasks {
            counters.differ(change.before.as_ref(), &change.after);
        }
        counters.settle();
        counters
    }

    /// Adds the difference between a row before and after.
    fn differ(&mut self, before: Option<&TaskRow>, after: &TaskRow) {
        let owner = after.owner_id;
        let (before, after) = (before.and_then(Contribution::of), Contribution::of(after));
        if before == after {
            return;
        }
        for (contribution, sign) in [(before, -1), (after, 1)] {
            let Some(Contribution { status, priority, created, completed }) = contribution else { continue };
            *self.tasks.entry((owner, status, priority)).or_default() += sign;
            self.days.entry((owner, created)).or_default().0 += sign;
            if let Some(completed) = completed {
                self.days.entry((owner, completed)).or_default().1 += sign;
            }
        }
    }

    /// Drops what came to nothing.
    fn settle(&mut self) {
        self.tasks.retain(|_, count| *count != 0);
        self.days.retain(|_, counts| *counts != (0, 0));
    }
}

columns!(TaskColumns for<'r> of ((owner_id, status, priority), difference): (&'r (OwnerId, i16, i16), &'r i64) {
    owner_id: Uuid = owner_id.0,
    status: i16 = *status,
    priority: i16 = *priority,
    difference: i64 = *difference,
});

columns!(DayColumns for<'r> of ((owner_id, day), (created, completed)): (&'r (OwnerId, NaiveDate), &'r (i64, i64)) {
    owner_id: Uuid = owner_id.0,
    day: NaiveDate = *day,
    created: i64 = *created,
    completed: i64 = *completed,
});

/// How many rows were there.
struct Updated {
    tasks: i64,
    days: i64,
}

/// Changes the rows that are there.
async fn update(
    tasks: &TaskColumns,
    days: &DayColumns,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<Updated, sqlx::Error> {
    sqlx::query_as!(
        Updated,
        r#"
        with task_counts as (
            update read_model.task_count as c
            set count = c.count + d.difference
            from unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::bigint[])
                as d (owner_id, status, priority, difference)
            where c.generation = $1 and c.owner_id = d.owner_id and c.status = d.status and c.priority = d.priority
            returning 1
        ),
        day_counts as (
            update read_model.day_count as c
            set created = c.created + d.created, completed = c.completed + d.completed
            from unnest($6::uuid[], $7::date[], $8::bigint[], $9::bigint[]) as d (owner_id, day, created, completed)
            where c.generation = $1 and c.owner_id = d.owner_id and c.day = d.day
            returning 1
        )
        select (select count(*) from task_counts) as "tasks!", (select count(*) from day_counts) as "days!"
        "#,
        generation,
        &tasks.owner_id,
        &tasks.status,
        &tasks.priority,
        &tasks.difference,
        &days.owner_id,
        &days.day,
        &days.created,
        &days.completed,
    )
    .fetch_one(connection)
    .await
}

/// Inserts those that have no row yet.
async fn insert_task_counts(
    tasks: &TaskColumns,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.task_count (generation, owner_id, status, priority, count)
        select $1, d.owner_id, d.status, d.priority, d.difference
        from unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::bigint[])
            as d (owner_id, status, priority, difference)
        where not exists (
            select from read_model.task_count as c
            where c.generation = $1 and c.owner_id = d.owner_id and c.status = d.status and c.priority = d.priority
        )
        "#,
        generation,
        &tasks.owner_id,
        &tasks.status,
        &tasks.priority,
        &tasks.difference,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts those that have no row yet.
async fn insert_day_counts(
    days: &DayColumns,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.day_count (generation, owner_id, day, created, completed)
        select $1, d.owner_id, d.day, d.created, d.completed
        from unnest($2::uuid[], $3::date[], $4::bigint[], $5::bigint[]) as d (owner_id, day, created, completed)
        where not exists (
            select from read_model.day_count as c
            where c.generation = $1 and c.owner_id = d.owner_id and c.day = d.day
        )
        "#,
        generation,
        &days.owner_id,
        &days.day,
        &days.created,
        &days.completed,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn task_counts(connection: &mut PgConnection, generation: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", null::uuid as "task_id?",
            format('generation %s counts %s tasks of status %s and priority %s, and has %s', $1::int,
                coalesce(a.count, 0), status, priority, coalesce(b.count, 0)) as "detail!",
            count(*) over () as "total!"
        from (
            select owner_id, status, priority, count from read_model.task_count where generation = $1 and count <> 0
        ) as a
        full join (
            select owner_id, status, priority, count(*) as count
            from read_model.task
            where generation = $1 and not deleted
            group by owner_id, status, priority
        ) as b using (owner_id, status, priority)
        where a.count is distinct from b.count
        order by owner_id, status, priority
        limit $2
        "#,
        generation,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}

async fn day_counts(connection: &mut PgConnection, generation: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", null::uuid as "task_id?",
            format('generation %s counts %s created and %s completed on %s, and has %s and %s', $1::int,
                coalesce(a.created, 0), coalesce(a.completed, 0), day, coalesce(b.created, 0),
                coalesce(b.completed, 0)) as "detail!",
            count(*) over () as "total!"
        from (
            select owner_id, day, created, completed
            from read_model.day_count
            where generation = $1 and (created, completed) <> (0, 0)
        ) as a
        full join (
            select owner_id, day, sum(created)::bigint as created, sum(completed)::bigint as completed
            from (
                select owner_id, (created_at at time zone 'UTC')::date as day, 1 as created, 0 as completed
                from read_model.task
                where generation = $1 and not deleted
                union all
                select owner_id, (completed_at at time zone 'UTC')::date, 0, 1
                from read_model.task
                where generation = $1 and not deleted and completed_at is not null
            ) as d
            group by owner_id, day
        ) as b using (owner_id, day)
        where (a.created, a.completed) is distinct from (b.created, b.completed)
        order by owner_id, day
        limit $2
        "#,
        generation,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}

#[cfg(test)]
mod tests {
    use domain::{Priority, Status, Time};
    use proptest::prelude::*;
    use read_model::Task;

    use super::*;

    /// A task's rows, one after the other: of any stage and priority, completed on any day, deleted in the end or not.
    fn rows() -> impl Strategy<Value = Vec<TaskRow>> {
        let stage = (prop::sample::select(Status::ALL), prop::sample::select(Priority::ALL), 0_i64..3);
        (prop::collection::vec(stage, 1..20), any::<bool>()).prop_map(|(stages, deleted)| {
            let mut rows: Vec<TaskRow> = stages
                .into_iter()
                .map(|(status, priority, day)| {
                    let mut task = Task::blank(Uuid::nil(), Time::UNIX_EPOCH);
                    (task.status, task.priority) = (status, priority);
                    let completed = Time::UNIX_EPOCH + chrono::TimeDelta::days(day);
                    task.completed_at = (status == Status::Completed).then_some(completed);
                    TaskRow { owner_id: OwnerId(Uuid::nil()), position: 1, deleted: false, task }
                })
                .collect();
            if let Some(last) = rows.last_mut() {
                last.deleted = deleted;
            }
            rows
        })
    }

    proptest! {
        #[test]
        fn differences_add_up_to_a_recount(rows in rows(), cuts in prop::collection::vec(0_usize..20, 0..5)) {
            // however the stream is cut into batches
            let mut counters = Counters::default();
            let mut before: Option<&TaskRow> = None;
            for (at, row) in rows.iter().enumerate() {
                if cuts.contains(&at) || at + 1 == rows.len() {
                    counters.differ(before, row);
                    before = Some(row);
                }
            }
            let mut recount = Counters::default();
            if let Some(row) = rows.last() {
                recount.differ(None, row);
                prop_assert!(!row.deleted || recount == Counters::default(), "a deleted task counts nothing");
            }
            counters.settle();
            prop_assert_eq!(counters, recount);
        }
    }
}
