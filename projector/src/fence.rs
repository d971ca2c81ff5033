//! Fences: the number in the row of what feeds a generation (column `turn` of `read_model.checkpoint` and of
//! `read_model.kafka_partition`). Each transaction that writes read models raises it, and only from the value that this
//! process knows: a process that knows an older one writes nothing.

use std::sync::Arc;

use sqlx::PgConnection;

/// What feeds a stream, and its fence as it is known here.
#[derive(Debug, Clone)]
pub(crate) enum Fence {
    /// The checkpoint of a shard.
    Checkpoint { shard: i16, value: i64 },
    /// A partition of the topic.
    Partition { topic: Arc<str>, partition: i32, value: i64 },
}

impl Fence {
    /// The value as it is known here.
    pub(crate) fn value(&self) -> i64 {
        match self {
            Self::Checkpoint { value, .. } | Self::Partition { value, .. } => *value,
        }
    }

    /// Raises it in the open transaction. Returns it as it is once that is committed; `None`: another process has raised it.
    pub(crate) async fn raise(
        &self,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<Option<Self>, sqlx::Error> {
        let mut raised = self.clone();
        let found = match &mut raised {
            Self::Checkpoint { shard, value } => sqlx::query_scalar!(
                "update read_model.checkpoint set turn = turn + 1
                where generation = $1 and shard = $2 and turn = $3
                returning turn",
                generation,
                *shard,
                *value,
            )
            .fetch_optional(connection)
            .await?
            .map(|now| *value = now),
            Self::Partition { topic, partition, value } => sqlx::query_scalar!(
                "update read_model.kafka_partition set turn = turn + 1
                where topic = $1 and partition = $2 and turn = $3
                returning turn",
                &**topic,
                *partition,
                *value,
            )
            .fetch_optional(connection)
            .await?
            .map(|now| *value = now),
        };
        Ok(found.map(|()| raised))
    }
}
