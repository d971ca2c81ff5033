//! The statements that the past is made from.

use domain::Time;
use futures_util::Stream;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::owner_version::VersionRow;

/// A row of `read_model.task_version`: a task as it was after one of its events.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    /// None: it is deleted.
    pub status: Option<i16>,
    /// None: it is purged, so it is in no list.
    pub priority: Option<i16>,
    pub created_at: Time,
    /// When it began to hold.
    pub updated_at: Time,
    pub due_at: Option<Time>,
    pub tags: Vec<String>,
    /// The title as it is compared; `None`: as in the row before.
    pub title_key: Option<String>,
    pub rank: Option<String>,
}

/// All rows of the owner, by task and version.
pub(super) fn rows(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
) -> impl Stream<Item = Result<Row, sqlx::Error>> {
    sqlx::query_as!(
        Row,
        r#"select task_id as id, status, priority, created_at, held_from as updated_at, due_at, tags, title_key, rank
           from read_model.task_version
           where generation = $1 and owner_id = $2
           order by task_id, version"#,
        version.generation,
        owner
    )
    .fetch(connection)
}

/// The rows of events after that position, in their order, so many at most.
pub(super) async fn rows_since(
    connection: &mut PgConnection,
    owner: Uuid,
    generation: i32,
    position: i64,
    rows_max: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select v.task_id as id, v.status, v.priority, v.created_at, v.held_from as updated_at, v.due_at, v.tags,
               v.title_key, v.rank
           from (
               select h.task_id, h.version, h.position from read_model.history h
               where h.generation = $1 and h.owner_id = $2 and h.position > $3 order by h.position limit $4
           ) h
           cross join lateral (
               select * from read_model.task_version v
               where v.generation = $1 and v.owner_id = $2 and v.task_id = h.task_id and v.version = h.version limit 1
           ) v
           order by h.position"#,
        generation,
        owner,
        position,
        rows_max
    )
    .fetch_all(connection)
    .await
}
