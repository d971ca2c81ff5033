//! Puts events aside that cannot be applied, and those of the same stream that come after them.

use std::collections::HashMap;

use domain::{OwnerId, StoredEvent, TaskId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::projections::Stream;

const REASON_CHARACTERS_MAX: usize = 500;

/// What is said of an error of the database.
pub(crate) fn reason(error: &sqlx::Error) -> String {
    let text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    short(&text)
}

/// A reason as it is logged and stored.
pub(crate) fn short(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX).collect()
}

/// Events that are to be parked, as columns.
#[derive(Debug, Default)]
pub(crate) struct ToPark {
    shard: Vec<i16>,
    position: Vec<i64>,
    owner: Vec<Uuid>,
    task: Vec<Uuid>,
    version: Vec<i64>,
    event_type: Vec<String>,
    reason: Vec<Option<String>>,
    json: Vec<String>,
}

impl ToPark {
    /// `reason` is `None` for an event that waits behind another one.
    pub(crate) fn push(&mut self, event: &StoredEvent, reason: Option<String>) {
        #[expect(clippy::expect_used, reason = "a struct of strings, numbers and times always serialises")]
        let json = serde_json::to_string(event).expect("an event serialises");
        self.shard.push(event.shard);
        self.position.push(event.position);
        self.owner.push(event.owner_id.0);
        self.task.push(event.task_id.0);
        self.version.push(event.version);
        self.event_type.push(event.event_type.clone());
        self.reason.push(reason);
        self.json.push(json);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.position.is_empty()
    }

    /// Writes them; without any the database is not asked.
    pub(crate) async fn write(&self, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.is_empty() {
            return Ok(());
        }
        let positions = self.shard.iter().zip(&self.position);
        let ids: Vec<Uuid> = positions.map(|(shard, position)| id(generation, *shard, *position)).collect();
        sqlx::query!(
            r#"
            insert into read_model.parked (id, generation, shard, position, owner_id, task_id, version, type, reason,
                parked_at, event)
            select p.id, $1, p.shard, p.position, p.owner_id, p.task_id, p.version, p.type, p.reason, now(), p.event
            from unnest($2::uuid[], $3::smallint[], $4::bigint[], $5::uuid[], $6::uuid[], $7::bigint[], $8::text[],
                $9::text[], $10::text[]) as p (id, shard, position, owner_id, task_id, version, type, reason, event)
            "#,
            generation,
            &ids,
            &self.shard,
            &self.position,
            &self.owner,
            &self.task,
            &self.version,
            &self.event_type,
            &self.reason as &[Option<String>],
            &self.json,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The id of a parked event: the same each time it is parked in the same generation.
fn id(generation: i32, shard: i16, position: i64) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("parked {generation} {shard} {position}").as_bytes())
}

/// The streams of these events that have something parked, with the position of the last of it.
pub(crate) async fn load(
    events: &[&StoredEvent],
    generation: i32,
    connection: &mut PgConnection,
) -> Result<HashMap<Stream, i64>, sqlx::Error> {
    let (owners, tasks): (Vec<Uuid>, Vec<Uuid>) =
        events.iter().map(|event| (event.owner_id.0, event.task_id.0)).unzip();
    let parked = sqlx::query!(
        r#"
        select p.owner_id as "owner_id!", p.task_id as "task_id!", max(p.position) as "last!"
        from (select distinct * from unnest($2::uuid[], $3::uuid[]) as k (owner_id, task_id)) as k
        join read_model.parked as p
            on p.generation = $1 and p.owner_id = k.owner_id and p.task_id = k.task_id and p.position is not null
        group by p.owner_id, p.task_id
        "#,
        generation,
        &owners,
        &tasks,
    )
    .fetch_all(connection)
    .await?;
    Ok(parked.into_iter().map(|row| ((OwnerId(row.owner_id), TaskId(row.task_id)), row.last)).collect())
}
