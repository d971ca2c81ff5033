//! What comes out of a topic, with offsets that somebody else keeps: the queues between who reads the messages and the
//! thread that polls Kafka. Everything is handed over in order through one bounded queue.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as commands};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::{Message, Unreadable};

/// Messages that are read and wait to be taken.
const QUEUE_MESSAGES_MAX: usize = 4_000;

/// Why a consumer cannot be started.
pub type StartError = Box<dyn Error + Send + Sync>;

type Start = dyn Fn(&str, Session) -> Result<Consumer, StartError> + Send + Sync;

/// A topic, and how its consumers are started.
pub struct Subscription {
    topic: String,
    start: Box<Start>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Subscription {
    /// To this topic. `start` is given the group that a consumer is to join.
    pub fn new(
        topic: String,
        start: impl Fn(&str, Session) -> Result<Consumer, StartError> + Send + Sync + 'static,
    ) -> Self {
        Self { topic, start: Box::new(start) }
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Joins the group, in the background. To be called in a runtime.
    ///
    /// # Errors
    /// The client does not take the settings. (That no broker answers is no error.)
    pub fn start(&self, group: &str, session: Session) -> Result<Consumer, StartError> {
        (self.start)(group, session)
    }
}

/// How long a member of the group may be silent before its partitions are given to others: those of a process that was
/// killed, and of the former memberships of all members once a broker was frozen or killed, for whom a group waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Session {
    /// Shorter than brokers take unless they are told to (`group.min.session.timeout.ms`, 6 s by default).
    #[default]
    Short,
    /// What every broker takes.
    Long,
}

/// What comes out of the queue, in the order in which it is to be handled.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are messages")]
pub enum Received {
    /// These partitions are ours now, or none more, as when only how many there are has changed. They are read once it is answered from which offset (`None`: the beginning); those
    /// that are not answered for are not read.
    Assigned {
        /// Which.
        partitions: Vec<i32>,
        /// How many the topic has.
        of: i32,
        /// The answer.
        begin: oneshot::Sender<Vec<(i32, Option<i64>)>>,
    },
    /// These partitions are somebody else's now. Messages of them that stand in the queue before this were read in time,
    /// but may be too late.
    Revoked(Vec<i32>),
    /// A message.
    Message {
        /// Where it stands.
        partition: i32,
        /// Where it stands in there.
        offset: i64,
        /// What it says.
        message: Result<Message, Box<Unreadable>>,
    },
    /// What comes of this partition from here on is from where [`Consumer::seek`] said.
    Sought(i32),
    /// Each partition with the offset after its last message, as it was when something was fetched last: for a gauge.
    Fetched(Vec<(i32, i64)>),
    /// What the partition's broker answers to [`Consumer::ask_for_end`].
    End {
        /// Which.
        partition: i32,
        /// The offset after its last message.
        end: i64,
    },
    /// Something is wrong, and is tried again.
    Failing(String),
    /// The brokers do not take this [`Session`]. The consumer has ended.
    SessionRefused,
}

/// What the thread is to do.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// See [`Consumer::pause`].
    Pause(i32),
    /// See [`Consumer::seek`].
    Seek(i32, Option<i64>),
    /// See [`Consumer::ask_for_end`].
    End(i32),
}

/// The thread's ends of the queues.
#[derive(Debug)]
pub struct Queues {
    /// What comes; full while nobody takes it.
    pub received: mpsc::Sender<Received>,
    /// What is to be done.
    pub commands: commands::Receiver<Command>,
    stop: Arc<AtomicBool>,
}

impl Queues {
    /// Whether the thread is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A member of a group of consumers of the topic.
#[derive(Debug)]
pub struct Consumer {
    received: mpsc::Receiver<Received>,
    commands: commands::Sender<Command>,
    stop: StopOnDrop,
    thread: JoinHandle<()>,
}

/// The thread ends with what it works for.
#[derive(Debug)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Consumer {
    /// Runs what `polling` makes of the queues on a thread of its own. To be called in a runtime.
    ///
    /// # Errors
    /// Those of `polling`.
    pub fn start<P: FnOnce() + Send + 'static, E>(polling: impl FnOnce(Queues) -> Result<P, E>) -> Result<Self, E> {
        let (sender, received) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (command_sender, commands) = commands::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let poll = polling(Queues { received: sender, commands, stop: stop.clone() })?;
        let thread = tokio::task::spawn_blocking(poll);
        Ok(Self { received, commands: command_sender, stop: StopOnDrop(stop), thread })
    }

    /// What comes next; `None`: it has ended, and has to be started again. Can be dropped while it waits.
    pub async fn next(&mut self) -> Option<Received> {
        self.received.recv().await
    }

    /// What is there already.
    pub fn try_next(&mut self) -> Option<Received> {
        self.received.try_recv().ok()
    }

    /// Reads no more of a partition, until the next [`Consumer::seek`].
    pub fn pause(&self, partition: i32) {
        self.command(Command::Pause(partition));
    }

    /// Reads a partition from this offset on (`None`: from the beginning). [`Received::Sought`] says from when on, unless
    /// the partition is revoked before.
    pub fn seek(&self, partition: i32, offset: Option<i64>) {
        self.command(Command::Seek(partition, offset));
    }

    /// Asks the partition's broker where it ends: [`Received::End`]. There is no answer while it is away.
    pub fn ask_for_end(&self, partition: i32) {
        self.command(Command::End(partition));
    }

    fn command(&self, command: Command) {
        // Where the thread has ended, `next` says so.
        let _ended = self.commands.send(command);
    }

    /// Leaves the group.
    pub async fn stop(self) {
        drop(self.stop);
        // The thread may be waiting for room in the queue, or for an answer that stands in it.
        drop(self.received);
        if let Err(error) = self.thread.await {
            warn!(%error, "the thread of the consumer has died");
        }
    }
}
