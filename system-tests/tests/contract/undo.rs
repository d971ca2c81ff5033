//! Undo of changes, and what was deleted restored.

use serde_json::{Value, json};
use system_tests::client::{Account, Answer};
use uuid::Uuid;

use crate::here::api;

fn change(answer: &Answer) -> Uuid {
    answer.must("Change-Id").parse().expect("a UUID")
}

async fn undo(account: &Account, change: Uuid) -> Answer {
    account.request("POST", &format!("/api/v1/changes/{change}/undo")).send().await
}

/// The task without what moves with each event.
async fn content(account: &Account, id: Uuid) -> Value {
    let mut task = account.task(id).await;
    for moving in ["version", "updated_at"] {
        task.as_object_mut().unwrap().remove(moving);
    }
    task
}

async fn is_gone(account: &Account, id: Uuid) {
    account.read(&format!("/api/v1/tasks/{id}")).await.problem(404);
}

/// The statuses of the results, and the codes of their problems.
fn results(answer: &Answer) -> Vec<(Uuid, u64, Value)> {
    let body = answer.json();
    let result = |result: &Value| {
        let id = result["id"].as_str().expect("each result has its id").parse().unwrap();
        (id, result["status"].as_u64().unwrap(), result["problem"]["code"].clone())
    };
    body["results"].as_array().unwrap().iter().map(result).collect()
}

#[tokio::test]
async fn a_change_is_undone_and_redone() {
    let account = api().await.account().await;
    let id =
        account.create(json!({"title": "a", "tags": ["x"], "priority": "low", "due_at": "2030-01-01T00:00:00Z"})).await;
    let before = content(&account, id).await;
    let patch =
        json!({"title": "b", "description": "text", "priority": "urgent", "due_at": null, "tags": ["y"], "rank": "m"});
    let patched = account.patch(id, patch).await.expect(200);
    let after = content(&account, id).await;
    let undone = undo(&account, change(&patched)).await.expect(200);
    assert_eq!(results(&undone), [(id, 200, Value::Null)]);
    assert_eq!((undone.number("/succeeded"), undone.number("/failed")), (1, 0));
    assert_eq!(content(&account, id).await, before);
    let again = undo(&account, change(&patched)).await;
    assert_eq!(again.problem(409)["code"], "undone-already");
    let redone = undo(&account, change(&undone)).await.expect(200);
    assert_eq!(content(&account, id).await, after);
    undo(&account, change(&redone)).await.expect(200);
    assert_eq!(content(&account, id).await, before);
}

#[tokio::test]
async fn a_stage_is_reverted_with_its_times_and_counts_as_never_reached() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    account.act(id, "start").await.expect(200);
    let before = content(&account, id).await;
    let stats = async || {
        let stats = account.read("/api/v1/stats").await.expect(200).json();
        (stats["by_status"].clone(), stats["completed_per_day"].clone(), stats["completion_time_seconds"].clone())
    };
    let counted = stats().await;
    let completed = account.act(id, "complete").await.expect(200);
    assert_ne!(stats().await, counted);
    undo(&account, change(&completed)).await.expect(200);
    assert_eq!(content(&account, id).await, before);
    assert_eq!(stats().await, counted);
    let history = account.walk(&format!("/api/v1/tasks/{id}/history")).await;
    assert_eq!(history.last().unwrap()["type"], "TaskStageReverted");
    assert_eq!(history.last().unwrap()["changes"]["status"], json!({"from": "completed", "to": "in_progress"}));
    let listed = account.walk("/api/v1/tasks?status=in_progress").await;
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn a_later_change_of_the_same_stands() {
    let account = api().await.account().await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let create = |id: Uuid| json!({"type": "CreateTask", "task_id": id, "title": "a"});
    account.batch(&[create(one), create(two)]).await.expect(200);
    let rename = |id: Uuid| json!({"type": "RenameTask", "task_id": id, "title": "b"});
    let renamed = account.batch(&[rename(two), rename(one)]).await.expect(200);
    let later = account.patch(one, json!({"title": "c", "priority": "high"})).await.expect(200);
    account.patch(two, json!({"priority": "high"})).await.expect(200);
    // in the order in which the tasks stand first in the change
    let partly = undo(&account, change(&renamed)).await.expect(200);
    assert_eq!(results(&partly), [(two, 200, Value::Null), (one, 409, json!("changed-since"))]);
    assert_eq!(content(&account, two).await["title"], "a");
    assert_eq!(content(&account, two).await["priority"], "high");
    assert_eq!(content(&account, one).await["title"], "c");
    // the rest may be tried again
    let again = undo(&account, change(&renamed)).await.expect(200);
    assert_eq!(results(&again), [(two, 200, Value::Null), (one, 409, json!("changed-since"))]);
    assert_eq!(again.header("Change-Id"), None);
    undo(&account, change(&later)).await.expect(200);
    undo(&account, change(&renamed)).await.expect(200);
    assert_eq!(content(&account, one).await["title"], "a");
    assert_eq!(undo(&account, change(&renamed)).await.problem(409)["code"], "undone-already");
}

#[tokio::test]
async fn a_creation_is_undone_by_deletion_and_redone_by_restoring() {
    let account = api().await.account().await;
    let ids = [Uuid::new_v4(), Uuid::new_v4()];
    let commands = ids.map(|id| json!({"type": "CreateTask", "task_id": id, "title": "words to find", "tags": ["x"]}));
    let created = account.batch(&commands).await.expect(200);
    let before = content(&account, ids[0]).await;
    let undone = undo(&account, change(&created)).await.expect(200);
    for id in ids {
        is_gone(&account, id).await;
    }
    assert_eq!(account.walk("/api/v1/tasks?q=words").await.len(), 0);
    undo(&account, change(&undone)).await.expect(200);
    assert_eq!(content(&account, ids[0]).await, before);
    assert_eq!(account.walk("/api/v1/tasks?q=words&tag=x").await.len(), 2);
}

#[tokio::test]
async fn a_deleted_task_is_restored_as_it_was() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "words to find", "description": "more", "tags": ["x"], "rank": "m"})).await;
    account.act(id, "start").await.expect(200);
    let before = content(&account, id).await;
    let path = format!("/api/v1/tasks/{id}/restore");
    // not deleted: no event
    let nothing = account.request("POST", &path).send().await.expect(200);
    assert_eq!((nothing.number("/version"), nothing.header("Change-Id")), (2, None));
    let deleted = account.delete(id).await.expect(204);
    assert_eq!(account.walk("/api/v1/tasks?q=words").await.len(), 0);
    account.request("POST", &path).header("If-Match", "\"2\"").send().await.problem(412);
    let restore = || account.request("POST", &path).header("If-Match", "\"3\"").key("restore");
    let restored = restore().send().await.expect(200);
    assert_eq!((restored.number("/version"), restored.must("ETag")), (4, "\"4\""));
    assert_eq!(restore().send().await.expect(200).must("Idempotent-Replayed"), "true");
    assert_eq!(content(&account, id).await, before);
    assert_eq!(account.walk("/api/v1/tasks?q=words&tag=x&status=in_progress").await.len(), 1);
    // a later change that stands: the deletion cannot be undone, the restoration can
    assert_eq!(
        undo(&account, change(&deleted)).await.expect(200).json()["results"][0]["problem"]["code"],
        "changed-since"
    );
    undo(&account, change(&restored)).await.expect(200);
    is_gone(&account, id).await;
    undo(&account, change(&deleted)).await.expect(200);
    assert_eq!(content(&account, id).await, before);
    // as of a time it was gone while it was
    let restore = json!({"type": "RestoreTask", "task_id": id});
    account.delete(id).await.expect(204);
    let deleted_at = account.read("/api/v1/tasks/deleted").await.expect(200).string("/items/0/deleted_at");
    account.batch(&[restore]).await.expect(200);
    assert_eq!(content(&account, id).await, before);
    let restored_at = account.task(id).await["updated_at"].as_str().unwrap().to_owned();
    let just_before = |time: &str| {
        let time = time.parse::<chrono::DateTime<chrono::Utc>>().unwrap() - chrono::Duration::microseconds(1);
        time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
    };
    for (time, status) in
        [(just_before(&deleted_at), 200), (deleted_at, 404), (just_before(&restored_at), 404), (restored_at, 200)]
    {
        account.read(&format!("/api/v1/tasks/{id}?as_of={time}")).await.expect(status);
        let listed = account.walk(&format!("/api/v1/tasks?as_of={time}")).await;
        assert_eq!(listed.len(), usize::from(status == 200), "as of {time}");
    }
    account.request("POST", &format!("/api/v1/tasks/{}/restore", Uuid::new_v4())).send().await.problem(404);
}

#[tokio::test]
async fn what_was_deleted_long_ago_stays_deleted() {
    let account = api().await.account().await;
    let id = Uuid::new_v4();
    let (then, days) = (chrono::Utc::now(), chrono::Duration::days);
    let at = |days_ago: i64| (then - days(days_ago)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let create = json!({"type": "CreateTask", "task_id": id, "title": "a", "occurred_at": at(40)});
    account.batch(&[create]).await.expect(200);
    let deleted =
        account.batch(&[json!({"type": "DeleteTask", "task_id": id, "occurred_at": at(31)})]).await.expect(200);
    account.request("POST", &format!("/api/v1/tasks/{id}/restore")).send().await.problem(404);
    let undone = undo(&account, change(&deleted)).await.expect(200);
    assert_eq!(results(&undone), [(id, 404, json!("not-found"))]);
}

#[tokio::test]
async fn undo_and_restore_happen_no_earlier_than_what_came_before() {
    let account = api().await.account().await;
    let id = Uuid::new_v4();
    let ahead = |seconds: i64| {
        let time = chrono::Utc::now() + chrono::Duration::seconds(seconds);
        time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    let (renamed_at, deleted_at) = (ahead(40), ahead(50));
    let create = json!({"type": "CreateTask", "task_id": id, "title": "a"});
    let rename = json!({"type": "RenameTask", "task_id": id, "title": "b", "occurred_at": renamed_at});
    account.batch(&[create]).await.expect(200);
    let renamed = account.batch(&[rename]).await.expect(200);
    undo(&account, change(&renamed)).await.expect(200);
    let delete = json!({"type": "DeleteTask", "task_id": id, "occurred_at": deleted_at});
    assert_eq!(account.batch(&[delete]).await.expect(200).number("/succeeded"), 1);
    account.act(id, "restore").await.expect(200);
    let history = account.walk(&format!("/api/v1/tasks/{id}/history")).await;
    let told = history.iter().map(|event| (event["type"].as_str().unwrap(), event["occurred_at"].as_str().unwrap()));
    let told: Vec<_> = told.skip(1).collect();
    assert_eq!(
        told,
        [
            ("TaskRenamed", &*renamed_at),
            ("TaskRenamed", &*renamed_at),
            ("TaskDeleted", &*deleted_at),
            ("TaskRestored", &*deleted_at)
        ]
    );
}

#[tokio::test]
async fn an_undo_under_a_key_is_one() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let renamed = account.patch(id, json!({"title": "b"})).await.expect(200);
    let path = format!("/api/v1/changes/{}/undo", change(&renamed));
    let send = async || account.request("POST", &path).key("undo").send().await.expect(200);
    let first = send().await;
    let again = send().await;
    assert_eq!((again.text(), again.must("Idempotent-Replayed")), (first.text(), "true"));
    assert_eq!(
        (change(&again), again.header("Consistency-Token")),
        (change(&first), first.header("Consistency-Token"))
    );
    assert_eq!(account.task(id).await["version"], 3);
    // a refused one leaves its key free
    let refused = account.request("POST", &path).key("other").send().await;
    assert_eq!(refused.problem(409)["code"], "undone-already");
    account.request("POST", "/api/v1/tasks").key("other").json(&json!({"title": "c"})).send().await.expect(201);
}

#[tokio::test]
async fn what_is_no_change_of_one_s_own_is_not_found() {
    let account = api().await.account().await;
    let stranger = account.api.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let renamed = account.patch(id, json!({"title": "b"})).await.expect(200);
    undo(&stranger, change(&renamed)).await.problem(404);
    undo(&account, Uuid::new_v4()).await.problem(404);
    let path = format!("/api/v1/changes/{}/undo", change(&renamed));
    account.request("POST", &path).header("If-Match", "\"2\"").send().await.problem(400);
    account.request("POST", "/api/v1/changes/7/undo").send().await.problem(400);
    account.request("POST", &format!("{path}?x=1")).send().await.problem(400);
}

#[tokio::test]
async fn the_trash_lists_what_can_be_restored() {
    const TRASH: &str = "/api/v1/tasks/deleted";
    let account = api().await.account().await;
    let (now, days) = (chrono::Utc::now(), chrono::Duration::days);
    let at = |ago: chrono::Duration| (now - ago).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    // deleted 31, 29, 2 and 2 days ago
    let ids: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
    let mut commands: Vec<Value> = ids
        .iter()
        .map(
            |id| json!({"type": "CreateTask", "task_id": id, "title": "a", "tags": ["x"], "occurred_at": at(days(40))}),
        )
        .collect();
    for (id, ago) in ids.iter().zip([31, 29, 2, 2]) {
        commands.push(json!({"type": "DeleteTask", "task_id": id, "occurred_at": at(days(ago))}));
    }
    let answer = account.batch(&commands).await.expect(200);
    assert_eq!(answer.number("/failed"), 0);
    let trash = account.read(TRASH).await.expect(200);
    let listed = |items: &[Value]| -> Vec<Uuid> {
        items.iter().map(|item| item["id"].as_str().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(listed(trash.json()["items"].as_array().unwrap()), [ids[3], ids[2], ids[1]]);
    assert_eq!(trash.json()["items"][2]["deleted_at"], at(days(29)));
    assert_eq!((&trash.json()["items"][2]["title"], &trash.json()["items"][2]["tags"]), (&json!("a"), &json!(["x"])));
    assert_eq!(trash.json()["next_cursor"], Value::Null);
    assert!(trash.must("ETag").starts_with("W/"));
    let again = account.request("GET", TRASH).header("If-None-Match", trash.must("ETag"));
    again.send().await.expect(304);
    assert_eq!(listed(&account.walk(&format!("{TRASH}?limit=1")).await), [ids[3], ids[2], ids[1]]);
    account.request("POST", &format!("/api/v1/tasks/{}/restore", ids[3])).send().await.expect(200);
    assert_eq!(listed(&account.walk(TRASH).await), [ids[2], ids[1]]);
    let cursor = account.read(&format!("{TRASH}?limit=1")).await.expect(200).string("/next_cursor");
    let stranger = account.api.account().await;
    stranger.read(&format!("{TRASH}?cursor={cursor}")).await.problem(400);
    assert!(stranger.walk(TRASH).await.is_empty());
    account.read(&format!("{TRASH}?limit=0")).await.problem(400);
    account.read(&format!("{TRASH}?q=a")).await.problem(400);
}

/// All that lists, facets and statistics show of an account's tasks, without what moves with each event.
async fn shown(account: &Account) -> Value {
    let mut tasks = account.walk("/api/v1/tasks").await;
    for task in &mut tasks {
        for moving in ["version", "updated_at"] {
            task.as_object_mut().unwrap().remove(moving);
        }
    }
    let mut counts = [Value::Null, Value::Null];
    for (counted, path) in counts.iter_mut().zip(["/api/v1/tasks/facets", "/api/v1/stats"]) {
        *counted = account.read(path).await.expect(200).json();
        counted.as_object_mut().unwrap().remove("revision");
    }
    json!({"tasks": tasks, "counts": counts})
}

#[tokio::test]
async fn whatever_was_done_is_undone_backwards_and_redone_forwards() {
    let account = api().await.account().await;
    let mut state = Uuid::new_v4().as_u128() as u64;
    println!("begins with {state}");
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let ids: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    let create = |id: &Uuid| json!({"type": "CreateTask", "task_id": id, "title": "was there", "tags": ["x"]});
    account.batch(&ids[..3].iter().map(create).collect::<Vec<_>>()).await.expect(200);
    let at_first = shown(&account).await;
    let mut changes = Vec::new();
    for n in 0..40 {
        let commands: Vec<Value> = (0..=below(2))
            .map(|_| {
                let mut command = match below(15) {
                    0 | 1 => json!({"type": "CreateTask", "title": format!("made {n}"), "priority": "high"}),
                    2 => json!({"type": "RenameTask", "title": format!("renamed {n}")}),
                    3 => json!({"type": "DescribeTask", "description": format!("text {n}")}),
                    4 => json!({"type": "ReprioritizeTask", "priority": (["low", "urgent"][below(2)])}),
                    5 => json!({"type": "ScheduleTask", "due_at": ([json!("2031-05-01T12:00:00Z"), Value::Null][below(2)])}),
                    6 => json!({"type": "TagTask", "tag": (["x", "y"][below(2)])}),
                    7 => json!({"type": "UntagTask", "tag": (["x", "y"][below(2)])}),
                    8 => json!({"type": "StartTask"}),
                    9 => json!({"type": "CompleteTask"}),
                    10 => json!({"type": "CancelTask"}),
                    11 => json!({"type": "ReopenTask"}),
                    12 => json!({"type": "DeleteTask"}),
                    13 => json!({"type": "RankTask", "rank": ([json!("m"), json!("Z"), Value::Null][below(3)])}),
                    _ => json!({"type": "RestoreTask"}),
                };
                command["task_id"] = json!(ids[below(ids.len())]);
                command
            })
            .collect();
        let answer = account.batch(&commands).await.expect(200);
        changes.extend(answer.header("Change-Id").map(|_| change(&answer)));
    }
    let at_last = shown(&account).await;
    assert!(changes.len() > 10 && at_last != at_first, "{changes:?}");
    let revert = async |changes: &[Uuid]| {
        let mut undos = Vec::new();
        for change_id in changes.iter().rev() {
            let undone = undo(&account, *change_id).await.expect(200);
            assert_eq!(undone.number("/failed"), 0, "{}", undone.text());
            // none: the change's own events came to nothing
            undos.push(undone.header("Change-Id").map(|_| change(&undone)));
        }
        undos
    };
    let undone_by = async |change: &Uuid| {
        account.read(&format!("/api/v1/changes/{change}")).await.expect(200).json()["undone_by"].clone()
    };
    let undos = revert(&changes).await;
    assert_eq!(shown(&account).await, at_first, "undone");
    for (change, undo) in changes.iter().rev().zip(&undos) {
        assert_eq!(undone_by(change).await, json!(undo));
    }
    revert(&undos.into_iter().flatten().collect::<Vec<_>>()).await;
    assert_eq!(shown(&account).await, at_last, "redone");
    for change in &changes {
        assert_eq!(undone_by(change).await, Value::Null);
    }
}
