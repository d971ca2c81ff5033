//! `POST /api/v1/auth/refresh`

use axum::extract::State;
use axum::response::Response;
use http_api::body::JsonBody;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::Identity;
use process::context::RequestContext;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{described_as, login, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    refresh_token: String,
}

/// Spends a refresh token for new tokens.
pub(super) async fn refresh(
    State(identity): State<Identity>,
    JsonBody(body, _): JsonBody<Refresh>,
) -> Result<Response, Problem> {
    identity.refresh(&body.refresh_token, RequestContext::current().arrived()).await.map(login::tokens).map_err(problem)
}

pub(super) fn described() -> Operation {
    described_as("refresh", "Goes on with a session")
        .says(
            "A refresh token is spent with its use, and using it again ends the session: somebody else may hold it. Of two that \
             overlap, the second is `refresh-in-flight` and ends nothing.",
        )
        .body(
            &["application/json"],
            &reference("Refresh"),
            &json!({"refresh_token": "Xm2lNn0JbO3yqk5v4vZ1fQ"}),
        )
        .json(200, "New tokens.", &["Cache-Control"], &reference("Tokens"), &login::answer_example())
        .refuses(&[ProblemCode::InvalidRefreshToken, ProblemCode::RefreshInFlight])
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["refresh_token"],
        "properties": {"refresh_token": {"type": "string"}},
    })
}
