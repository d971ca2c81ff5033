use domain::OwnerId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::audit::{Act, Entry};

/// Which API keys of an account.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    These(&'a [Uuid]),
}

/// Revokes API keys of an account, and gives back those that were not revoked before.
pub(crate) async fn revoke(
    transaction: &mut PgConnection,
    account: OwnerId,
    which: Which<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let (all, these) = match which {
        Which::All => (true, &[][..]),
        Which::These(keys) => (false, keys),
    };
    let revoked = sqlx::query_scalar!(
        "update identity.api_key set revoked_at = clock_timestamp()
         where account_id = $1 and revoked_at is null and ($2 or id = any($3)) returning id",
        account.0,
        all,
        these
    )
    .fetch_all(&mut *transaction)
    .await?;
    for key in &revoked {
        // by the detail, the ledger knows which
        let entry = Entry::of(Act::ApiKeyRevoked).account(account).detail(key.to_string());
        entry.write(&mut *transaction).await?;
    }
    Ok(revoked)
}
