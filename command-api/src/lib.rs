//! Commands over HTTP: everything that writes tasks. What is asked is parsed and carried out by `commands`; status and
//! problem of each answer are decided here. Reads in this order.

// messages go by process::stderr
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// What the handlers work with.
mod api;

/// What runs beside the requests.
mod background;

/// The one place that knows the problem for every error of `commands`.
pub mod refusal;

/// Who asks, under which key and condition.
mod attempt;

/// `POST /api/v1/tasks`
mod create;

/// `PATCH /api/v1/tasks/{id}`
mod patch;

/// `POST /api/v1/tasks/{id}/start | complete | reopen | cancel`
mod transitions;

/// `DELETE /api/v1/tasks/{id}`
mod delete;

/// `POST /api/v1/commands`
mod batch;

/// `POST /api/v1/changes/{id}/undo`
mod undo;

/// What has many results, under a key.
mod keyed;

/// The answer to a batch, result by result.
mod batch_answer;

/// `POST /api/v1/imports`
mod imports;

/// `POST /api/v1/exports`
mod exports;

/// `POST /api/v1/tasks/bulk`
mod bulk;

/// `GET /api/v1/jobs/{id}/result`
mod job_result;

/// `GET /api/v1/jobs`, `GET` and `DELETE /api/v1/jobs/{id}`, `GET /api/v1/jobs/{id}/errors`
mod jobs;

/// A job that is asked for, and a job as JSON.
mod job;

/// The answer to what was accepted.
mod answer;

/// What a consistency token stands for.
mod token;

/// Commands as the OpenAPI document has them.
mod schema;

/// What the operations have in common in the document.
mod operation;

use http_api::openapi::{Described, Routes};
use http_api::{Api, RouteKind};

pub use api::CommandApi;
pub use undo::UNDONE_AT_ONCE_MAX;

/// The routes under "Commands" and "Jobs" of the HTTP contract. `server::edge` wraps them.
#[must_use]
pub fn router(api: CommandApi) -> Api {
    routes().with_state(api)
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
        .post("/api/v1/tasks/{id}/restore", transitions::restore, transitions::restore_described)
        .post("/api/v1/commands", batch::batch, batch::described)
        .post("/api/v1/changes/{id}/undo", undo::undo, undo::described)
        .get("/api/v1/jobs", jobs::list, jobs::list_described)
        .get("/api/v1/jobs/{id}", jobs::get, jobs::get_described)
        .delete("/api/v1/jobs/{id}", jobs::delete, jobs::delete_described)
        .get("/api/v1/jobs/{id}/errors", jobs::errors, jobs::errors_described)
        .get("/api/v1/jobs/{id}/result", job_result::result, job_result::described)
        .post("/api/v1/exports", exports::export, exports::described)
        .post("/api/v1/tasks/bulk", bulk::bulk, bulk::described)
        .kind(RouteKind::Upload)
        .post("/api/v1/imports", imports::import, imports::described)
        .schema("Filter", exports::filter_schema)
        .schema("NewExport", exports::schema)
        .schema("BulkChange", bulk::schema)
        .schema("Job", job::schema)
        .schema("JobError", jobs::error_schema)
        .schema("NewTask", schema::new_task)
        .schema("TaskPatch", schema::task_patch)
        .schema("Accepted", answer::schema)
        .schema("Command", schema::command)
        .schema("Batch", batch::schema)
        .schema("BatchAnswer", batch_answer::schema)
        .schema("BatchResult", batch_answer::result_schema)
}
