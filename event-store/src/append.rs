//! Group commit. One appender per shard: what arrives while one batch commits becomes the next batch, without a timer.
//! A batch is one statement, one round trip and one fsync, for hundreds of commands.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backends::database::Pool;
use domain::{Actor, CommandId, OwnerId, TaskEvent, TaskId, Time, encode};
use metrics::{counter, gauge, histogram};
use process::outage::Outage;
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::connection::{Lane, is_about_values};
use crate::{EventStore, Room, Unavailable};

/// How many events a batch has at most, but for one unit that has more by itself.
const BATCH_EVENTS_MAX: usize = 1_000;
/// How long a batch is tried again, while the database is away or by halves, in milliseconds.
const RETRY_MS_MAX: u64 = 8_000;
/// The longest pause between two tries, in milliseconds: each may be a new connection to a server that only reads.
const RETRY_PAUSE_MS_MAX: u64 = 1_000;
/// How long a command waits for its outcome, in milliseconds.
const OUTCOME_WAIT_MS_MAX: u64 = 12_000;
/// How often it is tried whether a full disk has room again, in milliseconds.
const ROOM_TRIED_EVERY_MS: u64 = 1_000;

/// An event that was decided.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// UUID version 7. A retry of the same append must carry the same.
    pub event_id: Uuid,
    /// When it happened.
    pub occurred_at: Time,
    /// What happened.
    pub event: TaskEvent,
}

/// Where a command came from; stands in each of its events.
#[derive(Debug, Clone)]
pub struct CommandOrigin {
    /// Who did it.
    pub actor: Actor,
    /// The request it came with: 1 to 128 characters.
    pub correlation_id: Arc<str>,
    /// W3C trace context of the request.
    pub traceparent: Arc<str>,
}

/// A command that was decided, with its events, if it has any.
#[derive(Debug, Clone)]
pub struct DecidedCommand {
    /// The command's id: the client's own, or one made for it.
    pub command_id: CommandId,
    /// Fingerprint of the request where the id is the client's own: then the outcome is remembered with it.
    pub fingerprint: Option<Uuid>,
    /// HTTP status of its answer, remembered with the outcome.
    pub status: u16,
    /// In order; none where the task was already as it was asked to be.
    pub events: Vec<NewEvent>,
}

/// The commands of one batch to one stream: they are appended together or not at all.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// The owner.
    pub owner_id: OwnerId,
    /// The task.
    pub task_id: TaskId,
    /// The version that the first command was decided on; 0: no event yet.
    pub expected_version: i64,
    /// The position of the stream's last event at that version; 0: none.
    pub expected_revision: i64,
    /// Where the commands came from.
    pub origin: CommandOrigin,
    /// In the order decided.
    pub commands: Vec<DecidedCommand>,
}

/// The events are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first event; the others follow without a gap. Of no meaning where there was no event.
    pub first_position: i64,
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream is not at the expected version: read it again and decide again.
    #[error("the stream is at another version")]
    Conflict,
    /// One of the command ids has an outcome already: look it up.
    #[error("a command id is known already")]
    CommandKnown,
    /// Postgres refused this unit's own values. Others in its batch are unaffected.
    #[error("the event store refused the values of a command")]
    Refused,
    /// Not known to have been appended.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

type Outcome = Result<Appended, AppendError>;

pub(crate) struct Unit {
    append: StreamAppend,
    reply: oneshot::Sender<Outcome>,
}

impl EventStore {
    /// Appends the events of one stream's commands and remembers the outcomes of those that have an id of their own.
    /// Returns when that is on disk.
    ///
    /// # Errors
    /// See [`AppendError`]. After [`Unavailable::NoAnswer`] the events may be there or not: the same append again
    /// (same event ids) tells, and does no harm.
    pub async fn append(&self, shard: i16, append: StreamAppend) -> Outcome {
        if self.room.is_lacking() {
            return Err(Unavailable::DiskFull.into());
        }
        let appender = self.appenders.get(&shard).ok_or(Unavailable::NoAnswer)?;
        let (reply, outcome) = oneshot::channel();
        appender.try_send(Unit { append, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::NoAnswer,
        })?;
        match timeout(Duration::from_millis(OUTCOME_WAIT_MS_MAX), outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Unavailable::NoAnswer.into()),
        }
    }
}

/// A connection for an appender. Its one plan is for batches of any size: planned anew, a small one costs twice as much.
pub(crate) fn lane(pool: &Pool) -> Lane {
    Lane::with(pool, [("plan_cache_mode", "force_generic_plan")])
}

pub(crate) async fn run(
    shard: i16,
    lane: Lane,
    mut queue: mpsc::Receiver<Unit>,
    room: Room,
    wake: Arc<watch::Sender<u64>>,
) {
    let mut appender =
        Appender { shard, lane, room, head_ctid: None, outage: Outage::of("appending to the event store") };
    let label = shard.to_string();
    let batches = histogram!("event_store_batch_events", "shard" => label.clone());
    let seconds = histogram!("event_store_append_seconds", "shard" => label.clone());
    let appended = counter!("event_store_events_appended_total", "shard" => label.clone());
    let position = gauge!("event_store_position", "shard" => label.clone());
    let queued = gauge!("event_store_queue_units", "shard" => label);
    let mut batch = Batch::default();
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(unit) => Some(unit),
            None => tokio::select! {
                unit = queue.recv() => unit,
                () = appender.room_again() => continue,
            },
        };
        let Some(first) = first else { break };
        left_over = batch.push(first);
        while batch.events < BATCH_EVENTS_MAX
            && left_over.is_none()
            && let Ok(unit) = queue.try_recv()
        {
            left_over = batch.push(unit);
        }
        queued.set(queue.len() as f64);
        let started = Instant::now();
        appender.lane.look().await;
        let (appends, replies, events) = batch.take();
        let outcomes = appender.append(&appends).await;
        seconds.record(started.elapsed().as_secs_f64());
        batches.record(events as f64);
        let mut last_position = 0;
        for ((append, reply), outcome) in appends.iter().zip(replies).zip(outcomes) {
            if let Ok(Appended { first_position }) = outcome {
                let events = append.event_count();
                appended.increment(events as u64);
                last_position = last_position.max(first_position + events as i64 - 1);
            }
            // Who asked may have gone; the events are there all the same.
            let _ = reply.send(outcome);
        }
        if last_position > 0 {
            position.set(last_position as f64);
            wake.send_modify(|count| *count += 1);
        }
    }
}

/// What goes into the database together. No two units of it are in each other's way: an append that is sent again while
/// the first one still waits goes with the next batch, and finds the first one there.
#[derive(Default)]
struct Batch {
    units: Vec<Unit>,
    events: usize,
    streams: HashSet<(OwnerId, TaskId)>,
    command_ids: HashSet<(OwnerId, CommandId)>,
}

impl Batch {
    /// Takes the unit, or gives it back where it meets another one in here.
    fn push(&mut self, unit: Unit) -> Option<Unit> {
        let StreamAppend { owner_id, task_id, ref commands, .. } = unit.append;
        let stream = (unit.append.event_count() > 0).then_some((owner_id, task_id));
        let ids = || commands.iter().filter(|command| command.fingerprint.is_some()).map(|command| command.command_id);
        let meets_another = stream.is_some_and(|stream| self.streams.contains(&stream))
            || ids().any(|command_id| self.command_ids.contains(&(owner_id, command_id)));
        if meets_another {
            return Some(unit);
        }
        self.streams.extend(stream);
        self.command_ids.extend(ids().map(|command_id| (owner_id, command_id)));
        self.events += unit.append.event_count();
        self.units.push(unit);
        None
    }

    /// All of it, with the number of events; empty afterwards.
    fn take(&mut self) -> (Vec<StreamAppend>, Vec<oneshot::Sender<Outcome>>, usize) {
        self.streams.clear();
        self.command_ids.clear();
        let (appends, replies) = self.units.drain(..).map(|unit| (unit.append, unit.reply)).unzip();
        (appends, replies, std::mem::take(&mut self.events))
    }
}

impl StreamAppend {
    fn event_count(&self) -> usize {
        self.commands.iter().map(|command| command.events.len()).sum()
    }

    fn first_event(&self) -> Option<Uuid> {
        self.commands.iter().find_map(|command| command.events.first()).map(|event| event.event_id)
    }
}

struct Appender {
    shard: i16,
    lane: Lane,
    room: Room,
    /// Where the head row was last seen. An update by ctid does not walk past the dead versions of the row that
    /// somebody's old snapshot keeps.
    head_ctid: Option<String>,
    /// Said once, and not for each batch that waits.
    outage: Outage,
}

/// What the fast path came to.
enum Fast {
    /// All is appended, from the position after this.
    After(i64),
    /// Something is there already, or the head row was not where it was: nothing is appended.
    Undone,
}

impl Appender {
    /// One outcome for each unit, in order.
    async fn append(&mut self, units: &[StreamAppend]) -> Vec<Outcome> {
        let columns = Columns::of(units);
        match self.append_fast(&columns).await {
            Ok(Fast::After(base)) => {
                self.outage.seen(Ok::<_, sqlx::Error>(()));
                let mut next = base + 1;
                return units
                    .iter()
                    .map(|unit| {
                        let first_position = next;
                        next += unit.event_count() as i64;
                        Ok(Appended { first_position })
                    })
                    .collect();
            }
            Ok(Fast::Undone) => {}
            Err(error) if is_disk_full(&error) => {
                self.room.refused(true);
                return vec![Err(Unavailable::DiskFull.into()); units.len()];
            }
            Err(error) => {
                self.outage.seen(Err::<(), _>(error));
            }
        }
        let deadline = Instant::now() + Duration::from_millis(RETRY_MS_MAX);
        self.append_checked_until(&columns, units, deadline).await
    }

    /// Comes back when a disk that was full may have room again; never where it was not.
    async fn room_again(&mut self) {
        while self.room.is_refused() {
            sleep(Duration::from_millis(ROOM_TRIED_EVERY_MS)).await;
            match self.lane.run(try_room).await {
                Ok(()) => return self.room.refused(false),
                Err(error) => tracing::debug!(shard = self.shard, %error, "no room yet"),
            }
        }
        std::future::pending().await
    }

    /// The careful path, again and again while the database is away; half by half where a value is refused, down to the
    /// unit that has it. All of it ends at the deadline: other batches wait.
    async fn append_checked_until(
        &mut self,
        columns: &Columns<'_>,
        units: &[StreamAppend],
        deadline: Instant,
    ) -> Vec<Outcome> {
        let mut pause_ms = 20;
        while Instant::now() < deadline {
            match self.append_checked(columns, units).await {
                Ok(outcomes) => {
                    self.outage.seen(Ok::<_, sqlx::Error>(()));
                    return outcomes;
                }
                // Whether an earlier attempt took effect is not known here.
                Err(error) if is_disk_full(&error) => {
                    self.room.refused(true);
                    break;
                }
                Err(error) if !is_about_values(&error) => {
                    self.outage.seen(Err::<(), _>(error));
                    sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(RETRY_PAUSE_MS_MAX);
                }
                Err(error) if units.len() == 1 => {
                    tracing::error!(shard = self.shard, %error, "Postgres refused a command");
                    return vec![Err(AppendError::Refused)];
                }
                Err(error) => {
                    tracing::info!(
                        shard = self.shard,
                        %error,
                        units = units.len(),
                        "one of the commands of this batch cannot be stored, or was stored meanwhile (by another copy, or before \
                         this process was paused): nothing of the batch was; its halves are tried each by itself, until that one \
                         is alone"
                    );
                    let (first, second) = units.split_at(units.len() / 2);
                    let mut outcomes = Box::pin(self.append_checked_until(&Columns::of(first), first, deadline)).await;
                    outcomes.extend(Box::pin(self.append_checked_until(&Columns::of(second), second, deadline)).await);
                    return outcomes;
                }
            }
        }
        vec![Err(Unavailable::NoAnswer.into()); units.len()]
    }

    async fn append_fast(&mut self, columns: &Columns<'_>) -> Result<Fast, sqlx::Error> {
        let (shard, known_ctid, fresh) = (self.shard, self.head_ctid.take(), self.lane.is_fresh());
        let result = self
            .lane
            .run(async move |connection| {
                let mut ctid = known_ctid.filter(|_| !fresh);
                // Twice at most: where the row is, and, should it have moved in between, where it is now.
                for _ in 0..2 {
                    let at = match ctid.take() {
                        Some(ctid) => ctid,
                        None => head_ctid(connection, shard).await?,
                    };
                    let inserted = insert(connection, shard, &at, columns).await?;
                    if !matches!(inserted, Inserted::HeadMoved) {
                        return Ok(inserted);
                    }
                }
                Ok(Inserted::HeadMoved)
            })
            .await;
        match result {
            Ok(Inserted::After(base, ctid)) => {
                self.head_ctid = Some(ctid);
                Ok(Fast::After(base))
            }
            Ok(Inserted::Conflicts | Inserted::HeadMoved) => Ok(Fast::Undone),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Fast::Undone),
            Err(error) => Err(error),
        }
    }

    async fn append_checked(
        &mut self,
        columns: &Columns<'_>,
        units: &[StreamAppend],
    ) -> Result<Vec<Outcome>, sqlx::Error> {
        let shard = self.shard;
        let judged = self.lane.run(async move |connection| {
            // Only what is tried: while there is no connection, nothing is.
            counter!("event_store_careful_appends_total").increment(1);
            insert_checked(connection, shard, columns).await
        });
        let judged = judged.await?;
        let mut next = judged.base + 1;
        Ok(units
            .iter()
            .zip(judged.outcomes)
            .zip(judged.positions)
            .map(|((unit, outcome), position)| match outcome {
                0 => {
                    let first_position = next;
                    next += unit.event_count() as i64;
                    Ok(Appended { first_position })
                }
                1 => Err(AppendError::Conflict),
                2 => Err(AppendError::CommandKnown),
                _ => Ok(Appended { first_position: position.unwrap_or(0) }),
            })
            .collect())
    }
}

/// Writes something that does not stay, and is long enough not to fit into what is there.
async fn try_room(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        r#"
        insert into event_store.batch_answer (owner_id, command_id, fingerprint, recorded_at, body)
        select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), string_agg(gen_random_uuid()::text, '')
        from generate_series(1, 8192)
        "#
    )
    .execute(&mut *transaction)
    .await?;
    transaction.rollback().await
}

fn is_disk_full(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "53100")
}

async fn head_ctid(connection: &mut PgConnection, shard: i16) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!(r#"select ctid::text as "ctid!" from event_store.head where shard = $1"#, shard)
        .fetch_one(connection)
        .await
}

/// What became of the fast path's statement.
enum Inserted {
    /// All is there, after this position; and where the head row is now.
    After(i64, String),
    /// Nothing was done: some of it is there already, or a stream is not as far as a unit expects it.
    Conflicts,
    /// Nothing was done: the head row is not at that ctid any more.
    HeadMoved,
}

/// The fast path: one statement. A repetition or a conflict is everyday life, and an error would stand in the database's
/// log together with the whole statement; so it looks first whether anything of the batch is there already. It also looks
/// whether each stream is as far as expected, since no index forbids a gap. What it sees is not stale as long as the head
/// row is the one that it sees too, for who appends moves it. All the same the unique indexes decide: any violation undoes
/// it all.
async fn insert(
    connection: &mut PgConnection,
    shard: i16,
    ctid: &str,
    columns: &Columns<'_>,
) -> Result<Inserted, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        with looked as materialized (
            select exists (
                select from unnest($4::uuid[], $5::uuid[], $6::bigint[]) as e (owner_id, task_id, version)
                join event_store.event using (owner_id, task_id, version)
            ) or exists (
                select from unnest($17::uuid[], $18::uuid[]) as c (owner_id, command_id)
                join event_store.command using (owner_id, command_id)
            ) or exists (
                select from unnest($25::uuid[], $26::uuid[], $27::bigint[]) as u (owner_id, task_id, version)
                where version > 0 and not exists (
                    select from event_store.event e
                    where (e.owner_id, e.task_id, e.version) = (u.owner_id, u.task_id, u.version)
                )
            ) as conflicts
        ), head as (
            update event_store.head set position = position + $3
            where ctid = $2::text::tid and shard = $1 and not (select conflicts from looked)
            returning position - $3 as base, ctid
        ), stored as (
            insert into event_store.event (shard, recorded_at, position, owner_id, task_id, version, event_id, type,
                schema_version, occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data)
            select $1, now(), generate_series(base + 1, base + $3), unnest($4::uuid[]), unnest($5::uuid[]),
                unnest($6::bigint[]), unnest($7::uuid[]), unnest($8::text[]), unnest($9::smallint[]),
                unnest($10::timestamptz[]), unnest($11::text[]), unnest($12::uuid[]), unnest($13::uuid[]),
                unnest($14::text[]), unnest($15::text[]), unnest($16::text[])
            from head
        ), remembered as (
            insert into event_store.command (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint, status)
            select owner_id, command_id, task_id, version, case when event > 0 then base + event else revision end, now(),
                fingerprint, status
            from (
                select base, unnest($17::uuid[]) as owner_id, unnest($18::uuid[]) as command_id,
                    unnest($19::uuid[]) as task_id, unnest($20::bigint[]) as version, unnest($21::bigint[]) as event,
                    unnest($22::bigint[]) as revision, unnest($23::uuid[]) as fingerprint, unnest($24::smallint[]) as status
                from head
            ) c
        )
        select conflicts as "conflicts!", base as "base?", ctid::text as "ctid?" from looked left join head on true
        "#,
        shard,
        ctid,
        columns.event_id.len() as i64,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.event_id,
        &columns.event_type as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.actor_type as _,
        &columns.actor_id as _,
        &columns.command_id,
        &columns.correlation_id as _,
        &columns.traceparent as _,
        &columns.data,
        &columns.c_owner_id,
        &columns.c_command_id,
        &columns.c_task_id,
        &columns.c_version,
        &columns.c_event,
        &columns.c_revision,
        &columns.c_fingerprint,
        &columns.c_status,
        &columns.u_owner_id,
        &columns.u_task_id,
        &columns.u_expected,
    )
    .fetch_one(connection)
    .await?;
    Ok(match (row.base, row.ctid) {
        (Some(base), Some(ctid)) => Inserted::After(base, ctid),
        _ if row.conflicts => Inserted::Conflicts,
        _ => Inserted::HeadMoved,
    })
}

struct Judged {
    base: i64,
    outcomes: Vec<i16>,
    positions: Vec<Option<i64>>,
}

/// The careful path: see `event_store.append_checked` in the migration.
async fn insert_checked(
    connection: &mut PgConnection,
    shard: i16,
    columns: &Columns<'_>,
) -> Result<Judged, sqlx::Error> {
    sqlx::query_as!(
        Judged,
        r#"
        select base as "base!", outcomes as "outcomes!", positions as "positions!: Vec<Option<i64>>"
        from event_store.append_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)
        "#,
        shard,
        &columns.u_owner_id,
        &columns.u_task_id,
        &columns.u_expected,
        &columns.u_first_event as _,
        &columns.unit,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.event_id,
        &columns.event_type as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.actor_type as _,
        &columns.actor_id as _,
        &columns.command_id,
        &columns.correlation_id as _,
        &columns.traceparent as _,
        &columns.data,
        &columns.c_unit,
        &columns.c_owner_id,
        &columns.c_command_id,
        &columns.c_task_id,
        &columns.c_version,
        &columns.c_event,
        &columns.c_revision,
        &columns.c_fingerprint,
        &columns.c_status,
    )
    .fetch_one(connection)
    .await
}

/// A batch as flat arrays, one for each column. No prefix: events; `u_`: units; `c_`: outcomes to remember.
#[derive(Default)]
struct Columns<'a> {
    unit: Vec<i32>,
    owner_id: Vec<Uuid>,
    task_id: Vec<Uuid>,
    version: Vec<i64>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'static str>,
    schema_version: Vec<i16>,
    occurred_at: Vec<Time>,
    actor_type: Vec<&'static str>,
    actor_id: Vec<Option<Uuid>>,
    command_id: Vec<Uuid>,
    correlation_id: Vec<&'a str>,
    traceparent: Vec<&'a str>,
    data: Vec<String>,

    u_owner_id: Vec<Uuid>,
    u_task_id: Vec<Uuid>,
    u_expected: Vec<i64>,
    u_first_event: Vec<Option<Uuid>>,

    c_unit: Vec<i32>,
    c_owner_id: Vec<Uuid>,
    c_command_id: Vec<Uuid>,
    c_task_id: Vec<Uuid>,
    c_version: Vec<i64>,
    /// Number of the command's last event in this batch, from 1; 0 where the stream has none in it yet.
    c_event: Vec<i64>,
    /// Revision of the task where `c_event` is 0.
    c_revision: Vec<i64>,
    c_fingerprint: Vec<Uuid>,
    c_status: Vec<i16>,
}

impl<'a> Columns<'a> {
    fn of(units: &'a [StreamAppend]) -> Self {
        let mut columns = Self::default();
        for (unit, number) in units.iter().zip(1..) {
            columns.push_unit(unit, number);
        }
        columns
    }

    fn push_unit(&mut self, unit: &'a StreamAppend, number: i32) {
        self.u_owner_id.push(unit.owner_id.0);
        self.u_task_id.push(unit.task_id.0);
        self.u_expected.push(unit.expected_version);
        self.u_first_event.push(unit.first_event());
        let mut version = unit.expected_version;
        for command in &unit.commands {
            for event in &command.events {
                version += 1;
                self.push_event(unit, number, command.command_id, version, event);
            }
            if let Some(fingerprint) = command.fingerprint {
                self.c_unit.push(number);
                self.c_owner_id.push(unit.owner_id.0);
                self.c_command_id.push(command.command_id.0);
                self.c_task_id.push(unit.task_id.0);
                self.c_version.push(version);
                let has_event = version > unit.expected_version;
                self.c_event.push(if has_event { self.event_id.len() as i64 } else { 0 });
                self.c_revision.push(unit.expected_revision);
                self.c_fingerprint.push(fingerprint);
                self.c_status.push(command.status as i16);
            }
        }
    }

    fn push_event(
        &mut self,
        unit: &'a StreamAppend,
        number: i32,
        command_id: CommandId,
        version: i64,
        event: &NewEvent,
    ) {
        let (event_type, schema_version, data) = encode(&event.event);
        self.unit.push(number);
        self.owner_id.push(unit.owner_id.0);
        self.task_id.push(unit.task_id.0);
        self.version.push(version);
        self.event_id.push(event.event_id);
        self.event_type.push(event_type);
        self.schema_version.push(schema_version);
        self.occurred_at.push(event.occurred_at);
        self.actor_type.push(unit.origin.actor.actor_type.as_str());
        self.actor_id.push(unit.origin.actor.id);
        self.command_id.push(command_id.0);
        self.correlation_id.push(&unit.origin.correlation_id);
        self.traceparent.push(&unit.origin.traceparent);
        self.data.push(data);
    }
}
