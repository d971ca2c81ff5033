use axum::extract::State;
use axum::response::Response;
use http_api::body::JsonBody;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::Identity;
use process::context::RequestContext;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::login;
use crate::problem::problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    refresh_token: String,
}

/// Spends a refresh token for new tokens.
pub(crate) async fn refresh(
    State(identity): State<Identity>,
    JsonBody(body, _): JsonBody<Refresh>,
) -> Result<Response, Problem> {
    identity.refresh(&body.refresh_token, RequestContext::current().arrived()).await.map(login::tokens).map_err(problem)
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "refresh", "Refresh the session's tokens")
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

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["refresh_token"],
        "properties": {"refresh_token": {"type": "string"}},
    })
}
