//! Fills a generation in bulk: reads the log stream by stream, folds each stream whole, and COPYs its rows.
//!
//! Three stages with a chunk between each: while one is written, the next is folded and the one after it read. What a
//! chunk writes and how far it goes is one transaction, so that a rebuild can be stopped anywhere. No stream and no
//! owner is ever held in memory as a whole: a stream that is cut by the end of a chunk goes on in the next one, and
//! after a restart it is folded again from its beginning, without a second output.

use backends::database::Pool;
use domain::{OwnerId, StoredEvent, TaskId};
use event_store::TailReader;
use read_model::{TaskRow, fold};
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::error::RebuildError;
use super::progress::Meter;
use crate::connection;
use crate::copy::{CopyIn, Rows, copy_into};
use crate::feed::{READ_BYTES, events_within};
use crate::parking::ToPark;
use crate::projections::{self, AppliedEvent, Effect, Stream, TaskChange};

/// The most events of a chunk; fewer where they are long, so that it has about [`READ_BYTES`].
const CHUNK_EVENTS_MAX: i64 = 10_000;
/// The first chunk, when it is not known yet how long events are.
const CHUNK_EVENTS_FIRST: i64 = 1_000;

/// Owner, task and version, in this order.
type StreamPosition = (OwnerId, TaskId, i64);

/// Fills what is missing of a shard.
pub(super) async fn fill(
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
    mut after: Option<StreamPosition>,
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

/// What a chunk of events comes to.
struct Chunk {
    copies: Vec<CopyIn>,
    /// Owners that begin in this chunk.
    owners: Vec<Uuid>,
    to_park: ToPark,
    /// The last event that is in it.
    last: Option<StreamPosition>,
    /// Events that were not written before.
    events: i64,
    end: bool,
}

struct Folder {
    generation: i32,
    /// What is in the tables already: up to here nothing is written.
    written: Option<StreamPosition>,
    owner: Option<OwnerId>,
    stream: Option<Stream>,
    row: Option<TaskRow>,
    stream_is_parked: bool,
}

impl Folder {
    fn new(generation: i32, written: Option<StreamPosition>) -> Self {
        let owner = written.map(|(owner_id, ..)| owner_id);
        Self { generation, written, owner, stream: None, row: None, stream_is_parked: false }
    }

    fn fold(&mut self, events: Vec<StoredEvent>, end: bool) -> Chunk {
        let mut chunk =
            Chunk { copies: Vec::new(), owners: Vec::new(), to_park: ToPark::default(), last: None, events: 0, end };
        let mut effect = Effect::default();
        for event in &events {
            self.fold_event(event, &mut effect, &mut chunk);
        }
        if end {
            self.end_stream(&mut effect);
        }
        let copies = projections::ALL.iter().filter_map(|projection| projection.copy(&effect, self.generation));
        chunk.copies = copies.collect();
        chunk
    }

    fn fold_event<'a>(&mut self, event: &'a StoredEvent, effect: &mut Effect<'a>, chunk: &mut Chunk) {
        let stream = (event.owner_id, event.task_id);
        if self.stream != Some(stream) {
            self.end_stream(effect);
            self.stream = Some(stream);
        }
        if self.owner != Some(stream.0) {
            self.owner = Some(stream.0);
            chunk.owners.push(stream.0.0);
        }
        let position = (stream.0, stream.1, event.version);
        let is_written = self.written.is_some_and(|written| position <= written);
        let parked_before = self.stream_is_parked;
        let folded = if parked_before { Ok(None) } else { fold(&mut self.row, event).map(Some) };
        self.stream_is_parked |= folded.is_err();
        if is_written {
            return;
        }
        chunk.events += 1;
        chunk.last = Some(position);
        match folded {
            Ok(Some(Some(changes))) => {
                let after = self.row.as_ref().map(TaskRow::without_texts);
                effect.events.extend(after.map(|after| AppliedEvent { event, changes, after }));
            }
            Ok(Some(None)) => {}
            Ok(None) => chunk.to_park.push(event, None),
            Err(error) => chunk.to_park.push(event, Some(error.to_string())),
        }
    }

    /// The row of a task is put out with the first chunk that shows that its stream has ended. (The row of the
    /// stream at which an interrupted rebuild stopped was not.)
    fn end_stream(&mut self, effect: &mut Effect<'_>) {
        self.stream_is_parked = false;
        if let Some(after) = self.row.take() {
            effect.tasks.push(TaskChange { before: None, after, text_changed: true });
        }
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
    let mut owners = Rows::new();
    for owner in &chunk.owners {
        // Revision and change counter are counted afterwards.
        owners.row(5).int(generation).uuid(*owner).smallint(shard).bigint(0).bigint(0);
    }
    let statements = copy_into!("owner", "generation, owner_id, shard, revision, change_counter");
    CopyIn { statements, rows: owners }.fill(&mut transaction).await?;
    for copy in chunk.copies {
        copy.fill(&mut transaction).await?;
    }
    chunk.to_park.write(generation, &mut transaction).await?;
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
