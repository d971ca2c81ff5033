use domain::{CommandId, Time};
use uuid::Uuid;

use crate::append::{CommandOrigin, NewEvent, StreamAppend};
use crate::batch::Encoded;
use crate::trace_columns::{stored_correlation_id, stored_traceparent};

/// A batch as flat arrays, one for each column. No prefix: events; `u_`: units; `l_`: those whose streams are looked at before
/// the fast append; `c_`: outcomes to remember.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    pub(crate) unit: Vec<i32>,
    pub(crate) owner_id: Vec<Uuid>,
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) version: Vec<i64>,
    pub(crate) event_id: Vec<Uuid>,
    pub(crate) event_type: Vec<&'static str>,
    pub(crate) schema_version: Vec<i16>,
    pub(crate) occurred_at: Vec<Time>,
    pub(crate) actor_type: Vec<&'static str>,
    pub(crate) actor_id: Vec<Option<Uuid>>,
    pub(crate) command_id: Vec<Uuid>,
    pub(crate) correlation_id: Vec<&'a str>,
    pub(crate) traceparent: Vec<&'a str>,
    pub(crate) data: Vec<&'a str>,
    pub(crate) change_id: Vec<Uuid>,
    pub(crate) undoes: Vec<Option<Uuid>>,

    pub(crate) u_owner_id: Vec<Uuid>,
    pub(crate) u_task_id: Vec<Uuid>,
    pub(crate) u_expected: Vec<i64>,
    pub(crate) u_first_event: Vec<Option<Uuid>>,

    pub(crate) l_owner_id: Vec<Uuid>,
    pub(crate) l_task_id: Vec<Uuid>,
    pub(crate) l_expected: Vec<i64>,

    pub(crate) c_unit: Vec<i32>,
    pub(crate) c_owner_id: Vec<Uuid>,
    pub(crate) c_command_id: Vec<Uuid>,
    pub(crate) c_task_id: Vec<Uuid>,
    pub(crate) c_version: Vec<i64>,
    /// Number of the command's last event in this batch, from 1; 0 where the stream has none in it yet.
    pub(crate) c_event: Vec<i64>,
    /// Revision of the task where `c_event` is 0.
    pub(crate) c_revision: Vec<i64>,
    pub(crate) c_fingerprint: Vec<Uuid>,
    pub(crate) c_status: Vec<i16>,
    pub(crate) c_change_id: Vec<Option<Uuid>>,
}

/// Columns of one type as one array, one column after the other, of which a statement takes slices: so it has some 20
/// parameters and not 30, each of which costs Postgres a look at its type.
pub(crate) struct Packed<'a> {
    /// How many events there are, the length of each of their columns.
    pub(crate) events: i32,
    /// How many outcomes there are.
    pub(crate) outcomes: i32,
    /// Owner, task, event, command, change.
    pub(crate) event_ids: Vec<Uuid>,
    /// Actor, undone change.
    pub(crate) optional_event_ids: Vec<Option<Uuid>>,
    /// Type, actor type, correlation id, traceparent.
    pub(crate) event_texts: Vec<&'a str>,
    /// Owner, command, task, fingerprint.
    pub(crate) outcome_ids: Vec<Uuid>,
    /// Version, event, revision.
    pub(crate) outcome_numbers: Vec<i64>,
}

impl<'a> Packed<'a> {
    pub(crate) fn of(columns: &'a Columns<'_>) -> Self {
        let event_ids: [&[Uuid]; 5] =
            [&columns.owner_id, &columns.task_id, &columns.event_id, &columns.command_id, &columns.change_id];
        let optional_event_ids: [&[Option<Uuid>]; 2] = [&columns.actor_id, &columns.undoes];
        let event_texts: [&[&str]; 4] =
            [&columns.event_type, &columns.actor_type, &columns.correlation_id, &columns.traceparent];
        let outcome_ids: [&[Uuid]; 4] =
            [&columns.c_owner_id, &columns.c_command_id, &columns.c_task_id, &columns.c_fingerprint];
        let outcome_numbers: [&[i64]; 3] = [&columns.c_version, &columns.c_event, &columns.c_revision];
        Self {
            events: columns.event_id.len() as i32,
            outcomes: columns.c_command_id.len() as i32,
            event_ids: event_ids.concat(),
            optional_event_ids: optional_event_ids.concat(),
            event_texts: event_texts.concat(),
            outcome_ids: outcome_ids.concat(),
            outcome_numbers: outcome_numbers.concat(),
        }
    }
}

impl<'a> Columns<'a> {
    pub(crate) fn of(units: &'a [Encoded]) -> Self {
        let mut columns = Self::default();
        for (unit, number) in units.iter().zip(1..) {
            columns.push_unit(unit, number);
        }
        columns
    }

    fn push_unit(&mut self, unit: &'a Encoded, number: i32) {
        self.u_owner_id.push(unit.owner_id.0);
        self.u_task_id.push(unit.task_id.0);
        self.u_expected.push(unit.expected_version);
        self.u_first_event.push(unit.first_event());
        if unit.is_looked_at() {
            self.l_owner_id.push(unit.owner_id.0);
            self.l_task_id.push(unit.task_id.0);
            self.l_expected.push(unit.expected_version);
        }
        let mut version = unit.expected_version;
        let mut encoded = unit.events.iter();
        for command in &unit.commands {
            for (event, encoded) in command.events.iter().zip(encoded.by_ref()) {
                version += 1;
                self.push_event(unit, number, command.command_id, version, event, encoded);
            }
            if let Some(fingerprint) = command.fingerprint {
                self.c_unit.push(number);
                self.c_owner_id.push(unit.owner_id.0);
                self.c_command_id.push(command.command_id.0);
                self.c_task_id.push(unit.task_id.0);
                self.c_version.push(version);
                let has_event = version > unit.expected_version;
                self.c_event.push(if has_event { self.event_id.len() as i64 } else { 0 });
                self.c_revision.push(unit.expected_revision);
                self.c_fingerprint.push(fingerprint);
                self.c_status.push(command.effect.stored());
                self.c_change_id.push(command.change_id);
            }
        }
    }

    fn push_event(
        &mut self,
        unit: &'a StreamAppend,
        number: i32,
        command_id: CommandId,
        version: i64,
        event: &NewEvent,
        (event_type, schema_version, data): &'a (&'static str, i16, String),
    ) {
        self.unit.push(number);
        self.owner_id.push(unit.owner_id.0);
        self.task_id.push(unit.task_id.0);
        self.version.push(version);
        self.event_id.push(event.event_id);
        self.event_type.push(*event_type);
        self.schema_version.push(*schema_version);
        self.occurred_at.push(event.occurred_at);
        self.actor_type.push(unit.origin.actor.actor_type.as_str());
        self.actor_id.push(unit.origin.actor.id);
        self.command_id.push(command_id.0);
        let CommandOrigin { correlation_id, traceparent, change_id, undoes, .. } = &unit.origin;
        self.correlation_id.push(stored_correlation_id(correlation_id, Some(*change_id)));
        self.traceparent.push(stored_traceparent(traceparent, correlation_id));
        self.data.push(data);
        self.change_id.push(*change_id);
        self.undoes.push(*undoes);
    }
}
