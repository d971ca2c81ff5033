//! `POST /api/v1/auth/refresh`

use axum::extract::State;
use axum::response::Response;
use identity::Identity;
use serde::Deserialize;
use service_kit::body::JsonBody;
use service_kit::context::RequestContext;
use service_kit::problem::Problem;

use super::{login, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    refresh_token: String,
}

/// Spends a refresh token for new tokens.
pub(super) async fn refresh(
    State(identity): State<Identity>,
    context: RequestContext,
    JsonBody(body, _): JsonBody<Refresh>,
) -> Result<Response, Problem> {
    identity.refresh(&body.refresh_token, context.arrived()).await.map(login::answer).map_err(problem)
}
