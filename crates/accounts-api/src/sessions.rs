use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::format_time;
use http_api::account::Account;
use http_api::body::EmptyBody;
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, Tag, page_of, reference, time, whole};
use http_api::page::{PageOf, PageQuery};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{PathId, StrictQuery};
use identity::values::USER_AGENT_LENGTH_MAX;
use identity::{Identity, OpenSession};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::problem;

/// What cursors of this list are bound to besides the account.
const BINDING: &[u8] = b"auth/sessions";

/// A session as its account sees it.
#[derive(Serialize)]
struct Shown {
    id: Uuid,
    created_at: String,
    last_seen_at: String,
    address: Option<String>,
    user_agent: Option<String>,
    current: bool,
}

impl Shown {
    fn of(session: OpenSession, current: Uuid) -> Self {
        Self {
            id: session.id,
            created_at: format_time(session.created_at),
            last_seen_at: format_time(session.last_seen_at),
            address: session.address.map(|address| address.to_string()),
            user_agent: session.user_agent,
            current: session.id == current,
        }
    }
}

/// The account's open sessions, the latest begun first.
pub(crate) async fn list(
    State(identity): State<Identity>,
    Account(principal): Account,
    OriginalUri(uri): OriginalUri,
    StrictQuery(params): StrictQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (sealer, reader) = (identity.sealer(), principal.owner);
    let page = PageOf { sealer, reader, binding: BINDING, uri: &uri, limit: params.limit };
    let before = page.begins_behind_id(params.cursor.as_deref())?;
    let sessions = identity.open_sessions(principal.owner, before, page.rows_max()).await.map_err(problem)?;
    Ok(page.answer(sessions, |session| session.id, |session| Shown::of(session, principal.session)))
}

/// Ends one of them.
pub(crate) async fn end(
    State(identity): State<Identity>,
    Account(principal): Account,
    PathId(id): PathId,
    _: EmptyBody,
) -> Result<StatusCode, Problem> {
    identity.end_session(principal.owner, id, principal.session).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn list_described() -> Operation {
    let session = json!({
        "id": EXAMPLE_ID, "created_at": EXAMPLE_TIME, "last_seen_at": EXAMPLE_TIME, "address": "192.0.2.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "current": true,
    });
    let page = json!({"items": [session], "next_cursor": null});
    Operation::new(Tag::Accounts, "listSessions", "List your sessions")
        .says("Those that can be refreshed, the latest begun first. An account has at most 1,000; a login beyond it ends the one that was seen least recently.")
        .account()
        .pages()
        .json(200, "A page of sessions.", &["Link"], &reference("SessionPage"), &page)
}

pub(crate) fn end_described() -> Operation {
    Operation::new(Tag::Accounts, "endSession", "End one of your sessions")
        .says("As logging out of it does. One that has ended stays so.")
        .account()
        .path_id("The session's id.")
        .empty_body()
        .empty(204, "Ended.", &[])
        .refuses(&[ProblemCode::NotFound, ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "created_at": time(),
        "last_seen_at": {
            "type": "string", "format": "date-time", "description": "When it began or was refreshed last.",
        },
        "address": {"type": ["string", "null"], "description": "The client's address then."},
        "user_agent": {
            "type": ["string", "null"], "maxLength": USER_AGENT_LENGTH_MAX,
            "description": "What the client called itself then: visible ASCII and spaces.",
        },
        "current": {"type": "boolean", "description": "The one of this request's access token."},
    }))
}

pub(crate) fn page_schema() -> Value {
    page_of("Session")
}
