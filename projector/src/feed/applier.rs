//! Applies batches of either feed, and finds the event that a failure is due to.

use std::time::Duration;

use domain::StoredEvent;
use event_store::is_about_values;
use process::traces::{self, Kind};
use read_model::OwnerRow;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::limits::BATCH_EVENTS_MAX;
use crate::batch::{self, Batch};
use crate::feed_position::FeedPosition;
use crate::parking;

/// An event that cannot be applied is tried this often before it is parked.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before it is tried again; grows with each.
const ATTEMPT_PAUSE_MS: u64 = 10;

/// What came of an attempt to apply events.
pub(crate) enum Outcome {
    /// So many of them; not the next one yet, it is tried again.
    Applied(usize, Vec<OwnerRow>),
    /// None: another process has raised the fence.
    Fenced,
}

/// Applies batches to one generation.
pub(crate) struct Applier {
    /// Halved when a batch fails because of what is in it, or takes too long, until one event is left; then doubled again.
    events_max: i64,
    /// The event that fails (shard, position), and how often it has.
    trouble: Option<(LogPosition, u32)>,
    /// False: nothing is parked of what it applies, as far as the fence is known. See [`Batch::load`].
    pub(crate) any_parked: bool,
    /// What it applies happens now: it is counted and traced.
    live: bool,
}

/// Shard and position.
type LogPosition = (i16, i64);

fn log_position(event: &StoredEvent) -> LogPosition {
    (event.shard, event.position)
}

impl Default for Applier {
    fn default() -> Self {
        Self { events_max: BATCH_EVENTS_MAX, trouble: None, any_parked: true, live: true }
    }
}

impl Applier {
    /// For a generation that is being made from what happened long ago.
    pub(crate) fn of_a_rebuild() -> Self {
        Self { live: false, ..Self::default() }
    }

    /// So many events at once, at most, the next time.
    pub(crate) fn events_max(&self) -> i64 {
        self.events_max
    }

    /// Applies the events and stores how far the feed is read, in one transaction. `position` says how far that is once
    /// so many of the events are applied.
    pub(crate) async fn apply(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        events: &[&StoredEvent],
        position: impl Fn(usize) -> FeedPosition,
    ) -> Result<Outcome, sqlx::Error> {
        let began = Instant::now();
        // Should this be broken off for taking too long, the next batch is a smaller one.
        let events_max = std::mem::replace(&mut self.events_max, i64::try_from(events.len() / 2).unwrap_or(1).max(1));
        let batch = Batch::load(connection, generation, events, self.any_parked).await?;
        let mut batch = self.fold(batch, events).await;
        let applied = batch.events();
        let completion_seconds = batch.take_completion_seconds();
        if applied == 0 && !events.is_empty() {
            self.events_max = events_max;
            // The first event is in trouble, and is to be tried again.
            return Ok(Outcome::Applied(0, Vec::new()));
        }
        self.any_parked |= batch.parks();
        match batch::commit(connection, generation, batch, &position(applied)).await {
            Ok(Some(owners)) => {
                self.events_max = (events_max * 2).min(BATCH_EVENTS_MAX);
                if self.trouble.is_some_and(|(troubled, _)| {
                    events.iter().take(applied).any(|event| log_position(event) == troubled)
                }) {
                    self.trouble = None;
                }
                metrics::counter!("projector_events_applied_total").increment(applied as u64);
                if self.live {
                    observe(&events[..applied.min(events.len())], &completion_seconds, began.elapsed());
                }
                Ok(Outcome::Applied(applied, owners))
            }
            Ok(None) => {
                self.events_max = events_max;
                Ok(Outcome::Fenced)
            }
            Err(error) if is_about_values(&error) => match events {
                [] => Err(error),
                [event] => self.write_failed(connection, generation, event, position(1), &error).await,
                [first, ..] => {
                    self.events_max = i64::try_from(events.len() / 2).unwrap_or(1).max(1);
                    let (shard, position, events) = (first.shard, first.position, events.len());
                    warn!(shard, position, events, %error, "a batch cannot be written; looking for the event");
                    Ok(Outcome::Applied(0, Vec::new()))
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Folds as much of the batch as can be folded. What fails is parked after some attempts; before that, the batch
    /// ends before it.
    async fn fold<'a>(&mut self, mut batch: Batch<'a>, events: &[&'a StoredEvent]) -> Batch<'a> {
        for event in events.iter().copied() {
            let Err(error) = batch.fold(event) else { continue };
            let attempts = self.failed(event);
            if attempts < ATTEMPTS_MAX {
                if batch.events() == 0 {
                    sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
                }
                break;
            }
            let reason = parking::short(&error.to_string());
            warn_parked(event, &reason);
            batch.park(event, reason);
        }
        batch
    }

    /// The database refuses what a single event makes of the rows.
    async fn write_failed(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        event: &StoredEvent,
        position: FeedPosition,
        error: &sqlx::Error,
    ) -> Result<Outcome, sqlx::Error> {
        let attempts = self.failed(event);
        if attempts < ATTEMPTS_MAX {
            sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
            return Ok(Outcome::Applied(0, Vec::new()));
        }
        self.park(connection, generation, event, position, parking::reason(error)).await
    }

    /// Parks a single event, which is at the end of what is read then.
    pub(crate) async fn park(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        event: &StoredEvent,
        position: FeedPosition,
        reason: String,
    ) -> Result<Outcome, sqlx::Error> {
        let mut batch = Batch::load(connection, generation, &[event], true).await?;
        let reason = parking::short(&reason);
        warn_parked(event, &reason);
        batch.park(event, reason);
        self.any_parked = true;
        match batch::commit(connection, generation, batch, &position).await? {
            Some(owners) => {
                self.trouble = None;
                Ok(Outcome::Applied(1, owners))
            }
            None => Ok(Outcome::Fenced),
        }
    }

    fn failed(&mut self, event: &StoredEvent) -> u32 {
        let attempts = match self.trouble {
            Some((troubled, attempts)) if troubled == log_position(event) => attempts + 1,
            _ => 1,
        };
        self.trouble = Some((log_position(event), attempts));
        attempts
    }
}

/// What was applied, for metrics and traces.
fn observe(events: &[&StoredEvent], completion_seconds: &[f64], took: Duration) {
    if !completion_seconds.is_empty() {
        let durations = metrics::histogram!("task_completion_duration_seconds");
        completion_seconds.iter().for_each(|seconds| durations.record(*seconds));
    }
    #[expect(clippy::cast_precision_loss, reason = "a histogram")]
    metrics::histogram!("projector_batch_events").record(events.len() as f64);
    metrics::histogram!("projector_batch_duration_seconds").record(took.as_secs_f64());
    if traces::is_on() {
        for event in events {
            traces::export_after(&event.traceparent, "project", Kind::Consumer, took, || {
                vec![("event.type", event.event_type.clone()), ("primetrade.request_id", event.correlation_id.clone())]
            });
        }
    }
}

fn warn_parked(event: &StoredEvent, error: &dyn std::fmt::Display) {
    metrics::counter!("projector_parked_total").increment(1);
    error!(
        shard = event.shard,
        position = event.position,
        task_id = %event.task_id,
        owner_id = %event.owner_id,
        correlation_id = event.correlation_id,
        version = event.version,
        event_type = event.event_type,
        %error,
        "an event cannot be applied; it and what follows in its stream is parked"
    );
}
