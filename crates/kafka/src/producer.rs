//! Sends many messages at once and tells when they are on the brokers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use messaging::{Message, partition_of};
use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::producer::{Producer as _, PurgeConfig};

use crate::log::Thinned;
use crate::{KafkaSettings, record};

/// How many messages may be on their way at once. Who sends keeps below it by waiting for deliveries.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 20_000;
/// How many bytes of them, in KiB.
const IN_FLIGHT_KIB_MAX: usize = 256 << 10;

/// Sends messages to the partitions of their owners, in order, each as often as the brokers need it and no oftener.
/// A message that has failed may be followed by others that have not: [`Producer::purge`], and begin again before it.
pub struct Producer {
    producer: FutureProducer<Thinned>,
    topic: String,
    partitions: i32,
}

/// Whether a message is on the brokers: on all that have to have it.
pub struct Delivery(DeliveryFuture);

impl Producer {
    /// A producer of its own, with threads of its own. It connects in the background.
    ///
    /// # Errors
    /// A setting that the library refuses, such as a certificate that it cannot read.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let mut config = settings.client_config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // A message is dropped by purge alone: one that times out in the queue leaves a gap behind which the rest
            // is sent.
            .set("message.timeout.ms", "0")
            .set("enable.gapless.guarantee", "true")
            // Brokers take the first batch that they see of a producer whatever its number: were it not the first one
            // that was sent, there would be a gap too. They answer one request of a connection after the other anyway.
            .set("max.in.flight.requests.per.connection", "1")
            // Each request to the brokers costs them, and all who read, more than its messages do.
            .set("linger.ms", "5")
            .set("batch.num.messages", "10000")
            .set("compression.type", settings.compression)
            .set("queue.buffering.max.messages", IN_FLIGHT_MESSAGES_MAX.to_string())
            .set("queue.buffering.max.kbytes", IN_FLIGHT_KIB_MAX.to_string())
            // how long a topic may be unknown before its messages fail
            .set("topic.metadata.propagation.max.ms", "5000");
        Ok(Self {
            producer: config.create_with_context(Thinned)?,
            topic: settings.topic.clone(),
            partitions: settings.partitions,
        })
    }

    /// Queues a message. It is sent in the background, also when nobody waits for its delivery.
    ///
    /// # Errors
    /// The queue is full, or the producer is broken.
    pub fn send(&self, message: &Message) -> Result<Delivery, KafkaError> {
        let key = message.key();
        let record = FutureRecord::to(&self.topic)
            .partition(partition_of(message.event.owner_id, self.partitions))
            .key(&key)
            .payload(&message.event.data)
            .headers(record::headers(message));
        self.producer.send_result(record).map(Delivery).map_err(|(error, _)| error)
    }

    /// Drops what is not on the brokers yet; of what is on its way to them nobody knows. Nothing is sent afterwards.
    pub fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl Future for Delivery {
    type Output = Result<(), KafkaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(error),
            Err(_) => Err(KafkaError::Canceled),
        })
    }
}
