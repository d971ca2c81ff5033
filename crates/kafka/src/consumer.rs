//! Receives messages, with offsets that somebody else keeps.
//!
//! librdkafka calls back while it is polled, and a partition can only be begun with once it is known from where: so a
//! thread of its own polls, and waits in the callback for the answer. Nothing is ever committed to Kafka.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use messaging::consumer::{Command, Queues};
use messaging::{Consumer, Received, Session, Subscription};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{KafkaSettings, log, record};

/// librdkafka fetches so much of all partitions together ahead of the queue.
const PREFETCH_KIB_MAX: &str = "4096";
const PREFETCH_MESSAGES: &str = "10000";
/// Members of the group hear within so long that one comes or leaves. Meanwhile what changes hands is nobody's, and who
/// reads by a token waits for it, at most 2 s.
const HEARTBEAT_MS: u64 = 200;
/// librdkafka looks whether a heartbeat is due when something wakes its main thread, and once a second else. So often it is
/// woken.
const WAKE_MS: u64 = HEARTBEAT_MS / 2;
/// A topic that is made after its first consumers have come is found so soon.
const METADATA_MS: &str = "2000";
/// A command waits so long at most while nothing comes.
const POLL_MS: u64 = 50;
/// A seek or a look at the topic may take so long.
const BROKER_MS_MAX: u64 = 5_000;
/// A broker that does not say within so long where a partition ends has not said it.
const END_MS_MAX: u64 = 1_000;
const METADATA_ATTEMPTS_MAX: u32 = 3;
const STATISTICS_MS: &str = "5000";

/// Consumers of the topic that the settings name.
#[must_use]
pub fn subscription(settings: KafkaSettings) -> Subscription {
    Subscription::new(settings.topic.clone(), move |group, session| {
        Ok(Consumer::start(|queues| polling(&settings, group, session, queues))?)
    })
}

const fn session_ms(session: Session) -> &'static str {
    match session {
        Session::Short => "2000",
        Session::Long => "6000",
    }
}

fn polling(
    settings: &KafkaSettings,
    group: &str,
    session: Session,
    queues: Queues,
) -> Result<impl FnOnce() + use<>, KafkaError> {
    let mut config = settings.client_config();
    config
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // what is not there any more: the chain of positions tells whether anything is missing
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", session_ms(session))
        .set("heartbeat.interval.ms", HEARTBEAT_MS.to_string())
        .set("topic.metadata.refresh.interval.ms", METADATA_MS)
        .set("check.crcs", "true")
        .set("socket.nagle.disable", "true")
        .set("queued.min.messages", PREFETCH_MESSAGES)
        .set("queued.max.messages.kbytes", PREFETCH_KIB_MAX)
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.error.backoff.ms", "200")
        .set("statistics.interval.ms", STATISTICS_MS);
    let topic = settings.topic.clone();
    let context = Callbacks { topic: topic.clone(), sender: queues.received.clone(), failed: AtomicBool::new(false) };
    let consumer = BaseConsumer::from_config_and_context(&config, context)?;
    consumer.subscribe(&[&topic])?;
    let polling = Polling { consumer, topic, queues, again: Vec::new() };
    Ok(move || polling.run())
}

/// What the thread has.
struct Polling {
    consumer: BaseConsumer<Callbacks>,
    topic: String,
    queues: Queues,
    /// What could not be done yet.
    again: Vec<Command>,
}

impl Polling {
    fn run(mut self) {
        let mut failing = String::new();
        let mut woken = Instant::now();
        while !self.queues.is_stopped() && !self.consumer.context().failed.load(Ordering::Relaxed) {
            if woken.elapsed() >= Duration::from_millis(WAKE_MS) {
                // Its main thread has to answer; what it says is of no interest.
                let _assignment = self.consumer.assignment();
                woken = Instant::now();
            }
            let received = match self.consumer.poll(Duration::from_millis(POLL_MS)) {
                None => None,
                Some(Ok(message)) => {
                    failing.clear();
                    let (partition, offset) = (message.partition(), message.offset());
                    Some(Received::Message { partition, offset, message: record::read(&message) })
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::InvalidSessionTimeout))) => {
                    let _ended = self.queues.received.blocking_send(Received::SessionRefused);
                    return;
                }
                Some(Err(error)) => {
                    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                        warn!(%error, "the consumer cannot go on");
                        return;
                    }
                    let text = error.to_string();
                    (text != failing).then(|| {
                        failing.clone_from(&text);
                        Received::Failing(text)
                    })
                }
            };
            if received.is_some_and(|received| self.queues.received.blocking_send(received).is_err()) {
                return;
            }
            self.obey();
        }
    }

    fn obey(&mut self) {
        // One that is away is waited for once, not for each partition.
        let mut somebody_away = false;
        let mut commands = std::mem::take(&mut self.again);
        commands.extend(self.queues.commands.try_iter());
        for command in commands {
            let (Command::Pause(partition) | Command::Seek(partition, _) | Command::End(partition)) = command;
            let is_ours =
                self.consumer.assignment().is_ok_and(|ours| ours.find_partition(&self.topic, partition).is_some());
            let done = match command {
                _ if !is_ours => continue,
                Command::End(_) if somebody_away => continue,
                Command::End(partition) => {
                    let limit = Duration::from_millis(END_MS_MAX);
                    match self.consumer.fetch_watermarks(&self.topic, partition, limit) {
                        Ok((_, end)) => {
                            if self.queues.received.blocking_send(Received::End { partition, end }).is_err() {
                                return;
                            }
                        }
                        Err(_) => somebody_away = true,
                    }
                    continue;
                }
                Command::Pause(partition) => self.consumer.pause(&self.only(partition)),
                Command::Seek(partition, offset) => self.seek(partition, offset),
            };
            match (done, command) {
                (Ok(()), Command::Seek(..)) => {
                    if self.queues.received.blocking_send(Received::Sought(partition)).is_err() {
                        return;
                    }
                }
                (Ok(()), _) => {}
                (Err(error), command) => {
                    info!(partition, %error, "a partition cannot be paused or sought yet; trying again");
                    std::thread::sleep(Duration::from_millis(POLL_MS));
                    self.again.push(command);
                }
            }
        }
    }

    fn seek(&self, partition: i32, offset: Option<i64>) -> KafkaResult<()> {
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, partition, to_offset(offset))?;
        let sought = self.consumer.seek_partitions(place, Duration::from_millis(BROKER_MS_MAX))?;
        for element in sought.elements() {
            element.error()?;
        }
        self.consumer.resume(&self.only(partition))
    }

    fn only(&self, partition: i32) -> TopicPartitionList {
        let mut only = TopicPartitionList::new();
        only.add_partition(&self.topic, partition);
        only
    }
}

fn to_offset(offset: Option<i64>) -> Offset {
    offset.map_or(Offset::Beginning, Offset::Offset)
}

/// What librdkafka calls, on the thread that polls.
struct Callbacks {
    topic: String,
    sender: mpsc::Sender<Received>,
    /// The consumer is of no use any more.
    failed: AtomicBool,
}

impl Callbacks {
    /// Asks where the partitions begin. `None`: nobody answers.
    fn begin(&self, consumer: &BaseConsumer<Self>, partitions: Vec<i32>) -> Option<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let of = (0..METADATA_ATTEMPTS_MAX).find_map(|_| self.partitions(consumer))?;
        let (begin, begun) = oneshot::channel();
        self.sender.blocking_send(Received::Assigned { partitions, of, begin }).ok()?;
        for (partition, offset) in begun.blocking_recv().ok()? {
            list.add_partition_offset(&self.topic, partition, to_offset(offset)).ok()?;
        }
        Some(list)
    }

    /// How many partitions the topic has.
    fn partitions(&self, consumer: &BaseConsumer<Self>) -> Option<i32> {
        let metadata = consumer.fetch_metadata(Some(&self.topic), Duration::from_millis(BROKER_MS_MAX)).ok()?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic)?;
        i32::try_from(topic.partitions().len()).ok().filter(|count| *count > 0)
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, message: &str) {
        log::log(level, kind, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let ends = topic.partitions.values().filter(|partition| partition.partition >= 0 && partition.hi_offset >= 0);
        let ends = ends.map(|partition| (partition.partition, partition.hi_offset)).collect();
        // Only a figure: where the queue is full, the next one will do.
        let _full = self.sender.try_send(Received::Fetched(ends));
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                info!(?partitions, "partitions are assigned");
                match self.begin(consumer, partitions) {
                    Some(list) => consumer.incremental_assign(&list),
                    None => {
                        self.failed.store(true, Ordering::Relaxed);
                        consumer.incremental_assign(&TopicPartitionList::new())
                    }
                }
            }
            _ => {
                info!(?partitions, "partitions are revoked");
                // Where nobody listens any more, nobody reads either.
                let _ended = self.sender.blocking_send(Received::Revoked(partitions));
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = done {
            warn!(%error, "an assignment of partitions has come to nothing");
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}
