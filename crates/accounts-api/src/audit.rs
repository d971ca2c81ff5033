//! `GET /api/v1/users/audit`, for admins: who did what to accounts, sessions and keys, from where, when.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use domain::{OwnerId, format_time};
use http_api::account::Admin;
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, Tag, one_of, page_of, reference, time, whole};
use http_api::page::{Limit, PageOf};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::StrictQuery;
use identity::audit::{Act, Filter};
use identity::{AuditEvent, Identity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
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
pub(crate) struct Shown {
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

/// Audit events, newest first.
pub(crate) async fn list(
    State(identity): State<Identity>,
    Admin(principal): Admin,
    OriginalUri(uri): OriginalUri,
    StrictQuery(params): StrictQuery<Params>,
) -> Result<Response, Problem> {
    let (filter, binding) = (params.filter()?, params.binding());
    let (sealer, reader) = (identity.sealer(), principal.owner);
    let page = PageOf { sealer, reader, binding: &binding, uri: &uri, limit: params.limit };
    let before = page.begins_behind_id(params.cursor.as_deref())?;
    identity.accounts().record_read(Act::AuditRead, principal.session).await.map_err(problem)?;
    let events = identity.accounts().audit_events(&filter, before, page.rows_max()).await.map_err(problem)?;
    Ok(page.answer(events, |event| event.id, Shown::from))
}

pub(crate) fn described() -> Operation {
    let event = json!({
        "id": EXAMPLE_ID, "occurred_at": EXAMPLE_TIME, "act": "login-succeeded", "actor": {"type": "account", "id": EXAMPLE_ID},
        "account_id": EXAMPLE_ID, "session_id": EXAMPLE_ID, "client_address": "192.0.2.7",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "detail": null,
    });
    Operation::new(Tag::Accounts, "listAuditEvents", "List audit events")
        .says("Who did what to accounts, sessions and keys, newest first. Reading them is an event, too.")
        .admin()
        .query("account", "Done to this account or by it.", json!({"type": "string", "format": "uuid"}))
        .query("act", "Any of these.", one_of(&Act::ALL.iter().map(|act| act.as_str()).collect::<Vec<_>>()))
        .pages()
        .json(
            200,
            "A page of events.",
            &["Link"],
            &reference("AuditPage"),
            &json!({"items": [event], "next_cursor": null}),
        )
        // that they were read is written down
        .refuses(&[ProblemCode::DiskFull])
}

pub(crate) fn schema() -> Value {
    let id = || json!({"type": ["string", "null"], "format": "uuid"});
    let text = || json!({"type": ["string", "null"]});
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "occurred_at": time(),
        "act": {"type": "string"},
        "actor": whole(json!({"type": {"type": "string"}, "id": id()})),
        "account_id": id(),
        "session_id": id(),
        "client_address": text(),
        "trace_id": text(),
        "detail": text(),
    }))
}

pub(crate) fn page_schema() -> Value {
    page_of("AuditEvent")
}
