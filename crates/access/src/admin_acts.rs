//! What admins do at services without the identity database, by way of the read database to the audit events that stand
//! there: `read_model.admin_act`, which the functions here own. [`record`] is called in the transaction of what is done;
//! who has the identity database takes what is there with [`take`] and gives it back with [`taken`].

use std::net::IpAddr;

use backends::database::Pool;
use domain::Time;
use process::clock;
use process::context::RequestContext;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::verifier::Principal;

/// An admin read what is parked.
pub const PARKED_READ: &str = "parked-read";
/// An admin had a parked event tried again.
pub const PARKED_RETRIED: &str = "parked-retried";

/// How many are taken at once.
const TAKEN_MAX: i64 = 500;

/// Something that an admin did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAct {
    /// UUID v7, made when it was done.
    pub id: Uuid,
    /// When.
    pub occurred_at: Time,
    /// What, as audit events name it.
    pub act: String,
    /// Who.
    pub actor_id: Uuid,
    /// In which session.
    pub session_id: Uuid,
    /// From where.
    pub client: Option<IpAddr>,
    /// The request's trace.
    pub trace_id: Option<String>,
    /// What it was done to.
    pub detail: Option<String>,
}

/// Notes what the admin of the request in progress does. It counts once the transaction is committed.
///
/// # Errors
/// The database.
pub async fn record(
    connection: &mut PgConnection,
    admin: &Principal,
    act: &'static str,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    let context = RequestContext::current();
    sqlx::query!(
        "insert into read_model.admin_act (id, occurred_at, act, actor_id, session_id, client_address, trace_id, detail)
         values ($1, $2, $3, $4, $5, $6::text::inet, $7, $8)",
        clock::new_id(),
        clock::now(),
        act,
        admin.owner.0,
        admin.session,
        context.client().map(|client| client.to_string()),
        context.trace_id(),
        detail
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The oldest ones that nobody has taken.
///
/// # Errors
/// The database.
pub async fn take(pool: &Pool) -> Result<Vec<AdminAct>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, occurred_at as "occurred_at: Time", act, actor_id, session_id, host(client_address) as client,
                  trace_id, detail
           from read_model.admin_act order by id limit $1"#,
        TAKEN_MAX
    )
    .fetch_all(pool)
    .await?;
    let act = rows.into_iter().map(|row| AdminAct {
        id: row.id,
        occurred_at: row.occurred_at,
        act: row.act,
        actor_id: row.actor_id,
        session_id: row.session_id,
        client: row.client.and_then(|client| client.parse().ok()),
        trace_id: row.trace_id,
        detail: row.detail,
    });
    Ok(act.collect())
}

/// Forgets those that stand elsewhere now.
///
/// # Errors
/// The database.
pub async fn taken(pool: &Pool, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from read_model.admin_act where id = any($1)", ids).execute(pool).await?;
    Ok(())
}
