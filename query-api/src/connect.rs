//! Pools of connections for reading.

use backends::database::{AGE_S_MAX, Address, Pool, PoolSize, Prepare};
use backends::redis::Redis;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::ReadError;
use crate::replica::Replica;
use crate::sources::Sources;
use crate::{list, owner_versions, task};

/// Of a server, to each database.
const CONNECTIONS_MAX: u32 = 16;
/// How long a connection may be waited for before a read is turned away.
const CONNECTION_WAIT_MS_MAX: u64 = 3_000;
/// Connections that are made at the start and kept ready.
const CONNECTIONS_KEPT: u32 = 4;
/// A generation that never is: what is only to be planned finds nothing there.
const NO_GENERATION: i32 = 0;
/// Of sessions. `migrations/roles/read-model-settings.sql` has them too, for sessions behind a pooler that shares them.
const SETTINGS: [(&str, &str); 9] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    // what is switched off above costs so much that everything would be compiled
    ("jit", "off"),
    ("default_transaction_read_only", "on"),
    // of one statement
    ("statement_timeout", "10s"),
];

impl Sources {
    /// Of these databases. Nothing is waited for, not even at the start.
    #[must_use]
    pub fn connect(primary: Address, replica: Option<Address>, redis: Option<Redis>) -> Self {
        let queries = |name, address: Address| {
            let pool = connect(address, CONNECTIONS_MAX);
            pool.show_as(name);
            pool
        };
        let replica = replica.map(|address| Replica::new(queries("queries-replica", address)));
        Self { primary: queries("queries", primary), replica, redis }
    }
}

/// A pool for [`crate::QueryApi::new`].
///
/// Its sessions leave the planner nothing to choose: each statement has one index made for it and is planned once for
/// all owners, whatever the statistics of a fresh table say. Where there is something to choose, the statement runs
/// in a transaction that allows it ([`crate::sources::planned`]). Behind a pooler that shares sessions it is up to the
/// planner, unless the login is the role `primetrade_query`, which has these settings by itself.
///
/// A new session plans what most reads need before its first read, and some are kept: the first ones are made in the
/// background now, so this needs a Tokio runtime and waits for nothing.
#[must_use]
pub fn connect(address: impl Into<Address>, connections_max: u32) -> Pool {
    let address = address.into().for_reading().called("primetrade query-api").with(SETTINGS);
    let size = PoolSize {
        connections_max,
        connections_kept: connections_max.min(CONNECTIONS_KEPT),
        wait_ms_max: CONNECTION_WAIT_MS_MAX,
        age_s_max: AGE_S_MAX,
    };
    let prepare: Prepare = |connection| {
        Box::pin(async move {
            // It works without as well, more slowly at first; what is wrong the first read will say.
            if let Err(error) = plan_ahead(connection).await {
                tracing::debug!(%error, "planning the statements of a new session");
            }
        })
    };
    Pool::new(address, size, Some(prepare))
}

/// Has a new session plan what most reads need. Nothing is read.
async fn plan_ahead(connection: &mut PgConnection) -> Result<(), ReadError> {
    owner_versions::query(&mut *connection, &[Uuid::nil()]).await?;
    task::load(&mut *connection, NO_GENERATION, Uuid::nil(), Uuid::nil()).await?;
    list::plan_ahead(connection, NO_GENERATION).await
}

#[cfg(test)]
mod tests {
    use super::SETTINGS;

    #[test]
    fn the_role_has_the_settings_of_a_session() {
        let role = include_str!("../../migrations/roles/read-model-settings.sql");
        let has = role.lines().filter_map(|line| line.trim().trim_end_matches(',').strip_prefix("('"));
        let expected: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("{name}', '{value}')")).collect();
        assert_eq!(has.collect::<Vec<_>>(), expected);
    }
}
