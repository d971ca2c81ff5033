use std::io::Write as _;

use axum::http::StatusCode;
use commands::Accepted;
use http_api::openapi::{count, reference, whole};
use http_api::problem::{Problem, ProblemCode};
use metrics::counter;
use serde_json::{Value, json};

use crate::answer;

/// The answer, and what is to be known of it.
pub(crate) struct Results {
    pub(crate) body: String,
    /// The last revision of those that succeeded.
    pub(crate) revision: Option<i64>,
    /// Whether a command was neither done nor refused (5xx, or an equal one under way).
    pub(crate) unfinished: bool,
}

/// Writes the answer, one result after the other.
pub(crate) struct Writer {
    body: Vec<u8>,
    succeeded: usize,
    failed: usize,
    revision: Option<i64>,
    unfinished: bool,
}

impl Writer {
    pub(crate) fn with_capacity(results: usize) -> Self {
        let mut body = Vec::with_capacity(128 * results + 64);
        body.extend_from_slice(br#"{"results":["#);
        Self { body, succeeded: 0, failed: 0, revision: None, unfinished: false }
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
    }

    pub(crate) fn failed(&mut self, problem: &Problem) {
        self.begin(problem.status());
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

    pub(crate) fn finish(mut self) -> Results {
        let Self { succeeded, failed, revision, unfinished, .. } = self;
        let _ = write!(self.body, r#"],"succeeded":{succeeded},"failed":{failed},"revision":"#);
        let _ = match revision {
            Some(revision) => write!(self.body, "{revision}}}"),
            None => write!(self.body, "null}}"),
        };
        counter!("batch_commands_failed_total").increment(failed as u64);
        // Made of strings.
        let body = String::from_utf8(self.body).unwrap_or_default();
        Results { body, revision, unfinished }
    }
}

pub(crate) fn schema() -> Value {
    whole(json!({
        "results": {"type": "array", "items": reference("BatchResult")},
        "succeeded": count(),
        "failed": count(),
        "revision": {"type": ["integer", "null"], "description": "The last one among the results."},
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
    use domain::TaskId;
    use uuid::Uuid;

    use super::*;
    use crate::refusal;

    #[test]
    fn the_answer_is_as_the_contract_has_it() {
        let mut writer = Writer::with_capacity(3);
        let task_id = TaskId(Uuid::nil());
        let accepted =
            Accepted { effect: Effect::Created, task_id, version: 1, revision: 7, replayed: false, events: 1 };
        writer.succeeded(&accepted);
        writer.failed(&Problem::field("/title", "is \"missing\""));
        writer.succeeded(&Accepted { effect: Effect::Changed, revision: 5, replayed: true, ..accepted });
        let results = writer.finish();
        assert!(!results.unfinished);
        assert_eq!(results.revision, Some(7));
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
            let mut writer = Writer::with_capacity(1);
            writer.failed(&refusal::problem(error.clone(), IdentityFrom::CommandId));
            let results = writer.finish();
            assert_eq!(results.unfinished, unfinished, "{error:?}");
            assert!(results.body.ends_with(r#""succeeded":0,"failed":1,"revision":null}"#), "{}", results.body);
        }
    }
}
