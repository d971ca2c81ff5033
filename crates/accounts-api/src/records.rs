//! What is known of an account beside its tasks, as an archive of everything that it has shows it.

use std::error::Error;

use domain::OwnerId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use identity::audit::{Actor, Filter};
use identity::{AuditEvent, Identity};
use uuid::Uuid;

use crate::account::OwnAccount;
use crate::audit::Shown;

/// Events read together.
const PAGE_EVENTS_MAX: i64 = 1_000;

type Failed = Box<dyn Error + Send + Sync>;
/// Events by their ids, as JSON.
type Page = Vec<(Uuid, String)>;

/// Gives an account as it sees itself, as JSON.
pub fn profile(identity: &Identity) -> impl Fn(OwnerId) -> BoxFuture<'static, Result<String, Failed>> + use<> {
    let identity = identity.clone();
    move |owner| {
        let identity = identity.clone();
        async move {
            let account = identity.accounts().get(owner).await?;
            Ok(serde_json::to_string(&OwnAccount::from(account))?)
        }
        .boxed()
    }
}

/// Gives a page of what was done to an account or by it, as JSON: the newest first, older than the one named.
pub fn audit(
    identity: &Identity,
) -> impl Fn(OwnerId, Option<Uuid>) -> BoxFuture<'static, Result<Page, Failed>> + use<> {
    let identity = identity.clone();
    move |owner, before| {
        let identity = identity.clone();
        async move {
            let filter = Filter { account: Some(owner), acts: Vec::new() };
            let events = identity.accounts().audit_events(&filter, before, PAGE_EVENTS_MAX).await?;
            let line = |event: AuditEvent| Ok((event.id, serde_json::to_string(&Shown::from(seen_by(owner, event)))?));
            events.into_iter().map(line).collect()
        }
        .boxed()
    }
}

/// Where another account was when it did something is that one's own.
fn seen_by(owner: OwnerId, event: AuditEvent) -> AuditEvent {
    match event.actor {
        Actor::Account(actor) if actor != owner => AuditEvent { client: None, trace_id: None, ..event },
        Actor::Account(_) | Actor::Anonymous | Actor::Operator => event,
    }
}
