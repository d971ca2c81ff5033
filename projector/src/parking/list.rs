//! What is parked, for an administrator.

use domain::Time;
use sqlx::PgConnection;
use uuid::Uuid;

/// The first event of a stream that is parked, or a message that nobody can read.
pub(crate) struct ParkedRow {
    pub id: Uuid,
    pub shard: Option<i16>,
    pub position: Option<i64>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub message_offset: Option<i64>,
    pub owner_id: Option<Uuid>,
    pub task_id: Option<Uuid>,
    pub version: Option<i64>,
    pub event_type: Option<String>,
    pub reason: String,
    pub parked_at: Time,
    /// A retry was asked for and has not been made yet.
    pub retrying: bool,
    /// Events of the same task that wait behind it.
    pub waiting: i64,
    /// Its shard; past all of them: its partition.
    group: i32,
    /// Its position, or offset.
    number: i64,
}

/// Where a row is in the list: events in the order of the log, then messages.
pub(crate) type ListPosition = (i32, i64, Uuid);

impl ParkedRow {
    pub(crate) fn list_position(&self) -> ListPosition {
        (self.group, self.number, self.id)
    }
}

/// The rows of the live generation after a position.
pub(crate) async fn list(
    connection: &mut PgConnection,
    after: Option<ListPosition>,
    rows_max: i64,
) -> Result<Vec<ParkedRow>, sqlx::Error> {
    let (group, number, id) = after.unwrap_or((i32::MIN, 0, Uuid::nil()));
    sqlx::query_as!(
        ParkedRow,
        r#"
        select k.id, k.shard, k.position, k.topic, k.partition, k.message_offset, k.owner_id, k.task_id, k.version,
            k.type as event_type, coalesce(k.shard, $4 + k.partition) as "group!",
            coalesce(k.position, k.message_offset) as "number!",
            k.reason as "reason!", k.parked_at, k.retry_at is not null as "retrying!",
            (
                select count(*) from read_model.parked as w
                where w.generation = k.generation and w.owner_id = k.owner_id and w.task_id = k.task_id
                    and w.position > k.position
            ) as "waiting!"
        from read_model.parked as k
        join read_model.projection as p on k.generation = p.live_generation
        where k.reason is not null
            and (coalesce(k.shard, $4 + k.partition), coalesce(k.position, k.message_offset), k.id) > ($1, $2, $5)
        order by coalesce(k.shard, $4 + k.partition), coalesce(k.position, k.message_offset), k.id
        limit $3
        "#,
        group,
        number,
        rows_max,
        // past all shards
        1 << 16,
        id,
    )
    .fetch_all(connection)
    .await
}

/// Asks for a retry; returns since when it is asked for, `None` where nothing of that id is parked.
pub(crate) async fn ask_for_retry(connection: &mut PgConnection, id: Uuid) -> Result<Option<Time>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        update read_model.parked as k
        set retry_at = coalesce(k.retry_at, now())
        from read_model.projection as p
        where k.id = $1 and k.generation = p.live_generation
        returning k.retry_at as "retry_at!"
        "#,
        id,
    )
    .fetch_optional(connection)
    .await
}
