//! `/api/v1/admin/projections` and `/api/v1/admin/parked`: what an administrator sees of the projection and may do.

mod api;
mod parked;
mod projections;

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http_api::openapi::{Described, Routes, page_of};
use http_api::problem::{Problem, ProblemCode};

pub use self::api::AdminApi;

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
        .get("/api/v1/admin/projections", projections::projections, projections::described)
        .get("/api/v1/admin/parked", parked::parked, parked::parked_described)
        .post("/api/v1/admin/parked/{id}/retry", parked::retry, parked::retry_described)
        .schema("Projections", projections::schema)
        .schema("Projection", projections::projection_schema)
        .schema("Rebuild", projections::rebuild_schema)
        .schema("ParkedEvent", parked::parked_schema)
        .schema("ParkedPage", || page_of("ParkedEvent"))
        .schema("Retry", parked::retry_schema)
}
