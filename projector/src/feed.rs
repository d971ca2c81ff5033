//! The live projection: follows the tail of the log, shard by shard, and applies what comes.
//!
//! Several processes may do so on one database. None of them leads: whoever is woken first applies, and the turn of
//! the checkpoint decides. Who comes too late has written nothing, waits a moment (longer while it keeps coming too
//! late) and goes on from the new checkpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::StoredEvent;
use event_store::TailReader;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::apply::{self, Batch, Written};
use crate::lag::{self, Lag};
use crate::{connection, parked};

/// The most events that one transaction applies.
pub(crate) const BATCH_EVENTS_MAX: i64 = 2_000;
/// About as many bytes of events are read at once, once it is known how long they are.
pub(crate) const READ_BYTES: usize = 4 << 20;
/// Without a wake-up the tail is looked at this often.
const POLL_MS: u64 = 25;
/// How often it is looked whether another generation is live, or a retry is asked for.
const STATUS_MS: u64 = 200;
/// The longest pause after a lost race.
const LOST_PAUSE_MS_MAX: u64 = 200;
/// The longest pause after an error of the database.
const ERROR_PAUSE_MS_MAX: u64 = 5_000;
/// An event that cannot be applied is tried this often before it is parked.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before it is tried again; grows with each.
const ATTEMPT_PAUSE_MS: u64 = 10;
/// A database that has not answered for so long is asked again by another connection; longer than its own time-out.
const ANSWER_MS_MAX: u64 = 90_000;
/// How often new shards are looked for.
const SHARDS_MS: u64 = 5_000;

/// The projector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database does not answer, or was not migrated.
    #[error("the projector cannot start: {0}")]
    Database(#[from] sqlx::Error),
}

/// The live projection of this process, in the background.
#[derive(Debug)]
pub struct Projector {
    applied: watch::Receiver<u64>,
    lag: watch::Receiver<Lag>,
    task: JoinHandle<()>,
}

impl Projector {
    /// Starts to follow the log. `read_pool` says how the read models are reached; the projector makes connections of
    /// its own, one for each shard.
    ///
    /// # Errors
    /// The database does not answer, or was not migrated.
    pub async fn start(read_pool: PgPool, tail: TailReader, shutdown: CancellationToken) -> Result<Self, StartError> {
        let log_id = tail.log_id().await?;
        sqlx::query!("update read_model.projection set log_id = $1 where log_id is null", log_id)
            .execute(&read_pool)
            .await?;
        sqlx::query!(
            "update read_model.generation set log_id = $1 where log_id is null and state = 'live' and not exists (
                select from read_model.projection where log_id <> $1)",
            log_id,
        )
        .execute(&read_pool)
        .await?;
        let (applied_sender, applied) = watch::channel(0);
        let (lag_sender, lag) = watch::channel(Lag::default());
        let follower = Follower { pool: read_pool, tail, log_id, applied: applied_sender, shutdown };
        let task = tokio::spawn(follower.run(lag_sender));
        Ok(Self { applied, lag, task })
    }

    /// Changes after each batch that became visible: a hint, the tables decide.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// How far the live projection is behind the log; looked at every second.
    #[must_use]
    pub fn lag(&self) -> watch::Receiver<Lag> {
        self.lag.clone()
    }

    /// Returns when the projector has stopped: after `shutdown`, what was under way is written. Before it, something
    /// is wrong, and the process should end.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            error!(%error, "the projector has died");
        }
    }
}

#[derive(Clone)]
struct Follower {
    pool: PgPool,
    tail: TailReader,
    log_id: Uuid,
    applied: watch::Sender<u64>,
    shutdown: CancellationToken,
}

impl Follower {
    /// Runs a task for each shard, and the look-out for lag and new shards. Returns when it is to stop, or one died.
    async fn run(self, lag_sender: watch::Sender<Lag>) {
        let stop = self.shutdown.child_token();
        let _stop_others = stop.clone().drop_guard();
        let mut tasks = JoinSet::new();
        tasks.spawn(lag::watch(self.pool.clone(), self.tail.clone(), lag_sender, stop.clone()));
        let mut shards = BTreeMap::new();
        loop {
            match self.tail.heads().await {
                Ok(heads) => {
                    for (shard, _) in heads {
                        shards.entry(shard).or_insert_with(|| {
                            tasks.spawn(Shard::new(self.clone(), shard, stop.clone()).run());
                        });
                    }
                }
                Err(error) => warn!(%error, "the shards of the log cannot be read; trying again"),
            }
            tokio::select! {
                () = sleep(Duration::from_millis(SHARDS_MS)) => {}
                () = stop.cancelled() => break,
                ended = tasks.join_next() => {
                    if !stop.is_cancelled() {
                        error!(?ended, "a part of the projector has ended");
                        stop.cancel();
                    }
                    break;
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// What came of an attempt to apply events.
enum Outcome {
    /// Up to this position.
    Applied(i64),
    /// The checkpoint is elsewhere, or another generation is live.
    Moved,
}

/// One shard of the live projection.
struct Shard {
    follower: Follower,
    shard: i16,
    stop: CancellationToken,
    generation: i32,
    position: i64,
    lost_races: u32,
    /// As many events as make about [`READ_BYTES`].
    read_events_max: i64,
    applier: Applier,
}

impl Shard {
    fn new(follower: Follower, shard: i16, stop: CancellationToken) -> Self {
        Self {
            follower,
            shard,
            stop,
            generation: 0,
            position: 0,
            lost_races: 0,
            read_events_max: BATCH_EVENTS_MAX / 4,
            applier: Applier::default(),
        }
    }

    /// Follows its shard for ever. An error of the database is logged and tried again, with a new connection.
    async fn run(mut self) {
        let mut errors: u32 = 0;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            match self.follow().await {
                Ok(()) => break,
                Err(error) => {
                    if started.elapsed() > Duration::from_millis(ERROR_PAUSE_MS_MAX) {
                        errors = 0;
                    }
                    let pause = Duration::from_millis((50_u64 << errors.min(7)).min(ERROR_PAUSE_MS_MAX));
                    errors = errors.saturating_add(1);
                    warn!(shard = self.shard, %error, pause_ms = pause.as_millis(), "the projector cannot go on; trying again");
                    metrics::counter!("projector_errors_total").increment(1);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.stop.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Follows with one connection, until it is to stop.
    async fn follow(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = connection::for_batches(&self.follower.pool).await?;
        let mut tail = self.follower.tail.clone();
        self.look_at_status(&mut connection).await?;
        let mut looked = Instant::now();
        // Read while the batch before it was written.
        let mut ahead: Option<Vec<StoredEvent>> = None;
        while !self.stop.is_cancelled() {
            if looked.elapsed() >= Duration::from_millis(STATUS_MS) {
                let before = (self.generation, self.position);
                in_time(self.look_at_status(&mut connection)).await?;
                looked = Instant::now();
                if before != (self.generation, self.position) {
                    ahead = None;
                    self.hint();
                }
            }
            let events_max = self.applier.events_max;
            let events_max = events_max.min(self.read_events_max);
            let mut events = match ahead.take() {
                Some(events) if events.first().is_some_and(|event| event.position == self.position + 1) => events,
                _ => in_time(tail.read_after(self.shard, self.position, events_max)).await?,
            };
            if events.is_empty() {
                tokio::select! {
                    () = tail.changed(POLL_MS) => {}
                    () = self.stop.cancelled() => break,
                }
                continue;
            }
            up_to_a_hole(self.shard, self.position, &mut events)?;
            self.read_events_max = events_within(READ_BYTES, &events).min(BATCH_EVENTS_MAX);
            let more = i64::try_from(events.len()).is_ok_and(|count| count >= events_max);
            let last = events.last().map_or(self.position, |event| event.position);
            let apply = self.applier.apply(&mut connection, self.generation, self.shard, events, true);
            let outcome = if more {
                let read = tail.read_after(self.shard, last, events_max);
                let (outcome, read) = tokio::join!(in_time(apply), in_time(read));
                ahead = Some(read?);
                outcome?
            } else {
                in_time(apply).await?
            };
            match outcome {
                Outcome::Applied(position) => {
                    self.position = position;
                    self.lost_races = 0;
                    self.hint();
                }
                Outcome::Moved => {
                    ahead = None;
                    self.hint();
                    self.pause_after_lost_race().await;
                    in_time(self.look_at_status(&mut connection)).await?;
                }
            }
        }
        Ok(())
    }

    fn hint(&self) {
        self.follower.applied.send_modify(|count| *count += 1);
    }

    async fn pause_after_lost_race(&mut self) {
        let pause_ms = (4_u64 << self.lost_races.min(6)).min(LOST_PAUSE_MS_MAX);
        self.lost_races = self.lost_races.saturating_add(1);
        // Two processes that keep step must fall out of it.
        let jitter_ms = u64::from(Uuid::new_v4().as_bytes()[0]) * pause_ms / 512;
        sleep(Duration::from_millis(pause_ms / 2 + jitter_ms)).await;
    }

    /// Which generation is live, where it stands, and whether a parked event is to be tried again.
    async fn look_at_status(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        loop {
            let status = sqlx::query!(
                r#"
                select p.log_id, p.live_generation, c.position as "position?",
                    exists (
                        select from read_model.parked as k
                        where k.generation = p.live_generation and k.shard = $1 and k.retry_at is not null
                    ) as "retry!"
                from read_model.projection as p
                left join read_model.checkpoint as c on c.generation = p.live_generation and c.shard = $1
                "#,
                self.shard,
            )
            .fetch_one(&mut *connection)
            .await?;
            if status.log_id.is_some_and(|log_id| log_id != self.follower.log_id) {
                return Err(sqlx::Error::Protocol(
                    "the read models were made from another log: run `primetrade rebuild`".to_owned(),
                ));
            }
            let Some(position) = status.position else {
                create_checkpoint(connection, status.live_generation, self.shard).await?;
                continue;
            };
            if status.live_generation != self.generation {
                info!(generation = status.live_generation, shard = self.shard, position, "follows the log");
                self.generation = status.live_generation;
            }
            self.position = position;
            if status.retry {
                parked::retry(connection, &self.follower.tail, self.generation, self.shard).await?;
                self.hint();
            }
            return Ok(());
        }
    }
}

/// An answer of a database that does not hang.
async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer);
    answer.await.unwrap_or_else(|_| Err(sqlx::Error::Protocol("the database does not answer".to_owned())))
}

pub(crate) async fn create_checkpoint(
    connection: &mut PgConnection,
    generation: i32,
    shard: i16,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into read_model.checkpoint (generation, shard, position) values ($1, $2, 0) on conflict do nothing",
        generation,
        shard,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The log has no holes; one that has is damaged, and applying what comes after it would hide that. Keeps what comes
/// before a hole, and fails at it.
fn up_to_a_hole(shard: i16, position: i64, events: &mut Vec<StoredEvent>) -> Result<(), sqlx::Error> {
    let expected = |at: usize| i64::try_from(at).map_or(i64::MAX, |at| position + 1 + at);
    match events.iter().enumerate().position(|(at, event)| event.position != expected(at)) {
        None => Ok(()),
        Some(0) => Err(sqlx::Error::Protocol(format!(
            "the log has a hole: shard {shard} has no event at position {}, but some after it",
            position + 1
        ))),
        Some(hole) => {
            events.truncate(hole);
            Ok(())
        }
    }
}

/// How many events like these make so many bytes.
pub(crate) fn events_within(bytes_max: usize, events: &[StoredEvent]) -> i64 {
    const EVENTS_MIN: usize = 50;
    // data, correlation id, trace and the like
    let bytes: usize = events.iter().map(|event| event.data.len() + 300).sum();
    let each = (bytes / events.len().max(1)).max(1);
    i64::try_from((bytes_max / each).max(EVENTS_MIN)).unwrap_or(i64::MAX)
}

/// Applies batches to one generation of one shard, and finds the event that a failure is due to.
pub(crate) struct Applier {
    /// Halved when a batch fails because of what is in it, until one event is left; then doubled again.
    events_max: i64,
    /// The event that fails, and how often it has.
    trouble: Option<(i64, u32)>,
}

impl Default for Applier {
    fn default() -> Self {
        Self { events_max: BATCH_EVENTS_MAX, trouble: None }
    }
}

impl Applier {
    async fn apply(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        shard: i16,
        events: Vec<StoredEvent>,
        live: bool,
    ) -> Result<Outcome, sqlx::Error> {
        let Some(first) = events.first().map(|event| event.position) else { return Ok(Outcome::Moved) };
        let events_count = events.len();
        let one = (events_count == 1).then(|| events.first().cloned()).flatten();
        let Some(loaded) = apply::load(connection, generation, shard, &events).await? else {
            return Ok(Outcome::Moved);
        };
        if loaded.position != first - 1 || (live && loaded.live_generation != generation) {
            return Ok(Outcome::Moved);
        }
        let batch = self.fold(Batch::new(loaded), events).await;
        let (position, applied) = (batch.position(), batch.events());
        if applied == 0 {
            // The first event is in trouble, and is to be read again.
            return Ok(Outcome::Applied(position));
        }
        match apply::commit(connection, batch).await {
            Ok(Written::Yes) => {
                self.events_max = (self.events_max * 2).min(BATCH_EVENTS_MAX);
                if self.trouble.is_some_and(|(troubled, _)| troubled <= position) {
                    self.trouble = None;
                }
                metrics::counter!("projector_events_applied_total").increment(applied);
                Ok(Outcome::Applied(position))
            }
            Ok(Written::LostRace) => Ok(Outcome::Moved),
            Err(error) if is_due_to_content(&error) => match one {
                None => {
                    self.events_max = i64::try_from(events_count / 2).unwrap_or(1).max(1);
                    warn!(shard, first, events_count, %error, "a batch cannot be written; looking for the event");
                    Ok(Outcome::Applied(first - 1))
                }
                Some(event) => self.write_failed(connection, generation, shard, event, &error).await,
            },
            Err(error) => Err(error),
        }
    }

    /// Folds as much of the batch as can be folded. What fails is parked after some attempts; before that, the batch
    /// ends before it.
    async fn fold(&mut self, mut batch: Batch, events: Vec<StoredEvent>) -> Batch {
        for event in events {
            let Err(failed) = batch.fold(event) else { continue };
            let (event, error) = *failed;
            let attempts = self.failed(event.position);
            if attempts < ATTEMPTS_MAX {
                if batch.events() == 0 {
                    sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
                }
                break;
            }
            warn_parked(&event, &error);
            batch.park(event, error.to_string());
        }
        batch
    }

    /// The database refuses what a single event makes of the rows.
    async fn write_failed(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        shard: i16,
        event: StoredEvent,
        error: &sqlx::Error,
    ) -> Result<Outcome, sqlx::Error> {
        let position = event.position;
        let attempts = self.failed(position);
        if attempts < ATTEMPTS_MAX {
            sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
            return Ok(Outcome::Applied(position - 1));
        }
        let Some(loaded) = apply::load(connection, generation, shard, std::slice::from_ref(&event)).await? else {
            return Ok(Outcome::Moved);
        };
        if loaded.position != position - 1 {
            return Ok(Outcome::Moved);
        }
        warn_parked(&event, error);
        let mut batch = Batch::new(loaded);
        batch.park(event, parked::reason(error));
        match apply::commit(connection, batch).await? {
            Written::Yes => Ok(Outcome::Applied(position)),
            Written::LostRace => Ok(Outcome::Moved),
        }
    }

    fn failed(&mut self, position: i64) -> u32 {
        let attempts = match self.trouble {
            Some((troubled, attempts)) if troubled == position => attempts + 1,
            _ => 1,
        };
        self.trouble = Some((position, attempts));
        attempts
    }
}

/// Applies what the log has past a generation's checkpoint, up to `until` at most. Returns the new checkpoint.
pub(crate) async fn catch_up(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    shard: i16,
    until: i64,
) -> Result<i64, sqlx::Error> {
    let mut applier = Applier::default();
    let mut position = sqlx::query_scalar!(
        "select position from read_model.checkpoint where generation = $1 and shard = $2",
        generation,
        shard,
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut read_events_max = BATCH_EVENTS_MAX / 4;
    while position < until {
        let events_max = applier.events_max.min(read_events_max).min(until - position);
        let mut events = tail.read_after(shard, position, events_max).await?;
        up_to_a_hole(shard, position, &mut events)?;
        read_events_max = events_within(READ_BYTES, &events).min(BATCH_EVENTS_MAX);
        if events.is_empty() {
            return Err(sqlx::Error::Protocol(format!("the log ends at {position} in shard {shard}, before {until}")));
        }
        match applier.apply(connection, generation, shard, events, false).await? {
            Outcome::Applied(to) => {
                position = to;
            }
            Outcome::Moved => {
                return Err(sqlx::Error::Protocol(format!(
                    "somebody else moved the checkpoint of generation {generation}"
                )));
            }
        }
    }
    Ok(position)
}

fn warn_parked(event: &StoredEvent, error: &dyn std::fmt::Display) {
    metrics::counter!("projector_parked_total").increment(1);
    error!(
        shard = event.shard,
        position = event.position,
        task_id = %event.task_id,
        version = event.version,
        event_type = event.event_type,
        %error,
        "an event cannot be applied; it and what follows in its stream is parked"
    );
}

/// Whether the database refused what stood in the statement, so that one event must be to blame: bad data, a broken
/// constraint, a limit of the program. Everything else is tried again for ever.
pub(crate) fn is_due_to_content(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}
