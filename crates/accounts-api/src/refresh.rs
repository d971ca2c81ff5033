use axum::extract::State;
use axum::response::Response;
use http_api::body::JsonBody;
use http_api::openapi::{Operation, Tag, reference};
use http_api::problem::{Problem, ProblemCode};
use identity::{Identity, IdentityError};
use process::context::RequestContext;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::problem;
use crate::session_cookie::SessionCookie;
use crate::tokens;
use crate::user_agent::UserAgent;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    refresh_token: String,
}

/// Spends a refresh token for new tokens; without a body that of the session cookie, which gets the new one.
pub(crate) async fn refresh(
    State(identity): State<Identity>,
    cookie: SessionCookie,
    UserAgent(user_agent): UserAgent,
    body: Option<JsonBody<Refresh>>,
) -> Result<Response, Problem> {
    let sent = match &body {
        Some(JsonBody(body, _)) => Some(&*body.refresh_token),
        None => cookie.token()?,
    };
    let sent = sent.ok_or_else(|| problem(IdentityError::InvalidRefreshToken).detail("neither a body nor a cookie"))?;
    let refreshed = identity.refresh(sent, RequestContext::current().arrived(), user_agent).await.map_err(problem)?;
    Ok(if body.is_some() { tokens::in_body(&refreshed) } else { tokens::in_cookie(&refreshed, &cookie) })
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "refresh", "Refresh the session's tokens")
        .says(
            "A refresh token is spent with its use, and using it again ends the session: somebody else may hold it. Of two that \
             overlap, the second is `refresh-in-flight` and ends nothing. Without a body the session cookie is taken, and the \
             answer sets it anew.",
        )
        .body_or_session_cookie(&reference("Refresh"), &json!({"refresh_token": "Xm2lNn0JbO3yqk5v4vZ1fQ"}))
        .json(200, "New tokens.", &["Cache-Control", "Set-Cookie"], &reference("Tokens"), &tokens::example())
        .refuses(&[ProblemCode::InvalidRefreshToken, ProblemCode::RefreshInFlight, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["refresh_token"],
        "properties": {"refresh_token": {"type": "string"}},
    })
}
