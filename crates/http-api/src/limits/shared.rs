//! Copies that count together, by way of Redis (`migrations/redis/rate-limits.lua`).
//!
//! Each decides by its own memory and tells what it has admitted every [`SETTLE_EVERY_MS`]; the answer says how much all
//! of them together have. So a client that is everywhere at once gets at most what comes within that time too much, and
//! has to wait for so much longer: over a while the limit is exact. Where Redis is away nothing is told, and each copy
//! limits by itself.

use std::sync::Arc;
use std::time::Duration;

use access::installation::Installation;
use backends::redis::Redis;
use process::periodic::Periodic;
use tokio_util::sync::CancellationToken;

use super::buckets::{Bucket, Buckets};
use super::rate_limits::RateLimits;

const SETTLE_EVERY_MS: u64 = 100;
/// Clients in one call, which has to be done in time.
const BATCH_MAX: usize = 500;
const SCRIPT: &str = include_str!("../../../../migrations/redis/rate-limits.lua");

impl RateLimits {
    /// Tells other copies of this installation by way of Redis what was admitted here, and learns what was admitted
    /// there, until `stop`. Without any limits it only waits.
    pub fn share(
        &self,
        redis: Redis,
        installation: &Installation,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        // from now on, not from when it is first polled
        for limit in self.0.iter().flat_map(|limits| limits.all()) {
            limit.buckets.shared();
        }
        share(self.clone(), redis, installation.tag().to_owned(), stop)
    }
}

/// Until `stop`.
async fn share(limits: RateLimits, redis: Redis, installation: String, stop: CancellationToken) {
    let Some(limits) = limits.0 else { return stop.cancelled().await };
    let mut sharing = Periodic::every(Duration::from_millis(SETTLE_EVERY_MS), "sharing rate limits", stop);
    while sharing.due().await {
        for limit in limits.all() {
            let owing = limit.buckets.take_owing();
            for batch in owing.chunks(BATCH_MAX) {
                let prefix = format!("primetrade:limit:{installation}:{}", limit.policy.name);
                settle(&prefix, &limit.buckets, batch, &redis).await;
            }
        }
    }
}

async fn settle(prefix: &str, buckets: &Buckets, batch: &[Arc<Bucket>], redis: &Redis) {
    let interval_us = buckets.interval_us().to_string();
    let (mut keys, mut arguments) = (Vec::with_capacity(batch.len()), Vec::with_capacity(2 * batch.len()));
    for bucket in batch {
        keys.push(format!("{prefix}:{:032x}", u128::from_be_bytes(bucket.key.0)));
        arguments.push(interval_us.clone());
        arguments.push(bucket.take_owed().to_string());
    }
    // away: what was admitted here stays this copy's own affair
    let Ok(answers) = redis.run_script_on_all(SCRIPT, &keys, &arguments).await else { return };
    for (bucket, paid_back_in_us) in batch.iter().zip(answers) {
        buckets.catch_up(bucket, u64::try_from(paid_back_in_us).unwrap_or(0));
    }
}
