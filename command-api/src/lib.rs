//! Commands over HTTP: everything that writes tasks. Reads in this order.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The one place that knows every refusal's problem.
pub mod refusal;

/// The way of a command: replay, decide, append.
pub mod execute;

/// What the log holds already, for imports.
pub mod recognise;

/// One command of a batch or one line of an import.
pub mod line;

/// `POST /api/v1/commands`
pub mod batch;

/// `/api/v1/auth`, `/api/v1/users`, `/.well-known/jwks.json`
pub mod accounts;

/// Publishes the log to Kafka.
pub mod relay;

/// JSON as a tree that borrows, and the fingerprint of a request.
pub mod json;

/// `POST /api/v1/tasks`
mod create;

/// `PATCH /api/v1/tasks/{id}`
mod patch;

/// `POST /api/v1/tasks/{id}/start | complete | reopen | cancel`
mod transitions;

/// `DELETE /api/v1/tasks/{id}`
mod delete;

/// Who asks, under which key and condition.
mod attempt;

/// The fields of a body, as the document has them.
mod schema;

/// The fields of a body, and all that is wrong with them.
mod fields;

/// The commands of a batch, taken apart.
mod split;

/// The answer to what was accepted.
mod answer;

use access::token::Sealer;
use axum::Router;
use domain::OwnerId;
use event_store::{EventStore, Room};
use http_api::openapi::{Described, Operation, Routes, Tag};
use http_api::problem::{Problem, ProblemCode};
use metrics::counter;
use process::budget::Budget;
use process::health::Check;

use crate::answer::Answer;
use crate::attempt::Attempt;
use crate::execute::{Accepted, Executor, Item};
use crate::refusal::IdentityFrom;

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct CommandApi {
    executor: Executor,
    sealer: Sealer,
    /// Turns of batches.
    batches: Budget<OwnerId>,
}

impl CommandApi {
    /// Commands go to `store`; `sealer` makes the consistency tokens of the answers.
    #[must_use]
    pub fn new(store: EventStore, sealer: Sealer) -> Self {
        Self {
            executor: Executor::new(store),
            sealer,
            batches: Budget::new(batch::AT_ONCE_MAX, batch::AT_ONCE_EACH_MAX),
        }
    }

    /// What carries out the commands.
    #[must_use]
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    async fn execute(&self, attempt: &Attempt, item: Item) -> Result<Accepted, Problem> {
        match self.executor.execute(&attempt.caller(), item).await {
            Ok(accepted) => {
                Self::count(&accepted);
                Ok(accepted)
            }
            Err(refused) => Err(refusal::problem(refused, IdentityFrom::IdempotencyKey)),
        }
    }

    fn answer(&self, attempt: &Attempt) -> Answer<'_> {
        Answer {
            sealer: &self.sealer,
            log_id: self.executor.store().log_id(),
            owner: attempt.principal.owner,
            shard: attempt.principal.shard,
        }
    }

    fn count(accepted: &Accepted) {
        if accepted.status == 201 && !accepted.replayed {
            counter!("tasks_created_total").increment(1);
        }
    }
}

/// For `/readyz`: whether the disk has room for more events. Reads go on where it has not.
#[must_use]
pub fn disk(room: &Room) -> Check {
    room.lacking().map_or_else(|| Check::ok("has room"), Check::failed)
}

/// The routes under "Commands" of the HTTP contract. `server::edge` stands around them.
pub fn router(api: CommandApi) -> Router {
    routes().router.with_state(api)
}

/// What the document says about them.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<CommandApi> {
    Routes::new()
        .post("/api/v1/tasks", create::create, create::described)
        .patch("/api/v1/tasks/{id}", patch::patch, patch::described)
        .delete("/api/v1/tasks/{id}", delete::delete, delete::described)
        .post("/api/v1/tasks/{id}/start", transitions::start, transitions::start_described)
        .post("/api/v1/tasks/{id}/complete", transitions::complete, transitions::complete_described)
        .post("/api/v1/tasks/{id}/reopen", transitions::reopen, transitions::reopen_described)
        .post("/api/v1/tasks/{id}/cancel", transitions::cancel, transitions::cancel_described)
        .post("/api/v1/commands", batch::batch, batch::described)
        .schema("NewTask", create::schema)
        .schema("TaskPatch", patch::schema)
        .schema("Accepted", answer::schema)
        .schema("Command", line::schema)
        .schema("Batch", batch::schema)
        .schema("BatchAnswer", batch::answer_schema)
        .schema("BatchResult", batch::result_schema)
}

/// What all writes have in common: key, conditions, and what any of them may be refused for.
fn write(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Tag::Commands, id, summary).account().header("Idempotency-Key").refuses(&[
        ProblemCode::RequestInFlight,
        ProblemCode::KeyReused,
        ProblemCode::Contended,
        ProblemCode::DiskFull,
        ProblemCode::StreamUnreadable,
    ])
}

/// A write to a task that there is.
fn change(id: &'static str, summary: &'static str) -> Operation {
    write(id, summary)
        .path_id("The task's id.")
        .header("If-Match")
        .refuses(&[ProblemCode::NotFound, ProblemCode::StaleVersion])
}
