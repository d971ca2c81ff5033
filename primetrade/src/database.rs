//! The databases of one process: by URL, or the managed PostgreSQL; connected with patience, and migrated.

use std::path::Path;
use std::time::Duration;

use backends::database::DatabaseUrls;
use backends::database::{self, Address, DatabaseError, Pool, Use, pool};
use secrecy::{ExposeSecret, SecretString};

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
    pub async fn open_urls(write_url: &SecretString, urls: &DatabaseUrls) -> Result<Self, DatabaseError> {
        let connect = |variable, connections_max, url| {
            database::connect(variable, connections_max, url, Use::Write, Duration::from_millis(CONNECT_MS_MAX))
        };
        let write = connect("PRIMETRADE_DATABASE_URL", WRITE_CONNECTIONS_MAX, write_url).await?;
        let read = match &urls.read {
            Some(url) if url.expose_secret() != write_url.expose_secret() => {
                connect("PRIMETRADE_READ_DATABASE_URL", READ_CONNECTIONS_MAX, url).await?
            }
            _ => pool(READ_CONNECTIONS_MAX, write.address().clone()),
        };
        let replica = urls.replica.as_ref();
        let replica =
            replica.map(|url| database::address("PRIMETRADE_READ_REPLICA_URL", url, Use::Read)).transpose()?;
        Ok(Self { write, read, replica, managed: None })
    }

    /// Brings all schemas to the program's version.
    ///
    /// # Errors
    /// A newer program was here, or the database refuses.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        let told = |schema| move |error| DatabaseError::of_migration(schema, error);
        event_store::migrate(&self.write).await.map_err(told("event_store"))?;
        identity::migrate(&self.write).await.map_err(told("identity"))?;
        jobs::migrate(&self.write).await.map_err(told("jobs"))?;
        let connection = self.read.acquire().await;
        let mut connection = connection.map_err(|error| told("read_model")(error.into()))?;
        read_model::migrate(&mut connection).await.map_err(told("read_model"))
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
