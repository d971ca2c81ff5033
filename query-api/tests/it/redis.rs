//! With a real Redis between the processes' own caches and Postgres: whatever it does, answers are right, and quick.
//!
//! An owner of whom a process has shown nothing stands for a process that knows nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use backends::redis::{Entry, GENERATION_KEY, Redis};
use bytes::Bytes;
use rustix::process::Signal;
use system_tests::redis::Redis as Server;
use system_tests::wait::eventually;
use uuid::Uuid;

use crate::world::{SETTLED_MS, Task, World};

const TOKEN: &str = "consistency-token";
/// A read may take so long, whatever Redis does.
const READ_TIME_MAX: Duration = Duration::from_secs(1);

impl World {
    fn handle(&self) -> &Redis {
        self.redis.as_ref().unwrap()
    }

    /// The title of the owner's only task, as a process shows it without a token, in good time.
    async fn title(&self, router: &Router, owner: Uuid) -> String {
        self.title_with(router, owner, &[]).await
    }

    /// The same to who has changed something: a process that has looked a moment ago need not look again for others.
    async fn title_since(&self, router: &Router, owner: Uuid, position: i64) -> String {
        self.title_with(router, owner, &[(TOKEN, &self.token(owner, position))]).await
    }

    async fn title_with(&self, router: &Router, owner: Uuid, headers: &[(&str, &str)]) -> String {
        let began = Instant::now();
        let body = self.send(router, owner, "/api/v1/tasks", headers).await.ok().json();
        assert!(began.elapsed() < READ_TIME_MAX, "{:?}", began.elapsed());
        body["items"][0]["title"].as_str().unwrap().to_owned()
    }

    /// Commits a change of which Redis is not told.
    async fn rename_in_secret(&self, owner: Uuid, task: &mut Task, title: &str) -> i64 {
        self.redis_misses.store(true, Ordering::Relaxed);
        let position = self.rename(owner, task, title).await;
        self.redis_misses.store(false, Ordering::Relaxed);
        position
    }

    /// Has the list as it is now kept in Redis. An old version alone shows nothing old: what is loaded for it is new.
    async fn keep(&self, server: &Server, owner: Uuid) -> Entry {
        self.title(&self.another_process(true), owner).await;
        let pattern = format!("*:answer:*{}*", owner.simple());
        eventually("the answer is kept", async || !keys(server, &pattern).is_empty()).await;
        let key = keys(server, &pattern).remove(0);
        let value = self.handle().get(&key).await.unwrap().unwrap();
        Entry { key, value: value.to_vec(), ttl_ms: 60_000 }
    }

    /// Puts an owner version into Redis as it is, without the script, for as long as any.
    async fn plant(&self, (key, value): (String, String)) {
        self.handle().set(vec![Entry { key, value: value.into_bytes(), ttl_ms: 3_000 }]).await.unwrap();
    }

    /// A process that has asked the primary once, so that it knows under which name to ask Redis.
    async fn informed_process(&self) -> Router {
        let router = self.another_process(true);
        self.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
        router
    }
}

/// A world on this Redis, and an owner with a task in it.
async fn one_task(server: &Server, title: &str) -> (World, Uuid, Task) {
    let (world, owner, task) = (World::with_redis(&server.url()).await, Uuid::new_v4(), Task::new(title));
    world.create(owner, &task).await;
    (world, owner, task)
}

fn keys(server: &Server, pattern: &str) -> Vec<String> {
    server.ask(&["KEYS", pattern]).lines().map(str::to_owned).filter(|key| !key.is_empty()).collect()
}

#[tokio::test]
async fn what_one_process_has_read_others_take_from_redis_as_it_is() {
    let server = Server::start();
    let world = World::with_redis(&server.url()).await;
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("made here")).await;
    let path = "/api/v1/tasks?limit=1";
    let first = world.get(owner, path).await.ok();
    eventually("the answer is kept", async || keys(&server, "*:answer:*").len() == 1).await;
    let key = keys(&server, "*:answer:*").remove(0);
    // Changed there, so that it can be seen where it comes from.
    let kept = world.handle().get(&key).await.unwrap().unwrap();
    let at = kept.windows(9).position(|bytes| bytes == b"made here").unwrap();
    server.ask(&["SETRANGE", &key, &at.to_string(), "SENT THIS"]);
    let second = world.send(&world.another_process(true), owner, path, &[]).await.ok();
    assert_eq!(second.json()["items"][0]["title"], "SENT THIS");
    for name in ["etag", TOKEN, "content-type"] {
        assert_eq!(second.header(name), first.header(name));
    }
    let ttl_ms: i64 = server.ask(&["PTTL", &key]).trim().parse().unwrap();
    assert!((200_000..=300_000).contains(&ttl_ms), "lists: 5 minutes: {ttl_ms}");
    world.get(owner, "/api/v1/stats?from=2026-01-01&to=2026-01-02").await.ok();
    eventually("statistics are kept", async || keys(&server, "*:answer:*").len() == 2).await;
    let stats = keys(&server, "*:answer:*").into_iter().find(|other| *other != key).unwrap();
    let ttl_ms: i64 = server.ask(&["PTTL", &stats]).trim().parse().unwrap();
    assert!((500_000..=600_000).contains(&ttl_ms), "statistics: 10 minutes: {ttl_ms}");
    // Pages have a link; it comes from Redis as well.
    let position = world.create(owner, &Task::new("another")).await;
    let token = world.token(owner, position);
    let page = world.send(&world.router, owner, path, &[(TOKEN, &token)]).await.ok();
    eventually("the page is kept", async || keys(&server, "*:answer:*").len() == 3).await;
    world.tell_redis(owner).await;
    let again = world.send(&world.informed_process().await, owner, path, &[]).await.ok();
    assert!(!page.header("link").is_empty());
    assert_eq!((again.header("link"), &again.body), (page.header("link"), &page.body));
}

/// As if a connection had mixed up its answers, or two names were one.
#[tokio::test]
async fn an_answer_to_something_else_is_not_taken() {
    let server = Server::start();
    let world = World::with_redis(&server.url()).await;
    let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
    world.create(owner, &Task::new("mine")).await;
    world.create(other, &Task::new("theirs")).await;
    world.get(owner, "/api/v1/tasks").await.ok();
    world.get(other, "/api/v1/tasks").await.ok();
    eventually("both are kept", async || keys(&server, "*:answer:*").len() == 2).await;
    let answers = keys(&server, "*:answer:*");
    let mine = answers.iter().find(|key| key.contains(&owner.simple().to_string())).unwrap();
    let theirs = answers.iter().find(|key| key.contains(&other.simple().to_string())).unwrap();
    let swapped: Bytes = world.handle().get(theirs).await.unwrap().unwrap();
    world.handle().set(vec![Entry { key: mine.clone(), value: swapped.to_vec(), ttl_ms: 60_000 }]).await.unwrap();
    assert_eq!(world.title(&world.another_process(true), owner).await, "mine");
    // Nor is an owner version.
    let mut task = Task::new("later");
    let third = Uuid::new_v4();
    world.create(third, &task).await;
    let (_, of_other) = world.owner_version(other).await;
    world.rename(third, &mut task, "now").await;
    let (key, _) = world.owner_version(third).await;
    world.plant((key, of_other)).await;
    assert_eq!(world.title(&world.informed_process().await, third).await, "now");
    // Nor is nonsense.
    let (key, _) = world.owner_version(third).await;
    for nonsense in ["", "x", &"z".repeat(96), &"é".repeat(48)] {
        world.plant((key.clone(), nonsense.to_owned())).await;
        world.handle().set(vec![Entry { key: mine.clone(), value: nonsense.into(), ttl_ms: 60_000 }]).await.unwrap();
        let router = world.informed_process().await;
        assert_eq!(world.title(&router, third).await, "now");
        assert_eq!(world.title(&router, owner).await, "mine");
    }
}

/// The projector could not write, or died before it did.
#[tokio::test]
async fn a_redis_that_missed_a_write_does_not_stay_wrong_and_tokens_hold_meanwhile() {
    let server = Server::shared();
    let (world, owner, mut task) = one_task(&server, "before").await;
    world.keep(&server, owner).await;
    // There before it matters: an owner version is believed for 3 s.
    let (router, other) = (world.informed_process().await, world.informed_process().await);
    let before = world.owner_version(owner).await;
    let position = world.rename_in_secret(owner, &mut task, "after").await;
    world.plant(before.clone()).await;
    assert_eq!(world.title(&router, owner).await, "before", "Redis is believed, or this test says nothing");
    // With a token it is seen at once, and not taken back though Redis says so again.
    assert_eq!(world.title_since(&other, owner, position).await, "after");
    // For longer than it goes by what it has just seen.
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        world.plant(before.clone()).await;
        assert_eq!(world.title(&other, owner).await, "after");
    }
    // Old ones are not believed, also where Redis keeps them for longer than it should; nor ones from the future.
    let now_ms = process::clock::now().timestamp_millis();
    for as_of_ms in [now_ms - 3_001, now_ms + 5_000] {
        let value = format!("{}{as_of_ms:016x}{}", &before.1[..16], &before.1[32..]);
        world.handle().set(vec![Entry { key: before.0.clone(), value: value.into(), ttl_ms: 600_000 }]).await.unwrap();
        assert_eq!(world.title(&world.informed_process().await, owner).await, "after");
    }
}

/// Nobody sends a token, and nobody else looks.
#[tokio::test]
async fn what_redis_missed_is_seen_within_seconds() {
    let server = Server::shared();
    let (world, owner, mut task) = one_task(&server, "before").await;
    world.keep(&server, owner).await;
    let router = world.informed_process().await;
    world.tell_redis(owner).await;
    world.rename_in_secret(owner, &mut task, "after").await;
    let began = Instant::now();
    assert_eq!(world.title(&router, owner).await, "before", "Redis is believed, or this test says nothing");
    eventually("it ends by itself", async || world.title(&router, owner).await == "after").await;
    assert!(began.elapsed() < Duration::from_millis(3_500), "{:?}", began.elapsed());
}

/// A process that has looked puts it right for the others.
#[tokio::test]
async fn who_asks_postgres_fills_redis_again_and_never_backwards() {
    let server = Server::start();
    let (world, owner, mut task) = one_task(&server, "before").await;
    let (key, old) = world.owner_version(owner).await;
    world.plant((key.clone(), old.clone())).await;
    let position = world.rename_in_secret(owner, &mut task, "after").await;
    world.send(&world.router, owner, "/api/v1/tasks", &[(TOKEN, &world.token(owner, position))]).await.ok();
    let counter = |value: &[u8]| String::from_utf8_lossy(&value[..16]).into_owned();
    eventually("it is filled again", async || {
        world.handle().get(&key).await.unwrap().is_some_and(|now| counter(&now) > counter(old.as_bytes()))
    })
    .await;
    // A late writer does not turn it back.
    let script = include_str!("../../../migrations/redis/owner-versions.lua");
    let now_ms = process::clock::now().timestamp_millis();
    let later = (now_ms + 3_000).to_string();
    let written = world.handle().run_script(script, std::slice::from_ref(&key), &[later, old.clone()]).await.unwrap();
    assert_eq!(written, Some(0));
    assert!(counter(&world.handle().get(&key).await.unwrap().unwrap()) > counter(old.as_bytes()));
    // Nor does one that is so late that the newer one is gone.
    server.ask(&["DEL", &key]);
    let earlier = (now_ms - 1).to_string();
    world.handle().run_script(script, std::slice::from_ref(&key), &[earlier, old]).await.unwrap();
    assert_eq!(world.handle().get(&key).await.unwrap(), None);
    // Ends by itself.
    let (key, value) = world.owner_version(owner).await;
    world
        .handle()
        .run_script(script, std::slice::from_ref(&key), &[(now_ms + 3_000).to_string(), value])
        .await
        .unwrap();
    let ttl_ms: i64 = server.ask(&["PTTL", &key]).trim().parse().unwrap();
    assert!((0..=3_000).contains(&ttl_ms), "{ttl_ms}");
}

#[tokio::test]
async fn a_wiped_redis_is_not_believed_until_it_has_settled() {
    let server = Server::start();
    let (world, owner, mut task) = one_task(&server, "before").await;
    let kept = world.keep(&server, owner).await;
    let before = world.owner_version(owner).await;
    let generation = server.ask(&["GET", GENERATION_KEY]);
    world.rename(owner, &mut task, "after").await;
    let router = world.informed_process().await;
    server.ask(&["FLUSHALL"]);
    // Writers that are a little late.
    world.plant(before).await;
    world.handle().set(vec![kept]).await.unwrap();
    assert_eq!(world.title(&router, owner).await, "after");
    assert_eq!(world.title(&world.another_process(true), owner).await, "after");
    eventually("it has another generation", async || {
        let now = server.ask(&["GET", GENERATION_KEY]);
        !now.trim().is_empty() && now != generation
    })
    .await;
    eventually("it is believed again", async || world.handle().settled_values(&[], SETTLED_MS).await.is_ok()).await;
}

#[tokio::test]
async fn a_redis_that_is_killed_or_restarted_empty_or_with_old_data_is_done_without() {
    let server = Server::start();
    let (world, owner, mut task) = one_task(&server, "before").await;
    let kept = world.keep(&server, owner).await;
    let (router, other) = (world.informed_process().await, world.informed_process().await);
    let before = world.owner_version(owner).await;
    // Until then it would be believed.
    let believed_until = Instant::now() + Duration::from_millis(3_000);
    world.plant(before.clone()).await;
    server.ask(&["SAVE"]);
    let position = world.rename(owner, &mut task, "after").await;
    server.restart();
    assert_eq!(server.ask(&["GET", &before.0]).trim(), before.1, "old data, or this test says nothing");
    assert!(!server.ask(&["GET", &kept.key]).is_empty(), "old data, or this test says nothing");
    eventually("Redis is reached again", async || world.handle().is_up()).await;
    assert_eq!(world.title(&router, owner).await, "after");
    assert_eq!(world.title(&other, owner).await, "after");
    assert!(Instant::now() < believed_until, "too slow to say anything");

    server.kill();
    for _ in 0..20 {
        let process = world.another_process(true);
        assert_eq!(world.title(&process, owner).await, "after");
        assert_eq!(world.title_since(&router, owner, position).await, "after");
    }
    let position = world.rename(owner, &mut task, "while it was away").await;
    assert_eq!(world.title_since(&router, owner, position).await, "while it was away");
    server.restart_empty();
    assert_eq!(world.title(&router, owner).await, "while it was away");
    eventually("it is used again", async || {
        world.title(&world.another_process(true), owner).await;
        keys(&server, "*:answer:*").len() == 1 && keys(&server, "*:standing:*").len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_makes_no_read_slower_than_a_second() {
    let server = Server::start();
    let (world, owner, mut task) = one_task(&server, "0").await;
    let router = world.informed_process().await;
    server.signal(Signal::STOP);
    for n in 1..40 {
        let title = n.to_string();
        let position = world.rename(owner, &mut task, &title).await;
        assert_eq!(world.title_since(&router, owner, position).await, title);
        assert!(n < 5 || !world.handle().is_up(), "some calls were in vain: that is enough");
    }
    server.signal(Signal::CONT);
    // What was written into its socket before it hung is done now.
    eventually("it is believed again", async || world.handle().settled_values(&[], SETTLED_MS).await.is_ok()).await;
    assert_eq!(world.title(&world.informed_process().await, owner).await, "39");
}

#[tokio::test]
async fn a_switch_of_generations_is_seen_within_seconds() {
    let world = World::with_redis(&Server::shared().url()).await;
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("x")).await;
    let router = world.informed_process().await;
    let before = world.send(&router, owner, "/api/v1/tasks", &[]).await.ok();
    world.switch_generation(2).await;
    let began = Instant::now();
    eventually("the other generation", async || {
        let after = world.send(&router, owner, "/api/v1/tasks", &[]).await.ok();
        assert_eq!((after.json(), after.header(TOKEN)), (before.json(), before.header(TOKEN)));
        after.header("etag") != before.header("etag")
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
