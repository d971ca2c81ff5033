//! The live stream.

use std::sync::Arc;
use std::time::Duration;

use access::Revoked;
use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::world::{Answer, Task, World, at, rfc};

pub struct Stream {
    body: BodyDataStream,
    buffer: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: i64,
    event: Option<String>,
    data: Value,
}

impl Stream {
    pub async fn open(world: &World, owner: Uuid, last: Option<i64>) -> Self {
        Self::open_as(world, &world.bearer(owner, Uuid::nil(), 60), last).await.expect("a stream")
    }

    async fn open_as(world: &World, bearer: &str, last: Option<i64>) -> Result<Self, Answer> {
        let mut request = Request::get("/api/v1/stream").header("authorization", bearer);
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        if parts.status != 200 {
            let body = axum::body::to_bytes(body, 10_000).await.unwrap().to_vec();
            return Err(Answer { status: parts.status, headers: parts.headers, body });
        }
        assert_eq!(parts.headers["content-type"], "text/event-stream");
        Ok(Self { body: body.into_data_stream(), buffer: String::new() })
    }

    /// The next event; None: the stream is over.
    pub async fn next(&mut self) -> Option<Event> {
        let wait = Duration::from_secs(10);
        loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.buffer = rest;
                if message.starts_with(':') {
                    continue;
                }
                let field = |name: &str| {
                    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
                };
                return Some(Event {
                    id: field("id").unwrap().parse().unwrap(),
                    event: field("event"),
                    data: field("data").map_or(Value::Null, |data| serde_json::from_str(&data).unwrap()),
                });
            }
            let chunk = tokio::time::timeout(wait, self.body.next()).await.expect("something within ten seconds")?;
            self.buffer.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    async fn nothing_for(&mut self, ms: u64) {
        let next = tokio::time::timeout(Duration::from_millis(ms), self.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

/// Created, renamed, deleted; another created between.
async fn some_events(world: &World, owner: Uuid) -> Vec<Event> {
    let mut task = Task { due_at: Some(at(7)), ..Task::new("a") };
    let shown = |task: &Task| {
        json!({
            "id": task.id, "title": task.title, "description": null, "status": "pending", "priority": "medium",
            "due_at": task.due_at.map(rfc), "tags": [], "version": task.version, "created_at": rfc(task.created_at),
            "rank": null, "updated_at": rfc(task.updated_at), "started_at": null, "completed_at": null,
        })
    };
    let event = |id, name: &str, data| Event { id, event: Some(name.to_owned()), data };
    let mut events = vec![event(world.create(owner, &task).await, "TaskCreated", shown(&task))];
    let other = Task::new("b");
    events.push(event(world.create(owner, &other).await, "TaskCreated", shown(&other)));
    events.push(event(world.rename(owner, &mut task, "c").await, "TaskRenamed", shown(&task)));
    let deleted = Task { version: 3, deleted: true, ..task.clone() };
    let position = world.event(owner, &deleted, "TaskDeleted", json!({})).await;
    events.push(event(position, "TaskDeleted", json!({"id": task.id, "version": 3})));
    events
}

#[tokio::test]
async fn a_stream_starts_now_and_shows_each_state() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let before = world.create(owner, &Task::new("before")).await;
    let mut stream = Stream::open(&world, owner, None).await;
    assert_eq!(stream.next().await, Some(Event { id: before, event: None, data: Value::Null }));
    let mut stranger = Stream::open(&world, Uuid::new_v4(), None).await;
    assert_eq!(stranger.next().await.unwrap().id, 0);
    for expected in some_events(&world, owner).await {
        assert_eq!(stream.next().await.unwrap(), expected);
    }
    stranger.nothing_for(300).await;
}

#[tokio::test]
async fn a_stream_resumes_from_any_id() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut expected = some_events(&world, owner).await;
    // More than a page of events, in one task.
    let mut task = Task::new("many");
    expected.push(Event { id: world.create(owner, &task).await, event: Some("TaskCreated".into()), data: Value::Null });
    for n in 0..250 {
        let id = world.rename(owner, &mut task, &n.to_string()).await;
        expected.push(Event { id, event: Some("TaskRenamed".into()), data: Value::Null });
    }
    for skip in [0, 1, 3, 4, 150, expected.len()] {
        let last = if skip == 0 { 0 } else { expected[skip - 1].id };
        let mut stream = Stream::open(&world, owner, Some(last)).await;
        for expected in &expected[skip..] {
            let event = stream.next().await.unwrap();
            assert_eq!((event.id, &event.event), (expected.id, &expected.event));
            if expected.data != Value::Null {
                assert_eq!(event.data, expected.data, "the same as it was live");
            } else if let Ok(n) = event.data["title"].as_str().unwrap().parse::<i64>() {
                assert_eq!(event.data["version"], n + 2);
            }
        }
        stream.nothing_for(100).await;
    }
    let list = world.get(owner, "/api/v1/tasks").await.ok().json();
    assert_eq!(list["revision"], expected.last().unwrap().id);
    let beyond = (list["revision"].as_i64().unwrap() + 1).to_string();
    for bad in ["x", "-1", "", "1 2", "99999999999999999999", "9223372036854775807", &beyond] {
        world
            .send(&world.router, owner, "/api/v1/stream", &[("last-event-id", bad)])
            .await
            .refused(400, "invalid-parameter");
    }
    world.send(&world.router, owner, "/api/v1/stream?x=1", &[]).await.refused(400, "invalid-parameter");
}

/// What it was is nowhere, for who resumes from before, too.
#[tokio::test]
async fn of_a_purged_task_only_its_end_is_told() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("first");
    let created = world.create(owner, &task).await;
    // more than a page of them
    for n in 0..120 {
        world.rename(owner, &mut task, &n.to_string()).await;
    }
    let kept = world.create(owner, &Task::new("kept")).await;
    let deleted = Task { version: task.version + 1, deleted: true, ..task.clone() };
    let deletion = world.event(owner, &deleted, "TaskDeleted", json!({})).await;
    let purged = Task { version: task.version + 2, title: String::new(), ..deleted };
    let purge = world.event(owner, &purged, "TaskPurged", json!({})).await;
    sqlx::query!("update read_model.history set changes = '{}' where task_id = $1", task.id)
        .execute(&world.db)
        .await
        .unwrap();
    for last in [0, created, created + 60] {
        let mut stream = Stream::open(&world, owner, Some(last)).await;
        let event = stream.next().await.unwrap();
        assert_eq!((event.id, &event.data["title"]), (kept, &json!("kept")));
        for (id, name, version) in [(deletion, "TaskDeleted", 122), (purge, "TaskPurged", 123)] {
            let data = json!({"id": task.id, "version": version});
            assert_eq!(stream.next().await.unwrap(), Event { id, event: Some(name.to_owned()), data });
        }
        stream.nothing_for(100).await;
    }
}

/// However long it is: each page goes on from where the one before has ended, so the beginning is not needed any more.
#[tokio::test]
async fn a_history_is_folded_once_for_a_stream() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let mut task = Task::new("first");
    let other = Task::new("other");
    world.create(owner, &task).await;
    world.create(owner, &other).await;
    for n in 0..350 {
        world.rename(owner, &mut task, &n.to_string()).await;
    }
    let mut stream = Stream::open(&world, owner, Some(0)).await;
    assert_eq!(stream.next().await.unwrap().data["title"], "first");
    assert_eq!(stream.next().await.unwrap().data["title"], "other");
    assert_eq!(stream.next().await.unwrap().data["title"], "0");
    sqlx::query!("delete from read_model.history where task_id = $1 and version <= 90", task.id)
        .execute(&world.db)
        .await
        .unwrap();
    for n in 1..350 {
        let event = stream.next().await.unwrap();
        assert_eq!((&event.data["title"], &event.data["version"]), (&json!(n.to_string()), &json!(n + 2)));
        assert_eq!(event.data["created_at"], rfc(at(0)));
    }
    stream.nothing_for(100).await;
}

#[tokio::test]
async fn a_stream_waits_at_a_parked_event() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let first = world.create(owner, &Task::new("a")).await;
    let mut level = Stream::open(&world, owner, None).await;
    assert_eq!(level.next().await.unwrap().id, first);
    let mended = Task::new("mended");
    let parked = world.next_position();
    world.park(owner, Some(parked)).await;
    let last = world.create(owner, &Task::new("c")).await;
    let mut resumed = Stream::open(&world, owner, Some(0)).await;
    let mut fresh = Stream::open(&world, owner, None).await;
    assert_eq!(resumed.next().await.unwrap().id, first);
    assert_eq!(fresh.next().await.unwrap().id, parked - 1);
    tokio::join!(level.nothing_for(400), resumed.nothing_for(400), fresh.nothing_for(400));
    let changes = json!({"title": {"from": null, "to": "mended"}, "status": {"from": null, "to": "pending"}, "priority": {"from": null, "to": "medium"}});
    world.event_at(owner, &mended, "TaskCreated", changes, parked).await;
    world.park(owner, None).await;
    for stream in [&mut level, &mut resumed, &mut fresh] {
        let event = stream.next().await.unwrap();
        assert_eq!((event.id, event.data["title"].as_str()), (parked, Some("mended")));
        assert_eq!(stream.next().await.unwrap().id, last);
    }
}

#[tokio::test]
async fn a_switch_of_generations_does_not_disturb_a_stream() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let first = world.create(owner, &Task::new("a")).await;
    let mut stream = Stream::open(&world, owner, None).await;
    assert_eq!(stream.next().await.unwrap().id, first);
    // Generation 1 goes on being written by these tests, so the next event is there before the switch.
    let second = world.create(owner, &Task::new("b")).await;
    world.switch_generation(2).await;
    assert_eq!(stream.next().await.unwrap().id, second);
    stream.nothing_for(300).await;
    let mut resumed = Stream::open(&world, owner, Some(first)).await;
    assert_eq!(resumed.next().await.unwrap().id, second);
}

#[tokio::test]
async fn ten_streams_are_enough_for_an_account() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let bearer = world.bearer(owner, Uuid::nil(), 60);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(Stream::open(&world, owner, None).await);
    }
    let refused = Stream::open_as(&world, &bearer, None).await.err().unwrap();
    assert!(!refused.header("retry-after").is_empty());
    refused.refused(429, "too-many-streams");
    Stream::open(&world, Uuid::new_v4(), None).await;
    streams.pop();
    let mut stream = Stream::open(&world, owner, None).await;
    stream.next().await.unwrap();
    let position = world.create(owner, &Task::new("x")).await;
    assert_eq!(stream.next().await.unwrap().id, position);
}

#[tokio::test]
async fn a_stream_ends_with_its_token_its_session_or_the_server() {
    let world = World::new().await;
    let (owner, session) = (Uuid::new_v4(), Uuid::new_v4());
    let mut expiring = Stream::open_as(&world, &world.bearer(owner, Uuid::nil(), 2), None).await.unwrap();
    let mut revoked = Stream::open_as(&world, &world.bearer(owner, session, 60), None).await.unwrap();
    let mut going_on = Stream::open(&world, owner, None).await;
    for stream in [&mut expiring, &mut revoked, &mut going_on] {
        stream.next().await.unwrap();
    }
    assert_eq!(expiring.next().await, None);
    world.revoked.send_replace(Arc::new(Revoked([session].into_iter().collect())));
    assert_eq!(revoked.next().await, None);
    going_on.nothing_for(100).await;
    world.shutdown.cancel();
    assert_eq!(going_on.next().await, None);
}

#[tokio::test]
async fn without_hints_a_stream_is_polled() {
    let mut world = World::new().await;
    world.router = world.another_process(false);
    let owner = Uuid::new_v4();
    let mut stream = Stream::open(&world, owner, None).await;
    stream.next().await.unwrap();
    let position = world.create(owner, &Task::new("x")).await;
    assert_eq!(stream.next().await.unwrap().id, position);
}
