//! `read_model.checkpoint`: the position up to which a generation has every event of a shard.

use sqlx::PgConnection;

/// A row of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoint {
    pub position: i64,
    /// See [`crate::fence`].
    pub fence: i64,
}

impl Checkpoint {
    /// Once a transaction has applied so many events.
    pub(crate) fn after(self, events: usize) -> Self {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        Self { position: self.position.saturating_add(events), fence: self.fence + 1 }
    }
}

/// The checkpoint of a shard, which is made where there is none.
pub(crate) async fn load(
    connection: &mut PgConnection,
    generation: i32,
    shard: i16,
) -> Result<Checkpoint, sqlx::Error> {
    create(connection, generation, shard).await?;
    sqlx::query_as!(
        Checkpoint,
        "select position, turn as fence from read_model.checkpoint where generation = $1 and shard = $2",
        generation,
        shard,
    )
    .fetch_one(connection)
    .await
}

/// Makes the checkpoint of a shard of which nothing is applied yet.
pub(crate) async fn create(connection: &mut PgConnection, generation: i32, shard: i16) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into read_model.checkpoint (generation, shard, position) values ($1, $2, 0) on conflict do nothing",
        generation,
        shard,
    )
    .execute(connection)
    .await?;
    Ok(())
}
