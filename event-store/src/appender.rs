//! Group commit. One appender per shard: what arrives while one batch commits becomes the next batch, without a timer.
//! A batch is one statement, one round trip and one fsync, for hundreds of commands.

use std::sync::Arc;
use std::time::Duration;

use backends::database::{DiskSpace, Pool, is_disk_full};
use metrics::{counter, gauge, histogram};
use process::outage::Outage;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::append::{AppendError, AppendResult, Appended, StreamAppend};
use crate::batch::{Batch, Encoded, Unit};
use crate::columns::Columns;
use crate::dedicated_connection::{DedicatedConnection, is_about_values};
use crate::insert::{Inserted, head_ctid, insert, insert_checked, try_disk_space};
use crate::log_state::Seen;
use crate::unavailable::Unavailable;

/// How long a batch is tried again, while the database is away or by halves, in milliseconds.
const RETRY_MS_MAX: u64 = 8_000;
/// The longest pause between two tries, in milliseconds: each may be a new connection to a server that only reads.
const RETRY_PAUSE_MS_MAX: u64 = 1_000;
/// How long a command waits for its outcome, in milliseconds.
const OUTCOME_WAIT_MS_MAX: u64 = 12_000;
/// How often it is tried whether a full disk has room again, in milliseconds.
const ROOM_TRIED_EVERY_MS: u64 = 1_000;

/// The queue of a shard's appender. Clones share it.
#[derive(Clone)]
pub(crate) struct AppendQueue(mpsc::Sender<Unit>);

impl AppendQueue {
    /// With room for so many, and its other end for [`run`].
    pub(crate) fn new(units_max: usize) -> (Self, mpsc::Receiver<Unit>) {
        let (sender, receiver) = mpsc::channel(units_max);
        (Self(sender), receiver)
    }

    /// Returns when the append is on disk.
    pub(crate) async fn append(&self, append: StreamAppend) -> AppendResult {
        let (reply, outcome) = oneshot::channel();
        self.0.try_send(Unit { append: append.into(), reply }).map_err(|error| match error {
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
fn connection(pool: &Pool, seen: Seen) -> DedicatedConnection {
    DedicatedConnection::with(pool, [("plan_cache_mode", "force_generic_plan")]).with_seen(seen)
}

/// The last event of a batch that is on disk now: its position and its id.
fn last_event(appends: &[Encoded], outcomes: &[AppendResult]) -> Option<(i64, Uuid)> {
    let last_events = appends.iter().zip(outcomes).filter_map(|(append, outcome)| {
        let first_position = outcome.as_ref().ok()?.first_position;
        Some((first_position + append.event_count() as i64 - 1, append.last_event()?))
    });
    last_events.max()
}

pub(crate) async fn run(
    shard: i16,
    pool: Pool,
    mut queue: mpsc::Receiver<Unit>,
    disk_space: DiskSpace,
    seen: Seen,
    wake: Arc<watch::Sender<u64>>,
) {
    let connection = connection(&pool, seen.clone());
    let mut appender =
        Appender { shard, connection, disk_space, head_ctid: None, outage: Outage::of("appending to the event store") };
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
                () = appender.space_again() => continue,
            },
        };
        let Some(first) = first else { break };
        left_over = batch.push(first);
        while !batch.is_full()
            && left_over.is_none()
            && let Ok(unit) = queue.try_recv()
        {
            left_over = batch.push(unit);
        }
        queued.set(queue.len() as f64);
        let started = Instant::now();
        appender.connection.look().await;
        let (appends, replies, events) = batch.take();
        let outcomes = appender.append(&appends).await;
        seconds.record(started.elapsed().as_secs_f64());
        batches.record(events as f64);
        let last = last_event(&appends, &outcomes);
        // before anybody is told of it
        seen.note(last.map(|(position, event_id)| (shard, position, event_id)));
        for ((append, reply), outcome) in appends.iter().zip(replies).zip(outcomes) {
            if outcome.is_ok() {
                appended.increment(append.event_count() as u64);
            }
            // Who asked may have gone; the events are there all the same.
            let _ = reply.send(outcome);
        }
        if let Some((last_position, _)) = last {
            position.set(last_position as f64);
            wake.send_modify(|count| *count += 1);
        }
    }
}

struct Appender {
    shard: i16,
    connection: DedicatedConnection,
    disk_space: DiskSpace,
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
    async fn append(&mut self, units: &[Encoded]) -> Vec<AppendResult> {
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
                self.disk_space.set_refused(true);
                return vec![Err(Unavailable::DiskFull.into()); units.len()];
            }
            Err(error) => {
                self.outage.seen(Err::<(), _>(error));
            }
        }
        let deadline = Instant::now() + Duration::from_millis(RETRY_MS_MAX);
        self.append_checked_until(&columns, units, deadline).await
    }

    /// Comes back when a disk that was full, for whomever, may have room again; never where it was not.
    async fn space_again(&mut self) {
        loop {
            self.disk_space.refused().await;
            sleep(Duration::from_millis(ROOM_TRIED_EVERY_MS)).await;
            // the appender of another shard may have found out
            if self.disk_space.is_refused() {
                match self.connection.run(try_disk_space).await {
                    Ok(()) => return self.disk_space.set_refused(false),
                    Err(error) => tracing::debug!(shard = self.shard, %error, "no room yet"),
                }
            }
        }
    }

    /// The checked append, again and again while the database is away; half by half where a value is refused, down to the
    /// unit that has it. All of it ends at the deadline: other batches wait.
    async fn append_checked_until(
        &mut self,
        columns: &Columns<'_>,
        units: &[Encoded],
        deadline: Instant,
    ) -> Vec<AppendResult> {
        let mut pause_ms = 20;
        while Instant::now() < deadline {
            match self.append_checked(columns, units).await {
                Ok(outcomes) => {
                    self.outage.seen(Ok::<_, sqlx::Error>(()));
                    return outcomes;
                }
                // Whether an earlier attempt took effect is not known here.
                Err(error) if is_disk_full(&error) => {
                    self.disk_space.set_refused(true);
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
        let (shard, known_ctid, fresh) = (self.shard, self.head_ctid.take(), self.connection.is_fresh());
        let result = self
            .connection
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
        units: &[Encoded],
    ) -> Result<Vec<AppendResult>, sqlx::Error> {
        let shard = self.shard;
        let judged = self.connection.run(async move |connection| {
            // Only what is tried: while there is no connection, nothing is.
            counter!("event_store_checked_appends_total").increment(1);
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
