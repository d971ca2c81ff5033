//! Accounts, passwords, sessions, API keys, access tokens and the keys that sign them. The only code that writes the schema
//! `identity`.
//!
//! [`Identity`] is what a server holds; [`Accounts`] alone is enough for the command line, whether a server runs or not:
//! what it changes is seen by every running copy within two seconds.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Newtypes that cannot hold a wrong value: e-mail addresses, names, passwords.
pub mod values;

/// Accounts: making, finding, changing.
pub mod accounts;

/// Argon2id, off the async threads and bounded.
pub mod password;

/// Log in, refresh, log out.
pub mod sessions;

/// An API key as text: made, read.
mod api_key;

/// API keys that are good no more.
mod key_revocation;

/// API keys: made, listed, revoked, exchanged for access tokens.
pub mod api_keys;

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

/// What was done to the security of accounts, written down outside of the database.
pub mod ledger;

/// What a restore from a backup has brought back, undone.
pub mod restore;

/// What goes wrong.
pub mod error;

pub use accounts::{Account, AccountChange, Accounts, NewAccount};
pub use api_keys::{ApiKey, ApiKeyError, NewApiKey, ServiceToken};
pub use audit::AuditEvent;
pub use error::{IdentityError, StartError};
pub use identity::{Identity, LogBeside};
pub use ledger::Ledger;
pub use open_sessions::{OPEN_SESSIONS_MAX, OpenSession};
pub use sessions::Tokens;
pub use values::{Email, Name, Password, UserAgent};

use backends::database::{DatabaseError, Pool, Roles, Schema};

/// Creates or upgrades the schema `identity`.
///
/// # Errors
/// The database refuses, or was migrated by a newer program that this one cannot run beside.
pub async fn migrate(pool: &Pool) -> Result<(), DatabaseError> {
    let schema = schema();
    schema.migrate(&mut *schema.connection(pool).await?).await
}

/// The schema `identity` as this program has it.
#[must_use]
pub fn schema() -> Schema {
    Schema::new("identity", sqlx::migrate!("../migrations/identity")).with_roles(Roles {
        names: &["primetrade_identity"],
        grants: include_str!("../../migrations/roles/identity.sql"),
        settings: None,
    })
}
