use domain::{InvalidFields, Status, TaskCommand, Time, parse_time};

use crate::fields;
use crate::json::Json;

/// The fields of a stage's reversion, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    from: Option<Status>,
    to: Option<Status>,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    /// Whether `from` and `to` were given, though perhaps wrong.
    given: (bool, bool),
}

impl Draft {
    /// Takes a field. False: it is none of these.
    pub(crate) fn take(&mut self, invalid: &mut InvalidFields, name: &str, json: &Json<'_>) -> bool {
        match (name, json) {
            ("from", json) => {
                self.given.0 = true;
                self.from = fields::value(invalid, "/from", json, Status::parse);
            }
            ("to", json) => {
                self.given.1 = true;
                self.to = fields::value(invalid, "/to", json, Status::parse);
            }
            ("started_at" | "completed_at", Json::Null) => {}
            ("started_at", json) => self.started_at = fields::value(invalid, "/started_at", json, parse_time),
            ("completed_at", json) => self.completed_at = fields::value(invalid, "/completed_at", json, parse_time),
            (_, _) => return false,
        }
        true
    }

    /// The command, if both stages are there. Whether anything else was wrong is in `invalid`.
    pub(crate) fn finish(self, invalid: &mut InvalidFields) -> Option<TaskCommand> {
        let Self { from, to, started_at, completed_at, given } = self;
        if !given.0 {
            invalid.missing("/from");
        }
        if !given.1 {
            invalid.missing("/to");
        }
        let (from, to) = (from?, to?);
        let (starts, completes) = match to {
            Status::Pending => (Some(false), false),
            Status::InProgress => (Some(true), false),
            Status::Completed => (None, true),
            Status::Cancelled => (None, false),
        };
        if starts.is_some_and(|starts| starts != started_at.is_some()) {
            invalid.breaks_rule("/started_at", "must be there where to is in_progress, and null where it is pending");
        }
        if completes != completed_at.is_some() {
            invalid.breaks_rule("/completed_at", "must be there exactly where to is completed");
        }
        Some(TaskCommand::RevertStage { from, to, started_at, completed_at })
    }
}
