//! `/api/v1/admin/parked`: events that could not be applied, and trying one of them again.

use access::admin_acts;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::format_time;
use http_api::account::Admin;
use http_api::answer;
use http_api::body::EmptyBody;
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, reference, time, whole};
use http_api::page::{PageOf, PageQuery};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{NoQuery, PathId, StrictQuery};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{AdminApi, described_as, unavailable};
use crate::parking;

/// An event that could not be applied, or a message that nobody can read.
#[derive(Serialize)]
struct ParkedEvent {
    id: Uuid,
    task_id: Option<Uuid>,
    owner_id: Option<Uuid>,
    version: Option<i64>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    reason: String,
    parked_at: String,
    /// Events of the same task that wait behind it.
    waiting: i64,
    /// Of an event: its position in the log.
    shard: Option<i16>,
    position: Option<i64>,
    /// Of a message: its offset in the topic.
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// A retry was asked for and has not been made yet.
    retrying: bool,
}

pub(super) fn parked_described() -> Operation {
    let event = json!({
        "id": EXAMPLE_ID, "task_id": EXAMPLE_ID, "owner_id": EXAMPLE_ID, "version": 2, "type": "TaskRenamed",
        "reason": "there is no version 1 before it", "parked_at": EXAMPLE_TIME, "waiting": 1, "shard": 0, "position": 17,
        "topic": null, "partition": null, "offset": null, "retrying": false,
    });
    described_as("listParked", "List events that could not be applied")
        .says("In the order of the log, then messages of Kafka that nobody can read.")
        .pages()
        .json(
            200,
            "A page of them.",
            &["Link"],
            &reference("ParkedPage"),
            &json!({"items": [event], "next_cursor": null}),
        )
        // that they were read is written down
        .refuses(&[ProblemCode::DiskFull])
}

pub(super) fn parked_schema() -> Value {
    let id = || json!({"type": ["string", "null"], "format": "uuid"});
    let number = || json!({"type": ["integer", "null"]});
    let text = || json!({"type": ["string", "null"]});
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "task_id": id(),
        "owner_id": id(),
        "version": number(),
        "type": text(),
        "reason": {"type": "string"},
        "parked_at": time(),
        "waiting": {"type": "integer", "minimum": 0, "description": "Events of the same task behind it."},
        "shard": number(),
        "position": number(),
        "topic": text(),
        "partition": number(),
        "offset": number(),
        "retrying": {"type": "boolean", "description": "A retry was asked for and has not been made yet."},
    }))
}

/// Names this list in its cursors.
const PARKED_CURSOR: &[u8] = b"admin/parked";

pub(super) async fn parked(
    Admin(principal): Admin,
    State(api): State<AdminApi>,
    OriginalUri(uri): OriginalUri,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (sealer, reader) = (&api.sealer, principal.owner);
    let page = PageOf { sealer, reader, binding: PARKED_CURSOR, uri: &uri, limit: query.limit };
    // Events in the order of the log, then messages.
    let behind = page.begins_behind(query.cursor.as_deref(), |key| {
        let (group, rest) = key.split_first_chunk::<4>()?;
        let (number, id) = rest.split_first_chunk::<8>()?;
        Some((i32::from_be_bytes(*group), i64::from_be_bytes(*number), Uuid::from_slice(id).ok()?))
    })?;
    let mut connection = api.pool.acquire().await.map_err(unavailable)?;
    admin_acts::record(&mut connection, &principal, admin_acts::PARKED_READ, None).await.map_err(unavailable)?;
    let rows = parking::list(&mut connection, behind, page.rows_max()).await.map_err(unavailable)?;
    Ok(page.answer(
        rows,
        |last| {
            let (group, number, id) = last.list_position();
            [&group.to_be_bytes()[..], &number.to_be_bytes()[..], &id.as_bytes()[..]].concat()
        },
        |row| ParkedEvent {
            id: row.id,
            task_id: row.task_id,
            owner_id: row.owner_id,
            version: row.version,
            event_type: row.event_type,
            reason: row.reason,
            parked_at: format_time(row.parked_at),
            waiting: row.waiting,
            shard: row.shard,
            position: row.position,
            topic: row.topic,
            partition: row.partition,
            offset: row.message_offset,
            retrying: row.retrying,
        },
    ))
}

#[derive(Serialize)]
struct Retry {
    id: Uuid,
    retry_at: String,
}

pub(super) async fn retry(
    Admin(principal): Admin,
    State(api): State<AdminApi>,
    PathId(id): PathId,
    _: NoQuery,
    EmptyBody(_): EmptyBody,
) -> Result<Response, Problem> {
    let mut transaction = api.pool.begin().await.map_err(unavailable)?;
    let retry_at = parking::ask_for_retry(&mut transaction, id).await.map_err(unavailable)?;
    let retry_at = retry_at.ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    let detail = id.to_string();
    let recorded = admin_acts::record(&mut transaction, &principal, admin_acts::PARKED_RETRIED, Some(&detail)).await;
    recorded.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(answer::json(StatusCode::ACCEPTED, &Retry { id, retry_at: format_time(retry_at) }))
}

pub(super) fn retry_described() -> Operation {
    described_as("retryParked", "Retry a parked event")
        .path_id("The `id` of the list.")
        .empty_body()
        .json(202, "It will be tried.", &[], &reference("Retry"), &json!({"id": EXAMPLE_ID, "retry_at": EXAMPLE_TIME}))
        .refuses(&[ProblemCode::NotFound, ProblemCode::DiskFull])
}

pub(super) fn retry_schema() -> Value {
    whole(json!({"id": {"type": "string", "format": "uuid"}, "retry_at": time()}))
}
