//! Commands over HTTP: everything that writes tasks. Reads in this order.

/// The one place that knows every refusal's problem.
pub mod refusal;

/// The way of a command: replay, decide, append.
pub mod execute;

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

/// The fields of a body, and all that is wrong with them.
mod fields;

/// The commands of a batch, taken apart.
mod split;

/// The answer to what was accepted.
mod answer;

use axum::Router;
use axum::routing::{patch, post};
use event_store::EventStore;
use metrics::counter;
use service_kit::problem::Problem;
use service_kit::token::Sealer;

use crate::answer::Answer;
use crate::attempt::Attempt;
use crate::execute::{Accepted, Executor, Item};
use crate::refusal::IdentityFrom;

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct CommandApi {
    executor: Executor,
    sealer: Sealer,
}

impl CommandApi {
    /// Commands go to `store`; `sealer` makes the consistency tokens of the answers.
    #[must_use]
    pub fn new(store: EventStore, sealer: Sealer) -> Self {
        Self { executor: Executor::new(store), sealer }
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

/// The routes under "Commands" of the HTTP contract. `server::edge` stands around them.
pub fn router(api: CommandApi) -> Router {
    Router::new()
        .route("/api/v1/tasks", post(create::create))
        .route("/api/v1/tasks/{id}", patch(self::patch::patch).delete(delete::delete))
        .route("/api/v1/tasks/{id}/start", post(transitions::start))
        .route("/api/v1/tasks/{id}/complete", post(transitions::complete))
        .route("/api/v1/tasks/{id}/reopen", post(transitions::reopen))
        .route("/api/v1/tasks/{id}/cancel", post(transitions::cancel))
        .route("/api/v1/commands", post(batch::batch))
        .with_state(api)
}
