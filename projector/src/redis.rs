//! Owner versions, written to Redis after each commit.
//!
//! The projection never waits for it: commits come through a bounded queue, a newer version of an owner replaces an older
//! one, and the script writes forwards only, so that a late or repeated write does no harm. While Redis is away or slow,
//! a version is tried again until nobody would believe it any more ([`OWNER_VERSION_MS_MAX`]).

use std::collections::HashMap;
use std::time::Duration;

use backends::redis::Redis;
use chrono::TimeDelta;
use domain::{OwnerId, Time};
use metrics::{counter, gauge};
use process::clock;
use read_model::{CachedOwnerVersion, OWNER_VERSION_MS_MAX, OwnerRow, ReadModelId, WRITE_OWNER_VERSIONS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::batch::Applied;

/// Commits that wait; what comes while it is full is not written, and expires.
const COMMITS_WAITING_MAX: usize = 1_024;
/// Owners that wait to be written; when there are more they are all dropped, and expire.
const OWNERS_WAITING_MAX: usize = 50_000;
/// Owners in one script.
const OWNERS_PER_WRITE_MAX: usize = 500;
/// When to try again what could not be written.
const RETRY_MS: u64 = 50;

/// Starts the writer. What is sent to it is written; a full queue is no reason to wait. It ends at `shutdown`, or when
/// nobody can send any more, and then has tried to write what was sent before.
#[must_use]
pub fn start(redis: Redis, shutdown: CancellationToken) -> (mpsc::Sender<Applied>, JoinHandle<()>) {
    let (sender, commits) = mpsc::channel(COMMITS_WAITING_MAX);
    let writer = Writer { redis, waiting: HashMap::new() };
    (sender, tokio::spawn(writer.run(commits, shutdown)))
}

struct Writer {
    redis: Redis,
    waiting: HashMap<OwnerId, (ReadModelId, Time, OwnerRow)>,
}

impl Writer {
    async fn run(mut self, mut commits: mpsc::Receiver<Applied>, shutdown: CancellationToken) {
        loop {
            let first = tokio::select! {
                first = commits.recv() => match first {
                    Some(first) => Some(first),
                    None => break,
                },
                () = sleep(Duration::from_millis(RETRY_MS)), if !self.waiting.is_empty() => None,
                () = shutdown.cancelled() => break,
            };
            first.into_iter().for_each(|applied| self.take(applied));
            while let Ok(applied) = commits.try_recv() {
                self.take(applied);
            }
            self.write().await;
        }
        while let Ok(applied) = commits.try_recv() {
            self.take(applied);
        }
        self.write().await;
    }

    fn take(&mut self, applied: Applied) {
        let Applied { read_model, as_of, owners } = applied;
        for owner in owners {
            let newer = (read_model, as_of, owner);
            let entry = self.waiting.entry(owner.owner_id).or_insert(newer);
            // Commits of an owner come in their order, but for what two copies do at the same time.
            if entry.0 != newer.0 || (entry.2.change_counter, entry.1) < (owner.change_counter, as_of) {
                *entry = newer;
            }
        }
        if self.waiting.len() > OWNERS_WAITING_MAX {
            self.waiting.clear();
            counter!("projector_redis_dropped_total").increment(1);
        }
    }

    /// Writes what waits; what cannot be written stays, until nobody would believe it.
    async fn write(&mut self) {
        let believed_since = clock::now() - TimeDelta::milliseconds(OWNER_VERSION_MS_MAX);
        self.waiting.retain(|_, (_, as_of, _)| *as_of > believed_since);
        while self.redis.is_up() && !self.waiting.is_empty() {
            let Some((read_model, earliest, owners)) = self.next_owners() else { break };
            if !self.write_owners(read_model, earliest, &owners).await {
                break;
            }
            for owner in owners {
                self.waiting.remove(&owner);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!("projector_redis_owners_waiting").set(self.waiting.len() as f64);
    }

    /// Some owners of the same read models, and the earliest time at which one of them was seen.
    fn next_owners(&self) -> Option<(ReadModelId, Time, Vec<OwnerId>)> {
        let (read_model, mut earliest, _) = *self.waiting.values().next()?;
        let owners = self.waiting.iter().filter(|(_, (of, _, _))| *of == read_model).take(OWNERS_PER_WRITE_MAX);
        let owners = owners.map(|(owner, (_, as_of, _))| {
            earliest = earliest.min(*as_of);
            *owner
        });
        let owners = owners.collect();
        Some((read_model, earliest, owners))
    }

    async fn write_owners(&self, read_model: ReadModelId, earliest: Time, owners: &[OwnerId]) -> bool {
        let mut keys = Vec::with_capacity(owners.len());
        let mut arguments = Vec::with_capacity(owners.len() + 1);
        arguments.push((earliest.timestamp_millis() + OWNER_VERSION_MS_MAX).to_string());
        for (_, as_of, owner) in owners.iter().filter_map(|owner| self.waiting.get(owner)) {
            keys.push(read_model.owner_key(owner.owner_id));
            arguments.push(CachedOwnerVersion::of(*owner, *as_of).to_value());
        }
        let written = self.redis.run_script(WRITE_OWNER_VERSIONS, &keys, &arguments).await.is_ok();
        if written {
            counter!("projector_redis_written_total").increment(owners.len() as u64);
        }
        written
    }
}
