//! Accounts: making, finding, changing. Works on the database alone, so that the command line can use it while a server
//! runs or not.

use std::sync::Arc;
use std::time::Duration;

use access::Role;
use backends::database::{DiskSpace, Pool};
use domain::{OwnerId, Time};
use process::clock;
use process::context::RequestContext;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use crate::audit::{self, Act, AuditEvent, Entry};
use crate::error::{IdentityError, StartError};
use crate::key_revocation::{self, Which};
use crate::password::Hasher;
use crate::values::{Email, Name, Password};

/// What a request may wait for the database in all, in milliseconds: a connection that died silently costs one
/// attempt.
const ANSWER_MS_MAX: u64 = 15_000;

/// An account, as it may be shown to itself and to an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id: the owner of its tasks.
    pub id: OwnerId,
    /// In lower case.
    pub email: String,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may not log in.
    pub disabled: bool,
    /// Where its events live.
    pub shard: i16,
    /// When it was made.
    pub created_at: Time,
    /// Another one after each change of what it sees of itself; never one that it had before.
    pub version: Uuid,
}

/// What a new account is made from.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Must not be another account's.
    pub email: Email,
    /// What it is called.
    pub name: Name,
    /// In clear text.
    pub password: Password,
    /// What it may do.
    pub role: Role,
}

/// What an admin may change; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccountChange {
    /// What it may do.
    pub role: Option<Role>,
    /// Whether it may not log in.
    pub disabled: Option<bool>,
}

/// The accounts of a database. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) pool: Pool,
    pub(crate) hasher: Hasher,
    shards: Arc<[i16]>,
    /// Of their database.
    disk_space: DiskSpace,
}

struct Row {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    disabled: bool,
    shard: i16,
    created_at: Time,
    version: Uuid,
}

impl TryFrom<Row> for Account {
    type Error = IdentityError;

    fn try_from(row: Row) -> Result<Self, IdentityError> {
        Ok(Self {
            id: OwnerId(row.id),
            email: row.email,
            name: row.name,
            role: role_of(&row.role)?,
            disabled: row.disabled,
            shard: row.shard,
            created_at: row.created_at,
            version: row.version,
        })
    }
}

pub(crate) fn role_of(text: &str) -> Result<Role, IdentityError> {
    Role::parse(text).ok_or_else(|| IdentityError::Internal(format!("an account has the role {text:?}").into()))
}

impl Accounts {
    /// With the shards that new accounts are spread over.
    ///
    /// # Errors
    /// When there is none, or passwords cannot be hashed.
    pub fn new(pool: Pool, shards: Vec<i16>) -> Result<Self, StartError> {
        if shards.is_empty() {
            return Err(StartError::NoShard);
        }
        Ok(Self { pool, hasher: Hasher::new()?, shards: shards.into(), disk_space: DiskSpace::default() })
    }

    /// Beside others who write to the same disk.
    pub(crate) fn beside(self, disk_space: DiskSpace) -> Self {
        Self { disk_space, ..self }
    }

    /// What `work` comes to, or that the database does not answer. If it has no room, all who write there learn of it.
    pub(crate) async fn answered<T>(
        &self,
        work: impl Future<Output = Result<T, IdentityError>>,
    ) -> Result<T, IdentityError> {
        let answer = timeout(Duration::from_millis(ANSWER_MS_MAX), work).await;
        let answer = answer.unwrap_or(Err(IdentityError::Unavailable(sqlx::Error::PoolTimedOut)));
        if let Err(IdentityError::Unavailable(error)) = &answer {
            self.disk_space.notice(error);
        }
        answer
    }

    /// Asked before something is written that stays. (Who logs in, refreshes and logs out is let through: reads go on where
    /// there is little room, and these rows go away.)
    fn check_room(&self) -> Result<(), IdentityError> {
        self.disk_space.shortage().map_or(Ok(()), |reason| Err(IdentityError::DiskFull(reason)))
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`IdentityError::EmailTaken`], [`IdentityError::Overloaded`], [`IdentityError::DiskFull`], the database.
    pub async fn create(&self, new: NewAccount) -> Result<Account, IdentityError> {
        self.check_room()?;
        self.answered(async {
            let NewAccount { email, name, password, role } = new;
            // before the costly part; the constraint decides
            if self.find_by_email(&email).await?.is_some() {
                return Err(IdentityError::EmailTaken);
            }
            let password_hash = self.hasher.hash(password).await?;
            let id = clock::new_id();
            let account = Account {
                id: OwnerId(id),
                email: email.as_str().to_owned(),
                name: name.as_str().to_owned(),
                role,
                disabled: false,
                shard: shard_for(id, &self.shards),
                created_at: clock::now(),
                version: Uuid::new_v4(),
            };
            let mut transaction = self.pool.begin().await?;
            let made = sqlx::query!(
                "insert into identity.account (id, email, name, role, shard, password_hash, created_at, version)
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (email) do nothing",
                id,
                account.email,
                account.name,
                role.as_str(),
                account.shard,
                password_hash,
                account.created_at,
                account.version,
            )
            .execute(&mut *transaction)
            .await?;
            if made.rows_affected() == 0 {
                return Err(IdentityError::EmailTaken);
            }
            let made = Entry::of(Act::AccountCreated).account(account.id);
            match RequestContext::in_progress() {
                Some(_) => made.by_subject(),
                None => made,
            }
            .write(&mut transaction)
            .await?;
            transaction.commit().await?;
            Ok(account)
        })
        .await
    }

    /// The account of an address.
    ///
    /// # Errors
    /// The database.
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, IdentityError> {
        self.answered(async {
            sqlx::query_as!(
            Row,
            "select id, email, name, role, disabled, shard, created_at, version from identity.account where email = $1",
            email.as_str()
        )
        .fetch_optional(&self.pool)
        .await?
        .map(Account::try_from)
        .transpose()
        })
        .await
    }

    /// The account of an id.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], the database.
    pub async fn get(&self, id: OwnerId) -> Result<Account, IdentityError> {
        self.answered(async {
            sqlx::query_as!(
            Row,
            "select id, email, name, role, disabled, shard, created_at, version from identity.account where id = $1",
            id.0
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(IdentityError::NotFound)?
        .try_into()
        })
        .await
    }

    /// The version of an account, of which [`Account::version`] tells.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], the database.
    pub async fn version(&self, id: OwnerId) -> Result<Uuid, IdentityError> {
        self.answered(async {
            sqlx::query_scalar!("select version from identity.account where id = $1", id.0)
                .fetch_optional(&self.pool)
                .await?
                .ok_or(IdentityError::NotFound)
        })
        .await
    }

    /// A page of accounts in the order they were made, after the one named.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self, after: Option<OwnerId>, accounts_max: i64) -> Result<Vec<Account>, IdentityError> {
        self.answered(async {
            sqlx::query_as!(
                Row,
                "select id, email, name, role, disabled, shard, created_at, version from identity.account
             where id > $1 order by id limit $2",
                after.map_or(Uuid::nil(), |id| id.0),
                accounts_max
            )
            .fetch_all(&self.pool)
            .await?
            .into_iter()
            .map(Account::try_from)
            .collect()
        })
        .await
    }

    /// Gives an account another name.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::DiskFull`], the database.
    pub async fn rename(&self, id: OwnerId, name: &Name) -> Result<Account, IdentityError> {
        self.check_room()?;
        self.answered(async {
            sqlx::query_as!(
                Row,
                "update identity.account set name = $2, version = gen_random_uuid() where id = $1
             returning id, email, name, role, disabled, shard, created_at, version",
                id.0,
                name.as_str()
            )
            .fetch_optional(&self.pool)
            .await?
            .ok_or(IdentityError::NotFound)?
            .try_into()
        })
        .await
    }

    /// Changes role or disabled. Disabling ends the account's sessions and revokes its API keys. Taking the role of an admin
    /// away ends the sessions too, since the role stands in their access tokens.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], the database.
    pub async fn change(&self, id: OwnerId, change: AccountChange) -> Result<Account, IdentityError> {
        self.answered(async {
            let mut transaction = self.pool.begin().await?;
            let before: Account = sqlx::query_as!(
                Row,
                "select id, email, name, role, disabled, shard, created_at, version from identity.account where id = $1
             for no key update",
                id.0
            )
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(IdentityError::NotFound)?
            .try_into()?;
            let role = change.role.unwrap_or(before.role);
            let disabled = change.disabled.unwrap_or(before.disabled);
            let version = sqlx::query_scalar!(
                "update identity.account set role = $2, disabled = $3, version = gen_random_uuid() where id = $1
             returning version",
                id.0,
                role.as_str(),
                disabled
            )
            .fetch_one(&mut *transaction)
            .await?;
            let demoted = before.role == Role::Admin && role != Role::Admin;
            if disabled || demoted {
                end_sessions(&mut transaction, id, None).await?;
            }
            if role != before.role {
                let detail = format!("{} to {}", before.role.as_str(), role.as_str());
                Entry::of(Act::RoleChanged).account(id).detail(detail).write(&mut transaction).await?;
            }
            if disabled != before.disabled {
                let act = if disabled { Act::AccountDisabled } else { Act::AccountEnabled };
                Entry::of(act).account(id).write(&mut transaction).await?;
            }
            if disabled {
                key_revocation::revoke(&mut transaction, id, Which::All).await?;
            }
            transaction.commit().await?;
            Ok(Account { role, disabled, version, ..before })
        })
        .await
    }

    /// Sets a password without asking for the old one, and ends all sessions: for the operator.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Overloaded`], the database.
    pub async fn set_password(&self, id: OwnerId, password: Password) -> Result<(), IdentityError> {
        self.answered(async {
            let hash = self.hasher.hash(password).await?;
            let mut transaction = self.pool.begin().await?;
            let updated = sqlx::query!("update identity.account set password_hash = $2 where id = $1", id.0, hash)
                .execute(&mut *transaction)
                .await?;
            if updated.rows_affected() == 0 {
                return Err(IdentityError::NotFound);
            }
            end_sessions(&mut transaction, id, None).await?;
            Entry::of(Act::PasswordSet).account(id).write(&mut transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Changes a password and ends the account's sessions but the one that asks.
    ///
    /// # Errors
    /// [`IdentityError::WrongPassword`], [`IdentityError::NotFound`], [`IdentityError::Overloaded`],
    /// [`IdentityError::DiskFull`], the database.
    pub async fn change_password(
        &self,
        id: OwnerId,
        session: Uuid,
        current: Password,
        new: Password,
    ) -> Result<(), IdentityError> {
        self.check_room()?;
        self.answered(async {
            let old_hash = sqlx::query_scalar!("select password_hash from identity.account where id = $1", id.0)
                .fetch_optional(&self.pool)
                .await?
                .ok_or(IdentityError::NotFound)?;
            if !self.hasher.verify(current, Some(old_hash.clone())).await? {
                self.record(Entry::of(Act::PasswordChangeRefused).account(id).session(session)).await?;
                return Err(IdentityError::WrongPassword);
            }
            let new_hash = self.hasher.hash(new).await?;
            let mut transaction = self.pool.begin().await?;
            let updated = sqlx::query!(
                "update identity.account set password_hash = $3 where id = $1 and password_hash = $2",
                id.0,
                old_hash,
                new_hash
            )
            .execute(&mut *transaction)
            .await?;
            if updated.rows_affected() == 0 {
                // somebody else changed it in between: what was sent is not the current one any more
                return Err(IdentityError::WrongPassword);
            }
            end_sessions(&mut transaction, id, Some(session)).await?;
            Entry::of(Act::PasswordChanged).account(id).session(session).write(&mut transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// A page of audit events, newest first, older than the one named.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_events(
        &self,
        filter: &audit::Filter,
        before: Option<Uuid>,
        events_max: i64,
    ) -> Result<Vec<AuditEvent>, IdentityError> {
        self.answered(async { audit::list(&self.pool, filter, before, events_max).await }).await
    }

    /// Writes down that an admin reads something here, before it is shown.
    ///
    /// # Errors
    /// The database.
    pub async fn record_read(&self, act: Act, session: Uuid) -> Result<(), IdentityError> {
        self.answered(async { self.record(Entry::of(act).session(session)).await }).await
    }

    /// Writes down what changes nothing else.
    pub(crate) async fn record(&self, entry: Entry) -> Result<(), IdentityError> {
        Ok(entry.write(&mut *self.pool.acquire().await?).await?)
    }
}

/// Ends an account's sessions, but one. The account's row is locked by now, so that no login slips in beside.
async fn end_sessions(
    transaction: &mut sqlx::PgConnection,
    account: OwnerId,
    but: Option<Uuid>,
) -> Result<(), IdentityError> {
    sqlx::query!(
        "update identity.session set ended_at = clock_timestamp()
         where account_id = $1 and ended_at is null and ($2::uuid is null or id <> $2)",
        account.0,
        but
    )
    .execute(&mut *transaction)
    .await?;
    Ok(())
}

/// Spreads accounts evenly and for ever the same; what was chosen is stored, so more shards move nobody.
fn shard_for(id: Uuid, shards: &[i16]) -> i16 {
    let hash = Sha256::digest(id.as_bytes());
    let number = hash.first_chunk().copied().map_or(0, u64::from_be_bytes);
    let count = shards.len() as u64;
    shards.get(usize::try_from(number % count.max(1)).unwrap_or(0)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_spread_over_the_shards() {
        let mut counts = [0; 4];
        for number in 0..4000_u128 {
            let shard = shard_for(Uuid::from_u128(number << 32), &[0, 1, 2, 3]);
            counts[usize::try_from(shard).expect("one of them")] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(shard_for(Uuid::from_u128(1), &[7]), 7);
    }
}
