use std::collections::HashMap;

use domain::{CommandId, State, TaskCommand, TaskId, Time, decide, is_restorable, occurred_at};
use event_store::{DecidedCommand, Effect, NewEvent};
use process::clock::{self, new_id};
use tokio::task::yield_now;

use crate::outcome::{Accepted, ExecuteError};
use crate::request::{Caller, CommandRequest};
use crate::stream::Stream;

/// After so many commands decided in one go, other tasks of the runtime run.
const DECIDED_BETWEEN_YIELDS: usize = 256;

/// What commands to one task come to, decided one after the other.
pub(crate) struct Plan {
    /// Those that succeed: their number, the outcome with positions yet to come, and what is to be appended.
    pub(crate) succeed: Vec<(usize, Accepted, DecidedCommand)>,
    pub(crate) fail: Vec<(usize, ExecuteError)>,
    /// Those with the id of one that succeeds: their number, and which of `succeed` they repeat.
    pub(crate) repeat: Vec<(usize, usize)>,
    /// The stream after all of them.
    pub(crate) after: Stream,
}

impl Plan {
    /// Decides, in order, those `requests` that have no outcome yet, on the stream as it was read. One that fails leaves
    /// its id free for those after it.
    pub(crate) async fn of(
        task_id: TaskId,
        stream: &Stream,
        requests: &[CommandRequest],
        outcomes: &[Option<Result<Accepted, ExecuteError>>],
        caller: &Caller,
    ) -> Self {
        let now = clock::now();
        let mut plan = Self { succeed: Vec::new(), fail: Vec::new(), repeat: Vec::new(), after: stream.clone() };
        let mut first_of: HashMap<CommandId, usize> = HashMap::new();
        for (number, request) in requests.iter().enumerate().filter(|(number, _)| outcomes[*number].is_none()) {
            if (number + 1).is_multiple_of(DECIDED_BETWEEN_YIELDS) {
                yield_now().await;
            }
            if let Some(first) = request.identity.and_then(|identity| first_of.get(&identity.command_id)) {
                plan.repeat.push((number, *first));
                continue;
            }
            // As late as it says that it happened, if that is to be believed.
            let now = request.occurred_at.filter(|_| caller.history).map_or(now, |asked| now.max(asked));
            match decide_request(&plan.after, request, now) {
                Ok((effect, events)) => {
                    for event in &events {
                        plan.after.apply(&event.event, event.occurred_at);
                    }
                    let change_id = (!events.is_empty()).then_some(caller.change_id);
                    let accepted = Accepted {
                        effect,
                        task_id,
                        version: plan.after.version,
                        revision: stream.revision,
                        replayed: false,
                        change_id,
                        events: events.len() as u32,
                    };
                    let identity = request.identity;
                    let command = DecidedCommand {
                        command_id: identity.map_or_else(|| CommandId(new_id()), |identity| identity.command_id),
                        fingerprint: identity.map(|identity| identity.fingerprint),
                        effect,
                        change_id,
                        events,
                    };
                    if requests.len() > 1
                        && let Some(identity) = identity
                    {
                        first_of.insert(identity.command_id, plan.succeed.len());
                    }
                    plan.succeed.push((number, accepted, command));
                }
                Err(error) => plan.fail.push((number, error)),
            }
        }
        plan
    }

    /// Whether something in it must be confirmed by a lookup.
    pub(crate) fn has_outcome_without_event(&self) -> bool {
        !self.fail.is_empty() || self.succeed.iter().any(|(_, _, command)| command.events.is_empty())
    }
}

/// Order of checks: whether the task exists, its version, the rules.
pub(crate) fn decide_request(
    stream: &Stream,
    request: &CommandRequest,
    now: Time,
) -> Result<(Effect, Vec<NewEvent>), ExecuteError> {
    let is_there = match (&request.command, &stream.state) {
        (TaskCommand::Create(_), _)
        | (TaskCommand::Delete | TaskCommand::Purge, State::Deleted(_) | State::Purged)
        | (TaskCommand::Restore, State::Purged) => true,
        // Its last event deleted it.
        (TaskCommand::Restore, State::Deleted(_)) => stream
            .last_occurred_at
            .is_some_and(|deleted_at| is_restorable(deleted_at, request.occurred_at.unwrap_or(now))),
        (_, state) => state.status().is_some(),
    };
    if !is_there {
        return Err(ExecuteError::NotFound);
    }
    let deleted_again =
        matches!((&request.command, &stream.state), (TaskCommand::Delete, State::Deleted(_) | State::Purged));
    if !request.expected.is_met_by(stream.version) && !deleted_again {
        return Err(ExecuteError::StaleVersion { version: stream.version });
    }
    let events = decide(&stream.state, &request.command)?;
    let effect = match request.command {
        TaskCommand::Create(_) if !events.is_empty() => Effect::Created,
        TaskCommand::Delete => Effect::Deleted,
        _ => Effect::Changed,
    };
    // Where nothing happens there is no order to keep, but still no future.
    let previous = stream.last_occurred_at.filter(|_| !events.is_empty());
    let occurred_at = occurred_at(request.occurred_at, now, previous)?;
    let event = |event| NewEvent { event_id: new_id(), occurred_at, event };
    Ok((effect, events.into_iter().map(event).collect()))
}
