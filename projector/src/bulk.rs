//! Fills a generation in bulk: reads the log stream by stream, folds each stream whole, and COPYs its rows.
//!
//! Three stages with a chunk between each: while one is written, the next is folded and the one after it read. What a
//! chunk writes and how far it goes is one transaction, so that a rebuild can be stopped anywhere. No stream and no
//! owner is ever held in memory as a whole: a stream that is cut by the end of a chunk goes on in the next one, and
//! after a restart it is folded again from its beginning, without a second output.

use domain::{OwnerId, StoredEvent, TaskId};
use event_store::TailReader;
use service_kit::database::Pool;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::apply::{Stream, parked_id};
use crate::connection;
use crate::copy::Rows;
use crate::feed::{READ_BYTES, events_within};
use crate::fold::{Folded, TaskRow, fold};
use crate::rebuild::{Meter, RebuildError};
use crate::words::Words;

/// The most events of a chunk; fewer where they are long, so that it has about [`READ_BYTES`].
const CHUNK_EVENTS_MAX: i64 = 10_000;
/// The first chunk, when it is not known yet how long events are.
const CHUNK_EVENTS_FIRST: i64 = 1_000;

/// A place in the order of (owner, task, version).
type Place = (OwnerId, TaskId, i64);

/// Fills what is missing of a shard.
pub(crate) async fn fill(
    pool: &Pool,
    tail: &TailReader,
    generation: i32,
    shard: i16,
    meter: &Meter<'_>,
) -> Result<(), RebuildError> {
    let mut connection = connection::for_rebuild(pool).await?;
    let checkpoint = sqlx::query!(
        r#"
        select bulk_owner_id, bulk_task_id, bulk_version, bulk_until
        from read_model.checkpoint
        where generation = $1 and shard = $2
        "#,
        generation,
        shard,
    )
    .fetch_one(&mut connection)
    .await?;
    let Some(until) = checkpoint.bulk_until else { return Ok(()) };
    let written = match (checkpoint.bulk_owner_id, checkpoint.bulk_task_id, checkpoint.bulk_version) {
        (Some(owner_id), Some(task_id), Some(version)) => Some((OwnerId(owner_id), TaskId(task_id), version)),
        _ => None,
    };

    let mut stages = JoinSet::new();
    let (read_sender, read) = mpsc::channel(1);
    let (fold_sender, mut folded) = mpsc::channel(1);
    // From the beginning of the stream that was written last: its row is folded again.
    let from = written.map(|(owner_id, task_id, _)| (owner_id, task_id, 0));
    stages.spawn(read_chunks(tail.clone(), shard, from, until, read_sender));
    stages.spawn(fold_chunks(Folder::new(generation, written), read, fold_sender));
    while let Some(chunk) = folded.recv().await {
        let chunk = chunk?;
        let events = chunk.events;
        let end = chunk.end;
        let per_second = meter.rate_with(events);
        write_chunk(&mut connection, generation, shard, chunk, per_second).await?;
        meter.advance(events);
        if end {
            return Ok(());
        }
    }
    Err(RebuildError::Database(sqlx::Error::Protocol("reading the log ended early".to_owned())))
}

async fn read_chunks(
    tail: TailReader,
    shard: i16,
    mut after: Option<Place>,
    until: i64,
    sender: mpsc::Sender<Result<Read, sqlx::Error>>,
) {
    let mut events_max = CHUNK_EVENTS_FIRST;
    loop {
        let read = tail.read_streams_after(shard, after, until, events_max).await.map(|events| {
            let end = i64::try_from(events.len()).is_ok_and(|count| count < events_max);
            Read { events, end }
        });
        let end = match &read {
            Ok(Read { events, end }) => {
                after = events.last().map(|event| (event.owner_id, event.task_id, event.version)).or(after);
                events_max = events_within(READ_BYTES, events).min(CHUNK_EVENTS_MAX);
                *end
            }
            Err(_) => true,
        };
        if sender.send(read).await.is_err() || end {
            return;
        }
    }
}

struct Read {
    events: Vec<StoredEvent>,
    /// Nothing comes after them.
    end: bool,
}

async fn fold_chunks(
    mut folder: Folder,
    mut read: mpsc::Receiver<Result<Read, sqlx::Error>>,
    sender: mpsc::Sender<Result<Chunk, sqlx::Error>>,
) {
    while let Some(read) = read.recv().await {
        let chunk = read.map(|Read { events, end }| folder.fold(events, end));
        if sender.send(chunk).await.is_err() {
            return;
        }
    }
}

struct Parked {
    event: StoredEvent,
    reason: Option<String>,
}

/// What a chunk of events comes to.
struct Chunk {
    history: Rows,
    tasks: Rows,
    /// Owners that begin in this chunk.
    owners: Vec<Uuid>,
    parked: Vec<Parked>,
    /// The last event that is in it.
    last: Option<Place>,
    /// Events that were not written before.
    events: i64,
    end: bool,
}

struct Folder {
    generation: i32,
    /// What stands in the tables already: up to here nothing is put out.
    written: Option<Place>,
    owner: Option<OwnerId>,
    stream: Option<Stream>,
    row: Option<TaskRow>,
    stream_is_parked: bool,
}

impl Folder {
    fn new(generation: i32, written: Option<Place>) -> Self {
        let owner = written.map(|(owner_id, ..)| owner_id);
        Self { generation, written, owner, stream: None, row: None, stream_is_parked: false }
    }

    fn fold(&mut self, events: Vec<StoredEvent>, end: bool) -> Chunk {
        let mut chunk = Chunk {
            history: Rows::new(),
            tasks: Rows::new(),
            owners: Vec::new(),
            parked: Vec::new(),
            last: None,
            events: 0,
            end,
        };
        for event in events {
            self.fold_event(event, &mut chunk);
        }
        if end {
            self.end_stream(&mut chunk);
        }
        chunk
    }

    fn fold_event(&mut self, event: StoredEvent, chunk: &mut Chunk) {
        let stream = (event.owner_id, event.task_id);
        if self.stream != Some(stream) {
            self.end_stream(chunk);
            self.stream = Some(stream);
        }
        if self.owner != Some(stream.0) {
            self.owner = Some(stream.0);
            chunk.owners.push(stream.0.0);
        }
        let place = (stream.0, stream.1, event.version);
        let is_written = self.written.is_some_and(|written| place <= written);
        let parked_before = self.stream_is_parked;
        let folded = if parked_before { Ok(None) } else { fold(&mut self.row, &event).map(Some) };
        self.stream_is_parked |= folded.is_err();
        if is_written {
            return;
        }
        chunk.events += 1;
        chunk.last = Some(place);
        match folded {
            Ok(Some(Folded::Applied(changes))) => self.put_history(&event, &changes, chunk),
            Ok(Some(Folded::Skipped)) => {}
            Ok(None) => chunk.parked.push(Parked { event, reason: None }),
            Err(error) => chunk.parked.push(Parked { event, reason: Some(error.to_string()) }),
        }
    }

    fn put_history(&self, event: &StoredEvent, changes: &str, chunk: &mut Chunk) {
        chunk
            .history
            .row(11)
            .int(self.generation)
            .uuid(event.owner_id.0)
            .uuid(event.task_id.0)
            .bigint(event.version)
            .bigint(event.position)
            .time(event.occurred_at)
            .time(event.recorded_at)
            .text(&event.event_type)
            .text(&event.actor_type)
            .uuid_or_null(event.actor_id)
            .text(changes);
    }

    /// The row of a task is put out with the first chunk that shows that its stream has ended. (The row of the
    /// stream at which an interrupted rebuild stopped was not.)
    fn end_stream(&mut self, chunk: &mut Chunk) {
        self.stream_is_parked = false;
        let Some(row) = self.row.take() else { return };
        let words = Words::of(&row.title, row.description.as_deref());
        chunk
            .tasks
            .row(17)
            .int(self.generation)
            .uuid(row.owner_id.0)
            .uuid(row.task_id.0)
            .bigint(row.position)
            .bigint(row.version)
            .boolean(row.deleted)
            .smallint(row.status.code())
            .smallint(row.priority.code())
            .text(&row.title)
            .text_or_null(row.description.as_deref())
            .texts(&row.tags)
            .time_or_null(row.due_at)
            .time(row.created_at)
            .time(row.updated_at)
            .time_or_null(row.started_at)
            .time_or_null(row.completed_at)
            .words(&words.distinct());
    }
}

async fn write_chunk(
    connection: &mut PgConnection,
    generation: i32,
    shard: i16,
    chunk: Chunk,
    events_per_second: i64,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    if !chunk.history.is_empty() {
        let mut copy = transaction
            .copy_in_raw(
                "copy read_model.history_building (generation, owner_id, task_id, version, position, occurred_at, \
                 recorded_at, type, actor_type, actor_id, changes) from stdin (format binary)",
            )
            .await?;
        copy.send(chunk.history.finish()).await?;
        copy.finish().await?;
    }
    if !chunk.tasks.is_empty() {
        let mut copy = transaction
            .copy_in_raw(
                "copy read_model.task_building (generation, owner_id, task_id, position, version, deleted, status, \
                 priority, title, description, tags, due_at, created_at, updated_at, started_at, completed_at, search) \
                 from stdin (format binary)",
            )
            .await?;
        copy.send(chunk.tasks.finish()).await?;
        copy.finish().await?;
    }
    let mut owners = Rows::new();
    for owner in &chunk.owners {
        // Revision and change counter are counted afterwards.
        owners.row(5).int(generation).uuid(*owner).smallint(shard).bigint(0).bigint(0);
    }
    if !owners.is_empty() {
        let mut copy = transaction
            .copy_in_raw(
                "copy read_model.owner_building (generation, owner_id, shard, revision, change_counter) \
                 from stdin (format binary)",
            )
            .await?;
        copy.send(owners.finish()).await?;
        copy.finish().await?;
    }
    for Parked { event, reason } in chunk.parked {
        let text = serde_json::to_string(&event).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query!(
            r#"
            insert into read_model.parked (id, generation, shard, position, owner_id, task_id, version, type, reason,
                parked_at, event)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), $10)
            "#,
            parked_id(generation, shard, event.position),
            generation,
            shard,
            event.position,
            event.owner_id.0,
            event.task_id.0,
            event.version,
            event.event_type,
            reason,
            text,
        )
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query!(
        r#"
        update read_model.checkpoint
        set bulk_owner_id = coalesce($3, bulk_owner_id), bulk_task_id = coalesce($4, bulk_task_id),
            bulk_version = coalesce($5, bulk_version), bulk_until = case when $6 then null else bulk_until end
        where generation = $1 and shard = $2
        "#,
        generation,
        shard,
        chunk.last.map(|(owner_id, ..)| owner_id.0),
        chunk.last.map(|(_, task_id, _)| task_id.0),
        chunk.last.map(|(.., version)| version),
        chunk.end,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update read_model.generation set events_done = events_done + $2, events_per_second = $3 where generation = $1",
        generation,
        chunk.events,
        events_per_second,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
