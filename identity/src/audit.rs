//! Audit events: who did what, from where, when. Each is written in the transaction of what it tells about, so that there
//! is neither without the other; what changes nothing (a failed login, a read) is answered only once its event is
//! written. An event has ids and an address, and never what was typed, a token, or anything of a task.
//!
//! Who asks is taken from the request in progress; where there is none, it is the operator at the command line.

use std::net::IpAddr;
use std::time::Duration;

use access::admin_acts::{self, AdminAct};
use backends::database::Pool;
use backends::database::in_time;
use domain::{OwnerId, Time};
use metrics::counter;
use process::clock;
use process::context::RequestContext;
use process::periodic::Periodic;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::IdentityError;

/// At most so many of a class are kept; beyond it the oldest go.
pub const EVENTS_MAX: i64 = 1_000_000;
/// How many of a class are deleted at a time.
pub const SWEPT_MAX: i64 = 10_000;

/// How often what was done at other services is fetched.
const COLLECT_INTERVAL: Duration = Duration::from_secs(1);
const COLLECT_TIME_MAX: Duration = Duration::from_secs(5);

/// By whom an event can be caused, and so how often. Each class has its own time and number ([`EVENTS_MAX`]): whoever
/// floods one of them pushes out nothing of the classes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// By admins and the operator.
    Administration,
    /// By who has an account, and rarely.
    Account,
    /// By who has an account or knows of one, all the time.
    Routine,
    /// By anybody.
    Anybody,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Administration, Self::Account, Self::Routine, Self::Anybody];

    /// The name that it is stored by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administration => "administration",
            Self::Account => "account",
            Self::Routine => "routine",
            Self::Anybody => "anybody",
        }
    }

    /// For how many days its events are kept.
    #[must_use]
    pub const fn days(self) -> i32 {
        match self {
            Self::Administration | Self::Account => 400,
            Self::Routine | Self::Anybody => 30,
        }
    }
}

macro_rules! acts {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $class:ident;)*) => {
        /// What is told about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Act {
            $($(#[doc = $doc])* $name,)*
        }

        impl Act {
            /// All of them.
            pub const ALL: &'static [Act] = &[$(Act::$name,)*];

            /// The name that it is stored and shown by.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Act::$name => $text,)* }
            }

            /// Its class, unless [`Class::Anybody`] caused it.
            pub(crate) const fn class(self) -> Class {
                match self { $(Act::$name => Class::$class,)* }
            }

            /// The act of this name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Act::$name),)* _ => None }
            }
        }
    };
}

acts! {
    /// An account was registered, or made by the operator.
    AccountCreated = "account-created", Administration;
    /// A session began.
    LoginSucceeded = "login-succeeded", Routine;
    /// Wrong password, unknown address (then there is no account), or a disabled account (then that is the detail).
    LoginFailed = "login-failed", Routine;
    /// A refresh token was spent for new tokens.
    SessionRefreshed = "session-refreshed", Routine;
    /// A spent refresh token was used again, which ended its session.
    RefreshTokenReused = "refresh-token-reused", Account;
    /// A session was ended by who had begun it.
    LoggedOut = "logged-out", Routine;
    /// A session was ended from another one of its account, or because there were too many; which, is the detail.
    SessionEnded = "session-ended", Routine;
    /// The account changed its password.
    PasswordChanged = "password-changed", Account;
    /// It tried to, with a wrong current one.
    PasswordChangeRefused = "password-change-refused", Account;
    /// The operator set a password.
    PasswordSet = "password-set", Administration;
    /// An account got another role; which, is the detail.
    RoleChanged = "role-changed", Administration;
    /// An account may not log in any more.
    AccountDisabled = "account-disabled", Administration;
    /// It may again.
    AccountEnabled = "account-enabled", Administration;
    /// There is a new signing key; its id is the detail.
    KeysRotated = "keys-rotated", Administration;
    /// The operator made an API key; its id and scopes are the detail.
    ApiKeyCreated = "api-key-created", Administration;
    /// An API key was revoked, by the operator or with the account's disabling; its id is the detail.
    ApiKeyRevoked = "api-key-revoked", Administration;
    /// An API key was exchanged for an access token; the key stands in the place of the session.
    ApiKeyUsed = "api-key-used", Routine;
    /// An API key was refused. Why (revoked, expired, disabled) is the detail; of one that is unknown there is no account.
    ApiKeyRefused = "api-key-refused", Routine;
    /// An admin read the list of accounts.
    AccountsRead = "accounts-read", Routine;
    /// An admin read these events.
    AuditRead = "audit-read", Routine;
    /// An admin read what is parked.
    ParkedRead = "parked-read", Routine;
    /// An admin had a parked event tried again; which, is the detail.
    ParkedRetried = "parked-retried", Administration;
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Somebody with an access token, or who has just shown a password.
    Account(OwnerId),
    /// Somebody who has shown neither.
    Anonymous,
    /// Whoever is at the command line.
    Operator,
}

impl Actor {
    /// `account`, `anonymous` or `operator`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Anonymous => "anonymous",
            Self::Operator => "operator",
        }
    }

    /// The account's id.
    #[must_use]
    pub fn id(self) -> Option<OwnerId> {
        match self {
            Self::Account(id) => Some(id),
            Self::Anonymous | Self::Operator => None,
        }
    }
}

/// An audit event.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// UUID v7.
    pub id: Uuid,
    /// When.
    pub occurred_at: Time,
    /// What, see [`Act`].
    pub act: String,
    /// Who.
    pub actor: Actor,
    /// To whose account.
    pub account: Option<OwnerId>,
    /// In which session, or by which API key.
    pub session: Option<Uuid>,
    /// From where.
    pub client: Option<IpAddr>,
    /// The request's trace.
    pub trace_id: Option<String>,
    /// More about it.
    pub detail: Option<String>,
}

/// What is to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    act: Act,
    actor: Option<Actor>,
    account: Option<OwnerId>,
    session: Option<Uuid>,
    detail: Option<String>,
}

impl Entry {
    pub(crate) fn of(act: Act) -> Self {
        Self { act, actor: None, account: None, session: None, detail: None }
    }

    /// To whose account.
    pub(crate) fn account(self, account: OwnerId) -> Self {
        Self { account: Some(account), ..self }
    }

    /// By the account that it is about, which the request did not know when it began.
    pub(crate) fn by_subject(self) -> Self {
        Self { actor: self.account.map(Actor::Account), ..self }
    }

    pub(crate) fn session(self, session: Uuid) -> Self {
        Self { session: Some(session), ..self }
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Writes it. It counts once the transaction is committed.
    pub(crate) async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let context = RequestContext::in_progress();
        let actor = self.actor.unwrap_or(match &context {
            Some(context) => context.owner().map_or(Actor::Anonymous, Actor::Account),
            None => Actor::Operator,
        });
        let class = match (self.act, actor, self.account) {
            (Act::AccountCreated, Actor::Account(_), _) | (Act::LoginFailed | Act::ApiKeyRefused, _, None) => {
                Class::Anybody
            }
            _ => self.act.class(),
        };
        sqlx::query!(
            "insert into identity.audit_event (id, occurred_at, act, class, actor_type, actor_id, account_id, session_id,
                                               client_address, trace_id, detail)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::inet, $10, $11)",
            clock::new_id(),
            clock::now(),
            self.act.as_str(),
            class.as_str(),
            actor.kind(),
            actor.id().map(|id| id.0),
            self.account.map(|id| id.0),
            self.session,
            context.as_ref().and_then(RequestContext::client).map(|client| client.to_string()),
            context.as_ref().map(RequestContext::trace_id),
            self.detail
        )
        .execute(connection)
        .await?;
        counter!("audit_events_total", "act" => self.act.as_str()).increment(1);
        Ok(())
    }
}

/// Which events are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Done to this account or by it.
    pub account: Option<OwnerId>,
    /// Of these kinds; none: of all.
    pub acts: Vec<Act>,
}

/// A page of events, newest first, older than the one named.
pub(crate) async fn list(
    pool: &Pool,
    filter: &Filter,
    before: Option<Uuid>,
    events_max: i64,
) -> Result<Vec<AuditEvent>, IdentityError> {
    let acts: Vec<String> = filter.acts.iter().map(|act| act.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"select id, occurred_at as "occurred_at: Time", act, actor_type, actor_id, account_id, session_id,
                  host(client_address) as client, trace_id, detail
           from identity.audit_event
           where ($1::uuid is null or account_id = $1 or actor_id = $1)
             and (cardinality($2::text[]) = 0 or act = any($2))
             and ($3::uuid is null or id < $3)
           order by id desc limit $4"#,
        filter.account.map(|id| id.0),
        &acts,
        before,
        events_max
    )
    .fetch_all(pool)
    .await?;
    let event = rows.into_iter().map(|row| AuditEvent {
        id: row.id,
        occurred_at: row.occurred_at,
        act: row.act,
        actor: match (row.actor_type.as_str(), row.actor_id) {
            ("account", Some(id)) => Actor::Account(OwnerId(id)),
            ("operator", _) => Actor::Operator,
            _ => Actor::Anonymous,
        },
        account: row.account_id.map(OwnerId),
        session: row.session_id,
        client: row.client.and_then(|client| client.parse().ok()),
        trace_id: row.trace_id,
        detail: row.detail,
    });
    Ok(event.collect())
}

/// Deletes what is too old, or more than `events_max` of a class; of each class at most [`SWEPT_MAX`], and gives back
/// whether it was so many of any.
///
/// # Errors
/// The database.
pub async fn sweep(pool: &Pool, events_max: i64) -> Result<bool, sqlx::Error> {
    let mut more = false;
    for class in Class::ALL {
        let swept = sqlx::query!(
            "delete from identity.audit_event where id in (
                 select id from identity.audit_event
                 where class = $1 and (occurred_at < now() - make_interval(days => $2) or id <= (
                     select id from identity.audit_event where class = $1 order by id desc offset $3 limit 1))
                 order by id limit $4)",
            class.as_str(),
            class.days(),
            events_max,
            SWEPT_MAX
        )
        .execute(pool)
        .await?;
        more |= swept.rows_affected() >= SWEPT_MAX.unsigned_abs();
    }
    Ok(more)
}

/// Fetches what admins did at the services without this database, each second, until `shutdown`.
pub(crate) async fn collect(pool: Pool, read_pool: Pool, shutdown: CancellationToken) {
    let mut collecting = Periodic::every(COLLECT_INTERVAL, "fetching what admins did at other services", shutdown);
    while collecting.due().await {
        collecting.seen(in_time(COLLECT_TIME_MAX, fetch(&pool, &read_pool)).await);
    }
}

/// Written here first and forgotten there second: what is cut off between is fetched again, and is there already.
async fn fetch(pool: &Pool, read_pool: &Pool) -> Result<(), sqlx::Error> {
    let acts = admin_acts::take(read_pool).await?;
    if acts.is_empty() {
        return Ok(());
    }
    for act in &acts {
        store(pool, act).await?;
    }
    let ids: Vec<Uuid> = acts.iter().map(|act| act.id).collect();
    admin_acts::taken(read_pool, &ids).await
}

async fn store(pool: &Pool, act: &AdminAct) -> Result<(), sqlx::Error> {
    let known = Act::parse(&act.act);
    if known.is_none() {
        tracing::error!(act = act.act, "an admin did what has no name here; is this program older than the others?");
    }
    let stored = sqlx::query!(
        "insert into identity.audit_event (id, occurred_at, act, class, actor_type, actor_id, account_id, session_id,
                                           client_address, trace_id, detail)
         values ($1, $2, $3, $4, 'account', $5, null, $6, $7::text::inet, $8, $9) on conflict (id) do nothing",
        act.id,
        act.occurred_at,
        act.act,
        known.map_or(Class::Administration, Act::class).as_str(),
        act.actor_id,
        act.session_id,
        act.client.map(|client| client.to_string()),
        act.trace_id,
        act.detail
    )
    .execute(pool)
    .await?;
    if let Some(known) = known.filter(|_| stored.rows_affected() == 1) {
        counter!("audit_events_total", "act" => known.as_str()).increment(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_act_has_a_name_of_its_own() {
        for act in Act::ALL {
            assert_eq!(Act::parse(act.as_str()), Some(*act));
        }
        assert_eq!(Act::parse("login"), None);
        assert_eq!(Act::parse(admin_acts::PARKED_READ), Some(Act::ParkedRead));
        assert_eq!(Act::parse(admin_acts::PARKED_RETRIED), Some(Act::ParkedRetried));
    }
}
