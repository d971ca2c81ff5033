//! One batch of events into one generation, in one transaction.
//!
//! [`Batch::load`] reads the rows of the tasks that the events belong to, [`Batch::fold`] folds the events in memory, and
//! [`write`] stores how far the feed is read ([`crate::feed_position`]) and lets each projection write its changes. The
//! fence is read before the rows: a process that changes them raises it, and then nothing of this batch is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use domain::{StoredEvent, Time};
use read_model::{FoldError, OwnerRow, ReadModelId, TaskRow, fold, touches_text};
use sqlx::{Connection, PgConnection};

use crate::feed_position::FeedPosition;
use crate::owners::OwnerChanges;
use crate::parking::{self, ToPark};
use crate::projections::{self, AppliedEvent, Effect, Stream, TaskChange};

/// A task that a batch touches.
struct Touched {
    /// As it is in the table.
    before: Option<TaskRow>,
    row: Option<TaskRow>,
    changed: bool,
    text_changed: bool,
}

/// A batch that is being folded.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    /// Loaded rows that no event has touched yet.
    rows: HashMap<Stream, TaskRow>,
    /// Streams with parked events, and the position of the last one.
    parked: HashMap<Stream, i64>,
    touched: HashMap<Stream, Touched>,
    /// In the order of first touch, so that rows are written in the order of the log.
    order: Vec<Stream>,
    applied: Vec<AppliedEvent<'a>>,
    owners: OwnerChanges,
    to_park: ToPark,
    /// Seconds from creation to completion, of each task that was completed.
    completion_seconds: Vec<f64>,
    /// It does what folding the log again would not repeat in the same way, so its commit waits for the disk.
    must_be_durable: bool,
    events: usize,
}

impl<'a> Batch<'a> {
    /// Loads the rows that the events touch. `any_parked` is false where it is known that none of the events which this
    /// process feeds to the generation is parked.
    pub(crate) async fn load(
        connection: &mut PgConnection,
        generation: i32,
        events: &[&StoredEvent],
        any_parked: bool,
    ) -> Result<Self, sqlx::Error> {
        let rows = projections::load_tasks(events, generation, connection).await?;
        let parked = match any_parked {
            true => parking::load(events, generation, connection).await?,
            false => HashMap::new(),
        };
        Ok(Self { rows, parked, ..Self::default() })
    }

    /// How many events were folded or parked.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// Whether it parks any event.
    pub(crate) fn parks(&self) -> bool {
        !self.to_park.is_empty()
    }

    fn touch(&mut self, stream: Stream) -> &mut Touched {
        match self.touched.entry(stream) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.order.push(stream);
                let row = self.rows.remove(&stream);
                entry.insert(Touched { before: row.clone(), row, changed: false, text_changed: false })
            }
        }
    }

    /// Folds the next event. After an error the batch is unchanged.
    pub(crate) fn fold(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.park_event(event, None),
            None => self.fold_in(event)?,
        }
        self.events += 1;
        Ok(())
    }

    /// Takes the seconds from creation to completion, of each task that was completed.
    pub(crate) fn take_completion_seconds(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.completion_seconds)
    }

    /// Folds an event that was parked.
    pub(crate) fn fold_parked(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        self.fold_in(event)?;
        self.must_be_durable = true;
        self.owners.parking(event);
        self.events += 1;
        Ok(())
    }

    fn fold_in(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        let touched = self.touch((event.owner_id, event.task_id));
        let Some(changes) = fold(&mut touched.row, event)? else { return Ok(()) };
        touched.changed = true;
        touched.text_changed |= touched.before.is_none() || touches_text(&event.event_type);
        let Some(row) = &touched.row else { return Ok(()) };
        let after = row.without_texts();
        if event.event_type == "TaskCompleted" {
            let took = event.occurred_at - row.task.created_at;
            self.completion_seconds.push(took.as_seconds_f64().max(0.0));
        }
        self.owners.applied(event);
        self.applied.push(AppliedEvent { event, changes, after });
        Ok(())
    }

    /// Parks the next event; [`Self::fold`] then parks all that follow it in its stream.
    pub(crate) fn park(&mut self, event: &StoredEvent, reason: String) {
        self.events += 1;
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.park_event(event, None),
            None => {
                self.owners.parking(event);
                self.must_be_durable = true;
                self.park_event(event, Some(reason));
            }
        }
    }

    fn park_event(&mut self, event: &StoredEvent, reason: Option<String>) {
        self.parked.insert((event.owner_id, event.task_id), event.position);
        self.owners.parked(event);
        self.to_park.push(event, reason);
    }

    fn into_effect(mut self) -> Effect<'a> {
        let changes = self.order.iter().filter_map(|stream| match self.touched.remove(stream) {
            Some(Touched { before, row: Some(after), changed: true, text_changed }) => {
                Some(TaskChange { before, after, text_changed })
            }
            _ => None,
        });
        Effect { tasks: changes.collect(), events: self.applied }
    }
}

/// What a transaction has made visible in the live generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The read models that were written.
    pub read_model: ReadModelId,
    /// Taken before the transaction's last statement was sent: not later than the owners had these versions.
    pub as_of: Time,
    /// The rows of the owners that have changed.
    pub owners: Vec<OwnerRow>,
}

/// Writes a batch in a transaction of its own, or in a savepoint if one is open. Returns the rows of the owners that have
/// changed; `None` if another process has raised the fence, and nothing was written.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    generation: i32,
    batch: Batch<'_>,
    position: &FeedPosition,
) -> Result<Option<Vec<OwnerRow>>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    if batch.must_be_durable {
        sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    }
    let owners = write(&mut transaction, generation, batch, position).await?;
    match owners {
        Some(_) => transaction.commit().await?,
        None => transaction.rollback().await?,
    }
    Ok(owners)
}

/// Writes a batch in the open transaction; otherwise as [`commit`].
pub(crate) async fn write(
    connection: &mut PgConnection,
    generation: i32,
    batch: Batch<'_>,
    position: &FeedPosition,
) -> Result<Option<Vec<OwnerRow>>, sqlx::Error> {
    let Some(owners) = position.advance(&batch.owners, generation, connection).await? else { return Ok(None) };
    batch.to_park.write(generation, connection).await?;
    let effect = batch.into_effect();
    for projection in projections::ALL {
        projection.write(&effect, generation, connection).await?;
    }
    Ok(Some(owners))
}
