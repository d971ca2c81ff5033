//! Owner versions in a real Redis.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use backends::redis::Redis;
use common::until;
use domain::OwnerId;
use process::clock;
use projector::Applied;
use read_model::{OwnerRow, ReadModelId};
use rustix::process::Signal;
use system_tests::redis::Redis as Server;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct World {
    server: Server,
    redis: Redis,
    cache_id: Uuid,
    log_id: Uuid,
    shutdown: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let server = Server::start();
        let redis = Redis::connect(&server.url()).unwrap();
        redis.up().await;
        Self { server, redis, cache_id: Uuid::new_v4(), log_id: Uuid::new_v4(), shutdown: CancellationToken::new() }
    }

    fn applied(&self, owner: Uuid, counter: i64) -> Applied {
        let owner = OwnerRow {
            owner_id: OwnerId(owner),
            revision: counter + 100,
            change_counter: counter,
            parked_position: (counter % 2 == 0).then_some(7),
        };
        let read_model = ReadModelId { cache_id: self.cache_id, log_id: self.log_id, generation: 1 };
        Applied { read_model, as_of: clock::now(), owners: vec![owner] }
    }

    fn key(&self, owner: Uuid) -> String {
        let Self { cache_id, log_id, .. } = self;
        format!("primetrade:{}:{}:1:standing:{}", cache_id.simple(), log_id.simple(), owner.simple())
    }

    /// Change counter, revision, parked position and owner, as docs/redis.md has them.
    async fn written(&self, owner: Uuid) -> Option<(i64, i64, Option<i64>, Uuid)> {
        let value = self.redis.get(&self.key(owner)).await.ok().flatten()?;
        let text = String::from_utf8(value.to_vec()).unwrap();
        assert_eq!(text.len(), 96);
        let number = |at: usize| u64::from_str_radix(&text[16 * at..16 * at + 16], 16).unwrap();
        let parked = Some(number(3)).filter(|parked| *parked != u64::MAX);
        let signed = |number: u64| i64::try_from(number).unwrap();
        Some((signed(number(0)) - 1, signed(number(2)), parked.map(signed), Uuid::try_parse(&text[64..]).unwrap()))
    }
}

#[tokio::test]
async fn owner_versions_are_written_forwards_only_also_when_they_come_again() {
    let world = World::new().await;
    let (sender, writing) = projector::redis::start(world.redis.clone(), world.shutdown.clone());
    let owner = Uuid::new_v4();
    sender.try_send(world.applied(owner, 5)).unwrap();
    until("it is written", || async { world.written(owner).await == Some((5, 105, None, owner)) }).await;
    let other = Uuid::new_v4();
    for (counter, owner) in [(6, owner), (4, owner), (5, owner), (1 << 40, other), (3, other), (6, owner)] {
        sender.try_send(world.applied(owner, counter)).unwrap();
    }
    until("it is written", || async { world.written(other).await.is_some() }).await;
    assert_eq!(world.written(owner).await, Some((6, 106, Some(7), owner)));
    assert_eq!(world.written(other).await.unwrap().0, 1 << 40);
    // By another copy, which knows nothing of the first one.
    let (second, _) = projector::redis::start(world.redis.clone(), world.shutdown.clone());
    second.try_send(world.applied(owner, 5)).unwrap();
    let last = Uuid::new_v4();
    second.try_send(world.applied(last, 1)).unwrap();
    until("it is written", || async { world.written(last).await.is_some() }).await;
    assert_eq!(world.written(owner).await.unwrap().0, 6);
    let key = world.key(owner);
    let ttl_ms: i64 = world.server.ask(&["PTTL", &key]).trim().parse().unwrap();
    assert!((1..=3_000).contains(&ttl_ms), "{ttl_ms}");
    // It is written once more when it comes again: the owner is seen to be there for longer.
    let before = world.redis.get(&key).await.unwrap();
    until("it is written again", || async {
        // Within the same millisecond it is the same.
        sender.try_send(world.applied(owner, 6)).unwrap();
        world.redis.get(&key).await.unwrap() != before
    })
    .await;
    // What was sent before the end is written.
    sender.try_send(world.applied(owner, 9)).unwrap();
    world.shutdown.cancel();
    writing.await.unwrap();
    assert_eq!(world.written(owner).await.unwrap().0, 9);
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up_and_gets_what_it_missed() {
    let world = World::new().await;
    let (sender, _) = projector::redis::start(world.redis.clone(), world.shutdown.clone());
    let owner = Uuid::new_v4();
    sender.try_send(world.applied(owner, 1)).unwrap();
    until("it is written", || async { world.written(owner).await.is_some() }).await;
    world.server.signal(Signal::STOP);
    for counter in 2..500 {
        // Taken out of the queue while nothing can be written.
        sender.try_send(world.applied(owner, counter)).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.server.signal(Signal::CONT);
    until("the last one is written", || async { world.written(owner).await.is_some_and(|w| w.0 == 499) }).await;
}

#[tokio::test]
async fn what_nobody_would_believe_any_more_is_not_written() {
    let world = World::new().await;
    let (sender, _) = projector::redis::start(world.redis.clone(), world.shutdown.clone());
    let (late, owner) = (Uuid::new_v4(), Uuid::new_v4());
    let mut applied = world.applied(late, 1);
    applied.as_of -= chrono::TimeDelta::milliseconds(3_001);
    sender.try_send(applied).unwrap();
    sender.try_send(world.applied(owner, 1)).unwrap();
    until("the other is written", || async { world.written(owner).await.is_some() }).await;
    assert_eq!(world.written(late).await, None);
}
