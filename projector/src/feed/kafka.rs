//! The projection fed from Kafka: this copy's partitions of the topic, in batches that may mix them.
//!
//! An owner's events are in one partition, and a partition belongs to one copy at a time; but a copy that is late (it
//! was stopped, or has not heard yet) may still believe that one is its own. So nothing hangs on who has what
//! assigned: whoever begins with a partition raises its turn, and a batch is written only while the turn is its own.
//!
//! A message too few is noticed, and what comes twice does nothing ([`chain`](super::chain)).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backends::database::{AGE_S_MAX, Pool};
use domain::Time;
use messaging::consumer::{Consumer, Received, Session};
use messaging::{KafkaSettings, Message, Unreadable, partition_of};
use process::clock;
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::applier::{Applier, Outcome};
use super::chain::{Hole, Next, Place, Positions, link_of};
use super::foreign::Foreign;
use super::plan::{Plan, Step, Then, plan};
use super::{ErrorPause, Follower, LostRaces, STATUS_MS, in_time};
use crate::batch::{self, Applied, Batch, Written};
use crate::fence::{Mark, OwnerStanding, PartitionMark};
use crate::parked::{self, Lane};
use crate::{connection, lag};

/// As many messages as events are applied at once, at most, are taken out of the queue.
const PENDING_MESSAGES_MAX: usize = super::BATCH_EVENTS_MAX as usize;
/// How often it is looked whether partitions that are read to their ends have everything.
const ENDS_MS: u64 = 5_000;
/// A partition that lacks messages is looked at again this often.
const MEND_MS: u64 = 2_000;
/// Of a message that nobody can read, so much is kept.
const PAYLOAD_CHARACTERS_MAX: usize = 10_000;
/// Not a turn that any partition has.
const NO_TURN: i64 = 0;
/// So many of them are tried again at once.
const RETRY_MESSAGES_MAX: i64 = 50;

/// The partitions of the topic that are this copy's.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    /// How many; `None`: the group has not said yet.
    pub share: Option<usize>,
    /// What is wrong with some of them, by partition: nothing is read of them until it is mended.
    pub troubles: BTreeMap<i32, String>,
}

/// The partitions that are assigned to this copy.
pub(super) struct Kafka {
    follower: Follower,
    settings: KafkaSettings,
    topic: Arc<str>,
    stop: CancellationToken,
    standings: Option<mpsc::Sender<Applied>>,
    told: watch::Sender<Partitions>,
    foreign: watch::Sender<Foreign>,
    /// The shortest one that the brokers take.
    session: Session,
    /// Assignments that are not answered yet.
    assigned: VecDeque<Assigned>,
    generation: i32,
    /// The name of the read models in Redis.
    cache_id: Uuid,
    /// The checkpoints: up to there the live generation has everything of a shard.
    base: Positions,
    partitions: BTreeMap<i32, Partition>,
    /// How many the topic has.
    of: i32,
    /// In the order in which they came; each of a partition that is being read.
    pending: VecDeque<Pending>,
    /// Where brokers say that partitions end, not looked at yet.
    ends: Vec<(i32, i64)>,
    applier: Applier,
    lost_races: LostRaces,
}

struct Assigned {
    partitions: Vec<i32>,
    of: i32,
    begin: oneshot::Sender<Vec<(i32, Option<i64>)>>,
}

pub(super) struct Pending {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) message: Result<Message, Box<Unreadable>>,
}

/// A partition of ours.
pub(super) struct Partition {
    /// As we raised it last.
    pub(super) turn: i64,
    /// As it is stored.
    next_offset: Option<i64>,
    pub(super) place: Place,
    state: State,
    hole: Option<Hole>,
    /// What was published and not here when its broker was asked where it ends.
    asked: Option<Hole>,
}

impl Partition {
    /// Up to where it has everything of a shard.
    fn here(&self, shard: i16, base: &Positions) -> i64 {
        self.place.positions.get(&shard).max(base.get(&shard)).copied().unwrap_or(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// What comes is from before a seek.
    Seeking,
    /// Not read until then.
    Stopped(Instant),
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
        settings: KafkaSettings,
        standings: Option<mpsc::Sender<Applied>>,
        told: watch::Sender<Partitions>,
        foreign: watch::Sender<Foreign>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            follower,
            topic: settings.topic.as_str().into(),
            settings,
            stop,
            standings,
            told,
            foreign,
            session: Session::default(),
            assigned: VecDeque::new(),
            generation: 0,
            cache_id: Uuid::nil(),
            base: Positions::new(),
            partitions: BTreeMap::new(),
            of: 1,
            pending: VecDeque::new(),
            ends: Vec::new(),
            applier: Applier::default(),
            lost_races: LostRaces::default(),
        }
    }

    /// Follows the topic for ever: the connection to the database and the consumer each end and begin on their own.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut pause = ErrorPause::default();
        while !stop.is_cancelled() {
            let (started, session) = (Instant::now(), self.session);
            let group = group(&self.topic, self.follower.log_id);
            let mut consumer = match Consumer::start(&self.settings, &group, session) {
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
                    Err(error) => pause.after(&error, started, &stop).await,
                }
            };
            self.assigned.clear();
            self.partitions.keys().for_each(|partition| show_lag(*partition, 0));
            self.partitions.clear();
            self.pending.clear();
            self.tell_troubles();
            self.told.send_modify(|told| told.share = None);
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
        self.partitions.values_mut().for_each(|partition| partition.turn = NO_TURN);
        in_time(self.look(&mut connection, consumer)).await?;
        let mut looked = Instant::now();
        let mut looked_at_ends = Instant::now();
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
            if looked_at_ends.elapsed() >= Duration::from_millis(ENDS_MS) {
                in_time(self.look_at_ends(&mut connection, consumer)).await?;
                looked_at_ends = Instant::now();
            }
            if self.pending.is_empty() && self.assigned.is_empty() {
                tokio::select! {
                    received = consumer.next() => match received {
                        Some(received) => self.receive(received),
                        None => return Ok(End::Consumer),
                    },
                    () = sleep(look_in) => continue,
                    () = self.stop.cancelled() => return Ok(End::Stop),
                }
            }
            while self.assigned.is_empty() && self.pending.len() < PENDING_MESSAGES_MAX {
                let Some(received) = consumer.try_next() else { break };
                self.receive(received);
            }
            while let Some(assigned) = self.assigned.front() {
                let (partitions, of) = (assigned.partitions.clone(), assigned.of);
                let begin = in_time(self.claim(&mut connection, &partitions, Some(of))).await?;
                if let Some(assigned) = self.assigned.pop_front() {
                    for partition in partitions {
                        if let Some(partition) = self.partitions.get_mut(&partition) {
                            partition.state = State::Reading;
                        }
                    }
                    // Whoever does not wait for it any more has ended.
                    let _ended = assigned.begin.send(begin);
                    self.tell_share();
                }
            }
            if !self.pending.is_empty() {
                self.apply(&mut connection, consumer).await?;
            }
            if !self.ends.is_empty() {
                in_time(self.judge_ends(&mut connection)).await?;
            }
        }
        Ok(End::Stop)
    }

    fn receive(&mut self, received: Received) {
        match received {
            Received::Assigned { partitions, of, begin } => self.assigned.push_back(Assigned { partitions, of, begin }),
            Received::Revoked(partitions) => {
                self.partitions.retain(|partition, _| !partitions.contains(partition));
                partitions.iter().for_each(|partition| show_lag(*partition, 0));
                self.pending.retain(|pending| !partitions.contains(&pending.partition));
                self.tell_troubles();
                self.tell_share();
            }
            Received::Message { partition, offset, message } => {
                if self.partitions.get(&partition).is_some_and(|partition| partition.state == State::Reading) {
                    self.pending.push_back(Pending { partition, offset, message });
                }
            }
            Received::Sought(partition) => {
                if let Some(partition) = self.partitions.get_mut(&partition)
                    && partition.state == State::Seeking
                {
                    partition.state = State::Reading;
                }
            }
            Received::Fetched(ends) => {
                for (number, end) in ends {
                    let Some(partition) = self.partitions.get(&number) else { continue };
                    show_lag(number, end - partition.next_offset.unwrap_or(0));
                }
            }
            Received::End { partition, end } => self.ends.push((partition, end)),
            Received::Failing(error) => warn!(topic = %self.topic, error, "Kafka cannot be read; trying again"),
            Received::SessionRefused => {
                self.session = Session::Long;
                info!(
                    "the brokers take no session of less than 6 s: partitions of a copy that is killed are nobody's for so long \
                     (group.min.session.timeout.ms=1000 at the brokers makes it 2 s)"
                );
            }
        }
    }

    /// Looks whether another generation is live, somebody else has raised our turns, something is to be tried again.
    async fn look(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let ours: Vec<i32> = self.partitions.keys().copied().collect();
        let status = sqlx::query!(
            r#"
            select p.log_id, p.live_generation, p.feed, p.cache_id,
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
                ) as "turns!: Vec<i64>",
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
            &*self.topic,
            &ours,
        )
        .fetch_one(&mut *connection)
        .await?;
        self.follower.check(status.log_id, &status.feed)?;
        self.cache_id = status.cache_id;
        self.base = status.shards.into_iter().zip(status.positions).collect();
        if status.live_generation != self.generation {
            info!(generation = status.live_generation, topic = %self.topic, "follows the topic");
            self.generation = status.live_generation;
            self.follower.hint();
        }
        let turns: BTreeMap<i32, i64> = status.partitions.into_iter().zip(status.turns).collect();
        let now = Instant::now();
        let again = self.partitions.iter().filter(|(number, partition)| {
            let is_ours = turns.get(number) == Some(&partition.turn);
            !is_ours || matches!(partition.state, State::Stopped(until) if until <= now)
        });
        let again = again.map(|(number, _)| *number).collect();
        self.begin_again(connection, consumer, again).await?;
        if status.retry {
            self.retry(connection).await?;
        }
        Ok(())
    }

    /// Raises the turns of partitions that are assigned to us, and finds out where they begin. `of`: how many the topic
    /// has, where that was just asked; what a copy remembers of it may be older than what another one has stored.
    async fn claim(
        &mut self,
        connection: &mut PgConnection,
        numbers: &[i32],
        of: Option<i32>,
    ) -> Result<Vec<(i32, Option<i64>)>, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        // Neither another feed nor another generation comes in between.
        let projection = sqlx::query!("select log_id, live_generation, feed from read_model.projection for share")
            .fetch_one(&mut *transaction)
            .await?;
        self.follower.check(projection.log_id, &projection.feed)?;
        if let Some(of) = of {
            let moved = sqlx::query!(
                "update read_model.kafka_partition set partitions = $2, turn = turn + 1, trouble = null
                where topic = $1 and partitions <> $2",
                &*self.topic,
                of,
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if moved > 0 {
                warn!(topic = %self.topic, partitions = of, "the number of partitions has changed");
                sqlx::query!("delete from read_model.kafka_position where topic = $1", &*self.topic)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        let rows = sqlx::query!(
            r#"
            insert into read_model.kafka_partition as p (topic, partition, partitions, turn)
            select $1, n.partition, $2, 1 from unnest($3::int[]) as n (partition) order by n.partition
            on conflict (topic, partition) do update
                set turn = p.turn + 1, trouble = case when $4 then null else p.trouble end
            returning partition, partitions, turn, next_offset, publication
            "#,
            &*self.topic,
            of.unwrap_or(self.of),
            numbers,
            // Whoever has it now finds what is wrong with it, if that still is.
            of.is_some(),
        )
        .fetch_all(&mut *transaction)
        .await?;
        let positions = sqlx::query!(
            "select partition, shard, position from read_model.kafka_position
            where topic = $1 and partition = any ($2)",
            &*self.topic,
            numbers,
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.generation = projection.live_generation;
        self.of = rows.first().map(|row| row.partitions).or(of).unwrap_or(self.of);
        let mut begin = Vec::with_capacity(rows.len());
        for row in rows {
            let positions = positions.iter().filter(|position| position.partition == row.partition);
            let place = Place {
                publication: row.publication,
                positions: positions.map(|position| (position.shard, position.position)).collect(),
                awaited: BTreeMap::new(),
            };
            let (turn, next_offset, state) = (row.turn, row.next_offset, State::Seeking);
            let hole = self.partitions.get(&row.partition).and_then(|partition| partition.hole);
            let partition = Partition { turn, next_offset, place, state, hole, asked: None };
            self.partitions.insert(row.partition, partition);
            begin.push((row.partition, row.next_offset));
        }
        self.pending.retain(|pending| !numbers.contains(&pending.partition));
        Ok(begin)
    }

    /// Reads partitions of ours again from where they are stored to be.
    async fn begin_again(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        partitions: Vec<i32>,
    ) -> Result<(), sqlx::Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        for (partition, offset) in self.claim(connection, &partitions, None).await? {
            consumer.seek(partition, offset);
        }
        Ok(())
    }

    /// Applies what is pending, or some of it.
    async fn apply(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let Self { pending, partitions, base, applier, follower, topic, generation, .. } = self;
        let events_max = usize::try_from(applier.events_max()).unwrap_or(1);
        let plan = plan(pending, partitions, base, follower.log_id, topic, events_max);
        if !plan.steps.is_empty() {
            let as_of = clock::now();
            let applying = applier.apply(connection, *generation, &plan, &plan.events);
            return match in_time(applying).await? {
                Outcome::Applied(events, _) if events == 0 && !plan.events.is_empty() => Ok(()),
                Outcome::Applied(events, standings) => {
                    let (done, marks) = (plan.steps_of(events), plan.marks(events));
                    let passed_over = plan.foreign(done);
                    if !passed_over.is_empty() {
                        self.foreign.send_modify(|foreign| {
                            foreign.passed_over(&passed_over, follower.log_id, topic, Instant::now());
                        });
                    }
                    self.done(done, marks, as_of, standings);
                    Ok(())
                }
                Outcome::Moved => self.moved(connection, consumer).await,
            };
        }
        match plan.then {
            Then::More => Ok(()),
            Then::Unreadable => in_time(self.put_aside(connection, consumer)).await,
            Then::Hole(partition, hole) => in_time(self.stop_at(connection, consumer, partition, hole)).await,
        }
    }

    /// Somebody else has raised a turn.
    async fn moved(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        self.lost_races.pause().await;
        in_time(self.look(connection, consumer)).await
    }

    /// These messages are done, and stored as read.
    fn done(&mut self, messages: usize, marks: Vec<PartitionMark>, as_of: Time, owners: Vec<OwnerStanding>) {
        self.pending.drain(..messages);
        let mut mended = false;
        for mark in marks {
            let Some(partition) = self.partitions.get_mut(&mark.partition) else { continue };
            partition.turn = mark.turn + 1;
            partition.next_offset = Some(mark.next_offset);
            partition.place.publication = mark.publication;
            partition.place.positions.extend(mark.positions);
            if partition.hole.take().is_some() {
                info!(topic = %self.topic, partition = mark.partition, "the partition is mended");
                mended = true;
            }
        }
        if mended {
            self.tell_troubles();
        }
        self.lost_races.won();
        self.tell(as_of, owners);
    }

    fn tell(&self, as_of: Time, owners: Vec<OwnerStanding>) {
        self.follower.hint();
        let Some(standings) = self.standings.as_ref().filter(|_| !owners.is_empty()) else { return };
        let (log_id, cache_id, generation) = (self.follower.log_id, self.cache_id, self.generation);
        let applied = Applied { log_id, cache_id, generation, as_of, owners };
        // Who listens keeps a cache of what ends by itself within seconds.
        if standings.try_send(applied).is_err() {
            metrics::counter!("projector_standings_dropped_total").increment(1);
        }
    }

    /// The first pending message cannot be read. If it says where it stands and the log has an event there, that
    /// event is parked; else the message itself is.
    async fn put_aside(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let Some(Pending { partition: number, offset, message: Err(unreadable) }) = self.pending.front() else {
            return Ok(());
        };
        let (number, offset, unreadable) = (*number, *offset, unreadable.clone());
        let Some(partition) = self.partitions.get(&number) else { return Ok(()) };
        let mut place = partition.place.clone();
        let mut event = None;
        let mut step = Step {
            partition: number,
            turn: partition.turn,
            next_offset: offset + 1,
            publication: place.publication,
            position: None,
            is_event: false,
            foreign: None,
        };
        if let Some(link) = link_of(&unreadable, self.follower.log_id) {
            match place.next(&link, &self.base) {
                Next::After(hole) => return self.stop_at(connection, consumer, number, hole).await,
                Next::Duplicate => {}
                Next::New => {
                    let found = self.follower.tail.read_after(link.shard, link.position - 1, 1).await?;
                    let found = found.into_iter().find(|event| event.position == link.position);
                    event = found.filter(|event| partition_of(event.owner_id, self.of) == number);
                    if event.is_some() {
                        step.publication = place.publication;
                        step.position = Some((link.shard, link.position));
                        step.is_event = true;
                    }
                }
            }
        }
        let steps = vec![step];
        let plan = Plan { topic: self.topic.clone(), steps, events: event.iter().collect(), then: Then::More };
        let reason = format!("its message (partition {number}, offset {offset}) cannot be read: {}", unreadable.reason);
        let as_of = clock::now();
        let outcome = match &event {
            Some(event) => self.applier.park(connection, self.generation, &plan, event, reason).await?,
            None => park_message(connection, self.generation, &plan, offset, &unreadable).await?,
        };
        match outcome {
            Outcome::Applied(_, standings) => {
                let marks = plan.marks(1);
                self.done(1, marks, as_of, standings);
                Ok(())
            }
            Outcome::Moved => self.moved(connection, consumer).await,
        }
    }

    /// Messages of a partition are missing. If they are published again already, it goes on to there; else nothing more
    /// is read of it for a while.
    async fn stop_at(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        number: i32,
        hole: Hole,
    ) -> Result<(), sqlx::Error> {
        let published = self.follower.tail.published().await?;
        let published = published.into_iter().find(|of| of.shard == hole.shard && *of.topic == *self.topic);
        if let Some(again) = published.filter(|of| of.publication > hole.publication)
            && let Some(partition) = self.partitions.get_mut(&number)
        {
            partition.place.awaited.insert(hole.shard, again.publication);
            return Ok(());
        }
        consumer.pause(number);
        self.pending.retain(|pending| pending.partition != number);
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.state = State::Stopped(Instant::now() + Duration::from_millis(MEND_MS));
        }
        self.complain(connection, number, hole).await
    }

    /// Messages that are lost are noticed when one comes that follows on them; where none comes, here: of a partition
    /// that has not everything that the relay says is published there, its broker is asked where it ends. One that is
    /// away says nothing, and nothing is concluded.
    async fn look_at_ends(&mut self, connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
        let published = self.follower.tail.published().await?;
        let mut mended = Vec::new();
        for (number, partition) in &mut self.partitions {
            if partition.state != State::Reading || self.pending.iter().any(|pending| pending.partition == *number) {
                continue;
            }
            partition.asked = published.iter().filter(|of| *of.topic == *self.topic).find_map(|of| {
                let (_, missing) = *of.last_positions.iter().find(|(partition, _)| partition == number)?;
                let after = partition.here(of.shard, &self.base);
                let hole = Hole { shard: of.shard, after, missing, publication: of.publication };
                (missing > after).then_some(hole)
            });
            if partition.asked.is_some() {
                consumer.ask_for_end(*number);
            } else if partition.hole.take().is_some() {
                mended.push((*number, partition.turn));
            }
        }
        for (number, turn) in mended {
            info!(topic = %self.topic, partition = number, "the partition is mended");
            sqlx::query!(
                "update read_model.kafka_partition set trouble = null
                where topic = $1 and partition = $2 and turn = $3",
                &*self.topic,
                number,
                turn,
            )
            .execute(&mut *connection)
            .await?;
        }
        self.tell_troubles();
        Ok(())
    }

    /// What was published before a broker was asked, and is not here though all is read up to the end that it said, is
    /// not in the partition.
    async fn judge_ends(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (number, end) in std::mem::take(&mut self.ends) {
            let is_pending = self.pending.iter().any(|pending| pending.partition == number);
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            let Some(asked) = partition.asked.take() else { continue };
            let after = partition.here(asked.shard, &self.base);
            let is_at_end = !is_pending && partition.next_offset.unwrap_or(0) >= end;
            if partition.state == State::Reading && is_at_end && after < asked.missing {
                self.complain(connection, number, Hole { after, ..asked }).await?;
            }
        }
        Ok(())
    }

    /// Says what is missing, and what mends it.
    async fn complain(&mut self, connection: &mut PgConnection, number: i32, hole: Hole) -> Result<(), sqlx::Error> {
        // What all partitions have: a mend from there on suits every one of them.
        lag::look(&self.follower.pool, &self.follower.tail).await?;
        let all_until = sqlx::query_scalar!(
            "select position from read_model.checkpoint where generation = $1 and shard = $2",
            self.generation,
            hole.shard,
        )
        .fetch_optional(&mut *connection)
        .await?
        .unwrap_or(0);
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        let Hole { shard, after, missing, .. } = hole;
        let trouble = format!(
            "partition {number} of {} lacks messages: of shard {shard} it has nothing between position {after} and the one \
             after {missing}; `primetrade republish --shard {shard} --from {}` mends it",
            self.topic,
            all_until.min(after) + 1
        );
        if partition.hole.replace(hole) != Some(hole) {
            error!(partition = number, shard, after, missing, "{trouble}");
        }
        sqlx::query!(
            "update read_model.kafka_partition set trouble = $4 where topic = $1 and partition = $2 and turn = $3",
            &*self.topic,
            number,
            partition.turn,
            trouble,
        )
        .execute(connection)
        .await?;
        self.told.send_modify(|told| {
            told.troubles.insert(number, trouble);
        });
        self.tell_troubles();
        Ok(())
    }

    fn tell_troubles(&self) {
        self.told.send_modify(|told| {
            told.troubles.retain(|partition, _| self.partitions.get(partition).is_some_and(|p| p.hole.is_some()));
        });
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("projector_partitions_stopped").set(self.told.borrow().troubles.len() as f64);
    }

    fn tell_share(&self) {
        self.told.send_modify(|told| told.share = Some(self.partitions.len()));
    }

    /// Tries again what an administrator asked for, where it is of a partition of ours.
    async fn retry(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        for (shard, stream) in parked::due(connection, self.generation, None).await? {
            if began.elapsed() >= parked::RETRY_TIME_MAX {
                break;
            }
            let number = partition_of(stream.0, self.of);
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            let mut lane = Lane::Partition { topic: self.topic.clone(), partition: number, turn: partition.turn };
            let as_of = clock::now();
            let retried =
                parked::retry(connection, &self.follower.tail, self.generation, &mut lane, shard, stream).await;
            if let Lane::Partition { turn, .. } = lane {
                partition.turn = turn;
            }
            self.tell(as_of, retried?.into_iter().collect());
        }
        self.retry_messages(connection).await
    }

    /// A message that nobody can read is forgotten once everything that was published into its partition is applied:
    /// whatever it was, nothing is missing.
    async fn retry_messages(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let ours: Vec<i32> = self.partitions.keys().copied().collect();
        let due = sqlx::query!(
            r#"
            select id, partition as "partition!", message_offset as "offset!"
            from read_model.parked
            where generation = $1 and topic = $2 and partition = any ($3) and retry_at is not null
            limit $4
            "#,
            self.generation,
            &*self.topic,
            &ours,
            RETRY_MESSAGES_MAX,
        )
        .fetch_all(&mut *connection)
        .await?;
        if due.is_empty() {
            return Ok(());
        }
        let published = self.follower.tail.published().await?;
        for message in due {
            let Some(partition) = self.partitions.get(&message.partition) else { continue };
            let is_complete = published.iter().filter(|of| *of.topic == *self.topic).all(|of| {
                let last = of.last_positions.iter().find(|(number, _)| *number == message.partition);
                last.is_none_or(|(_, last)| *last <= partition.here(of.shard, &self.base))
            });
            if is_complete {
                sqlx::query!("delete from read_model.parked where id = $1", message.id)
                    .execute(&mut *connection)
                    .await?;
                info!(
                    partition = message.partition,
                    offset = message.offset,
                    "a message that cannot be read is forgotten: nothing is missing in its partition"
                );
            }
        }
        Ok(())
    }
}

/// How many messages of a partition of ours are not applied yet.
fn show_lag(partition: i32, messages: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    let lag = messages.max(0) as f64;
    metrics::gauge!("projector_consumer_lag_messages", "partition" => partition.to_string()).set(lag);
}

/// The group of the projector's copies. That of another log is another one, also where it has the same topic: a group
/// shares partitions out, and what one log's copies are given the other's would never see.
fn group(topic: &str, log_id: Uuid) -> String {
    format!("{topic}.projector.{log_id}")
}

/// Parks a message that belongs to nothing that is known, by its place in the topic.
async fn park_message(
    connection: &mut PgConnection,
    generation: i32,
    plan: &Plan<'_>,
    offset: i64,
    unreadable: &Unreadable,
) -> Result<Outcome, sqlx::Error> {
    let Some(step) = plan.steps.first() else { return Ok(Outcome::Moved) };
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    let name = format!("message {generation} {} {} {offset}", plan.topic, step.partition);
    let payload: String = unreadable.payload.chars().take(PAYLOAD_CHARACTERS_MAX).collect();
    sqlx::query!(
        r#"
        insert into read_model.parked (id, generation, topic, partition, message_offset, owner_id, task_id, version, type,
            reason, parked_at, event)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), $11)
        on conflict do nothing
        "#,
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        generation,
        &*plan.topic,
        step.partition,
        offset,
        unreadable.owner_id.map(|owner| owner.0),
        unreadable.task_id.map(|task| task.0),
        unreadable.version,
        unreadable.event_type,
        format!("this message cannot be read: {}", unreadable.reason),
        payload,
    )
    .execute(&mut *transaction)
    .await?;
    let mark = Mark::Partitions { topic: plan.topic.clone(), partitions: plan.marks(0) };
    match batch::write(&mut transaction, Batch::empty(generation), &mark).await? {
        Written::Yes(standings) => {
            transaction.commit().await?;
            metrics::counter!("projector_unreadable_messages_total").increment(1);
            error!(
                partition = step.partition,
                offset,
                reason = unreadable.reason,
                "a message cannot be read; it is parked"
            );
            Ok(Outcome::Applied(0, standings))
        }
        Written::LostRace => Ok(Outcome::Moved),
    }
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
