use domain::{CommandId, Time, encode};
use uuid::Uuid;

use crate::append::{NewEvent, StreamAppend};

/// A batch as flat arrays, one for each column. No prefix: events; `u_`: units; `c_`: outcomes to remember.
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
    pub(crate) data: Vec<String>,
    pub(crate) change_id: Vec<Uuid>,
    pub(crate) undoes: Vec<Option<Uuid>>,

    pub(crate) u_owner_id: Vec<Uuid>,
    pub(crate) u_task_id: Vec<Uuid>,
    pub(crate) u_expected: Vec<i64>,
    pub(crate) u_first_event: Vec<Option<Uuid>>,

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

impl<'a> Columns<'a> {
    pub(crate) fn of(units: &'a [StreamAppend]) -> Self {
        let mut columns = Self::default();
        for (unit, number) in units.iter().zip(1..) {
            columns.push_unit(unit, number);
        }
        columns
    }

    fn push_unit(&mut self, unit: &'a StreamAppend, number: i32) {
        self.u_owner_id.push(unit.owner_id.0);
        self.u_task_id.push(unit.task_id.0);
        self.u_expected.push(unit.expected_version);
        self.u_first_event.push(unit.first_event());
        let mut version = unit.expected_version;
        for command in &unit.commands {
            for event in &command.events {
                version += 1;
                self.push_event(unit, number, command.command_id, version, event);
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
    ) {
        let (event_type, schema_version, data) = encode(&event.event);
        self.unit.push(number);
        self.owner_id.push(unit.owner_id.0);
        self.task_id.push(unit.task_id.0);
        self.version.push(version);
        self.event_id.push(event.event_id);
        self.event_type.push(event_type);
        self.schema_version.push(schema_version);
        self.occurred_at.push(event.occurred_at);
        self.actor_type.push(unit.origin.actor.actor_type.as_str());
        self.actor_id.push(unit.origin.actor.id);
        self.command_id.push(command_id.0);
        self.correlation_id.push(&unit.origin.correlation_id);
        self.traceparent.push(&unit.origin.traceparent);
        self.data.push(data);
        self.change_id.push(unit.origin.change_id);
        self.undoes.push(unit.origin.undoes);
    }
}
