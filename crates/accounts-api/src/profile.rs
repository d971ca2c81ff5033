//! What an account sees of itself, kept in Redis under the account's own version: what is kept there never becomes wrong,
//! it is no longer asked for. Which version an account has, the database alone says, so whoever changes something sees it
//! everywhere at once.

use std::sync::LazyLock;

use backends::redis::{Entry, Redis};
use bytes::Bytes;
use domain::OwnerId;
use identity::{Account, Identity, IdentityError};
use metrics::{Counter, counter};
use uuid::Uuid;

use crate::account::OwnAccount;

/// How long others find it, milliseconds.
const KEPT_MS_MAX: u64 = 3_600_000;
/// Part of the keys: to be raised whenever the same account looks different.
const FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), ".1");

/// Accounts as they see themselves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Profiles {
    pub identity: Identity,
    pub redis: Option<Redis>,
}

impl Profiles {
    /// The account as JSON.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], the database.
    pub async fn get(&self, id: OwnerId) -> Result<Bytes, IdentityError> {
        let accounts = self.identity.accounts();
        let Some(redis) = &self.redis else { return json(accounts.get(id).await?) };
        let version = accounts.version(id).await?;
        let found = redis.get(&key(id, version)).await.ok().flatten();
        let found = found.and_then(|value| read(&value, id, version));
        count(found.is_some());
        if let Some(body) = found {
            return Ok(body);
        }
        let account = accounts.get(id).await?;
        // Of the row that was read, which may be a newer one.
        let version = account.version;
        let body = json(account)?;
        let value = [id.0.as_bytes(), version.as_bytes(), &body[..]].concat();
        // Counted and logged there; it is only missed again.
        let _ = redis.set(vec![Entry { key: key(id, version), value, ttl_ms: KEPT_MS_MAX }]).await;
        Ok(body)
    }
}

fn key(id: OwnerId, version: Uuid) -> String {
    format!("primetrade:profile:{FORMAT}:{}:{}", id.0.simple(), version.simple())
}

/// None: it is another account, or another version of it.
fn read(value: &Bytes, id: OwnerId, version: Uuid) -> Option<Bytes> {
    let body = value.strip_prefix(id.0.as_bytes())?.strip_prefix(version.as_bytes())?;
    Some(value.slice_ref(body))
}

fn json(account: Account) -> Result<Bytes, IdentityError> {
    let body = serde_json::to_vec(&OwnAccount::from(account));
    body.map(Bytes::from).map_err(|error| IdentityError::Internal(Box::new(error)))
}

fn count(hit: bool) {
    static COUNTERS: LazyLock<[Counter; 2]> = LazyLock::new(|| {
        ["cache_misses_total", "cache_hits_total"].map(|name| counter!(name, "layer" => "redis", "kind" => "profile"))
    });
    COUNTERS[usize::from(hit)].increment(1);
}
