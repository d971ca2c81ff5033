//! The limits of a process, and what was spent of them.

use std::net::IpAddr;
use std::sync::Arc;

use access::token::RootSecret;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::OwnerId;
use hmac::{Hmac, Mac};
use metrics::{Counter, counter};
use process::context;
use sha2::Sha256;

use super::buckets::{Buckets, Open, Ticks};
use super::key::Key;
use super::policy::{ACCOUNT, ADDRESS, AUTH, Policy, WRITES, WRONG_PASSWORDS};
use super::status::{Exceeded, PolicyStatus, RateLimitStatus};
use crate::problem::Problem;

/// What a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestClass {
    /// Without a good token, from an address.
    Anonymous(IpAddr),
    /// Registering, logging in, refreshing or exchanging an API key, from an address.
    Authentication(IpAddr),
    /// An account that reads.
    Read(OwnerId),
    /// An account that may change something.
    Write(OwnerId),
}

/// The limits of a process, or none. Cheap to clone.
#[derive(Clone, Default)]
pub struct RateLimits(pub(super) Option<Arc<Limits>>);

pub(super) struct Limits {
    address: Limit,
    account: Limit,
    writes: Limit,
    auth: Limit,
    wrong_passwords: Limit,
    /// Hides which accounts somebody has tried to log in to.
    pairs: Hmac<Sha256>,
}

/// A policy and what was spent of it.
pub(super) struct Limit {
    pub policy: Policy,
    pub buckets: Buckets,
    limited: Counter,
}

impl RateLimits {
    /// None.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// The policies above. Copies that are to count together have the same secret.
    #[must_use]
    pub fn on(secret: &RootSecret) -> Self {
        let clock = Ticks::default();
        let limit = |policy: Policy| Limit {
            policy,
            buckets: Buckets::new(policy, clock),
            limited: counter!("rate_limited_total", "policy" => policy.name),
        };
        Self(Some(Arc::new(Limits {
            address: limit(ADDRESS),
            account: limit(ACCOUNT),
            writes: limit(WRITES),
            auth: limit(AUTH),
            wrong_passwords: limit(WRONG_PASSWORDS),
            pairs: secret.mac("rate-limits"),
        })))
    }

    /// Whether there are any.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Counts a request. `None`: no limit applies.
    ///
    /// # Errors
    /// It is one too many, and does not count.
    pub fn admit(&self, class: RequestClass) -> Result<Option<RateLimitStatus>, Exceeded> {
        let Some(limits) = &self.0 else { return Ok(None) };
        match class {
            RequestClass::Anonymous(address) => limits.address.spend_alone(Key::of_address(address)),
            RequestClass::Authentication(address) => limits.auth.spend_alone(Key::of_address(address)),
            RequestClass::Read(owner) => limits.account.spend_alone(Key::of_account(owner)),
            RequestClass::Write(owner) => limits.write(Key::of_account(owner)),
        }
        .map(Some)
    }

    /// Before a password is looked at. It counts as a wrong one until [`Attempt::was_not_wrong`] is told, so that many at
    /// once are no way around.
    ///
    /// # Errors
    /// 429 when this address has tried too many wrong ones for this account lately, or has so many looked at just now:
    /// then it may come again in a second.
    pub fn password_attempt(&self, account: &[u8]) -> Result<Attempt, Problem> {
        let Some(limits) = &self.0 else { return Ok(Attempt(None)) };
        // without an address: from no request
        let Some(address) = context::client_of_current() else { return Ok(Attempt(None)) };
        let pair = limits.pair(address, account);
        let open = limits.wrong_passwords.buckets.open(&pair);
        match limits.wrong_passwords.spend(pair) {
            Ok(_) => Ok(Attempt(Some(PendingAttempt { limits: limits.clone(), pair, _open: open }))),
            Err(exceeded) => {
                let retry_after_s = if open.beside_others { 1 } else { exceeded.retry_after_s };
                Err(RateLimitStatus::of(exceeded.status).refusal(retry_after_s))
            }
        }
    }
}

impl From<PolicyExceeded> for Exceeded {
    fn from(exceeded: PolicyExceeded) -> Self {
        Self { status: RateLimitStatus::of(exceeded.status), retry_after_s: exceeded.retry_after_s }
    }
}

impl Limits {
    /// An account's write counts twice: among the writes, and among all its requests.
    fn write(&self, account: Key) -> Result<RateLimitStatus, Exceeded> {
        let writes = self.writes.spend(account).map_err(|writes| self.write_exceeded(writes, account))?;
        match self.account.spend(account) {
            Ok(all) => Ok(RateLimitStatus { first: all, second: Some(writes) }),
            Err(exceeded) => {
                self.writes.buckets.give_back(&account);
                Err(exceeded.into())
            }
        }
    }

    /// A write that was refused as a write: the account may have something left to read with.
    fn write_exceeded(&self, writes: PolicyExceeded, account: Key) -> Exceeded {
        let all = PolicyStatus::new(self.account.policy, self.account.buckets.remaining(&account));
        let status = RateLimitStatus { first: all, second: Some(writes.status) };
        Exceeded { status, retry_after_s: writes.retry_after_s }
    }

    fn pair(&self, address: IpAddr, account: &[u8]) -> Key {
        let mut mac = self.pairs.clone();
        mac.update(&Key::of_address(address).0);
        mac.update(account);
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Key(key)
    }

    pub fn all(&self) -> [&Limit; 5] {
        [&self.address, &self.account, &self.writes, &self.auth, &self.wrong_passwords]
    }
}

/// One policy is used up.
struct PolicyExceeded {
    status: PolicyStatus,
    retry_after_s: u32,
}

impl Limit {
    /// Where no other limit applies.
    fn spend_alone(&self, key: Key) -> Result<RateLimitStatus, Exceeded> {
        Ok(RateLimitStatus::of(self.spend(key)?))
    }

    fn spend(&self, key: Key) -> Result<PolicyStatus, PolicyExceeded> {
        match self.buckets.spend(&key) {
            Ok(remaining) => Ok(PolicyStatus::new(self.policy, remaining)),
            Err(wait) => {
                self.limited.increment(1);
                // rounded up, so that who waits that long is let in
                let retry_after_s = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
                Err(PolicyExceeded { status: PolicyStatus::new(self.policy, 0), retry_after_s })
            }
        }
    }
}

/// A password that is being looked at; dropped without another word it was wrong.
#[must_use = "it counts as a wrong password until was_not_wrong is told"]
pub struct Attempt(Option<PendingAttempt>);

struct PendingAttempt {
    limits: Arc<Limits>,
    pair: Key,
    _open: Open,
}

impl Attempt {
    /// It was right, or nobody could say.
    pub fn was_not_wrong(self) {
        if let Some(looking) = self.0 {
            looking.limits.wrong_passwords.buckets.give_back(&looking.pair);
        }
    }
}

/// The edge puts them there for those who look at passwords; there are none where there is no edge.
impl<S: Sync> FromRequestParts<S> for RateLimits {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.are_on() { "RateLimits(on)" } else { "RateLimits(off)" })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::super::status::{RATELIMIT, RATELIMIT_POLICY};
    use super::*;
    use crate::problem::ProblemCode;

    fn limits() -> RateLimits {
        RateLimits::on(&RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).expect("long"))
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn headers(status: RateLimitStatus) -> (String, String) {
        let mut headers = HeaderMap::new();
        status.append_to(&mut headers);
        let text = |name| headers[name].to_str().expect("ASCII").to_owned();
        (text(RATELIMIT_POLICY), text(RATELIMIT))
    }

    #[test]
    fn so_many_and_no_more_for_each_client() {
        let limits = limits();
        let ask = |n| limits.admit(RequestClass::Anonymous(address(n)));
        for n in 1..=ADDRESS.quota {
            let standing = ask(1).expect("within the limit").expect("a limit");
            // some may have come back meanwhile
            assert!(standing.first.remaining >= ADDRESS.quota - n, "{n}: {standing:?}");
        }
        // what comes back in the time of this loop is let in too
        let refused = (0..ADDRESS.quota).find_map(|_| ask(1).err()).expect("refused");
        assert!((1..=ADDRESS.window_s).contains(&refused.retry_after_s), "{refused:?}");
        let (policy, left) = headers(refused.status());
        assert_eq!(policy, "\"address\";q=100;w=60");
        assert_eq!(left, "\"address\";r=0;t=60");
        // another address, the same one's tokens, an account: each by itself
        ask(2).expect("another address");
        limits.admit(RequestClass::Authentication(address(1))).expect("another policy");
        limits.admit(RequestClass::Read(OwnerId(uuid::Uuid::from_u128(1)))).expect("an account");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limits = limits();
        let ask = |text: &str| limits.admit(RequestClass::Authentication(text.parse().expect("an address")));
        for n in 0..AUTH.quota {
            ask(&format!("2001:db8:0:1::{n:x}")).expect("within the limit");
        }
        assert!((0..AUTH.quota).any(|n| ask(&format!("2001:db8:0:1:{n:x}::1")).is_err()));
        ask("2001:db8:0:2::1").expect("another network");
    }

    #[test]
    fn writes_have_a_limit_of_their_own_within_the_account_s() {
        let limits = limits();
        let owner = OwnerId(uuid::Uuid::from_u128(7));
        for _ in 0..WRITES.quota {
            limits.admit(RequestClass::Write(owner)).expect("within the limit");
        }
        let refused = (0..WRITES.quota).find_map(|_| limits.admit(RequestClass::Write(owner)).err()).expect("refused");
        let (policy, left) = headers(refused.status());
        assert_eq!(policy, "\"account\";q=1200;w=60, \"writes\";q=600;w=60");
        assert!(left.starts_with("\"account\";r=") && left.ends_with(", \"writes\";r=0;t=60"), "{left}");
        let read = limits.admit(RequestClass::Read(owner)).expect("reads go on").expect("a limit");
        assert!(read.first.remaining >= ACCOUNT.quota - WRITES.quota - 1, "{read:?}");
    }

    #[test]
    fn off_means_that_nothing_is_counted() {
        let limits = RateLimits::off();
        for _ in 0..10_000 {
            assert_eq!(limits.admit(RequestClass::Anonymous(address(1))), Ok(None));
        }
    }

    #[tokio::test]
    async fn wrong_passwords_are_counted_by_address_and_account_together() {
        let limits = limits();
        let from = async |n: u8, email: &'static str| {
            let limits = limits.clone();
            let context = process::context::RequestContext::fresh().from_client(address(n));
            context.scope(async move { limits.password_attempt(email.as_bytes()) }).await
        };
        // right ones don't count
        for _ in 0..3 * WRONG_PASSWORDS.quota {
            from(1, "a@example.com").await.expect("not refused").was_not_wrong();
        }
        for _ in 0..WRONG_PASSWORDS.quota {
            drop(from(1, "a@example.com").await.expect("within the limit"));
        }
        let problem = from(1, "a@example.com").await.err().expect("refused");
        assert_eq!(problem.code(), ProblemCode::RateLimited);
        // the owner elsewhere, and another account from there
        from(2, "a@example.com").await.expect("another address").was_not_wrong();
        from(1, "b@example.com").await.expect("another account").was_not_wrong();
    }

    #[tokio::test]
    async fn many_passwords_at_once_are_no_way_around() {
        let limits = limits();
        let context = process::context::RequestContext::fresh().from_client(address(1));
        let retry_after_s = |problem: Problem| {
            let response = axum::response::IntoResponse::into_response(problem);
            let text = response.headers()[axum::http::header::RETRY_AFTER].to_str().expect("ASCII").to_owned();
            text.parse::<u32>().expect("seconds")
        };
        let many = async { (0..50).map(|_| limits.password_attempt(b"a")).collect::<Vec<_>>() };
        let (attempts, refusals): (Vec<_>, Vec<_>) =
            context.clone().scope(many).await.into_iter().partition(Result::is_ok);
        let attempts: Vec<Attempt> = attempts.into_iter().filter_map(Result::ok).collect();
        assert_eq!(attempts.len(), WRONG_PASSWORDS.quota as usize);
        // they may turn out to be right ones
        let waits: Vec<u32> = refusals.into_iter().filter_map(Result::err).map(retry_after_s).collect();
        assert!(waits.len() == 45 && waits.iter().all(|wait| *wait == 1), "{waits:?}");
        // they do not
        drop(attempts);
        let refused = context.scope(async { limits.password_attempt(b"a").err() }).await.expect("refused");
        assert!(retry_after_s(refused) > 1);
    }
}
