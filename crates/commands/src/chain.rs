use std::collections::HashMap;
use std::sync::Arc;

use domain::{CommandId, OwnerId, TaskCommand, TaskId};
use event_store::{
    AppendError, CommandOrigin, DecidedCommand, EventStore, Looked, Outcome, StreamAppend, is_same_request,
};
use metrics::counter;
use quick_cache::sync::Cache;

use crate::identity::CommandIdentity;
use crate::last_positions::LastPositions;
use crate::outcome::{Accepted, ExecuteError};
use crate::plan::Plan;
use crate::request::{Caller, CommandRequest};
use crate::stream::{Stream, StreamWeight};

/// How often commands are decided again after somebody else changed their task in between.
pub(crate) const DECISIONS_MAX: usize = 20;
/// How much memory the cached streams take at most, in bytes.
const STREAMS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How many outcomes of commands with an id are cached.
const OUTCOMES_MAX: usize = 65_536;

/// Streams and outcomes, as they were committed. A stale stream does no harm: an append checks its version.
pub(crate) struct Caches {
    streams: Cache<(OwnerId, TaskId), Arc<Stream>, StreamWeight>,
    outcomes: Cache<(OwnerId, CommandId), Outcome>,
    pub(crate) last_positions: LastPositions,
}

impl Caches {
    /// Drops a stream that has moved on.
    pub(crate) fn forget_stream(&self, owner: OwnerId, task_id: TaskId) {
        self.streams.remove(&(owner, task_id));
    }
}

impl Default for Caches {
    fn default() -> Self {
        let streams = Cache::with_weighter((STREAMS_BYTES_MAX / 1_024) as usize, STREAMS_BYTES_MAX, StreamWeight);
        Self { streams, outcomes: Cache::new(OUTCOMES_MAX), last_positions: LastPositions::default() }
    }
}

/// Whether a task's id was made for the command, so that nobody else knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsNew {
    Yes,
    Unknown,
}

/// The commands to one task that are decided one after the other and appended together.
pub(crate) struct Chain<'a> {
    store: &'a EventStore,
    caches: &'a Caches,
    caller: &'a Caller,
    task_id: TaskId,
    is_new: IsNew,
    requests: Vec<CommandRequest>,
    /// Of each request, once it is known.
    outcomes: Vec<Option<Result<Accepted, ExecuteError>>>,
    stream: Stream,
    /// Whether `stream` was looked up after the commands arrived.
    is_confirmed: bool,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(
        store: &'a EventStore,
        caches: &'a Caches,
        caller: &'a Caller,
        task_id: TaskId,
        is_new: IsNew,
        requests: Vec<CommandRequest>,
    ) -> Self {
        let outcomes = requests.iter().map(|_| None).collect();
        let stream = Stream::default();
        Self { store, caches, caller, task_id, is_new, requests, outcomes, stream, is_confirmed: false }
    }

    /// Whether every request has its outcome.
    pub(crate) fn is_done(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// Ends those without an outcome.
    pub(crate) fn fail_rest(&mut self, error: &ExecuteError) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Err(error.clone()));
        }
    }

    /// An outcome for each request, in order.
    pub(crate) fn into_outcomes(self) -> Vec<Result<Accepted, ExecuteError>> {
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(ExecuteError::Failed))).collect()
    }

    /// Decides and appends until every request has its outcome.
    ///
    /// # Errors
    /// What ends all that have none yet.
    pub(crate) async fn run(&mut self) -> Result<(), ExecuteError> {
        let cached = match self.is_new {
            IsNew::Yes => None,
            IsNew::Unknown => self.caches.streams.get(&(self.caller.owner, self.task_id)),
        };
        match cached {
            Some(stream) => self.stream = Stream::clone(&stream),
            // A task that is to be created is taken for missing; the append tells if it is not.
            None if matches!(self.requests[0].command, TaskCommand::Create(_)) => {}
            None => self.look_up().await?,
        }
        let mut decisions = 0;
        while !self.is_done() {
            let plan = Plan::of(self.task_id, &self.stream, &self.requests, &self.outcomes, self.caller).await;
            if plan.has_outcome_without_event() && !self.is_confirmed {
                self.look_up().await?;
                continue;
            }
            decisions += 1;
            if decisions > DECISIONS_MAX {
                return Err(ExecuteError::Contended);
            }
            self.carry_out(plan).await?;
        }
        Ok(())
    }

    /// Appends what the plan wants appended, and takes its outcomes if that went well.
    async fn carry_out(&mut self, mut plan: Plan) -> Result<(), ExecuteError> {
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
                is_new_task: self.is_new == IsNew::Yes,
                expected_version: self.stream.version,
                expected_revision: self.stream.revision,
                origin: CommandOrigin {
                    actor: self.caller.actor,
                    correlation_id: self.caller.correlation_id.clone(),
                    traceparent: self.caller.traceparent.clone(),
                    change_id: self.caller.change_id,
                    undoes: None,
                },
                commands: to_append,
            };
            match self.store.append(self.caller.shard, append).await {
                Ok(appended) => {
                    let mut next = appended.first_position;
                    for accepted in &mut accepted {
                        next += i64::from(accepted.events);
                        if accepted.version > self.stream.version {
                            accepted.revision = next - 1;
                            plan.after.revision = next - 1;
                        }
                    }
                    // Without an event it is told where the shard's log ends, and that may be another owner's event.
                    if next > appended.first_position {
                        self.caches.last_positions.note(self.caller.owner, next - 1);
                    }
                }
                Err(AppendError::Conflict | AppendError::CommandKnown) => {
                    counter!("command_conflicts_total").increment(1);
                    return self.look_up().await;
                }
                Err(error @ (AppendError::Refused | AppendError::Unavailable(_))) => return Err(error.into()),
            }
        }
        for (number, first) in plan.repeat {
            let identities = (self.requests[numbers[first]].identity, self.requests[number].identity);
            if let (Some(first_identity), Some(identity)) = identities {
                self.outcomes[number] = Some(replay(identity, outcome(first_identity, &accepted[first])));
            }
        }
        for (number, accepted) in numbers.into_iter().zip(accepted) {
            if let Some(identity) = self.requests[number].identity {
                let key = (self.caller.owner, identity.command_id);
                self.caches.outcomes.insert(key, outcome(identity, &accepted));
            }
            self.outcomes[number] = Some(Ok(accepted));
        }
        for (number, error) in plan.fail {
            self.outcomes[number] = Some(Err(error));
        }
        // All is decided now.
        self.keep(plan.after);
        Ok(())
    }

    /// Reads the stream on from where it is, and answers those commands that took effect before.
    async fn look_up(&mut self) -> Result<(), ExecuteError> {
        let undecided = self.requests.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.is_none());
        let mut command_ids: Vec<CommandId> =
            undecided.filter_map(|(request, _)| Some(request.identity?.command_id)).collect();
        command_ids.sort_unstable();
        command_ids.dedup();
        loop {
            let ids = std::mem::take(&mut command_ids);
            let version = self.stream.version;
            let Looked { events, more, outcomes } =
                self.store.look_up(self.caller.owner, self.task_id, version, ids).await?;
            if !outcomes.is_empty() {
                let outcomes: HashMap<CommandId, Outcome> = outcomes.into_iter().collect();
                for (command_id, outcome) in &outcomes {
                    self.caches.outcomes.insert((self.caller.owner, *command_id), *outcome);
                    self.caches.last_positions.note(self.caller.owner, outcome.revision);
                }
                self.replay(|command_id| outcomes.get(&command_id).copied());
            }
            if let Some(last) = events.last() {
                self.caches.last_positions.note(self.caller.owner, last.position);
            }
            self.stream.fold(&events)?;
            if !more {
                break;
            }
        }
        self.is_confirmed = true;
        self.keep(self.stream.clone());
        Ok(())
    }

    /// Answers the commands whose outcomes are cached.
    pub(crate) fn replay_cached(&mut self) {
        let (cached, owner) = (&self.caches.outcomes, self.caller.owner);
        self.replay(|command_id| cached.get(&(owner, command_id)));
    }

    /// Answers the undecided commands whose ids have an outcome.
    fn replay(&mut self, outcome_of: impl Fn(CommandId) -> Option<Outcome>) {
        for (request, outcome) in self.requests.iter().zip(&mut self.outcomes).filter(|(_, known)| known.is_none()) {
            let known = request.identity.and_then(|identity| Some((identity, outcome_of(identity.command_id)?)));
            *outcome = known.map(|(identity, known)| replay(identity, known));
        }
    }

    /// Keeps a stream in the cache: one that is committed.
    fn keep(&self, stream: Stream) {
        if stream.version > 0 {
            self.caches.streams.insert((self.caller.owner, self.task_id), Arc::new(stream));
        }
    }
}

fn outcome(identity: CommandIdentity, accepted: &Accepted) -> Outcome {
    let Accepted { task_id, version, revision, effect, change_id, .. } = *accepted;
    Outcome { task_id, version, revision, fingerprint: identity.fingerprint, effect, change_id }
}

/// The answer to a command whose id has an outcome: the same, if it is the same command.
pub(crate) fn replay(identity: CommandIdentity, outcome: Outcome) -> Result<Accepted, ExecuteError> {
    let Outcome { task_id, version, revision, fingerprint, effect, change_id } = outcome;
    if !is_same_request(fingerprint, identity.fingerprint) {
        return Err(ExecuteError::IdentityReused);
    }
    counter!("commands_replayed_total").increment(1);
    Ok(Accepted { effect, task_id, version, revision, replayed: true, change_id, events: 0 })
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
