//! Reads from a replica that is behind, or away: tokens hold, and what was shown is not taken back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use backends::database::Pool;
use futures_util::future::join_all;
use query_api::{Replica, Sources};
use sqlx::postgres::PgConnectOptions;
use system_tests::redis::Redis;
use system_tests::wait::eventually;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::streams::Stream;
use crate::world::{Task, World, at, rfc};

const TOKEN: &str = "consistency-token";
/// As [`World::pool`] has them.
const CONNECTIONS: u32 = 4;

impl World {
    async fn with_replica(&self, name: &str) -> Router {
        self.with_replica_at(self.pool(Some(name))).await
    }

    /// Connected before it is asked, so that the first answer comes in time on a slow machine, too.
    async fn with_replica_at(&self, pool: Pool) -> Router {
        join_all((0..CONNECTIONS).map(|_| pool.acquire()))
            .await
            .into_iter()
            .for_each(|connection| drop(connection.unwrap()));
        self.with_replica_untried(pool)
    }

    pub fn with_replica_untried(&self, pool: Pool) -> Router {
        let replica = Replica::new(pool);
        self.process(Sources { primary: self.pool(None), replica: Some(replica), redis: None }, true)
    }

    async fn first_title(&self, router: &Router, owner: Uuid, headers: &[(&str, &str)]) -> String {
        let body = self.send(router, owner, "/api/v1/tasks", headers).await.ok().json();
        body["items"][0]["title"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_token_holds_over_a_replica_that_is_behind() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("before");
    world.create(owner, &task).await;
    let replica = world.replica().await;
    let position = world.rename(owner, &mut task, "after").await;
    let router = world.with_replica(&replica).await;
    // Whoever is asked first: the primary, until it is known which generation is live.
    world.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    assert_eq!(
        world.first_title(&router, owner, &[]).await,
        "before",
        "the replica is read, or this test says nothing"
    );
    let token = world.token(owner, position);
    let began = Instant::now();
    for path in ["/api/v1/tasks".to_owned(), format!("/api/v1/tasks/{}", task.id), "/api/v1/stats".to_owned()] {
        let answer = world.send(&router, owner, &path, &[(TOKEN, &token)]).await.ok();
        assert!(!String::from_utf8_lossy(&answer.body).contains("before"), "{path}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "the primary is asked soon: {:?}", began.elapsed());
    // Not taken back, whether remembered or read anew.
    for n in 1..20 {
        let path = format!("/api/v1/tasks?limit={n}");
        let body = world.send(&router, owner, &path, &[]).await.ok().json();
        assert_eq!(body["items"][0]["title"], "after");
        tokio::time::sleep(Duration::from_millis(6)).await;
    }
    // Nobody has it yet.
    world
        .send(&router, owner, "/api/v1/tasks", &[(TOKEN, &world.token(owner, position + 5))])
        .await
        .refused(503, "not-caught-up");
}

#[tokio::test]
async fn a_replica_that_catches_up_is_waited_for_a_moment() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("before");
    world.create(owner, &task).await;
    let replica = world.replica().await;
    let router = world.with_replica(&replica).await;
    world.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    assert_eq!(world.first_title(&router, owner, &[]).await, "before");
    world.rename(owner, &mut task, "after").await;
    world.bring_up_to_date(&world.open(&replica).await).await;
    eventually("the replica's answer", async || world.first_title(&router, owner, &[]).await == "after").await;
}

/// What Redis has not, the primary says: what a replica says has no known age, so nobody could say how long it may be
/// believed.
#[tokio::test]
async fn with_a_redis_beside_it_the_replica_does_not_say_where_owners_stand() {
    let world = World::with_redis(&Redis::shared().url()).await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("before");
    // Redis is told of nothing.
    world.redis_misses.store(true, Ordering::Relaxed);
    world.create(owner, &task).await;
    let replica = world.replica().await;
    world.rename(owner, &mut task, "after").await;
    let sources = Sources {
        primary: world.pool(None),
        replica: Some(Replica::new(world.pool(Some(&replica)))),
        redis: world.redis.clone(),
    };
    let router = world.process(sources, true);
    world.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    assert_eq!(world.first_title(&router, owner, &[]).await, "after");
}

/// What the replica says against a request, only the primary may say.
#[tokio::test]
async fn a_replica_alone_refuses_nothing() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let position = world.create(owner, &Task::new("a")).await;
    world.park(owner, Some(position)).await;
    let replica = world.replica().await;
    let router = world.with_replica(&replica).await;
    world.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    let token = world.token(owner, position);
    world.send(&router, owner, "/api/v1/tasks", &[(TOKEN, &token)]).await.refused(503, "projection-parked");
    world.park(owner, None).await;
    assert_eq!(world.first_title(&router, owner, &[(TOKEN, &token)]).await, "a");
}

#[tokio::test]
async fn a_replica_that_has_not_seen_a_switch_of_generations_is_not_read() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("a");
    world.create(owner, &task).await;
    let replica = world.replica().await;
    let position = world.rename(owner, &mut task, "b").await;
    world.switch_generation(2).await;
    let router = world.with_replica(&replica).await;
    let token = world.token(owner, position);
    let began = Instant::now();
    assert_eq!(world.first_title(&router, owner, &[(TOKEN, &token)]).await, "b");
    // For longer than a lookup is good for.
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        assert_eq!(world.first_title(&router, owner, &[]).await, "b");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// How long some reads may take while the replica does not answer: more than they should on any machine, and less than
/// one that waits for the replica.
const SOME_READS_MAX: Duration = Duration::from_secs(5);

/// What is in front of a replica, and can hold back everything that comes and goes.
struct Proxy {
    address: SocketAddr,
    is_held: watch::Sender<bool>,
}

impl Proxy {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_held, held) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, held.clone()));
                tokio::spawn(carry(from_server, to_client, held.clone()));
            }
        });
        Self { address, is_held }
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_held: watch::Receiver<bool>,
) -> Option<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        is_held.wait_for(|is_held| !is_held).await.ok()?;
        to.write_all(&bytes[..read]).await.ok()?;
    }
}

#[tokio::test]
async fn without_the_replica_reads_and_streams_go_on_and_soon() {
    let mut world = World::new().await;
    let owner = Uuid::new_v4();
    let first = world.create(owner, &Task::new("a")).await;
    // Nobody listens there.
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    world.router = world.with_replica_untried(query_api::connect(nowhere, CONNECTIONS));
    let began = Instant::now();
    for path in ["/api/v1/tasks", "/api/v1/stats", "/api/v1/tasks?status=pending"] {
        world.get(owner, path).await.ok();
    }
    assert!(began.elapsed() < SOME_READS_MAX, "{:?}", began.elapsed());
    let mut stream = Stream::open(&world, owner, None).await;
    assert_eq!(stream.next().await.unwrap().id, first);
    let second = world.create(owner, &Task::new("b")).await;
    assert_eq!(stream.next().await.unwrap().id, second);
}

#[tokio::test]
async fn a_replica_that_hangs_holds_nobody_up_and_is_read_again_afterwards() {
    let mut world = World::new().await;
    let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut task = Task::new("before");
    let first = world.create(owner, &task).await;
    world.create(other, &Task { due_at: Some(at(0)), ..Task::new("at the primary") }).await;
    let name = world.replica().await;
    let options = world.options(Some(&name));
    let proxy = Proxy::before(SocketAddr::new("127.0.0.1".parse().unwrap(), options.get_port())).await;
    let through_it = options.host("127.0.0.1").port(proxy.address.port());
    world.router = world.with_replica_at(query_api::connect(through_it, CONNECTIONS)).await;
    world.get(Uuid::new_v4(), "/api/v1/tasks").await.ok();
    let mut stream = Stream::open(&world, owner, None).await;
    assert_eq!(stream.next().await.unwrap().id, first);
    let second = world.rename(owner, &mut task, "after").await;
    let title = world.first_title(&world.router, owner, &[]).await;
    assert_eq!(title, "before", "the replica is read, or this test says nothing");

    proxy.is_held.send_replace(true);
    let began = Instant::now();
    let reads = async {
        for path in ["/api/v1/tasks?limit=1", "/api/v1/tasks?limit=2", "/api/v1/tasks?limit=3"] {
            let body = world.get(owner, path).await.ok().json();
            assert_eq!(body["items"][0]["title"], "after", "{path}");
        }
    };
    tokio::time::timeout(SOME_READS_MAX, reads).await.expect("reads that do not wait for the replica");
    // What it has not seen yet, and what comes while it hangs.
    assert_eq!(stream.next().await.unwrap().id, second);
    let third = world.rename(owner, &mut task, "later").await;
    assert_eq!(stream.next().await.unwrap().id, third);
    println!("reads and streams while the replica hangs: {:?}", began.elapsed());

    proxy.is_held.send_replace(false);
    sqlx::raw_sql("update read_model.task set title = 'at the replica'")
        .execute(&world.open(&name).await)
        .await
        .unwrap();
    let mut asked = 0;
    eventually("the replica's answer", async || {
        // Each for the first time.
        asked += 1;
        let path = format!("/api/v1/tasks?due_before={}", rfc(at(asked)));
        let body = world.get(other, &path).await.ok().json();
        body["items"][0]["title"] == "at the replica"
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_is_away_is_not_waited_for_at_the_end() {
    let world = World::new().await;
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let replica = Some(Replica::new(query_api::connect(nowhere, CONNECTIONS)));
    let sources = Sources { primary: world.pool(None), replica, redis: None };
    // Until then nobody has begun to connect.
    world.send(&world.process(sources.clone(), true), Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    tokio::time::timeout(Duration::from_secs(60), sources.close()).await.expect("an end");
}
