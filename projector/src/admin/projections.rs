//! `GET /api/v1/admin/projections`: how far the read models are, and their rebuild.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::format_time;
use event_store::Published;
use http_api::account::Admin;
use http_api::answer;
use http_api::openapi::{Operation, count, reference, time, whole};
use http_api::problem::Problem;
use http_api::query::NoQuery;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::{AdminApi, described_as, unavailable};
use crate::lag::{self, ShardRelay};
use crate::status::{self, PartitionStatus, RebuildStatus};

#[derive(Serialize)]
struct Projections {
    items: Vec<Projection>,
    /// How far the log is published to Kafka; empty where it is not.
    relay: Vec<Relay>,
    /// Where the live generation is fed from Kafka.
    partitions: Vec<Partition>,
    /// Messages of Kafka that nobody can read; see the list of what is parked.
    unreadable_messages: i64,
}

/// How far the relay has published a shard.
#[derive(Serialize)]
struct Relay {
    shard: i16,
    topic: String,
    publication: i64,
    /// Every event up to it is on the brokers.
    position: i64,
    lag_events: i64,
    lag_seconds: f64,
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

impl Relay {
    fn of(ShardRelay { published, lag }: ShardRelay) -> Self {
        let Published { shard, cursor, publication, topic, .. } = published;
        Self { shard, topic, publication, position: cursor, lag_events: lag.events, lag_seconds: lag.seconds }
    }
}

impl Partition {
    fn of(status: PartitionStatus) -> Self {
        let PartitionStatus { topic, partition, next_offset, publication, trouble } = status;
        Self { topic, partition, next_offset, publication, trouble }
    }
}

impl Rebuild {
    fn of(status: RebuildStatus) -> Self {
        let RebuildStatus { generation, phase, events_done, events_total, events_per_second, started_at, running } =
            status;
        Self {
            generation,
            running,
            phase,
            events_done,
            events_total,
            events_per_second,
            seconds_left: (events_per_second > 0)
                .then(|| (events_total - events_done).max(0) / events_per_second.max(1)),
            started_at: format_time(started_at),
        }
    }
}

pub(super) fn described() -> Operation {
    let shard = json!({
        "name": "tasks", "shard": 0, "generation": 1, "state": "live", "feed": "kafka", "position": 5445,
        "lag_events": 0, "lag_seconds": 0.0, "parked_events": 0, "rebuild": null,
    });
    let partition =
        json!({"topic": "task-events", "partition": 0, "next_offset": 5445, "publication": 1, "trouble": null});
    let relay = json!({
        "shard": 0, "topic": "task-events", "publication": 1, "position": 5445, "lag_events": 0, "lag_seconds": 0.0,
    });
    let all = json!({"items": [shard], "relay": [relay], "partitions": [partition], "unreadable_messages": 0});
    described_as("showProjections", "Show how far the read models are, and their rebuild").json(
        200,
        "Each shard of the live generation.",
        &[],
        &reference("Projections"),
        &all,
    )
}

pub(super) fn schema() -> Value {
    let partition = whole(json!({
        "topic": {"type": "string"},
        "partition": count(),
        "next_offset": {"type": ["integer", "null"], "description": "`null`: nothing is read yet."},
        "publication": count(),
        "trouble": {"type": ["string", "null"], "description": "Why nothing is read of it, and what mends it."},
    }));
    let relay = whole(json!({
        "shard": count(),
        "topic": {"type": "string"},
        "publication": count(),
        "position": {"type": "integer", "description": "Every event up to it is on the brokers."},
        "lag_events": count(),
        "lag_seconds": {"type": "number", "minimum": 0},
    }));
    let relay = json!({
        "type": "array", "items": relay,
        "description": "How far the log is published to Kafka, shard by shard; empty where it is not.",
    });
    whole(json!({
        "items": {"type": "array", "items": reference("Projection")},
        "relay": relay,
        "partitions": {"type": "array", "items": partition, "description": "Where it is fed from Kafka."},
        "unreadable_messages": count(),
    }))
}

pub(super) fn projection_schema() -> Value {
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

pub(super) fn rebuild_schema() -> Value {
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

pub(super) async fn projections(_: Admin, State(api): State<AdminApi>, _: NoQuery) -> Result<Response, Problem> {
    let shards = lag::measure(&api.pool, &api.tail).await.map_err(unavailable)?;
    let relay = lag::measure_relay(&api.tail).await.map_err(unavailable)?.into_iter().map(Relay::of).collect();
    let status = status::load(&api.pool).await.map_err(unavailable)?;
    let rebuild = status.rebuild.map(Rebuild::of);
    let items = shards
        .into_iter()
        .map(|at| Projection {
            name: "tasks",
            shard: at.shard,
            generation: at.generation,
            feed: status.feed.clone(),
            state: if rebuild.as_ref().is_some_and(|rebuild| rebuild.running) { "rebuilding" } else { "live" },
            position: at.position,
            lag_events: at.lag.events,
            lag_seconds: at.lag.seconds,
            parked_events: status.parked.get(&Some(at.shard)).copied().unwrap_or(0),
            rebuild: rebuild.clone(),
        })
        .collect();
    let partitions = status.partitions.into_iter().map(Partition::of).collect();
    let unreadable_messages = status.parked.get(&None).copied().unwrap_or(0);
    Ok(answer::json(StatusCode::OK, &Projections { items, relay, partitions, unreadable_messages }))
}
