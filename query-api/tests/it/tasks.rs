//! One task, as it is and as it was; its history.

use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Task, World, at, rfc};

/// Created at 0 s, started at 10 s, completed at 20 s and a microsecond, renamed at the same moment.
async fn lived(world: &World, owner: Uuid) -> Task {
    let mut task = Task { tags: vec!["a".into()], due_at: Some(at(99)), ..Task::new("first") };
    world.create(owner, &task).await;
    task = Task { version: 2, status: 1, updated_at: at(10), started_at: Some(at(10)), ..task };
    let started =
        json!({"status": {"from": "pending", "to": "in_progress"}, "started_at": {"from": null, "to": rfc(at(10))}});
    world.event(owner, &task, "TaskStarted", started).await;
    let done = at(20) + TimeDelta::microseconds(1);
    task = Task { version: 3, status: 2, updated_at: done, completed_at: Some(done), ..task };
    let completed =
        json!({"status": {"from": "in_progress", "to": "completed"}, "completed_at": {"from": null, "to": rfc(done)}});
    world.event(owner, &task, "TaskCompleted", completed).await;
    task = Task { version: 4, title: "second".into(), ..task };
    world.event(owner, &task, "TaskRenamed", json!({"title": {"from": "first", "to": "second"}})).await;
    task
}

#[tokio::test]
async fn a_task_is_shown_as_of_each_instant() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let task = lived(&world, owner).await;
    let now = world.get(owner, &format!("/api/v1/tasks/{}", task.id)).await.ok();
    assert_eq!(now.header("etag"), "\"4\"");
    let as_of = async |time: &str| world.get(owner, &format!("/api/v1/tasks/{}?as_of={time}", task.id)).await;
    let us = TimeDelta::microseconds(1);
    as_of(&rfc(at(0) - us)).await.refused(404, "not-found");
    for (time, version) in [(at(0), 1), (at(10) - us, 1), (at(10), 2), (at(20), 2), (at(20) + us, 4), (at(1000), 4)] {
        let answer = as_of(&rfc(time)).await.ok();
        assert_eq!(answer.json()["version"], version, "{time}");
        assert_eq!(answer.header("etag"), format!("\"{version}\""));
    }
    assert_eq!(as_of(&rfc(at(1000))).await.json(), now.json(), "the fold of the history is the row");
    let first = as_of(&rfc(at(0))).await.json();
    assert_eq!(
        (first["status"].as_str(), first["title"].as_str(), &first["started_at"]),
        (Some("pending"), Some("first"), &Value::Null)
    );
    assert_eq!(first["updated_at"], rfc(at(0)));
    // The same instant, written with an offset.
    assert_eq!(as_of("2026-05-28T22:26:50%2B02:00").await.ok().json()["version"], 2);
}

#[tokio::test]
async fn as_of_may_be_a_minute_ahead() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let task = Task::new("x");
    world.create(owner, &task).await;
    let path = |seconds| {
        format!("/api/v1/tasks/{}?as_of={}", task.id, rfc(process::clock::now() + TimeDelta::seconds(seconds)))
    };
    world.get(owner, &path(50)).await.ok();
    world.get(owner, &path(70)).await.refused(400, "invalid-parameter");
    world.get(owner, &format!("/api/v1/tasks/{}?as_of=yesterday", task.id)).await.refused(400, "invalid-parameter");
    world.get(owner, &format!("/api/v1/tasks/{}?at=1", task.id)).await.refused(400, "invalid-parameter");
}

/// As after a clock that ran three days ahead and was put right.
#[tokio::test]
async fn what_lies_in_the_future_has_happened_by_now() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let now = process::clock::now();
    let get = async |task: &Task, time: crate::world::Time| {
        world.get(owner, &format!("/api/v1/tasks/{}?as_of={}", task.id, rfc(time))).await
    };
    let ahead = now + TimeDelta::days(3);
    let mut task = Task { created_at: ahead, updated_at: ahead, ..Task::new("ahead") };
    world.create(owner, &task).await;
    world.rename(owner, &mut task, "renamed").await;
    for by_now in [now, now - TimeDelta::seconds(20), now + TimeDelta::seconds(20)] {
        let answer = get(&task, by_now).await.ok();
        assert_eq!(answer.json(), world.get(owner, &format!("/api/v1/tasks/{}", task.id)).await.ok().json());
    }
    get(&task, now - TimeDelta::minutes(10)).await.refused(404, "not-found");

    // One that began before: the past stays exact, and whoever reads by now gets all of it.
    let mut task =
        Task { created_at: now - TimeDelta::hours(1), updated_at: now - TimeDelta::hours(1), ..Task::new("a") };
    world.create(owner, &task).await;
    task.updated_at = now - TimeDelta::seconds(11);
    world.rename(owner, &mut task, "b").await;
    let seconds = |seconds| now - TimeDelta::seconds(seconds);
    assert_eq!(get(&task, seconds(15)).await.ok().json()["version"], 1, "nothing lies in the future yet");
    task.updated_at = ahead;
    world.rename(owner, &mut task, "c").await;
    for (time, version) in [(seconds(3_601), None), (seconds(120), Some(1)), (seconds(15), Some(3)), (now, Some(3))] {
        let answer = get(&task, time).await.json();
        assert_eq!(answer["version"].as_i64(), version, "{time}");
    }
    // And so lists, facets and the flow of today.
    let read = async |path: String| world.get(owner, &path).await.ok().json();
    let list = read(format!("/api/v1/tasks?sort=title&as_of={}", rfc(now))).await;
    let titles: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["c", "renamed"]);
    let earlier = read(format!("/api/v1/tasks?as_of={}", rfc(seconds(120)))).await;
    assert_eq!(earlier["items"].as_array().unwrap().len(), 1);
    assert_eq!(read(format!("/api/v1/tasks/facets?as_of={}", rfc(now))).await["total"], 2);
    let flow = read("/api/v1/stats/flow".to_owned()).await;
    assert_eq!(flow["days"].as_array().unwrap().last().unwrap()["pending"], 2, "{flow}");
}

#[tokio::test]
async fn what_is_unknown_deleted_or_somebody_elses_looks_the_same() {
    let world = World::new().await;
    let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
    let task = lived(&world, owner).await;
    let deleted = lived(&world, owner).await;
    let gone = Task { version: 5, deleted: true, ..deleted };
    world.event(owner, &gone, "TaskDeleted", json!({})).await;
    world.get(owner, &format!("/api/v1/tasks/{}?as_of={}", gone.id, rfc(at(15)))).await.ok();
    let as_of = format!("?as_of={}", rfc(gone.updated_at));
    for (asker, id) in [(owner, gone.id), (owner, Uuid::new_v4()), (other, task.id)] {
        for suffix in ["", as_of.as_str(), "/history"] {
            let answer = world.get(asker, &format!("/api/v1/tasks/{id}{suffix}")).await.refused(404, "not-found");
            assert!(answer.headers.get("etag").is_none());
        }
    }
    for id in ["1", "00000000000000000000000000000000", "g0000000-0000-0000-0000-000000000000"] {
        world.get(owner, &format!("/api/v1/tasks/{id}")).await.refused(400, "invalid-parameter");
        world.get(owner, &format!("/api/v1/tasks/{id}/history")).await.refused(400, "invalid-parameter");
    }
}

#[tokio::test]
async fn the_same_id_under_two_accounts_is_two_tasks() {
    let world = World::new().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let task = Task::new("one's");
    world.create(one, &task).await;
    world.create(two, &Task { title: "two's".into(), ..task.clone() }).await;
    for (owner, title) in [(one, "one's"), (two, "two's")] {
        assert_eq!(world.get(owner, &format!("/api/v1/tasks/{}", task.id)).await.ok().json()["title"], title);
        let body = world.get(owner, &format!("/api/v1/tasks/{}/history", task.id)).await.ok().json();
        assert_eq!(body["items"].as_array().unwrap().len(), 1);
        assert_eq!(body["items"][0]["changes"]["title"]["to"], title);
    }
}

#[tokio::test]
async fn a_history_comes_oldest_first_in_pages() {
    let world = World::new().await;
    let owner = Uuid::new_v4();
    let task = lived(&world, owner).await;
    let path = format!("/api/v1/tasks/{}/history", task.id);
    let all = world.get(owner, &path).await.ok();
    let items = all.json()["items"].as_array().unwrap().clone();
    assert_eq!(all.json()["next_cursor"], Value::Null);
    let of = |name: &str| items.iter().map(|item| item[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("version"), [1, 2, 3, 4]);
    assert_eq!(of("type"), ["TaskCreated", "TaskStarted", "TaskCompleted", "TaskRenamed"]);
    assert_eq!(items[3]["changes"], json!({"title": {"from": "first", "to": "second"}}));
    assert_eq!(items[1]["actor"], json!({"type": "user", "id": owner}));
    assert_eq!(items[1]["occurred_at"], rfc(at(10)));

    let first = world.get(owner, &format!("{path}?limit=3")).await.ok();
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(first.header("link"), format!("<{path}?limit=3&cursor={cursor}>; rel=\"next\""));
    let second = world.get(owner, &format!("{path}?cursor={cursor}")).await.ok().json();
    assert_eq!(second["items"], json!([items[3]]));
    let other = lived(&world, owner).await;
    world
        .get(owner, &format!("/api/v1/tasks/{}/history?cursor={cursor}", other.id))
        .await
        .refused(400, "invalid-cursor");
    world.get(owner, &format!("/api/v1/tasks?cursor={cursor}")).await.refused(400, "invalid-cursor");
}
