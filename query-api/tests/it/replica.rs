//! Reads from a replica that is behind, or away: tokens hold, and what was shown is not taken back.

use std::time::{Duration, Instant};

use axum::Router;
use query_api::Sources;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::world::{Task, World, eventually};

const TOKEN: &str = "consistency-token";

impl World {
    fn with_replica(&self, name: &str) -> Router {
        let sources = Sources { primary: self.pool(None), replica: Some(self.pool(Some(name))), redis: None };
        self.process(sources, true)
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
    let router = world.with_replica(&replica);
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
    let router = world.with_replica(&replica);
    world.send(&router, Uuid::new_v4(), "/api/v1/tasks", &[]).await.ok();
    assert_eq!(world.first_title(&router, owner, &[]).await, "before");
    world.rename(owner, &mut task, "after").await;
    world.bring_up_to_date(&world.open(&replica).await).await;
    eventually("the replica's answer", async || world.first_title(&router, owner, &[]).await == "after").await;
}

/// What the replica says against a request, only the primary may say.
#[tokio::test]
async fn a_replica_alone_refuses_nothing() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let position = world.create(owner, &Task::new("a")).await;
    world.park(owner, Some(position)).await;
    let replica = world.replica().await;
    let router = world.with_replica(&replica);
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
    let router = world.with_replica(&replica);
    let token = world.token(owner, position);
    let began = Instant::now();
    assert_eq!(world.first_title(&router, owner, &[(TOKEN, &token)]).await, "b");
    assert_eq!(world.first_title(&router, owner, &[]).await, "b");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_the_replica_reads_go_on() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    world.create(owner, &Task::new("a")).await;
    // Nobody listens there.
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let away = PgPoolOptions::new().acquire_timeout(Duration::from_millis(300)).connect_lazy_with(nowhere);
    let router = world.process(Sources { primary: world.pool(None), replica: Some(away), redis: None }, true);
    for path in ["/api/v1/tasks", "/api/v1/stats", "/api/v1/tasks?status=pending"] {
        world.send(&router, owner, path, &[]).await.ok();
    }
}
