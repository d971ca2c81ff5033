//! One term of the relay. Three at once: one reads the log and sends, one waits for the brokers and moves the cursor,
//! one keeps the lease.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::StoredEvent;
use event_store::lease::{Lease, LeaseError, ShardCursor, Term};
use event_store::publication::{Advance, Cursor};
use event_store::{Publication, TailReader};
use kafka::producer::{Delivery, IN_FLIGHT_MESSAGES_MAX, Producer};
use kafka::{KafkaSettings, topic};
use messaging::{Message, partition_of};
use metrics::{counter, histogram};
use process::traces::{self, Kind};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lag::{self, RelayLag};
use crate::trouble::{ACKNOWLEDGED_MS_MAX, Trouble};

/// For how long the lease is taken; renewed much sooner. A leader that died is replaced after so long.
pub(crate) const LEASE_MS: u64 = 5_000;
/// How often the lease is renewed.
const RENEW_MS: u64 = 1_000;
/// Without a wake-up the log is looked at this often while there was something a moment ago: other copies append too …
const BUSY_POLL_MS: u64 = 5;
/// … and this often when there was nothing for so long.
const POLL_MS: u64 = 25;
const QUIET_MS_MIN: u64 = 1_000;
/// The most events that are read at once.
const BATCH_EVENTS_MAX: i64 = 2_000;
/// About as many bytes are read at once.
const BATCH_BYTES: usize = 4 << 20;
/// How many batches wait while others are waited for.
const BATCHES_WAITING_MAX: usize = 4;
/// After so many messages others get their turn on the thread.
const TURN_MESSAGES: usize = 64;
/// How long the brokers have for what is on its way when the process stops; it waits for its parts a little longer.
const STOP_MS_MAX: u64 = 1_500;

// Waiting, waited for, and one that is being sent.
const _: () = assert!((2 * BATCHES_WAITING_MAX + 1) * BATCH_EVENTS_MAX as usize <= IN_FLIGHT_MESSAGES_MAX);

/// What a term works with.
pub(crate) struct Work<'a> {
    pub(crate) publication: &'a Publication,
    pub(crate) settings: &'a KafkaSettings,
    pub(crate) status: &'a watch::Sender<RelayLag>,
    pub(crate) stop: &'a CancellationToken,
    /// Messages acknowledged.
    pub(crate) published: &'a AtomicU64,
    pub(crate) producer: &'a Producer,
    pub(crate) term: Term,
    /// Until when the lease is certainly ours.
    pub(crate) expires: Instant,
}

/// Events that were sent, in the order of the log.
struct Sent {
    advance: Advance,
    deliveries: Vec<Delivery>,
}

impl Work<'_> {
    /// Publishes until it is to stop, or cannot go on.
    pub(crate) async fn run(self, lease: &mut Lease) -> Result<(), Trouble> {
        let Self { publication, settings, status, stop, published, producer, term, expires } = self;
        let (expires, ours_until) = watch::channel(expires);
        let (sent, to_settle) = mpsc::channel(BATCHES_WAITING_MAX);
        let publish = async {
            tokio::select! {
                made = topic::ensure(settings) => made?,
                () = stop.cancelled() => return Ok(()),
            }
            let tail = publication.tail();
            let log_id = tail.log_id().await.map_err(LeaseError::from)?;
            lag::report(status, true, None);
            let shards = term.shards.iter().cloned().map(|cursor| Shard {
                cursor,
                log_id,
                publication: term.publication,
                partitions: settings.partitions,
            });
            Sender { tail, producer, shards: shards.collect(), ours_until, batch_events_max: BATCH_EVENTS_MAX / 4 }
                .run(sent, stop)
                .await
        };
        let settle = settle(publication.cursor(), term.epoch, to_settle, published);
        let stopped = async {
            stop.cancelled().await;
            sleep(Duration::from_millis(STOP_MS_MAX)).await;
        };
        tokio::select! {
            ended = async { tokio::try_join!(publish, settle) } => ended.map(|_| ()),
            lost = keep(lease, term.epoch, &expires) => Err(lost),
            () = stopped => Ok(()),
        }
    }
}

/// Renews the lease for ever. Returns why it could not.
async fn keep(lease: &mut Lease, epoch: i64, expires: &watch::Sender<Instant>) -> Trouble {
    let length = Duration::from_millis(LEASE_MS);
    loop {
        sleep(Duration::from_millis(RENEW_MS)).await;
        let asked = Instant::now();
        match lease.renew(epoch, length).await {
            Ok(true) => expires.send_replace(asked + length),
            Ok(false) => return Trouble::LeaseLost,
            Err(error) => return LeaseError::from(error).into(),
        };
    }
}

/// Reads the log and sends it.
struct Sender<'a> {
    tail: TailReader,
    producer: &'a Producer,
    shards: Vec<Shard>,
    ours_until: watch::Receiver<Instant>,
    batch_events_max: i64,
}

impl Sender<'_> {
    /// Until it is to stop, or whoever settles has gone.
    async fn run(mut self, sent: mpsc::Sender<Sent>, stop: &CancellationToken) -> Result<(), Trouble> {
        let mut found = Instant::now();
        loop {
            let mut idle = true;
            for at in 0..self.shards.len() {
                let room = tokio::select! {
                    room = sent.reserve() => room,
                    () = stop.cancelled() => return Ok(()),
                };
                let Ok(room) = room else { return Ok(()) };
                let ShardCursor { shard, position, .. } = self.shards[at].cursor;
                let read = self.tail.read_after(shard, position, self.batch_events_max).await;
                let events = read.map_err(LeaseError::from)?;
                if !events.is_empty() {
                    idle = false;
                    found = Instant::now();
                    self.batch_events_max = events_within(BATCH_BYTES, &events);
                    room.send(self.send(at, events).await?);
                }
            }
            if idle {
                let is_quiet = found.elapsed() >= Duration::from_millis(QUIET_MS_MIN);
                tokio::select! {
                    () = self.tail.changed(if is_quiet { POLL_MS } else { BUSY_POLL_MS }) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        }
    }

    async fn send(&mut self, at: usize, events: Vec<StoredEvent>) -> Result<Sent, Trouble> {
        let began = Instant::now();
        let shard = &mut self.shards[at];
        let mut deliveries = Vec::with_capacity(events.len());
        let mut last_positions = BTreeMap::new();
        for (n, event) in events.into_iter().enumerate() {
            if n % TURN_MESSAGES == 0 {
                tokio::task::yield_now().await;
                // A process that was stopped for a while wakes up anywhere.
                if Instant::now() >= *self.ours_until.borrow() {
                    return Err(Trouble::LeaseLost);
                }
            }
            traces::export_after(&event.traceparent, "publish", Kind::Producer, began.elapsed(), || {
                vec![("event.type", event.event_type.clone()), ("primetrade.request_id", event.correlation_id.clone())]
            });
            let (partition, message) = shard.message(event)?;
            last_positions.insert(partition, message.event.position);
            deliveries.push(self.producer.send(&message)?);
        }
        let ShardCursor { shard, position, .. } = shard.cursor;
        Ok(Sent { advance: Advance { shard, position, last_positions }, deliveries })
    }
}

/// How many events like these make so many bytes.
fn events_within(bytes_max: usize, events: &[StoredEvent]) -> i64 {
    const EVENTS_MIN: i64 = 50;
    // headers
    let bytes: usize = events.iter().map(|event| event.data.len() + 600).sum();
    let each = (bytes / events.len().max(1)).max(1);
    i64::try_from(bytes_max / each).unwrap_or(i64::MAX).clamp(EVENTS_MIN, BATCH_EVENTS_MAX)
}

/// A shard, as far as it is sent.
struct Shard {
    cursor: ShardCursor,
    log_id: Uuid,
    publication: i64,
    partitions: i32,
}

impl Shard {
    /// The message of the next event, and its partition.
    fn message(&mut self, event: StoredEvent) -> Result<(i32, Message), Trouble> {
        let ShardCursor { shard, position, last_positions, base } = &mut self.cursor;
        if event.position != *position + 1 {
            return Err(Trouble::Hole { shard: *shard, position: *position + 1 });
        }
        *position = event.position;
        let partition = partition_of(event.owner_id, self.partitions);
        let previous_position = last_positions.insert(partition, event.position).unwrap_or(*base);
        let Self { log_id, publication, .. } = *self;
        Ok((partition, Message { event, log_id, publication, previous_position }))
    }
}

/// Waits until what was sent is on the brokers, and moves the cursor behind it. Ends when nothing more comes.
async fn settle(
    mut cursor: Cursor,
    epoch: i64,
    mut to_settle: mpsc::Receiver<Sent>,
    published: &AtomicU64,
) -> Result<(), Trouble> {
    let counted = counter!("relay_published_total");
    let sizes = histogram!("relay_batch_events");
    while let Some(first) = to_settle.recv().await {
        let mut count = 0;
        let mut advances: BTreeMap<i16, Advance> = BTreeMap::new();
        // One move of the cursor for all that was sent meanwhile.
        let mut next = Some(first);
        let mut batches = 0;
        while let Some(sent) = next {
            count += sent.deliveries.len() as u64;
            acknowledged(sent.deliveries).await?;
            merge(&mut advances, sent.advance);
            batches += 1;
            next = if batches < BATCHES_WAITING_MAX { to_settle.try_recv().ok() } else { None };
        }
        let advances: Vec<Advance> = advances.into_values().collect();
        if !cursor.advance(epoch, &advances).await.map_err(LeaseError::from)? {
            return Err(Trouble::LeaseLost);
        }
        published.fetch_add(count, Ordering::Relaxed);
        counted.increment(count);
        #[expect(clippy::cast_precision_loss, reason = "a histogram")]
        sizes.record(count as f64);
    }
    Ok(())
}

async fn acknowledged(deliveries: Vec<Delivery>) -> Result<(), Trouble> {
    for delivery in deliveries {
        timeout(Duration::from_millis(ACKNOWLEDGED_MS_MAX), delivery).await.map_err(|_| Trouble::NotAcknowledged)??;
    }
    Ok(())
}

/// `later` comes after what is there of its shard.
fn merge(advances: &mut BTreeMap<i16, Advance>, later: Advance) {
    match advances.get_mut(&later.shard) {
        Some(advance) => {
            advance.position = later.position;
            advance.last_positions.extend(later.last_positions);
        }
        None => {
            advances.insert(later.shard, later);
        }
    }
}
