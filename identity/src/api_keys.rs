//! API keys, by which services act for an account: made, listed and revoked by the operator, and exchanged for access tokens
//! that are good for the key's scopes. The database keeps no key, only a hash.

use access::{Role, Scopes};
use chrono::TimeDelta;
use domain::{OwnerId, Time};
use metrics::counter;
use process::clock;
use secrecy::SecretString;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::api_key;
use crate::audit::{Act, Entry};
use crate::error::IdentityError;
use crate::identity::Identity;
use crate::key_revocation::{self, Which};
use crate::keys::ACCESS_TOKEN_LIFETIME_S;
use crate::sessions::Subject;
use crate::values::Name;

/// An account has at most so many that are neither revoked nor expired.
pub const OPEN_API_KEYS_MAX: i64 = 100;
/// When a key was used last is written at most this often.
const USED_EVERY_S: i64 = 60;
/// One that was revoked or has expired is shown for so long.
const ENDED_SHOWN_DAYS: i32 = 30;

/// An API key, but for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// UUID v7; `sid` of its access tokens.
    pub id: Uuid,
    /// Whose tasks it opens.
    pub account: OwnerId,
    /// The account's address.
    pub email: String,
    /// What the operator calls it.
    pub name: String,
    /// What its access tokens are good for.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Time,
    /// It is good before this time; `None`: until it is revoked.
    pub expires_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// When it was exchanged last, to the minute.
    pub last_used_at: Option<Time>,
}

/// What a new API key is made from.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Whose tasks it opens.
    pub account: OwnerId,
    /// What it is called.
    pub name: Name,
    /// What its access tokens are good for: at least one.
    pub scopes: Scopes,
    /// It is good before this time; `None`: until it is revoked.
    pub expires_at: Option<Time>,
}

/// What a service gets for its key.
#[derive(Debug)]
pub struct ServiceToken {
    /// For `Authorization: Bearer`.
    pub access_token: SecretString,
    /// Good for so many seconds.
    pub expires_in_s: i32,
    /// And for this.
    pub scopes: Scopes,
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The account has [`OPEN_API_KEYS_MAX`].
    #[error("the account has {max} API keys already: revoke one with primetrade keys api revoke", max = OPEN_API_KEYS_MAX)]
    TooMany,
    /// It has no scope.
    #[error("an API key without a scope is good for nothing")]
    NoScope,
    /// The account is disabled or not there, or the database.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

struct Row {
    id: Uuid,
    account_id: Uuid,
    email: String,
    name: String,
    scopes: Vec<String>,
    created_at: Time,
    expires_at: Option<Time>,
    revoked_at: Option<Time>,
    last_used_at: Option<Time>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            account: OwnerId(row.account_id),
            email: row.email,
            name: row.name,
            scopes: known(&row.scopes),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

fn known(names: &[String]) -> Scopes {
    Scopes::known(names.iter().map(String::as_str))
}

impl Accounts {
    /// Makes an API key. Its text is given back here and never again.
    ///
    /// # Errors
    /// [`ApiKeyError::TooMany`], [`ApiKeyError::NoScope`]; [`IdentityError::NotFound`] and [`IdentityError::Disabled`] of the
    /// account, the database.
    pub async fn create_api_key(&self, new: NewApiKey) -> Result<(ApiKey, SecretString), ApiKeyError> {
        let NewApiKey { account, name, scopes, expires_at } = new;
        if scopes.is_empty() {
            return Err(ApiKeyError::NoScope);
        }
        let id = clock::new_id();
        let (text, hash) = api_key::make(id);
        let made = self.answered(async {
            let mut transaction = self.pool.begin().await?;
            // keys of one account are made one after the other, and none beside the account's disabling
            let owner =
                sqlx::query!("select email, disabled from identity.account where id = $1 for no key update", account.0)
                    .fetch_optional(&mut *transaction)
                    .await?
                    .ok_or(IdentityError::NotFound)?;
            if owner.disabled {
                return Err(IdentityError::Disabled);
            }
            let open = sqlx::query_scalar!(
                r#"select count(*) as "open!" from identity.api_key
                   where account_id = $1 and revoked_at is null and (expires_at is null or expires_at > now())"#,
                account.0
            )
            .fetch_one(&mut *transaction)
            .await?;
            if open >= OPEN_API_KEYS_MAX {
                return Ok(None);
            }
            let key = ApiKey {
                id,
                account,
                email: owner.email,
                name: name.as_str().to_owned(),
                scopes,
                created_at: clock::now(),
                expires_at,
                revoked_at: None,
                last_used_at: None,
            };
            let names: Vec<String> = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            sqlx::query!(
                "insert into identity.api_key (id, account_id, name, secret_hash, scopes, created_at, expires_at)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                id,
                account.0,
                key.name,
                &hash[..],
                &names,
                key.created_at,
                expires_at
            )
            .execute(&mut *transaction)
            .await?;
            let created = Entry::of(Act::ApiKeyCreated).account(account).detail(format!("{id}: {scopes}"));
            created.write(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Some(key))
        });
        Ok((made.await?.ok_or(ApiKeyError::TooMany)?, text))
    }

    /// A page of API keys in the order they were made, after the one named; of one account, or of all. What has ended is
    /// among them for 30 days.
    ///
    /// # Errors
    /// The database.
    pub async fn api_keys(
        &self,
        account: Option<OwnerId>,
        after: Option<Uuid>,
        keys_max: i64,
    ) -> Result<Vec<ApiKey>, IdentityError> {
        self.answered(async {
            let rows = sqlx::query_as!(
                Row,
                "select k.id, k.account_id, a.email, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at,
                        k.last_used_at
                 from identity.api_key k join identity.account a on a.id = k.account_id
                 where ($1::uuid is null or k.account_id = $1) and k.id > $2 order by k.id limit $3",
                account.map(|account| account.0),
                after.unwrap_or_default(),
                keys_max
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(rows.into_iter().map(ApiKey::from).collect())
        })
        .await
    }

    /// Revokes an API key: it is exchanged no more, and its access tokens end as those of an ended session do. Whether it was
    /// not revoked before.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], the database.
    pub async fn revoke_api_key(&self, id: Uuid) -> Result<bool, IdentityError> {
        self.answered(async {
            let mut transaction = self.pool.begin().await?;
            let account = sqlx::query_scalar!("select account_id from identity.api_key where id = $1", id)
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or(IdentityError::NotFound)?;
            let revoked = key_revocation::revoke(&mut transaction, OwnerId(account), Which::These(&[id])).await?;
            transaction.commit().await?;
            Ok(!revoked.is_empty())
        })
        .await
    }
}

impl Identity {
    /// An access token for an API key, good for the key's scopes and no longer than the key. Its role is `user`, whatever
    /// that of the account is.
    ///
    /// # Errors
    /// [`IdentityError::InvalidApiKey`] when it is unknown, expired or revoked; [`IdentityError::Disabled`]; the database.
    pub async fn exchange_api_key(&self, text: &str) -> Result<ServiceToken, IdentityError> {
        self.answered(async {
            let Some((id, hash)) = api_key::read(text) else {
                count("malformed");
                return Err(IdentityError::InvalidApiKey);
            };
            let key = sqlx::query!(
                r#"select k.account_id, k.scopes, k.expires_at as "expires_at: Time", k.revoked_at is not null as "revoked!",
                          a.shard, a.disabled
                   from identity.api_key k join identity.account a on a.id = k.account_id
                   where k.id = $1 and k.secret_hash = $2"#,
                id,
                &hash[..]
            )
            .fetch_optional(self.pool())
            .await?;
            let Some(key) = key else {
                count("unknown");
                self.accounts().record(Entry::of(Act::ApiKeyRefused)).await?;
                return Err(IdentityError::InvalidApiKey);
            };
            let account = OwnerId(key.account_id);
            let now = clock::now();
            let left_s = key.expires_at.map_or(i64::MAX, |expires_at| (expires_at - now).num_seconds());
            let refused = match (key.revoked, left_s, key.disabled) {
                (true, _, _) => Some(("revoked", IdentityError::InvalidApiKey)),
                (_, ..1, _) => Some(("expired", IdentityError::InvalidApiKey)),
                (_, _, true) => Some(("disabled", IdentityError::Disabled)),
                _ => None,
            };
            if let Some((why, error)) = refused {
                count(why);
                self.accounts().record(Entry::of(Act::ApiKeyRefused).account(account).session(id).detail(why)).await?;
                return Err(error);
            }
            let mut transaction = self.pool().begin().await?;
            sqlx::query!(
                "update identity.api_key set last_used_at = $2
                 where id = $1 and (last_used_at is null or last_used_at < $3)",
                id,
                now,
                now - TimeDelta::seconds(USED_EVERY_S)
            )
            .execute(&mut *transaction)
            .await?;
            Entry::of(Act::ApiKeyUsed).account(account).by_subject().session(id).write(&mut transaction).await?;
            transaction.commit().await?;
            let scopes = known(&key.scopes);
            let expires_in_s = ACCESS_TOKEN_LIFETIME_S.min(i32::try_from(left_s).unwrap_or(i32::MAX));
            let subject =
                Subject { owner: account, session: id, role: Role::User, scopes: Some(scopes), shard: key.shard };
            let access_token = self.access_token(&subject, now, expires_in_s)?;
            count("granted");
            Ok(ServiceToken { access_token, expires_in_s, scopes })
        })
        .await
    }

    /// Deletes at most `keys_max` of the keys that ended more than 30 days ago, and gives back how many.
    ///
    /// # Errors
    /// The database.
    pub async fn sweep_api_keys(&self, keys_max: i64) -> Result<u64, sqlx::Error> {
        let swept = sqlx::query!(
            "delete from identity.api_key where id in (
                 select id from identity.api_key
                 where least(revoked_at, expires_at) < now() - make_interval(days => $1) limit $2)",
            ENDED_SHOWN_DAYS,
            keys_max
        )
        .execute(self.pool())
        .await?;
        Ok(swept.rows_affected())
    }
}

fn count(outcome: &'static str) {
    counter!("api_key_exchanges_total", "outcome" => outcome).increment(1);
}
