//! A schema as this program has it, held against the database's. Who owns a schema migrates it.
//!
//! Programs are updated one after the other, and now and then back, so a program starts on a schema that a newer one has
//! migrated, if each migration that it does not know allows it. The first line of a migration, `-- compatible-since: N`,
//! names the oldest program that can run beside it, by the newest migration which that program knows. The schema's table
//! `compatibility` keeps these numbers for programs that do not have the file. What says nothing allows no older program.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{AssertSqlSafe, PgConnection};

use super::error::DatabaseError;
use super::pool::{Pool, Pooled};
use super::retries::Retries;
use super::roles::{self, Granted, Roles};
use super::sql_error::message;

const DECLARATION: &str = "-- compatible-since: ";

/// A schema and the migrations that make it.
#[derive(Debug)]
pub struct Schema {
    name: &'static str,
    migrator: Migrator,
    roles: Option<Roles>,
}

/// What `migrate` would do to a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which schema.
    pub schema: &'static str,
    /// The newest migration that is applied; 0: none is.
    pub applied: i64,
    /// What would be applied.
    pub pending: Vec<i64>,
    /// Afterwards the schema is for programs whose newest migration is this one or a later one.
    pub compatible_since: i64,
}

impl Plan {
    /// Whether programs that the schema is for now could not be started any more.
    #[must_use]
    pub fn breaks_programs(&self) -> bool {
        self.applied > 0 && self.compatible_since > self.applied
    }
}

/// The schema in the database.
#[derive(Default)]
struct Found {
    /// Migrations with their checksums.
    applied: BTreeMap<i64, Vec<u8>>,
    /// A migration that was begun and not finished.
    unfinished: Option<i64>,
    /// Migrations with the oldest program that can run beside each; None: there is no table for them yet.
    compatible_since: Option<BTreeMap<i64, i64>>,
}

impl Found {
    fn compatible_since(&self, version: i64) -> i64 {
        let declared = self.compatible_since.as_ref().and_then(|declared| declared.get(&version));
        declared.copied().unwrap_or(version)
    }
}

impl Schema {
    /// A schema by its name, made by these migrations. One of them makes its table `compatibility`.
    #[must_use]
    pub fn new(name: &'static str, mut migrator: Migrator) -> Self {
        migrator.create_schema(name);
        migrator.dangerous_set_table_name(format!("{name}._migrations"));
        // which of them may be unknown is decided here
        migrator.set_ignore_missing(true);
        Self { name, migrator, roles: None }
    }

    /// With roles.
    #[must_use]
    pub fn with_roles(self, roles: Roles) -> Self {
        Self { roles: Some(roles), ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Creates the schema, or upgrades it. One that is newer than this program stays as it is.
    ///
    /// # Errors
    /// The database refuses, or the schema is not for this program.
    pub async fn migrate(&self, connection: &mut PgConnection) -> Result<(), DatabaseError> {
        let found = self.check(connection).await?;
        let is_complete = self.pending(&found).is_empty() && self.undeclared(&found).is_empty();
        if is_complete {
            return Ok(());
        }
        let migrating = async {
            // First: an older program that is started in between finds the migration allowed.
            if found.compatible_since.is_some() {
                self.declare(connection).await?;
            }
            self.migrator.run(&mut *connection).await?;
            self.declare(connection).await
        };
        migrating.await.map_err(|error| DatabaseError::of_migration(self.name, error))
    }

    /// What [`Self::migrate`] would do. Nothing is changed.
    ///
    /// # Errors
    /// The database does not answer, or the schema is not for this program.
    pub async fn plan(&self, connection: &mut PgConnection) -> Result<Plan, DatabaseError> {
        let found = self.check(connection).await?;
        let known = self.migrator.iter().map(|known| declared(known).unwrap_or(known.version));
        let unknown = self.unknown(&found).map(|version| found.compatible_since(version));
        Ok(Plan {
            schema: self.name,
            applied: found.applied.keys().last().copied().unwrap_or(0),
            pending: self.pending(&found),
            compatible_since: known.chain(unknown).max().unwrap_or(0),
        })
    }

    /// Makes the roles that are not there, where this login may make roles, and grants them their rights. For a schema that is
    /// migrated; one that is newer than this program stays as it is. None: it has no roles.
    ///
    /// # Errors
    /// The database does not answer, or the schema is not for this program.
    pub async fn grant(&self, connection: &mut PgConnection) -> Result<Option<Granted>, DatabaseError> {
        let Some(roles) = self.roles else { return Ok(None) };
        let found = self.check(connection).await?;
        let left = if self.unknown(&found).next().is_some() {
            Some("the schema is newer than this program; the newer one grants their rights".to_owned())
        } else {
            let granted = roles::grant(roles, connection).await;
            granted.map_err(|error| DatabaseError::of_migration(self.name, error.into()))?
        };
        Ok(Some(Granted { schema: self.name, roles: roles.names, left }))
    }

    /// Waits at most `wait` until somebody (`primetrade migrate`) has brought the schema to where this program has it.
    ///
    /// # Errors
    /// Not in time; or the schema is not for this program.
    pub async fn wait(&self, pool: &Pool, wait: Duration) -> Result<(), DatabaseError> {
        let what = format!("the schema {}, which primetrade migrate makes", self.name);
        let mut retries = Retries::new(wait);
        loop {
            let reason = match self.lacks(pool).await {
                Ok(None) => return Ok(()),
                Ok(Some(version)) => format!("migration {version} is not applied"),
                // nobody answers, which may change
                Err(DatabaseError::Migration { source: MigrateError::Execute(error), .. }) => message(&error),
                Err(error) => return Err(error),
            };
            if !retries.again(&what, &reason).await {
                return Err(DatabaseError::NotMigrated { schema: self.name, waited_s: wait.as_secs() });
            }
        }
    }

    /// A connection to the schema's database.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn connection(&self, pool: &Pool) -> Result<Pooled, DatabaseError> {
        pool.acquire().await.map_err(|error| DatabaseError::of_migration(self.name, error.into()))
    }

    /// Each migration with what its first line says.
    pub fn declarations(&self) -> impl Iterator<Item = (i64, Option<i64>)> {
        self.migrator.iter().map(|known| (known.version, declared(known)))
    }

    async fn lacks(&self, pool: &Pool) -> Result<Option<i64>, DatabaseError> {
        let found = self.check(&mut *self.connection(pool).await?).await?;
        Ok(self.pending(&found).first().copied())
    }

    /// What is there, if this program may run on it.
    async fn check(&self, connection: &mut PgConnection) -> Result<Found, DatabaseError> {
        let schema = self.name;
        let found = self.found(connection).await.map_err(|error| DatabaseError::of_migration(schema, error))?;
        for known in self.migrator.iter() {
            let version = known.version;
            if found.applied.get(&version).is_some_and(|checksum| checksum[..] != known.checksum[..]) {
                return Err(DatabaseError::OtherMigration { schema, version });
            }
        }
        let newest = self.migrator.iter().map(|known| known.version).max().unwrap_or(0);
        for version in self.unknown(&found) {
            let since = found.compatible_since(version);
            if since > newest {
                return Err(DatabaseError::NewerMigration { schema, version, since, newest });
            }
            tracing::info!(schema, version, newest, "the schema is newer than this program, and allows it");
        }
        Ok(found)
    }

    async fn found(&self, connection: &mut PgConnection) -> Result<Found, MigrateError> {
        let is_there = async |table: &str, connection: &mut PgConnection| {
            sqlx::query_scalar!(r#"select to_regclass($1) is not null as "is_there!""#, table)
                .fetch_one(connection)
                .await
        };
        let migrations = &*self.migrator.table_name;
        if !is_there(migrations, &mut *connection).await? {
            return Ok(Found::default());
        }
        let unfinished = connection.dirty_version(migrations).await?;
        let applied = connection.list_applied_migrations(migrations).await?;
        let applied = applied.into_iter().map(|applied| (applied.version, applied.checksum.into_owned()));
        let table = format!("{}.compatibility", self.name);
        let compatible_since = if is_there(&table, &mut *connection).await? {
            let declared = AssertSqlSafe(format!("select migration, since from {table}"));
            Some(sqlx::query_as(declared).fetch_all(connection).await?.into_iter().collect())
        } else {
            None
        };
        Ok(Found { applied: applied.collect(), unfinished, compatible_since })
    }

    fn pending(&self, found: &Found) -> Vec<i64> {
        let versions = self.migrator.iter().map(|known| known.version);
        versions.filter(|version| !found.applied.contains_key(version) || found.unfinished == Some(*version)).collect()
    }

    fn unknown(&self, found: &Found) -> impl Iterator<Item = i64> {
        found.applied.keys().copied().filter(|version| !self.migrator.version_exists(*version))
    }

    /// What is said in migrations of this program, and not kept in the schema.
    fn undeclared(&self, found: &Found) -> Vec<(i64, i64)> {
        let declarations = self.declarations().filter_map(|(version, since)| Some((version, since?)));
        let kept = |version| found.compatible_since.as_ref().is_some_and(|kept| kept.contains_key(&version));
        declarations.filter(|(version, _)| !kept(*version)).collect()
    }

    async fn declare(&self, connection: &mut PgConnection) -> Result<(), MigrateError> {
        let (versions, since): (Vec<i64>, Vec<i64>) = self.undeclared(&Found::default()).into_iter().unzip();
        let declare = AssertSqlSafe(format!(
            "insert into {}.compatibility (migration, since) select * from unnest($1::bigint[], $2::bigint[]) on conflict do nothing",
            self.name
        ));
        sqlx::query(declare).bind(versions).bind(since).execute(connection).await?;
        Ok(())
    }
}

fn declared(migration: &Migration) -> Option<i64> {
    migration.sql.as_str().lines().next()?.strip_prefix(DECLARATION)?.trim().parse().ok()
}
