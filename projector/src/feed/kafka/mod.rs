//! The projection fed from Kafka: this copy's partitions of the topic, in batches that may mix them.
//!
//! An owner's events are in one partition, and a partition belongs to one copy at a time; but a copy that is late (it
//! was stopped, or has not heard yet) may still believe that one is its own. Nothing depends on that: a copy that begins with
//! a partition raises its fence ([`claim`]), and a batch is written only from the fence that its copy knows.
//!
//! Missing messages are noticed, and what comes twice does nothing ([`chain`]).

mod assignment;
mod chain;
mod claim;
mod foreign;
mod gaps;
mod plan;
mod unreadable;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backends::database::{AGE_S_MAX, Pool};
use domain::Time;
use messaging::{Consumer, Received, Session, Subscription, partition_of};
use process::clock;
use read_model::{OwnerRow, ReadModelId};
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use self::assignment::{Assignment, Pending, State};
use self::claim::claim;
use self::plan::{Then, plan};
use self::unreadable::Parked;
use super::applier::{Applier, Outcome};
use super::follower::{Follower, STATUS_MS};
use super::limits::BATCH_EVENTS_MAX;
use super::pauses::{ErrorPause, FencedPause};
use crate::batch::Applied;
use crate::connection::{self, in_time};
use crate::divergence::other_than_applied;
use crate::fence::Fence;
use crate::parking;

pub use self::assignment::Partitions;
pub use self::foreign::Foreign;

/// As many messages as events are applied at once, at most, are taken out of the queue.
const PENDING_MESSAGES_MAX: usize = BATCH_EVENTS_MAX as usize;
/// How often it is looked whether partitions that are read to their ends have everything.
const ENDS_MS: u64 = 5_000;
/// No partition has it.
const UNKNOWN_FENCE: i64 = 0;

/// The feed of this copy.
pub(super) struct Kafka {
    follower: Follower,
    subscription: Subscription,
    stop: CancellationToken,
    owner_versions: Option<mpsc::Sender<Applied>>,
    foreign: watch::Sender<Foreign>,
    /// The shortest one that the brokers take.
    session: Session,
    /// Assignments that are not answered yet.
    assigned: VecDeque<Assigned>,
    generation: i32,
    /// The name of the read models in Redis.
    cache_id: Uuid,
    assignment: Assignment,
    /// Where brokers say that partitions end, not looked at yet.
    ends: Vec<(i32, i64)>,
    applier: Applier,
    fenced_pause: FencedPause,
}

struct Assigned {
    partitions: Vec<i32>,
    topic_partitions: i32,
    begin: oneshot::Sender<Vec<(i32, Option<i64>)>>,
}

/// Why following ends.
enum End {
    /// It is to stop.
    Stop,
    /// The consumer is of no use any more.
    Consumer,
}

impl Kafka {
    pub(super) fn new(
        follower: Follower,
        subscription: Subscription,
        owner_versions: Option<mpsc::Sender<Applied>>,
        partitions: watch::Sender<Partitions>,
        foreign: watch::Sender<Foreign>,
        stop: CancellationToken,
    ) -> Self {
        let topic: Arc<str> = subscription.topic().into();
        // shown from the start, as in `prepare`
        metrics::counter!("projector_foreign_messages_total").increment(0);
        metrics::counter!("projector_unreadable_messages_total").increment(0);
        Self {
            follower,
            subscription,
            stop,
            owner_versions,
            foreign,
            session: Session::default(),
            assigned: VecDeque::new(),
            generation: 0,
            cache_id: Uuid::nil(),
            assignment: Assignment::new(topic, partitions),
            ends: Vec::new(),
            applier: Applier::default(),
            fenced_pause: FencedPause::default(),
        }
    }

    /// Follows the topic for ever: the connection to the database and the consumer each end and begin on their own.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut pause = ErrorPause::default();
        while !stop.is_cancelled() {
            let (started, session) = (Instant::now(), self.session);
            let group = group(&self.assignment.topic, self.follower.log_id);
            let mut consumer = match self.subscription.start(&group, session) {
                Ok(consumer) => consumer,
                Err(error) => {
                    pause.after(&error, started, &stop).await;
                    continue;
                }
            };
            let end = loop {
                let started = Instant::now();
                match self.follow(&mut consumer).await {
                    Ok(end) => break end,
                    Err(_) if stop.is_cancelled() => break End::Stop,
                    Err(error) => {
                        connection::end_stopped(&error, &self.follower.pool).await;
                        pause.after(&error, started, &stop).await;
                    }
                }
            };
            self.assigned.clear();
            self.assignment.clear();
            consumer.stop().await;
            if matches!(end, End::Consumer) && self.session == session {
                pause.after(&"the consumer has ended", started, &stop).await;
            }
        }
    }

    /// Follows with one connection to the database.
    async fn follow(&mut self, consumer: &mut Consumer) -> Result<End, sqlx::Error> {
        let mut connection = in_time(connection::for_batches(&self.follower.pool)).await?;
        let mut connected = Instant::now();
        // Nobody knows what became of the last statement of the connection before this one: all is begun with again.
        self.assignment.partitions.values_mut().for_each(|partition| partition.fence = UNKNOWN_FENCE);
        in_time(self.look(&mut connection, consumer)).await?;
        let mut looked = Instant::now();
        let mut asked_for_ends = Instant::now();
        while !self.stop.is_cancelled() {
            let look_in = Duration::from_millis(STATUS_MS).saturating_sub(looked.elapsed());
            if look_in.is_zero() {
                if connected.elapsed() >= Duration::from_secs(AGE_S_MAX) {
                    connection = in_time(connection::for_batches(&self.follower.pool)).await?;
                    connected = Instant::now();
                }
                in_time(self.look(&mut connection, consumer)).await?;
                looked = Instant::now();
            }
            if asked_for_ends.elapsed() >= Duration::from_millis(ENDS_MS) {
                let asking = gaps::ask_for_ends(&mut self.assignment, &self.follower, &mut connection, consumer);
                in_time(asking).await?;
                asked_for_ends = Instant::now();
            }
            if self.assignment.pending.is_empty() && self.assigned.is_empty() {
                tokio::select! {
                    received = consumer.next() => match received {
                        Some(received) => self.receive(received),
                        None => return Ok(End::Consumer),
                    },
                    () = sleep(look_in) => continue,
                    () = self.stop.cancelled() => return Ok(End::Stop),
                }
            }
            while self.assigned.is_empty() && self.assignment.pending.len() < PENDING_MESSAGES_MAX {
                let Some(received) = consumer.try_next() else { break };
                self.receive(received);
            }
            while !self.assigned.is_empty() {
                self.begin_with_assigned(&mut connection).await?;
            }
            if !self.assignment.pending.is_empty() {
                self.apply(&mut connection, consumer).await?;
            }
            for end in std::mem::take(&mut self.ends) {
                let (assignment, follower) = (&mut self.assignment, &self.follower);
                in_time(gaps::judge_end(assignment, follower, self.generation, &mut connection, end)).await?;
            }
        }
        Ok(End::Stop)
    }

    fn receive(&mut self, received: Received) {
        match received {
            Received::Assigned { partitions, of, begin } => {
                self.assigned.push_back(Assigned { partitions, topic_partitions: of, begin });
            }
            Received::Revoked(partitions) => self.assignment.revoke(&partitions),
            Received::Message { partition, offset, message } => {
                self.assignment.receive(Pending { partition, offset, message });
            }
            Received::Sought(partition) => self.assignment.sought(partition),
            Received::Fetched(ends) => ends.into_iter().for_each(|(number, end)| self.assignment.fetched(number, end)),
            Received::End { partition, end } => self.ends.push((partition, end)),
            Received::Failing(error) => {
                warn!(topic = %self.assignment.topic, error, "Kafka cannot be read; trying again");
            }
            Received::SessionRefused => {
                self.session = Session::Long;
                info!(
                    "the brokers take no session of less than 6 s: partitions of a copy that is killed are nobody's for so long \
                     (group.min.session.timeout.ms=1000 at the brokers makes it 2 s)"
                );
            }
        }
    }

    /// Begins with the partitions of the first assignment.
    async fn begin_with_assigned(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Some(assigned) = self.assigned.front() else { return Ok(()) };
        let (partitions, topic_partitions) = (assigned.partitions.clone(), assigned.topic_partitions);
        let begin = in_time(self.claim(connection, &partitions, Some(topic_partitions))).await?;
        let Some(assigned) = self.assigned.pop_front() else { return Ok(()) };
        // Nothing of them was read before: there is no seek to wait for.
        partitions.iter().for_each(|partition| self.assignment.sought(*partition));
        // A consumer that does not wait for it any more has ended.
        let _ended = assigned.begin.send(begin);
        self.assignment.report_share();
        Ok(())
    }

    /// Claims partitions that are assigned to us; returns the offset at which each begins. `topic_partitions`: how many the
    /// topic has, where that was just asked.
    async fn claim(
        &mut self,
        connection: &mut PgConnection,
        numbers: &[i32],
        topic_partitions: Option<i32>,
    ) -> Result<Vec<(i32, Option<i64>)>, sqlx::Error> {
        let known = topic_partitions.unwrap_or(self.assignment.topic_partitions);
        let topic = &self.assignment.topic;
        let claim = claim(connection, &self.follower, topic, numbers, known, topic_partitions.is_some()).await?;
        self.generation = claim.generation;
        self.applier.any_parked = claim.any_parked;
        self.assignment.topic_partitions = claim.topic_partitions;
        let begin = claim.partitions.iter().map(|(number, partition)| (*number, partition.next_offset)).collect();
        self.assignment.begin(claim.partitions);
        Ok(begin)
    }

    /// Looks whether another generation is live, another process has raised our fences, something is to be tried again.
    async fn look(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let ours: Vec<i32> = self.assignment.partitions.keys().copied().collect();
        let status = sqlx::query!(
            r#"
            select p.log_id, p.live_generation, p.feed, p.cache_id,
                exists (select from read_model.parked as k where k.generation = p.live_generation) as "any_parked!",
                exists (
                    select from read_model.parked as k where k.generation = p.live_generation and k.retry_at is not null
                ) as "retry!",
                array(
                    select k.partition from read_model.kafka_partition as k
                    where k.topic = $1 and k.partition = any ($2)
                    order by k.partition
                ) as "partitions!: Vec<i32>",
                array(
                    select k.turn from read_model.kafka_partition as k
                    where k.topic = $1 and k.partition = any ($2)
                    order by k.partition
                ) as "fences!: Vec<i64>",
                array(
                    select c.shard from read_model.checkpoint as c
                    where c.generation = p.live_generation
                    order by c.shard
                ) as "shards!: Vec<i16>",
                array(
                    select c.position from read_model.checkpoint as c
                    where c.generation = p.live_generation
                    order by c.shard
                ) as "positions!: Vec<i64>"
            from read_model.projection as p
            "#,
            &*self.assignment.topic,
            &ours,
        )
        .fetch_one(&mut *connection)
        .await?;
        self.follower.check(status.log_id, &status.feed)?;
        self.cache_id = status.cache_id;
        self.applier.any_parked = status.any_parked;
        self.assignment.base = status.shards.into_iter().zip(status.positions).collect();
        if status.live_generation != self.generation {
            info!(generation = status.live_generation, topic = %self.assignment.topic, "follows the topic");
            self.generation = status.live_generation;
            self.follower.alarm.follow(self.generation);
            self.follower.hint();
        }
        let fences: BTreeMap<i32, i64> = status.partitions.into_iter().zip(status.fences).collect();
        let now = Instant::now();
        let again = self.assignment.partitions.iter().filter(|(number, partition)| {
            let is_ours = fences.get(number) == Some(&partition.fence);
            !is_ours || matches!(partition.state, State::Stopped(until) if until <= now)
        });
        let again: Vec<i32> = again.map(|(number, _)| *number).collect();
        if !again.is_empty() {
            for (partition, offset) in self.claim(connection, &again, None).await? {
                consumer.seek(partition, offset);
            }
        }
        if status.retry {
            self.retry(connection).await?;
        }
        Ok(())
    }

    /// Applies what is pending, or some of it.
    async fn apply(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let Self { assignment, applier, follower, generation, .. } = self;
        let events_max = usize::try_from(applier.events_max()).unwrap_or(1);
        let alarm = &follower.alarm;
        let plan = plan(assignment, follower.log_id, events_max, |shard| alarm.is_raised(*generation, shard));
        if let Some((shard, found)) = in_time(other_than_applied(connection, *generation, &plan.again)).await? {
            alarm.raise(*generation, shard, &found);
            return Ok(());
        }
        if plan.steps.is_empty() {
            return match plan.then {
                Then::More => Ok(()),
                Then::Unreadable => in_time(self.park_unreadable(connection, consumer)).await,
                Then::Gap(partition, gap) => {
                    let gap = (partition, gap);
                    in_time(gaps::stop_at(assignment, follower, *generation, connection, consumer, gap)).await
                }
                Then::OtherLog(partition, shard, found) => {
                    alarm.raise(*generation, shard, found);
                    gaps::stop(assignment, consumer, partition);
                    Ok(())
                }
            };
        }
        let as_of = clock::now();
        let applying = applier.apply(connection, *generation, &plan.events, |events| plan.position_after(events));
        match in_time(applying).await? {
            // The event that fails is tried again.
            Outcome::Applied(0, _) if !plan.events.is_empty() => Ok(()),
            Outcome::Applied(events, owners) => {
                let (messages, positions) = (plan.steps_of(events), plan.positions_after(events));
                let foreign = plan.foreign(messages);
                if !foreign.is_empty() {
                    self.foreign.send_modify(|passed_over| {
                        passed_over.passed_over(&foreign, follower.log_id, &assignment.topic, Instant::now());
                    });
                }
                assignment.done(messages, positions);
                self.fenced_pause.reset();
                self.report(as_of, owners);
                Ok(())
            }
            Outcome::Fenced => self.fenced(connection, consumer).await,
        }
    }

    /// The first pending message cannot be read.
    async fn park_unreadable(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let Self { assignment, applier, follower, generation, .. } = self;
        let as_of = clock::now();
        match unreadable::park(assignment, follower, applier, *generation, connection).await? {
            Parked::Yes(positions, owners) => {
                assignment.done(1, positions);
                self.fenced_pause.reset();
                self.report(as_of, owners);
                Ok(())
            }
            Parked::Nothing => Ok(()),
            Parked::Fenced => self.fenced(connection, consumer).await,
            Parked::Gap(partition, gap) => {
                gaps::stop_at(assignment, follower, *generation, connection, consumer, (partition, gap)).await
            }
        }
    }

    /// Another process has raised a fence.
    async fn fenced(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        self.fenced_pause.wait().await;
        in_time(self.look(connection, consumer)).await
    }

    /// Something has become visible.
    fn report(&self, as_of: Time, owners: Vec<OwnerRow>) {
        self.follower.hint();
        let Some(owner_versions) = self.owner_versions.as_ref().filter(|_| !owners.is_empty()) else { return };
        let (log_id, cache_id, generation) = (self.follower.log_id, self.cache_id, self.generation);
        let read_model = ReadModelId { cache_id, log_id, generation };
        // The receiver keeps a cache of what expires within seconds.
        if owner_versions.try_send(Applied { read_model, as_of, owners }).is_err() {
            metrics::counter!("projector_owner_versions_dropped_total").increment(1);
        }
    }

    /// Tries again what an administrator asked for, where it is of a partition of ours.
    async fn retry(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        for (shard, stream) in parking::due(connection, self.generation, None).await? {
            if began.elapsed() >= parking::RETRY_TIME_MAX {
                break;
            }
            let number = partition_of(stream.0, self.assignment.topic_partitions);
            let Some(partition) = self.assignment.partitions.get_mut(&number) else { continue };
            let topic = self.assignment.topic.clone();
            let mut fence = Fence::Partition { topic, partition: number, value: partition.fence };
            let as_of = clock::now();
            let (generation, tail) = (self.generation, &self.follower.tail);
            let retried = parking::retry(connection, tail, generation, &mut fence, shard, stream).await;
            partition.fence = fence.value();
            self.report(as_of, retried?.into_iter().collect());
        }
        unreadable::retry(&self.assignment, &self.follower, self.generation, connection).await
    }
}

/// The group of the projector's copies. That of another log is another one, also where it has the same topic: a group
/// shares partitions out, and what one log's copies are given the other's would never see.
fn group(topic: &str, log_id: Uuid) -> String {
    format!("{topic}.projector.{log_id}")
}

/// Forgets what is read of a topic, so that it is read again from its beginning, and fences off what is under way. What
/// was applied stays known, so nothing happens twice. For a topic that is published again.
///
/// # Errors
/// The database does not answer.
pub async fn forget_offsets(pool: &Pool, topic: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update read_model.kafka_partition set next_offset = null, turn = turn + 1 where topic = $1", topic)
        .execute(pool)
        .await?;
    Ok(())
}
