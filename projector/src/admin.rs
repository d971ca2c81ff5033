//! `/api/v1/admin/projections` and `/api/v1/admin/parked`: what an administrator sees of the projection and may do.

use std::time::Duration;

use access::admin_acts;
use access::token::Sealer;
use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use backends::database::Pool;
use domain::{Time, format_time};
use event_store::TailReader;
use http_api::account::Admin;
use http_api::answer;
use http_api::body::EmptyBody;
use http_api::openapi::{
    Described, EXAMPLE_ID, EXAMPLE_TIME, Operation, Routes, Tag, count, page_of, reference, time, whole,
};
use http_api::page::{Limit, PageOf};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{NoQuery, PathId, StrictQuery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lag;
use crate::rebuild::LOCK;

/// What the handlers need.
#[derive(Clone)]
pub struct AdminApi {
    pool: Pool,
    tail: TailReader,
    sealer: Sealer,
}

impl AdminApi {
    /// With the read models, the log, and what seals cursors.
    #[must_use]
    pub fn new(read_pool: Pool, tail: TailReader, sealer: Sealer) -> Self {
        Self { pool: read_pool, tail, sealer }
    }
}

/// How long a request waits for the database, in milliseconds.
const ANSWER_MS_MAX: u64 = 20_000;

/// The routes.
pub fn router(api: AdminApi) -> Router {
    routes().router.route_layer(from_fn(answered)).with_state(api)
}

/// No request here has a body that could be slow: what takes so long is the database.
async fn answered(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::new(ProblemCode::Unavailable).retry_after_s(1).into_response())
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<AdminApi> {
    Routes::new()
        .get("/api/v1/admin/projections", projections, projections_described)
        .get("/api/v1/admin/parked", parked, parked_described)
        .post("/api/v1/admin/parked/{id}/retry", retry, retry_described)
        .schema("Projections", projections_schema)
        .schema("Projection", projection_schema)
        .schema("Rebuild", rebuild_schema)
        .schema("ParkedEvent", parked_schema)
        .schema("ParkedPage", || page_of("ParkedEvent"))
        .schema("Retry", retry_schema)
}

fn described_as(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Administration, id, summary).admin()
}

#[derive(Serialize)]
struct Projections {
    items: Vec<Projection>,
    /// Where the live generation is fed from Kafka.
    partitions: Vec<Partition>,
    /// Messages of Kafka that nobody can read; see the list of what is parked.
    unreadable_messages: i64,
}

/// How far a partition is read.
#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    /// `null`: nothing is read yet.
    next_offset: Option<i64>,
    publication: i64,
    /// Why nothing is read of it, and what mends it.
    trouble: Option<String>,
}

/// One shard of the live generation.
#[derive(Serialize)]
struct Projection {
    name: &'static str,
    shard: i16,
    generation: i32,
    /// `live`; `rebuilding` while a new generation is made beside it.
    state: &'static str,
    /// `store` or `kafka`.
    feed: String,
    /// Every event up to it is applied. (From Kafka later ones may be, too.)
    position: i64,
    lag_events: i64,
    lag_seconds: f64,
    parked_events: i64,
    rebuild: Option<Rebuild>,
}

/// A generation that is being made.
#[derive(Clone, Serialize)]
struct Rebuild {
    generation: i32,
    /// `false`: it was stopped, and goes on when `rebuild` is run again.
    running: bool,
    phase: String,
    events_done: i64,
    events_total: i64,
    events_per_second: i64,
    /// Of the filling.
    seconds_left: Option<i64>,
    started_at: String,
}

fn projections_described() -> Operation {
    let shard = json!({
        "name": "tasks", "shard": 0, "generation": 1, "state": "live", "feed": "kafka", "position": 5445,
        "lag_events": 0, "lag_seconds": 0.0, "parked_events": 0, "rebuild": null,
    });
    let partition =
        json!({"topic": "task-events", "partition": 0, "next_offset": 5445, "publication": 1, "trouble": null});
    let all = json!({"items": [shard], "partitions": [partition], "unreadable_messages": 0});
    described_as("showProjections", "How far the read models are, and their rebuild").json(
        200,
        "Each shard of the live generation.",
        &[],
        &reference("Projections"),
        &all,
    )
}

fn projections_schema() -> Value {
    let partition = whole(json!({
        "topic": {"type": "string"},
        "partition": count(),
        "next_offset": {"type": ["integer", "null"], "description": "`null`: nothing is read yet."},
        "publication": count(),
        "trouble": {"type": ["string", "null"], "description": "Why nothing is read of it, and what mends it."},
    }));
    whole(json!({
        "items": {"type": "array", "items": reference("Projection")},
        "partitions": {"type": "array", "items": partition, "description": "Where it is fed from Kafka."},
        "unreadable_messages": count(),
    }))
}

fn projection_schema() -> Value {
    whole(json!({
        "name": {"type": "string"},
        "shard": count(),
        "generation": count(),
        "state": {"type": "string", "enum": ["live", "rebuilding"]},
        "feed": {"type": "string", "enum": ["store", "kafka"]},
        "position": {"type": "integer", "description": "Every event up to it is applied."},
        "lag_events": count(),
        "lag_seconds": {"type": "number", "minimum": 0},
        "parked_events": count(),
        "rebuild": {"oneOf": [reference("Rebuild"), {"type": "null"}]},
    }))
}

fn rebuild_schema() -> Value {
    whole(json!({
        "generation": count(),
        "running": {"type": "boolean", "description": "`false`: it was stopped, and goes on when it is run again."},
        "phase": {"type": "string"},
        "events_done": count(),
        "events_total": count(),
        "events_per_second": count(),
        "seconds_left": {"type": ["integer", "null"]},
        "started_at": time(),
    }))
}

async fn projections(_: Admin, State(api): State<AdminApi>, _: NoQuery) -> Result<Response, Problem> {
    let shards = lag::look(&api.pool, &api.tail).await.map_err(unavailable)?;
    let rebuild = sqlx::query!(
        r#"
        select generation, phase, events_done, events_total, events_per_second, started_at as "started_at: Time",
            exists (
                select from pg_locks
                where locktype = 'advisory' and granted and classid = $1::int::oid and objid = $2::int::oid
                    and database = (select oid from pg_database where datname = current_database())
            ) as "running!"
        from read_model.generation where state = 'building' order by generation desc limit 1
        "#,
        LOCK.0,
        LOCK.1,
    )
    .fetch_optional(&api.pool)
    .await
    .map_err(unavailable)?
    .map(|row| Rebuild {
        generation: row.generation,
        running: row.running,
        phase: row.phase,
        events_done: row.events_done,
        events_total: row.events_total,
        events_per_second: row.events_per_second,
        seconds_left: (row.events_per_second > 0)
            .then(|| (row.events_total - row.events_done).max(0) / row.events_per_second.max(1)),
        started_at: format_time(row.started_at),
    });
    let parked = sqlx::query!(
        r#"
        select k.shard, count(*) as "count!"
        from read_model.parked as k join read_model.projection as p on k.generation = p.live_generation
        group by k.shard
        "#,
    )
    .fetch_all(&api.pool)
    .await
    .map_err(unavailable)?;
    let feed = sqlx::query_scalar!("select feed from read_model.projection")
        .fetch_one(&api.pool)
        .await
        .map_err(unavailable)?;
    let partitions = sqlx::query_as!(
        Partition,
        r#"
        select topic, partition, next_offset, publication, trouble
        from read_model.kafka_partition
        where exists (select from read_model.projection where feed = 'kafka')
        order by topic, partition
        "#,
    )
    .fetch_all(&api.pool)
    .await
    .map_err(unavailable)?;
    let unreadable_messages = parked.iter().find(|row| row.shard.is_none()).map_or(0, |row| row.count);
    let items = shards
        .into_iter()
        .map(|at| Projection {
            name: "tasks",
            shard: at.shard,
            generation: at.generation,
            feed: feed.clone(),
            state: if rebuild.as_ref().is_some_and(|rebuild| rebuild.running) { "rebuilding" } else { "live" },
            position: at.position,
            lag_events: at.lag.events,
            lag_seconds: at.lag.seconds,
            parked_events: parked.iter().find(|row| row.shard == Some(at.shard)).map_or(0, |row| row.count),
            rebuild: rebuild.clone(),
        })
        .collect();
    Ok(answer::json(StatusCode::OK, &Projections { items, partitions, unreadable_messages }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

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
    /// Of an event: its place in the log.
    shard: Option<i16>,
    position: Option<i64>,
    /// Of a message: its place in the topic.
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// A retry was asked for and has not been made yet.
    retrying: bool,
}

fn parked_described() -> Operation {
    let event = json!({
        "id": EXAMPLE_ID, "task_id": EXAMPLE_ID, "owner_id": EXAMPLE_ID, "version": 2, "type": "TaskRenamed",
        "reason": "there is no version 1 before it", "parked_at": EXAMPLE_TIME, "waiting": 1, "shard": 0, "position": 17,
        "topic": null, "partition": null, "offset": null, "retrying": false,
    });
    described_as("listParked", "Events that could not be applied")
        .says("In the order of the log, then messages of Kafka that nobody can read.")
        .pages()
        .json(
            200,
            "A page of them.",
            &["Link"],
            &reference("ParkedPage"),
            &json!({"items": [event], "next_cursor": null}),
        )
}

fn parked_schema() -> Value {
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

async fn parked(
    Admin(principal): Admin,
    State(api): State<AdminApi>,
    OriginalUri(uri): OriginalUri,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (sealer, reader) = (&api.sealer, principal.owner);
    let page = PageOf { sealer, reader, binding: PARKED_CURSOR, uri: &uri, limit: query.limit };
    // Events in the order of the log, then messages.
    let behind = page.begins_behind(query.cursor.as_deref(), |key| {
        let (shard, rest) = key.split_first_chunk::<4>()?;
        let (number, id) = rest.split_first_chunk::<8>()?;
        Some((i32::from_be_bytes(*shard), i64::from_be_bytes(*number), Uuid::from_slice(id).ok()?))
    })?;
    let (shard, number, id) = behind.unwrap_or((i32::MIN, 0, Uuid::nil()));
    let mut connection = api.pool.acquire().await.map_err(unavailable)?;
    admin_acts::record(&mut connection, &principal, admin_acts::PARKED_READ, None).await.map_err(unavailable)?;
    drop(connection);
    let rows = sqlx::query!(
        r#"
        select k.id, k.shard, k.position, k.topic, k.partition, k.message_offset, k.owner_id, k.task_id, k.version,
            k.type as event_type, coalesce(k.shard, $4 + k.partition) as "place!",
            coalesce(k.position, k.message_offset) as "number!",
            k.reason as "reason!", k.parked_at as "parked_at: Time", k.retry_at is not null as "retrying!",
            (
                select count(*) from read_model.parked as w
                where w.generation = k.generation and w.owner_id = k.owner_id and w.task_id = k.task_id
                    and w.position > k.position
            ) as "waiting!"
        from read_model.parked as k
        join read_model.projection as p on k.generation = p.live_generation
        where k.reason is not null
            and (coalesce(k.shard, $4 + k.partition), coalesce(k.position, k.message_offset), k.id) > ($1, $2, $5)
        order by coalesce(k.shard, $4 + k.partition), coalesce(k.position, k.message_offset), k.id
        limit $3
        "#,
        shard,
        number,
        page.rows_max(),
        // past all shards
        1 << 16,
        id,
    )
    .fetch_all(&api.pool)
    .await
    .map_err(unavailable)?;
    Ok(page.answer(
        rows,
        |last| [&last.place.to_be_bytes()[..], &last.number.to_be_bytes()[..], &last.id.as_bytes()[..]].concat(),
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

async fn retry(
    Admin(principal): Admin,
    State(api): State<AdminApi>,
    PathId(id): PathId,
    _: NoQuery,
    EmptyBody(_): EmptyBody,
) -> Result<Response, Problem> {
    let mut transaction = api.pool.begin().await.map_err(unavailable)?;
    let row = sqlx::query!(
        r#"
        update read_model.parked as k
        set retry_at = coalesce(k.retry_at, now())
        from read_model.projection as p
        where k.id = $1 and k.generation = p.live_generation
        returning k.retry_at as "retry_at!: Time"
        "#,
        id,
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(unavailable)?
    .ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    let detail = id.to_string();
    let recorded = admin_acts::record(&mut transaction, &principal, admin_acts::PARKED_RETRIED, Some(&detail)).await;
    recorded.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(answer::json(StatusCode::ACCEPTED, &Retry { id, retry_at: format_time(row.retry_at) }))
}

fn retry_described() -> Operation {
    described_as("retryParked", "Tries a parked event again")
        .path_id("The `id` of the list.")
        .empty_body()
        .json(202, "It will be tried.", &[], &reference("Retry"), &json!({"id": EXAMPLE_ID, "retry_at": EXAMPLE_TIME}))
        .refuses(&[ProblemCode::NotFound])
}

fn retry_schema() -> Value {
    whole(json!({"id": {"type": "string", "format": "uuid"}, "retry_at": time()}))
}

fn unavailable(error: sqlx::Error) -> Problem {
    Problem::unavailable(&error)
}
