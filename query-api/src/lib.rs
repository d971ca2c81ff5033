//! Reads: lists, tasks, their past, statistics and the live stream, from the tables of `read_model` alone.
//!
//! Each answer is made from one snapshot of one owner's rows, named by (log id, generation, change counter). That
//! name is the ETag and the cache's version, so nothing is ever invalidated, and any number of processes on one
//! database are right without knowing of each other.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

use access::token::Sealer;
use axum::Router;
use axum::extract::FromRef;
use backends::database::{AGE_S_MAX, Address, Pool, PoolSize, PoolTransaction, Prepare};
use backends::redis::Redis;
use http_api::openapi::{Described, Operation, Routes, Tag};
use http_api::problem::ProblemCode;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::ReadError;
use crate::owners::Owners;
use crate::reads::Reads;
pub use crate::replica::Replica;
use crate::stream::Hubs;

/// `GET /api/v1/tasks`.
mod list;

/// `GET /api/v1/tasks/{id}`, also as of a time.
mod task;

/// `GET /api/v1/tasks/{id}/history`.
mod history;

/// `GET /api/v1/stats`.
mod stats;

/// `GET /api/v1/stream`.
mod stream;

/// What all of them take from a request's headers and put into an answer's.
mod asked;

/// The way of a read: version, cache, one statement for all who ask the same.
mod reads;

/// Where each owner's rows stand; consistency tokens.
mod owners;

/// What is shared with other processes through Redis: standings and answers.
mod shared;

/// A task as the API shows it, and the fold of its history.
mod task_row;

/// The read replica, and what is done without it.
mod replica;

/// The words of `q`.
mod search;

/// Why a read was refused.
mod error;

/// How long a connection may be waited for before a read is turned away.
const CONNECTION_WAIT_MS_MAX: u64 = 3_000;
/// How long the end of each pool is waited for.
const CLOSE_MS_MAX: u64 = 1_000;
/// Connections that are made at the start and kept ready.
const CONNECTIONS_KEPT: u32 = 4;
/// A generation that never is: what is only to be planned finds nothing there.
const NO_GENERATION: i32 = 0;
/// How long one statement may take, in Postgres' words.
const STATEMENT_TIME_MAX: &str = "10s";

/// The read side. Cheap to clone.
#[derive(Clone)]
pub struct QueryApi {
    reads: Reads,
    hubs: Hubs,
    shutdown: CancellationToken,
}

/// Where reads come from. Pools are made by [`connect`].
#[derive(Clone, Debug)]
pub struct Sources {
    /// The read models as the projector writes them.
    pub primary: Pool,
    /// A replica of them, which may be behind: asked first, where there is one.
    pub replica: Option<Replica>,
    /// What is shared with other processes; needs no care: whatever it does, answers are right.
    pub redis: Option<Redis>,
}

impl Sources {
    /// One database and nothing else.
    #[must_use]
    pub fn of(primary: Pool) -> Self {
        Self { primary, replica: None, redis: None }
    }

    /// Closes the pools. Connections that hang, or are being made to a database that is away, are not waited for.
    pub async fn close(&self) {
        let limit = std::time::Duration::from_millis(CLOSE_MS_MAX);
        let _hanging = tokio::time::timeout(limit, self.primary.close()).await;
        if let Some(replica) = &self.replica {
            let _hanging = tokio::time::timeout(limit, replica.pool().close()).await;
        }
    }
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
        let owners = Owners::new(sources.clone(), sealer, applied);
        let reads = Reads::new(sources, owners);
        Self { hubs: Hubs::new(reads.clone()), reads, shutdown }
    }
}

impl FromRef<QueryApi> for Reads {
    fn from_ref(app: &QueryApi) -> Self {
        app.reads.clone()
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
        .get("/api/v1/tasks/{id}", task::task, task::described)
        .get("/api/v1/tasks/{id}/history", history::history, history::described)
        .get("/api/v1/stats", stats::stats, stats::described)
        .get("/api/v1/stream", stream::stream, stream::described)
        .schema("Task", task_row::schema)
        .schema("TaskPage", list::schema)
        .schema("HistoryItem", history::item_schema)
        .schema("HistoryPage", history::schema)
        .schema("Stats", stats::schema)
}

/// What all reads have in common: what the client has already, what it must see at least.
fn read(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Queries, id, summary)
        .account()
        .header("Consistency-Token")
        .header("If-None-Match")
        .empty(304, "The client has it.", &ANSWERED)
        .refuses(&[ProblemCode::InvalidConsistencyToken, ProblemCode::NotCaughtUp, ProblemCode::ProjectionParked])
}

/// Headers that answers to reads have.
const ANSWERED: [&str; 2] = ["ETag", "Consistency-Token"];
/// Those of pages.
const ANSWERED_PAGE: [&str; 3] = ["ETag", "Consistency-Token", "Link"];

/// A pool for [`QueryApi::new`].
///
/// Its sessions leave the planner nothing to choose: each statement has one index made for it and is planned once for
/// all owners, whatever the statistics of a fresh table say. Where there is something to choose, the statement runs
/// in a transaction that allows it ([`planned`]). Behind a pooler that shares sessions it is up to the planner.
///
/// A new session plans what most reads need before its first read, and some are kept: the first ones are made in the
/// background now, so this needs a Tokio runtime and waits for nothing.
#[must_use]
pub fn connect(address: impl Into<Address>, connections_max: u32) -> Pool {
    let address = address.into().for_reading().called("primetrade query-api").with([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_sort", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        // what is switched off above costs so much that everything would be compiled
        ("jit", "off"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", STATEMENT_TIME_MAX),
    ]);
    let size = PoolSize {
        connections_max,
        connections_kept: connections_max.min(CONNECTIONS_KEPT),
        wait_ms_max: CONNECTION_WAIT_MS_MAX,
        age_s_max: AGE_S_MAX,
    };
    let prepare: Prepare = |connection| {
        Box::pin(async move {
            // It works without as well, more slowly at first; what is wrong the first read will say.
            if let Err(error) = plan_ahead(connection).await {
                tracing::debug!(%error, "planning the statements of a new session");
            }
        })
    };
    Pool::new(address, size, Some(prepare))
}

/// Has a new session plan what most reads need. Nothing is read.
async fn plan_ahead(connection: &mut PgConnection) -> Result<(), ReadError> {
    owners::query(&mut *connection, &[Uuid::nil()]).await?;
    task::load(&mut *connection, NO_GENERATION, Uuid::nil(), Uuid::nil()).await?;
    list::plan_ahead(connection).await
}

/// The migrations of the schema `read_model` that this program was built for: they are applied by the projector's side.
#[must_use]
pub fn schema() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!("../migrations/read-model");
    migrator.dangerous_set_table_name("read_model._migrations");
    migrator
}

/// A transaction whose statements are planned each time, for their arguments: which index offers most depends on them.
async fn planned(pool: &Pool) -> Result<PoolTransaction, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        "select set_config('plan_cache_mode', 'force_custom_plan', true) as a, set_config('enable_bitmapscan', 'on', true) as b,
             set_config('enable_sort', 'on', true) as c"
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(transaction)
}
