//! The answer to a write that was accepted: `{id, version, revision}`, `ETag`, `Consistency-Token`.

use std::io::Write as _;

use access::token::Sealer;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use commands::{Accepted, Effect};
use domain::{OwnerId, TaskId};
use http_api::headers::{CHANGE_ID, CONSISTENCY_TOKEN, IDEMPOTENT_REPLAYED, version_etag};
use http_api::openapi::{EXAMPLE_ID, whole};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::token::later;

/// `application/json`
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Makes the answers to one owner.
pub(crate) struct Answer<'a> {
    pub(crate) sealer: &'a Sealer,
    pub(crate) log_id: Uuid,
    pub(crate) owner: OwnerId,
    pub(crate) shard: i16,
    /// What the token stands for that was sent along: no answer stands for less.
    pub(crate) sent: i64,
    /// The position of the owner's last event as far as it is known here. Under a key 0: the same request again has the same
    /// answer, whatever is known by then.
    pub(crate) known: i64,
}

impl Answer<'_> {
    /// To a `POST` that makes a task: with `Location`.
    pub(crate) fn created(&self, accepted: &Accepted) -> Response {
        let mut response = self.changed(accepted);
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1/tasks/{}", accepted.task_id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    /// To a change.
    pub(crate) fn changed(&self, accepted: &Accepted) -> Response {
        let mut body = Vec::with_capacity(112);
        body.push(b'{');
        members(&mut body, accepted.task_id, accepted.version, accepted.revision);
        body.push(b'}');
        let mut response = self.deleted(accepted);
        *response.body_mut() = Body::from(body);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    }

    /// To a `DELETE`: headers only.
    pub(crate) fn deleted(&self, accepted: &Accepted) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(accepted.effect);
        let headers = response.headers_mut();
        headers.reserve(12);
        set_change(headers, accepted.change_id);
        headers.insert(ETAG, version_etag(accepted.version));
        self.set_token(headers, accepted.revision);
        if accepted.replayed {
            headers.insert(IDEMPOTENT_REPLAYED, TRUE);
        }
        response
    }

    /// To a batch: its results, and the token of the revision that they stand for.
    pub(crate) fn batch(
        &self,
        results: String,
        revision: Option<i64>,
        change_id: Option<Uuid>,
        replayed: bool,
    ) -> Response {
        let mut response = Response::new(Body::from(results));
        let headers = response.headers_mut();
        set_change(headers, change_id);
        headers.insert(CONTENT_TYPE, JSON);
        self.set_token(headers, revision.unwrap_or(0));
        if replayed {
            headers.insert(IDEMPOTENT_REPLAYED, TRUE);
        }
        response
    }

    /// The token with which a client reads what it has written, and what it had seen before; none where it is nothing.
    fn set_token(&self, headers: &mut HeaderMap, revision: i64) {
        let position = later(self.sent, Some(revision.max(self.known)));
        if position == 0 {
            return;
        }
        let token = self.sealer.consistency_token(self.log_id, self.owner, self.shard, position);
        if let Ok(token) = HeaderValue::try_from(token) {
            headers.insert(CONSISTENCY_TOKEN, token);
        }
    }
}

/// The change that was made; none where nothing happened.
fn set_change(headers: &mut HeaderMap, change_id: Option<Uuid>) {
    if let Some(change_id) = change_id
        && let Ok(value) = HeaderValue::try_from(change_id.to_string())
    {
        headers.insert(CHANGE_ID, value);
    }
}

/// The status that a single request gets.
pub(crate) fn status(effect: Effect) -> StatusCode {
    match effect {
        Effect::Created => StatusCode::CREATED,
        Effect::Changed => StatusCode::OK,
        Effect::Deleted => StatusCode::NO_CONTENT,
    }
}

/// `"id":…,"version":…,"revision":…`, without a detour: nothing in it needs an escape.
pub(crate) fn members(body: &mut Vec<u8>, task_id: TaskId, version: i64, revision: i64) {
    // Writing to a vector does not fail.
    let _ = write!(body, r#""id":"{task_id}","version":{version},"revision":{revision}"#);
}

/// What answers to writes have.
pub(crate) const HEADERS: [&str; 4] = ["ETag", "Consistency-Token", "Change-Id", "Idempotent-Replayed"];

pub(crate) fn schema() -> Value {
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "version": {"type": "integer", "minimum": 1, "description": "The task's, after it; as `ETag`."},
        "revision": {"type": "integer", "minimum": 1, "description": "The position of the task's last event after it."},
    }))
}

pub(crate) fn example() -> Value {
    json!({"id": EXAMPLE_ID, "version": 1, "revision": 1})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_json() {
        let mut body = vec![b'{'];
        members(&mut body, TaskId(Uuid::nil()), 3, -1);
        body.push(b'}');
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({"id": Uuid::nil(), "version": 3, "revision": -1})
        );
    }
}
