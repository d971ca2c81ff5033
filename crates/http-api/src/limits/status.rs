//! What is left to a client, and the headers that say so.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::policy::Policy;
use crate::problem::{Problem, ProblemCode};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// `RateLimit-Policy` of a write.
const ACCOUNT_AND_WRITES: HeaderValue = HeaderValue::from_static("\"account\";q=1200;w=60, \"writes\";q=600;w=60");

/// How much of a policy is left, after the request that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PolicyStatus {
    pub policy: Policy,
    pub remaining: u32,
    /// Until all of the quota is there again.
    pub reset_s: u32,
}

/// What is left to a client: the headers of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    pub(super) first: PolicyStatus,
    pub(super) second: Option<PolicyStatus>,
}

/// Too much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    pub(super) status: RateLimitStatus,
    pub(super) retry_after_s: u32,
}

impl PolicyStatus {
    pub fn new(policy: Policy, remaining: u32) -> Self {
        let spent = u64::from(policy.quota.saturating_sub(remaining));
        let reset_s = (spent * u64::from(policy.window_s)).div_ceil(u64::from(policy.quota));
        Self { policy, remaining, reset_s: u32::try_from(reset_s).unwrap_or(u32::MAX) }
    }
}

impl Exceeded {
    /// What is left, which is nothing of one policy.
    #[must_use]
    pub fn status(&self) -> RateLimitStatus {
        self.status
    }

    /// When the next one is let in, in seconds.
    #[must_use]
    pub fn retry_after_s(&self) -> u32 {
        self.retry_after_s
    }

    /// The answer, without the headers of [`RateLimitStatus::append_to`].
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(ProblemCode::RateLimited).retry_after_s(self.retry_after_s)
    }
}

impl RateLimitStatus {
    pub(super) fn of(left: PolicyStatus) -> Self {
        Self { first: left, second: None }
    }

    /// The answer of a refusal that the edge does not know of.
    pub(super) fn refusal(self, retry_after_s: u32) -> Problem {
        let problem = Problem::new(ProblemCode::RateLimited).retry_after_s(retry_after_s);
        let (policy, left) = self.headers();
        problem.header(RATELIMIT_POLICY, policy).header(RATELIMIT, left)
    }

    /// `RateLimit-Policy` and `RateLimit`, beside those that a handler has set.
    pub fn append_to(self, headers: &mut HeaderMap) {
        let (policy, left) = self.headers();
        headers.append(RATELIMIT_POLICY, policy);
        headers.append(RATELIMIT, left);
    }

    fn headers(self) -> (HeaderValue, HeaderValue) {
        use std::io::Write;
        // longer than two members can be
        let mut text = [0_u8; 128];
        let mut rest = &mut text[..];
        let PolicyStatus { policy, remaining, reset_s } = self.first;
        let mut written = write!(rest, "\"{}\";r={remaining};t={reset_s}", policy.name);
        let mut policies = HeaderValue::from_static(policy.member);
        if let Some(PolicyStatus { policy, remaining, reset_s }) = self.second {
            written = written.and_then(|()| write!(rest, ", \"{}\";r={remaining};t={reset_s}", policy.name));
            policies = ACCOUNT_AND_WRITES;
        }
        let length = 128 - rest.len();
        let left = written.ok().and_then(|()| HeaderValue::from_bytes(&text[..length]).ok());
        (policies, left.unwrap_or(HeaderValue::from_static("\"default\";r=0")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{ACCOUNT, WRITES};
    use super::*;

    #[test]
    fn the_header_of_a_write_is_of_both_policies() {
        assert_eq!(ACCOUNT_AND_WRITES, format!("{}, {}", ACCOUNT.member, WRITES.member));
    }
}
