//! The limits, as `RateLimit-Policy` has them.

use std::time::Duration;

/// A limit, as `RateLimit-Policy` has it: so many in a window. All of them may come at once; what is spent comes back
/// evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// In headers, metrics and Redis.
    pub name: &'static str,
    /// How many.
    pub quota: u32,
    /// In how many seconds.
    pub window_s: u32,
    /// As a member of `RateLimit-Policy`.
    pub(super) member: &'static str,
}

macro_rules! policy {
    ($name:literal, $quota:literal, $window_s:literal) => {
        Policy {
            name: $name,
            quota: $quota,
            window_s: $window_s,
            member: concat!("\"", $name, "\";q=", $quota, ";w=", $window_s),
        }
    };
}

/// Requests without a good token, by address.
pub const ADDRESS: Policy = policy!("address", 100, 60);
/// Requests with one, by account.
pub const ACCOUNT: Policy = policy!("account", 1200, 60);
/// Of these, the ones that may change something.
pub const WRITES: Policy = policy!("writes", 600, 60);
/// Registering, logging in, refreshing, exchanging API keys, by address.
pub const AUTH: Policy = policy!("auth", 30, 60);
/// Wrong passwords, by address and account together: the owner is not locked out elsewhere.
pub const WRONG_PASSWORDS: Policy = policy!("wrong-passwords", 5, 900);

impl Policy {
    /// In which one unit of the quota comes back.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs(self.window_s.into()) / self.quota.max(1)
    }
}
