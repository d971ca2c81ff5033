//! Who may do what: access tokens and their keys, ended sessions, opaque tokens, and whose an answer is.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Opaque authenticated strings: consistency tokens, cursors, keys derived from the one secret.
pub mod token;

/// What access tokens say, and how they are signed.
pub mod access_token;

/// What the access token of an API key is good for.
pub mod scopes;

/// The one kind of signature that they have.
mod ed25519;

/// The public keys that they may be signed with.
pub mod keys;

/// Who an access token is of.
pub mod verifier;

/// The keys of tokens, from `PRIMETRADE_JWKS_URL`.
pub mod jwks;

/// Requests that wait for these to be fetched again.
mod refetch;

/// Ended sessions, by way of the read database.
pub mod ended_sessions;

/// Whose an answer is: this installation's, or another one's.
pub mod installation;

/// What admins do, from services without the identity database to its audit events.
pub mod admin_acts;

pub use access_token::{AUDIENCE, Claims, ISSUER, Role, SignError};
pub use ended_sessions::Revoked;
pub use keys::Keys;
pub use refetch::Refetch;
pub use scopes::{API_KEY_PREFIX, Scope, Scopes};
pub use verifier::{Principal, Verifier};
