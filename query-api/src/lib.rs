//! Reads: lists, tasks, their past, statistics and the live stream, from the tables of `read_model` alone.
//!
//! Each answer is made from one snapshot of one owner's rows, named by (log id, generation, change counter). That
//! name is the ETag and the cache's version, so nothing is ever invalidated, and any number of processes on one
//! database are right without knowing of each other.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// `GET /api/v1/tasks`.
mod list;

/// `GET /api/v1/tasks/{id}`, also as of a time.
mod task;

/// `GET /api/v1/tasks/deleted`.
mod trash;

/// `GET /api/v1/tasks/{id}/history`.
mod history;

/// `GET /api/v1/changes`, `GET /api/v1/changes/{id}`.
mod changes;

/// `GET /api/v1/tasks/facets`.
mod facets;

/// `GET /api/v1/tasks/suggest`.
mod suggest;

/// `GET /api/v1/stats`.
mod stats;

/// `GET /api/v1/stats/flow`.
mod flow;

/// `GET /api/v1/stream`.
mod stream;

/// The dashboard: the page, its files, and its views.
pub mod dashboard;

/// A time that is looked back to.
mod as_of;

/// Tasks as they were.
mod past;

/// What all of them take from a request's headers and put into an answer's.
mod asked;

/// What the OpenAPI document says of all of them.
mod described;

/// Pages of a list.
mod page;

/// The way of a read: version, cache, one statement for all requests that mean the same.
mod reads;

/// An owner's version: what names a snapshot of their rows.
mod owner_version;

/// Looks them up.
mod owner_versions;

/// The revision that a read must show at least: consistency tokens.
mod minimum_revision;

/// The hint that something was applied.
mod hint;

/// Answers to reads, as they are kept and sent.
mod answer;

/// Owner versions that processes share through Redis.
mod redis_versions;

/// Answers that processes share through Redis.
mod redis_answers;

/// A task from the columns of a statement.
mod task_columns;

/// A task in JSON.
mod task_json;

/// The history of a task, folded.
mod fold;

/// Days as a time zone has them.
mod days;

/// What `q` finds.
mod search;

/// Where reads come from.
mod sources;

/// The read replica, and what is done without it.
mod replica;

/// Pools of connections for reading.
mod connect;

/// Why a read was refused.
mod error;

use std::sync::Arc;

use access::token::Sealer;
use axum::Router;
use axum::extract::FromRef;
use http_api::openapi::{Described, Routes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::list::ColumnCache;
use crate::owner_versions::OwnerVersions;
use crate::past::Past;
use crate::reads::Reads;
use crate::stream::Streams;

pub use crate::connect::connect;
pub use crate::owner_versions::TOKEN_WAIT_MS_MAX;
pub use crate::replica::Replica;
pub use crate::sources::Sources;
pub use crate::stream::STREAMS_EACH_MAX;

/// The read side. Cheap to clone, as it is three times for each request on its way to its handler.
#[derive(Clone)]
pub struct QueryApi(Arc<Inner>);

struct Inner {
    reads: Reads,
    columns: ColumnCache,
    past: Past,
    streams: Streams,
}

impl QueryApi {
    /// `applied` is a hint that something was applied to the read models; without it they are polled. `shutdown` ends
    /// the live streams. Needs a Tokio runtime where there is a Redis.
    #[must_use]
    pub fn new(
        sources: Sources,
        sealer: Sealer,
        applied: Option<watch::Receiver<u64>>,
        shutdown: CancellationToken,
    ) -> Self {
        let owner_versions = OwnerVersions::new(sources.clone(), sealer, applied);
        let columns = ColumnCache::new(sources.nearest().clone());
        let reads = Reads::new(sources, owner_versions);
        let streams = Streams::new(reads.clone(), shutdown);
        Self(Arc::new(Inner { streams, columns, past: Past::default(), reads }))
    }
}

impl FromRef<QueryApi> for Reads {
    fn from_ref(api: &QueryApi) -> Self {
        api.0.reads.clone()
    }
}

impl FromRef<QueryApi> for ColumnCache {
    fn from_ref(api: &QueryApi) -> Self {
        api.0.columns.clone()
    }
}

impl FromRef<QueryApi> for Past {
    fn from_ref(api: &QueryApi) -> Self {
        api.0.past.clone()
    }
}

impl FromRef<QueryApi> for Streams {
    fn from_ref(api: &QueryApi) -> Self {
        api.0.streams.clone()
    }
}

/// The paths of "Queries". Needs a `Verifier` in the request's extensions, as `server::edge` puts it there.
pub fn router(app: QueryApi) -> Router {
    routes().router.with_state(app)
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<QueryApi> {
    Routes::new()
        .get("/api/v1/tasks", list::list, list::described)
        .get("/api/v1/tasks/facets", facets::facets, facets::described)
        .get("/api/v1/tasks/suggest", suggest::suggest, suggest::described)
        .get("/api/v1/tasks/deleted", trash::trash, trash::described)
        .get("/api/v1/tasks/{id}", task::task, task::described)
        .get("/api/v1/tasks/{id}/history", history::history, history::described)
        .get("/api/v1/changes", changes::changes, changes::described_list)
        .get("/api/v1/changes/{id}", changes::change, changes::described)
        .get("/api/v1/stats", stats::stats, stats::described)
        .get("/api/v1/stats/flow", flow::flow, flow::described)
        .get("/api/v1/stream", stream::stream, stream::described)
        .schema("Task", task_json::schema)
        .schema("ListedTask", list::item_schema)
        .schema("TaskPage", list::schema)
        .schema("DeletedTask", trash::item_schema)
        .schema("TrashPage", trash::schema)
        .schema("HistoryItem", history::item_schema)
        .schema("HistoryPage", history::schema)
        .schema("Change", changes::item_schema)
        .schema("ChangePage", changes::schema)
        .schema("Facets", facets::schema)
        .schema("Suggestions", suggest::schema)
        .schema("Stats", stats::schema)
        .schema("Flow", flow::schema)
}
