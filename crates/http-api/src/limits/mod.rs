//! How much one client may ask for: GCRA by address and by account.
//!
//! ```text
//! let limits = RateLimits::on(secret);                       // or RateLimits::off()
//! background.spawn("…", limits.share(redis, &installation, stop)); // where several copies are to count together
//! match limits.admit(&asked) { Ok(status) => …, Err(refused) => … }
//! ```
//!
//! A decision is one look into this process's memory. Copies that share a Redis tell each other ten times a second what
//! they have admitted (`shared.rs`): no request waits for that, and what was admitted too much meanwhile is paid back by
//! whoever asked for it.

/// The limits of a process, and what was spent of them.
mod rate_limits;

/// The limits, as `RateLimit-Policy` has them.
mod policy;

/// What is left to a client, and the headers that say so.
mod status;

/// Whom a limit counts.
mod key;

/// What was spent of one policy, by key.
mod buckets;

/// Copies that count together, by way of Redis.
mod shared;

pub(crate) use key::Key;
pub use policy::{ACCOUNT, ADDRESS, AUTH, Policy, WRITES, WRONG_PASSWORDS};
pub use rate_limits::{Attempt, RateLimits, RequestClass};
pub use status::{Exceeded, RateLimitStatus};
