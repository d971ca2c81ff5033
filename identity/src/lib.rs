//! Accounts, passwords, sessions, access tokens and the keys that sign them. The only code that writes the schema
//! `identity`.
//!
//! [`Identity`] is what a server holds; [`Accounts`] alone is enough for the command line, whether a server runs or not:
//! what it changes is seen by every running copy within two seconds.

/// Newtypes that cannot hold a wrong value: e-mail addresses, names, passwords.
pub mod values;

/// Accounts: making, finding, changing.
pub mod accounts;

/// Argon2id, off the async threads and bounded.
pub mod password;

/// Log in, refresh, log out.
pub mod sessions;

/// The sessions that an account has open.
pub mod open_sessions;

/// Signing keys: made, kept encrypted, rotated, shown as JWKS.
pub mod keys;

/// The keys as a running server sees them.
mod key_rotation;

/// The ended sessions as a running server sees them.
mod ended_sessions;

/// Refresh tokens: made, read.
mod refresh_token;

/// What a running server holds: looks at keys and ended sessions every second, and deletes what is old.
mod identity;

/// Who did what, from where, when.
pub mod audit;

/// What goes wrong.
pub mod error;

pub use accounts::{Account, AccountChange, Accounts, NewAccount};
pub use audit::AuditEvent;
pub use error::{IdentityError, StartError};
pub use identity::Identity;
pub use open_sessions::OpenSession;
pub use sessions::Tokens;
pub use values::{Email, Name, Password, UserAgent};

use backends::database::Pool;
use sqlx::migrate::{MigrateError, Migrator};

/// Creates or upgrades the schema `identity`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program.
pub async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    migrator().run(&mut *pool.acquire().await?).await
}

/// The migrations of the schema `identity` that this program was built for.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/identity");
    migrator.create_schema("identity");
    migrator.dangerous_set_table_name("identity._migrations");
    migrator
}
