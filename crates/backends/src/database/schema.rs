//! Whether a schema is as this program has it. Who owns it migrates it.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};

use super::error::DatabaseError;
use super::patience::Patience;
use super::pool::Pool;
use super::sql_error::message;

/// Waits at most `wait` until somebody (`primetrade migrate`) has brought the schema to where this program has it.
///
/// # Errors
/// Not in time; or it was migrated by another program.
pub async fn await_schema(
    pool: &Pool,
    schema: &'static str,
    migrator: &Migrator,
    wait: Duration,
) -> Result<(), DatabaseError> {
    let what = format!("the schema {schema}, which primetrade migrate makes");
    let mut patience = Patience::new(wait);
    loop {
        let reason = match lacks(pool, migrator).await {
            Ok(None) => return Ok(()),
            Ok(Some(version)) => format!("migration {version} is not applied"),
            // no table of migrations, or nobody answers: both may still come
            Err(MigrateError::Execute(error)) => message(&error),
            Err(error) => return Err(DatabaseError::of_migration(schema, error)),
        };
        if !patience.again(&what, &reason).await {
            return Err(DatabaseError::NotMigrated { schema, waited_s: wait.as_secs() });
        }
    }
}

/// The first migration that is not applied yet.
async fn lacks(pool: &Pool, migrator: &Migrator) -> Result<Option<i64>, MigrateError> {
    let mut connection = pool.acquire().await?;
    if let Some(version) = connection.dirty_version(&migrator.table_name).await? {
        return Ok(Some(version));
    }
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    for migration in &applied {
        match migrator.iter().find(|known| known.version == migration.version) {
            None => return Err(MigrateError::VersionMissing(migration.version)),
            Some(known) if known.checksum != migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version));
            }
            Some(_) => {}
        }
    }
    let is_applied = |version: i64| applied.iter().any(|migration| migration.version == version);
    Ok(migrator.iter().map(|migration| migration.version).find(|version| !is_applied(*version)))
}
