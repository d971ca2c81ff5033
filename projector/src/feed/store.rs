//! The projection fed from the log itself: follows its tail, shard by shard, and applies what comes.
//!
//! Several processes may do so on one database. None of them leads: whoever is woken first applies, and the turn of
//! the checkpoint decides. Who comes too late has written nothing, waits a moment (longer while it keeps coming too
//! late) and goes on from the new checkpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use backends::database::AGE_S_MAX;
use domain::StoredEvent;
use event_store::TailReader;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::applier::{Applier, Outcome, Source};
use super::{BATCH_EVENTS_MAX, ErrorPause, Follower, LostRaces, READ_BYTES, STATUS_MS, events_within, in_time};
use crate::batch::At;
use crate::connection;
use crate::fence::Mark;
use crate::parked::{self, Lane};

/// Without a wake-up the tail is looked at this often.
const POLL_MS: u64 = 25;
/// How often new shards are looked for.
const SHARDS_MS: u64 = 5_000;

/// Runs a task for each shard, and looks out for new ones. Returns when it is to stop, or one died.
pub(super) async fn run(follower: Follower, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut shards = BTreeMap::new();
    while !stop.is_cancelled() {
        match follower.tail.heads().await {
            Ok(heads) => {
                for (shard, _) in heads {
                    shards.entry(shard).or_insert_with(|| {
                        tasks.spawn(Shard::new(follower.clone(), shard, stop.clone()).run());
                    });
                }
            }
            Err(error) => warn!(%error, "the shards of the log cannot be read; trying again"),
        }
        tokio::select! {
            () = sleep(Duration::from_millis(SHARDS_MS)) => {}
            () = stop.cancelled() => {}
            Some(ended) = tasks.join_next() => {
                if !stop.is_cancelled() {
                    error!(?ended, "a part of the projector has ended");
                    stop.cancel();
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// One shard of the live projection.
struct Shard {
    follower: Follower,
    shard: i16,
    stop: CancellationToken,
    generation: i32,
    position: i64,
    lost_races: LostRaces,
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
            lost_races: LostRaces::default(),
            read_events_max: BATCH_EVENTS_MAX / 4,
            applier: Applier::default(),
        }
    }

    /// Follows its shard for ever.
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut pause = ErrorPause::default();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let Err(error) = self.follow().await else { break };
            pause.after(&error, started, &stop).await;
        }
    }

    /// Follows with one connection, until it is to stop.
    async fn follow(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = in_time(connection::for_batches(&self.follower.pool)).await?;
        let mut connected = Instant::now();
        let mut tail = self.follower.tail.clone();
        in_time(self.look_at_status(&mut connection)).await?;
        let mut looked = Instant::now();
        // Read while the batch before it was written.
        let mut ahead: Option<Vec<StoredEvent>> = None;
        while !self.stop.is_cancelled() {
            if looked.elapsed() >= Duration::from_millis(STATUS_MS) {
                if connected.elapsed() >= Duration::from_secs(AGE_S_MAX) {
                    connection = in_time(connection::for_batches(&self.follower.pool)).await?;
                    connected = Instant::now();
                }
                let before = (self.generation, self.position);
                in_time(self.look_at_status(&mut connection)).await?;
                looked = Instant::now();
                if before != (self.generation, self.position) {
                    ahead = None;
                    self.follower.hint();
                }
            }
            let events_max = self.applier.events_max().min(self.read_events_max);
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
            let batch = Batch { shard: self.shard, live: true, events: &events.iter().collect::<Vec<_>>() };
            let apply = self.applier.apply(&mut connection, self.generation, &batch, batch.events);
            let outcome = if more {
                let read = tail.read_after(self.shard, last, events_max);
                let (outcome, read) = tokio::join!(in_time(apply), in_time(read));
                ahead = Some(read?);
                outcome?
            } else {
                in_time(apply).await?
            };
            match outcome {
                Outcome::Applied(count, _) => {
                    self.position += count_of(count);
                    self.lost_races.won();
                    self.follower.hint();
                }
                Outcome::Moved => {
                    ahead = None;
                    self.follower.hint();
                    self.lost_races.pause().await;
                    in_time(self.look_at_status(&mut connection)).await?;
                }
            }
        }
        Ok(())
    }

    /// Which generation is live, where it stands, and whether a parked event is to be tried again.
    async fn look_at_status(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        loop {
            let status = sqlx::query!(
                r#"
                select p.log_id, p.live_generation, p.feed, c.position as "position?",
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
            self.follower.check(status.log_id, &status.feed)?;
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
                let began = Instant::now();
                for (shard, stream) in parked::due(connection, self.generation, Some(self.shard)).await? {
                    if began.elapsed() >= parked::RETRY_TIME_MAX {
                        break;
                    }
                    let (tail, lane) = (&self.follower.tail, &mut Lane::Shard(shard));
                    parked::retry(connection, tail, self.generation, lane, shard, stream).await?;
                }
                self.follower.hint();
            }
            return Ok(());
        }
    }
}

/// The next events of a shard.
struct Batch<'a> {
    shard: i16,
    /// Of the generation that queries read; else of one that is being made.
    live: bool,
    events: &'a [&'a StoredEvent],
}

impl Source for Batch<'_> {
    fn checkpoint_of(&self) -> Option<i16> {
        Some(self.shard)
    }

    fn mark(&self, generation: i32, at: At, events: usize) -> Option<Mark> {
        let (position, turn) = at.checkpoint?;
        let first = self.events.first()?.position;
        let is_live = at.live_generation == generation && at.is_fed_from_store;
        (position == first - 1 && (!self.live || is_live)).then(|| Mark::Checkpoint {
            shard: self.shard,
            turn,
            position: position + count_of(events),
            recorded_at: self.events.get(..events).and_then(<[_]>::last).map(|event| event.recorded_at),
        })
    }
}

fn count_of(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
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

/// Applies what the log has past a generation's checkpoint, up to `until` at most. Returns the new checkpoint.
pub(crate) async fn catch_up(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    shard: i16,
    until: i64,
) -> Result<i64, sqlx::Error> {
    let mut applier = Applier::of_a_rebuild();
    let mut position = sqlx::query_scalar!(
        "select position from read_model.checkpoint where generation = $1 and shard = $2",
        generation,
        shard,
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut read_events_max = BATCH_EVENTS_MAX / 4;
    while position < until {
        let events_max = applier.events_max().min(read_events_max).min(until - position);
        let mut events = tail.read_after(shard, position, events_max).await?;
        up_to_a_hole(shard, position, &mut events)?;
        read_events_max = events_within(READ_BYTES, &events).min(BATCH_EVENTS_MAX);
        if events.is_empty() {
            return Err(sqlx::Error::Protocol(format!("the log ends at {position} in shard {shard}, before {until}")));
        }
        let batch = Batch { shard, live: false, events: &events.iter().collect::<Vec<_>>() };
        match applier.apply(connection, generation, &batch, batch.events).await? {
            Outcome::Applied(count, _) => position += count_of(count),
            Outcome::Moved => {
                return Err(sqlx::Error::Protocol(format!(
                    "somebody else moved the checkpoint of generation {generation}"
                )));
            }
        }
    }
    Ok(position)
}
