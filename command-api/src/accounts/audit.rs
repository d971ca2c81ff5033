//! `GET /api/v1/users/audit`, for admins: who did what to accounts, sessions and keys, from where, when.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::http::header::LINK;
use axum::response::Response;
use domain::{OwnerId, format_time};
use identity::audit::{Act, Filter};
use identity::{AuditEvent, Identity};
use serde::{Deserialize, Serialize};
use service_kit::auth::Admin;
use service_kit::page::{Limit, next_link};
use service_kit::problem::{Problem, ProblemCode};
use service_kit::query::StrictQuery;
use uuid::Uuid;

use super::{json, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Done to this account or by it.
    account: Option<Uuid>,
    /// Kinds of events, with commas between.
    act: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

impl Params {
    fn filter(&self) -> Result<Filter, Problem> {
        let unknown =
            || Problem::parameter("the query parameter act is unknown; see the documentation for what there is");
        let names = self.act.as_deref().map(|act| act.split(',')).into_iter().flatten();
        let acts = names.map(|name| Act::parse(name).ok_or_else(unknown)).collect::<Result<_, _>>()?;
        Ok(Filter { account: self.account.map(OwnerId), acts })
    }

    /// What cursors of this list are bound to besides the admin.
    fn binding(&self) -> Vec<u8> {
        let account = self.account.map(Uuid::into_bytes).unwrap_or_default();
        [b"users/audit", &account[..], self.act.as_deref().unwrap_or_default().as_bytes()].concat()
    }
}

/// An event as it is shown.
#[derive(Serialize)]
struct Shown {
    id: Uuid,
    occurred_at: String,
    act: String,
    actor: Actor,
    account_id: Option<OwnerId>,
    session_id: Option<Uuid>,
    client_address: Option<String>,
    trace_id: Option<String>,
    detail: Option<String>,
}

#[derive(Serialize)]
struct Actor {
    r#type: &'static str,
    id: Option<OwnerId>,
}

impl From<AuditEvent> for Shown {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id,
            occurred_at: format_time(event.occurred_at),
            act: event.act,
            actor: Actor { r#type: event.actor.kind(), id: event.actor.id() },
            account_id: event.account,
            session_id: event.session,
            client_address: event.client.map(|client| client.to_string()),
            trace_id: event.trace_id,
            detail: event.detail,
        }
    }
}

#[derive(Serialize)]
struct Page {
    items: Vec<Shown>,
    next_cursor: Option<String>,
}

/// Audit events, newest first.
pub(super) async fn list(
    State(identity): State<Identity>,
    Admin(principal): Admin,
    OriginalUri(uri): OriginalUri,
    StrictQuery(params): StrictQuery<Params>,
) -> Result<Response, Problem> {
    let (filter, binding) = (params.filter()?, params.binding());
    let sealer = identity.sealer();
    let before = match &params.cursor {
        Some(cursor) => {
            let payload = sealer.open_cursor(cursor, principal.owner, &binding).ok();
            let id = payload.and_then(|payload| Uuid::from_slice(&payload).ok());
            Some(id.ok_or_else(|| Problem::new(ProblemCode::InvalidCursor))?)
        }
        None => None,
    };
    // a page is no more to be told than the list that it belongs to
    if before.is_none() {
        identity.accounts().tell_read(Act::AuditRead, principal.session).await.map_err(problem)?;
    }
    let size = usize::from(params.limit);
    // one more than asked for tells whether there is another page
    let events = identity.accounts().audit_events(&filter, before, i64::from(params.limit) + 1).await;
    let mut events = events.map_err(problem)?;
    let more = events.len() > size;
    events.truncate(size);
    let last = events.last().filter(|_| more).map(|event| event.id);
    let next_cursor = last.map(|id| sealer.seal_cursor(principal.owner, &binding, id.as_bytes()));
    let link = next_cursor.as_ref().and_then(|cursor| next_link(uri.path(), uri.query(), cursor));
    let items = events.into_iter().map(Shown::from).collect();
    let mut response = json(StatusCode::OK, &Page { items, next_cursor });
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}
