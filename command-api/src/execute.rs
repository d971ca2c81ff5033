//! The way of a command: replay, decide on the cached stream, append, and again where somebody else was faster.
//!
//! Nothing is answered from uncommitted state. An outcome with events is confirmed by the append, which checks the
//! version that it was decided on; an outcome without one (nothing to do, or refused) only after a lookup that began
//! after the command arrived.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::{
    Actor, CommandId, OwnerId, Refusal, State, StoredEvent, TaskCommand, TaskEvent, TaskId, Time, decide, evolve,
    occurred_at,
};
use event_store::{
    AppendError, CommandOrigin, DecidedCommand, EventStore, Looked, NewEvent, Outcome, StreamAppend, Unavailable,
};
use futures_util::StreamExt;
use metrics::counter;
use process::clock::{self, new_id};
use process::context;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::batch::AT_ONCE_MAX;

/// How often a command is decided again after somebody else changed its task in between.
const DECISIONS_MAX: usize = 20;
/// How long commands wait for equal ones, and again for their task, in milliseconds.
const TURN_WAIT_MS_MAX: u64 = 10_000;
/// How much memory the cached streams take at most, in bytes.
const STREAMS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How many outcomes of commands with an id are remembered.
const OUTCOMES_MAX: usize = 65_536;
/// After so many commands decided in one go, others get a turn.
const DECIDED_BETWEEN_YIELDS: usize = 256;
/// How many streams of one batch are under way at a time.
const STREAMS_IN_FLIGHT_MAX: usize = 256;
// All batches together leave half of each queue of the store to single commands.
const _: () = assert!(AT_ONCE_MAX as usize * STREAMS_IN_FLIGHT_MAX <= event_store::QUEUE_MAX / 2);

/// The identity under which a command takes effect at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The command's own id, or one made from an `Idempotency-Key`.
    pub command_id: CommandId,
    /// The first 16 bytes of the SHA-256 of the request: the same id with another one is refused.
    pub fingerprint: Uuid,
}

/// What `If-Match` or `expected_version` asks of the task's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// No condition.
    Nothing,
    /// `*`: the task exists.
    Existing,
    /// One of these versions (empty: only weak or foreign tags were given, nothing matches).
    OneOf(Vec<i64>),
}

/// One command and the conditions under which it is to be carried out.
#[derive(Debug, Clone)]
pub struct Item {
    /// The task it is about.
    pub task_id: TaskId,
    /// What is asked.
    pub command: TaskCommand,
    /// Present: replay instead of repetition.
    pub identity: Option<Identity>,
    /// The condition on the version.
    pub expected: Expected,
    /// When it happened, for imports of history; absent: now.
    pub occurred_at: Option<Time>,
}

/// On whose behalf and under which trace commands run.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose tasks.
    pub owner: OwnerId,
    /// The owner's shard.
    pub shard: i16,
    /// Who acts.
    pub actor: Actor,
    /// The request id, carried into the events.
    pub correlation_id: Arc<str>,
    /// The W3C trace context, carried into the events.
    pub traceparent: Arc<str>,
    /// Whether what happened in the future is taken as it is: an operator's, for what a wrong clock wrote.
    pub history: bool,
}

/// A command that took effect, or found nothing to do, or was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The HTTP status that the single request gets: 201, 200, 204.
    pub status: u16,
    /// The task.
    pub task_id: TaskId,
    /// The task's version after the command.
    pub version: i64,
    /// The position of the task's last event after the command.
    pub revision: i64,
    /// Whether this is the answer of an earlier, equal request.
    pub replayed: bool,
    /// How many events were appended now.
    pub events: u32,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// 404.
    NotFound,
    /// 412: `If-Match` or `expected_version` names another version.
    Stale {
        /// The version that the task has.
        version: i64,
    },
    /// 409 or 422: the rules refuse it.
    Rules(Refusal),
    /// 422: the id or key was used with another request.
    KeyReused,
    /// 409: an equal request is in flight for longer than 10 s.
    InFlight,
    /// 503: writers collided 20 times, or the task was busy for longer than 10 s.
    Contended,
    /// 503: the queue is full; nothing was done.
    Overloaded,
    /// 503: the disk has no room for more; nothing was done.
    DiskFull,
    /// 503: the stream holds an event that cannot be read.
    Unreadable,
    /// 500: Postgres refused the command's values; nothing was done.
    Failed,
    /// 503: the store does not answer; whether the command took effect is unknown.
    Unavailable,
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Busy => Self::Overloaded,
            Unavailable::DiskFull => Self::DiskFull,
            Unavailable::NoAnswer => Self::Unavailable,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            refusal => Self::Rules(refusal),
        }
    }
}

type Decided = Result<Accepted, Refused>;

/// Carries out commands. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    store: EventStore,
    streams: Cache<(OwnerId, TaskId), Arc<Stream>, StreamWeight>,
    outcomes: Cache<(OwnerId, CommandId), Outcome>,
    /// Equal commands, one after the other: the second finds the first one's outcome.
    command_turns: Turns,
    /// Commands to one task, one after the other: without it they would collide in the store.
    stream_turns: Turns,
}

/// A stream as far as it was read.
#[derive(Debug, Clone, Default)]
struct Stream {
    version: i64,
    /// Position of the last event.
    revision: i64,
    last_occurred_at: Option<Time>,
    state: State,
}

impl Stream {
    fn apply(&mut self, event: &TaskEvent, occurred_at: Time) {
        self.version += 1;
        self.last_occurred_at = Some(occurred_at);
        self.state = evolve(std::mem::take(&mut self.state), event);
    }

    fn fold(&mut self, events: &[StoredEvent]) -> Result<(), Refused> {
        for stored in events {
            let event = stored.decode().map_err(|error| {
                tracing::error!(owner_id = %stored.owner_id, position = stored.position, %error, "unreadable event");
                Refused::Unreadable
            })?;
            self.apply(&event, stored.occurred_at);
            self.revision = stored.position;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct StreamWeight;

impl Weighter<(OwnerId, TaskId), Arc<Stream>> for StreamWeight {
    fn weight(&self, _: &(OwnerId, TaskId), stream: &Arc<Stream>) -> u64 {
        // The entry, and about as much again for what the cache and the allocator keep beside it.
        (2 * size_of::<Stream>() + stream.state.heap_bytes() + 128) as u64
    }
}

impl Executor {
    /// Decides against `store`.
    #[must_use]
    pub fn new(store: EventStore) -> Self {
        let streams = Cache::with_weighter((STREAMS_BYTES_MAX / 1_024) as usize, STREAMS_BYTES_MAX, StreamWeight);
        let inner = Inner {
            store,
            streams,
            outcomes: Cache::new(OUTCOMES_MAX),
            command_turns: Turns::new(),
            stream_turns: Turns::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &EventStore {
        &self.inner.store
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// See [`Refused`]. Of all but `Unavailable` it is certain that they changed nothing.
    pub async fn execute(&self, caller: &Caller, item: Item) -> Decided {
        let mut decided = self.execute_stream(caller, item.task_id, vec![item]).await;
        decided.pop().unwrap_or(Err(Refused::Failed))
    }

    /// Carries out many commands: each on its own, in order per task. An outcome for each, in the order given.
    pub async fn execute_all(&self, caller: &Caller, items: Vec<Item>) -> Vec<Decided> {
        let mut outcomes: Vec<Decided> = items.iter().map(|_| Err(Refused::Failed)).collect();
        let mut groups: Vec<(TaskId, Vec<usize>, Vec<Item>)> = Vec::new();
        let mut group_of: HashMap<TaskId, usize> = HashMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let group = *group_of.entry(item.task_id).or_insert_with(|| {
                groups.push((item.task_id, Vec::new(), Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(index);
            groups[group].2.push(item);
        }
        let mut decided = futures_util::stream::iter(groups)
            .map(async |(task_id, indices, items)| (indices, self.execute_stream(caller, task_id, items).await))
            .buffer_unordered(STREAMS_IN_FLIGHT_MAX);
        while let Some((indices, results)) = decided.next().await {
            for (index, result) in indices.into_iter().zip(results) {
                outcomes[index] = result;
            }
        }
        outcomes
    }

    /// Carries out commands to one task, in order: together in one append where nobody is in the way.
    async fn execute_stream(&self, caller: &Caller, task_id: TaskId, items: Vec<Item>) -> Vec<Decided> {
        let ids = items.iter().filter_map(|item| item.identity).map(|identity| (caller.owner, identity.command_id));
        let _command_turns = match self.inner.command_turns.take(ids).await {
            Ok(turns) => turns,
            Err(Busy::Equal) => return items.iter().map(|_| Err(Refused::InFlight)).collect(),
            Err(Busy::Other) => return items.iter().map(|_| Err(Refused::Contended)).collect(),
        };
        let mut chain = Chain {
            inner: &self.inner,
            caller,
            task_id,
            stream: Stream::default(),
            confirmed: false,
            decided: items.iter().map(|_| None).collect(),
            items,
        };
        chain.replay_remembered();
        if !chain.is_done() {
            match self.inner.stream_turns.take([(caller.owner, task_id)].into_iter()).await {
                Ok(_stream_turn) => {
                    if let Err(refused) = chain.run().await {
                        chain.refuse_rest(&refused);
                    }
                }
                Err(Busy::Equal | Busy::Other) => chain.refuse_rest(&Refused::Contended),
            }
        }
        chain.decided.into_iter().map(|decided| decided.unwrap_or(Err(Refused::Failed))).collect()
    }
}

/// The commands to one task that go together.
struct Chain<'a> {
    inner: &'a Inner,
    caller: &'a Caller,
    task_id: TaskId,
    items: Vec<Item>,
    decided: Vec<Option<Decided>>,
    stream: Stream,
    /// Whether `stream` was looked up after the commands arrived.
    confirmed: bool,
}

/// What the undecided items come to, decided one after the other on the stream as it was read.
struct Plan {
    /// Of items that succeed: their number, the outcome with positions yet to come, and what is to be appended.
    succeed: Vec<(usize, Accepted, DecidedCommand)>,
    refuse: Vec<(usize, Refused)>,
    /// Items with the id of one that succeeds: their number, and which of `succeed` they repeat.
    repeat: Vec<(usize, usize)>,
    /// The stream after all of them.
    after: Stream,
}

impl Plan {
    /// Whether something in it must be confirmed by a lookup.
    fn has_outcome_without_event(&self) -> bool {
        !self.refuse.is_empty() || self.succeed.iter().any(|(_, _, command)| command.events.is_empty())
    }
}

impl Chain<'_> {
    fn is_done(&self) -> bool {
        self.decided.iter().all(Option::is_some)
    }

    fn refuse_rest(&mut self, refused: &Refused) {
        for decided in self.decided.iter_mut().filter(|decided| decided.is_none()) {
            *decided = Some(Err(refused.clone()));
        }
    }

    async fn run(&mut self) -> Result<(), Refused> {
        match self.inner.streams.get(&(self.caller.owner, self.task_id)) {
            Some(stream) => self.stream = Stream::clone(&stream),
            // A task that is to be created is taken for missing; the append tells if it is not.
            None if matches!(self.items[0].command, TaskCommand::Create(_)) => {}
            None => self.look_up().await?,
        }
        let mut decisions = 0;
        while !self.is_done() {
            let plan = self.plan().await;
            if plan.has_outcome_without_event() && !self.confirmed {
                self.look_up().await?;
                continue;
            }
            decisions += 1;
            if decisions > DECISIONS_MAX {
                return Err(Refused::Contended);
            }
            self.carry_out(plan).await?;
        }
        Ok(())
    }

    /// Decides what is undecided. An item that was refused leaves its id free for those after it, as a request does.
    async fn plan(&self) -> Plan {
        let now = clock::now();
        let mut plan = Plan { succeed: Vec::new(), refuse: Vec::new(), repeat: Vec::new(), after: self.stream.clone() };
        let mut place_of: HashMap<CommandId, usize> = HashMap::new();
        for (number, item) in self.items.iter().enumerate() {
            if self.decided[number].is_some() {
                continue;
            }
            if (number + 1).is_multiple_of(DECIDED_BETWEEN_YIELDS) {
                yield_now().await;
            }
            if let Some(place) = item.identity.and_then(|identity| place_of.get(&identity.command_id)) {
                plan.repeat.push((number, *place));
                continue;
            }
            // As late as it says that it happened, if that is to be believed.
            let now = item.occurred_at.filter(|_| self.caller.history).map_or(now, |asked| now.max(asked));
            match decide_item(&plan.after, item, now) {
                Ok((status, events)) => {
                    for event in &events {
                        plan.after.apply(&event.event, event.occurred_at);
                    }
                    let accepted = Accepted {
                        status,
                        task_id: self.task_id,
                        version: plan.after.version,
                        revision: self.stream.revision,
                        replayed: false,
                        events: events.len() as u32,
                    };
                    let command = DecidedCommand {
                        command_id: item.identity.map_or_else(|| CommandId(new_id()), |identity| identity.command_id),
                        fingerprint: item.identity.map(|identity| identity.fingerprint),
                        status,
                        events,
                    };
                    if self.items.len() > 1
                        && let Some(identity) = item.identity
                    {
                        place_of.insert(identity.command_id, plan.succeed.len());
                    }
                    plan.succeed.push((number, accepted, command));
                }
                Err(refused) => plan.refuse.push((number, refused)),
            }
        }
        plan
    }

    /// Appends what the plan wants appended, and takes its outcomes if that went well.
    async fn carry_out(&mut self, mut plan: Plan) -> Result<(), Refused> {
        let (numbers, mut accepted, commands) = unzip3(plan.succeed);
        // Nothing to remember of a command without an event and without an id of its own.
        let to_append: Vec<DecidedCommand> = commands
            .into_iter()
            .filter(|command| command.fingerprint.is_some() || !command.events.is_empty())
            .collect();
        if !to_append.is_empty() {
            let append = StreamAppend {
                owner_id: self.caller.owner,
                task_id: self.task_id,
                expected_version: self.stream.version,
                expected_revision: self.stream.revision,
                origin: CommandOrigin {
                    actor: self.caller.actor,
                    correlation_id: self.caller.correlation_id.clone(),
                    traceparent: self.caller.traceparent.clone(),
                },
                commands: to_append,
            };
            match self.inner.store.append(self.caller.shard, append).await {
                Ok(appended) => {
                    let mut next = appended.first_position;
                    for accepted in &mut accepted {
                        next += i64::from(accepted.events);
                        if accepted.version > self.stream.version {
                            accepted.revision = next - 1;
                            plan.after.revision = next - 1;
                        }
                    }
                }
                Err(AppendError::Conflict | AppendError::CommandKnown) => {
                    counter!("command_conflicts_total").increment(1);
                    return self.look_up().await;
                }
                Err(AppendError::Refused) => return Err(Refused::Failed),
                Err(AppendError::Unavailable(unavailable)) => return Err(unavailable.into()),
            }
        }
        for (number, place) in plan.repeat {
            if let (Some(first), Some(again)) = (self.items[numbers[place]].identity, self.items[number].identity) {
                self.decided[number] = Some(replay(again, outcome(first, &accepted[place])));
            }
        }
        for (number, accepted) in numbers.into_iter().zip(accepted) {
            if let Some(identity) = self.items[number].identity {
                self.remember(identity, &accepted);
            }
            self.decided[number] = Some(Ok(accepted));
        }
        for (number, refused) in plan.refuse {
            self.decided[number] = Some(Err(refused));
        }
        // All is decided now.
        self.keep(plan.after);
        Ok(())
    }

    /// Reads the stream on from where it is, and answers those commands that took effect before.
    async fn look_up(&mut self) -> Result<(), Refused> {
        let undecided = self.items.iter().zip(&self.decided).filter(|(_, decided)| decided.is_none());
        let mut command_ids: Vec<CommandId> =
            undecided.filter_map(|(item, _)| Some(item.identity?.command_id)).collect();
        command_ids.sort_unstable();
        command_ids.dedup();
        loop {
            let Looked { events, more, outcomes } = self
                .inner
                .store
                .look_up(self.caller.owner, self.task_id, self.stream.version, std::mem::take(&mut command_ids))
                .await?;
            if !outcomes.is_empty() {
                let outcomes: HashMap<CommandId, Outcome> = outcomes.into_iter().collect();
                for (command_id, outcome) in &outcomes {
                    self.inner.outcomes.insert((self.caller.owner, *command_id), *outcome);
                }
                self.replay(|command_id| outcomes.get(&command_id).copied());
            }
            self.stream.fold(&events)?;
            if !more {
                break;
            }
        }
        self.confirmed = true;
        self.keep(self.stream.clone());
        Ok(())
    }

    fn replay_remembered(&mut self) {
        let (remembered, owner) = (&self.inner.outcomes, self.caller.owner);
        self.replay(|command_id| remembered.get(&(owner, command_id)));
    }

    /// Answers the undecided commands whose ids have an outcome.
    fn replay(&mut self, outcome_of: impl Fn(CommandId) -> Option<Outcome>) {
        for (item, decided) in self.items.iter().zip(&mut self.decided).filter(|(_, decided)| decided.is_none()) {
            let outcome = item.identity.and_then(|identity| Some((identity, outcome_of(identity.command_id)?)));
            *decided = outcome.map(|(identity, outcome)| replay(identity, outcome));
        }
    }

    fn remember(&self, identity: Identity, accepted: &Accepted) {
        self.inner.outcomes.insert((self.caller.owner, identity.command_id), outcome(identity, accepted));
    }

    /// Keeps a stream in the cache: one that is committed.
    fn keep(&self, stream: Stream) {
        if stream.version > 0 {
            self.inner.streams.insert((self.caller.owner, self.task_id), Arc::new(stream));
        }
    }
}

fn outcome(identity: Identity, accepted: &Accepted) -> Outcome {
    let Accepted { task_id, version, revision, status, .. } = *accepted;
    Outcome { task_id, version, revision, fingerprint: identity.fingerprint, status }
}

/// The answer to a command whose id has an outcome: the same, if it is the same command.
fn replay(identity: Identity, outcome: Outcome) -> Decided {
    let Outcome { task_id, version, revision, fingerprint, status } = outcome;
    if identity.fingerprint != fingerprint {
        return Err(Refused::KeyReused);
    }
    counter!("commands_replayed_total").increment(1);
    Ok(Accepted { status, task_id, version, revision, replayed: true, events: 0 })
}

/// Order of checks: 404, 412, rules.
fn decide_item(stream: &Stream, item: &Item, now: Time) -> Result<(u16, Vec<NewEvent>), Refused> {
    let creates = matches!(item.command, TaskCommand::Create(_));
    let deleted_again = matches!((&item.command, &stream.state), (TaskCommand::Delete, State::Deleted));
    if stream.state.status().is_none() && !creates && !deleted_again {
        return Err(Refused::NotFound);
    }
    let as_expected = match &item.expected {
        Expected::Nothing => true,
        Expected::Existing => stream.version > 0,
        Expected::OneOf(versions) => versions.contains(&stream.version),
    };
    if !as_expected && !deleted_again {
        return Err(Refused::Stale { version: stream.version });
    }
    let events = decide(&stream.state, &item.command)?;
    let status = match item.command {
        TaskCommand::Create(_) if !events.is_empty() => 201,
        TaskCommand::Delete => 204,
        _ => 200,
    };
    // Where nothing happens there is no order to keep, but still no future.
    let previous = stream.last_occurred_at.filter(|_| !events.is_empty());
    let occurred_at = occurred_at(item.occurred_at, now, previous)?;
    let event = |event| NewEvent { event_id: new_id(), occurred_at, event };
    Ok((status, events.into_iter().map(event).collect()))
}

fn unzip3<A, B, C>(items: Vec<(A, B, C)>) -> (Vec<A>, Vec<B>, Vec<C>) {
    let mut unzipped = (Vec::new(), Vec::new(), Vec::new());
    for (a, b, c) in items {
        unzipped.0.push(a);
        unzipped.1.push(b);
        unzipped.2.push(c);
    }
    unzipped
}

/// Turns: what has the same key goes one after the other. Keys share a fixed number of locks, so that nothing grows;
/// two keys that meet in one lock wait for each other needlessly, and the one that waits for too long is told to come
/// again.
struct Turns {
    locks: Box<[Lock]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Lock {
    turn: Mutex<()>,
    /// Hash of a key that has the turn, or had it last.
    taken_for: AtomicU64,
}

/// Who had the turn for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// Somebody with the same key.
    Equal,
    /// Somebody whose key shares the lock.
    Other,
}

impl Turns {
    const LOCKS: u64 = 1 << 15;

    fn new() -> Self {
        Self { locks: (0..Self::LOCKS).map(|_| Lock::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn of all keys, together no longer than one command does. Taken in the order of the locks, so that
    /// nobody waits in a circle.
    async fn take<K: Hash>(&self, keys: impl Iterator<Item = K>) -> Result<Vec<MutexGuard<'_, ()>>, Busy> {
        let mut hashes: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        hashes.sort_unstable_by_key(|hash| hash % Self::LOCKS);
        let mut guards = Vec::with_capacity(hashes.len());
        let mut deadline = None;
        for same_lock in hashes.chunk_by(|a, b| a % Self::LOCKS == b % Self::LOCKS) {
            let lock = &self.locks[(same_lock[0] % Self::LOCKS) as usize];
            let guard = match lock.turn.try_lock() {
                Ok(guard) => guard,
                Err(_) => {
                    let wait_max = Duration::from_millis(TURN_WAIT_MS_MAX);
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + wait_max);
                    let turn = timeout_at(deadline, lock.turn.lock());
                    context::without_permit(turn).await.map_err(|_| {
                        let taken_for = lock.taken_for.load(Ordering::Relaxed);
                        if same_lock.contains(&taken_for) { Busy::Equal } else { Busy::Other }
                    })?
                }
            };
            lock.taken_for.store(same_lock[0], Ordering::Relaxed);
            guards.push(guard);
        }
        Ok(guards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_turns_together_are_waited_for_no_longer_than_one() {
        let turns = Turns::new();
        let began = Instant::now();
        let hold = async |key: u32, time_ms| {
            let _held = turns.take([key].into_iter()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(time_ms)).await;
        };
        let wait = async {
            tokio::task::yield_now().await;
            (turns.take([1, 2].into_iter()).await.map(drop), began.elapsed())
        };
        let (_, _, (taken, elapsed)) = tokio::join!(hold(1, 6_000), hold(2, 12_000), wait);
        assert_eq!((taken, elapsed.as_secs()), (Err(Busy::Equal), 10));
        assert_eq!(turns.take([1, 2, 1].into_iter()).await.map(|held| held.len()), Ok(2), "given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_only_shares_a_lock_is_not_taken_for_an_equal_one() {
        let turns = Turns::new();
        let lock = |key: u64| turns.hasher.hash_one(key) % Turns::LOCKS;
        let other = (1..).find(|key| lock(*key) == lock(0)).unwrap();
        let _held = turns.take([0_u64].into_iter()).await.unwrap();
        assert_eq!(turns.take([other].into_iter()).await.map(drop), Err(Busy::Other));
        assert_eq!(turns.take([0_u64].into_iter()).await.map(drop), Err(Busy::Equal));
    }
}
