//! `read_model.change`: a row for each change, with what it is made of. A change of many tasks comes in several batches,
//! and grows. In bulk they are counted once the history is there.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{OwnerId, StoredEvent, TaskId};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{Effect, Projection};
use crate::columns::columns;
use crate::differences::{Differences, EXAMPLES_MAX, Found};

pub(super) struct Changes;

#[async_trait]
impl Projection for Changes {
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let mut parts: BTreeMap<ChangeKey, Part<'_>> = BTreeMap::new();
        for applied in &effect.events {
            let event = applied.event;
            let part = parts.entry((event.owner_id, event.change()));
            part.or_insert_with(|| Part::starting_with(event)).add(event);
        }
        if parts.is_empty() {
            return Ok(());
        }
        let touched =
            parts.iter().flat_map(|(key, part)| part.tasks.iter().map(move |(task, version)| (key, task, version)));
        add(&Columns::of(&parts), &Touched::of(touched), generation, connection).await
    }

    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
        // Each generation's changes are held against its own history: they grow, so the generations differ while one is behind.
        let found = sqlx::query_as!(
            Found,
            r#"
            select owner_id as "owner_id?", null::uuid as "task_id?",
                format('generation %s, change %s: %s', generation, change_id,
                    case when a is null then 'missing' when b is null then 'has no events' else 'not as its events make it' end)
                    as "detail!",
                count(*) over () as "total!"
            from (
                select generation, owner_id, change_id, (tasks, position, last_position, undoes, types)::text as a
                from read_model.change where generation in ($1, $2)
            ) as a
            full join (
                select g as generation, c.owner_id, c.change_id,
                    (c.tasks, c.position, c.last_position, c.undoes, c.types)::text as b
                from unnest(array[$1::int, $2::int]) as g, read_model.changes_of('read_model.history', g) as c
            ) as b using (generation, owner_id, change_id)
            where a is distinct from b
                and generation >= (select complete_from from read_model.projected_table where name = 'change')
            order by generation, owner_id, change_id
            limit $3
            "#,
            live,
            new,
            EXAMPLES_MAX,
        )
        .fetch_all(connection)
        .await?;
        Ok(Differences::found("change", found))
    }
}

/// Whose change it is, and its id.
type ChangeKey = (OwnerId, Uuid);

/// What a batch adds to a change.
pub(crate) struct Part<'a> {
    /// Of its first and last event.
    position: i64,
    last_position: i64,
    undoes: Option<Uuid>,
    /// The number of events by type.
    types: BTreeMap<&'a str, i64>,
    /// Each with the version of its first event.
    tasks: BTreeMap<TaskId, i64>,
}

impl<'a> Part<'a> {
    fn starting_with(event: &StoredEvent) -> Self {
        Self {
            position: event.position,
            last_position: event.position,
            undoes: event.undoes,
            types: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    fn add(&mut self, event: &'a StoredEvent) {
        // a parked event is applied later than its position says
        self.position = self.position.min(event.position);
        self.last_position = self.last_position.max(event.position);
        *self.types.entry(&event.event_type).or_default() += 1;
        self.tasks.entry(event.task_id).or_insert(event.version);
    }
}

columns!(Columns for<'r> of ((owner_id, change_id), part): (&'r ChangeKey, &'r Part<'r>) {
    owner_id: Uuid = owner_id.0,
    change_id: Uuid = *change_id,
    tasks: i32 = i32::try_from(part.tasks.len()).unwrap_or(i32::MAX),
    position: i64 = part.position,
    last_position: i64 = part.last_position,
    undoes: Option<Uuid> = part.undoes,
    types: String = json!(part.types).to_string(),
});

columns!(Touched for<'r> of ((owner_id, change_id), task_id, version): (&'r ChangeKey, &'r TaskId, &'r i64) {
    owner_id: Uuid = owner_id.0,
    change_id: Uuid = *change_id,
    task_id: Uuid = task_id.0,
    version: i64 = *version,
});

async fn add(
    columns: &Columns,
    touched: &Touched,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    // A task that the change has touched in a batch before counts once. The history has it: its row of then is there.
    sqlx::query!(
        r#"
        with part as (
            select * from unnest($2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bigint[], $7::uuid[], $8::text[])
                as p (owner_id, change_id, tasks, position, last_position, undoes, types)
        ),
        touched as (
            select * from unnest($9::uuid[], $10::uuid[], $11::uuid[], $12::bigint[])
                as t (owner_id, change_id, task_id, version)
        ),
        grown as (
            update read_model.change as c
            set position = least(c.position, part.position),
                last_position = greatest(c.last_position, part.last_position),
                tasks = c.tasks + part.tasks - (
                    select count(*) from touched as t
                    where t.owner_id = c.owner_id and t.change_id = c.change_id and exists (
                        select from read_model.history as h
                        where h.generation = $1 and h.owner_id = t.owner_id and h.task_id = t.task_id
                            and h.version < t.version and h.change_id = t.change_id)
                ),
                types = (
                    select jsonb_object_agg(key, events) from (
                        select key, sum(value::bigint) as events
                        from (select * from jsonb_each_text(c.types)
                              union all select * from jsonb_each_text(part.types::jsonb)) as each
                        group by key
                    ) as total
                )
            from part
            where c.generation = $1 and c.owner_id = part.owner_id and c.change_id = part.change_id
            returning c.owner_id, c.change_id
        )
        insert into read_model.change (generation, owner_id, change_id, tasks, position, last_position, undoes, types)
        select $1, p.owner_id, p.change_id, p.tasks, p.position, p.last_position, p.undoes, p.types::jsonb
        from part as p
        where (p.owner_id, p.change_id) not in (select * from grown)
        "#,
        generation,
        &columns.owner_id,
        &columns.change_id,
        &columns.tasks,
        &columns.position,
        &columns.last_position,
        &columns.undoes as &[Option<Uuid>],
        &columns.types,
        &touched.owner_id,
        &touched.change_id,
        &touched.task_id,
        &touched.version,
    )
    .execute(connection)
    .await?;
    Ok(())
}
