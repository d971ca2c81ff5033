//! What a restore from a backup has brought back, undone: sessions, keys, and what was done to accounts since.

use std::collections::{BTreeMap, HashMap, HashSet};

use access::Role;
use access::token::RootSecret;
use backends::database::Pool;
use chrono::TimeDelta;
use domain::Time;
use process::clock;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::audit::{Act, Class, EVENTS_MAX, Entry};
use crate::error::StartError;
use crate::key_revocation::{self, Which};
use crate::keys;
use crate::ledger::Line;
use crate::password::Hasher;

/// The clocks of those who write audit events and of the database, which deletes them as too old, differ by so much at most.
const CLOCKS_DIFFER_S: i64 = 3_600;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that were ended.
    pub sessions_ended: u64,
    /// The key that signs from now on. All others are of no use any more.
    pub kid: String,
    /// Accounts whose role or disabled is again what it was, with what that is.
    pub accounts_changed: Vec<(Uuid, String)>,
    /// Accounts whose password was changed since the backup: the one that came back is not taken any more, and the operator
    /// has to set another.
    pub passwords_refused: Vec<Uuid>,
    /// API keys that were revoked since the backup, and are again.
    pub api_keys_revoked: Vec<Uuid>,
    /// Accounts that were made since the backup, and are not there.
    pub accounts_lost: Vec<Uuid>,
}

/// What was last done to an account since the backup.
#[derive(Default)]
struct Since {
    role: Option<Role>,
    disabled: Option<bool>,
    password: bool,
    api_keys: Vec<Uuid>,
}

impl Since {
    fn forget(&mut self, act: &str) {
        match Act::parse(act) {
            Some(Act::RoleChanged) => self.role = None,
            Some(Act::AccountDisabled | Act::AccountEnabled) => self.disabled = None,
            Some(Act::PasswordChanged | Act::PasswordSet) => self.password = false,
            _ => {}
        }
    }
}

/// Ends all sessions, makes a new signing key and takes all others away at once, and does again what the ledger has and the
/// database has not. All of it or nothing.
///
/// # Errors
/// The database.
pub async fn after_restore(pool: &Pool, secret: &RootSecret, ledger: &[Line]) -> Result<Restored, StartError> {
    let mut transaction = pool.begin().await?;
    let sessions_ended =
        sqlx::query!("update identity.session set ended_at = clock_timestamp() where ended_at is null")
            .execute(&mut *transaction)
            .await?
            .rows_affected();
    let kid = keys::replace(&mut transaction, secret).await?;
    let mut restored = Restored { sessions_ended, kid, ..Restored::default() };
    let hasher = Hasher::new()?;
    for (account, since) in lost_acts(&mut transaction, ledger).await? {
        apply(&mut transaction, account, &since, hasher.of_nobody(), &mut restored).await?;
    }
    transaction.commit().await?;
    Ok(restored)
}

/// Of each account what was last done to it and is not known to the database.
async fn lost_acts(connection: &mut PgConnection, ledger: &[Line]) -> Result<BTreeMap<Uuid, Since>, sqlx::Error> {
    let ids: Vec<Uuid> = ledger.iter().map(|line| line.id).collect();
    let known = sqlx::query_scalar!(
        r#"select array(select id from identity.audit_event where id = any($1)) as "ids!: Vec<Uuid>""#,
        &ids
    )
    .fetch_one(&mut *connection)
    .await?;
    let known: HashSet<Uuid> = known.into_iter().collect();
    let mut kept_since = HashMap::new();
    for class in [Class::Administration, Class::Account] {
        kept_since.insert(class, kept_since_of(connection, class).await?);
    }
    let is_lost = |line: &Line| {
        let since = Act::parse(&line.act).and_then(|act| kept_since.get(&act.class()));
        !known.contains(&line.id) && since.is_none_or(|since| line.at > *since)
    };
    let mut lines: Vec<&Line> = ledger.iter().collect();
    lines.sort_by_key(|line| (line.at, line.id));
    let mut accounts: BTreeMap<Uuid, Since> = BTreeMap::new();
    for line in lines {
        if !is_lost(line) {
            // what was done later is known: an earlier run did it again, or the operator something else
            if let Some(since) = accounts.get_mut(&line.account) {
                since.forget(&line.act);
            }
            continue;
        }
        let since = accounts.entry(line.account).or_default();
        match Act::parse(&line.act) {
            Some(Act::RoleChanged) => {
                let new = line.detail.as_deref().and_then(|detail| detail.rsplit(' ').next());
                since.role = new.and_then(Role::parse).or(since.role);
            }
            Some(Act::AccountDisabled) => since.disabled = Some(true),
            Some(Act::AccountEnabled) => since.disabled = Some(false),
            Some(Act::PasswordChanged | Act::PasswordSet) => since.password = true,
            Some(Act::ApiKeyRevoked) => {
                since.api_keys.extend(line.detail.as_deref().and_then(|id| Uuid::parse_str(id).ok()));
            }
            _ => {}
        }
    }
    Ok(accounts)
}

/// Since when no event of a class was deleted as too old, or as one too many: what is older and not there may have been
/// there. It does not depend on what was done since the restore.
async fn kept_since_of(connection: &mut PgConnection, class: Class) -> Result<Time, sqlx::Error> {
    let kept = sqlx::query!(
        r#"select count(*) as "events!", min(occurred_at) as "first: Time" from identity.audit_event where class = $1"#,
        class.as_str()
    )
    .fetch_one(connection)
    .await?;
    let by_age = clock::now() - TimeDelta::days(class.days().into()) + TimeDelta::seconds(CLOCKS_DIFFER_S);
    let by_number = kept.first.filter(|_| kept.events >= EVENTS_MAX);
    Ok(by_number.map_or(by_age, |first| first.max(by_age)))
}

async fn apply(
    connection: &mut PgConnection,
    account: Uuid,
    since: &Since,
    no_password: &str,
    restored: &mut Restored,
) -> Result<(), sqlx::Error> {
    let id = domain::OwnerId(account);
    let before = sqlx::query!("select role, disabled from identity.account where id = $1 for update", account)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(before) = before else {
        restored.accounts_lost.push(account);
        return Ok(());
    };
    let role = since.role.map_or(before.role.as_str(), |role| role.as_str());
    let disabled = since.disabled.unwrap_or(before.disabled);
    if role != before.role || disabled != before.disabled {
        sqlx::query!(
            "update identity.account set role = $2, disabled = $3, version = gen_random_uuid() where id = $1",
            account,
            role,
            disabled
        )
        .execute(&mut *connection)
        .await?;
    }
    if role != before.role {
        let detail = format!("{} to {role}", before.role);
        Entry::of(Act::RoleChanged).account(id).detail(detail).write(connection).await?;
        restored.accounts_changed.push((account, format!("role {role}")));
    }
    if disabled != before.disabled {
        let act = if disabled { Act::AccountDisabled } else { Act::AccountEnabled };
        Entry::of(act).account(id).detail("after a restore").write(connection).await?;
        restored.accounts_changed.push((account, if disabled { "disabled" } else { "enabled" }.to_owned()));
    }
    if since.password {
        sqlx::query!("update identity.account set password_hash = $2 where id = $1", account, no_password)
            .execute(&mut *connection)
            .await?;
        Entry::of(Act::PasswordSet).account(id).detail("none, after a restore").write(connection).await?;
        restored.passwords_refused.push(account);
    }
    restored.api_keys_revoked.extend(key_revocation::revoke(connection, id, Which::These(&since.api_keys)).await?);
    Ok(())
}
