//! Where owners stand, written to Redis after each commit.
//!
//! Beside the projection, never in its way: what is committed comes through a bounded queue, newer standings of an
//! owner replace older ones, and a script writes them forwards only, so that a late or repeated write does no harm.
//! A Redis that is away or slow is tried again as long as anybody would believe what it still has, which is as long
//! as it would believe what is written ([`STANDING_MS_MAX`]); then there is nothing left to mend. Keys and values:
//! `migrations/redis/standing.lua` and docs/redis.md, for query-api reads them.

use std::collections::HashMap;
use std::time::Duration;

use backends::redis::Redis;
use chrono::TimeDelta;
use domain::Time;
use metrics::{counter, gauge};
use process::clock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::batch::Applied;
use crate::fence::OwnerStanding;

/// How long a standing is believed after it was so, milliseconds; query-api has the same number.
pub const STANDING_MS_MAX: i64 = 3_000;

/// Commits that wait; what comes while it is full is not written, and expires.
const COMMITS_WAITING_MAX: usize = 1_024;
/// Owners that wait to be written; when there are more they are all dropped, and expire.
const OWNERS_WAITING_MAX: usize = 50_000;
/// Owners in one script.
const OWNERS_AT_ONCE_MAX: usize = 500;
/// When to try again what could not be written.
const RETRY_MS: u64 = 50;

const SCRIPT: &str = include_str!("../../migrations/redis/standing.lua");

/// Starts the writer. What is sent to it is written; a full queue is no reason to wait. It ends at `shutdown`, or when
/// nobody can send any more, and then has tried to write what was sent before.
#[must_use]
pub fn start(redis: Redis, shutdown: CancellationToken) -> (mpsc::Sender<Applied>, JoinHandle<()>) {
    let (sender, commits) = mpsc::channel(COMMITS_WAITING_MAX);
    let writer = Writer { redis, waiting: HashMap::new() };
    (sender, tokio::spawn(writer.run(commits, shutdown)))
}

/// Of which read models: the first part of every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    cache_id: Uuid,
    log_id: Uuid,
    generation: i32,
}

struct Writer {
    redis: Redis,
    waiting: HashMap<Uuid, (Line, Time, OwnerStanding)>,
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
        let Applied { log_id, cache_id, generation, as_of, owners } = applied;
        for owner in owners {
            let newer = (Line { cache_id, log_id, generation }, as_of, owner);
            let entry = self.waiting.entry(owner.owner_id.0).or_insert(newer);
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
        let believed_since = clock::now() - TimeDelta::milliseconds(STANDING_MS_MAX);
        self.waiting.retain(|_, (_, as_of, _)| *as_of > believed_since);
        while self.redis.is_up() && !self.waiting.is_empty() {
            let Some((line, earliest, owners)) = self.next_owners() else { break };
            if !self.write_owners(line, earliest, &owners).await {
                break;
            }
            for owner in owners {
                self.waiting.remove(&owner);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!("projector_redis_owners_waiting").set(self.waiting.len() as f64);
    }

    /// Some owners of one line, and the earliest time at which one of them was seen.
    fn next_owners(&self) -> Option<(Line, Time, Vec<Uuid>)> {
        let (line, mut earliest, _) = *self.waiting.values().next()?;
        let of_line = self.waiting.iter().filter(|(_, (of, _, _))| *of == line).take(OWNERS_AT_ONCE_MAX);
        let owners = of_line.map(|(owner, (_, as_of, _))| {
            earliest = earliest.min(*as_of);
            *owner
        });
        let owners = owners.collect();
        Some((line, earliest, owners))
    }

    async fn write_owners(&self, line: Line, earliest: Time, owners: &[Uuid]) -> bool {
        let mut keys = Vec::with_capacity(owners.len());
        let mut arguments = Vec::with_capacity(owners.len() + 1);
        arguments.push((earliest.timestamp_millis() + STANDING_MS_MAX).to_string());
        for (_, as_of, owner) in owners.iter().filter_map(|owner| self.waiting.get(owner)) {
            keys.push(key(line, owner.owner_id.0));
            arguments.push(value(owner, *as_of));
        }
        let written = self.redis.run_script(SCRIPT, &keys, &arguments).await.is_ok();
        if written {
            counter!("projector_redis_written_total").increment(owners.len() as u64);
        }
        written
    }
}

fn key(line: Line, owner: Uuid) -> String {
    let Line { cache_id, log_id, generation } = line;
    format!("primetrade:{}:{}:{generation}:standing:{}", cache_id.simple(), log_id.simple(), owner.simple())
}

fn value(standing: &OwnerStanding, as_of: Time) -> String {
    // None of them is negative.
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    format!(
        "{:016x}{:016x}{:016x}{:016x}{}",
        number(standing.change_counter) + 1,
        number(as_of.timestamp_millis()),
        number(standing.revision),
        standing.parked_position.map_or(u64::MAX, number),
        standing.owner_id.0.simple()
    )
}
