//! The databases of one process: by URL, or the managed PostgreSQL; connected, with retries for a limited time, and migrated.

use std::path::Path;
use std::time::Duration;

use backends::database::{self, Address, DatabaseError, Granted, Plan, Pool, Schema, Use, pool};
use backends::database::{DatabaseUrl, DatabaseUrls};
use secrecy::ExposeSecret;

use crate::data_dir::DataDir;
use crate::postgres::{ManagedPostgres, PostgresError};

/// How long a database that does not answer is tried, in milliseconds.
const CONNECT_MS_MAX: u64 = 15_000;
const WRITE_CONNECTIONS_MAX: u32 = 12;
const READ_CONNECTIONS_MAX: u32 = 24;
const LOG_CONNECTIONS_MAX: u32 = 8;

/// Why the databases cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The managed one.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// One by URL.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Pools to all databases of the process, and the share in the managed one.
pub struct Databases {
    /// Event store and identity.
    pub write: Pool,
    /// Read models.
    pub read: Pool,
    /// How a replica of the read models is reached, where there is one. Nothing waits for it.
    pub replica: Option<Address>,
    managed: Option<ManagedPostgres>,
}

impl Databases {
    /// Starts or joins the managed PostgreSQL of a data folder.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open_managed(dir: &DataDir, bin_setting: Option<&Path>) -> Result<Self, OpenError> {
        let managed = ManagedPostgres::acquire(dir, bin_setting).await?;
        let write = pool(WRITE_CONNECTIONS_MAX, managed.connect_options());
        let read = pool(READ_CONNECTIONS_MAX, managed.connect_options());
        Ok(Self { write, read, replica: None, managed: Some(managed) })
    }

    /// Connects by URL.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open_urls(log: &DatabaseUrl, urls: &DatabaseUrls) -> Result<Self, DatabaseError> {
        let connect = |given, connections_max| {
            database::connect(given, connections_max, Use::Write, Duration::from_millis(CONNECT_MS_MAX))
        };
        let write = connect(log, WRITE_CONNECTIONS_MAX).await?;
        let read = match &urls.read {
            Some(given) if given.url.expose_secret() != log.url.expose_secret() => {
                connect(given, READ_CONNECTIONS_MAX).await?
            }
            _ => pool(READ_CONNECTIONS_MAX, write.address().clone()),
        };
        let replica = urls.replica.as_ref().map(|given| database::address(given, Use::Read)).transpose()?;
        Ok(Self { write, read, replica, managed: None })
    }

    /// Brings all schemas to the program's version.
    ///
    /// # Errors
    /// The schemas are not for this program any more, or the database refuses.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        for (schema, pool) in self.schemas() {
            schema.migrate(&mut *schema.connection(pool).await?).await?;
        }
        Ok(())
    }

    /// What [`Self::migrate`] would do. Nothing is changed.
    ///
    /// # Errors
    /// As of [`Self::migrate`].
    pub async fn plan(&self) -> Result<Vec<Plan>, DatabaseError> {
        let mut plans = Vec::new();
        for (schema, pool) in self.schemas() {
            plans.push(schema.plan(&mut *schema.connection(pool).await?).await?);
        }
        Ok(plans)
    }

    /// Makes the database roles, one for each kind of connection, and grants them their rights. Nobody else logs in to the
    /// managed PostgreSQL: it has none.
    ///
    /// # Errors
    /// As of [`Self::migrate`].
    pub async fn grant(&self) -> Result<Vec<Granted>, DatabaseError> {
        let mut all = Vec::new();
        for (schema, pool) in self.schemas().into_iter().filter(|_| self.managed.is_none()) {
            all.extend(schema.grant(&mut *schema.connection(pool).await?).await?);
        }
        Ok(all)
    }

    fn schemas(&self) -> [(Schema, &Pool); 4] {
        [
            (event_store::schema(), &self.write),
            (identity::schema(), &self.write),
            (jobs::schema(), &self.write),
            (read_model::schema(), &self.read),
        ]
    }

    /// A pool for reading the whole log page by page.
    #[must_use]
    pub fn in_index_order(&self) -> Pool {
        let address = self.write.address().clone().with(event_store::tail::IN_INDEX_ORDER);
        pool(LOG_CONNECTIONS_MAX, address)
    }

    /// The managed PostgreSQL, if it is used.
    #[must_use]
    pub fn managed(&self) -> Option<&ManagedPostgres> {
        self.managed.as_ref()
    }

    /// Closes the pools and gives the share in the managed PostgreSQL back.
    ///
    /// # Errors
    /// It could not be stopped.
    pub async fn close(self) -> Result<(), OpenError> {
        let closing = async {
            tokio::join!(self.write.close(), self.read.close());
        };
        // A connection that hangs is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(3), closing).await;
        if let Some(managed) = self.managed {
            managed.release().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    /// These are older than the declaration: no program that lacks one of them has the code that reads it.
    fn is_older_than_the_declaration(schema: &str, version: i64) -> bool {
        match schema {
            "event_store" => version <= 4,
            "identity" => version <= 5,
            "jobs" => version <= 1,
            "read_model" => version <= 12 || version == 20,
            _ => false,
        }
    }

    #[test]
    fn each_migration_says_which_programs_can_run_beside_it() {
        for schema in [event_store::schema(), identity::schema(), jobs::schema(), read_model::schema()] {
            for (version, since) in schema.declarations() {
                let name = schema.name();
                assert!(
                    since.is_some() || is_older_than_the_declaration(name, version),
                    "migration {version} of {name} does not begin with `-- compatible-since: N`"
                );
            }
        }
    }
}
