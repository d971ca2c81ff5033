//! `/api/v1/admin/projections` and `/api/v1/admin/parked`: what an administrator sees of the projection and may do.

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use domain::{Time, format_time};
use event_store::TailReader;
use serde::{Deserialize, Serialize};
use service_kit::auth::Admin;
use service_kit::page::{Limit, next_link};
use service_kit::problem::{Problem, ProblemCode};
use service_kit::query::{PathId, StrictQuery};
use service_kit::token::Sealer;
use sqlx::PgPool;
use uuid::Uuid;

use crate::lag;
use crate::rebuild::LOCK;

/// What the handlers need.
#[derive(Clone)]
pub struct AdminApi {
    pool: PgPool,
    tail: TailReader,
    sealer: Sealer,
}

impl AdminApi {
    /// With the read models, the log, and what seals cursors.
    #[must_use]
    pub fn new(read_pool: PgPool, tail: TailReader, sealer: Sealer) -> Self {
        Self { pool: read_pool, tail, sealer }
    }
}

/// The routes.
pub fn router(api: AdminApi) -> Router {
    Router::new()
        .route("/api/v1/admin/projections", get(projections))
        .route("/api/v1/admin/parked", get(parked))
        .route("/api/v1/admin/parked/{id}/retry", post(retry))
        .with_state(api)
}

#[derive(Serialize)]
struct Projections {
    items: Vec<Projection>,
}

/// One shard of the live generation.
#[derive(Serialize)]
struct Projection {
    name: &'static str,
    shard: i16,
    generation: i32,
    /// `live`; `rebuilding` while a new generation is made beside it.
    state: &'static str,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn projections(
    _: Admin,
    State(api): State<AdminApi>,
    StrictQuery(Nothing {}): StrictQuery<Nothing>,
) -> Result<Json<Projections>, Problem> {
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
    let items = shards
        .into_iter()
        .map(|at| Projection {
            name: "tasks",
            shard: at.shard,
            generation: at.generation,
            state: if rebuild.as_ref().is_some_and(|rebuild| rebuild.running) { "rebuilding" } else { "live" },
            position: at.position,
            lag_events: at.lag.events,
            lag_seconds: at.lag.seconds,
            parked_events: parked.iter().find(|row| row.shard == at.shard).map_or(0, |row| row.count),
            rebuild: rebuild.clone(),
        })
        .collect();
    Ok(Json(Projections { items }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct ParkedPage {
    items: Vec<ParkedEvent>,
    next_cursor: Option<String>,
}

/// An event that could not be applied.
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
    shard: i16,
    position: i64,
    /// A retry was asked for and has not been made yet.
    retrying: bool,
}

/// Names this list in its cursors.
const PARKED_CURSOR: &[u8] = b"admin/parked";

async fn parked(
    Admin(principal): Admin,
    State(api): State<AdminApi>,
    OriginalUri(uri): OriginalUri,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let (shard, position) = match &query.cursor {
        None => (i16::MIN, 0),
        Some(cursor) => api
            .sealer
            .open_cursor(cursor, principal.owner, PARKED_CURSOR)
            .ok()
            .and_then(|payload| {
                let (shard, rest) = payload.split_first_chunk::<2>()?;
                Some((i16::from_be_bytes(*shard), i64::from_be_bytes(rest.try_into().ok()?)))
            })
            .ok_or_else(|| Problem::new(ProblemCode::InvalidCursor))?,
    };
    let limit = usize::from(query.limit);
    let mut rows = sqlx::query!(
        r#"
        select k.id, k.shard, k.position, k.owner_id, k.task_id, k.version, k.type as event_type,
            k.reason as "reason!", k.parked_at as "parked_at: Time", k.retry_at is not null as "retrying!",
            (
                select count(*) from read_model.parked as w
                where w.generation = k.generation and w.owner_id = k.owner_id and w.task_id = k.task_id
                    and w.position > k.position
            ) as "waiting!"
        from read_model.parked as k
        join read_model.projection as p on k.generation = p.live_generation
        where k.reason is not null and (k.shard, k.position) > ($1, $2)
        order by k.shard, k.position
        limit $3
        "#,
        shard,
        position,
        i64::from(query.limit) + 1,
    )
    .fetch_all(&api.pool)
    .await
    .map_err(unavailable)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| {
        let payload = [last.shard.to_be_bytes().as_slice(), last.position.to_be_bytes().as_slice()].concat();
        api.sealer.seal_cursor(principal.owner, PARKED_CURSOR, &payload)
    });
    let mut headers = HeaderMap::new();
    if let Some(link) = next_cursor.as_deref().and_then(|cursor| next_link(uri.path(), uri.query(), cursor)) {
        headers.insert(LINK, link);
    }
    let items = rows
        .into_iter()
        .map(|row| ParkedEvent {
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
            retrying: row.retrying,
        })
        .collect();
    Ok((headers, Json(ParkedPage { items, next_cursor })))
}

#[derive(Serialize)]
struct Retry {
    id: Uuid,
    retry_at: String,
}

async fn retry(
    _: Admin,
    State(api): State<AdminApi>,
    PathId(id): PathId,
    StrictQuery(Nothing {}): StrictQuery<Nothing>,
) -> Result<impl IntoResponse, Problem> {
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
    .fetch_optional(&api.pool)
    .await
    .map_err(unavailable)?
    .ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    Ok((StatusCode::ACCEPTED, Json(Retry { id, retry_at: format_time(row.retry_at) })))
}

/// An answer in JSON.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                let private = HeaderValue::from_static("private, no-cache");
                ([(CONTENT_TYPE, json), (CACHE_CONTROL, private)], body).into_response()
            }
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

fn unavailable(error: sqlx::Error) -> Problem {
    Problem::unavailable(&error)
}
