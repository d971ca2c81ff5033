//! Whether what must always hold of a log does, on a live database. Each look is one statement over a bounded range (but for
//! one that groups by command id inside of Postgres), so no snapshot is held open for long and no memory grows with the log.

use backends::database::Pool;
use domain::Time;
use uuid::Uuid;

const RANGE_POSITIONS: i64 = 100_000;
const PAGE_ROWS: i64 = 20_000;
/// Of each kind so many findings are given one by one; the rest is counted.
pub const SHOWN_MAX: usize = 20;

/// What was found of one kind.
#[derive(Debug)]
pub struct Found<T> {
    /// The first of them.
    pub shown: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

impl<T> Found<T> {
    /// From the first rows of a query, each of which has the number of all, `total`; each is shown as `finding`.
    pub fn of<Row>(rows: Vec<Row>, total: impl FnOnce(&Row) -> i64, finding: impl FnMut(Row) -> T) -> Self {
        let total = rows.first().map_or(0, |row| total(row).unsigned_abs());
        Self { shown: rows.into_iter().map(finding).collect(), total }
    }

    fn nothing() -> Self {
        Self { shown: Vec::new(), total: 0 }
    }

    fn add(&mut self, finding: T) {
        self.total += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(finding);
        }
    }
}

/// Events of an owner that are later than a time.
#[derive(Debug)]
pub struct LaterEvents {
    /// Whose.
    pub owner_id: Uuid,
    /// How many.
    pub events: i64,
    /// When the first of them happened.
    pub first: Time,
    /// When the last of them happened.
    pub last: Time,
}

/// A deleted task.
#[derive(Debug)]
pub struct DeletedTask {
    /// Whose.
    pub owner_id: Uuid,
    /// Which.
    pub task_id: Uuid,
    /// When its deletion was recorded.
    pub recorded_at: Time,
}

/// A shard whose head is not at its last event.
#[derive(Debug)]
pub struct WrongHead {
    /// Which.
    pub shard: i16,
    /// What the head says, if there is one.
    pub head: Option<i64>,
    /// The last event's position; 0: there is none.
    pub last: i64,
}

/// What is wrong with positions of a shard.
#[derive(Debug)]
pub enum WrongPositions {
    /// So many events stand before the first position.
    BeforeFirst(i64),
    /// Two events stand at this one.
    Repeated(i64),
    /// No event stands at these, from the first to the last.
    Missing(i64, i64),
}

/// A version that does not follow the one before it.
#[derive(Debug)]
pub struct WrongVersion {
    /// Whose.
    pub owner_id: Uuid,
    /// Of which task.
    pub task_id: Uuid,
    /// The version.
    pub version: i64,
    /// The one that was to come.
    pub expected: i64,
}

/// A command id whose events are not one effect.
#[derive(Debug)]
pub struct ScatteredEvents {
    /// Whose.
    pub owner_id: Uuid,
    /// The id.
    pub command_id: Uuid,
    /// How many events it has.
    pub events: i64,
}

/// A remembered command that does not agree with the log.
#[derive(Debug)]
pub struct WrongCommand {
    /// Whose.
    pub owner_id: Uuid,
    /// Its id.
    pub command_id: Uuid,
    /// Which task it was about.
    pub task_id: Uuid,
    /// Up to which version.
    pub version: i64,
    /// The position that was answered.
    pub revision: i64,
    /// The change that was answered; none: the command made no event, or is older than changes.
    pub change_id: Option<Uuid>,
    /// The position at which that version is; none: it is not in the log.
    pub position: Option<i64>,
    /// The change that this version is of.
    pub event_change_id: Option<Uuid>,
}

impl WrongCommand {
    fn is_right(&self) -> bool {
        self.position == Some(self.revision) && (self.change_id.is_none() || self.change_id == self.event_change_id)
    }
}

/// The constraints by which Postgres itself watches over what it is trusted with, and that are missing or not valid.
///
/// # Errors
/// The database does not answer.
pub async fn missing_constraints(pool: &Pool) -> Result<Vec<String>, sqlx::Error> {
    let missing = sqlx::query_scalar!(
        r#"
        select wanted.name as "name!"
        from unnest(array['event_position', 'event_stream_version', 'command_id']) wanted (name)
        where not exists (
            select from pg_constraint c
            join pg_namespace n on n.oid = c.connamespace
            join pg_index i on i.indexrelid = c.conindid
            where n.nspname = 'event_store' and c.conname = wanted.name and i.indisvalid and i.indisunique)
        "#
    );
    missing.fetch_all(pool).await
}

/// Owners with events that happened after `time`, those with the most first.
///
/// # Errors
/// The database does not answer.
pub async fn later_events(pool: &Pool, time: Time) -> Result<Found<LaterEvents>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select owner_id, count(*) as "events!", min(occurred_at) as "first!: Time", max(occurred_at) as "last!: Time",
            count(*) over () as "owners!"
        from event_store.event
        where occurred_at > $1
        group by owner_id
        order by count(*) desc, owner_id
        limit $2
        "#,
        time,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(
        rows,
        |row| row.owners,
        |row| LaterEvents { owner_id: row.owner_id, events: row.events, first: row.first, last: row.last },
    ))
}

/// Tasks whose deletion was recorded before `time`, and after which nothing has happened to them.
///
/// # Errors
/// The database does not answer.
pub async fn unpurged(pool: &Pool, time: Time) -> Result<Found<DeletedTask>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select owner_id, task_id, recorded_at as "recorded_at: Time", count(*) over () as "tasks!"
        from event_store.event e
        where type = 'TaskDeleted' and recorded_at < $1
            and not exists (
                select from event_store.event later
                where later.owner_id = e.owner_id and later.task_id = e.task_id and later.version = e.version + 1)
        order by recorded_at, task_id
        limit $2
        "#,
        time,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(
        rows,
        |row| row.tasks,
        |row| DeletedTask { owner_id: row.owner_id, task_id: row.task_id, recorded_at: row.recorded_at },
    ))
}

/// Compares head and last event of each shard, in one snapshot: a live log moves on between two statements.
///
/// # Errors
/// The database does not answer.
pub async fn wrong_heads(pool: &Pool) -> Result<Vec<WrongHead>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select shard as "shard!", head.position as head,
            (select max(position) from event_store.event e where e.shard = shards.shard) as last
        from (select shard from event_store.head union select distinct shard from event_store.event) shards
        left join event_store.head using (shard)
        order by shard
        "#
    )
    .fetch_all(pool)
    .await?;
    let shards =
        rows.into_iter().map(|row| WrongHead { shard: row.shard, head: row.head, last: row.last.unwrap_or(0) });
    Ok(shards.filter(|shard| shard.head != Some(shard.last)).collect())
}

/// Looks for every position of a shard from 1 to its head once. `advance` is told how many were looked at.
///
/// # Errors
/// The database does not answer.
pub async fn positions(
    pool: &Pool,
    shard: i16,
    head: i64,
    advance: &mut (dyn FnMut(u64) + Send),
) -> Result<Found<WrongPositions>, sqlx::Error> {
    let mut found = Found::nothing();
    let before = sqlx::query_scalar!(
        r#"select count(*) as "count!" from event_store.event where shard = $1 and position < 1"#,
        shard
    );
    let before = before.fetch_one(pool).await?;
    if before > 0 {
        found.add(WrongPositions::BeforeFirst(before));
    }
    let mut from = 0;
    while from < head {
        let until = (from + RANGE_POSITIONS).min(head);
        let counted = sqlx::query!(
            r#"
            select count(*) as "count!", count(distinct position) as "positions!"
            from event_store.event where shard = $1 and position > $2 and position <= $3
            "#,
            shard,
            from,
            until,
        )
        .fetch_one(pool)
        .await?;
        if counted.count != counted.positions || counted.count != until - from {
            wrong_positions(pool, shard, from, until, &mut found).await?;
        }
        advance((until - from).unsigned_abs());
        from = until;
    }
    Ok(found)
}

async fn wrong_positions(
    pool: &Pool,
    shard: i16,
    from: i64,
    until: i64,
    found: &mut Found<WrongPositions>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select position as "position!", previous as "previous!" from (
            select position, lag(position, 1, $2) over (order by position) as previous
            from (
                select position from event_store.event where shard = $1 and position > $2 and position <= $3
                union all select $3 + 1
            ) known
        ) pairs
        where position <> previous + 1
        order by position
        "#,
        shard,
        from,
        until,
    )
    .fetch_all(pool)
    .await?;
    for row in rows {
        let (first, last) = (row.previous + 1, row.position - 1);
        found.add(if last < first {
            WrongPositions::Repeated(row.position)
        } else {
            WrongPositions::Missing(first, last)
        });
    }
    Ok(())
}

/// Looks for every stream's versions from 1 on, once each: in the order of the streams, page by page. `advance` is told how many
/// were looked at so far.
///
/// # Errors
/// The database does not answer.
pub async fn versions(pool: &Pool, mut advance: impl FnMut(u64)) -> Result<Found<WrongVersion>, sqlx::Error> {
    let mut found = Found::nothing();
    let mut after = (Uuid::nil(), Uuid::nil(), i64::MIN);
    let mut rows_seen = 0;
    loop {
        let page = sqlx::query!(
            r#"
            select owner_id, task_id, version from event_store.event
            where (owner_id, task_id, version) > ($1, $2, $3)
            order by owner_id, task_id, version
            limit $4
            "#,
            after.0,
            after.1,
            after.2,
            PAGE_ROWS,
        )
        .fetch_all(pool)
        .await?;
        if page.is_empty() {
            return Ok(found);
        }
        rows_seen += page.len() as u64;
        for row in page {
            let same_stream = (row.owner_id, row.task_id) == (after.0, after.1) && after.2 != i64::MIN;
            let expected = if same_stream { after.2 + 1 } else { 1 };
            after = (row.owner_id, row.task_id, row.version);
            if row.version != expected {
                let (owner_id, task_id, version) = after;
                found.add(WrongVersion { owner_id, task_id, version, expected });
            }
        }
        advance(rows_seen);
    }
}

/// Looks whether the events of each command id are one effect: on one task, one after the other.
///
/// # Errors
/// The database does not answer.
pub async fn effects(pool: &Pool) -> Result<Found<ScatteredEvents>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select owner_id, command_id, count(*) as "events!", count(*) over () as "total!"
        from event_store.event
        group by owner_id, command_id
        having count(*) > 1 and (
            count(distinct task_id) > 1
            or max(version) - min(version) + 1 <> count(*)
            or max(position) - min(position) + 1 <> count(*))
        limit $1
        "#,
        SHOWN_MAX as i64,
    )
    .fetch_all(pool)
    .await?;
    Ok(Found::of(
        rows,
        |row| row.total,
        |row| ScatteredEvents { owner_id: row.owner_id, command_id: row.command_id, events: row.events },
    ))
}

/// Looks whether each remembered command stands for an event that is there, at the position that was answered, and of the change
/// that was. (One without a version binds the key of a batch: no command's.)
///
/// # Errors
/// The database does not answer.
pub async fn commands(pool: &Pool) -> Result<Found<WrongCommand>, sqlx::Error> {
    let mut found = Found::nothing();
    // No owner has the nil id.
    let mut after = (Uuid::nil(), Uuid::nil());
    loop {
        let page = sqlx::query_as!(
            WrongCommand,
            r#"
            select c.owner_id, c.command_id, c.task_id, c.version, c.revision, c.change_id, e.position as "position?",
                coalesce(e.change_id, e.command_id) as event_change_id
            from (
                select * from event_store.command
                where (owner_id, command_id) > ($1, $2) and version > 0
                order by owner_id, command_id
                limit $3
            ) c
            left join event_store.event e using (owner_id, task_id, version)
            order by c.owner_id, c.command_id
            "#,
            after.0,
            after.1,
            PAGE_ROWS,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = (last.owner_id, last.command_id);
        for command in page.into_iter().filter(|command| !command.is_right()) {
            found.add(command);
        }
    }
}
