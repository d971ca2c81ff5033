use std::io::Write as _;

use axum::http::StatusCode;
use commands::Accepted;
use domain::TaskId;
use http_api::openapi::{count, reference, whole};
use http_api::problem::{Problem, ProblemCode};
use metrics::counter;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer;

/// The answer, and what is to be known of it.
pub(crate) struct Results {
    pub(crate) body: String,
    /// What it stands for: the last revision of those that succeeded, or a later one that was known before.
    pub(crate) revision: Option<i64>,
    /// The change that it made; where all was done before and by one, that one.
    pub(crate) change_id: Option<Uuid>,
    /// Whether a command was neither done nor refused (5xx, or an equal one under way).
    pub(crate) unfinished: bool,
}

/// Writes the answer, one result after the other.
pub(crate) struct Writer {
    body: Vec<u8>,
    succeeded: usize,
    failed: usize,
    revision: Option<i64>,
    /// What the request makes.
    own_change: Uuid,
    /// The changes of its results: its own, and one or two of others.
    changes: Vec<Uuid>,
    unfinished: bool,
}

impl Writer {
    pub(crate) fn new(results: usize, own_change: Uuid) -> Self {
        let mut body = Vec::with_capacity(128 * results + 64);
        body.extend_from_slice(br#"{"results":["#);
        Self { body, succeeded: 0, failed: 0, revision: None, own_change, changes: Vec::new(), unfinished: false }
    }

    pub(crate) fn succeeded(&mut self, accepted: &Accepted) {
        self.begin(answer::status(accepted.effect));
        self.body.push(b',');
        answer::members(&mut self.body, accepted.task_id, accepted.version, accepted.revision);
        if accepted.replayed {
            self.body.extend_from_slice(br#","replayed":true"#);
        }
        self.body.push(b'}');
        self.succeeded += 1;
        self.revision = self.revision.max(Some(accepted.revision));
        if let Some(change_id) = accepted.change_id
            && !self.changes.contains(&change_id)
            && (self.changes.len() < 2 || change_id == self.own_change)
        {
            self.changes.push(change_id);
        }
    }

    /// Of a task that is not named by what was asked for.
    pub(crate) fn failed_for(&mut self, task_id: TaskId, problem: &Problem) {
        self.begin(problem.status());
        let _ = write!(self.body, r#","id":"{task_id}""#);
        self.end_failed(problem);
    }

    pub(crate) fn failed(&mut self, problem: &Problem) {
        self.begin(problem.status());
        self.end_failed(problem);
    }

    fn end_failed(&mut self, problem: &Problem) {
        self.body.extend_from_slice(br#","problem":"#);
        // Strings and numbers, into a vector: neither fails.
        let _ = serde_json::to_writer(&mut self.body, problem);
        self.body.push(b'}');
        self.failed += 1;
        self.unfinished |= problem.status().is_server_error() || problem.code() == ProblemCode::RequestInFlight;
    }

    fn begin(&mut self, status: StatusCode) {
        let index = self.succeeded + self.failed;
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(self.body, r#"{comma}{{"index":{index},"status":{}"#, status.as_u16());
    }

    /// `known`: the position of the owner's last event, as far as it is known here; 0 for none.
    pub(crate) fn finish(mut self, known: i64) -> Results {
        let Self { succeeded, failed, unfinished, .. } = self;
        let revision = self.revision.max(Some(known).filter(|known| *known > 0));
        let change_id = match self.changes.as_slice() {
            changes if changes.contains(&self.own_change) => Some(self.own_change),
            [change_id] => Some(*change_id),
            _ => None,
        };
        let _ = write!(self.body, r#"],"succeeded":{succeeded},"failed":{failed},"change_id":"#);
        let _ = match change_id {
            Some(change_id) => write!(self.body, r#""{change_id}""#),
            None => write!(self.body, "null"),
        };
        let _ = write!(self.body, r#","revision":"#);
        let _ = match revision {
            Some(revision) => write!(self.body, "{revision}}}"),
            None => write!(self.body, "null}}"),
        };
        counter!("batch_commands_failed_total").increment(failed as u64);
        // Made of strings.
        let body = String::from_utf8(self.body).unwrap_or_default();
        Results { body, revision, change_id, unfinished }
    }
}

pub(crate) fn schema() -> Value {
    whole(json!({
        "results": {"type": "array", "items": reference("BatchResult")},
        "succeeded": count(),
        "failed": count(),
        "change_id": {"type": ["string", "null"], "format": "uuid", "description": "As the header `Change-Id`."},
        "revision": {"type": ["integer", "null"], "description": "What the `Consistency-Token` stands for: the last one among the results, or a later event of the account."},
    }))
}

/// Each with the status that the single request would have got.
pub(crate) fn result_schema() -> Value {
    json!({
        "oneOf": [
            {
                "title": "Succeeded",
                "type": "object",
                "required": ["index", "status", "id", "version", "revision"],
                "properties": {
                    "index": count(),
                    "status": {"type": "integer", "minimum": 200, "maximum": 299},
                    "id": {"type": "string", "format": "uuid"},
                    "version": count(),
                    "revision": count(),
                    "replayed": {"const": true, "description": "An earlier request had the effect."},
                },
            },
            {
                "title": "Failed",
                "type": "object",
                "required": ["index", "status", "problem"],
                "properties": {
                    "index": count(),
                    "status": {"type": "integer", "minimum": 400, "maximum": 599},
                    "id": {"type": "string", "format": "uuid", "description": "The task, where the request does not name it."},
                    "problem": reference("Problem"),
                },
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use commands::identity::IdentityFrom;
    use commands::{Effect, ExecuteError};

    use super::*;
    use crate::refusal;

    #[test]
    fn the_answer_is_as_the_contract_has_it() {
        let mut writer = Writer::new(3, Uuid::nil());
        let task_id = TaskId(Uuid::nil());
        let (own, earlier) = (Some(Uuid::nil()), Some(Uuid::max()));
        let accepted = Accepted {
            effect: Effect::Created,
            task_id,
            version: 1,
            revision: 7,
            replayed: false,
            change_id: own,
            events: 1,
        };
        writer.succeeded(&accepted);
        writer.failed(&Problem::field("/title", "is \"missing\""));
        writer.succeeded(&Accepted {
            effect: Effect::Changed,
            revision: 5,
            replayed: true,
            change_id: earlier,
            ..accepted
        });
        let results = writer.finish(6);
        assert!(!results.unfinished);
        assert_eq!((results.revision, results.change_id), (Some(7), own));
        let body: Value = serde_json::from_str(&results.body).unwrap();
        assert_eq!(
            body["results"][0],
            json!({"index": 0, "status": 201, "id": Uuid::nil(), "version": 1, "revision": 7})
        );
        assert_eq!(body["results"][1]["index"], 1);
        assert_eq!(body["results"][1]["status"], 422);
        assert_eq!(body["results"][1]["problem"]["code"], "invalid-fields");
        assert_eq!(body["results"][1]["problem"]["errors"][0]["pointer"], "/title");
        assert_eq!(
            body["results"][2],
            json!({"index": 2, "status": 200, "id": Uuid::nil(), "version": 1, "revision": 5, "replayed": true})
        );
        assert_eq!((&body["succeeded"], &body["failed"], &body["revision"]), (&json!(2), &json!(1), &json!(7)));
        assert_eq!(body["change_id"], json!(Uuid::nil()));
    }

    #[test]
    fn an_answer_stands_for_its_results_and_for_what_was_known_before() {
        let revision = |succeeded: bool, known: i64| {
            let mut writer = Writer::new(1, Uuid::nil());
            if succeeded {
                writer.succeeded(&Accepted {
                    effect: Effect::Changed,
                    task_id: TaskId(Uuid::nil()),
                    version: 1,
                    revision: 7,
                    replayed: false,
                    change_id: None,
                    events: 0,
                });
            }
            let results = writer.finish(known);
            let body: Value = serde_json::from_str(&results.body).unwrap();
            assert_eq!(body["revision"], json!(results.revision));
            results.revision
        };
        assert_eq!([revision(true, 0), revision(true, 5), revision(true, 9)], [Some(7), Some(7), Some(9)]);
        assert_eq!([revision(false, 0), revision(false, 9)], [None, Some(9)]);
    }

    #[test]
    fn a_batch_that_repeats_one_change_names_it() {
        let change = |ids: &[u128]| {
            let mut writer = Writer::new(ids.len(), Uuid::from_u128(1));
            for id in ids {
                writer.succeeded(&Accepted {
                    effect: Effect::Changed,
                    task_id: TaskId(Uuid::nil()),
                    version: 1,
                    revision: 1,
                    replayed: true,
                    change_id: (*id > 0).then(|| Uuid::from_u128(*id)),
                    events: 0,
                });
            }
            writer.finish(0).change_id.map(|id| id.as_u128())
        };
        assert_eq!(change(&[]), None);
        assert_eq!(change(&[0, 0]), None, "no event");
        assert_eq!(change(&[2, 0, 2]), Some(2));
        assert_eq!(change(&[2, 3, 4]), None, "of several changes none is the batch's");
        assert_eq!(change(&[2, 3, 1]), Some(1));
    }

    #[test]
    fn an_answer_that_is_not_final_is_known_as_such() {
        for (error, unfinished) in [
            (ExecuteError::NotFound, false),
            (ExecuteError::IdentityReused, false),
            (ExecuteError::InFlight, true),
            (ExecuteError::Unavailable, true),
            (ExecuteError::Overloaded, true),
            (ExecuteError::DiskFull, true),
        ] {
            let mut writer = Writer::new(1, Uuid::nil());
            writer.failed(&refusal::problem(error.clone(), IdentityFrom::CommandId));
            let results = writer.finish(0);
            assert_eq!(results.unfinished, unfinished, "{error:?}");
            assert!(
                results.body.ends_with(r#""succeeded":0,"failed":1,"change_id":null,"revision":null}"#),
                "{}",
                results.body
            );
        }
    }
}
