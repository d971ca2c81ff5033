//! One batch of events into one generation, in one transaction.
//!
//! [`load`] reads where the read models stand and the rows of the tasks that the batch touches, [`Batch::fold`] folds in
//! memory, [`write`] moves the fence ([`crate::fence`]) and has each of the projections write what has changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use domain::{StoredEvent, Time};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::fence::{self, Mark, OwnerChanges, OwnerStanding};
use crate::fold::{FoldError, Folded, TaskRow, fold, touches_text};
use crate::park::{self, ToPark};
use crate::projections::{self, AppliedEvent, Effect, Stream, TaskChange};

/// What is in the tables before a batch.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Which generation.
    pub generation: i32,
    /// Where the read models stand.
    pub at: At,
    /// The rows that the batch touches.
    pub rows: HashMap<Stream, TaskRow>,
    /// The streams of the batch that have events parked, with the position of the last of these.
    pub parked: HashMap<Stream, i64>,
}

/// Where the read models stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The generation that queries read.
    pub live_generation: i32,
    /// It is fed from the store.
    pub is_fed_from_store: bool,
    /// The checkpoint that was asked for: the last event applied, and its turn.
    pub checkpoint: Option<(i64, i64)>,
}

/// Loads a shard's checkpoint, and then what the events touch: rows that are newer than the checkpoint's turn belong to
/// a batch that has raised it, and this one is not written.
pub(crate) async fn load(
    connection: &mut PgConnection,
    generation: i32,
    checkpoint_of: Option<i16>,
    events: &[&StoredEvent],
) -> Result<Loaded, sqlx::Error> {
    let status = sqlx::query!(
        r#"
        select c.position as "checkpoint?", c.turn as "turn?", p.live_generation,
            p.feed = 'store' as "is_fed_from_store!",
            exists (select from read_model.parked as k where k.generation = $1) as "any_parked!"
        from read_model.projection as p
        left join read_model.checkpoint as c on c.generation = $1 and c.shard = $2
        "#,
        generation,
        checkpoint_of,
    )
    .fetch_one(&mut *connection)
    .await?;
    let at = At {
        live_generation: status.live_generation,
        is_fed_from_store: status.is_fed_from_store,
        checkpoint: status.checkpoint.zip(status.turn),
    };
    let rows = projections::load_tasks(events, generation, connection).await?;
    let parked = match status.any_parked {
        true => park::load(events, generation, connection).await?,
        false => HashMap::new(),
    };
    Ok(Loaded { generation, at, rows, parked })
}

/// A task that a batch touches.
struct Touched {
    /// In the table.
    before: Option<TaskRow>,
    row: Option<TaskRow>,
    changed: bool,
    text_changed: bool,
}

/// A batch that is being folded.
pub(crate) struct Batch<'a> {
    generation: i32,
    rows: HashMap<Stream, TaskRow>,
    parked: HashMap<Stream, i64>,
    touched: HashMap<Stream, Touched>,
    /// In the order of first touch, so that rows are written in the order of the log.
    order: Vec<Stream>,
    applied: Vec<AppliedEvent<'a>>,
    owners: OwnerChanges,
    to_park: ToPark,
    /// How long the tasks took that were completed.
    completion_seconds: Vec<f64>,
    /// Something happens that would not happen again in the same way.
    must_be_durable: bool,
    events: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(loaded: Loaded) -> Self {
        Self {
            generation: loaded.generation,
            touched: HashMap::with_capacity(loaded.rows.len()),
            rows: loaded.rows,
            parked: loaded.parked,
            order: Vec::new(),
            applied: Vec::new(),
            owners: OwnerChanges::default(),
            to_park: ToPark::default(),
            completion_seconds: Vec::new(),
            must_be_durable: false,
            events: 0,
        }
    }

    /// Without an event: only the mark is moved.
    pub(crate) fn empty(generation: i32) -> Self {
        let at = At { live_generation: generation, is_fed_from_store: false, checkpoint: None };
        Self::new(Loaded { generation, at, rows: HashMap::new(), parked: HashMap::new() })
    }

    /// How many events were folded or parked.
    pub(crate) fn events(&self) -> usize {
        self.events
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

    /// Folds the next event. On an error the batch is as it was.
    pub(crate) fn fold(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.put_aside(event, None),
            None => self.fold_in(event)?,
        }
        self.events += 1;
        Ok(())
    }

    /// How long the tasks took, from creation, that were completed.
    pub(crate) fn take_completion_seconds(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.completion_seconds)
    }

    /// Folds an event that is parked.
    pub(crate) fn fold_parked(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        self.fold_in(event)?;
        self.must_be_durable = true;
        self.owners.parking(event);
        self.events += 1;
        Ok(())
    }

    fn fold_in(&mut self, event: &'a StoredEvent) -> Result<(), FoldError> {
        let touched = self.touch((event.owner_id, event.task_id));
        match fold(&mut touched.row, event)? {
            Folded::Skipped => {}
            Folded::Applied(changes) => {
                touched.changed = true;
                touched.text_changed |= touched.before.is_none() || touches_text(&event.event_type);
                if event.event_type == "TaskCompleted"
                    && let Some(row) = &touched.row
                {
                    let took = event.occurred_at - row.created_at;
                    self.completion_seconds.push(took.as_seconds_f64().max(0.0));
                }
                self.owners.applied(event);
                self.applied.push(AppliedEvent { event, changes });
            }
        }
        Ok(())
    }

    /// Parks the next event, and all that follow it in its stream.
    pub(crate) fn park(&mut self, event: &StoredEvent, reason: String) {
        self.events += 1;
        match self.parked.get(&(event.owner_id, event.task_id)) {
            Some(last) if event.position <= *last => {}
            Some(_) => self.put_aside(event, None),
            None => {
                self.owners.parking(event);
                self.must_be_durable = true;
                self.put_aside(event, Some(reason));
            }
        }
    }

    fn put_aside(&mut self, event: &StoredEvent, reason: Option<String>) {
        self.parked.insert((event.owner_id, event.task_id), event.position);
        self.owners.put_aside(event);
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

/// Whether a batch was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it; where the owners whose rows it changed stand now.
    Yes(Vec<OwnerStanding>),
    /// None of it: the mark has moved since it was loaded.
    LostRace,
}

/// What a transaction has made visible in the live generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The log.
    pub log_id: Uuid,
    /// The name of the read models in Redis.
    pub cache_id: Uuid,
    /// The generation that was written to: the live one.
    pub generation: i32,
    /// When they stood there, or earlier: before the transaction's last statement was sent.
    pub as_of: Time,
    /// Where the owners whose rows have changed stand now.
    pub owners: Vec<OwnerStanding>,
}

/// Writes a batch in a transaction of its own, unless one is open already.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    batch: Batch<'_>,
    mark: &Mark,
) -> Result<Written, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    if batch.must_be_durable {
        sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    }
    let written = write(&mut transaction, batch, mark).await?;
    match written {
        Written::Yes(_) => transaction.commit().await?,
        Written::LostRace => transaction.rollback().await?,
    }
    Ok(written)
}

/// Moves a batch's mark and writes the batch, in the transaction that is open.
pub(crate) async fn write(
    connection: &mut PgConnection,
    batch: Batch<'_>,
    mark: &Mark,
) -> Result<Written, sqlx::Error> {
    let generation = batch.generation;
    let Some(standings) = fence::advance(mark, &batch.owners, generation, connection).await? else {
        return Ok(Written::LostRace);
    };
    batch.to_park.write(generation, connection).await?;
    let effect = batch.into_effect();
    for projection in projections::ALL {
        projection.write(&effect, generation, connection).await?;
    }
    Ok(Written::Yes(standings))
}
