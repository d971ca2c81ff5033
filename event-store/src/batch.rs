use std::collections::HashSet;
use std::ops::Deref;

use domain::{CommandId, OwnerId, TaskId, encode};
use tokio::sync::oneshot;

use crate::append::{AppendResult, StreamAppend};

/// How many events a batch has at most, but for one unit that has more by itself.
const BATCH_EVENTS_MAX: usize = 1_000;

/// An append with its events as they are stored: whoever asks for it encodes them, while the appender waits for the batch
/// before.
pub(crate) struct Encoded {
    append: StreamAppend,
    /// Type, schema version and data of each event, in order.
    pub(crate) events: Vec<(&'static str, i16, String)>,
}

impl From<StreamAppend> for Encoded {
    fn from(append: StreamAppend) -> Self {
        let mut events = Vec::with_capacity(append.event_count());
        events.extend(append.commands.iter().flat_map(|command| &command.events).map(|new| encode(&new.event)));
        Self { append, events }
    }
}

impl Deref for Encoded {
    type Target = StreamAppend;

    fn deref(&self) -> &StreamAppend {
        &self.append
    }
}

/// An append, and who waits for its outcome.
pub(crate) struct Unit {
    pub(crate) append: Encoded,
    pub(crate) reply: oneshot::Sender<AppendResult>,
}

/// What goes into the database together. No two units of it are in each other's way: an append that is sent again while
/// the first one still waits goes with the next batch, and finds the first one there.
#[derive(Default)]
pub(crate) struct Batch {
    units: Vec<Unit>,
    events: usize,
    streams: HashSet<(OwnerId, TaskId)>,
    command_ids: HashSet<(OwnerId, CommandId)>,
}

impl Batch {
    /// Whether no more units are to be pushed.
    pub(crate) fn is_full(&self) -> bool {
        self.events >= BATCH_EVENTS_MAX
    }

    /// Takes the unit, or gives it back where it meets another one in here.
    pub(crate) fn push(&mut self, unit: Unit) -> Option<Unit> {
        let StreamAppend { owner_id, task_id, ref commands, .. } = *unit.append;
        let stream = unit.append.is_looked_at().then_some((owner_id, task_id));
        let ids = || commands.iter().filter(|command| command.fingerprint.is_some()).map(|command| command.command_id);
        let meets_another = stream.is_some_and(|stream| self.streams.contains(&stream))
            || ids().any(|command_id| self.command_ids.contains(&(owner_id, command_id)));
        if meets_another {
            return Some(unit);
        }
        self.streams.extend(stream);
        self.command_ids.extend(ids().map(|command_id| (owner_id, command_id)));
        self.events += unit.append.event_count();
        self.units.push(unit);
        None
    }

    /// All of it, with the number of events; empty afterwards.
    pub(crate) fn take(&mut self) -> (Vec<Encoded>, Vec<oneshot::Sender<AppendResult>>, usize) {
        self.streams.clear();
        self.command_ids.clear();
        let (appends, replies) = self.units.drain(..).map(|unit| (unit.append, unit.reply)).unzip();
        (appends, replies, std::mem::take(&mut self.events))
    }
}
