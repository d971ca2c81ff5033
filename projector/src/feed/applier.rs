//! Applies batches of either feed, and finds the event that a failure is due to.

use std::time::Duration;

use domain::StoredEvent;
use sqlx::PgConnection;
use tokio::time::sleep;
use tracing::{error, warn};

use super::BATCH_EVENTS_MAX;
use crate::apply::{self, At, Batch, Mark, OwnerStanding, Written};
use crate::parked;

/// An event that cannot be applied is tried this often before it is parked.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before it is tried again; grows with each.
const ATTEMPT_PAUSE_MS: u64 = 10;

/// Where a batch was read from: a shard of the log, or partitions of the topic.
pub(crate) trait Source {
    /// The shard whose checkpoint is to be loaded.
    fn checkpoint_of(&self) -> Option<i16> {
        None
    }

    /// What is to be stored as read once the first `events` of the batch are applied. `None`: the read models do not
    /// stand where the batch begins.
    fn mark(&self, generation: i32, at: At, events: usize) -> Option<Mark>;
}

/// What came of an attempt to apply events.
pub(crate) enum Outcome {
    /// So many of them; not the next one yet, it is tried again.
    Applied(usize, Vec<OwnerStanding>),
    /// None: the mark is elsewhere, or another generation is live.
    Moved,
}

/// Applies batches to one generation.
pub(crate) struct Applier {
    /// Halved when a batch fails because of what is in it, until one event is left; then doubled again.
    events_max: i64,
    /// The event that fails (shard, position), and how often it has.
    trouble: Option<(Place, u32)>,
}

/// A place in the log.
type Place = (i16, i64);

fn place(event: &StoredEvent) -> Place {
    (event.shard, event.position)
}

impl Default for Applier {
    fn default() -> Self {
        Self { events_max: BATCH_EVENTS_MAX, trouble: None }
    }
}

impl Applier {
    /// So many events at once, at most, the next time.
    pub(crate) fn events_max(&self) -> i64 {
        self.events_max
    }

    /// Applies the events and moves the mark, in one transaction.
    pub(crate) async fn apply(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        source: &impl Source,
        events: &[&StoredEvent],
    ) -> Result<Outcome, sqlx::Error> {
        let loaded = apply::load(connection, generation, source.checkpoint_of(), events).await?;
        let at = loaded.at;
        let batch = self.fold(Batch::new(loaded), events).await;
        let applied = batch.events();
        let Some(mark) = source.mark(generation, at, applied) else { return Ok(Outcome::Moved) };
        if applied == 0 && !events.is_empty() {
            // The first event is in trouble, and is to be tried again.
            return Ok(Outcome::Applied(0, Vec::new()));
        }
        match apply::commit(connection, batch, mark).await {
            Ok(Written::Yes(standings)) => {
                self.events_max = (self.events_max * 2).min(BATCH_EVENTS_MAX);
                if self.trouble.is_some_and(|(troubled, _)| events.iter().take(applied).any(|e| place(e) == troubled)) {
                    self.trouble = None;
                }
                metrics::counter!("projector_events_applied_total").increment(applied as u64);
                Ok(Outcome::Applied(applied, standings))
            }
            Ok(Written::LostRace) => Ok(Outcome::Moved),
            Err(error) if is_due_to_content(&error) => match events {
                [] => Err(error),
                [event] => self.write_failed(connection, generation, source, event, &error).await,
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
    async fn fold(&mut self, mut batch: Batch, events: &[&StoredEvent]) -> Batch {
        for event in events {
            let Err(error) = batch.fold(event) else { continue };
            let attempts = self.failed(event);
            if attempts < ATTEMPTS_MAX {
                if batch.events() == 0 {
                    sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
                }
                break;
            }
            warn_parked(event, &error);
            batch.park(event, error.to_string());
        }
        batch
    }

    /// The database refuses what a single event makes of the rows.
    async fn write_failed(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        source: &impl Source,
        event: &StoredEvent,
        error: &sqlx::Error,
    ) -> Result<Outcome, sqlx::Error> {
        let attempts = self.failed(event);
        if attempts < ATTEMPTS_MAX {
            sleep(Duration::from_millis(ATTEMPT_PAUSE_MS * u64::from(attempts))).await;
            return Ok(Outcome::Applied(0, Vec::new()));
        }
        self.park(connection, generation, source, event, parked::reason(error)).await
    }

    /// Parks a single event.
    pub(crate) async fn park(
        &mut self,
        connection: &mut PgConnection,
        generation: i32,
        source: &impl Source,
        event: &StoredEvent,
        reason: String,
    ) -> Result<Outcome, sqlx::Error> {
        let loaded = apply::load(connection, generation, source.checkpoint_of(), &[event]).await?;
        let Some(mark) = source.mark(generation, loaded.at, 1) else { return Ok(Outcome::Moved) };
        warn_parked(event, &reason);
        let mut batch = Batch::new(loaded);
        batch.park(event, reason);
        match apply::commit(connection, batch, mark).await? {
            Written::Yes(standings) => {
                self.trouble = None;
                Ok(Outcome::Applied(1, standings))
            }
            Written::LostRace => Ok(Outcome::Moved),
        }
    }

    fn failed(&mut self, event: &StoredEvent) -> u32 {
        let attempts = match self.trouble {
            Some((troubled, attempts)) if troubled == place(event) => attempts + 1,
            _ => 1,
        };
        self.trouble = Some((place(event), attempts));
        attempts
    }
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
