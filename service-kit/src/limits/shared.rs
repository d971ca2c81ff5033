//! Copies that count together, by way of Redis (`migrations/redis/rate-limits.lua`).
//!
//! Each decides by its own memory and tells what it has admitted every [`SETTLE_EVERY_MS`]; the answer says how much all
//! of them together have. So a client that is everywhere at once gets at most what comes within that time too much, and
//! has to wait for so much longer: over a while the limit is exact. Where Redis is away nothing is told, and each copy
//! limits by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::RateLimits;
use super::buckets::{Bucket, Buckets};
use crate::redis::Redis;

const SETTLE_EVERY_MS: u64 = 100;
/// Clients in one call, which has to be done in time.
const BATCH_MAX: usize = 500;
const SCRIPT: &str = include_str!("../../../migrations/redis/rate-limits.lua");

/// Until `stop`.
pub(super) async fn share(limits: RateLimits, redis: Redis, installation: String, stop: CancellationToken) {
    let Some(limits) = limits.0 else { return stop.cancelled().await };
    let mut tick = tokio::time::interval(Duration::from_millis(SETTLE_EVERY_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
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
