//! The statement that looks owner versions up.

use read_model::ReadModelId;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::owner_version::{VersionRow, version_row};

/// What one lookup found.
pub(crate) struct Found {
    cache_id: Option<Uuid>,
    pub rows: Vec<(Uuid, VersionRow)>,
}

impl Found {
    /// Which read models; None while no log is known.
    pub fn read_model(&self) -> Option<ReadModelId> {
        let (_, row) = self.rows.first()?;
        Some(ReadModelId { cache_id: self.cache_id?, log_id: row.log_id?, generation: row.generation })
    }
}

pub(crate) async fn query(executor: impl PgExecutor<'_>, owners: &[Uuid]) -> Result<Found, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.cache_id, p.log_id, p.live_generation, w.owner_id as "owner_id!", o.shard as "shard?", o.revision as "revision?",
                  o.change_counter as "change_counter?", o.parked_position as "parked_position?"
           from read_model.projection p
           cross join unnest($1::uuid[]) as w (owner_id)
           left join lateral (
               select o.shard, o.revision, o.change_counter, o.parked_position from read_model.owner o
               where o.generation = p.live_generation and o.owner_id = w.owner_id limit 1
           ) o on true"#,
        owners
    )
    .fetch_all(executor)
    .await?;
    let cache_id = rows.first().map(|row| row.cache_id);
    let rows = rows.into_iter().map(|row| {
        let version = version_row!(row, generation: row.live_generation);
        (row.owner_id, version)
    });
    Ok(Found { cache_id, rows: rows.collect() })
}
