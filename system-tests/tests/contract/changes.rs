//! The id of a change, and the rank of a task.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::client::{Account, Answer};
use system_tests::wait::until;
use uuid::Uuid;

use crate::here::api;

const TASKS: &str = "/api/v1/tasks";

fn change(answer: &Answer) -> Option<Uuid> {
    answer.header("Change-Id").map(|id| id.parse().expect("a UUID"))
}

#[tokio::test]
async fn each_write_that_made_an_event_names_its_change() {
    let account = api().await.account().await;
    let create = || account.request("POST", TASKS).key("create").json(&json!({"title": "a"}));
    let created = create().send().await.expect(201);
    let id = created.uuid("/id");
    let started = account.act(id, "start").await.expect(200);
    assert!(change(&created).is_some() && change(&started).is_some());
    assert_ne!(change(&created), change(&started));
    assert_eq!(change(&create().send().await.expect(201)), change(&created), "a replay");
    // without an event, or refused
    let again = account.act(id, "start").await.expect(200);
    let refused = account.act(id, "reopen").await;
    refused.problem(409);
    assert_eq!((change(&again), change(&refused)), (None, None));
    let deleted = account.delete(id).await.expect(204);
    assert!(change(&deleted).is_some());
}

#[tokio::test]
async fn a_batch_is_one_change() {
    let account = api().await.account().await;
    let id = Uuid::new_v4();
    let start = |command_id: Uuid| json!({"type": "StartTask", "task_id": id, "command_id": command_id});
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let create = json!({"type": "CreateTask", "task_id": id, "title": "a"});
    let send = async |commands: &[Value], key: &str| {
        let request = account.request("POST", "/api/v1/commands").key(key);
        request.json(&json!({"commands": commands})).send().await.expect(200)
    };
    let first = send(&[create, start(one)], "first").await;
    let of_first = change(&first).expect("a change");
    assert_eq!(first.json()["change_id"], json!(of_first));
    // a replay of the whole, and one of its commands
    let replayed = send(&[json!({"type": "CreateTask", "task_id": id, "title": "a"}), start(one)], "first").await;
    assert_eq!(change(&replayed), Some(of_first));
    assert_eq!(change(&send(&[start(one)], "second").await), Some(of_first));
    // only some commands make events: a change of just those
    let rename = json!({"type": "RenameTask", "task_id": id, "title": "b"});
    let some = send(&[start(one), rename], "third").await;
    assert!(change(&some).is_some_and(|change| change != of_first));
    // none does
    let none = send(&[start(two)], "fourth").await;
    assert_eq!((change(&none), &none.json()["change_id"]), (None, &Value::Null));
}

#[tokio::test]
async fn a_rank_is_set_changed_and_taken_away() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a", "rank": "Zz9"})).await;
    let rank = async || account.task(id).await["rank"].clone();
    assert_eq!(rank().await, "Zz9");
    account.patch(id, json!({"rank": "a"})).await.expect(200);
    assert_eq!(rank().await, "a");
    account.patch(id, json!({"rank": null})).await.expect(200);
    assert_eq!(rank().await, Value::Null);
    let ranked = json!({"type": "RankTask", "task_id": id, "rank": "m1"});
    account.batch(&[ranked.clone(), ranked]).await.expect(200);
    assert_eq!(rank().await, "m1");
    let history = account.walk(&format!("{TASKS}/{id}/history")).await;
    let ranks: Vec<Value> = history.iter().map(|item| item["changes"]["rank"].clone()).collect();
    assert_eq!(
        ranks,
        [
            json!({"from": null, "to": "Zz9"}),
            json!({"from": "Zz9", "to": "a"}),
            json!({"from": "a", "to": null}),
            json!({"from": null, "to": "m1"}),
        ]
    );
    // digits and letters, not ending in 0, 64 at most
    for bad in ["", "a0", "0", "a-", "\u{e4}", " a", &"a".repeat(65)] {
        account.patch(id, json!({"rank": bad})).await.problem(422);
        account.request("POST", TASKS).json(&json!({"title": "a", "rank": bad})).send().await.problem(422);
    }
    account.patch(id, json!({"rank": "a".repeat(64)})).await.expect(200);
    account.patch(id, json!({"rank": 7})).await.problem(400);
}

const CHANGES: &str = "/api/v1/changes";

async fn undo(account: &Account, change: Uuid) -> Answer {
    account.request("POST", &format!("{CHANGES}/{change}/undo")).send().await.expect(200)
}

async fn shown(account: &Account, change: Uuid) -> Value {
    account.read(&format!("{CHANGES}/{change}")).await.expect(200).json()
}

/// The ids of changes, as they are listed.
async fn listed(account: &Account, path: &str) -> Vec<Uuid> {
    account.walk(path).await.iter().map(|change| change["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn changes_are_listed_the_latest_first_and_say_what_they_did() {
    let account = api().await.account().await;
    let before = account.read(CHANGES).await.expect(200);
    assert_eq!((&before.json()["items"], &before.json()["next_cursor"]), (&json!([]), &Value::Null));
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let create = |id: &Uuid| json!({"type": "CreateTask", "task_id": id, "title": "a"});
    let created = change(&account.batch(&ids.iter().map(create).collect::<Vec<_>>()).await.expect(200)).unwrap();
    let patched = account.patch(ids[0], json!({"title": "b", "priority": "high", "tags": ["x"]})).await.expect(200);
    let completed = account.act(ids[1], "complete").await.expect(200);
    let (of_patch, of_completion) = (change(&patched).unwrap(), change(&completed).unwrap());

    let answer = account.read(CHANGES).await.expect(200);
    assert_eq!(listed(&account, CHANGES).await, [of_completion, of_patch, created]);
    let items = answer.json()["items"].clone();
    let last = account.walk(&format!("/api/v1/tasks/{}/history", ids[0])).await.pop().unwrap();
    assert_eq!(
        items[1],
        json!({
            "id": of_patch, "occurred_at": last["occurred_at"], "recorded_at": last["recorded_at"],
            "actor": {"type": "user", "id": account.id},
            "types": {"TaskRenamed": 1, "TaskReprioritized": 1, "TaskTagged": 1}, "tasks": 1, "events": 3,
            "undoes": null, "undone_by": null,
        })
    );
    assert_eq!((&items[2]["types"], &items[2]["tasks"]), (&json!({"TaskCreated": 3}), &json!(3)));
    for item in items.as_array().unwrap() {
        assert_eq!(&shown(&account, item["id"].as_str().unwrap().parse().unwrap()).await, item);
    }
    assert_eq!(answer.number("/revision"), completed.number("/revision"));

    // pages
    for limit in [1, 2, 3] {
        let walked = listed(&account, &format!("{CHANGES}?limit={limit}")).await;
        assert_eq!(walked, [of_completion, of_patch, created], "limit {limit}");
    }
    // of one task
    let of_task = async |id: Uuid, more: &str| listed(&account, &format!("{CHANGES}?task_id={id}{more}")).await;
    assert_eq!(of_task(ids[0], "&limit=1").await, [of_patch, created]);
    assert_eq!(of_task(ids[2], "").await, [created]);
    assert!(of_task(Uuid::new_v4(), "").await.is_empty());

    // the client has it
    let path = format!("{CHANGES}/{created}");
    for path in [CHANGES, &path] {
        let etag = account.read(path).await.expect(200).must("ETag").to_owned();
        assert!(etag.starts_with("W/"), "{etag}");
        let again = async || account.request("GET", path).header("If-None-Match", &etag).send().await;
        again().await.expect(304);
        account.delete(ids[2]).await;
        account.create(json!({"title": "new"})).await;
        account.read(path).await.expect(200);
        again().await.expect(200);
    }
}

#[tokio::test]
async fn a_change_says_what_undid_it() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let renamed = change(&account.patch(id, json!({"title": "b"})).await.expect(200)).unwrap();
    let undone_by = async |change: Uuid| shown(&account, change).await["undone_by"].clone();
    let undone = change(&undo(&account, renamed).await).unwrap();
    assert_eq!(undone_by(renamed).await, json!(undone));
    assert_eq!(shown(&account, undone).await["undoes"], json!(renamed));
    let redone = change(&undo(&account, undone).await).unwrap();
    assert_eq!((undone_by(renamed).await, undone_by(undone).await), (Value::Null, json!(redone)));
    let again = change(&undo(&account, renamed).await).unwrap();
    assert_eq!((undone_by(renamed).await, undone_by(undone).await), (json!(again), json!(redone)));

    // in two parts: the latest that stands
    let ids: Vec<Uuid> = (0..2).map(|_| Uuid::new_v4()).collect();
    let create = |id: &Uuid| json!({"type": "CreateTask", "task_id": id, "title": "a"});
    let start = |id: &Uuid| json!({"type": "StartTask", "task_id": id});
    account.batch(&ids.iter().map(create).collect::<Vec<_>>()).await.expect(200);
    let started = change(&account.batch(&ids.iter().map(start).collect::<Vec<_>>()).await.expect(200)).unwrap();
    let completed = change(&account.act(ids[1], "complete").await.expect(200)).unwrap();
    let one = undo(&account, started).await;
    assert_eq!((one.number("/succeeded"), one.number("/failed")), (1, 1));
    let one = change(&one).unwrap();
    undo(&account, completed).await;
    let two = change(&undo(&account, started).await).unwrap();
    assert_eq!((undone_by(started).await, &shown(&account, two).await["tasks"]), (json!(two), &json!(1)));
    undo(&account, two).await;
    assert_eq!(undone_by(started).await, json!(one));
    let both = account.read(CHANGES).await.expect(200);
    let both = both.json()["items"].as_array().unwrap().iter().find(|c| c["id"] == json!(started)).cloned();
    assert_eq!(both.unwrap()["undone_by"], json!(one), "the list says the same");
}

#[tokio::test]
async fn changes_are_an_account_s_own() {
    let account = api().await.account().await;
    let stranger = account.api.account().await;
    let id = account.create(json!({"title": "a"})).await;
    let created = account.read(CHANGES).await.expect(200).uuid("/items/0/id");
    account.patch(id, json!({"title": "b"})).await.expect(200);
    let mine = format!("{CHANGES}/{created}");
    stranger.read(&mine).await.problem(404);
    assert!(listed(&stranger, &format!("{CHANGES}?task_id={id}")).await.is_empty());
    account.read(&format!("{CHANGES}/{}", Uuid::new_v4())).await.problem(404);
    account.read(&format!("{CHANGES}/7")).await.problem(400);
    account.read(&format!("{mine}?limit=1")).await.problem(400);
    for bad in ["limit=0", "limit=201", "task_id=7", "q=a", "cursor=x"] {
        account.read(&format!("{CHANGES}?{bad}")).await.problem(400);
    }
    let cursor = account.read(&format!("{CHANGES}?limit=1")).await.expect(200).string("/next_cursor");
    stranger.read(&format!("{CHANGES}?cursor={cursor}")).await.problem(400);
    account.read(&format!("{CHANGES}?task_id={id}&cursor={cursor}")).await.problem(400);
    let posted = account.request("POST", CHANGES).send().await;
    assert_eq!((posted.problem(405)["code"].clone(), posted.must("Allow")), (json!("method-not-allowed"), "GET,HEAD"));
}

/// A bulk change comes to the projector in several batches.
#[tokio::test]
async fn a_change_of_many_tasks_is_one() {
    let account = api().await.account().await;
    let create = |n: u32| json!({"type": "CreateTask", "task_id": Uuid::new_v4(), "title": format!("{n}")});
    account.batch(&(0..3_000).map(create).collect::<Vec<_>>()).await.expect(200);
    let bulk = json!({"filter": {"status": "pending"}, "command": {"type": "TagTask", "tag": "x"}});
    let asked = account.request("POST", "/api/v1/tasks/bulk").json(&bulk).send().await.expect(202);
    account.job_ended(&asked).await;
    let job = account.read(&format!("/api/v1/jobs/{}", asked.string("/id"))).await.expect(200);
    let id = job.uuid("/change_id");
    let (path, token) = (format!("{CHANGES}/{id}"), job.must("Consistency-Token"));
    // 6,000 events may take longer than a token is waited for
    let change = until("the change is shown", Duration::from_secs(60), || async {
        let answer = account.request("GET", &path).header("Consistency-Token", token).send().await;
        (answer.status != 503).then(|| answer.expect(200).json())
    })
    .await;
    assert_eq!((&change["types"], &change["tasks"]), (&json!({"TaskTagged": 3_000}), &json!(3_000)));
    assert_eq!(listed(&account, CHANGES).await.first(), Some(&id));
}
