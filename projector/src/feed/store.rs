//! The projection fed from the log itself: follows its tail, shard by shard, and applies what comes.
//!
//! Several processes may do so on one database. None of them leads: the one that is woken first applies, and the fence of
//! the checkpoint decides. One that is late has written nothing, waits a moment (longer while it keeps being late) and goes
//! on from the new checkpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use backends::database::AGE_S_MAX;
use domain::StoredEvent;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::applier::{Applier, Outcome};
use super::catch_up::{position_after, up_to_a_gap};
use super::follower::{Follower, STATUS_MS};
use super::limits::{BATCH_EVENTS_MAX, READ_BYTES, events_within};
use super::pauses::{ErrorPause, FencedPause};
use crate::checkpoint::{self, Checkpoint};
use crate::connection::{self, in_time};
use crate::divergence::other_than_applied;
use crate::fence::Fence;
use crate::parking;

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
    /// As it is known here.
    checkpoint: Checkpoint,
    fenced_pause: FencedPause,
    /// The event at the checkpoint, where this process knows it.
    last: Option<Uuid>,
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
            checkpoint: Checkpoint { position: 0, fence: 0 },
            fenced_pause: FencedPause::default(),
            last: None,
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
            connection::end_stopped(&error, &self.follower.pool).await;
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
                let before = (self.generation, self.checkpoint.position);
                in_time(self.look_at_status(&mut connection)).await?;
                looked = Instant::now();
                if before != (self.generation, self.checkpoint.position) {
                    ahead = None;
                    self.follower.hint();
                }
            }
            if self.follower.alarm.is_raised(self.generation, self.shard) {
                tokio::select! {
                    () = sleep(Duration::from_millis(STATUS_MS)) => {}
                    () = self.stop.cancelled() => break,
                }
                continue;
            }
            let events_max = self.applier.events_max().min(self.read_events_max);
            let checkpoint = self.checkpoint;
            let mut events = match ahead.take() {
                Some(events) if events.first().is_some_and(|event| event.position == checkpoint.position) => events,
                // With the event at the checkpoint: it has to be the one that was applied.
                _ => in_time(tail.read_after(self.shard, checkpoint.position - 1, events_max + 1)).await?,
            };
            if events.first().is_some_and(|event| event.position == checkpoint.position) {
                let last = events.remove(0);
                if !self.is_applied(&mut connection, &last).await? {
                    continue;
                }
            }
            // one was read too many where there is none at the checkpoint, as at the log's beginning
            events.truncate(events_max as usize);
            if events.is_empty() {
                tokio::select! {
                    () = tail.changed(POLL_MS) => {}
                    () = self.stop.cancelled() => break,
                }
                continue;
            }
            up_to_a_gap(self.shard, checkpoint.position, &mut events)?;
            self.read_events_max = events_within(READ_BYTES, &events).min(BATCH_EVENTS_MAX);
            let more = i64::try_from(events.len()).is_ok_and(|count| count >= events_max);
            let last = events.last().map_or(checkpoint.position, |event| event.position);
            let events: Vec<&StoredEvent> = events.iter().collect();
            let position = |applied| position_after(self.shard, checkpoint, &events, applied);
            let apply = self.applier.apply(&mut connection, self.generation, &events, position);
            let outcome = if more {
                let read = tail.read_after(self.shard, last - 1, events_max + 1);
                let (outcome, read) = tokio::join!(in_time(apply), in_time(read));
                ahead = Some(read?);
                outcome?
            } else {
                in_time(apply).await?
            };
            match outcome {
                // The event that fails is tried again.
                Outcome::Applied(0, _) => {}
                Outcome::Applied(applied, _) => {
                    self.checkpoint = checkpoint.after(applied);
                    self.last = events.get(applied - 1).map(|event| event.event_id);
                    self.fenced_pause.reset();
                    self.follower.hint();
                }
                Outcome::Fenced => {
                    ahead = None;
                    self.follower.hint();
                    self.fenced_pause.wait().await;
                    in_time(self.look_at_status(&mut connection)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the event that the log has at the checkpoint is the one that was applied; else the alarm is raised.
    async fn is_applied(&mut self, connection: &mut PgConnection, event: &StoredEvent) -> Result<bool, sqlx::Error> {
        let found = match self.last {
            Some(last) if last == event.event_id => None,
            // Another process may have applied it.
            _ => in_time(other_than_applied(connection, self.generation, &[event])).await?,
        };
        if let Some((shard, found)) = &found {
            self.follower.alarm.raise(self.generation, *shard, found);
        }
        self.last = Some(event.event_id);
        Ok(found.is_none())
    }

    /// Which generation is live, its checkpoint, and whether a parked event is to be tried again.
    async fn look_at_status(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let status = loop {
            let status = sqlx::query!(
                r#"
                select p.log_id, p.live_generation, p.feed, c.position as "position?", c.turn as "fence?",
                    exists (
                        select from read_model.parked as k where k.generation = p.live_generation and k.shard = $1
                    ) as "any_parked!",
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
            if let (Some(position), Some(fence)) = (status.position, status.fence) {
                self.checkpoint = Checkpoint { position, fence };
                break status;
            }
            checkpoint::create(connection, status.live_generation, self.shard).await?;
        };
        if status.live_generation != self.generation {
            let position = self.checkpoint.position;
            info!(generation = status.live_generation, shard = self.shard, position, "follows the log");
            self.generation = status.live_generation;
            self.follower.alarm.follow(self.generation);
        }
        self.applier.any_parked = status.any_parked;
        if status.retry {
            self.retry(connection).await?;
            self.follower.hint();
        }
        Ok(())
    }

    /// Tries parked events again.
    async fn retry(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        for (shard, stream) in parking::due(connection, self.generation, Some(self.shard)).await? {
            if began.elapsed() >= parking::RETRY_TIME_MAX {
                break;
            }
            let mut fence = Fence::Checkpoint { shard, value: self.checkpoint.fence };
            let retried =
                parking::retry(connection, &self.follower.tail, self.generation, &mut fence, shard, stream).await;
            self.checkpoint.fence = fence.value();
            retried?;
        }
        Ok(())
    }
}
